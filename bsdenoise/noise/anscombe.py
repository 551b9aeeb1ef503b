"""The generalised Anscombe transform: signal-dependent noise becomes white, and a model for white noise denoises it.

Of noise with the variance gain · (x − pedestal) + σ², the transform
f(z) = 2 √((z − pedestal) / gain + 3/8 + σ²/gain²) makes noise of standard deviation 1 at (nearly) all brightnesses
(Murtagh, Starck, Bijaoui 1995). What is denoised there is not undone by the inverse of f, which would be biased, but by
the inverse of the expectation of f (Mäkitalo and Foi 2013), in its closed form.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

ROOT = 1.5**0.5  # √(3/2)
MIN_TRANSFORMED = 2.0 * 0.375**0.5  # f of no signal and no read noise; the closed form holds from here on
MIN_GAIN = 1e-7  # as full scale is 1: with less, noise does not depend on the signal


@dataclass(frozen=True)
class Stabilizer:
    """Transforms images so that their noise is white, and back. All arrays are in units whose full scale is 1.

    Args:
        gain: Gain of each image, (B, 1, 1, 1), at least `MIN_GAIN`.
        sigma: Read noise, likewise, ≥ 0.
        pedestal: Intensity of black, likewise.
        offset: Transformed intensity that is shown as 0, likewise.
        scale: Difference of transformed intensities that is shown as 1, likewise; noise has the standard deviation
            1 / `scale`.
    """

    gain: Any
    sigma: Any
    pedestal: Any
    offset: Any = 0.0
    scale: Any = 1.0

    @classmethod
    def of(cls, noisy: np.ndarray, theta: np.ndarray) -> "Stabilizer":
        """Make the transform of images, which are shown to span from 0 to 1.

        Args:
            noisy: (B, H, W, C), from which the range of intensities is found; NaN does not count.
            theta: Gain, σ and pedestal, (B, 3).
        """
        gain, sigma, pedestal = (theta[:, index, None, None, None].astype(np.float64) for index in range(3))
        plain = cls(np.maximum(gain, MIN_GAIN), sigma, pedestal)
        least = plain.transformed(np.nanmin(noisy, axis=(1, 2, 3), keepdims=True).astype(np.float64))
        greatest = plain.transformed(np.nanmax(noisy, axis=(1, 2, 3), keepdims=True).astype(np.float64))
        return cls(plain.gain, sigma, pedestal, least, np.maximum(greatest - least, 1.0))

    @property
    def shown_sigma(self) -> np.ndarray:
        """Standard deviation of the noise of images as they are shown, float32 (B,)."""
        return (1.0 / np.asarray(self.scale)).reshape(-1).astype(np.float32)

    def transformed(self, image: np.ndarray) -> np.ndarray:
        """Return f(z) of images, whose noise has a standard deviation of 1."""
        return 2.0 * np.sqrt(
            np.maximum((image - self.pedestal) / self.gain + 0.375 + (self.sigma / self.gain) ** 2, 0.0)
        )

    def shown(self, image: np.ndarray) -> np.ndarray:
        """Return images (B, H, W, C) as a model is shown them, float32."""
        return ((self.transformed(image.astype(np.float64)) - self.offset) / self.scale).astype(np.float32)

    def undone(self, moments: list[np.ndarray]) -> list[np.ndarray]:
        """Return denoised, mean and variance of images as they were shown in the units of the images.

        The variance follows by the derivative of the inverse, which is an approximation.

        Args:
            moments: Denoised, mean and variance, (B, H, W, C) each, or denoised alone.
        """
        results = [self._inverse(moment)[0] for moment in moments[:2]]
        if len(moments) > 2:
            slope = self._inverse(moments[0])[1]
            results.append(moments[2] * (slope * self.scale) ** 2)
        return [result.astype(np.float32) for result in results]

    def _inverse(self, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the exact unbiased inverse in its closed form, and its derivative."""
        # With read noise, f of no signal is larger; the closed form is that of Poisson noise less σ² / gain².
        d = np.maximum(shown.astype(np.float64) * self.scale + self.offset, MIN_TRANSFORMED)
        photons = d**2 / 4 + ROOT / (4 * d) - 11 / (8 * d**2) + 5 * ROOT / (8 * d**3) - 1 / 8
        slope = d / 2 - ROOT / (4 * d**2) + 11 / (4 * d**3) - 15 * ROOT / (8 * d**4)
        value = self.gain * (photons - (self.sigma / self.gain) ** 2) + self.pedestal
        return value, self.gain * slope
