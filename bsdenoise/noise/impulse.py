"""Impulse noise: some pixels hold a random colour, all others what was there."""

import math
import re
from dataclasses import dataclass

import numpy as np

from bsdenoise.noise.base import FRACTION, LEVEL, Declared, NoiseModel, Parameter, per_pixel
from bsdenoise.noise.spec import NUMBER

PARAMETERS = (
    Parameter("fraction", FRACTION),
    Parameter("low", LEVEL, -16.0, 16.0),
    Parameter("high", LEVEL, -16.0, 16.0),
)
READS = (
    "An impulse SPEC reads impulse:0.3 (the share of pixels that are replaced, between 0 and 1) or impulse:0.1-0.9 (a "
    "range)."
)
# What a pixel that was not replaced is known to, as a share of the range of colours: the rounding of 8 bits. Without
# it the likelihood of a network that is sure of a pixel would have no bound.
ROUNDING = 1.0 / (255.0 * math.sqrt(12.0))
IMPOSSIBLE = -1e4  # log-density of colours out of the range
CERTAIN = 1e-6  # fractions are kept away from 0 and 1 by this much
ROUNDS = 20  # of estimating the fraction


@dataclass(frozen=True)
class ImpulseNoise(NoiseModel):
    """Pixels that are replaced by a colour drawn evenly from a cube (Laine, Karras, Lehtinen, Aila 2019).

    θ is the fraction α of pixels that are replaced, and the least and the greatest value of their channels, (B, 3). The
    likelihood of an observed pixel is a mixture of the predicted Gaussian and the even density, and so is the
    posterior. Stein's estimate of the error does not exist for such noise.

    Args:
        fraction: Least and greatest α, 0 < α < 1.
        low: Least value of a replaced channel, as a fraction of full scale.
        high: Greatest value.

    Raises:
        ValueError: If they make no sense.

    Example:
        >>> bsdenoise.noise.ImpulseNoise((0.5, 0.5)).is_known
        True
    """

    kind = "impulse"
    has_risk_estimate = False
    parameters = PARAMETERS
    fraction: tuple[float, float]
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        """Check the numbers."""
        least, greatest = (float(end) for end in self.fraction)
        object.__setattr__(self, "fraction", (least, greatest))  # files hold lists
        if not 0.0 < least <= greatest < 1.0:
            raise ValueError(
                "The fraction of impulse noise must lie between 0 and 1, the lower end first. "
                f"Received: {least:g} to {greatest:g}."
            )
        if not self.low < self.high:
            raise ValueError(f"Impulse noise needs low < high. Received: low={self.low:g}, high={self.high:g}.")

    @property
    def least(self):
        """Least α, and the range of colours."""
        return self.fraction[0], self.low, self.high

    @property
    def greatest(self):
        """Greatest α, and the range of colours."""
        return self.fraction[1], self.low, self.high

    @classmethod
    def read(cls, text, full_scale):
        """Read `0.3`, or a range `0.1-0.9`."""
        match = re.fullmatch(rf"\s*({NUMBER})(?:-({NUMBER}))?\s*", text)
        if not match:
            raise ValueError(f"{READS} Received: '{cls.kind}:{text}'.")
        low, high = float(match[1]), float(match[2] or match[1])
        return Declared(cls, PARAMETERS, (low, 0.0, 1.0), (high, 0.0, 1.0))

    @classmethod
    def from_range(cls, least, greatest):
        """Make the model of a range of fractions."""
        return cls((least[0], greatest[0]), least[1], least[2])

    def corrupt(self, clean, theta, rng):
        """Replace pixels, all channels of one at once."""
        fraction, low, high = (float(value) for value in theta)
        replaced = rng.random((*clean.shape[:2], 1)) < fraction
        return np.where(replaced, rng.uniform(low, high, clean.shape), clean).astype(clean.dtype)

    def estimate(self, image, counts=None):
        """Return the middle of the range: the image alone tells little; `refined` asks the network."""
        from keras import ops

        middle = (sum(self.fraction) / 2, self.low, self.high)
        return ops.broadcast_to(ops.convert_to_tensor(middle, "float32"), (ops.shape(image)[0], len(middle)))

    def refined(self, prior, noisy, theta, counts=None):
        """Find the fraction of greatest likelihood, by expectation and maximisation."""
        xp = prior.xp
        kept, replaced = self._log_densities(prior, noisy, theta)
        weight = xp.ones_like(kept) if counts is None else xp.cast(xp.all(counts, axis=-1), "float32")
        total = xp.maximum(xp.sum(weight, axis=(1, 2)), 1.0)
        fraction = theta[:, 0]
        for _ in range(ROUNDS):
            odds = _logit(xp, fraction)[:, None, None] + replaced - kept
            fraction = xp.sum(weight * xp.sigmoid(odds), axis=(1, 2)) / total
        return xp.concatenate([fraction[:, None], theta[:, 1:]], axis=-1)

    def nll(self, prior, noisy, theta):
        """Compute −log((1 − α) N(x̃; μ, Σ_p) + α / (high − low)^C), (B, H, W)."""
        xp = prior.xp
        kept, replaced = self._log_densities(prior, noisy, theta)
        fraction = _clipped(xp, per_pixel(theta)[..., 0])
        return -xp.logaddexp(xp.log(1.0 - fraction) + kept, xp.log(fraction) + replaced)

    def posterior(self, prior, noisy, theta):
        """Join the prediction with the observed pixel by the probability w that it was not replaced.

        The posterior mean is w x̃ + (1 − w) μ, and the variance (1 − w) Σ_p + w (1 − w) (x̃ − μ)².

        Raises:
            ValueError: If the network gives a precision factor, of which Σ_p cannot be told.
        """
        from bsdenoise.likelihood.prior import Moments

        xp = prior.xp
        if prior.variance is None:
            raise ValueError('Impulse noise needs a network that gives the prior\'s own factor: factor="prior".')
        kept, replaced = self._log_densities(prior, noisy, theta)
        is_kept = xp.sigmoid(kept - replaced - _logit(xp, per_pixel(theta)[..., 0]))[..., None]
        residual = noisy - prior.mean
        variance = (1.0 - is_kept) * (prior.variance + is_kept * residual**2)
        return Moments(prior.mean + is_kept * residual, prior.mean, variance)

    def variance(self, mean, theta, xp=np):
        """Compute the variance of the noise of pixels of a clean value, α (1 − α) (x − c)² + α w² / 12.

        c is the middle of the range of colours, and w its width.
        """
        theta = per_pixel(theta)
        fraction, low, high = (theta[..., index : index + 1] for index in range(len(PARAMETERS)))
        return fraction * (1.0 - fraction) * (mean - (low + high) / 2) ** 2 + fraction * (high - low) ** 2 / 12

    def squared_error_of_mean(self, mean, noisy, theta, xp=np):
        """Estimate it by what pixels that were replaced add to (μ − x̃)² on average."""
        theta = per_pixel(theta)
        fraction, low, high = (theta[..., index : index + 1] for index in range(len(PARAMETERS)))
        added = (mean - (low + high) / 2) ** 2 + (high - low) ** 2 / 12
        return ((mean - noisy) ** 2 - fraction * added) / (1.0 - fraction)

    def _log_densities(self, prior, noisy, theta):
        """Return the log-densities of a pixel that was kept, (B, H, W), and of one that was replaced."""
        theta, xp = per_pixel(theta), prior.xp
        low, high = theta[..., 1:2], theta[..., 2:3]
        width = high - low
        kept = -prior.nll(noisy, (ROUNDING * width) ** 2) - 0.5 * prior.channels * math.log(2.0 * math.pi)
        tolerance = ROUNDING * width
        is_inside = xp.logical_and(noisy >= low - tolerance, noisy <= high + tolerance)
        replaced = -prior.channels * xp.log(width[..., 0])
        return kept, xp.where(xp.all(is_inside, axis=-1), replaced, IMPOSSIBLE)


def _clipped(xp, fraction):
    return xp.clip(fraction, CERTAIN, 1.0 - CERTAIN)


def _logit(xp, fraction):
    fraction = _clipped(xp, fraction)
    return xp.log(fraction) - xp.log(1.0 - fraction)
