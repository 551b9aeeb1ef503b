"""Models that are adapted to the files that they are about to denoise (`--adapt`)."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bsdenoise import images
from bsdenoise.config import DenoiseConfig
from bsdenoise.images import missing
from bsdenoise.pipeline.denoising_model import Model, parts_of
from bsdenoise.pipeline.file_task import Task, height_and_width

EACH, ALL = "each", "all"  # what `--adapt` takes: to each file by itself, or to all of them together
MAX_IMAGES = 32  # that a model is adapted to at once: evenly spread ones of many
WHOLE_PIXELS = 2**22  # larger images are looked at in windows
WINDOW, WINDOWS = 1024, 2  # side in pixels, and how many there are in a row and in a column

# Encloses an adaptation that is named, and gives who is told how much of it is done, from 0 to 1.
Showing = Callable[[str], contextlib.AbstractContextManager[Callable[[float], object]]]


class Adapting:
    """Adapts a model as the flags say.

    Args:
        model: A model of this process.
        config: The flags.
        showing: Encloses an adaptation, and shows how far it is.
        note: Told of what there is to know of all files together.

    Raises:
        ValueError: If the model cannot be adapted.
    """

    def __init__(self, model: Model, config: DenoiseConfig, showing: Showing, note: Callable[[str], object]):
        if model.is_served:
            raise ValueError("--adapt needs a model here: a served one cannot go on learning.")
        from bsdenoise import adaptation

        self._model = model
        self._config = config
        self._showing = showing
        self._note = note
        self._adapter = adaptation.Adapter(model.denoiser)
        # One for all files, so that what is compiled is compiled once.
        self._copy = model.denoiser.with_network(adaptation.copy_of(model.denoiser.network))
        self._adapted = copy.copy(model)
        self._adapted.denoiser = self._copy

    def groups(self, tasks: Sequence[Task]) -> Iterator[tuple[Model, list[Task]]]:
        """Adapt the model to files.

        Yields:
            An adapted model, which is another one once the next is asked for, and the files that are its own.
        """
        for its_tasks in [[task] for task in tasks] if self._config.adapt == EACH else [[*tasks]]:
            yield self._adapt(its_tasks), its_tasks

    def _adapt(self, tasks: list[Task]) -> Model:
        """Adapt the model to some files; those that cannot be read are left to whoever denoises them."""
        name = tasks[0].job.source.name if len(tasks) == 1 else f"{len(tasks)} files"
        weights, words = self._model.denoiser.network.get_weights(), None
        with self._showing(f"adapting to {name}") as report:
            shown = [shown for task in _spread(tasks) for shown in self._shown(task, len(tasks))]
            if shown:
                weights, words = self._learnt(shown, weights, report)
        self._copy.network.set_weights(weights)
        if words is not None and self._config.adapt == ALL:
            self._note(words)
        elif words is not None:
            tasks[0].lines.append(f"bsdenoise: note: {tasks[0].job.source}: {words}")
        return self._adapted

    def _learnt(
        self, shown: list[Any], weights: list[np.ndarray], report: Callable[[float], object]
    ) -> tuple[list[np.ndarray], str]:
        """Return the weights after the steps, and a line on them."""
        config = self._config
        try:
            found = self._adapter.adapted(shown, config.adapt_steps, config.adapt_seconds, config.adapt_seed, report)
        except ValueError as error:  # too few pixels
            return weights, f"not adapted: {error}"
        return found.weights, f"adapted: {found.in_words()}"

    def _shown(self, task: Task, num_tasks: int) -> list[Any]:
        """Return images of a file as the network is shown them."""
        with contextlib.suppress(ValueError, OSError), task.job.opened() as file:
            self._model.check_file(file)
            units = self._model.units_of(file)
            scale, offset = (units.scale, units.offset) if file.dtype.kind == "f" else (None, 0.0)
            scale = images.full_scale(file.dtype, file.bits) if scale is None else scale
            shown: list[Any] = []
            for index in _spread(range(len(file)), max(1, MAX_IMAGES // num_tasks)):
                for window in _windows(*height_and_width(file.shape)):
                    array = file.read(index) if window is None else file.read_window(index, *window)
                    pixels = images.to_unit(self._model.pixels(array, file, units))
                    gaps = file.gaps.where(index)
                    shown += as_shown(self._model, missing.with_nan(pixels, gaps), scale, offset)
            return shown
        return []


def as_shown(model: Model, pixels: np.ndarray, scale: float, offset: float) -> list[Any]:
    """Return an image as the model's network is shown it when it is denoised, a list of `bsdenoise.adaptation.Shown`.

    Args:
        model: The model.
        pixels: (H, W, C) or (H, W), floats as the model takes them; NaN where nothing was measured.
        scale: Full scale of its file.
        offset: Intensity of its file that is 0.
    """
    parts = parts_of(pixels, model.channels)
    plain = np.stack([missing.filled(part) for part in parts])
    noise: Any = model.correlated_noise(plain) if model.looks_correlated(plain) else None
    if noise is None and not model.uses_own_noise:
        noise = model.noise(plain, scale, offset)
    shown: list[Any] = model.denoiser.as_shown([*parts], noise=noise)
    return shown


def _spread(items: Sequence[Any], most: int = MAX_IMAGES) -> list[Any]:
    """Return all items, or so many that are evenly spread."""
    if len(items) <= most:
        return [*items]
    return [items[index] for index in np.linspace(0, len(items) - 1, most).round().astype(int)]


def _windows(height: int, width: int) -> list[tuple[slice, slice] | None]:
    """Return what is read of an image: all of it, `None`, or some windows."""
    if height * width <= WHOLE_PIXELS:
        return [None]
    return [(rows, columns) for rows in _spans(height) for columns in _spans(width)]


def _spans(side: int) -> list[slice]:
    """Return parts of a side: all of it, or some that are evenly spread."""
    if side <= WINDOW * WINDOWS:
        return [slice(0, side)]
    starts = (np.arange(WINDOWS) + 0.5) / WINDOWS * side - WINDOW / 2
    return [slice(int(start), int(start) + WINDOW) for start in starts]
