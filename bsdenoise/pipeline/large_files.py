"""A file that need not fit into memory: read, denoised and written in windows."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from bsdenoise import images, progress
from bsdenoise.inference import tiling, whitening
from bsdenoise.pipeline.denoising_model import Model, joined, parts_of
from bsdenoise.pipeline.file_task import Task, Writes, height_and_width, outputs


def denoise(task: Task, model: Model, advance: Callable[[Task, float], None], writes: Writes) -> None:
    """Denoise a file.

    Args:
        task: The file.
        model: A model of this process.
        advance: Told of pixels that are denoised.
        writes: What is written is listed there.

    Raises:
        ValueError: If it cannot be read, denoised, or written in that format.
        OSError: If it cannot be opened or written.
    """
    with task.job.opened() as file, contextlib.ExitStack() as targets:
        task.note(file)
        model.check_file(file)
        task.take_units(model.units_of(file))
        writes.prepare(task.job)
        written = [
            (output, targets.enter_context(images.writing(output.path, output.shape, output.dtype, output.like)))
            for output in outputs(task.job, file, task.units)
        ]
        found: list[np.ndarray] = []
        for index in range(len(file)):
            image = _Image(task, file, index, model)
            if index == 0:
                task.take_blind_spot(model.blind_spot_for(image.middle()), model.blind_spot)
                image.model = model = model.with_blind_spot(task.blind_spot)
                task.tell_doubt(model.doubt(image.middle()))
            if index == 0 and model.looks_correlated(image.middle()):
                noise = model.correlated_noise(image.middle())
                task.is_correlated = noise is not None
                task.tell_correlation(noise)

            passes = image.num_parts * (whitening.COPIES if task.is_correlated else 1)

            def advance_image(pixels: float, passes: int = passes) -> None:
                advance(task, pixels / passes)

            with progress.watched_by(advance_image):
                for rows, columns, maps in _windows(image, found, task.is_correlated):
                    parts = [output.pixels(pixels) for (output, _), pixels in zip(written, maps, strict=True)]
                    file.gaps.put_back(index, rows, columns, parts[0], parts[1] if len(parts) > 1 else None)
                    for (_, target), part in zip(written, parts, strict=True):
                        target.write_window(index, rows, columns, part)
    task.tell_gaps(file.gaps)
    task.take_noise(model.parameters, found)
    if model.estimates_noise:
        is_part = max(height_and_width(file.shape)) > tiling.MIDDLE
        task.tell_noise(model.greatest, "estimated in its middle" if is_part else "estimated")


class _Image:
    """One image of an open file, which a model takes at once or channel by channel.

    Args:
        task: The file.
        file: The same, open.
        index: The image's number there.
        model: The model.
    """

    def __init__(self, task: Task, file: images.ImageFile, index: int, model: Model):
        self.model = model
        self.full_scale, self.offset = task.full_scale, task.offset
        self.height, self.width = height_and_width(file.shape)
        self.num_parts = file.channels // model.channels
        self._units = task.units
        self._file = file
        self._index = index

    @property
    def parts_shape(self) -> tuple[int, int, int, int]:
        """What the model sees, (B, H, W, C)."""
        return self.num_parts, self.height, self.width, self.model.channels

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Read a window, (B, h, w, C), as the model takes it."""
        rows, columns = slice(*rows.indices(self.height)), slice(*columns.indices(self.width))
        pixels = self._file.read_window(self._index, rows, columns)
        return parts_of(self.model.pixels(pixels, self._file, self._units), self.model.channels)

    def middle(self) -> np.ndarray:
        """Read the part from which the noise is estimated."""
        return self.read(*tiling.middle(self.height, self.width, tiling.MIDDLE))


def _windows(
    image: _Image, found: list[np.ndarray], is_correlated: bool
) -> Iterator[tuple[slice, slice, list[np.ndarray]]]:
    """Denoise an image.

    Args:
        image: The image.
        found: Noise parameters (B, P) that were the model's own are added to it.
        is_correlated: Whether neighbouring pixels share its noise.

    Yields:
        Rows and columns that are done, and what is written there, (h, w, C): the denoised pixels, and if asked for the
        posterior standard deviation over that of the noise.
    """
    model = image.model
    noise = model.correlated_noise(image.middle()) if is_correlated else None
    if noise is not None:
        found.append(model.theta_of_correlated(noise))
        for (rows, columns), maps in model.windows_correlated(image.read, image.parts_shape, noise):
            yield rows, columns, [*map(joined, maps)]
        return
    theta = model.noise(image.middle(), image.full_scale, image.offset) if model.has_noise else None
    if theta is not None and model.uses_own_noise:
        found.append(theta)
    options = model.told(theta) | model.options
    for (rows, columns), moments in model.denoiser.windows(image.read, image.parts_shape, **options):
        maps = [joined(moments[0])]
        if model.gives_std:
            maps.append(joined(model.over_noise(moments[2], moments[1], theta)))
        yield rows, columns, maps
