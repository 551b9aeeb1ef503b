"""Pixels that hold no measurement: which ones they are, and what a network is shown in their place.

Inside the package they are NaN wherever images are floats. A network cannot be shown NaN, and a constant would be an
edge that is not there. So gaps are filled from what was measured around them: with averages over many pixels, for a
copy of one neighbour would show a blind-spot network that pixel's own noise; and with noise upon them, for where there
is none the network takes the image for a clean one, up to twenty pixels away.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bsdenoise.noise.spec import SIGMA_MEDIAN

# Of the Gaussian, in pixels of each level of the pyramid. Measured with the shipped models on gaps of many shapes:
# wider ones follow the image less well, narrower ones give a single pixel too much weight.
SMOOTHING = 1.5
# Where measured pixels have less weight than this in the Gaussian, the next coarser level has most of the say.
CONFIDENT = 0.05
# No instrument measures so much. Values that stand for "none" are often written with few digits, such as -3.4e38.
BEYOND_MEASURE = 1e30
FEW_DIGITS = 1e-2  # by how much they may then differ
NOTHING_MEASURED = "none of its pixels holds a measurement"
LEAST_BLOCKS = 64  # 2×2 pixels from which noise is estimated
_NOISE = 0  # seed: the same image is filled the same way whenever it is


def parse_no_data(text: str | None) -> float | None:
    """Read a value that stands for "no measurement"; NaN, which always does, if there is to be none.

    Raises:
        ValueError: If it is no number.
    """
    try:
        return None if text is None else float(text)
    except ValueError:
        raise ValueError(
            "--no-data takes a number in the files' own units, such as -9999 or -3.4e38; nan for none, whatever the "
            f"files declare. Received: {text!r}."
        ) from None


def where(array: np.ndarray, no_data: float | None = None, mask: np.ndarray | None = None) -> np.ndarray | None:
    """Find the values that hold no measurement.

    Args:
        array: Pixels of any type and shape; NaN is no measurement.
        no_data: Value that stands for "no measurement", in the units of `array`; `None` if there is none.
        mask: Further values to ignore, where it is true; of a shape that broadcasts to that of `array`.

    Returns:
        bool, of the shape of `array`; `None` if every value is a measurement.
    """
    found = np.isnan(array) if array.dtype.kind == "f" else None
    for more in (None if no_data is None else _equal(array, no_data), mask):
        if more is not None:
            found = np.broadcast_to(more, array.shape) if found is None else found | more
    return found if found is not None and found.any() else None


def with_nan(values: np.ndarray, gaps: np.ndarray | None) -> np.ndarray:
    """Mark values that hold no measurement by NaN, in a float array; where there are none, it is the array itself.

    Args:
        values: The values, of a float type.
        gaps: Which of them hold no measurement, bool, of that shape; `None` for none.
    """
    return values if gaps is None else np.where(gaps, values.dtype.type(np.nan), values)


def filled(image: np.ndarray, gaps: np.ndarray | None = None) -> np.ndarray:
    """Fill gaps with noisy averages of what was measured around them, each channel by itself.

    Args:
        image: (H, W, C) or (H, W), floats or integers.
        gaps: Which values are to be filled, bool, of that shape; `None` for those that are NaN.

    Returns:
        An array of the same type and shape, in which measured values are what they were; the array itself if there are
        no gaps. A channel without a measurement gets the mean of the others, or 0 if there is no measurement at all.
    """
    gaps = np.isnan(image) if gaps is None else gaps
    if not gaps.any():
        return image
    values = np.where(gaps, 0, image).astype(np.float64 if image.dtype.itemsize > 4 else np.float32)
    values, measured = (array.reshape(*image.shape[:2], -1) for array in (values, ~gaps))
    mean = values[measured].mean(dtype=np.float64) if measured.any() else 0.0
    rng = np.random.default_rng(_NOISE)
    for channel in range(values.shape[2]):
        if measured[..., channel].any() and not measured[..., channel].all():
            values[..., channel] = _with_averages(values[..., channel], measured[..., channel], rng)
    values[..., ~measured.any(axis=(0, 1))] = mean
    if image.dtype.kind in "ui":
        values = np.clip(np.rint(values), np.iinfo(image.dtype).min, np.iinfo(image.dtype).max)
    return np.where(gaps, values.reshape(image.shape).astype(image.dtype), image)


@dataclass(frozen=True)
class Gaps:
    """The values of images that hold no measurement, and what stood there.

    Attributes:
        where: bool, of the shape of the images.
        before: The images as they came.
        is_masked: Whether they came as a masked array.
    """

    where: np.ndarray
    before: np.ndarray
    is_masked: bool

    @property
    def is_everything(self) -> bool:
        """Whether nothing was measured at all."""
        return bool(self.where.all())

    @property
    def counts(self) -> np.ndarray:
        """Which values are measurements, bool."""
        return ~self.where

    def part(self, *window: slice) -> "Gaps":
        """Return those of some rows and columns of an image."""
        return Gaps(self.where[window], self.before[window], self.is_masked)

    def restored(self, result: np.ndarray) -> np.ndarray:
        """Put back into denoised images what stood there; integers as fractions of their type's maximum.

        Args:
            result: Float array of the shape of the images.

        Returns:
            An array of that type; a masked one where the images were.
        """
        with np.errstate(over="ignore"):  # under a mask there may be anything
            before = self.before.astype(result.dtype)
        if self.before.dtype.kind in "ui":
            before /= np.iinfo(self.before.dtype).max
        return self._masked(np.where(self.where, before, result))

    def without(self, result: np.ndarray) -> np.ndarray:
        """Mark by NaN what nothing can be said about, in maps that tell of denoised images.

        Args:
            result: Float array of the shape of the images.

        Returns:
            An array of that type; a masked one where the images were.
        """
        return self._masked(with_nan(result, self.where))

    def _masked(self, result: np.ndarray) -> np.ndarray:
        return np.ma.MaskedArray(result, self.where) if self.is_masked else result


def taken(noisy: Any) -> tuple[np.ndarray, Gaps | None]:
    """Take an image or a batch of images from a caller, with NaN or as a masked array; fill what was not measured.

    Args:
        noisy: (H, W), (H, W, C) or (B, H, W, C). Anything else is passed on, to be refused by whoever checks images.

    Returns:
        A plain array of the same type, and its gaps; `None` for the latter if it has none and came without a mask.
    """
    is_masked = np.ma.isMaskedArray(noisy)
    array = np.asarray(noisy.data if is_masked else noisy)
    if array.dtype.kind not in "uif":
        return array, None
    gaps = where(array, mask=np.ma.getmaskarray(noisy) if is_masked else None)
    if gaps is None:
        return array, Gaps(np.zeros(array.shape, bool), array, True) if is_masked else None
    found = Gaps(gaps, array, is_masked)
    if array.ndim not in (2, 3, 4) or np.isinf(array[~gaps]).any():
        return array, found
    if array.ndim < 4:
        return filled(array, gaps), found
    result = np.stack([filled(image, its_gaps) for image, its_gaps in zip(array, gaps, strict=True)])
    is_empty = gaps.all(axis=(1, 2, 3))
    if is_empty.any() and not is_empty.all():  # in the range of the others, so that they are not refused for it
        result[is_empty] = array[~gaps].mean()
    return result, found


def _equal(array: np.ndarray, no_data: float) -> np.ndarray | None:
    """Compare with a value, of which a file's header may give other digits than its pixels have."""
    if array.dtype.kind != "f":
        info = np.iinfo(array.dtype)
        is_one = float(no_data).is_integer() and info.min <= no_data <= info.max
        return array == array.dtype.type(no_data) if is_one else None
    if np.isnan(no_data):
        return None
    largest, size = float(np.finfo(array.dtype).max), abs(no_data)
    if size <= BEYOND_MEASURE:
        return array == array.dtype.type(no_data) if size <= largest else None
    low, high = min(size, largest) * (1.0 - FEW_DIGITS), size * (1.0 + FEW_DIGITS)
    magnitude = array if no_data > 0 else -array
    # In double precision: a bound may be too large for the type.
    return (magnitude >= np.float64(low)) & (magnitude <= np.float64(np.inf if high >= largest else high))


