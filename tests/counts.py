"""Synthetic stacks of a 12-bit camera: photographs as photo-electrons, read noise, a pedestal, whole numbers, clipping.

What training meets from microscopes and other detectors, with the clean image known: noise grows with the signal, so
that no single σ fits, and the brightest pixels are cut off.
"""

from dataclasses import dataclass

import numpy as np
from skimage import color, data, util

FULL_COUNT = 4095
_PHOTOGRAPHS = ("camera", "astronaut", "coffee", "chelsea", "rocket", "coins", "moon", "brick", "clock", "page")


@dataclass(frozen=True)
class Camera:
    """How counts come about: pedestal + gain · Poisson(electrons) + read noise, rounded and clipped to 12 bits.

    Attributes:
        brightest: Counts of white above the pedestal.
        gain: Counts per photo-electron.
        read_noise: Standard deviation in counts.
        pedestal: Counts in the dark.
        contrast: Exponent of the clean image; large ones leave most of it dark, as in fluorescence.
    """

    brightest: float = 1500.0
    gain: float = 8.0
    read_noise: float = 10.0
    pedestal: float = 100.0
    contrast: float = 1.0

    def clean(self, image):
        """Return what would be counted on average, without clipping, for an image from 0 to 1."""
        return self.pedestal + self.brightest * image**self.contrast

    def noisy(self, clean, rng):
        """Return one exposure, uint16."""
        electrons = rng.poisson((clean - self.pedestal) / self.gain)
        counts = self.pedestal + self.gain * electrons + rng.normal(0.0, self.read_noise, clean.shape)
        return np.rint(counts).clip(0, FULL_COUNT).astype("uint16")

    def rms(self, clean):
        """Return the root of the mean noise variance over an image: what a user who knows one number would declare."""
        return float(np.sqrt(np.mean(self.gain * (clean - self.pedestal) + self.read_noise**2)))


def photographs(count, side):
    """Cut `count` grey squares from free photographs, float64 (count, side, side) from 0 to 1."""
    rng = np.random.default_rng(0)
    squares = []
    for number in range(count):
        image = util.img_as_float(getattr(data, _PHOTOGRAPHS[number % len(_PHOTOGRAPHS)])())
        image = color.rgb2gray(image[..., :3]) if image.ndim == 3 else image
        top, left = (int(rng.integers(size - side + 1)) for size in image.shape)
        squares.append(image[top : top + side, left : left + side])
    return np.stack(squares)


def stacks(camera, count, side, seed=0):
    """Return a clean stack, float64 counts, and one noisy exposure of each image, uint16, both (count, side, side)."""
    clean = camera.clean(photographs(count, side))
    return clean, camera.noisy(clean, np.random.default_rng(seed))
