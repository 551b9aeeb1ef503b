"""A file that need not fit into memory: read, denoised and written in windows."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bsdenoise import images, tiling
from bsdenoise.cli.denoise_model import Model, joined, over_sigma
from bsdenoise.cli.denoise_task import Task, height_and_width, outputs


def denoise(task: Task, model: Model, advance: Callable[[Task, int], None]) -> None:
    """Denoises a file.

    Args:
        task: The file.
        model: A model of this process.
        advance: Told of each window that is written, with its number of pixels.

    Raises:
        ValueError: If it cannot be read, denoised, or written in that format.
        OSError: If it cannot be opened or written.
    """
    with task.job.opened() as file, contextlib.ExitStack() as targets:
        task.note(file)
        model.check_file(file)
        task.job.target.parent.mkdir(parents=True, exist_ok=True)
        written = [
            (output, targets.enter_context(images.writing(output.path, output.shape, output.dtype, output.like)))
            for output in outputs(task.job, file)
        ]
        sigmas: list[float] = []
        for index in range(len(file)):
            for rows, columns, maps in _windows(_Image(file, index, model), sigmas):
                parts = [output.pixels(pixels) for (output, _), pixels in zip(written, maps, strict=True)]
                file.gaps.put_back(index, rows, columns, parts[0], parts[1] if len(parts) > 1 else None)
                for (_, target), part in zip(written, parts, strict=True):
                    target.write_window(index, rows, columns, part)
                advance(task, (rows.stop - rows.start) * (columns.stop - columns.start))
    task.tell_gaps(file.gaps)
    task.sigmas = sigmas
    if sigmas and model.estimates_sigma:
        is_part = max(height_and_width(file.shape)) > tiling.MIDDLE
        task.tell_sigma(model.most_sigma, "estimated in its middle" if is_part else "estimated")


class _Image:
    """One image of an open file, which a model takes at once or channel by channel.

    Args:
        file: The file.
        index: The image's number there.
        model: The model.
    """

    def __init__(self, file: images.ImageFile, index: int, model: Model):
        self.model = model
        self.full_scale = file.full_scale
        self.height, self.width = height_and_width(file.shape)
        channels = 1 if len(file.shape) == 2 else file.shape[-1]
        self.parts = [slice(first, first + model.channels) for first in range(0, channels, model.channels)]
        self._file = file
        self._index = index

    @property
    def part_shape(self) -> tuple[int, int, int]:
        """What the model sees."""
        return self.height, self.width, self.model.channels

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Reads a window, (h, w, C), as the model takes it."""
        rows, columns = slice(*rows.indices(self.height)), slice(*columns.indices(self.width))
        pixels = self.model.pixels(self._file.read_window(self._index, rows, columns), self._file)
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]

    def middle(self) -> np.ndarray:
        """Reads the part from which σ is estimated."""
        return self.read(*tiling.middle(self.height, self.width, tiling.MIDDLE))


def _windows(image: _Image, sigmas: list[float]) -> Iterator[tuple[slice, slice, list[np.ndarray]]]:
    """Denoises an image.

    Args:
        image: The image.
        sigmas: Every σ that was the model's own is added to it.

    Yields:
        Rows and columns that are done, and what is written there, (h, w, C): the denoised pixels, and if asked for the
        posterior standard deviation over σ.
    """
    model = image.model
    own: list[Any] = [None] * len(image.parts)
    if model.has_sigma:
        middle = image.middle()
        sigmas_of_parts = (model.sigma(middle[np.newaxis, ..., part], image.full_scale) for part in image.parts)
        own = [float(np.ravel(np.asarray(sigma))[0]) for sigma in sigmas_of_parts]
        if model.uses_own_sigma:
            sigmas += own
    block: tuple[slice, slice, np.ndarray] | None = None

    def read(rows: slice, columns: slice) -> np.ndarray:
        nonlocal block
        block = rows, columns, image.read(rows, columns)
        return np.ascontiguousarray(block[2][..., image.parts[0]])

    # The model chooses the blocks for the first channels; the others follow, so that all are written together.
    done = model.denoiser.windows(read, image.part_shape, sigma=own[0], **model.options)
    for (rows, columns), moments in done:
        results = [_result(model, moments, own[0])]
        for part, sigma in list(zip(image.parts, own, strict=True))[1:]:
            assert block is not None
            above, left = rows.start - block[0].start, columns.start - block[1].start
            inner = (slice(above, above + rows.stop - rows.start), slice(left, left + columns.stop - columns.start))
            denoised, ratio = model.denoise_with(np.ascontiguousarray(block[2][..., part]), sigma)
            results.append((denoised[inner], None if ratio is None else ratio[inner]))
        denoised = joined(np.stack([result for result, _ in results]))
        ratios = [ratio for _, ratio in results if ratio is not None]
        yield rows, columns, [denoised, joined(np.stack(ratios))] if ratios else [denoised]


def _result(model: Model, moments: Any, sigma: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Gives what `Model.denoise_with` gives, from the moments of a window."""
    if not model.gives_std:
        return moments[0], None
    denoised, _, variance = moments
    return denoised, over_sigma(np.sqrt(np.maximum(variance, 0.0)), sigma)
