"""Adaptation: some steps of a model's own training on the very noisy images that it is to denoise.

What repeats itself in an image, such as the weave of a cloth, a network can learn from that image. A blind-spot network
cannot learn its noise, and Stein's estimate of its error holds as long as the weights know nothing of a pixel's noise:
so some blocks of the images are held out of the steps, and what the steps have gained is measured there. If it is not
clearly more than nothing, half of the way is tried; then the weights stay as they were.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from bsdenoise.likelihood import sure
from bsdenoise.methods import optimizers
from bsdenoise.methods.registry import Crop

STEPS = 64
# Of Muon; it falls to zero over the steps. On a few photographs twice as much and half as much gained less.
RATE = 1e-3
BETA_2 = 0.99
CROP, BATCH = 128, 1  # side in pixels of crops, and how many make a step
MIN_PIXELS = 64**2  # of all images together: fewer teach nothing
HELD_OUT_SHARE, MAX_HELD_OUT = 1 / 8, 16  # share of the pixels that are held out, and number of blocks at most
TESTED = 4  # crops that are denoised at a time to see what is gained
BLOCK = CROP // 2  # side in pixels of what is held out
SHARES = (1.0, 0.5)  # of the way that the steps went: the first is kept with which the held-out blocks are better
CERTAINTY = 1.0  # standard errors by which they must be


class Shown(NamedTuple):
    """A noisy image as the network is shown it.

    Attributes:
        pixels: (H, W, C), float32, with gaps filled.
        theta: Noise parameters, (P,).
        counts: Which pixels hold measurements, bool (H, W, C); `None` for all.
        fit: How its intensities were changed, a `bsdenoise.noise.intensity_fit.Fit` or the like; `None` if not at all.
    """

    pixels: np.ndarray
    theta: np.ndarray
    counts: np.ndarray | None = None
    fit: Any = None

    def worth(self, mean: np.ndarray) -> np.ndarray:
        """Return what a squared error is worth in the units of the image itself, (h, w, C), at predictions."""
        if self.fit is None:
            return np.ones_like(mean)
        levels = mean[np.newaxis]
        return np.asarray(self.fit.undone([levels, levels, np.ones_like(levels)])[2][0])


@dataclass(frozen=True)
class Adapted:
    """What became of an adaptation.

    Attributes:
        weights: Of the network.
        steps: How many steps were made.
        share: Which part of their way was kept: 1, 0.5, or 0 if the weights are what they were.
        gain: By how many dB the squared error of held-out pixels fell, as far as can be estimated; 0 if nothing was
            kept, NaN if noise has no such estimate.
    """

    weights: list[np.ndarray]
    steps: int
    share: float
    gain: float

    def in_words(self) -> str:
        """Say it in a line."""
        if not self.share:
            return f"{self.steps} steps gained nothing on held-out pixels: the weights stay as they were"
        gain = "" if math.isnan(self.gain) else f", about {self.gain:.2f} dB better on held-out pixels"
        kept = "" if self.share == 1.0 else f" ({self.share:g} of their way)"
        return f"{self.steps} steps{kept}{gain}"


class _Window(NamedTuple):
    """A crop in whose middle a block is held out.

    Attributes:
        image: Number of the image.
        crop: Its rows and columns in the image.
        block: Rows and columns of the block in the crop.
    """

    image: int
    crop: tuple[slice, slice]
    block: tuple[slice, slice]


class Adapter:
    """Adapts a denoiser to images, time after time from the weights that it has: what is compiled is compiled once.

    Args:
        denoiser: A `Denoiser` with a network that is blind to the pixel itself.

    Raises:
        ValueError: If it is another one.
    """

    def __init__(self, denoiser: Any):
        method = denoiser.method
        if not method.is_blind:
            raise ValueError(
                "Only a model whose network is blind to the pixel itself can be adapted to noisy images. "
                f"Received: a model of method {method.name}."
            )
        denoiser.check_blindness()
        self._denoiser = denoiser
        self._network = copy_of(denoiser.network)
        optimizer = optimizers.make("muon", RATE, BETA_2)
        optimizer.build(self._network.trainable_variables)
        self._beginning = [ops.convert_to_numpy(variable) for variable in optimizer.variables]
        loss = method.loss(denoiser.channels, denoiser.factor, denoiser.noise)
        # XLA would be compiled anew for each size of crops.
        self._network.compile(optimizer, loss, jit_compile=False)

    def adapted(
        self,
        images: Sequence[Shown],
        steps: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
        report: Callable[[float], object] = lambda share: None,
    ) -> Adapted:
        """Make the steps.

        Args:
            images: The images; those with a side below 128 pixels are left out if there are others.
            steps: Number of steps; `None` for as many as there is time for, or for `STEPS`.
            seconds: Time for the steps, from the end of the first one; `None` for as long as they take. The weights
                then depend on the machine.
            seed: Of the crops and the held-out blocks.
            report: Told how much is done, from 0 to 1.

        Raises:
            ValueError: If `steps` or `seconds` is not positive, or the images have too few pixels.
        """
        _check(steps, seconds)
        steps = STEPS if steps is None and seconds is None else steps
        images = _large_enough(images)
        side = tuple(min(CROP, *(image.pixels.shape[axis] for image in images)) for axis in (0, 1))
        rng = np.random.default_rng(seed)
        windows = _windows(images, side, rng)
        optimizer = self._network.optimizer
        start = [np.array(weight) for weight in self._denoiser.network.get_weights()]
        self._network.set_weights(start)
        for variable, value in zip(optimizer.variables, self._beginning, strict=True):
            variable.assign(value)
        limits = [_clip_limits(image) for image in images]
        before = self._risks(images, windows, limits)
        held_out = _held_out(images, windows)
        done, began = 0, time.monotonic()
        while (part := _part(done, steps, time.monotonic() - began, seconds)) < 1.0:
            optimizer.learning_rate = RATE * (1.0 - part)
            self._network.train_on_batch(*self._batch(images, held_out, side, rng))
            done += 1
            if done == 1:  # which compiles
                began = time.monotonic()
            report(part)
        end = self._network.get_weights()
        for share in SHARES:
            weights = [first + np.float32(share) * (last - first) for first, last in zip(start, end, strict=True)]
            self._network.set_weights(weights)
            after = self._risks(images, windows, limits)
            gained = (before.worths * (before.terms - after.terms))[before.counted]
            if gained.size and gained.mean() > CERTAINTY * gained.std() / math.sqrt(gained.size):
                report(1.0)
                return Adapted(weights, done, share, before.decibels(gained.mean()))
        report(1.0)
        return Adapted(start, done, 0.0, 0.0)

    def _batch(
        self, images: Sequence[Shown], held_out: Sequence[np.ndarray], side: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """Cut, mirror and turn crops; return what the network is shown, and what it is compared with."""
        areas = np.array([image.pixels.shape[0] * image.pixels.shape[1] for image in images], np.float64)
        examples = []
        for number in rng.choice(len(images), BATCH, p=areas / areas.sum()):
            image = images[number]
            top, left = (rng.integers(image.pixels.shape[axis] - side[axis] + 1) for axis in (0, 1))
            window = slice(top, top + side[0]), slice(left, left + side[1])
            crop, counts = image.pixels[window], ~held_out[number][window][..., np.newaxis]
            counts = np.broadcast_to(counts if image.counts is None else counts & image.counts[window], crop.shape)
            crop, counts = self._turned(rng, crop, counts)
            noisy = functools.partial(_same, crop)
            shown, target = self._denoiser.method.example(Crop(noisy, None, image.theta, rng))
            channels = self._denoiser.channels
            measured = np.where(counts, target[..., :channels], np.float32(np.nan))
            examples.append((shown, np.concatenate([measured, target[..., channels:]], axis=-1)))
        return tuple(np.stack(arrays) for arrays in zip(*examples, strict=True))

    def _turned(self, rng: np.random.Generator, *crops: np.ndarray) -> list[np.ndarray]:
        """Mirror crops at random, and turn them where the blind spot is the same in all directions."""
        blind_spot = self._denoiser.blind_spot
        turns = int(rng.integers(4)) if blind_spot is not None and blind_spot[0] == blind_spot[1] else 0
        if crops[0].shape[0] != crops[0].shape[1]:
            turns -= turns % 2
        step = int(rng.choice([-1, 1]))
        return [np.ascontiguousarray(np.rot90(crop, turns)[:, ::step]) for crop in crops]

    def _risks(self, images: Sequence[Shown], windows: Sequence[_Window], limits: Sequence[Any]) -> "_Risks":
        """Estimate the squared errors of what is held out, with the weights that the network has now."""
        denoiser = self._denoiser
        has_estimate = denoiser.noise.has_risk_estimate or not denoiser.has_posterior
        found: list[_Risks] = []
        for start in range(0, len(windows), TESTED):
            some = windows[start : start + TESTED]
            shown = np.stack([images[one.image].pixels[one.crop] for one in some])
            theta = np.stack([images[one.image].theta for one in some])
            outputs = self._network.predict_on_batch(shown)
            moments = [ops.convert_to_numpy(one) for one in denoiser.finished(outputs, shown, theta)]
            denoised, mean, variance = moments if len(moments) > 1 else (*moments, *moments, np.zeros_like(shown))
            noise_variance = np.zeros_like(shown)
            if denoiser.has_posterior and has_estimate:
                noise_variance += denoiser.noise.shown_variance(mean, theta)
            if has_estimate:
                # Less the variance of the noise, which is the same whatever the weights are.
                terms = sure.terms(denoised, shown, variance, 0.0)
            else:
                prior = denoiser.estimator.prior(outputs)
                terms = ops.convert_to_numpy(denoiser.noise.nll(prior, shown, theta))[..., np.newaxis]
            for index, one in enumerate(some):
                image = images[one.image]
                clear = _is_clear(image, limits[one.image], mean[index], noise_variance[index], one)
                parts = [terms[index], clear, image.worth(mean[index]), noise_variance[index]]
                if not has_estimate:  # the likelihood of a pixel is that of all its channels, in any units
                    parts[1:3] = np.all(clear, axis=-1, keepdims=True), np.ones_like(terms[index])
                if not (has_estimate and denoiser.has_posterior):  # no errors, or errors with noise of who knows what
                    parts[3] = np.full_like(terms[index], np.nan)
                found.append(_Risks(*(part[one.block].ravel() for part in parts)))
        return _Risks(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


class _Risks(NamedTuple):
    """Estimates for all held-out values, (N,) each.

    Attributes:
        terms: Stein's estimate of the squared error, plus the variance of the noise; or a negative log-likelihood.
        counted: Which of them count.
        worths: What a squared error is worth in the units of the images.
        noise_variances: Variance of the noise; NaN where the terms are no squared errors.
    """

    terms: np.ndarray
    counted: np.ndarray
    worths: np.ndarray
    noise_variances: np.ndarray

    def decibels(self, gained: float) -> float:
        """Return a gain of mean squared error in dB."""
        error = float(np.mean((self.worths * (self.terms - self.noise_variances))[self.counted], dtype=np.float64))
        left = error - gained
        return 10.0 * math.log10(error / left) if error > 0.0 and left > 0.0 else math.nan


def copy_of(network: keras.Model) -> keras.Model:
    """Return a network of the same layers and weights."""
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
    copy.set_weights(network.get_weights())
    return copy


def _same(crop: np.ndarray, _: int) -> np.ndarray:
    return crop


def _check(steps: int | None, seconds: float | None) -> None:
    for name, value in (("steps", steps), ("seconds", seconds)):
        if value is not None and not value > 0:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value!r}.")


def _part(done: int, steps: int | None, elapsed: float, seconds: float | None) -> float:
    """Tell which part of the steps or of the time is over."""
    return max(0.0 if steps is None else done / steps, 0.0 if seconds is None or not done else elapsed / seconds)


def _large_enough(images: Sequence[Shown]) -> list[Shown]:
    """Leave out small images if there are others."""
    large = [image for image in images if min(image.pixels.shape[:2]) >= CROP] or [*images]
    number = sum(image.pixels.shape[0] * image.pixels.shape[1] for image in large)
    if number < MIN_PIXELS:
        raise ValueError(f"{MIN_PIXELS} pixels are the least to adapt a model to. Received: {number}.")
    return large


def _windows(images: Sequence[Shown], side: tuple[int, int], rng: np.random.Generator) -> list[_Window]:
    """Choose blocks to hold out, and crops around them."""
    block = max(1, min(BLOCK, side[0] // 4 if side[0] < CROP else BLOCK, side[1] // 4 if side[1] < CROP else BLOCK))
    cells = [
        (number, row, column)
        for number, image in enumerate(images)
        for row in range(image.pixels.shape[0] // block)
        for column in range(image.pixels.shape[1] // block)
    ]
    count = min(MAX_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(cells))))
    windows = []
    for index in rng.choice(len(cells), count, replace=False):
        number, *cell = cells[index]
        spans, inner = [], []
        for axis, place in enumerate(cell):
            size, start = images[number].pixels.shape[axis], place * block
            first = min(max(start + block // 2 - side[axis] // 2, 0), size - side[axis])
            spans.append(slice(first, first + side[axis]))
            inner.append(slice(start - first, start - first + block))
        windows.append(_Window(number, (spans[0], spans[1]), (inner[0], inner[1])))
    return windows


def _held_out(images: Sequence[Shown], windows: Sequence[_Window]) -> list[np.ndarray]:
    """Mark what is held out of each image, bool (H, W)."""
    masks = [np.zeros(image.pixels.shape[:2], bool) for image in images]
    for one in windows:
        masks[one.image][one.crop][one.block] = True
    return masks


def _clip_limits(image: Shown) -> tuple[np.ndarray, ...]:
    """Find the values at which the noise of each channel is clipped, (1, 1, C) each."""
    counts = None if image.counts is None else image.counts[np.newaxis]
    return tuple(limit[0] for limit in sure.clip_limits(np, image.pixels[np.newaxis], counts))


def _is_clear(image: Shown, limits: Any, mean: np.ndarray, variance: np.ndarray, window: _Window) -> np.ndarray:
    """Tell which pixels of a crop hold measurements whose noise is not clipped, bool (h, w, C)."""
    reach = sure.CLIPPED_REACH * np.sqrt(variance)
    is_clear = (mean - reach >= limits[0]) & (mean + reach <= limits[1])
    return is_clear if image.counts is None else is_clear & image.counts[window.crop]
