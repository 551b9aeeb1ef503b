"""Noise SPECs, corruption, and the estimate of σ against scikit-image's."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special
from skimage import data, restoration

from bsdenoise.noise import GaussianNoise, deserialize, estimate_sigma, parse, refine_sigma, serialize
from bsdenoise.noise.estimation import _erfinv

# --- SPECs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec, full_scale, low, high",
    [
        ("gaussian:25", 255, 25 / 255, 25 / 255),
        ("gaussian:25", 65535, 25 / 65535, 25 / 65535),
        ("gaussian:0.1", 1, 0.1, 0.1),
        ("gaussian:.1", 1, 0.1, 0.1),
        ("gaussian:1e-1", 1, 0.1, 0.1),
        ("gaussian:25.", 255, 25 / 255, 25 / 255),
        ("gaussian:255", 255, 1.0, 1.0),
        ("gaussian:25/255", 65535, 25 / 255, 25 / 255),
        ("gaussian:5-50", 255, 5 / 255, 50 / 255),
        ("gaussian:5-50/255", 65535, 5 / 255, 50 / 255),
        ("gaussian:1e-2-5E-2", 1, 0.01, 0.05),
        ("gaussian:2.55e1/2.55e2", 1, 0.1, 0.1),
        (" gaussian:25 ", 255, 25 / 255, 25 / 255),
    ],
)
def test_parse(spec, full_scale, low, high):
    noise = parse(spec, full_scale)
    assert isinstance(noise, GaussianNoise)
    assert (noise.low, noise.high) == pytest.approx((low, high), rel=1e-12)
    assert noise.is_known == (low == high)


@pytest.mark.parametrize(
    "spec",
    ["", "25", "gaussian", "gaussian:", "gaussian:-5", "gaussian:5-", "gaussian:a", "gaussian:5-10-20", "gaussian:25/",
     "gaussian:25/255/255", "gaussian:5/255-50/255", "gauss:25", "poison:30", "gaussian:nan", "gaussian:inf",
     "gaussian:.", "gaussian:25 50", "gaussian:0x10"],
)  # fmt: skip
def test_unreadable_spec(spec):
    with pytest.raises(ValueError, match=r"A noise SPEC reads gaussian:25 .* Received: '"):
        parse(spec, 255)


@pytest.mark.parametrize(
    "spec", ["gaussian:0", "gaussian:256", "gaussian:50-5", "gaussian:5-300", "gaussian:0-5", "gaussian:1e999"]
)
def test_spec_out_of_range(spec):
    with pytest.raises(ValueError, match="Noise needs 0 < sigma <= 1 as a fraction of full scale"):
        parse(spec, 255)


@settings(deadline=None)
@given(st.floats(1e-6, 1.0), st.floats(1.0, 1e5))
def test_what_is_written_is_read(fraction, full_scale):
    assert parse(f"gaussian:{fraction * full_scale!r}/{full_scale!r}", 1).low == pytest.approx(min(fraction, 1.0))


# --- the model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "low, high", [(0.0, 0.1), (-0.1, 0.1), (0.2, 0.1), (0.5, 1.5), (float("nan"), 0.1), (0.1, float("nan"))]
)
def test_wrong_range(low, high):
    with pytest.raises(ValueError, match="Noise needs 0 < sigma <= 1"):
        GaussianNoise(low, high)


@pytest.mark.parametrize("noise", [GaussianNoise(0.1, 0.1), GaussianNoise(0.02, 0.2)], ids=["known", "range"])
def test_it_is_made_again(noise):
    config = json.loads(json.dumps(serialize(noise)))
    assert deserialize(config) == noise
    # As Keras wrote it in files of earlier versions.
    assert deserialize({"class_name": "GaussianNoise", "config": config["config"], "module": None}) == noise


def test_sigma_is_drawn_evenly_from_the_range():
    rng, noise = np.random.default_rng(0), GaussianNoise(0.02, 0.2)
    drawn = np.array([noise.draw(rng) for _ in range(4000)])[:, 0]
    assert drawn.min() >= 0.02 and drawn.max() <= 0.2
    counts, _ = np.histogram(drawn, 9, (0.02, 0.2))
    assert counts.min() > 360 and counts.max() < 530  # 444 each, ± 4 standard deviations
    assert {*GaussianNoise(0.1, 0.1).draw(rng)} == {np.float32(0.1)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_corrupt_adds_white_noise_and_nothing_else(dtype):
    clean = np.linspace(0.0, 1.0, 300 * 200 * 3, dtype=dtype).reshape(300, 200, 3)
    before = clean.copy()
    (sigma,) = GaussianNoise(0.05, 0.2).draw(np.random.default_rng(3))
    noisy = GaussianNoise(0.05, 0.2).corrupt(clean, sigma, np.random.default_rng(0))
    np.testing.assert_array_equal(clean, before)
    assert noisy.dtype == dtype and noisy.shape == clean.shape
    added = (noisy - clean).astype(float)
    standard_error = sigma / np.sqrt(added.size)
    assert abs(added.mean()) < 4 * standard_error
    assert added.std() == pytest.approx(sigma, abs=4 * standard_error)
    assert abs(np.mean((added / sigma) ** 4) - 3.0) < 0.1  # as a normal distribution has, not a uniform one
    for shift in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        assert abs(np.mean(added * np.roll(added, shift, (0, 1, 2)))) < 4 * sigma * standard_error
    assert noisy.min() < 0.0 and noisy.max() > 1.0  # not clipped


def test_corrupt_is_a_function_of_the_generator():
    noise, clean = GaussianNoise(0.1, 0.1), np.zeros((5, 6, 3), "float32")
    one, again, other = (noise.corrupt(clean, 0.1, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()


# --- the estimate --------------------------------------------------------------------------------------------------


def photograph(name):
    """A photograph of scikit-image, (H, W, C) in [0, 1]."""
    image = getattr(data, name)() / 255.0
    return image[..., None] if image.ndim == 2 else image


def estimate(image):
    return float(estimate_sigma(image.astype("float32")[None])[0])


@pytest.mark.parametrize("sigma", [0.02, 25 / 255, 0.3])
@pytest.mark.parametrize("name", ["astronaut", "camera"])
def test_estimate_is_that_of_scikit_image(name, sigma):
    """Up to how the border is treated; scikit-image mirrors it. Both take some texture for noise."""
    clean = photograph(name)
    noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
    expected = restoration.estimate_sigma(noisy, channel_axis=-1, average_sigmas=True)
    assert estimate(noisy) == pytest.approx(expected, rel=0.01)
    assert 0.98 * sigma < estimate(noisy) < sigma + 0.006


@pytest.mark.parametrize("shape", [(301, 200, 1), (128, 255, 3)], ids=str)
def test_estimate_of_pure_noise(shape):
    noise = 0.1 * np.random.default_rng(0).standard_normal(shape)
    assert estimate(noise) == pytest.approx(0.1, rel=0.03)
    assert estimate(1000.0 * noise + 30000.0) == pytest.approx(100.0, rel=0.03)


def test_estimate_is_blind_to_slopes():
    rows, columns = np.mgrid[:64, :80]
    assert estimate((0.3 * rows + 0.2 * columns + 5.0)[..., None]) < 1e-5


def test_estimate_passes_over_saturated_parts():
    """Three quarters of the picture clipped: the median of all coefficients would be zero."""
    clean = np.full((200, 200, 1), 0.5)
    clean[:100], clean[:, :100] = -4.0, -3.0
    noisy = np.clip(clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape), 0.0, 1.0)
    expected = restoration.estimate_sigma(noisy, channel_axis=-1, average_sigmas=True)
    assert estimate(noisy) == pytest.approx(expected, rel=0.05)
    assert estimate(noisy) == pytest.approx(0.1, rel=0.1)
    assert estimate(1.0 - noisy) == pytest.approx(estimate(noisy), rel=1e-4)  # white as black, for all rounding


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, 30000.0])
def test_estimate_of_a_constant_is_zero(value):
    assert estimate(np.full((9, 7, 3), value)) == 0.0


def test_estimate_is_per_image():
    noise = np.random.default_rng(0).standard_normal((3, 100, 90, 2)) * np.reshape([0.05, 0.2, 0.4], (3, 1, 1, 1))
    together = estimate_sigma(noise.astype("float32"))
    assert together.shape == (3,)
    np.testing.assert_allclose(together, [estimate(image) for image in noise], rtol=1e-5)
    np.testing.assert_allclose(together, [0.05, 0.2, 0.4], rtol=0.1)


@pytest.mark.parametrize("width", range(1, 7))
@pytest.mark.parametrize("height", range(1, 7))
def test_estimate_of_tiny_images(height, width):
    """Too little to estimate from, yet a finite number; the same in a graph that knows no size."""
    images = np.random.default_rng(0).uniform(0.0, 1.0, (2, height, width, 3)).astype("float32")
    sigma = estimate_sigma(images).numpy()
    assert sigma.shape == (2,)
    assert np.isfinite(sigma).all() and (sigma >= 0.0).all() and (sigma < 3.0).all()
    np.testing.assert_allclose(graph(images), sigma, rtol=1e-6)


@tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
def graph(images):
    return estimate_sigma(images)


@tf.function(jit_compile=True)
def compiled(images):
    return estimate_sigma(images)


@pytest.mark.parametrize("size", [(4, 4), (33, 20), (3, 50)], ids=str)
def test_estimate_in_a_graph(size):
    images = np.random.default_rng(0).uniform(0.0, 1.0, (2, *size, 3)).astype("float32")
    np.testing.assert_allclose(graph(images), estimate_sigma(images), rtol=1e-6)
    np.testing.assert_allclose(compiled(images), estimate_sigma(images), rtol=1e-5)


# --- pixels that lost their noise ----------------------------------------------------------------------------------


def camera(side=256):
    return data.camera()[:side, 100 : 100 + side].astype(float)


def noisy_photograph(factor=1.0, sigma=25.0, seed=0):
    clean = factor * camera()
    return clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)


def estimate_grey(image):
    return float(estimate_sigma(np.asarray(image, "float32")[None, ..., None])[0])


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("value", [0.0, 255.0, -1e4])
def test_scattered_dead_pixels_do_not_count(share, value):
    noisy = noisy_photograph()
    noisy[np.random.default_rng(1).random(noisy.shape) < share] = value
    # 255 is neither an extreme nor zero in an image that exceeds it; as many pixels may be hot as the median stands.
    if value != 255.0 or share < 0.1:
        assert estimate_grey(noisy) == pytest.approx(25, rel=0.2)


@pytest.mark.parametrize("factor", [0.0, 0.05, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("is_bright", [False, True], ids=["dark", "bright"])
@pytest.mark.parametrize("scale", [1.0, 1 / 255, 257.0])
def test_clipped_noise_is_estimated_as_it_was_before(factor, is_bright, scale):
    noisy = np.clip(np.rint(noisy_photograph(factor)), 0, 255)
    noisy = 255 - noisy if is_bright else noisy
    assert estimate_grey(scale * noisy) / scale == pytest.approx(25, rel=0.12)


@pytest.mark.parametrize("kind", ["constant", "binary", "cartoon"])
def test_drawings_have_no_noise(kind):
    levels = {"constant": 0 * camera() + 7, "binary": 255.0 * (camera() > 100)}
    drawing = levels.get(kind, 64 * np.rint(camera() / 64))
    assert estimate_grey(drawing) == 0.0


def test_only_measured_pixels_count():
    noisy = noisy_photograph()[None, ..., None].astype("float32")
    counts = np.ones(noisy.shape, bool)
    counts[:, :, :150] = False
    spoiled = np.where(counts, noisy, 1e6 * np.random.default_rng(0).random(noisy.shape)).astype("float32")
    expected = float(estimate_sigma(noisy[:, :, 150:])[0])
    assert float(estimate_sigma(spoiled, counts)[0]) == pytest.approx(expected, rel=0.02)


# --- estimates that a network refines ------------------------------------------------------------------------------


def explained(sigma, seed=0, shape=(2, 80, 90, 3)):
    """Squared residuals of pixels whose prior variances differ: flat parts and texture."""
    rng = np.random.default_rng(seed)
    prior = np.square(rng.choice([0.001, 0.02, 0.3], shape))
    return np.square(rng.standard_normal(shape) * np.sqrt(prior + sigma**2)).astype("float32"), prior.astype("float32")


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("start", [1.05, 2.0, 6.0])
def test_refined_sigma_is_that_of_greatest_likelihood(sigma, start):
    residual, prior = explained(sigma)
    found = np.asarray(refine_sigma(residual, prior, np.full(2, start * sigma, "float32"), 0.01))
    for index in range(2):
        r, p = residual[index].astype(float), prior[index].astype(float)
        cost = lambda level, r=r, p=p: np.mean(r / (p + level**2) + np.log(p + level**2))  # noqa: E731
        best = optimize.minimize_scalar(cost, bounds=(1e-4, 1.0), method="bounded").x
        assert found[index] == pytest.approx(best, rel=0.03)
    np.testing.assert_allclose(found, sigma, rtol=0.05)


def test_refining_never_raises_an_estimate():
    residual, prior = explained(0.1)
    start = np.array([0.03, 0.05], "float32")
    np.testing.assert_allclose(refine_sigma(residual, prior, start, 0.01), start, rtol=1e-6)


def test_hot_pixels_are_not_taken_for_noise():
    residual, prior = explained(0.1)
    residual[np.random.default_rng(0).random(residual.shape) < 0.005] = 100.0
    np.testing.assert_allclose(refine_sigma(residual, prior, np.full(2, 0.3, "float32"), 0.01), 0.1, rtol=0.1)


def test_errors_of_an_untrained_prediction_are_no_noise():
    """A network for σ from 0.05 on misses pixels without noise by 0.01, and does not know it."""
    residual = np.full((1, 20, 20, 1), 0.01**2, "float32")
    prior = np.full(residual.shape, 1e-8, "float32")
    start = np.full(1, 0.04, "float32")
    assert float(refine_sigma(residual, prior, start, 0.05)[0]) < 1e-3
    assert float(refine_sigma(residual, prior, start, 1e-4)[0]) == pytest.approx(0.01, rel=0.05)


def test_pixels_that_do_not_count_refine_nothing():
    residual, prior = explained(0.1)
    start = np.full(2, 0.2, "float32")
    counts = np.zeros(residual.shape, bool)
    np.testing.assert_allclose(refine_sigma(residual, prior, start, 0.01, counts), start)
    counts[:, :, :45] = True
    residual[:, :, 45:] = 9.0
    np.testing.assert_allclose(refine_sigma(residual, prior, start, 0.01, counts), 0.1, rtol=0.05)


def test_inverse_of_the_error_function():
    x = np.linspace(-0.99, 0.99, 199, dtype="float32")
    np.testing.assert_allclose(_erfinv(x), special.erfinv(x), rtol=4e-3, atol=1e-6)
