"""Noise over brightness, measured on images, against the noise that was drawn."""

import counts
import numpy as np
import pytest

from bsdenoise.training import noise_curve


@pytest.mark.parametrize(
    "camera",
    [counts.Camera(), counts.Camera(3500, 12.0, 6.0, 100.0, 3.0), counts.Camera(1200, 10.0, 15.0, 200.0, 2.0)],
    ids=["mid", "mostly dark", "weak"],
)
def test_detector_noise_is_measured(camera):
    clean, noisy = counts.stacks(camera, 8, 128)
    curve = noise_curve.fit(list(noisy[..., np.newaxis].astype(float)))
    true = camera.gain * (clean - camera.pedestal) + camera.read_noise**2
    measured = np.stack([curve(noise_curve.brightness(image[..., np.newaxis]))[..., 0] for image in noisy])
    assert measured.mean() == pytest.approx(true.mean(), rel=0.3)
    for part in (true < np.quantile(true, 0.3), true > np.quantile(true, 0.9)):
        assert 0.5 < np.median(measured[part] / true[part]) < 1.7
    declared = [camera.rms(clean) ** 2] * len(noisy)
    assert not noise_curve.fits(list(measured), declared)


@pytest.mark.parametrize("sigma", [10.0, 25.0])
def test_one_sigma_fits_white_noise(sigma):
    clean = 255 * counts.photographs(10, 128)
    noisy = clean + np.random.default_rng(0).normal(0, sigma, clean.shape)
    images = list(noisy[..., np.newaxis])
    curve = noise_curve.fit(images)
    measured = [curve(noise_curve.brightness(image)) for image in images]
    assert noise_curve.fits(measured, [sigma**2] * len(images))
    assert not noise_curve.fits(measured, [(2.0 * sigma) ** 2] * len(images))
    assert not noise_curve.fits(measured, [(0.5 * sigma) ** 2] * len(images))


def test_brightness_is_that_of_the_neighbours():
    image = np.random.default_rng(0).normal(size=(9, 11, 2))
    found = noise_curve.brightness(image)
    window = image[2:7, 3:8, 1]
    assert found[4, 5, 1] == pytest.approx((window.sum() - image[4, 5, 1]) / 24)
    image[4, 5] += 100.0
    np.testing.assert_allclose(noise_curve.brightness(image)[4, 5], found[4, 5])


def test_channels_have_curves_of_their_own():
    image = np.random.default_rng(0).normal(5.0, (0.1, 0.4), size=(128, 128, 2))
    curve = noise_curve.fit([image])
    np.testing.assert_allclose(np.sqrt(curve(image[:4, :4])), np.broadcast_to([0.1, 0.4], (4, 4, 2)), rtol=0.15)


def test_too_small_images_tell_nothing():
    for side in (20, 8):
        assert noise_curve.fit([np.zeros((side, side, 1))]) is None
