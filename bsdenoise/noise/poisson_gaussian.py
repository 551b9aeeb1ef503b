"""Noise of detectors: photo-electrons, read noise and a black level."""

import re
from dataclasses import dataclass

import numpy as np

from bsdenoise.noise.base import GAIN, LEVEL, SIGMA, Declared, GaussianObservation, Parameter, per_pixel
from bsdenoise.noise.spec import NUMBER

PARAMETERS = (Parameter(GAIN), Parameter(SIGMA), Parameter("pedestal", LEVEL, -16.0, 16.0))
READS = (
    "A poisson-gaussian SPEC reads poisson-gaussian:gain=8.9,sigma=3,pedestal=6.5, each a number or a range such as "
    "gain=2-18, in the files' own units, or all of them as fractions of full scale with /255 behind the last. Gain is "
    "needed; sigma and pedestal are 0 where they are left out."
)
POISSON_READS = "A poisson SPEC reads poisson:30 (photo-electrons of a fully lit pixel) or poisson:5-50 (a range)."
# Of the level that the photon noise is taken for, as full scale is 1: Laine et al. 2019b take no less for Poisson
# noise, as a prediction of black would make its pixels certain.
MIN_LEVEL = 1e-3
Range = tuple[float, float]


@dataclass(frozen=True)
class PoissonGaussianNoise(GaussianObservation):
    """Noise of a detector, x̃ = gain · Poisson((x − pedestal) / gain) + pedestal + N(0, σ²).

    θ is gain, σ and pedestal, (B, 3). The likelihood takes it for Gaussian with the variance
    gain · max(μ − pedestal, 0) + σ² at the predicted mean μ, as Laine et al. (2019b) do for Poisson noise.

    Args:
        gain: Intensity per photo-electron, least and greatest, ≥ 0, as fractions of full scale.
        sigma: Standard deviation of the read noise, least and greatest, ≥ 0, likewise.
        pedestal: Intensity of black, least and greatest, likewise.

    Raises:
        ValueError: If a number is out of range, or there is no noise at all.

    Example:
        >>> noise = bsdenoise.PoissonGaussianNoise(gain=(0.01, 0.05), sigma=(0.0, 0.02))
        >>> [parameter.name for parameter in noise.parameters]
        ['gain', 'sigma', 'pedestal']
    """

    kind = "poisson-gaussian"
    parameters = PARAMETERS
    gain: Range
    sigma: Range = (0.0, 0.0)
    pedestal: Range = (0.0, 0.0)

    def __post_init__(self):
        """Check the ranges."""
        for parameter in PARAMETERS:
            low, high = (float(end) for end in getattr(self, parameter.name))
            object.__setattr__(self, parameter.name, (low, high))  # files hold lists
            if not parameter.low <= low <= high <= parameter.high:
                raise ValueError(
                    f"The {parameter.name} of {self.kind} noise must lie between {parameter.low:g} and "
                    f"{parameter.high:g} as a fraction of full scale, the lower end first. "
                    f"Received: {low:g} to {high:g}."
                )
        if not self.gain[0] + self.sigma[0] > 0:
            raise ValueError(
                f"Noise of the kind {self.kind} needs a positive gain or sigma. Received: gain={self.gain}, "
                f"sigma={self.sigma}."
            )

    @property
    def least(self):
        """Least gain, σ and pedestal."""
        return self.gain[0], self.sigma[0], self.pedestal[0]

    @property
    def greatest(self):
        """Greatest gain, σ and pedestal."""
        return self.gain[1], self.sigma[1], self.pedestal[1]

    @classmethod
    def read(cls, text, full_scale):
        """Read `gain=8.9,sigma=3,pedestal=6.5`, each a number or a range, and a full scale behind a slash."""
        body, slash, divisor = text.partition("/")
        scale = full_scale
        if slash:
            if not re.fullmatch(NUMBER, divisor.strip()) or not float(divisor) > 0:
                raise ValueError(f"{READS} Received: '{cls.kind}:{text}'.")
            scale = float(divisor)
        found = {}
        for part in body.split(","):
            match = re.fullmatch(rf"\s*(gain|sigma|pedestal)=([+-]?{NUMBER})(?:-([+-]?{NUMBER}))?\s*", part)
            if not match or match[1] in found:
                raise ValueError(f"{READS} Received: '{cls.kind}:{text}'.")
            found[match[1]] = float(match[2]) / scale, float(match[3] or match[2]) / scale
        if "gain" not in found:
            raise ValueError(f"{READS} Received: '{cls.kind}:{text}'.")
        least, greatest = zip(*(found.get(one.name, (0.0, 0.0)) for one in PARAMETERS), strict=True)
        return Declared(cls, PARAMETERS, least, greatest)

    @classmethod
    def from_range(cls, least, greatest):
        """Make the model of ranges."""
        return cls(*zip(least, greatest, strict=True))

    def corrupt(self, clean, theta, rng):
        """Add noise of photo-electrons, which are whole, and Gaussian read noise."""
        return detector_noise(clean, theta, rng)

    def variance(self, mean, theta, xp=np):
        """Compute gain · max(μ − pedestal, MIN_LEVEL) + σ², (B, H, W, C)."""
        return detector_variance(mean, theta, xp)

    def estimate(self, image, counts=None):
        """Fit the variance of flat parts over their brightness (`estimate_poisson_gaussian`)."""
        from bsdenoise.noise.signal_dependent import estimate_poisson_gaussian

        return estimate_poisson_gaussian(image, counts)


