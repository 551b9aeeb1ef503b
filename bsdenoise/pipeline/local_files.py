"""Files denoised here: while the model computes, the next files are decoded, and the last ones encoded and written.

Everything is drawn from its end, by the thread that computes: images that are written are taken from those that are
computed, and those from the images that are read. Between the three stand threads that are given no more ahead than a
number of pixel values, so that memory stays bounded whatever the sizes.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bsdenoise import images, progress
from bsdenoise.inference import whitening
from bsdenoise.parallel import in_order
from bsdenoise.pipeline import large_files
from bsdenoise.pipeline.denoising_model import Denoised, Model, joined, parts_of
from bsdenoise.pipeline.file_task import Collected, Task, Writes

READERS = 2  # decoding is several times as fast as encoding
WRITERS = min(8, os.cpu_count() or 1)
# Pixel values that wait, decoded or to be encoded: as float32 they are 64 MB.
WAITING_VALUES = 2**24
LEAST_VALUES = 2**12  # of an image, so that a bounded number of tiny ones waits
# A larger batch gains nothing any more: its pixels are worth more than the call.
BATCH_PIXELS = 2**18
LOOK_AHEAD_PIXELS = 2 * BATCH_PIXELS  # among which images of equal shape are looked for


@dataclass(eq=False)
class _Image:
    """One image on its way.

    Attributes:
        task: The file that it is of.
        index: Its number there.
        is_last: Whether no other of that file follows.
        parts: What the model takes of it, (B, H, W, C).
        denoised: What the model made of that.
        is_ready: Whether nothing is left to compute.
    """

    task: Task
    index: int
    is_last: bool
    parts: np.ndarray | None = None
    denoised: Denoised | None = None
    is_ready: bool = False

    @property
    def pixels(self) -> int:
        """How many pixels are to be computed."""
        if self.is_ready:
            return 0
        return LOOK_AHEAD_PIXELS if self.parts is None else int(np.prod(self.parts.shape[:3]))

    def goes_with(self, other: "_Image") -> bool:
        """Tell whether both can be computed in one batch."""
        if self.parts is None or other.parts is None or self.is_ready:
            return False
        if self.task.is_correlated or other.task.is_correlated:
            return False
        # Noise that is given has the units of the files.
        needs = [(one.task.full_scale, one.task.offset, one.task.blind_spot) for one in (self, other)]
        if needs[0] != needs[1]:
            return False
        return (self.parts.shape[1:], self.parts.dtype) == (other.parts.shape[1:], other.parts.dtype)


class Local:
    """Denoises files with a model of this process.

    Args:
        model: The model. It is asked in the thread that runs all this.
        advance: Told of pixels of a file that are denoised.
        writes: Encloses what is written.
    """

    def __init__(self, model: Model, advance: Callable[[Task, float], None], writes: Writes):
        self._model = model
        self._advance = advance
        self._writes = writes
        self._files: dict[Task, images.ImageFile] = {}
        self._collected: dict[Task, Collected] = {}

    def run(self, tasks: list[Task]) -> Iterator[Task]:
        """Denoise files.

        Yields:
            The files in their order, written, or with their `error`.
        """
        computed = self._computed(self._read(tasks))
        finished = in_order(self._finish, computed, WRITERS, _cost_of_image, WAITING_VALUES, prompt=True)
        for image, future in finished:
            task, error = image.task, future.exception()
            if task.error is None:
                task.error = error
            if image.is_last:
                self._files.pop(task, None)
                self._collected.pop(task, None)
                yield task

    # --- reading -----------------------------------------------------------------------------------------------------

    def _read(self, tasks: list[Task]) -> Iterator[_Image]:
        """Return all images of all files in their order."""
        for task, future in in_order(self._opened, tasks, READERS, _cost_of_first, WAITING_VALUES):
            error = future.exception()
            if error is not None:
                task.fail(error)
                yield _Image(task, 0, is_last=True, is_ready=True)
            elif task.is_large or task.count == 1:
                yield _Image(task, 0, is_last=True, parts=future.result())
            else:
                yield from self._read_stack(task)

    def _opened(self, task: Task) -> np.ndarray | None:
        """Read the image of a file; of a stack and a large file, which are read later, only what else it holds."""
        if task.is_large:
            return None
        with task.job.opened() as file:
            task.note(file)
            self._model.check_file(file)
            task.take_units(self._model.units_of(file))
            self._files[task] = file
            self._collected[task] = Collected(task.job, file, task.units)
            return None if task.is_large or len(file) > 1 else self._parts(task, file, 0)

    def _parts(self, task: Task, file: images.ImageFile, index: int) -> np.ndarray:
        """Read an image, as the model takes it."""
        return parts_of(self._model.pixels(file.read(index), file, task.units), self._model.channels)

    def _read_stack(self, task: Task) -> Iterator[_Image]:
        """Return the images of a stack, up to the first that fails in any way."""
        with task.job.opened() as file:
            self._collected[task].gaps = file.gaps

            def read(index: int) -> np.ndarray:
                return self._parts(task, file, index)

            last = len(file) - 1
            for index, future in in_order(read, range(len(file)), 1, lambda _: _cost_of_first(task), WAITING_VALUES):
                error = future.exception()
                if error is not None and task.error is None:
                    task.fail(error)
                if task.error is not None:
                    yield _Image(task, index, is_last=True, is_ready=True)
                    return
                yield _Image(task, index, index == last, future.result())

    # --- computing ---------------------------------------------------------------------------------------------------

    def _computed(self, found: Iterable[_Image]) -> Iterator[_Image]:
        """Compute images, those of equal shape together, and return them in their order."""
        window: deque[_Image] = deque()
        for image in found:
            if image.index == 0 and image.parts is not None:
                self._look(image)
            window.append(image)
            while sum(image.pixels for image in window) >= LOOK_AHEAD_PIXELS:
                self._compute_first(window)
                yield from _ready(window)
        while window:
            self._compute_first(window)
            yield from _ready(window)

    def _look(self, image: _Image) -> None:
        """Find out from the first image of a file whether neighbouring pixels share its noise."""
        assert image.parts is not None
        image.task.take_blind_spot(self._model.blind_spot_for(image.parts), self._model.blind_spot)
        model = self._model.with_blind_spot(image.task.blind_spot)
        image.task.tell_doubt(model.doubt(image.parts))
        if model.looks_correlated(image.parts):
            found = model.correlated_noise(image.parts)
            image.task.is_correlated = found is not None
            image.task.tell_correlation(found)

    def _compute_first(self, window: deque[_Image]) -> None:
        """Compute the first image that is not ready, and of the others what goes with it into one batch."""
        first = next((image for image in window if not image.is_ready), None)
        if first is None:
            return
        if first.task.error is None and first.parts is None:
            self._stream(first)
        elif first.task.error is None:
            batch, room = [], BATCH_PIXELS
            for image in window:
                if image is first or (image.goes_with(first) and image.pixels <= room):
                    batch.append(image)
                    room -= image.pixels
            self._denoise(batch)
        first.parts, first.is_ready = None, True

    def _stream(self, image: _Image) -> None:
        try:
            large_files.denoise(image.task, self._model, self._advance, self._writes)
        except Exception as error:
            image.task.fail(error)

    def _denoise(self, batch: list[_Image]) -> None:
        """Denoise images of equal shape."""
        try:
            found = [image.parts for image in batch if image.parts is not None]
            parts = np.concatenate(found) if len(found) > 1 else found[0]
            passes = whitening.COPIES if batch[0].task.is_correlated else 1
            with self._watched(batch, passes * len(parts)):
                denoised = self._denoised(parts, batch[0].task)
        except Exception as error:
            if len(batch) > 1:  # one bad image must not stop the others
                for image in batch:
                    self._denoise([image])
            else:
                batch[0].task.fail(error)
                batch[0].parts, batch[0].is_ready = None, True
            return
        start = 0
        for image in batch:
            assert image.parts is not None
            stop = start + len(image.parts)
            ratios = None if denoised.ratios is None else denoised.ratios[start:stop]
            own_noise = None if denoised.own_noise is None else denoised.own_noise[start:stop]
            if image.task.error is None:
                image.denoised = Denoised(denoised.images[start:stop], ratios, own_noise)
                image.task.take_noise(self._model.parameters, [] if own_noise is None else [own_noise])
                if image.is_last and self._model.estimates_noise:
                    image.task.tell_noise(self._model.greatest)
            image.parts, image.is_ready = None, True
            start = stop

    def _denoised(self, parts: np.ndarray, task: Task) -> Denoised:
        model = self._model.with_blind_spot(task.blind_spot)
        found = model.correlated_noise(parts) if task.is_correlated else None
        if found is None:
            return model.denoise(parts, task.full_scale, task.offset)
        return model.denoise_correlated(parts, found)

    @contextlib.contextmanager
    def _watched(self, batch: list[_Image], num_parts: int) -> Iterator[None]:
        """Enclose the computation of a batch: one image counts while it is at work, several once they are done."""
        if len(batch) == 1:
            task = batch[0].task
            with progress.watched_by(lambda pixels: self._advance(task, pixels / num_parts)):
                yield
            return
        yield
        for image in batch:
            self._advance(image.task, image.task.image_pixels)

    # --- writing -----------------------------------------------------------------------------------------------------

    def _finish(self, image: _Image) -> None:
        """Place an image in the result of its file, and write that with the last one."""
        task, denoised = image.task, image.denoised
        image.denoised = None
        if task.error is not None:
            raise task.error
        if denoised is None:  # streamed: it is written
            return
        ratio = None if denoised.ratios is None else joined(denoised.ratios)
        collected = self._collected[task]
        if collected.place(image.index, joined(denoised.images), ratio):
            task.tell_gaps(collected.gaps)
            collected.write(self._writes)


def _ready(window: deque[_Image]) -> Iterator[_Image]:
    """Take the images away that are ready and have no other before them."""
    while window and window[0].is_ready:
        yield window.popleft()


def _cost_of_first(task: Task) -> int:
    """Return the values that are read of a file at once; of large ones none are, before their turn."""
    channels = 1 if task.shape is None or len(task.shape) == 2 else task.shape[-1]
    return LEAST_VALUES if task.is_large else max(LEAST_VALUES, task.image_pixels * channels)


def _cost_of_image(image: _Image) -> int:
    return LEAST_VALUES if image.denoised is None else max(LEAST_VALUES, image.denoised.images.size)
