"""SOURCE → noisy training crops.

Example k of a run is a function of (seed, k) alone: which image, which crop, which noise. So a run that is continued
at any step sees what it would have seen, without touching the images before; and the number of threads or devices
changes nothing.
"""

import functools
import statistics
import threading
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf

from bsdenoise import images
from bsdenoise.noise import GaussianNoise, estimate_sigma

# First entries of random seeds, so that no two purposes share a stream.
_ORDER, _EXAMPLE, _FIXED_NOISE, _HELD_OUT = range(4)
SAMPLE_SIZE = 24  # images looked at before training: their type, and how much noise they show
MAX_REPORTS = 30  # images that are left out with a line each
MIN_ESTIMATE_SIZE = 16  # pixels on a side below which noise is not estimated


class Source(Protocol):
    """A numbered set of images."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Names an image, for messages."""

    def read(self, index: int) -> np.ndarray:
        """Reads (H, W) or (H, W, C), uint8, uint16 or float; raises ValueError or OSError for a broken one."""


@dataclass(frozen=True)
class FileSource:
    """Image files."""

    paths: list[Path]

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def name(self, index: int) -> str:
        """Gives the path."""
        return str(self.paths[index])

    def read(self, index: int) -> np.ndarray:
        """Decodes one file."""
        array = images.read_array(self.paths[index])
        if array.ndim > 3:
            raise ValueError(f"{self.paths[index]}: a stack of images; give it as SOURCE by itself.")
        return array


@dataclass(frozen=True)
class ArraySource:
    """Images of one `.npy` file, (N, H, W), (N, H, W, C) or a single (H, W), (H, W, 3); read as they are needed."""

    path: Path
    array: np.ndarray

    @classmethod
    def open(cls, path: Path) -> "ArraySource":
        """Maps the file into memory."""
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path}: not a readable .npy file ({error}).") from error
        single = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3))
        array = array[np.newaxis] if single else array
        if array.ndim not in (3, 4) or array.size == 0:
            raise ValueError(f"{path}: expected images (N, H, W) or (N, H, W, C). Received: shape={array.shape}.")
        try:
            images.full_scale(array.dtype)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return cls(path, array)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.array)

    def name(self, index: int) -> str:
        """Gives the path and the number."""
        return f"{self.path}[{index}]"

    def read(self, index: int) -> np.ndarray:
        """Reads one image."""
        return np.array(self.array[index])