@dataclass(frozen=True)
class PoissonNoise(PoissonGaussianNoise):
    """Poisson noise as the literature tells it: by the photo-electrons of a fully lit pixel.

    The same model, with σ and pedestal 0 in the files' units; of a range, photo-electrons are drawn evenly.
    """

    kind = "poisson"

    @classmethod
    def read(cls, text, full_scale):
        """Read `30`, or a range `5-50`."""
        match = re.fullmatch(rf"\s*({NUMBER})(?:-({NUMBER}))?\s*", text)
        if not match or not float(match[1]) > 0 or not float(match[2] or match[1]) >= float(match[1]):
            raise ValueError(f"{POISSON_READS} Received: '{cls.kind}:{text}'.")
        low, high = float(match[1]), float(match[2] or match[1])
        return Declared(cls, PARAMETERS, (1.0 / high, 0.0, 0.0), (1.0 / low, 0.0, 0.0))

    def draw(self, rng):
        """Draw the photo-electrons of a fully lit pixel evenly from their range."""
        low, high = self.gain
        gain = low if low == high else 1.0 / rng.uniform(1.0 / high, 1.0 / low)
        return np.array([gain, self.sigma[0], self.pedestal[0]], np.float32)


def detector_noise(clean, theta, rng):
    """Add noise of a detector to an image (H, W, C): photo-electrons, which are whole, and Gaussian read noise.

    Args:
        clean: Float image, (H, W, C).
        theta: Gain, σ and pedestal, (3,).
        rng: A `numpy.random.Generator`.
    """
    gain, sigma, pedestal = (clean.dtype.type(value) for value in theta)
    noisy = clean
    if gain > 0:
        expected = np.maximum(clean.astype(np.float64) - pedestal, 0.0) / gain
        noisy = noisy + (gain * (rng.poisson(expected) - expected)).astype(clean.dtype)
    if sigma > 0:
        noisy = noisy + sigma * rng.standard_normal(clean.shape, clean.dtype)
    return noisy


def detector_variance(mean, theta, xp):
    """Compute gain · max(μ − pedestal, MIN_LEVEL) + σ², (B, H, W, C).

    Args:
        mean: Clean pixels or their prediction, (B, H, W, C).
        theta: Gain, σ and pedestal, (B, 3), or a map (B, H, W, 3).
        xp: `numpy` or `keras.ops`, whichever they are of.
    """
    theta = per_pixel(theta)
    gain, sigma, pedestal = (theta[..., index : index + 1] for index in range(len(PARAMETERS)))
    return gain * xp.maximum(mean - pedestal, MIN_LEVEL) + sigma**2
