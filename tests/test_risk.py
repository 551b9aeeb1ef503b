"""Stein's estimate where noise is clipped, and when it is withheld."""

import numpy as np
import pytest
from keras import ops

from bsdenoise.likelihood import sure
from bsdenoise.likelihood.posterior import estimate_psnr

SIGMA = 0.1


def shrunk(noisy, clean, error, seed=1):
    """A blind prediction with an error of its own, joined with the pixel: x̂, μ and the posterior std, exactly."""
    rng = np.random.default_rng(seed)
    mean = clean + error * rng.standard_normal(clean.shape)
    gain = SIGMA**2 / (SIGMA**2 + error**2)
    denoised = noisy - gain * (noisy - mean)
    return denoised, mean, np.full(clean.shape, np.sqrt(SIGMA**2 * (1 - gain)))


def scene(seed=0, clip=False, shape=(2, 120, 140, 1)):
    """Clean and noisy images, a quarter of them nearly black."""
    rng = np.random.default_rng(seed)
    clean = np.full(shape, 0.5)
    clean[:, : shape[1] // 2, : shape[2] // 2] = 0.02
    noisy = clean + SIGMA * rng.standard_normal(shape)
    return clean, (np.clip(noisy, 0, 1) if clip else noisy).astype("float32")


def variances(noisy, sigma=SIGMA):
    return np.full((len(noisy), 1, 1, 1), sigma**2)


def estimates(noisy, clean, error, sigma=SIGMA):
    maps = [array.astype("float32") for array in shrunk(noisy, clean, error)]
    return estimate_psnr(maps[0], noisy, *maps[1:], variances(noisy, sigma)), maps[0]


def true_psnr(denoised, clean, where=slice(None)):
    return -10 * np.log10(np.mean((denoised - clean)[:, where] ** 2, axis=(1, 2, 3)))


def test_unclipped_noise_is_estimated_as_it_is():
    clean, noisy = scene()
    found, denoised = estimates(noisy, clean, 0.05)
    np.testing.assert_allclose(found, true_psnr(denoised, clean), atol=0.3)


def test_pixels_whose_noise_is_clipped_do_not_count():
    """The plain mean over all pixels is too small: in the dark, the noise has lost a part of its variance."""
    clean, noisy = scene(clip=True)
    found, denoised = estimates(noisy, clean, 0.05)
    np.testing.assert_allclose(found, true_psnr(denoised, clean, slice(60, None)), atol=0.35)
    maps = [array.astype("float64") for array in shrunk(noisy, clean, 0.05)]
    plain = np.mean((maps[0] - noisy) ** 2 - SIGMA**2 + 2 * maps[2] ** 2, axis=(1, 2, 3))
    assert (-10 * np.log10(np.maximum(plain, 1e-6)) > found + 1.0).all()


@pytest.mark.parametrize("declared", [1.1, 1.5, 3.0])
def test_a_sigma_that_is_too_large_is_no_hundred_decibels(declared):
    clean, noisy = scene()
    found, _ = estimates(noisy, clean, 0.02, declared * SIGMA)
    assert np.isnan(found).all()


def test_images_that_are_clipped_all_over_have_no_estimate():
    rng = np.random.default_rng(0)
    clean = np.full((1, 64, 64, 3), 0.01)
    noisy = np.clip(clean + SIGMA * rng.standard_normal(clean.shape), 0, 1).astype("float32")
    assert np.isnan(estimates(noisy, clean, 0.03)[0]).all()


def test_small_images_know_too_little():
    clean, noisy = scene(shape=(1, 6, 6, 1))
    assert np.isnan(estimates(noisy, clean, 0.01)[0]).all()


def test_pixels_without_a_measurement_do_not_count():
    clean, noisy = scene()
    maps = [array.astype("float32") for array in shrunk(noisy, clean, 0.05)]
    expected = estimate_psnr(*(part[:, :, 70:] for part in (maps[0], noisy, *maps[1:])), variances(noisy))
    counts = np.ones(noisy.shape, bool)
    counts[:, :, :70] = False
    spoiled = noisy.copy()
    spoiled[:, :, :70] = 1e6
    found = estimate_psnr(maps[0], spoiled, *maps[1:], variances(noisy), counts)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("clip", [False, True])
def test_keras_computes_the_same(clip):
    clean, noisy = scene(clip=clip)
    found, _ = estimates(noisy, clean, 0.05)
    maps = [array.astype("float32") for array in shrunk(noisy, clean, 0.05)]
    variance = variances(noisy).astype("float32")
    limits = sure.clip_limits(ops, noisy)
    assert np.isfinite(np.asarray(limits[0])).all() == clip
    means = sure.means(ops, maps[0], noisy, *maps[1:], variance, limits)
    np.testing.assert_allclose(sure.psnr(ops, *means, variance[:, 0, 0, 0], noisy[0].size), found, atol=1e-3)


def test_squared_errors_compare_even_below_zero():
    clean, noisy = scene()
    variance = variances(noisy, 1.2 * SIGMA)
    errors = []
    for error in (0.02, 0.05):
        maps = shrunk(noisy, clean, error)
        means = sure.means(np, maps[0], noisy, *maps[1:], variance, sure.clip_limits(np, noisy))
        errors.append(sure.squared_error(np, *means[:2]))
    assert (errors[0] < 0).all() and (errors[0] < errors[1]).all()
    assert np.isnan(sure.squared_error(np, np.zeros(1), np.zeros(1))).all()
