"""Distances between a denoised image and the clean one, as the literature counts them."""

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

MIN_MSE = 1e-10  # relative to a peak of 1: 100 dB at most, so that equal images have a finite PSNR
SSIM_SIGMA = 1.5  # Wang et al. 2004: a Gaussian window of 11×11 pixels
SSIM_WINDOW = 11


def psnr(image: np.ndarray, clean: np.ndarray, peak: float, counts: np.ndarray | None = None) -> float:
    """Compute the PSNR over all pixels and channels that count.

    Args:
        image: Image of any shape.
        clean: Reference of that shape.
        peak: Greatest intensity that counts, > 0.
        counts: Which values count, bool of that shape; `None` for all.

    Returns:
        10 log₁₀(peak² / MSE) in dB, at most 100.
    """
    if counts is not None:
        image, clean = image[counts], clean[counts]
    mse = float(np.mean(np.square(np.asarray(image, np.float64) - clean))) / peak**2
    return float(-10.0 * np.log10(max(mse, MIN_MSE)))


def ssim(image: np.ndarray, clean: np.ndarray, peak: float, counts: np.ndarray | None = None) -> float | None:
    """Compute the structural similarity (Wang et al. 2004), averaged over pixels and channels.

    The window is a Gaussian of 11×11 pixels and σ 1.5; pixels whose window leaves the image do not count, nor do those
    whose window holds one that does not.

    Args:
        image: (H, W, C).
        clean: (H, W, C).
        peak: Difference between the greatest and the least possible intensity, > 0.
        counts: Which values count, bool (H, W, C); `None` for all.

    Returns:
        At most 1; `None` for an image that is smaller than the window, or whose every window holds a gap.
    """
    if min(clean.shape[:2]) < SSIM_WINDOW:
        return None
    value, per_pixel = structural_similarity(
        np.asarray(clean, np.float64),
        np.asarray(image, np.float64),
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        data_range=peak,
        channel_axis=-1,
        full=True,
    )
    if counts is None:
        return float(value)
    is_whole = ndimage.minimum_filter(counts, (SSIM_WINDOW, SSIM_WINDOW, 1))
    inside = np.zeros(counts.shape, bool)
    inside[SSIM_WINDOW // 2 : -(SSIM_WINDOW // 2), SSIM_WINDOW // 2 : -(SSIM_WINDOW // 2)] = True
    is_whole &= inside
    return float(per_pixel[is_whole].mean()) if is_whole.any() else None


def rounded(unit: np.ndarray, levels: int | None) -> np.ndarray:
    """Round pixels to the levels of an integer file: x·255 + ½, clipped and truncated for 8 bits.

    Args:
        unit: Pixels, full scale 1.
        levels: Greatest value of the file's type, 255 or 65535; `None` leaves float images as they are.

    Returns:
        float64, full scale 1 again.
    """
    unit = np.asarray(unit, np.float64)
    return unit if levels is None else np.floor(np.clip(unit * levels + 0.5, 0.0, levels)) / levels
