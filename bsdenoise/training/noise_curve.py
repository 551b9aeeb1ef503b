"""How strong the noise of images is at each brightness, measured on the images themselves.

Detectors have noise that grows with the signal, and clipping takes it away at either end. Where one declared σ stands
for all of that, an estimate of a model's error that believes in it prefers the wrong model; with the noise that is
really there it does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bsdenoise.noise.spec import SIGMA_MEDIAN

BLOCK = 8  # side in pixels of what has one brightness and one σ
DETAIL_GAIN = 6.0  # √36: second differences along both axes of white noise of σ = 1 have this standard deviation
# Of the blocks of one brightness those with the least noise are the flattest. The first quartile of their σ is this
# share of the true one where all are flat; measured on 160,000 blocks of white noise.
FLAT_QUANTILE, FLAT_SHARE = 0.25, 0.87
# Brightness is divided at these quantiles: finely at the upper end, where noise is strongest and images are few.
QUANTILES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
MIN_BLOCKS = 24  # of one brightness, for a quartile to mean something
NEIGHBOURHOOD = 5  # side of the square of neighbours whose mean is a pixel's brightness
# A declared variance does not fit if a tenth of the pixels has less than this share of it, as where noise depends on
# the brightness or is clipped; or half of them more than this multiple: fine texture is taken for noise as well.
LESS, LESS_SHARE = 0.6, 0.1
MORE, MORE_SHARE = 1.7, 0.5


@dataclass(frozen=True)
class NoiseCurve:
    """Noise variance as a function of brightness, of each channel.

    Attributes:
        levels: For each channel brightnesses, (K,), increasing.
        variances: For each channel the noise variances there, (K,).
    """

    levels: Sequence[np.ndarray]
    variances: Sequence[np.ndarray]

    def __call__(self, mean: np.ndarray) -> np.ndarray:
        """Return the noise variance of pixels (…, C) of a given mean, of the same shape, float64."""
        curves = zip(np.moveaxis(mean, -1, 0), self.levels, self.variances, strict=True)
        return np.stack([np.interp(channel, levels, variances) for channel, levels, variances in curves], axis=-1)


def fit(images: Sequence[np.ndarray]) -> NoiseCurve | None:
    """Measure noise over brightness on noisy images.

    Args:
        images: (H, W, C) each, float; all of one kind, for they are taken together.

    Returns:
        The curve; `None` if the images are too small to tell.
    """
    levels, variances = [], []
    for channel in range(images[0].shape[-1]):
        blocks = np.concatenate([_blocks(image[..., channel].astype(np.float64)) for image in images], axis=-1)
        if blocks.shape[-1] < MIN_BLOCKS:
            return None
        brightness, sigma = blocks[:, np.argsort(blocks[0])]
        ends = np.unique(np.round(np.array(QUANTILES) * len(sigma)).astype(int))
        parts = [slice(low, high) for low, high in zip(ends, ends[1:], strict=False) if high - low >= MIN_BLOCKS]
        parts = parts or [slice(None)]
        levels.append(np.array([brightness[part].mean() for part in parts]))
        flat = np.array([np.quantile(sigma[part], FLAT_QUANTILE) for part in parts])
        variances.append(np.square(flat / FLAT_SHARE))
    return NoiseCurve(levels, variances)


def brightness(image: np.ndarray) -> np.ndarray:
    """Return the mean of the neighbours of each pixel of (H, W, C), in which its own noise has no part."""
    number = NEIGHBOURHOOD**2
    around = ndimage.uniform_filter(image.astype(np.float64), (NEIGHBOURHOOD, NEIGHBOURHOOD, 1), mode="nearest")
    return (number * around - image) / (number - 1)


def fits(variances: Sequence[np.ndarray], declared: Sequence[np.ndarray]) -> bool:
    """Tell whether measured noise variances of images agree with declared ones, arrays of the same shapes."""
    ratios = [(measured / expected).ravel() for measured, expected in zip(variances, declared, strict=True)]
    ratio = np.concatenate(ratios)
    return bool(np.mean(ratio < LESS) < LESS_SHARE and np.mean(ratio > MORE) < MORE_SHARE)


def _blocks(image: np.ndarray) -> np.ndarray:
    """Return brightness and noise of the blocks of (H, W), (2, number of blocks); without those of bad pixels."""
    with np.errstate(invalid="ignore"):
        details = np.abs(np.diff(np.diff(image, n=2, axis=0), n=2, axis=1)) / DETAIL_GAIN
    inner = image[1:-1, 1:-1]
    rows, columns = (size // BLOCK for size in details.shape)
    cut = [part[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK) for part in (inner, details)]
    level, detail = (part.swapaxes(1, 2).reshape(rows * columns, BLOCK**2) for part in cut)
    found = np.stack([level.mean(axis=1), np.median(detail, axis=1) / SIGMA_MEDIAN])
    return found[:, np.isfinite(found).all(axis=0)]