def open_source(source: str) -> Source:
    """Opens a folder (searched recursively), a glob, an image file or an `.npy` file.

    Raises:
        ValueError: If nothing is there, or no image.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() == ".npy":
        return ArraySource.open(path)
    return FileSource(images.find(source))


@dataclass(frozen=True)
class Sample:
    """What a look at some of the images told.

    Attributes:
        channels: Number of channels of most images.
        full_scale: Full scale of the first readable image's pixel type.
        sigmas: Noise estimates, as fractions of full scale.
    """

    channels: int
    full_scale: float
    sigmas: list[float]

    @property
    def median_sigma(self) -> float | None:
        """Median of the noise estimates; `None` if there is none."""
        return float(np.median(self.sigmas)) if self.sigmas else None


def look_at(source: Source, relative_noise: bool) -> Sample:
    """Reads a few images, spread over the source.

    Args:
        source: The images.
        relative_noise: Whether the noise SPEC is a fraction of full scale, so that bit depths may differ.

    Raises:
        ValueError: If none can be read, or bit depths differ where the SPEC is in the files' own units.
    """
    channels, full_scale, first, sigmas = [], 0.0, "", []
    for index in np.unique(np.linspace(0, len(source) - 1, SAMPLE_SIZE).astype(int)):
        try:
            array = source.read(index)
        except (ValueError, OSError):
            continue  # reported when training meets it
        channels.append(array.shape[2] if array.ndim == 3 else 1)
        scale = images.full_scale(array.dtype)
        if not full_scale:
            full_scale, first = scale, source.name(index)
        elif scale != full_scale and not relative_noise:
            raise ValueError(
                f"{source.name(index)} and {first} have different bit depths: "
                "give the noise as a fraction of full scale, such as gaussian:25/255."
            )
        if min(array.shape[:2]) >= MIN_ESTIMATE_SIZE:
            unit = images.to_unit(array if array.ndim == 3 else array[..., np.newaxis])
            sigmas.append(float(estimate_sigma(unit[np.newaxis])[0]))
    if not full_scale:
        raise ValueError(f"None of the images could be read; the first is {source.name(0)}.")
    return Sample(statistics.mode(channels), full_scale, sigmas)


@dataclass
class TrainingImages:
    """Examples for training and validation, drawn from a source.

    Args:
        source: The images.
        channels: Number of channels of an example; 1 turns RGB into luminance.
        noise: The noise model.
        corrupt: "fresh" draws noise anew at each visit; "fixed" gives each image one noise realisation for ever,
            whatever the seed; `None` takes images as noisy already.
        crop: Side of the square crops, in pixels.
        full_scale: Full scale of the files' pixel type if all must share it, else `None`.
        seed: Seed of order, crops and fresh noise.
        augment: Whether crops are mirrored and turned at random.
        num_held_out: Number of images kept for validation.
        report: Called with one line for each image that is left out.
        failure: Set when no image is left to train on: the reader threads' own error, for the main thread.
    """

    source: Source
    channels: int
    noise: GaussianNoise
    corrupt: str | None
    crop: int
    full_scale: float | None = None
    seed: int = 0
    augment: bool = False
    num_held_out: int = 0
    report: Callable[[str], None] = warnings.warn
    failure: ValueError | None = None
    _left_out: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self):
        """Splits the images into those to train on and those held out."""
        shuffled = np.random.default_rng((_HELD_OUT, len(self.source))).permutation(len(self.source))
        self.held_out = np.sort(shuffled[: self.num_held_out])
        self.training = np.sort(shuffled[self.num_held_out :])
        self._order = functools.lru_cache(maxsize=3)(self._shuffle)

    def example(self, number: int) -> tuple[np.ndarray, np.float32]:
        """Makes training example `number` of the run: a noisy crop (crop, crop, C), and its σ."""
        rng = np.random.default_rng((self.seed, _EXAMPLE, number))
        index, image = self._pick(number)
        sigma = np.float32(self.noise.draw_sigma(rng))
        if self.corrupt == "fixed":
            image, sigma = self._corrupt_for_ever(image)
        top, left = (int(rng.integers(side - self.crop + 1)) for side in image.shape[:2])
        crop = image[top : top + self.crop, left : left + self.crop]
        if self.augment:
            crop = np.rot90(crop[:, ::-1] if rng.integers(2) else crop, rng.integers(4))
        if self.corrupt == "fresh":
            crop = self.noise.corrupt(crop, sigma, rng)
        return np.ascontiguousarray(crop, "float32"), sigma

    def validation_example(self, index: int, side: int) -> tuple[np.ndarray, np.float32, np.ndarray | None]:
        """Makes the centre of an image, at most `side` pixels wide and high: noisy, σ, and clean if that is known.

        The noise is the image's own for ever, so that validations of a run can be compared.
        """
        clean, noisy, sigma = self._read(index), None, np.float32(self.noise.low)
        if self.corrupt:
            noisy, sigma = self._corrupt_for_ever(clean)
        window = tuple(slice(max(size - side, 0) // 2, max(size - side, 0) // 2 + side) for size in clean.shape[:2])
        if noisy is None:
            return clean[window], sigma, None
        return noisy[window].astype("float32"), sigma, clean[window]

    def batches(self, batch: int, first: int, last: int) -> tf.data.Dataset:
        """Streams global batches `first` to `last` − 1 as pairs: noisy (batch, crop, crop, C) and sigma (batch,)."""

        def load(number):
            noisy, sigma = tf.numpy_function(self.example, [number], (tf.float32, tf.float32), stateful=False)
            return tf.ensure_shape(noisy, (self.crop, self.crop, self.channels)), tf.ensure_shape(sigma, ())

        examples = tf.data.Dataset.range(first * batch, last * batch)
        loaded = examples.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return loaded.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def _shuffle(self, epoch: int) -> np.ndarray:
        """Orders the training images for one epoch."""
        return np.random.default_rng((self.seed, _ORDER, epoch)).permutation(self.training)

    def _pick(self, number: int) -> tuple[int, np.ndarray]:
        """Reads the image of an example; where it is unusable, the next one in the epoch's order."""
        epoch, position = divmod(number, len(self.training))
        order = self._order(epoch)
        for offset in range(len(order)):
            index = int(order[(position + offset) % len(order)])
            if index in self._left_out:
                continue
            try:
                image = self._read(index)
                if min(image.shape[:2]) < self.crop:
                    height, width = image.shape[:2]
                    raise ValueError(f"{width}×{height} pixels are less than the crop of {self.crop}×{self.crop}")
                return index, image
            except (ValueError, OSError) as error:
                self._leave_out(index, error)
        self.failure = ValueError(
            f"None of the {len(order)} images can be used for training. Are they whole, and at least "
            f"{self.crop}×{self.crop} pixels (--crop)?"
        )
        raise self.failure

    def _leave_out(self, index: int, error: Exception) -> None:
        """Reports an image once, and never tries it again."""
        with self._lock:
            if index in self._left_out:
                return
            self._left_out.add(index)
            count = len(self._left_out)
        name = self.source.name(index)
        if count <= MAX_REPORTS:
            self.report(f"left out {name}: {str(error).removeprefix(f'{name}: ')}")
        if count == MAX_REPORTS:
            self.report("whatever else is left out will not be named")

    def _read(self, index: int) -> np.ndarray:
        """Reads an image as float32 (H, W, C), full scale 1."""
        array = self.source.read(index)
        if not self.corrupt and array.ndim == 3 and array.shape[2] != self.channels:
            raise ValueError(f"it has {array.shape[2]} channels, not {self.channels}; luminance would change its noise")
        array = images.to_channels(array, self.channels)
        if self.full_scale and images.full_scale(array.dtype) != self.full_scale:
            raise ValueError("its bit depth differs from the others'; the noise SPEC is in the files' own units")
        unit = images.to_unit(array)
        if not np.isfinite(unit).all():
            raise ValueError("holds NaN or infinite values")
        return unit

    def _corrupt_for_ever(self, image: np.ndarray) -> tuple[np.ndarray, np.float32]:
        """Adds the noise that belongs to an image, whole, before any crop: seeded by its pixels."""
        rng = np.random.default_rng((_FIXED_NOISE, zlib.crc32(np.ascontiguousarray(image)), *image.shape))
        sigma = np.float32(self.noise.draw_sigma(rng))
        return self.noise.corrupt(image, sigma, rng), sigma
