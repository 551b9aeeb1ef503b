"""How intensities are fitted to the noise of the training."""

import numpy as np
import pytest
import tensorflow as tf

from bsdenoise.noise.intensity_fit import MAX_STRETCHED, fit

LOW, HIGH = 0.02, 0.2


def image(low=0.0, high=1.0, shape=(2, 40, 50, 3), seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype("float32")


def fitted(noisy, sigma):
    found = fit(noisy, np.full(len(noisy), sigma, "float32"), LOW, HIGH)
    return np.asarray(found.offset), np.asarray(found.gain)


@pytest.mark.parametrize("sigma", [LOW, 0.1, HIGH])
def test_noise_of_the_training_changes_nothing(sigma):
    noisy = image(-0.3, 0.2)
    found = fit(noisy, np.full(2, sigma, "float32"), LOW, HIGH)
    np.testing.assert_array_equal(found.applied(noisy), noisy)
    for one, moment in zip(found.undone([noisy] * 3), [noisy] * 3, strict=True):
        np.testing.assert_array_equal(one, moment)


@pytest.mark.parametrize("low, high", [(0.0, 0.1), (0.001, 0.024), (0.6, 0.7), (0.9, 1.0), (-0.1, 0.05)])
def test_less_noise_is_stretched_within_the_range(low, high):
    noisy = image(low, high)
    offset, gain = fitted(noisy, 0.002)
    expected = min(LOW / 0.002, 1 / (high - low))
    np.testing.assert_allclose(gain, expected, rtol=0.02)
    shown = (noisy - offset.reshape(-1, 1, 1, 1)) * gain.reshape(-1, 1, 1, 1)
    assert shown.min() > -0.02 and shown.max() < 1.02


def test_an_image_that_fills_the_range_stays_as_it_is():
    offset, gain = fitted(image(), 1e-4)
    np.testing.assert_allclose(gain, 1.0, atol=0.01)
    np.testing.assert_allclose(offset, 0.0, atol=0.01)


def test_each_image_by_itself_and_continuous_at_the_end_of_the_range():
    noisy = np.concatenate([image(0.0, 0.1, (1, 40, 50, 1)), image(0.3, 0.5, (1, 40, 50, 1))])
    found = fit(noisy, np.array([0.004, LOW * 0.999], "float32"), LOW, HIGH)
    np.testing.assert_allclose(found.gain, [5.0, 1.001], rtol=1e-3)
    np.testing.assert_allclose(found.offset, 0.0, atol=1e-3)


def test_more_noise_is_compressed():
    offset, gain = fitted(image(), 0.5)
    np.testing.assert_allclose(gain, HIGH / 0.5)
    np.testing.assert_array_equal(offset, 0.0)


def test_stars_do_not_spoil_the_range_and_are_bounded():
    noisy = image(0.0, 0.01)
    noisy[:, 5, 5] = 1.0
    _, gain = fitted(noisy, 1e-4)
    assert 10 < gain[0] <= MAX_STRETCHED * 1.001


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 900, 3), (1, 500, 600, 1)], ids=str)
@pytest.mark.parametrize("fill", [0.0, 0.4])
def test_any_size_and_constant_images(shape, fill):
    noisy = np.full(shape, fill, "float32")
    offset, gain = fitted(noisy, 1e-5)
    assert np.isfinite([offset, gain]).all() and gain[0] >= 1.0
    graph = tf.function(
        lambda x, s: fit(x, s, LOW, HIGH),
        input_signature=[tf.TensorSpec([None] * 3 + [shape[-1]]), tf.TensorSpec([None])],
    )
    for one, other in zip(graph(noisy, np.full(1, 1e-5, "float32")), (offset, gain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
