"""What the quiet parts of images tell of their noise, before any training: how strong it is, and whether it is white.

The noise of an image is everywhere, texture is not. So an image is cut into blocks, the noise of each is estimated from
its finest diagonal details, and a low quantile of these estimates is taken: it stays near zero for clean images of
much texture. The same on every third pixel shows noise that neighbouring pixels share: there it looks stronger.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bsdenoise.noise.spec import SIGMA_MEDIAN

BLOCK = 16  # side of a block in pixels: 256 details, whose median is within some percent of its expectation
STRIDE = 3  # correlation of camera files and of averaging detectors has mostly gone at this distance
MAX_SIDE = 1024  # of the part of an image that is looked at, its middle
QUIET, LOW, MIDDLE = 0.05, 0.25, 0.5  # quantiles over blocks
QUIET_IMAGES = 0.1  # quantile over images
DETAIL_GAIN = 6.0  # √36: second differences along both axes of white noise of σ = 1 have this standard deviation
# By what correlated noise is told from clean images, whose finest details are weaker than coarser ones as well, beside
# `Limits`. Measured on clean photographs (contrast 4 to 11), on files of cameras and of an averaging detector (contrast
# 1.4 to 2.2, growth 2.7 to 5), on photographs with white noise (growth 1.0 to 1.8) and with blurred noise (from 3.7
# on).
MAX_CONTRAST = 3.0  # of a usual block over the quiet ones of the quietest tenth of the images
MIN_SHARED = 0.005  # σ on every third pixel below which there is nothing to tell, as the range of intensities is 1


@dataclass(frozen=True)
class NoiseFloor:
    """Noise of an image's blocks, as standard deviations in the units of the image.

    Attributes:
        low: A quarter of the blocks has at most this.
        quiet: One block of twenty has at most this.
        shared: The same on every third pixel, where the noise of neighbours is seen whole.
        shared_usual: Half of the blocks has at most this on every third pixel.
    """

    low: float
    quiet: float
    shared: float
    shared_usual: float


@dataclass(frozen=True)
class Limits:
    """From where on what varies is taken for noise that neighbouring pixels share.

    Attributes:
        growth: Least growth of the quiet blocks' noise, on every third pixel over all pixels.
        spread: Greatest ratio of a usual block over a quiet one, on every third pixel: noise is everywhere, texture is
            not.
    """

    growth: float
    spread: float


USUAL = Limits(2.9, 2.2)
# Where the channels of a colour image tell, as `correlated.between_channels` measures them: those of noise vary each in
# its own way, those of texture alike. Files of cameras have 0.0 to 0.64, after JPEG compression too; clean photographs
# 0.7 to 1.0 where the usual limits take them for noisy.
MAX_BETWEEN_CHANNELS = 0.65
NOISE_OF_CHANNELS, TEXTURE_OF_CHANNELS = Limits(2.4, 2.6), Limits(2.9, 1.8)


def limits(between_channels: float) -> Limits:
    """Return the limits for an image, by the correlation of its channels; NaN if they tell nothing."""
    if math.isnan(between_channels):
        return USUAL
    return NOISE_OF_CHANNELS if between_channels <= MAX_BETWEEN_CHANNELS else TEXTURE_OF_CHANNELS


def measure(image: np.ndarray, max_side: int = MAX_SIDE) -> NoiseFloor | None:
    """Measure the noise of the blocks of an image.

    Blocks that hold pixels that are not finite are left out, and so are those of which most details are exactly zero,
    being clipped or empty, unless most blocks are like that.

    Args:
        image: (H, W, C), float.
        max_side: Largest side in pixels of what is looked at, the middle of the image.

    Returns:
        The noise; `None` if the image is too small, less than 54 pixels on a side, or nothing is left of it.
    """
    height, width = image.shape[:2]
    top, left = max(height - max_side, 0) // 2, max(width - max_side, 0) // 2
    image = image[top : top + max_side, left : left + max_side].astype(np.float64)
    fine, coarse = _block_sigmas(image, 1), _block_sigmas(image, STRIDE)
    if not len(fine) or not len(coarse):
        return None
    low, quiet = np.quantile(fine, (LOW, QUIET))
    shared, usual = np.quantile(coarse, (QUIET, MIDDLE))
    return NoiseFloor(float(low), float(quiet), float(shared), float(usual))


def median(floors: Sequence[NoiseFloor]) -> NoiseFloor | None:
    """Return the medians over images, each number by itself; `None` if there are none."""
    if not floors:
        return None
    names = ("low", "quiet", "shared", "shared_usual")
    return NoiseFloor(*(float(np.median([getattr(floor, name) for floor in floors])) for name in names))


def is_correlated(floors: Sequence[NoiseFloor], scale: float, limits: Limits = USUAL) -> bool:
    """Tell whether images are noisy and their neighbouring pixels share noise, so that no white noise describes it.

    Args:
        floors: Of some images; the medians of their numbers decide.
        scale: The range of intensities, in the units of the images, > 0.
        limits: From where on it is.
    """
    if not floors:
        return False
    growth = np.median([floor.shared / floor.quiet if floor.quiet else np.inf for floor in floors])
    spread = np.median([floor.shared_usual / floor.shared if floor.shared else np.inf for floor in floors])
    shared = np.array([floor.shared for floor in floors])
    usual = np.median([floor.shared_usual for floor in floors])
    is_everywhere = spread <= limits.spread and usual <= MAX_CONTRAST * np.quantile(shared, QUIET_IMAGES)
    return bool(growth >= limits.growth and is_everywhere and np.median(shared) >= MIN_SHARED * scale)


def _block_sigmas(image: np.ndarray, stride: int) -> np.ndarray:
    """Estimate σ of each block of the sub-images of every `stride`-th pixel of (H, W, C)."""
    found = [np.empty(0)]
    for top in range(stride):
        for left in range(stride):
            part = image[top::stride, left::stride]
            with np.errstate(invalid="ignore"):  # infinite less infinite
                details = np.abs(np.diff(np.diff(part, n=2, axis=0), n=2, axis=1)) / DETAIL_GAIN
            rows, columns, channels = (details.shape[0] // BLOCK, details.shape[1] // BLOCK, details.shape[2])
            if not rows * columns:  # the sub-image is smaller than a block
                continue
            blocks = details[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK, channels)
            found.append(np.median(blocks, axis=(1, 3)).ravel() / SIGMA_MEDIAN)  # NaN where a pixel is NaN
    sigmas = np.concatenate(found)
    sigmas = sigmas[np.isfinite(sigmas)]
    varied = sigmas[sigmas > 0]
    return varied if 2 * len(varied) >= len(sigmas) else sigmas
