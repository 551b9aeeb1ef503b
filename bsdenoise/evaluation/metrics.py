"""Distances between a denoised image and the clean one, as the literature counts them."""

import numpy as np
from skimage.metrics import structural_similarity

MIN_MSE = 1e-10  # relative to a peak of 1: 100 dB at most, so that equal images have a finite PSNR
SSIM_SIGMA = 1.5  # Wang et al. 2004: a Gaussian window of 11×11 pixels
SSIM_WINDOW = 11


def psnr(image: np.ndarray, clean: np.ndarray, peak: float) -> float:
    """Computes the PSNR over all pixels and channels.

    Args:
        image: Image of any shape.
        clean: Reference of that shape.
        peak: Greatest intensity that counts, > 0.

    Returns:
        10 log₁₀(peak² / MSE) in dB, at most 100.
    """
    mse = float(np.mean(np.square(np.asarray(image, np.float64) - clean))) / peak**2
    return float(-10.0 * np.log10(max(mse, MIN_MSE)))


def ssim(image: np.ndarray, clean: np.ndarray, peak: float) -> float | None:
    """Computes the structural similarity (Wang et al. 2004), averaged over pixels and channels.

    The window is a Gaussian of 11×11 pixels and σ 1.5; pixels whose window leaves the image do not count.

    Args:
        image: (H, W, C).
        clean: (H, W, C).
        peak: Difference between the greatest and the least possible intensity, > 0.

    Returns:
        At most 1; `None` for an image that is smaller than the window.
    """
    if min(clean.shape[:2]) < SSIM_WINDOW:
        return None
    value = structural_similarity(
        np.asarray(clean, np.float64),
        np.asarray(image, np.float64),
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        data_range=peak,
        channel_axis=-1,
    )
    return float(value)


def rounded(unit: np.ndarray, levels: int | None) -> np.ndarray:
    """Rounds pixels to the levels of an integer file: x·255 + ½, clipped and truncated for 8 bits.

    Args:
        unit: Pixels, full scale 1.
        levels: Greatest value of the file's type, 255 or 65535; `None` leaves float images as they are.

    Returns:
        float64, full scale 1 again.
    """
    unit = np.asarray(unit, np.float64)
    return unit if levels is None else np.floor(np.clip(unit * levels + 0.5, 0.0, levels)) / levels
