"""One file of `bsdenoise denoise`: what is known of it, and its denoised images until they are written."""

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bsdenoise import images
from bsdenoise.images import results
from bsdenoise.images.filled_files import FilledFile, Gaps
from bsdenoise.network import blindness
from bsdenoise.noise import verdicts
from bsdenoise.noise.base import GAIN, SIGMA, Parameter
from bsdenoise.noise.correlated import CorrelatedNoise
from bsdenoise.pipeline import file_plan
from bsdenoise.pipeline.float_units import Units

# Files of more pixels, all images of a stack together, are read, denoised and written in windows: 2^25 RGB pixels are
# 0.1 GB in 8 bits, and several times as much as float32 on their way through the model.
STREAMED_PIXELS = 2**25
CORRELATED = (
    "its noise looks correlated between neighbouring pixels, as after demosaicing, resampling or blurring: sigma is "
    "underestimated, and a model for white noise takes little of it away"
)
WHITENED = (
    "neighbouring pixels share its noise (correlation {:.2f}), as after demosaicing or averaging: two copies "
    "are denoised, with opposite noise added that makes its own white"
)
DOUBTS = {
    verdicts.CORRELATED: "neighbouring pixels share it; without --sigma it is made white first",
    verdicts.SIGNAL_DEPENDENT: "it grows with the signal; without --sigma it is taken as such",
}
ROUNDING = 0.05  # by which an estimate may be beyond the training before that is worth a word


