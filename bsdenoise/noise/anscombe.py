"""The generalised Anscombe transform: noise that grows with the signal becomes white, for models of white noise.

For noise of the variance gain · (x − pedestal) + σ² the transform f(z) = 2/gain · √(gain (z − pedestal) + c), with
c = 3/8 gain² + σ², makes noise of standard deviation 1 at (nearly) all brightnesses (Murtagh, Starck, Bijaoui 1995).
What is denoised there is not undone by the inverse of f, which would be biased, but by that of its expectation
(Mäkitalo and Foi 2013), in its closed form.

Here f is taken less f(pedestal), and multiplied out: t(z) = 2 (z − pedestal) / (√(gain (z − pedestal) + c) + √c), and
nothing divides by the gain: where it is 0, t = (z − pedestal) / σ.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bsdenoise.likelihood import sure
from bsdenoise.noise.base import NoiseModel, per_pixel
from bsdenoise.noise.gaussian import GaussianNoise
from bsdenoise.noise.poisson_gaussian import MIN_LEVEL, PARAMETERS, detector_noise, detector_variance

ROOT = 1.5**0.5  # √(3/2)
# What is taken for noise that grows with the signal: its variance in the brightest parts over that in the darkest. And
# on every second pixel over every pixel: there fine texture has more contrast, and noise that pixels do not share does
# not. Photons of microscopes have at least 260, and 1.0 to 1.5; most photographs with texture enough to look like them
# have 2 to 20 for the latter (benchmarks/real_noise.md counts them).
MIN_DEPENDENCE, MAX_GROWTH = 6.0, 1.7
MIN_VALUES = 2**13  # of an image: fewer tell no curve
MIN_VARIANCE = 1e-12
STEP = 0.01  # of a photo-electron, over which a slope is measured
NEWTON_STEPS = 4


class Stabilized(NamedTuple):
    """How images are shown to a network that knows white noise: (t(z) − offset) · scale.

    Attributes:
        theta: Gain, σ and pedestal of the transform, (B, 3); of white noise 0, 1 and 0, so that t(z) = z.
        offset: Of t, (B,).
        scale: Factor, (B,).
        sigma: Standard deviation of the noise of t, (B,): 1 but for white noise.
    """

    theta: Any
    offset: Any
    scale: Any
    sigma: Any

    def applied(self, image):
        """Return images (B, H, W, C) as they are shown."""
        return (_transformed(image, self.theta) - _per_image(self.offset)) * _per_image(self.scale)

    def undone(self, moments):
        """Return moments (B, H, W, C) of images as shown, denoised, mean and variance, in the units of the images.

        The variance follows by the derivative of the inverse, which is an approximation.
        """
        offset, scale = _per_image(self.offset), _per_image(self.scale)
        ts = [moment / scale + offset for moment in moments[:2]]
        results = [_inverse(t, self.theta)[0] for t in ts]
        results += [variance * (_inverse(ts[0], self.theta)[1] / scale) ** 2 for variance in moments[2:]]
        return tuple(results)

    def shown_theta(self, theta, xp):
        """Return σ of images as they are shown, and 1 where their noise is white, (B, 2)."""
        is_white = xp.where(self.theta[:, 0] > 0.0, 0.0 * self.scale, 0.0 * self.scale + 1.0)
        return xp.stack([self.sigma * self.scale, is_white], axis=-1)

    def true_theta(self, shown_theta, xp):
        """Return the noise parameters, (B, 3); where it is white, σ is that of what is shown."""
        gain, sigma, pedestal = (self.theta[:, index] for index in range(len(PARAMETERS)))
        shown = shown_theta[:, 0] / self.scale
        return xp.stack([gain, xp.where(gain > 0.0, sigma, shown), pedestal], axis=-1)


@dataclass(frozen=True)
class StabilizedNoise(NoiseModel):
    """Noise of a detector, for a network that was trained for white noise.

    θ is gain, σ and pedestal, (B, 3), as that of `PoissonGaussianNoise`. Where they are not told, they are estimated;
    an image whose noise does not clearly grow with the signal is taken to have white noise, and denoised as by
    `GaussianNoise`.

    Args:
        low: Least σ of the training, as a fraction of full scale.
        high: Greatest σ.
    """

    kind = "stabilized"
    is_declared = False
    parameters = PARAMETERS
    is_known = False
    low: float
    high: float

    @property
    def least(self):
        """Nothing but σ was trained."""
        return 0.0, self.low, 0.0

    @property
    def greatest(self):
        """Whatever gain and pedestal are, the noise that is shown is white."""
        return PARAMETERS[0].high, self.high, PARAMETERS[2].high

    @property
    def shown_size(self):
        """σ, and whether the noise was white."""
        return 2

    @property
    def white(self) -> GaussianNoise:
        """The noise of the training."""
        return GaussianNoise(self.low, self.high)

    @classmethod
    def read(cls, text, full_scale):
        """Read nothing: it is no noise of images."""
        raise NotImplementedError

    @classmethod
    def from_range(cls, least, greatest):
        """Make the model of a range."""
        return cls(least[1], greatest[1])

    def corrupt(self, clean, theta, rng):
        """Add noise of a detector."""
        return detector_noise(clean, theta, rng)

    def estimate(self, image, counts=None):
        """Estimate the noise; gain and pedestal are 0 where it does not clearly grow with the signal."""
        from keras import ops

        from bsdenoise.noise import intensity_fit
        from bsdenoise.noise.signal_dependent import fit_line, fit_lines, noise_curve

        sigma = self.white.estimate(image, counts)
        white = ops.concatenate([ops.zeros_like(sigma), sigma, ops.zeros_like(sigma)], axis=-1)
        height, width, channels = ops.shape(image)[1:]
        is_large = height * width * channels >= MIN_VALUES
        if is_large is False:
            return white
        line, theta = fit_lines(*noise_curve(image, counts))
        low, high, _ = intensity_fit.extent(image)
        dark, middle, bright = (
            ops.maximum(_line(end, line, ops), MIN_VARIANCE) for end in (low, 0.5 * (low + high), high)
        )
        half = None if counts is None else counts[:, ::2, ::2]
        coarse = fit_line(*noise_curve(image[:, ::2, ::2], half, is_whole=False))
        grows = ops.logical_and(bright > MIN_DEPENDENCE * dark, is_large)
        for end, fine in ((0.5 * (low + high), middle), (high, bright)):
            grows = ops.logical_and(grows, _line(end, coarse, ops) < MAX_GROWTH * fine)
        return ops.where(grows[:, None], theta, white)

    def refined(self, prior, noisy, theta, counts=None):
        """Lower estimates of white noise to what the predictions leave unexplained."""
        from keras import ops

        refined = self.white.refined(prior, noisy, theta[:, :1], counts)
        return ops.concatenate([ops.where(theta[:, 1:] > 0.0, refined, theta[:, :1]), theta[:, 1:]], axis=-1)

    def is_trained(self, theta):
        """Return `False`: what is shown always has other parameters."""
        return False

    def fit(self, noisy, theta):
        """Transform images whose noise grows with the signal to span from 0 to 1; others as `GaussianNoise` does."""
        from keras import ops

        from bsdenoise.noise import intensity_fit

        theta = ops.convert_to_tensor(theta, "float32")
        is_white = theta[:, 0] == 0.0
        white = intensity_fit.fit(noisy, theta[:, 1], self.low, self.high)
        plain = ops.where(is_white[:, None], ops.convert_to_tensor([[0.0, 1.0, 0.0]], "float32"), theta)
        low, high, _ = intensity_fit.extent(_transformed(noisy, plain))
        spanning = ops.minimum(1.0 / ops.maximum(high - low, 1e-6), self.high)
        return Stabilized(
            plain,
            ops.where(is_white, white.offset, low),
            ops.where(is_white, white.gain, spanning),
            ops.where(is_white, theta[:, 1], 1.0),
        )

    def found(self, theta):
        """Return parameters as they are told: the least σ that is computed with stands for none."""
        return np.concatenate([theta[:, :1], self.white.found(theta[:, 1:2]), theta[:, 2:]], axis=-1)

    def nll(self, prior, noisy, theta):
        """Compute the likelihood of what is shown."""
        return self.white.nll(prior, noisy, theta[..., :1])

    def posterior(self, prior, noisy, theta):
        """Compute the posterior of what is shown."""
        return self.white.posterior(prior, noisy, theta[..., :1])

    def squared_errors(self, denoised, noisy, mean, variance, theta):
        """Estimate them for photo-electrons and Gaussian read noise (Le Montagner, Angelini, Olivo-Marin 2014).

        For z = gain · Poisson + N(0, σ²) above the pedestal, of mean x, and any function f of z, the mean of x f(z) is
        that of z f(z − gain) − σ² f′(z − gain). What a pixel becomes with another value is known exactly, as the
        network does not see it. White noise has Stein's estimate.
        """
        arrays = (array.astype(np.float64) for array in (denoised, noisy, variance, theta))
        denoised, noisy, variance, theta = arrays
        gain, sigma, pedestal = (theta[:, index, None, None, None] for index in range(len(PARAMETERS)))
        is_white = gain == 0.0
        theta = np.where(theta[:, :1] == 0.0, [[1.0, 0.0, 0.0]], theta)  # anything that can be computed with
        t = _solved(denoised, theta)
        # What is kept of the pixel's own noise, which t makes one of variance 1.
        kept = np.clip(variance / np.maximum(_inverse(t, theta)[1] ** 2, 1e-12), 0.0, 1.0)
        seen = _transformed(noisy, theta)

        def estimate(image):
            """Return what each value becomes if it alone is another."""
            return _inverse(t + kept * (_transformed(image, theta) - seen), theta)[0] - pedestal

        signal, step = noisy - pedestal, STEP * np.maximum(gain, MIN_LEVEL)
        slope = (estimate(noisy - gain + step) - estimate(noisy - gain - step)) / (2.0 * step)
        product = estimate(noisy - gain) * signal - sigma**2 * slope
        found = (denoised - pedestal) ** 2 - 2.0 * product + signal**2 - gain * signal - sigma**2
        return np.where(is_white, sure.terms(denoised, noisy, variance, sigma**2), found)

    def variance(self, mean, theta, xp=np):
        """Compute gain · max(μ − pedestal, MIN_LEVEL) + σ², (B, H, W, C)."""
        return detector_variance(mean, theta, xp)

    def shown_variance(self, mean, theta, xp=np):
        """Compute σ² of what is shown."""
        return self.white.variance(mean, theta[..., :1], xp)


def _line(level, theta, xp):
    """Compute the variance of the noise of each image at a level, (B,)."""
    return theta[:, 0] * xp.maximum(level - theta[:, 2], MIN_LEVEL) + theta[:, 1] ** 2


def _parts(theta):
    """Return gain, pedestal and c of images, (B, 1, 1, 1) each."""
    theta = per_pixel(theta)
    gain, sigma, pedestal = (theta[..., index : index + 1] for index in range(len(PARAMETERS)))
    return gain, pedestal, 0.375 * gain**2 + sigma**2


def _transformed(image, theta):
    gain, pedestal, c = _parts(theta)
    signal = image - pedestal
    root = _positive(gain * signal + c) ** 0.5
    return 2.0 * signal / (root + c**0.5)


def _inverse(t, theta):
    """Return the exact unbiased inverse of t in its closed form, and its derivative."""
    gain, pedestal, c = _parts(theta)
    # 1 / f, at least as large as without a signal, where the closed form begins to hold.
    inverse = gain / (gain * _positive(t) + 2.0 * c**0.5)
    bias = 0.25 * ROOT * inverse - 1.375 * inverse**2 + 0.625 * ROOT * inverse**3
    slope = -0.25 * ROOT * inverse**2 + 2.75 * inverse**3 - 1.875 * ROOT * inverse**4
    value = 0.25 * gain * t**2 + t * c**0.5 + gain * (0.25 + bias) + pedestal
    return value, 0.5 * gain * t + c**0.5 + gain * slope


def _solved(values, theta):
    """Return t of which the unbiased inverse is given, by Newton's method."""
    lowest = -2.0 * _parts(theta)[2] ** 0.5 / _parts(theta)[0]
    t = _transformed(values, theta)
    for _ in range(NEWTON_STEPS):
        found, slope = _inverse(t, theta)
        t = np.maximum(t - (found - values) / np.maximum(slope, 1e-9), lowest)
    return t


def _positive(values):
    """Return max(values, 0), of arrays and tensors."""
    return 0.5 * (values + abs(values))


def _per_image(values):
    return values[:, None, None, None]
