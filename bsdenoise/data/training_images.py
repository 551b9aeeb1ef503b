"""A numbered set of images → noisy training crops.

Example k of a run is a function of (seed, k) alone: which image, which crop, which noise. So a run that is continued
at any step sees what it would have seen, without touching the images before; and the number of threads or devices
changes nothing.
"""

import functools
import threading
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from bsdenoise import images
from bsdenoise.data.faults import Reports
from bsdenoise.data.sources import Source
from bsdenoise.images import missing
from bsdenoise.images.masks import Masks
from bsdenoise.methods import Crop, Method
from bsdenoise.noise import NoiseModel

# First entries of random seeds, so that no two purposes share a stream.
_ORDER, _EXAMPLE, _FIXED_NOISE, _HELD_OUT, _VALIDATION = range(5)
# A crop of which less was measured is drawn again, so often at most; then the one of which most was measured is taken.
LEAST_MEASURED, MOST_DRAWS = 0.25, 20


@dataclass
class TrainingImages:
    """Examples for training and validation, drawn from a source.

    All that they hold is normalised, noise parameters too: (pixel − offset) / scale, the units of network and loss.
    `_normalised` is the one place where that is done, to a crop wherever the whole is not needed; a `Denoiser` undoes
    it by itself. Values that were not measured are NaN, in targets too, which losses leave out; what networks are
    shown is filled.

    Args:
        source: The images.
        method: What is trained: it makes examples out of crops.
        channels: Number of channels of an example; 1 turns RGB into luminance.
        noise: The noise model, with intensities as fractions of `scale`.
        corrupt: "fresh" draws noise anew at each visit; "fixed" gives each image one noise realisation for ever (two
            for a method that compares two), whatever the seed; `None` takes images as noisy already.
        crop: Side of the square crops, in pixels.
        full_scale: Full scale of the files' pixel type if all must share it, else `None`.
        seed: Seed of order, crops and fresh noise.
        augment: Whether crops are mirrored and turned at random.
        half_turns: Whether they are turned upside down at most, so that rows of noise stay rows.
        num_held_out: Number of images kept for validation.
        targets: For `corrupt=None`, what each image is compared with: a second noisy copy, or for a method with clean
            targets a clean one; numbered as `source`.
        report: Called with one line for each image that is left out.
        offset: Pixel value that becomes 0; for integer files a fraction of full scale, as all pixel values.
        scale: Difference of pixel values that becomes 1, > 0.
        fractional: Whether files must hold integers, whose pixels become fractions of full scale; else floats.
        remark: Called with one line for each kind of change that reading makes to images, at the first of them.
        remarked: The kinds of change that need no line any more.
        masks: Which pixels of the images are to be ignored beside those that the images themselves say.
        measured: What the images told of their noise where no flag did, JSON values; `None` if flags told all.
        failure: Set when no image is left to train on: the reader threads' own error, for the main thread.
    """

    source: Source
    method: Method
    channels: int
    noise: NoiseModel
    corrupt: str | None
    crop: int
    full_scale: float | None = None
    seed: int = 0
    augment: bool = False
    half_turns: bool = False
    num_held_out: int = 0
    targets: Source | None = None
    report: Callable[[str], None] = warnings.warn
    offset: float = 0.0
    scale: float = 1.0
    fractional: bool = True
    remark: Callable[[str], None] = warnings.warn
    remarked: set[str] = field(default_factory=set)
    masks: Masks | None = None
    measured: dict[str, Any] | None = None
    failure: ValueError | None = None
    _left_out: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self):
        """Split the images into those to train on and those held out."""
        shuffled = np.random.default_rng((_HELD_OUT, len(self.source))).permutation(len(self.source))
        self.held_out = np.sort(shuffled[: self.num_held_out])
        self.training = np.sort(shuffled[self.num_held_out :])
        self._reports = Reports(self.report)
        self._order = functools.lru_cache(maxsize=3)(self._shuffle)

    @property
    def num_left_out(self) -> int:
        """Number of images that were met and cannot be used."""
        return len(self._left_out)

    def example(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Make training example `number` of the run: what the network is shown, and its target, as the method says."""
        rng = np.random.default_rng((self.seed, _EXAMPLE, number))
        images_of_one = self._pick(number)
        theta = self.noise.draw(rng)
        top, left = self._place(images_of_one, rng)
        mirrored, turns = (int(rng.integers(2)), int(rng.integers(4))) if self.augment else (0, 0)
        turns = 2 * (turns % 2) if self.half_turns else turns

        def cut(whole):
            crop = whole[top : top + self.crop, left : left + self.crop]
            return np.rot90(crop[:, ::-1] if mirrored else crop, turns)

        shown, target = self.method.example(self._crop(images_of_one, theta, cut, rng, self.corrupt))
        return missing.filled(np.ascontiguousarray(shown, "float32")), np.ascontiguousarray(target, "float32")

    def validation_crop(self, index: int, side: int) -> Crop:
        """Return the centre of an image, or of what was measured of it, at most `side` pixels wide and high.

        The noise is the image's own for ever, so that validations of a run can be compared.

        Raises:
            ValueError: If the image cannot be read, or nothing was measured there.
        """
        images_of_one = self._read(index)
        window = _centre(images_of_one, side)
        if not _measured(images_of_one, window).any():
            raise ValueError("none of the pixels in its middle holds a measurement")
        rng = np.random.default_rng((_VALIDATION, index))
        theta = np.array(self.noise.least, np.float32)
        return self._crop(images_of_one, theta, lambda whole: whole[window], rng, "fixed" if self.corrupt else None)

    def batches(
        self, batch: int, first: int, last: int, *, worker: int = 0, workers: int = 1, size: int | None = None
    ) -> tf.data.Dataset:
        """Stream one worker's part of global batches `first` to `last` − 1.

        Example i of global batch n is example n · batch + i of the run, whoever makes it: worker w of W makes those
        with i from w · batch / W on, its equal part. So the workers together show what one process would show.

        Args:
            batch: Number of examples of a global batch.
            first: Number of the first batch.
            last: Number behind that of the last batch.
            worker: Number of the worker.
            workers: How many there are; divides `batch`.
            size: Number of examples of an element; `None` for the worker's part of a global batch.

        Returns:
            Pairs (size, crop, crop, …): what is shown, and targets.
        """
        crop = (self.crop, self.crop)
        target_channels = self.channels + self.method.num_extra(self.noise)

        def load(number):
            shown, target = tf.numpy_function(self.example, [number], (tf.float32, tf.float32), stateful=False)
            return tf.ensure_shape(shown, (*crop, self.channels)), tf.ensure_shape(target, (*crop, target_channels))

        part = batch // workers
        examples = tf.data.Dataset.range(first * part, last * part)
        if workers > 1:
            examples = examples.map(lambda k: k // part * batch + worker * part + k % part)
        loaded = examples.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return loaded.batch(size or part, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def _crop(self, images_of_one: list[np.ndarray], theta, cut, rng, corrupt: str | None) -> Crop:
        """Cut an image, and its partner if there is one; add noise, `fresh` to the crop, `fixed` to the whole."""
        cuts = [self._normalised(cut(image)) for image in images_of_one]
        if corrupt is None:
            has_clean = len(cuts) > 1 and not self.method.has_noisy_target
            return Crop(cuts.__getitem__, cuts[1] if has_clean else None, theta, rng)
        if corrupt == "fresh":
            return Crop(lambda copy: self.noise.corrupt(cuts[0], theta, rng), cuts[0], theta, rng)
        copies = FixedCopies(self._normalised(images_of_one[0]), self.noise)
        return Crop(lambda copy: cut(copies[copy]), cuts[0], copies.theta, rng)

    def _place(self, images_of_one: list[np.ndarray], rng: np.random.Generator) -> tuple[int, int]:
        """Draw the upper left corner of a crop: once, unless hardly anything was measured in it."""
        best, most = (0, 0), -1.0
        for _ in range(MOST_DRAWS):
            top, left = (int(rng.integers(side - self.crop + 1)) for side in images_of_one[0].shape[:2])
            share = _measured(images_of_one, (slice(top, top + self.crop), slice(left, left + self.crop))).mean()
            if share >= LEAST_MEASURED:
                return top, left
            if share > most:
                best, most = (top, left), share
        return best

    def _shuffle(self, epoch: int) -> np.ndarray:
        """Order the training images for one epoch."""
        return np.random.default_rng((self.seed, _ORDER, epoch)).permutation(self.training)

    def _pick(self, number: int) -> list[np.ndarray]:
        """Read the image of an example, as `_read`; where it is unusable, the next one in the epoch's order."""
        epoch, position = divmod(number, len(self.training))
        order = self._order(epoch)
        for offset in range(len(order)):
            index = int(order[(position + offset) % len(order)])
            if index in self._left_out:
                continue
            try:
                images_of_one = self._read(index)
                height, width = images_of_one[0].shape[:2]
                if min(height, width) < self.crop:
                    raise ValueError(
                        f"{width}×{height} pixels are less than the crop of {self.crop}×{self.crop} (--crop)"
                    )
                return images_of_one
            except (ValueError, OSError) as error:
                self._leave_out(index, error)
        self.failure = ValueError(
            f"None of the {len(order)} images can be used for training; the first that was left out is "
            f"{self._reports.first}"
        )
        raise self.failure

    def _leave_out(self, index: int, error: Exception) -> None:
        """Report an image once, and never tries it again."""
        with self._lock:
            if index in self._left_out:
                return
            self._left_out.add(index)
        self._reports.left_out(self.source.name(index), error)

    def _read(self, index: int) -> list[np.ndarray]:
        """Read an image, and behind it its partner if there are such, (H, W, …), checked, as files hold them."""
        image = self._read_from(self.source, index)
        if self.targets is None:
            return [image]
        target = self._read_from(self.targets, index)
        if target.shape != image.shape:
            raise ValueError(f"{self.targets.name(index)} has another size: {target.shape}, not {image.shape}")
        return [image, target]

    def _read_from(self, source: Source, index: int) -> np.ndarray:
        picture = source.read(index)
        array = picture.array
        if not self.corrupt and array.ndim == 3 and array.shape[2] != self.channels:
            raise ValueError(f"it has {array.shape[2]} channels, not {self.channels}; luminance would change its noise")
        if (array.dtype.kind != "f") != self.fractional:
            kinds = ("integers", "floats") if self.fractional else ("floats", "integers")
            raise ValueError(f"it holds {kinds[1]}, the others {kinds[0]}; they have no common units")
        array = array if array.ndim == 3 else array[..., np.newaxis]
        if picture.independent_channels and array.shape[2] != self.channels:
            raise ValueError(f"it has {array.shape[2]} independent channels, not {self.channels}")
        images.to_channels(array[:1, :1], self.channels)  # raises if it cannot be done; the whole is not needed
        if self.full_scale and picture.full_scale != self.full_scale:
            raise ValueError("its bit depth differs from the others'; the noise SPEC is in the files' own units")
        mask = None if self.masks is None else self.masks.of(self.source.short_name(index), array.shape)
        gaps = missing.where(array, picture.no_data, mask)
        # Whoever normalises a crop of integers knows their type alone.
        if array.dtype.kind == "f" or gaps is not None or picture.bits is not None:
            array = images.measured_unit(array, gaps, self.channels, picture.bits)
        self._remark_on(index, picture.notes)
        return array

    def _normalised(self, array: np.ndarray) -> np.ndarray:
        """Return pixels (H, W, …) as float32 in the units and with the channels of the network."""
        unit = images.to_unit(images.to_channels(array, self.channels))
        if (self.offset, self.scale) == (0.0, 1.0):
            return unit
        return (unit - np.float32(self.offset)) / np.float32(self.scale)

    def _remark_on(self, index: int, notes: tuple[str, ...]) -> None:
        """Say once per kind what reading changed."""
        for note in notes:
            with self._lock:
                if note in self.remarked:
                    continue
                self.remarked.add(note)
            self.remark(f"{self.source.name(index)}: {note}; nothing more is said of others like it")


def _measured(images_of_one: list[np.ndarray], window: tuple[slice, slice]) -> np.ndarray:
    """Tell which pixels of a window were measured in an image and its partner, bool (h, w)."""
    parts = [image[window] for image in images_of_one]
    found = [~np.isnan(part).any(axis=-1) for part in parts if part.dtype.kind == "f"]
    return np.logical_and.reduce(found) if found else np.ones(parts[0].shape[:2], bool)


def _centre(images_of_one: list[np.ndarray], side: int) -> tuple[slice, slice]:
    """Return rows and columns of the centre, at most `side` each; of what was measured if hardly anything was there."""
    sides = images_of_one[0].shape[:2]
    window = _window([(size - side) // 2 for size in sides], sides, side)
    if _measured(images_of_one, window).mean() >= LEAST_MEASURED:
        return window
    places = np.nonzero(_measured(images_of_one, _window([0, 0], sides, max(sides))))
    return _window([int(np.median(place)) - side // 2 for place in places], sides, side) if len(places[0]) else window


def _window(starts: Sequence[int], sides: Sequence[int], side: int) -> tuple[slice, slice]:
    """Return at most `side` rows and columns from where they would start, or from near there if that is outside."""
    top, left = (min(max(start, 0), max(size - side, 0)) for start, size in zip(starts, sides, strict=True))
    return slice(top, top + side), slice(left, left + side)


class FixedCopies:
    """The noisy copies of an image that exist for ever, number 0 and 1: seeded by its pixels, whole, before any crop.

    Args:
        image: Clean image (H, W, C).
        noise: The noise model.
    """

    def __init__(self, image: np.ndarray, noise: NoiseModel):
        self._image = image
        self._noise = noise
        self._seed = (_FIXED_NOISE, zlib.crc32(np.ascontiguousarray(image).data), *image.shape)
        self._rng = np.random.default_rng(self._seed)
        self.theta = noise.draw(self._rng)
        self._first: np.ndarray | None = None

    def __getitem__(self, copy: int) -> np.ndarray:
        """Return a copy; both have the same noise parameters."""
        if copy:
            return self._noise.corrupt(self._image, self.theta, np.random.default_rng((*self._seed, copy)))
        if self._first is None:
            self._first = self._noise.corrupt(self._image, self.theta, self._rng)
        return self._first