@dataclass(eq=False)
class Task:
    """A file to denoise, and what is to be told of it.

    Attributes:
        job: What to read and to write.
        shape: Shape of its pixels; `None` if its headers cannot be read, which is said when its turn comes.
        lines: What users are told.
        independent_channels: Whether its channels are no colours.
        parameters: The parameters of its model's noise.
        thetas: Noise parameters of its images that were the model's own, (P,) each; intensities are fractions of full
            scale.
        dtype: Type of its pixels.
        bits: Significant bits of its pixels, if they are fewer than those of the type.
        units: Of its floats.
        error: Why it could not be denoised.
        is_noise_estimated: Whether they were estimated; else they are what the model knows.
        is_correlated: Whether neighbouring pixels share its noise, and that is made white.
        blind_spot: With which blind spot it is denoised; `None` for that of the model.
        done: How many pixels of it the progress bar has counted.
    """

    job: file_plan.Job
    shape: tuple[int, ...] | None = None
    independent_channels: bool = False
    lines: list[str] = field(default_factory=list)
    parameters: tuple[Parameter, ...] = ()
    thetas: list[np.ndarray] = field(default_factory=list)
    dtype: np.dtype = np.dtype(np.uint8)
    bits: int | None = None
    units: Units = field(default_factory=Units)
    error: BaseException | None = None
    is_noise_estimated: bool = False
    is_correlated: bool = False
    blind_spot: tuple[int, int] | None = None
    done: float = 0.0

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
    def full_scale(self) -> float:
        """Value of a fully lit pixel: intensities as fractions times this are those in the units of the file."""
        return self.units.scale if self.dtype.kind == "f" else images.full_scale(self.dtype, self.bits)

    @property
    def offset(self) -> float:
        """Intensity in the units of the file that the model is shown as 0."""
        return self.units.offset if self.dtype.kind == "f" else 0.0

    @property
    def kind(self) -> str:
        """Name the kind of its pixels."""
        return "float" if self.dtype.kind == "f" else f"{self.bits or 8 * self.dtype.itemsize}-bit"

    @property
    def is_large(self) -> bool:
        """Whether the file is worked on in windows."""
        return self.count * self.image_pixels > STREAMED_PIXELS

    def note(self, file: images.ImageFile) -> None:
        """Note what is known once the file is open, and check that the result can be written.

        Raises:
            ValueError: If it cannot.
        """
        self.shape, self.independent_channels = file.shape, file.independent_channels
        self.dtype, self.bits = file.dtype, file.bits
        images.check_writable(self.job.target, file.shape, file.dtype)
        notes = (*file.notes, *images.not_kept_in(self.job.target, file))
        self.lines += [f"bsdenoise: note: {self.job.source}: {note}" for note in notes]

    def take_units(self, units: Units) -> None:
        """Note the units of its floats, and let users know if they were fitted."""
        self.units = units
        if units.line is not None:
            self.lines.append(f"bsdenoise: note: {self.job.source}: {units.line}")

    def tell_gaps(self, gaps: Gaps) -> None:
        """Let users know how many pixels hold no data."""
        if gaps.line is not None:
            self.lines.append(f"bsdenoise: note: {self.job.source}: {gaps.line}")

    def tell_correlation(self, found: Sequence[CorrelatedNoise] | None = None) -> None:
        """Let users know that the noise is not white, and what is done about it.

        Args:
            found: The noise, if it is made white.
        """
        text = CORRELATED
        if found is not None:
            text = WHITENED.format(np.mean([noise.neighbours for noise in found]))
        self.lines.append(f"bsdenoise: note: {self.job.source}: {text}")

    def take_blind_spot(self, size: tuple[int, int] | None, of_model: tuple[int, int] | None) -> None:
        """Note with which blind spot it is denoised, and let users know if that is not the one of the model."""
        self.blind_spot = size
        if size is not None and of_model is not None and size != of_model:
            self.lines.append(
                f"bsdenoise: note: {self.job.source}: denoised with a blind spot of {blindness.in_words(size)}, which "
                f"its noise needs; that of the model is {blindness.in_words(of_model)}"
            )

    def tell_doubt(self, kind: str | None) -> None:
        """Let users know that noise of a kind, one of `bsdenoise.noise.verdicts`, does not look white."""
        if kind in DOUBTS:
            self.lines.append(
                f"bsdenoise: note: {self.job.source}: --sigma says that its noise is white, and it looks as if "
                f"{DOUBTS[kind]}"
            )

    def fail(self, error: BaseException) -> None:
        """Remember why it could not be denoised."""
        self.error = error
        self.thetas.clear()

    def take_noise(self, parameters: tuple[Parameter, ...], found: Sequence[np.ndarray]) -> None:
        """Note noise parameters, (B, P) each, that were the model's own."""
        self.parameters = parameters
        self.thetas += [theta for thetas in found for theta in thetas]

    def tell_noise(self, greatest: tuple[float, ...], origin: str = "estimated") -> None:
        """Let users know which noise was estimated, in the units of the file, and if it is beyond `greatest`."""
        if not self.thetas:
            return
        beyond = np.max(self.thetas, axis=0) > np.array(greatest) * (1 + ROUNDING)
        if beyond.any():
            most = zip(self.ranges([np.array(greatest)]).values(), beyond, strict=True)
            origin += f"; the model was trained up to {', '.join(text for text, is_it in most if is_it)}"
        self.lines.append(f"{self.job.source}: {in_words(self.ranges(self.thetas))} ({origin})")

    def in_its_units(self, thetas: Sequence[np.ndarray]) -> list[dict[str, float]]:
        """Return noise parameters (P,) of the model by name, in the units of the file."""
        names = [parameter.name for parameter in self.parameters]
        found = []
        for theta in thetas:
            # White noise has no pedestal, wherever black is.
            offset = 0.0 if GAIN in names and theta[names.index(GAIN)] == 0 else self.offset
            values = (
                one.restored(value, offset, self.full_scale) for one, value in zip(self.parameters, theta, strict=True)
            )
            found.append(dict(zip(names, map(float, values), strict=True)))
        return found

    def ranges(self, thetas: Sequence[np.ndarray]) -> dict[str, str]:
        """Write the range of each noise parameter in the units of the file, which is how flags take them."""
        ranges = {}
        found = self.in_its_units(thetas)
        columns = {one.name: [its[one.name] for its in found] for one in self.parameters}
        is_white = GAIN in columns and not any(columns[GAIN])
        for parameter in self.parameters:
            values = columns[parameter.name]
            if is_white and parameter.name != SIGMA:
                continue  # of white noise, there is nothing else to say
            low, high = (self._in_words(end) for end in (min(values), max(values)))
            ranges[parameter.name] = low if low == high else f"{low} to {high}"
        return ranges

    def _in_words(self, value: float) -> str:
        return f"{value:.1f}" if self.dtype.kind != "f" and value >= 1 else f"{value:.4g}"


