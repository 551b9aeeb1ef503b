"""Quality on held-out images, without clean ones if the method needs none: the loss, and an estimate of the error.

Which weights are kept is decided by the squared error that is estimated, never by a PSNR made of it: where the estimate
is zero or less no PSNR can be told, but a smaller one still is the better one. Stein's estimate supposes that the noise
is what was declared. Where the held-out images show that it is not, as of detectors whose noise grows with the
signal, their own noise takes its place: else the model that believes most in the declared noise would win.
"""

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from bsdenoise.data.faults import Faults
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.denoiser import Denoiser
from bsdenoise.images import missing
from bsdenoise.likelihood import sure
from bsdenoise.methods import Crop
from bsdenoise.network import blindness
from bsdenoise.training import noise_curve

# Which estimate of the PSNR is shown for the error that decides which weights are kept.
SURE, MEASURED, HELD_OUT = "sure_psnr", "measured_psnr", "held_out_psnr"
# Beside it: that of the prediction from the surroundings alone, and the true ones, where clean images are known.
SURE_OF_MEAN, TRUE, TRUE_OF_MEAN = "sure_psnr_mean", "psnr", "psnr_mean"
NOISE_RANGE_QUANTILES = (0.05, 0.95)  # of the noise of pixels: what is said of it is not its extremes


@dataclass(frozen=True)
class Example:
    """One validation image.

    Attributes:
        shown: What the network is shown, (H, W, C).
        target: What its outputs are compared with, (H, W, …); NaN where nothing was measured.
        noisy: The noisy image, (H, W, C); filled there, as what is shown.
        theta: The declared noise parameters, (P,).
        clean: The clean image, (H, W, C), if known.
        counts: Where all channels were measured, bool (H, W).
        is_clear: Which pixels count and are so far from where noise is clipped that it is whole, bool (H, W, C).
    """

    shown: np.ndarray
    target: np.ndarray
    noisy: np.ndarray
    theta: np.ndarray
    clean: np.ndarray | None
    counts: np.ndarray
    is_clear: np.ndarray

    @property
    def measured(self) -> np.ndarray:
        """The noisy image, NaN where a channel was not measured."""
        return missing.with_nan(self.noisy, ~self.counts[..., np.newaxis])


@dataclass(frozen=True)
class Result:
    """What a validation found.

    Attributes:
        values: Numbers for the log, by name: the mean loss; PSNRs in dB, `None` where none can be told.
        error: Estimated mean squared error in the units of the network, by which weights are compared; it may be
            negative.
        moments: Those of the first image, each (H, W, C).
    """

    values: dict[str, float | None]
    error: float
    moments: list[np.ndarray]


