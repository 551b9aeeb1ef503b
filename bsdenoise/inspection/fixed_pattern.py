"""What images of one detector share beside what they show: patterns of pixels, rows and columns.

Of each image what neighbours do not explain is taken, and averaged over every other image and over the rest. What the
two averages have in common everywhere is the detector's; what they have in common in places may be a scene that stays.
"""

from itertools import permutations

import numpy as np
from scipy import ndimage

from bsdenoise.inspection.records import Pattern

RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]]) / 8.0
PIXEL_GAIN = 1.125  # variance of independent pixels less the mean of their eight neighbours
LINE_GAIN = 0.84375  # the same of independent rows: (6/8)² + 2 (3/8)²
CUT = 4.0  # standard deviations at which residuals are cut: hot pixels are told as such
BLOCK = 16  # side in pixels of what is flat or not
FLAT_QUANTILE = 0.25  # of the blocks' correlations: a pattern is everywhere, texture is not
MIN_CORRELATION = 0.15  # of such blocks; independent noise has −0.04
MIN_IMAGES = 4
STRIPS = 4  # into which rows are cut: a pattern of rows is the same in all of them
MIN_LINE_CORRELATION = 0.3  # of the profiles of strips; independent noise has less than 4 / √rows
MIN_LINE_SHARE = 0.1  # of the noise; a weaker pattern of rows is not told


class Shared:
    """What images of one shape share; they are given one after the other."""

    def __init__(self) -> None:
        self._sums: list[np.ndarray] = []
        self._images = 0

    def add(self, plane: np.ndarray, counts: np.ndarray) -> None:
        """Take one image of one channel, (H, W); one of another shape than the first does not count.

        Args:
            plane: The image, with something plausible where there is no measurement.
            counts: Where there is one, bool (H, W).
        """
        if min(plane.shape) < 2 * BLOCK or (self._sums and plane.shape != self._sums[0].shape):
            return
        plane = plane.astype(np.float64)
        rest = (plane - ndimage.convolve(plane, RING, mode="nearest")) * counts
        limit = CUT * 1.4826 * np.median(np.abs(rest))
        rest = np.clip(rest, -limit, limit) if limit > 0 else rest
        if not self._sums:
            self._sums = [np.zeros(plane.shape), np.zeros(plane.shape)]
        self._sums[self._images % 2] += rest
        self._images += 1

    def found(self, sigma: float, scale: float = 1.0) -> Pattern | None:
        """Return the pattern; `None` if no image was large enough.

        Args:
            sigma: Standard deviation of the noise, in the units of the images.
            scale: What the numbers are to be multiplied by.
        """
        if not self._images:
            return None
        number = [(self._images + 1) // 2, self._images // 2]
        averages = [total / max(count, 1) for total, count in zip(self._sums, number, strict=True)]
        pair = averages if self._images > 1 else [averages[0], averages[0]]
        correlation = variance = 0.0
        if self._images >= MIN_IMAGES:
            correlation, variance = _in_flat_blocks(*pair)
        least = MIN_LINE_SHARE * sigma
        lines = [_of_rows(pair[0], pair[1], least), _of_rows(pair[0].T, pair[1].T, least)]
        has_pixels = correlation >= MIN_CORRELATION
        picture = sum(self._sums) / self._images
        return Pattern(
            self._images,
            max(correlation, 0.0),
            scale * variance**0.5 if has_pixels else 0.0,
            scale * lines[0],
            scale * lines[1],
            bool(has_pixels or any(lines)),
            np.asarray(picture, np.float32),
        )


def _in_flat_blocks(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return correlation and covariance of two averages in their flat blocks, per pixel of a pattern."""
    rows, columns = (side // BLOCK for side in one.shape)
    first, second = (
        part[: rows * BLOCK, : columns * BLOCK]
        .reshape(rows, BLOCK, columns, BLOCK)
        .swapaxes(1, 2)
        .reshape(-1, BLOCK**2)
        for part in (one, other)
    )
    first, second = (part - part.mean(axis=1, keepdims=True) for part in (first, second))
    covariance = (first * second).mean(axis=1)
    product = np.sqrt((first**2).mean(axis=1) * (second**2).mean(axis=1))
    known = product > 0
    if not known.any():
        return 0.0, 0.0
    correlation = covariance[known] / product[known]
    flat = float(np.quantile(correlation, FLAT_QUANTILE))
    return flat, max(float(np.quantile(covariance[known], FLAT_QUANTILE)), 0.0) / PIXEL_GAIN


def _of_rows(one: np.ndarray, other: np.ndarray, least: float) -> float:
    """Return the standard deviation of a pattern of rows; 0 if strips of the images do not agree on it."""
    profiles = [[strip.mean(axis=1) for strip in np.array_split(part, STRIPS, axis=1)] for part in (one, other)]
    profiles = [[_cut(profile) for profile in strips] for strips in profiles]
    pairs = [(profiles[0][a], profiles[1][b]) for a, b in permutations(range(STRIPS), 2)]
    covariance = float(np.median([np.mean(a * b) for a, b in pairs]))
    power = float(np.median([np.sqrt(np.mean(a**2) * np.mean(b**2)) for a, b in pairs]))
    enough = max(MIN_LINE_CORRELATION, 4.0 / len(one) ** 0.5)
    if power <= 0 or covariance < enough * power:
        return 0.0
    sigma = (covariance / LINE_GAIN) ** 0.5
    return sigma if sigma >= least else 0.0


def _cut(profile: np.ndarray) -> np.ndarray:
    limit = CUT * 1.4826 * np.median(np.abs(profile))
    cut = np.clip(profile, -limit, limit)
    return cut - cut.mean()
