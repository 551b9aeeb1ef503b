"""Noise that neighbouring pixels share: how it is measured, and what it lacks to be white.

Noise of autocovariance A has the power spectrum S, the Fourier transform of A. Independent noise of the spectrum
L − S, with L = max S, added to it makes white noise of variance L, which is what models for white noise are trained on.
"""

import math
from dataclasses import dataclass

import numpy as np

LAGS = 8  # pixels to each side: what a camera's or an averaging detector's noise shares has gone by then
BLOCK = 24  # side in pixels of what is looked at: three times the lags
STEP = BLOCK // 2
# Of the blocks those with the least variance are the flattest. A smaller share takes the noise for weaker than it is, a
# larger one texture for noise; chosen on detectors and cameras.
SHARE, LEAST_BLOCKS = 0.1, 8
MAX_LOST = 0.02  # share of a block's pixels that may have the least or the greatest value of the image
MAX_SIDE = 1024  # of the part of an image that is looked at, its middle
# Correlation of direct neighbours from which noise is taken for shared. Files of cameras and of an averaging detector
# have 0.57 to 0.8; photographs with white noise of σ = 25 up to 0.1, for what is left of their texture.
MIN_NEIGHBOURS = 0.3
MAX_SHARED = 0.2  # correlation of the noise of pixels that a blind spot need not hide; a choice
LEAST_SIDE = 64  # of fields of noise
NUM_COLOURS = 3
IDENTICAL = 0.999  # correlation of channels that are one: a grey image