def in_words(ranges: dict[str, str]) -> str:
    """Write ranges of noise parameters, such as "sigma 20 to 25"."""
    return ", ".join(f"{name} {text}" for name, text in ranges.items())


def surveyed(job: file_plan.Job) -> Task:
    """Read the shape of a file from its headers."""
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
        units: Of its floats.
    """

    path: Any
    shape: tuple[int, ...]
    dtype: Any
    like: images.ImageFile | images.Picture | None
    bits: int | None = None
    units: Units = field(default_factory=Units)

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """Convert an image or a part of it, (h, w, C), to how the file holds it, in one channel as their mean."""
        if self.shape[-1] == 1 and image.shape[-1] > 1 and len(self.shape) > 2:
            image = image.mean(axis=-1, keepdims=True)
        shape = image.shape[:2] if len(self.shape) == 2 else image.shape
        image = self.units.from_model(image, self.dtype)
        return images.from_unit(image, self.dtype, self.bits).reshape(shape)


def outputs(job: file_plan.Job, file: images.ImageFile, units: Units) -> list[Output]:
    """Return the denoised file, and if asked for the one of its uncertainty.

    The uncertainty is a posterior standard deviation over that of the noise: that of each channel where the format
    holds numbers, else an 8-bit picture, for channels that are no RGB of their mean.
    """
    denoised = Output(job.target, file.shape, file.dtype, file, file.bits, units)
    if job.std_target is None:
        return [denoised]
    if job.std_target.suffix.lower() in file_plan.NUMBER_SUFFIXES:
        return [denoised, Output(job.std_target, file.shape, np.dtype(np.float32), file)]
    number = file.shape[:1] if len(file.shape) == 4 else ()
    shape = (*number, *height_and_width(file.shape), file.channels if file.is_rgb else 1)
    return [denoised, Output(job.std_target, shape, np.dtype(np.uint8), None)]


class Collected:
    """The denoised images of a file, and their uncertainties, until all are there. Threads may place images.

    Args:
        job: What to write.
        file: The noisy file.
        units: Of its floats.
    """

    def __init__(self, job: file_plan.Job, file: FilledFile, units: Units):
        self._job = job
        self._outputs = outputs(job, file, units)
        self._arrays = [np.empty(output.shape, output.dtype) for output in self._outputs]
        self._left = len(file)
        self.gaps = file.gaps
        self._lock = threading.Lock()

    def place(self, index: int, denoised: np.ndarray, ratio: np.ndarray | None) -> bool:
        """Place an image and its uncertainty, (H, W, C); tells whether it was the last that was missing."""
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

    def write(self, writes: "Writes") -> None:
        """Write the files, once there is a place."""
        with writes.one(self._job):
            for output, array in zip(self._outputs, self._arrays, strict=True):
                images.write(output.path, array, like=output.like)


class Writes:
    """Files being written: when something ends the work, they are finished, and no other is begun.

    What is written is a result: where names do not tell, it is listed as one.

    Args:
        concurrency: How many files are written at once, at most.
    """

    def __init__(self, concurrency: int):
        self._concurrency = concurrency
        self._places = threading.BoundedSemaphore(concurrency)
        self._is_over = False
        self._lists = results.Lists()

    @contextlib.contextmanager
    def one(self, job: file_plan.Job) -> Iterator[None]:
        """Enclose the writing of a file and of its uncertainty, in any thread."""
        with self._places:
            if self._is_over:
                raise InterruptedError("The work has been ended.")
            self.prepare(job)
            yield

    def prepare(self, job: file_plan.Job) -> None:
        """Make the folder of what is about to be written, and list it there as a result."""
        for target in job.targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not job.is_beside:
                self._lists.add(target)

    @contextlib.contextmanager
    def ended_with(self) -> Iterator[None]:
        """Enclose the whole work, in one thread."""
        try:
            yield
        except BaseException:
            for _ in range(self._concurrency):
                self._places.acquire()
            self._is_over = True
            self._places.release(self._concurrency)
            raise


def height_and_width(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return H and W of (H, W), (H, W, C) or (N, H, W, C)."""
    return (shape[-3], shape[-2]) if len(shape) > 2 else (shape[0], shape[1])
