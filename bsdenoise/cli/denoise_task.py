"""One file of `bsdenoise denoise`: what is known of it, and its denoised images until they are written."""

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bsdenoise import images
from bsdenoise.cli import paths
from bsdenoise.gaps import FilledFile, Gaps

# Files of more pixels, all images of a stack together, are read, denoised and written in windows: 2^25 RGB pixels are
# 0.1 GB in 8 bits, and several times as much as float32 on their way through the model.
STREAMED_PIXELS = 2**25
ROUNDING = 1e-4  # by which an estimate that was cut may differ from where it was cut


@dataclass(eq=False)
class Task:
    """A file to denoise, and what is to be told of it.

    Attributes:
        job: What to read and to write.
        shape: Shape of its pixels; `None` if its headers cannot be read, which is said when its turn comes.
        lines: What users are told.
        independent_channels: Whether its channels are no colours.
        full_scale: Value of a fully lit pixel, known once the file is open.
        sigmas: Every σ that was the model's own.
        is_float: Whether the file holds floats.
        error: Why it could not be denoised.
        done: How much of it the progress bar has counted.
    """

    job: paths.Job
    shape: tuple[int, ...] | None = None
    independent_channels: bool = False
    full_scale: float = 1.0
    lines: list[str] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)
    is_float: bool = False
    error: BaseException | None = None
    done: int = 0

    @property
    def count(self) -> int:
        """Number of images, as far as it is known."""
        return self.shape[0] if self.shape is not None and len(self.shape) == 4 else 1

    @property
    def image_pixels(self) -> int:
        """Number of pixels of one image, as far as it is known."""
        return 0 if self.shape is None else math.prod(height_and_width(self.shape))

    @property
    def channels(self) -> int:
        """Number of channels, as far as it is known."""
        return self.shape[-1] if self.shape is not None and len(self.shape) > 2 else 1

    @property
    def joint_channels(self) -> int:
        """Number of channels that a model may look at together: 1 where they are independent."""
        return 1 if self.independent_channels else self.channels

    @property
    def is_large(self) -> bool:
        """Whether the file is worked on in windows."""
        return self.count * self.image_pixels > STREAMED_PIXELS

    def note(self, file: images.ImageFile) -> None:
        """Notes what is known once the file is open, and checks that the result can be written.

        Raises:
            ValueError: If it cannot.
        """
        self.shape, self.independent_channels = file.shape, file.independent_channels
        self.is_float, self.full_scale = file.dtype.kind == "f", file.full_scale
        images.check_writable(self.job.target, file.shape, file.dtype)
        notes = (*file.notes, *images.not_kept_in(self.job.target, file))
        self.lines += [f"bsdenoise: note: {self.job.source}: {note}" for note in notes]

    def tell_gaps(self, gaps: Gaps) -> None:
        """Lets users know how many pixels hold no data."""
        if gaps.line is not None:
            self.lines.append(f"bsdenoise: note: {self.job.source}: {gaps.line}")

    def fail(self, error: BaseException) -> None:
        """Remembers why it could not be denoised."""
        self.error = error
        self.sigmas.clear()

    def tell_sigma(self, most: float, origin: str = "estimated") -> None:
        """Lets users know which σ was estimated, in the units of the file, and if it was cut to `most`."""
        form = ".4g" if self.is_float else ".1f"
        low, high = (f"{value * self.full_scale:{form}}" for value in (min(self.sigmas), max(self.sigmas)))
        if max(self.sigmas) >= most * (1 - ROUNDING):
            origin += "; the model was trained up to that: give --sigma if noise is stronger"
        self.lines.append(f"{self.job.source}: sigma {low if low == high else f'{low} to {high}'} ({origin})")


def surveyed(job: paths.Job) -> Task:
    """Reads the shape of a file from its headers."""
    with contextlib.suppress(ValueError, OSError), job.opened() as file:
        return Task(job, file.shape, file.independent_channels)
    return Task(job)


