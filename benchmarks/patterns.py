"""Does a network stay sane where an image is as regular and strong as no photograph that it has seen?

A network can do well on photographs and yet amplify without end on the checks of a tablecloth, where its predictions
leave the range of intensities by far. So every model is tried on stripes and checks before it is shipped.
"""

import itertools
from typing import Any

import numpy as np

from bsdenoise import presets

SIGMA = 25 / presets.LEVELS
NOISY_PSNR = -20 * np.log10(SIGMA)  # in dB; who denoises is better than that
SIDE = 128  # of a pattern in pixels: smaller ones did not bring the fault to light
DEGREES = (10, 35, 60, 80)
PERIODS = (3.5, 5.0, 7.0, 10.0)  # pixels
LOW, HIGH = 0.0, 0.9  # intensities of a pattern


def patterns() -> np.ndarray:
    """Gives stripes and checks of all directions and periods beside each other, float32 (H, W)."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    tiles = []
    for degrees, period in itertools.product(DEGREES, PERIODS):
        angle, frequency = np.deg2rad(degrees), 2 * np.pi / period
        across = np.sin(frequency * (columns * np.cos(angle) + rows * np.sin(angle)))
        along = np.sin(frequency * (rows * np.cos(angle) - columns * np.sin(angle)))
        for wave in (across, across * along):
            steep = np.sign(wave) * np.sqrt(np.abs(wave))
            tiles.append((LOW + HIGH) / 2 + (HIGH - LOW) / 2 * steep)
    count = 2 * len(PERIODS)
    rows_of_tiles = [np.concatenate(tiles[i : i + count], axis=1) for i in range(0, len(tiles), count)]
    return np.concatenate(rows_of_tiles).astype(np.float32)


def worst_psnr(denoiser: Any) -> float:
    """Denoises the patterns with noise of σ = 25 grey levels that is always the same.

    Args:
        denoiser: A `Denoiser` of photographs.

    Returns:
        The PSNR in dB of the pattern with the least one; below `NOISY_PSNR` the result is worse than the noisy image.
    """
    clean = np.repeat(patterns()[..., np.newaxis], denoiser.channels, axis=-1)
    noise = np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    squares = (np.asarray(denoiser.denoise(clean + SIGMA * noise, sigma=SIGMA)) - clean) ** 2
    height, width = (side // SIDE for side in clean.shape[:2])
    mse = squares.reshape(height, SIDE, width, SIDE, -1).mean(axis=(1, 3, 4))
    return float(-10 * np.log10(mse.max()))