class Validation:
    """Measures a denoiser on the same noisy images each time.

    Args:
        denoiser: The denoiser; its weights may change between calls.
        data: Where the images come from; those held out, or, if none are, the first of those trained on.
        num_images: Most images to use.
        side: Largest side of an image in pixels.

    Raises:
        ValueError: If none of the images can be read.
    """

    def __init__(self, denoiser: Denoiser, data: TrainingImages, num_images: int, side: int):
        self.denoiser = denoiser
        self.method = data.method  # with its settings, which the denoiser does not need
        self.loss = self.method.loss(denoiser.channels, denoiser.factor, denoiser.noise)
        self._faults = Faults()
        self.examples = self._read(data, data.held_out, side, num_images)
        if not self.examples:
            self.examples = self._read(data, data.training, side, num_images)
        if not self.examples:
            raise ValueError(f"None of the images can be validated with; the first is {self._faults.first}")
        # Most methods show the network the noisy image itself: once is enough then.
        self._is_shown_noisy = all(np.array_equal(example.shown, example.noisy) for example in self.examples)
        # Noise that was added here is what was declared.
        has_curve = self.method.is_blind and not data.corrupt and denoiser.noise.has_risk_estimate
        self._variances = self._measured_variances() if has_curve else None
        channels = denoiser.channels
        shown, target, noisy = (tf.TensorSpec((1, None, None, size)) for size in (channels, None, channels))
        # Nothing in it is Python that would have to be translated into a graph, which takes seconds.
        self._loss_and_moments = tf.function(
            self._loss_and_moments_of,
            input_signature=(shown, target, noisy, tf.TensorSpec((1, denoiser.noise.size))),
            autograph=False,
        )

    @property
    def score(self) -> str:
        """Which of the values is the PSNR of the error that weights are compared by.

        `SURE` where the network is blind, and `MEASURED` instead where the declared noise does not fit the images; else
        `HELD_OUT`, which follows from the loss on held-out images: for n2n the PSNR against a second noisy copy less
        the noise of that, for n2c against the clean image, for n2v that of masked pixels.
        """
        if not self.method.is_blind:
            return HELD_OUT
        return SURE if self._variances is None else MEASURED

    @property
    def noise_range(self) -> tuple[float, float] | None:
        """Least and greatest σ that the images show, as pixel values, if the declared one does not fit them."""
        if self._variances is None:
            return None
        maps = zip(self._variances, self.examples, strict=True)
        variances = np.concatenate([variance[example.counts].ravel() for variance, example in maps])
        low, high = np.sqrt(np.quantile(variances, NOISE_RANGE_QUANTILES)) * self.denoiser.scale
        return float(low), float(high)

    def _read(self, data: TrainingImages, indices, side: int, most: int) -> list[Example]:
        """Make examples of the first readable images, `most` of them."""
        examples: list[Example] = []
        for index in indices:
            if len(examples) == most:
                break
            try:
                examples.append(self._example(data.validation_crop(int(index), side)))
            except (ValueError, OSError) as error:
                if line := self._faults.new(data.source.name(int(index)), error):
                    data.report(f"left out of validation: {line}")
        return examples

    def _example(self, crop: Crop) -> Example:
        shown, target = self.method.example(crop)
        shown, target, noisy = (np.ascontiguousarray(array, "float32") for array in (shown, target, crop.noisy(0)))
        counts = ~np.isnan(noisy if crop.clean is None else noisy + crop.clean).any(axis=-1)
        shown, noisy = missing.filled(shown), missing.filled(noisy)
        every = np.repeat(counts[..., np.newaxis], noisy.shape[-1], axis=-1)
        # By the neighbours, not by what a model takes for the mean: the same pixels count for all models.
        low, high = (limit[0] for limit in sure.clip_limits(np, noisy[np.newaxis], every[np.newaxis]))
        around = noise_curve.brightness(noisy)
        reach = sure.CLIPPED_REACH * np.sqrt(self._declared_variance(around, crop.theta))
        is_clear = every & (around - reach >= low) & (around + reach <= high)
        if is_clear.sum() < sure.MIN_COUNTED * every.sum() or not self.denoiser.noise.has_risk_estimate:
            is_clear = every
        return Example(shown, target, noisy, crop.theta, crop.clean, counts, is_clear)

    def _measured_variances(self) -> list[np.ndarray] | None:
        """Measure the noise of the examples, maps (H, W, C); `None` if the declared one fits, or none can be told.

        Where the blind spot is large, on pixels so far apart that it hides what they share: of neighbours' noise a
        difference shows only what they do not.
        """
        down, right = blindness.shifts(self.denoiser.blind_spot or (1, 1))
        starts = [(top, left) for top in range(down) for left in range(right)]
        curve = noise_curve.fit(
            [example.measured[top::down, left::right] for example in self.examples for top, left in starts]
        )
        if curve is None:
            return None
        variances = [curve(noise_curve.brightness(example.noisy)) for example in self.examples]
        counted = [variance[example.counts] for variance, example in zip(variances, self.examples, strict=True)]
        declared = [
            self._declared_variance(noise_curve.brightness(example.noisy), example.theta)[example.counts]
            for example in self.examples
        ]
        return None if noise_curve.fits(counted, declared) else variances

    def _declared_variance(self, mean: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Return the declared variance of the noise of pixels (H, W, C) of a given brightness, float64."""
        variance = self.denoiser.noise.variance(mean[np.newaxis], theta[np.newaxis].astype(np.float64))[0]
        return np.broadcast_to(variance, mean.shape)

    def _error_of_mean(self, mean: np.ndarray, example: Example) -> np.ndarray:
        """Estimate the squared error of the predictions from the surroundings, (H, W, C)."""
        theta = example.theta[np.newaxis].astype(np.float64)
        return self.denoiser.noise.squared_error_of_mean(mean[np.newaxis], example.noisy[np.newaxis], theta)[0]

    def _loss_and_moments_of(self, shown, target, noisy, theta):
        network = self.denoiser.network
        outputs = network(shown)
        loss = tf.reduce_mean(self.loss.call(target, outputs))
        outputs = outputs if self._is_shown_noisy else network(noisy)
        return loss, self.denoiser.finished(outputs, noisy, theta)

    def __call__(self) -> Result:
        """Measure.

        The values are means over the images: the loss; the PSNR that is estimated (`score`), and beside `MEASURED` also
        `SURE`, which is withheld then; for a method with a posterior also the PSNR of its mean alone; and the true
        PSNRs where clean images are known. PSNRs are those of the mean squared error over all images.
        """
        losses, moments_of_first = [], None
        terms: dict[str, list[np.ndarray]] = {}
        for number, example in enumerate(self.examples):
            loss, moments = self._denoised(example)
            losses.append(loss)
            moments_of_first = moments_of_first or moments
            for name, term in self._squared_errors(number, example, loss, moments).items():
                terms.setdefault(name, []).append(term)
        values: dict[str, float | None] = {"loss": float(np.mean(losses))}
        if self.score == MEASURED:
            values[SURE] = None
        noise_variance = float(np.mean([self._usual_variance(example) for example in self.examples]))
        values |= {name: _psnr(name, found, noise_variance) for name, found in terms.items()}
        return Result(values, _mean(terms[self.score]), moments_of_first or [])

    def _usual_variance(self, example: Example) -> float:
        """Return the mean declared variance of the noise of an image."""
        return float(self._declared_variance(noise_curve.brightness(example.noisy), example.theta).mean())

    def _denoised(self, example: Example) -> tuple[float, list[np.ndarray]]:
        """Return the loss and the moments, (H, W, C), of one image."""
        shown, target, noisy = (one[np.newaxis] for one in (example.shown, example.target, example.noisy))
        loss, moments = self._loss_and_moments(shown, target, noisy, example.theta[np.newaxis])
        return float(loss), [moment.numpy()[0] for moment in moments]

    def _squared_errors(
        self, number: int, example: Example, loss: float, moments: list[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return what squared errors are means of, by the names of the PSNRs that they end in."""
        moments = [moment.astype(np.float64) for moment in moments]
        denoised = moments[0]
        mean, variance = moments[1:] if len(moments) > 1 else (None, None)
        declared = self._declared_variance(denoised if mean is None else mean, example.theta)
        noise = declared if self._variances is None else self._variances[number]
        terms = {}
        if self.method.is_blind:
            # The share of its own noise that a denoised pixel keeps: 1 less the gain; none where μ is all there is.
            kept = 0.0 if variance is None else variance / declared
            moved = np.square(denoised - example.noisy)
            terms[self.score] = (moved + noise * (2.0 * kept - 1.0))[example.is_clear]
            if not self.denoiser.noise.has_risk_estimate:  # of the mean alone there is one
                terms[self.score] = self._error_of_mean(denoised if mean is None else mean, example)[example.is_clear]
        else:
            # Loss of a point estimate: its squared error, and that of the target itself.
            terms[self.score] = np.array([loss - self._usual_variance(example) * self.method.has_noisy_target])
        if mean is not None:
            of_mean = np.square(mean - example.noisy) - noise
            if self._variances is None:
                of_mean = self._error_of_mean(mean, example)
            terms[SURE_OF_MEAN] = of_mean[example.is_clear]
        if example.clean is not None:
            terms[TRUE] = np.square(denoised - example.clean)[example.counts].ravel()
            if mean is not None:
                terms[TRUE_OF_MEAN] = np.square(mean - example.clean)[example.counts].ravel()
        return terms


def _mean(terms: list[np.ndarray]) -> float:
    """Return the mean over images of what is given of each; images count alike."""
    return float(np.mean([term.mean() for term in terms]))


def _psnr(name: str, terms: list[np.ndarray], noise_variance: float) -> float | None:
    """Return the PSNR in dB of a mean squared error, for a peak of 1; `None` where it cannot be believed.

    Args:
        name: Of the PSNR.
        terms: What it is the mean of, of each image.
        noise_variance: Mean variance of the declared noise.
    """
    error = _mean(terms)
    if name in (TRUE, TRUE_OF_MEAN):
        return None if error <= 0.0 else -10.0 * math.log10(error)
    # What follows from a loss has no spread over pixels to tell how sure it is.
    square = error**2 if name == HELD_OUT else float(np.mean([np.square(term).mean() for term in terms]))
    number = sum(term.size for term in terms)
    found = sure.psnr(np, np.ones(1), np.array([error]), np.array([square]), np.array([noise_variance]), number)
    return None if np.isnan(found[0]) else float(found[0])
