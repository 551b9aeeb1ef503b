"""The range of intensities in which most pixels of images lie."""

import numpy as np

RANGE_PERCENTILES = (0.1, 99.9)


def fit_range(pixels: np.ndarray) -> tuple[float, float]:
    """Fit offset and scale, so that most of (pixel − offset) / scale lies between 0 and 1.

    They are the 0.1 percentile and its distance to the 99.9 percentile. Extremes would not do: one hot pixel of a
    camera that reads 65535 among values of some hundreds would leave the network with numbers near 0 only. Mean and
    standard deviation suffer from it too. One pixel in a thousand is more than cameras have of defects and cosmic
    rays, and little enough that sparse bright spots, as of stars or fluorescent beads, are not all left out; those
    that are stay what they are, as nothing is clipped. Noise widens the range by about three of its standard
    deviations at either end, which does no harm.

    Where these percentiles coincide, as of images that are constant but for a few spots, the range is that of all
    pixels; where all are equal, scale is their magnitude, or 1 for zeros.

    Args:
        pixels: Finite numbers, at least one.

    Returns:
        Offset, and scale > 0.
    """
    low, high = np.percentile(pixels.astype(np.float64), RANGE_PERCENTILES)
    if not high > low:
        low, high = float(pixels.min()), float(pixels.max())
    if not high > low:
        return float(low), float(abs(low)) or 1.0
    return float(low), float(high - low)