def _with_averages(values: np.ndarray, measured: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Average measured values over the smallest surroundings in which there are enough; add noise away from them.

    Gaussians of a pyramid, normalised by the weight that measured pixels have in them; each is joined with the one of
    the next coarser level, which has the more say the less was measured near by.

    Args:
        values: (H, W), 0 where nothing was measured.
        measured: bool (H, W); true somewhere.
        rng: For the noise.
    """
    from scipy import ndimage  # only here: few images have gaps

    centre = values.dtype.type(values.sum(dtype=np.float64) / measured.sum())
    levels = [((values - centre) * measured, measured.astype(values.dtype))]
    while max(levels[-1][0].shape) > 1:
        levels.append((_halved(levels[-1][0]), _halved(levels[-1][1])))
    joined = weight = np.zeros((1, 1), values.dtype)
    for total, weight in reversed(levels):
        coarse = joined if joined.shape == total.shape else _doubled(joined, total.shape)
        total, weight = (ndimage.gaussian_filter(part, SMOOTHING, mode="constant") for part in (total, weight))
        joined = (total + CONFIDENT * coarse) / (weight + CONFIDENT)
    sigma = _noise(values, measured, joined + centre)
    return joined + centre + sigma * (1 - weight) * rng.standard_normal(values.shape, values.dtype)


def _noise(values: np.ndarray, measured: np.ndarray, averages: np.ndarray) -> np.floating:
    """Estimate the standard deviation of noise, from diagonal differences of 2×2 pixels or from their averages."""
    corners = [(slice(row, row - 1 or None), slice(column, column - 1 or None)) for row in (0, 1) for column in (0, 1)]
    is_whole = np.logical_and.reduce([measured[corner] for corner in corners])
    if is_whole.sum() >= LEAST_BLOCKS:
        a, b, c, d = (values[corner][is_whole] for corner in corners)
        differences = (a - b - c + d) / 2
    else:
        differences = (values - averages)[measured]
    return values.dtype.type(np.median(np.abs(differences)) / SIGMA_MEDIAN)


def _halved(image: np.ndarray) -> np.ndarray:
    """Average 2×2 pixels; beyond odd ends there are zeros."""
    padded = np.pad(image, [(0, side % 2) for side in image.shape])
    return (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4


def _doubled(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Enlarge to twice the size, linearly between the pixels, and cut to a shape."""
    for axis in (0, 1):
        image = np.moveaxis(image, axis, 0)
        padded = np.concatenate([image[:1], image, image[-1:]])
        pairs = np.stack([0.25 * padded[:-2] + 0.75 * image, 0.75 * image + 0.25 * padded[2:]], axis=1)
        image = np.moveaxis(pairs.reshape(-1, image.shape[1]), 0, axis)
    return image[: shape[0], : shape[1]]