@dataclass(frozen=True)
class CorrelatedNoise:
    """Noise that neighbouring pixels share, the same all over the image.

    Attributes:
        autocovariance: Covariance of a pixel's noise with that of the pixels around it, float64
            (2·`LAGS` + 1, 2·`LAGS` + 1, C), in squared units of the image; the pixel itself is in the middle.
    """

    autocovariance: np.ndarray

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviation of the noise of each channel, (C,)."""
        return np.sqrt(np.maximum(self.autocovariance[LAGS, LAGS], 0.0))

    @property
    def correlations(self) -> np.ndarray:
        """Correlation with the noise of the pixels around, mean over channels, (2·`LAGS` + 1, 2·`LAGS` + 1)."""
        total = self.autocovariance.sum(axis=-1)
        return total / total[LAGS, LAGS] if total[LAGS, LAGS] > 0 else np.zeros_like(total)

    def correlation(self, rows: int, columns: int) -> float:
        """Compute the correlation of the noise of two pixels, mean over channels; 0 where there is no noise.

        Args:
            rows: How many rows they are apart, at most `LAGS`.
            columns: How many columns.
        """
        variance = self.autocovariance[LAGS, LAGS].sum()
        return float(self.autocovariance[LAGS + rows, LAGS + columns].sum() / variance) if variance > 0 else 0.0

    @property
    def neighbours(self) -> float:
        """Correlation of the noise of direct neighbours, mean over rows and columns."""
        return (self.correlation(0, 1) + self.correlation(1, 0)) / 2

    def spectrum(self, side: int) -> np.ndarray:
        """Compute the power spectrum S on a periodic square, (side, side // 2 + 1, C), ≥ 0; its mean is the variance.

        Far lags are known less well than near ones, and taper off.

        Args:
            side: In pixels, at least 2·`LAGS` + 1.
        """
        taper = np.hanning(2 * LAGS + 3)[1:-1] ** 0.5
        kernel = np.zeros((side, side, self.autocovariance.shape[2]))
        size = 2 * LAGS + 1
        kernel[:size, :size] = self.autocovariance * (taper[:, None] * taper)[..., None]
        kernel = np.roll(kernel, (-LAGS, -LAGS), axis=(0, 1))
        return np.maximum(np.fft.rfft2(kernel, axes=(0, 1)).real, 0.0)

    @property
    def white_sigma(self) -> float:
        """Standard deviation √L of the white noise that it can be completed to."""
        return math.sqrt(self.spectrum(LEAST_SIDE).max())

    def complement(self, side: int, rng: np.random.Generator) -> np.ndarray:
        """Draw what it lacks to be white, float32 (side, side, C), periodic.

        Args:
            side: In pixels, at least `LEAST_SIDE`.
            rng: Source of what is random.
        """
        spectrum = self.spectrum(side)
        missing = np.sqrt(np.maximum(self.white_sigma**2 - spectrum, 0.0))
        white = rng.standard_normal((side, side, spectrum.shape[2]), np.float32)
        return np.fft.irfft2(np.fft.rfft2(white, axes=(0, 1)) * missing, (side, side), axes=(0, 1)).astype(np.float32)


def blind_spot(correlation: np.ndarray) -> tuple[int, int]:
    """Choose the smallest blind spot that hides the neighbours which share much of a pixel's noise.

    Args:
        correlation: Of the noise of a pixel with that of those around it, (2·`LAGS` + 1, 2·`LAGS` + 1).

    Returns:
        Height and width in pixels, odd numbers, as `--blind-spot` takes them.
    """
    sides = range(1, 2 * LAGS + 2, 2)
    for height, width in sorted(((high, wide) for high in sides for wide in sides), key=lambda size: size[0] * size[1]):
        outside = np.array(correlation, copy=True)
        rows, columns = (slice(LAGS - side // 2, LAGS + side // 2 + 1) for side in (height, width))
        outside[rows, columns] = 0.0
        if np.abs(outside).max() <= MAX_SHARED:
            return height, width
    raise AssertionError("the largest one hides all")


def estimate_correlated(image: np.ndarray) -> CorrelatedNoise | None:
    """Measure noise that neighbouring pixels may share, in the flattest blocks of an image.

    Each channel by itself. A plane is taken off each block, and the autocovariances of the rest are averaged.

    Args:
        image: (H, W, C), float. Blocks with pixels that are not finite do not count.

    Returns:
        The noise; `None` if a channel has no block, as of images of less than 24 pixels on a side, or no noise.
    """
    height, width, channels = image.shape
    top, left = max(height - MAX_SIDE, 0) // 2, max(width - MAX_SIDE, 0) // 2
    image = image[top : top + MAX_SIDE, left : left + MAX_SIDE]
    if min(image.shape[:2]) < BLOCK:
        return None
    found = [_autocovariance(image[..., channel].astype(np.float64)) for channel in range(channels)]
    if any(one is None for one in found):
        return None
    return CorrelatedNoise(np.stack(found, axis=-1))  # type: ignore[arg-type]


def between_channels(image: np.ndarray, max_side: int = MAX_SIDE) -> float:
    """Compute the correlation of what varies between the channels of a colour image, in its flattest blocks.

    Texture is much the same in all of them; the noise of a camera is not, even after demosaicing.

    Args:
        image: (H, W, C), float.
        max_side: Largest side in pixels of what is looked at, the middle of the image.

    Returns:
        The mean over pairs of channels; NaN if there are not three, they are all the same, or no block can be used.
    """
    height, width, channels = image.shape
    if channels != NUM_COLOURS or min(height, width) < BLOCK:
        return math.nan
    top, left = max(height - max_side, 0) // 2, max(width - max_side, 0) // 2
    image = image[top : top + max_side, left : left + max_side].astype(np.float64)
    levelled = [_levelled(image[..., channel]) for channel in range(channels)]
    usable = np.all([which for _, which in levelled], axis=0)
    rest = np.stack([blocks[usable] for blocks, _ in levelled], axis=1)
    variances = rest.var(axis=2)
    varied = np.flatnonzero((variances > 0).all(axis=1))
    if not len(varied):
        return math.nan
    flat = rest[_flattest(variances.sum(axis=1), varied)]
    covariance = np.einsum("nip,njp->ij", flat, flat)
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    mean = float(correlation[np.triu_indices(channels, 1)].mean())
    return math.nan if mean > IDENTICAL else mean


def _autocovariance(plane: np.ndarray) -> np.ndarray | None:
    """Average the autocovariances of the flattest blocks of one channel, (2·LAGS + 1, 2·LAGS + 1)."""
    blocks, usable = _levelled(plane)
    rest = blocks[usable]
    variances = rest.var(axis=1)
    varied = np.flatnonzero(variances > 0)
    if not len(varied):
        return None
    return _mean_autocovariance(rest[_flattest(variances, varied)].reshape(-1, BLOCK, BLOCK))


def _flattest(variances: np.ndarray, varied: np.ndarray) -> np.ndarray:
    """Return which blocks vary least, of those that do."""
    order = varied[np.argsort(variances[varied], kind="stable")]
    return order[: max(LEAST_BLOCKS, int(SHARE * len(order)))]


def _levelled(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut a channel into blocks and take a plane off each; return them (N, BLOCK²), and which can be used, (N,)."""
    blocks = np.lib.stride_tricks.sliding_window_view(plane, (BLOCK, BLOCK))[::STEP, ::STEP]
    blocks = blocks.reshape(-1, BLOCK * BLOCK)
    finite = plane[np.isfinite(plane)]
    if not finite.size:
        return blocks, np.zeros(len(blocks), bool)
    lost = (blocks == finite.min()) | (blocks == finite.max())
    usable = np.isfinite(blocks).all(axis=1) & (lost.mean(axis=1) <= MAX_LOST)
    ramp = np.arange(BLOCK) - (BLOCK - 1) / 2
    planes = np.stack([np.ones(BLOCK * BLOCK), np.repeat(ramp, BLOCK), np.tile(ramp, BLOCK)], axis=1)
    planes /= np.linalg.norm(planes, axis=0)
    whole = np.where(usable[:, np.newaxis], blocks, 0.0)
    return whole - (whole @ planes) @ planes.T, usable


def _mean_autocovariance(blocks: np.ndarray) -> np.ndarray:
    """Average the products of pixels (N, BLOCK, BLOCK) at each lag, over as many pairs as there are."""
    side = 2 * BLOCK  # nothing wraps around
    power = (np.abs(np.fft.rfft2(blocks, (side, side))) ** 2).mean(axis=0)
    sums = np.fft.irfft2(power, (side, side))
    lags = np.arange(-LAGS, LAGS + 1)
    pairs = BLOCK - np.abs(lags)
    return sums[np.ix_(lags, lags)] / (pairs[:, None] * pairs)
