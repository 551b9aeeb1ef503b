"""Whether single precision, in which images are computed, holds what an image tells."""

import numpy as np

from bsdenoise.images.intensity_range import RANGE_PERCENTILES

SINGLE_BYTES = 4
# Rounding to float32 spoils an image if it changes a usual pixel by more than this share of what neighbours differ by,
# and of the range of most pixels: where neighbours hardly differ, as of noiseless images, there is nothing to lose.
LOST_OF_DIFFERENCE, LOST_OF_RANGE = 0.1, 1e-4


def check_single_precision(pixels: np.ndarray) -> None:
    """Refuse float64 pixels of which single precision, in which images are computed, would round the noise away.

    Args:
        pixels: (H, W) or (…, H, W, C), floats; those that are not finite do not count.

    Raises:
        ValueError: If it would, as of images whose offset is too large for their contrast.
    """
    if pixels.dtype.itemsize <= SINGLE_BYTES:
        return
    with np.errstate(invalid="ignore", over="ignore"):
        differences = np.abs(np.diff(pixels, axis=-2 if pixels.ndim > 2 else -1))
        lost = np.abs(pixels - pixels.astype(np.float32))
    is_finite = np.isfinite(lost)
    differences = differences[np.isfinite(differences) & (differences > 0)]
    if not is_finite.any() or not differences.size:
        return
    usual = np.median(differences)
    low, high = np.percentile(pixels[is_finite], RANGE_PERCENTILES)
    if np.median(lost[is_finite]) > max(LOST_OF_DIFFERENCE * usual, LOST_OF_RANGE * (high - low)):
        raise ValueError(
            "float32 cannot hold this float64 image: neighbouring pixels differ by about "
            f"{usual:.2g}, and that is lost beside values such as {np.median(pixels[is_finite]):.9g}. Subtract the "
            "offset first, from all images alike."
        )
