"""Hot and dead pixels: single ones far beyond all of their neighbours."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from bsdenoise.inspection.records import Curve, Outliers

BEYOND = 8.0  # standard deviations of the noise, from the median of a pixel and its neighbours
# A pixel must also be so many times as far from its neighbours as they are from each other, or it is the tip of
# something; neighbours in white noise are three standard deviations from each other.
ISOLATED = 3.0
MIN_IMAGES = 3  # of which most must have an outlier at a place, for it to be one of the detector
RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)


class Defects:
    """Finds outliers in the images of one channel, one after the other.

    Args:
        sigma: Standard deviation of the noise.
        curve: Noise over brightness, if it grows with that.
        floor: Least standard deviation that counts, such as the step between levels.
    """

    def __init__(self, sigma: float, curve: Curve | None, floor: float):
        self._sigma, self._curve, self._floor = sigma, curve, floor
        self._hot = self._dead = self._images = self._pixels = 0
        self._often: np.ndarray | None = None

    def add(self, plane: np.ndarray, counts: np.ndarray) -> None:
        """Look at one image, (H, W), whose pixels hold measurements where `counts`, bool (H, W)."""
        plane = plane.astype(np.float64)
        highest, lowest = (
            function(plane, footprint=RING, mode="nearest")
            for function in (ndimage.maximum_filter, ndimage.minimum_filter)
        )
        distance = ISOLATED * (highest - lowest)
        candidates = ((plane - highest > distance) | (lowest - plane > distance)) & counts
        rows, columns = np.nonzero(candidates & ((plane > highest) | (plane < lowest)))
        height, width = plane.shape
        around = [
            plane[np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)]
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        ]
        excess = plane[rows, columns] - np.median(around, axis=0) if len(rows) else np.empty(0)
        is_far = np.abs(excess) > BEYOND * self._noise(highest[rows, columns])
        self._hot += int(np.count_nonzero(is_far & (excess > 0)))
        self._dead += int(np.count_nonzero(is_far & (excess < 0)))
        self._images += 1
        self._pixels += int(counts.sum())
        if self._often is None or self._often.shape != plane.shape:
            self._often = np.zeros(plane.shape, np.uint16)
        self._often[rows[is_far], columns[is_far]] += 1

    def found(self, corner: Sequence[int] = (0, 0)) -> Outliers:
        """Return what was found; places count from the corner of the image, (top, left) of what was looked at."""
        places = np.empty((0, 2), int)
        if self._often is not None and self._images >= MIN_IMAGES:
            places = np.argwhere(2 * self._often > self._images) + np.array(corner)
        share = (self._hot + self._dead) / max(self._pixels, 1)
        images = max(self._images, 1)
        return Outliers(self._hot / images, self._dead / images, share, places)

    def _noise(self, level: np.ndarray) -> np.ndarray:
        """Return the standard deviation of noise at levels; that of a few photons is not Gaussian, hence the gain."""
        variance = np.full(level.shape, max(self._sigma, self._floor) ** 2)
        if self._curve is not None and self._curve.gain.value > 0:
            variance = np.maximum(variance, self._curve.line(level)) + self._curve.gain.value**2
        return np.sqrt(variance)
