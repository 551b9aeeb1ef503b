"""PSNR, SSIM and rounding against sums written out, and other implementations."""

import numpy as np
import pytest
from scipy.ndimage import convolve
from skimage.metrics import peak_signal_noise_ratio

from bsdenoise.evaluation import metrics


def pair(shape=(17, 14, 3), seed=0):
    rng = np.random.default_rng(seed)
    clean = rng.uniform(0, 1, shape)
    return np.clip(clean + 0.1 * rng.standard_normal(shape), 0, 1), clean


@pytest.mark.parametrize("peak", [1.0, 255.0, 4000.0])
def test_psnr_is_that_of_another_implementation(peak):
    image, clean = pair()
    expected = peak_signal_noise_ratio(clean * peak, image * peak, data_range=peak)
    assert metrics.psnr(image * peak, clean * peak, peak) == pytest.approx(expected, abs=1e-9)
    # An error of a tenth of the peak at every pixel is 20 dB.
    assert metrics.psnr(np.full((3, 3), 0.1 * peak), np.zeros((3, 3)), peak) == pytest.approx(20.0)


def test_equal_images_have_a_hundred_decibels():
    assert metrics.psnr(np.ones((2, 2)), np.ones((2, 2)), 1.0) == pytest.approx(100.0)


def slow_ssim(one, two, peak):
    """Wang et al. 2004, Eq. 13, with an explicit 11×11 Gaussian window, over pixels whose window is inside."""
    ramp = np.arange(-5, 6)
    window = np.exp(-(ramp[:, None] ** 2 + ramp[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def local(image):
        return convolve(image, window)[5:-5, 5:-5]

    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = []
    for x, y in zip(np.moveaxis(one, -1, 0), np.moveaxis(two, -1, 0), strict=True):
        mx, my = local(x), local(y)
        vx, vy, cov = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
        values.append(((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_ssim_is_the_published_formula(channels, peak):
    image, clean = (peak * array for array in pair((19, 16, channels)))
    assert metrics.ssim(image, clean, peak) == pytest.approx(slow_ssim(image, clean, peak), abs=1e-9)
    assert metrics.ssim(clean, clean, peak) == pytest.approx(1.0)


def test_ssim_needs_a_window():
    image, clean = pair((10, 30, 1))
    assert metrics.ssim(image, clean, 1.0) is None


def test_rounding_is_that_of_eight_bits():
    unit = np.array([-0.3, 0.0, 0.4999 / 255, 0.5001 / 255, 127.4 / 255, 254.51 / 255, 1.7])
    np.testing.assert_allclose(metrics.rounded(unit, 255) * 255, [0, 0, 0, 1, 127, 255, 255])
    np.testing.assert_allclose(metrics.rounded(np.array([0.30000123]), 65535) * 65535, [19661])
    np.testing.assert_array_equal(metrics.rounded(unit, None), unit)