@dataclass(frozen=True)
class Output:
    """A file to write.

    Attributes:
        path: Its name.
        shape: Shape of its pixels.
        dtype: Type of its pixels.
        like: Whose metadata it gets, if any.
        bits: Significant bits of its pixels, if they are fewer than those of the type.
    """

    path: Any
    shape: tuple[int, ...]
    dtype: Any
    like: images.ImageFile | images.Picture | None
    bits: int | None = None

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """Converts an image or a part of it, (h, w, C), to how the file holds it, in one channel as their mean."""
        if self.shape[-1] == 1 and image.shape[-1] > 1 and len(self.shape) > 2:
            image = image.mean(axis=-1, keepdims=True)
        shape = image.shape[:2] if len(self.shape) == 2 else image.shape
        return images.from_unit(image, self.dtype, self.bits).reshape(shape)


def outputs(job: paths.Job, file: images.ImageFile) -> list[Output]:
    """Gives the denoised file, and if asked for the one of its uncertainty.

    The uncertainty is a posterior standard deviation over σ: that of each channel where the format holds numbers, else
    an 8-bit picture, for channels that are no RGB of their mean.
    """
    denoised = Output(job.target, file.shape, file.dtype, file, file.bits)
    if job.std_target is None:
        return [denoised]
    if job.std_target.suffix.lower() in paths.NUMBER_SUFFIXES:
        return [denoised, Output(job.std_target, file.shape, np.dtype(np.float32), file)]
    number = file.shape[:1] if len(file.shape) == 4 else ()
    shape = (*number, *height_and_width(file.shape), file.channels if file.is_rgb else 1)
    return [denoised, Output(job.std_target, shape, np.dtype(np.uint8), None)]


class Collected:
    """The denoised images of a file, and their uncertainties, until all are there. Threads may place images.

    Args:
        job: What to write.
        file: The noisy file.
    """

    def __init__(self, job: paths.Job, file: FilledFile):
        self._outputs = outputs(job, file)
        self._arrays = [np.empty(output.shape, output.dtype) for output in self._outputs]
        self._left = len(file)
        self.gaps = file.gaps
        self._lock = threading.Lock()

    def place(self, index: int, denoised: np.ndarray, ratio: np.ndarray | None) -> bool:
        """Places an image and its uncertainty, (H, W, C); tells whether it was the last that was missing."""
        places = [array[index] if array.ndim == 4 else array for array in self._arrays]
        for output, place, image in zip(self._outputs, places, (denoised, ratio), strict=False):
            if image is not None:
                place[...] = output.pixels(image)
        rows, columns = (slice(0, side) for side in places[0].shape[:2])
        self.gaps.put_back(index, rows, columns, places[0], places[1] if len(places) > 1 else None)
        self.gaps.done(index)
        with self._lock:
            self._left -= 1
            return self._left == 0

    def write(self) -> None:
        """Writes the files."""
        for output, array in zip(self._outputs, self._arrays, strict=True):
            output.path.parent.mkdir(parents=True, exist_ok=True)
            images.write(output.path, array, like=output.like)


class Writes:
    """Files being written: when something ends the work, they are finished, and no other is begun.

    Args:
        concurrency: How many files are written at once, at most.
    """

    def __init__(self, concurrency: int):
        self._concurrency = concurrency
        self._places = threading.BoundedSemaphore(concurrency)
        self._is_over = False

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Encloses the writing of a file, in any thread."""
        with self._places:
            if self._is_over:
                raise InterruptedError("The work has been ended.")
            yield

    @contextlib.contextmanager
    def ended_with(self) -> Iterator[None]:
        """Encloses the whole work, in one thread."""
        try:
            yield
        except BaseException:
            for _ in range(self._concurrency):
                self._places.acquire()
            self._is_over = True
            self._places.release(self._concurrency)
            raise


def height_and_width(shape: tuple[int, ...]) -> tuple[int, int]:
    """Gives H and W of (H, W), (H, W, C) or (N, H, W, C)."""
    return (shape[-3], shape[-2]) if len(shape) > 2 else (shape[0], shape[1])
