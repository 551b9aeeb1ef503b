"""White Gaussian noise."""

from dataclasses import dataclass

import numpy as np

from bsdenoise.likelihood.sure import MIN_SIGMA
from bsdenoise.noise.base import SIGMA, Declared, GaussianObservation, Parameter, per_pixel
from bsdenoise.noise.spec import parse_range

PARAMETERS = (Parameter(SIGMA),)
NONE_FOUND = 1.5 * MIN_SIGMA  # estimates below are the least that there are


@dataclass(frozen=True)
class GaussianNoise(GaussianObservation):
    """Additive white Gaussian noise, with a standard deviation that is known or drawn per image from a range.

    θ is σ, (B, 1).

    Args:
        low: Least standard deviation, as a fraction of full scale, > 0.
        high: Greatest standard deviation; equal to `low` for a known one.

    Raises:
        ValueError: If not 0 < low ≤ high ≤ 1.

    Example:
        >>> GaussianNoise(25 / 255, 25 / 255).is_known
        True
    """

    kind = "gaussian"
    parameters = PARAMETERS
    low: float
    high: float

    def __post_init__(self):
        """Check the range."""
        if not 0.0 < self.low <= self.high <= 1.0:
            raise ValueError(
                "Noise needs 0 < sigma <= 1 as a fraction of full scale (25 grey levels of 255 are 0.098), the "
                f"lower end first. Received: {self.low:g} to {self.high:g}."
            )

    @property
    def least(self):
        """Least σ."""
        return (self.low,)

    @property
    def greatest(self):
        """Greatest σ."""
        return (self.high,)

    @classmethod
    def read(cls, text, full_scale):
        """Read `25`, `25/255`, `5-50` or `5-50/255`."""
        low, high = parse_range(text, full_scale)
        return Declared(cls, PARAMETERS, (low,), (high,))

    @classmethod
    def from_range(cls, least, greatest):
        """Make the model of a range of σ."""
        return cls(*least, *greatest)

    def corrupt(self, clean, theta, rng):
        """Add white noise of a σ, a number or (1,)."""
        return clean + clean.dtype.type(np.ravel(theta)[0]) * rng.standard_normal(clean.shape, clean.dtype)

    def variance(self, mean, theta, xp=None):
        """Compute σ², (B, 1, 1, 1), or (B, H, W, 1) of a map."""
        return per_pixel(theta) ** 2

    def estimate(self, image, counts=None):
        """Estimate σ from the finest details."""
        from keras import ops

        from bsdenoise.noise.estimation import estimate_sigma

        return ops.clip(estimate_sigma(image, counts), MIN_SIGMA, 1.0)[:, None]

    def refined(self, prior, noisy, theta, counts=None):
        """Lower estimates to what the predictions leave unexplained."""
        from keras import ops

        from bsdenoise.noise.estimation import refine_sigma

        prior_variance = prior.variance
        if prior_variance is None:
            return theta
        squared_residual = ops.square(noisy - prior.mean)
        refined = refine_sigma(squared_residual, prior_variance, theta[:, 0], self.low, counts)
        return ops.maximum(refined, MIN_SIGMA)[:, None]

    def fit(self, noisy, theta):
        """Stretch images with less noise than was trained, and compress those with more."""
        from bsdenoise.noise import intensity_fit

        return intensity_fit.fit(noisy, theta[:, 0], self.low, self.high)

    def posterior(self, prior, noisy, theta):
        """Compute the posterior; what was never trained is not trusted (`untrained_variance`)."""
        from bsdenoise.noise.estimation import untrained_variance

        variance = self.variance(prior.mean, theta)
        return prior.posterior(noisy, variance, untrained_variance(variance, self.low))

    def found(self, theta):
        """Return σ as it is told: the least that is computed with stands for none."""
        return theta * (theta > NONE_FOUND)
