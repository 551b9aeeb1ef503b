"""The denoiser: what goes in, what comes out, tiles, units, files."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from bsdenoise.denoiser import Denoiser
from bsdenoise.network import blind_spot_network
from bsdenoise.noise import GaussianNoise, estimate_sigma, intensity_fit

SIGMA = 25 / 255
KNOWN = GaussianNoise(SIGMA, SIGMA)
RANGE = GaussianNoise(0.05, 0.2)
GAUSSIAN = ("full", "per_component")


def build(channels=3, noise=KNOWN, depth=1, seed=0, factor="prior", method="full", **options):
    """A small denoiser with random weights, whose predictions are as sure of themselves as a trained one's."""
    num_outputs = reference.num_outputs(channels, method == "per_component") if method in GAUSSIAN else channels
    network = blind_spot_network(channels=channels, width=4, depth=depth, num_outputs=num_outputs)
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 25.0
        weight.assign(rng.standard_normal(weight.shape) / np.sqrt(fan_in))
    last = network.get_layer("outputs")
    last.kernel.assign(0.1 * last.kernel)
    return Denoiser(network, noise, method=method, factor=factor, **options)


def random_noisy(height=9, width=7, channels=3, batch=2, seed=0):
    """Noisy images (B, H, W, C), some values below 0 and above 1."""
    rng = np.random.default_rng(seed)
    clean = rng.uniform(0.0, 1.0, (batch, height, width, channels))
    return (clean + SIGMA * rng.standard_normal(clean.shape)).astype("float32")


@pytest.fixture(scope="module")
def rgb():
    return build()


@pytest.fixture(scope="module")
def grey():
    return build(channels=1)


@pytest.fixture(scope="module")
def ranged():
    return build(channels=1, noise=RANGE)


def twin(denoiser, noisy, sigma):
    """x̂, μ and the posterior standard deviations in float64, from the network's outputs."""
    outputs, flat = np.asarray(denoiser.network(noisy), float), np.asarray(noisy, float)
    shape, channels = flat.shape, flat.shape[-1]
    per_pixel = np.broadcast_to(np.reshape(sigma, (-1, 1, 1)), shape[:3]).ravel()
    likelihood = denoiser.estimator
    mean, prior_cov, _ = reference.covariances(
        outputs.reshape(-1, outputs.shape[-1]), channels, likelihood.factor, per_pixel, likelihood.diagonal
    )
    denoised = reference.explicit_map(mean, prior_cov, flat.reshape(-1, channels), per_pixel)
    cov = reference.explicit_posterior_cov(prior_cov, per_pixel)
    variance = np.diagonal(cov, axis1=1, axis2=2)
    return [array.reshape(shape) for array in (denoised, mean, np.sqrt(variance))]


# --- what it computes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"method": "per_component"}, {"channels": 1}, {"channels": 5}], ids=str)
def test_denoises_as_the_equations_say(options):
    denoiser = build(**options)
    noisy = random_noisy(channels=denoiser.channels)
    expected = twin(denoiser, noisy, SIGMA)
    for actual, moment in zip(denoiser.moments(noisy), expected, strict=True):
        np.testing.assert_allclose(actual, moment, rtol=1e-3, atol=1e-4)
    posterior = denoiser.posterior(noisy)
    np.testing.assert_allclose(posterior.denoised, expected[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(posterior.mean, expected[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(posterior.std, expected[2], rtol=1e-3, atol=1e-4)
    assert np.abs(posterior.denoised - noisy).max() > 0.05
    assert np.abs(posterior.denoised - posterior.mean).max() > 0.05


@pytest.mark.parametrize("clamp", ["eigenvalue", "diagonal", "none"])
def test_options_reach_the_likelihood(clamp):
    denoiser = build(factor="precision", clamp=clamp)
    noisy = random_noisy()
    expected = denoiser.estimator.map_estimate(denoiser.network(noisy), noisy, SIGMA)
    assert (denoiser.estimator.factor, denoiser.estimator.clamp) == ("precision", clamp)
    np.testing.assert_allclose(denoiser(noisy), expected, atol=1e-6)


def test_call_predict_denoise_and_posterior_agree(rgb):
    noisy = random_noisy(batch=5)
    called = np.asarray(rgb(noisy))
    assert called.dtype == "float32"
    np.testing.assert_allclose(rgb.predict(noisy, batch_size=2, verbose=0), called, atol=1e-6)
    np.testing.assert_allclose(rgb.denoise(noisy), called, atol=1e-6)
    np.testing.assert_allclose(rgb.posterior(noisy).denoised, called, atol=1e-6)
    np.testing.assert_allclose(rgb(noisy, sigma=0.2), rgb.denoise(noisy, sigma=0.2), atol=1e-6)
    np.testing.assert_allclose(rgb.moments(noisy)[0], called, atol=1e-6)


def test_denoiser_is_a_layer_of_a_model(rgb):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, rgb(image))
    assert model.output_shape == (None, None, None, 3)
    noisy = random_noisy()
    np.testing.assert_allclose(model(noisy), rgb(noisy), atol=1e-6)


@pytest.mark.parametrize("noise", [KNOWN, RANGE], ids=["known", "range"])
def test_one_graph_serves_all_sizes(noise):
    denoiser = build(channels=1, noise=noise)
    graph = tf.function(denoiser.moments, input_signature=[tf.TensorSpec([None, None, None, 1])])
    for shape in [(1, 1, 1), (2, 3, 9), (3, 12, 5)]:
        noisy = random_noisy(shape[1], shape[2], 1, shape[0])
        for one, other in zip(graph(noisy), denoiser.moments(noisy), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_global_bfloat16_leaves_the_pixels_alone():
    """Only the network's body computes in it: the observed pixel must not be rounded to 8 bits of mantissa."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        denoiser = build()
    finally:
        keras.config.set_dtype_policy(before)
    assert denoiser.network.get_layer("head_conv0").compute_dtype == "bfloat16"
    noisy = random_noisy()
    called = denoiser(noisy)
    assert keras.backend.standardize_dtype(called.dtype) == "float32"
    np.testing.assert_array_equal(called, denoiser.moments(noisy)[0])
    expected = denoiser.estimator.map_estimate(denoiser.network(noisy), noisy, SIGMA)
    np.testing.assert_allclose(called, expected, atol=1e-6)


# --- input forms ---------------------------------------------------------------------------------------------------


def test_forms_of_colour_images(rgb):
    noisy = random_noisy(batch=3)
    expected = rgb.denoise(noisy)
    assert expected.shape == noisy.shape and expected.dtype == "float32"
    for index in range(3):
        np.testing.assert_allclose(rgb.denoise(noisy[index]), expected[index], atol=1e-6)
    np.testing.assert_array_equal(rgb.denoise(noisy.tolist()), expected)
    np.testing.assert_array_equal(rgb.denoise(tf.constant(noisy)), expected)
    np.testing.assert_array_equal(rgb.denoise(np.asfortranarray(noisy)), expected)


def test_forms_of_grey_images(grey):
    noisy = random_noisy(channels=1, batch=3)
    expected = grey.denoise(noisy)
    assert expected.shape == (3, 9, 7, 1)
    np.testing.assert_allclose(grey.denoise(noisy[0]), expected[0], atol=1e-6)
    flat = grey.posterior(noisy[0, ..., 0])
    for array in (flat.denoised, flat.mean, flat.std):
        assert array.shape == (9, 7)
    np.testing.assert_allclose(flat.denoised, expected[0, ..., 0], atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_integers_are_scaled_by_the_greatest_of_their_type(rgb, dtype):
    greatest = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, greatest, (6, 5, 3), dtype, endpoint=True)
    before = pixels.copy()
    result = rgb.denoise(pixels)
    assert result.dtype == "float32"
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_allclose(result, rgb.denoise(pixels / float(greatest)), atol=1e-6)


@pytest.mark.parametrize("dtype, error", [("float64", 1e-6), ("float16", 1e-3)])
def test_floats_are_taken_as_they_are(rgb, dtype, error):
    noisy = random_noisy()
    result = rgb.denoise(noisy.astype(dtype))
    assert result.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(result, rgb.denoise(noisy), atol=2 * error)
    np.testing.assert_array_equal(result, rgb.denoise(noisy.astype(dtype).astype("float32")))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 1), (13, 11)], ids=str)
def test_any_size(rgb, ranged, size):
    assert np.isfinite(rgb.denoise(random_noisy(*size)[0])).all()
    posterior = ranged.posterior(random_noisy(*size, 1)[0])
    assert posterior.denoised.shape == (*size, 1)
    assert all(np.isfinite(value).all() for name, value in vars(posterior).items() if name != "estimated_psnr")


# --- σ -------------------------------------------------------------------------------------------------------------


def test_sigma_of_a_known_noise_is_the_default(rgb):
    noisy = random_noisy()
    np.testing.assert_array_equal(rgb.denoise(noisy), rgb.denoise(noisy, sigma=SIGMA))
    np.testing.assert_array_equal(rgb.own_sigma(noisy), np.full(2, SIGMA, "float32"))
    assert np.abs(rgb.denoise(noisy) - rgb.denoise(noisy, sigma=0.3)).max() > 0.01


def test_sigma_per_image(rgb):
    noisy = random_noisy(batch=3)
    sigma = [0.02, 0.1, 0.4]
    together = rgb.posterior(noisy, sigma)
    for index in range(3):
        alone = rgb.posterior(noisy[index], sigma[index])
        np.testing.assert_allclose(together.denoised[index], alone.denoised, atol=1e-6)
        np.testing.assert_allclose(together.std[index], alone.std, atol=1e-6)
        assert together.estimated_psnr[index] == pytest.approx(alone.estimated_psnr, abs=1e-3)


def test_sigma_of_a_range_is_estimated_and_honoured_beyond_it(ranged):
    """Per image; less or more noise than the network was trained for is reported as it is."""
    rng = np.random.default_rng(0)
    level = np.array([0.01, 0.1, 0.5])
    noisy = (0.5 + level.reshape(3, 1, 1, 1) * rng.standard_normal((3, 60, 50, 1))).astype("float32")
    first = np.asarray(estimate_sigma(noisy))
    np.testing.assert_allclose(first, level, rtol=0.1)
    sigma = np.asarray(ranged.own_sigma(noisy))
    # The network knows nothing, so that it explains noise by texture.
    assert (sigma <= first * (1 + 1e-6)).all() and sigma[0] < 0.05 and sigma[2] > 0.25
    np.testing.assert_allclose(ranged.posterior(noisy).sigma, sigma, rtol=1e-5)
    # The first estimate decides how the image is shown, the refined one how it is joined with what was observed.
    np.testing.assert_allclose(ranged.denoise(noisy[1]), ranged.denoise(noisy[1], sigma=sigma[1]), atol=1e-5)


def test_less_noise_than_trained_changes_an_image_less(ranged):
    """Whatever an untrained network predicts: no pixel is moved by more than the gain of the noise that is there."""
    noisy = random_noisy(40, 30, 1, 1)
    moved = [np.abs(ranged.denoise(noisy, sigma) - noisy).max() for sigma in (0.05, 0.02, 0.005, 1e-4)]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 0.01 and moved[-1] < 1e-4


@pytest.mark.parametrize("sigma", [0.004, 0.2])
def test_other_noise_is_shown_as_the_network_knows_it(sigma):
    """Stretching or compressing the image by hand gives the same: 12-bit counts in a file of 16 bits."""
    denoiser = build(channels=1, noise=GaussianNoise(0.02, 0.1))
    rng = np.random.default_rng(0)
    noisy = (0.3 + 0.1 * rng.random((1, 24, 20, 1)) + sigma * rng.standard_normal((1, 24, 20, 1))).astype("float32")
    found = denoiser.posterior(noisy, sigma)
    fit = intensity_fit.fit(noisy, np.array([sigma], "float32"), 0.02, 0.1)
    gain, offset = float(fit.gain[0]), float(fit.offset[0])
    assert gain == pytest.approx({0.004: 5.0, 0.2: 0.5}[sigma], rel=1e-4)
    by_hand = denoiser.posterior((noisy - offset) * gain, sigma * gain)
    np.testing.assert_allclose(found.denoised, by_hand.denoised / gain + offset, atol=1e-5)
    np.testing.assert_allclose(found.std, by_hand.std / gain, atol=1e-6)
    np.testing.assert_allclose(found.estimated_psnr, by_hand.estimated_psnr + 20 * np.log10(gain), atol=0.01)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e30])
def test_units_of_any_size(scale):
    plain, scaled = build(), build(scale=scale, fractional=False)
    noisy = random_noisy(20, 24)
    expected, found = plain.posterior(noisy), scaled.posterior(noisy.astype("float64") * scale)
    for name in ("denoised", "mean", "std", "sigma"):
        np.testing.assert_allclose(getattr(found, name) / scale, getattr(expected, name), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.estimated_psnr, expected.estimated_psnr, atol=1e-3)
    single = scaled.posterior((noisy.astype("float64") * scale).astype("float32"))
    np.testing.assert_allclose(single.std / np.float32(scale), expected.std, rtol=1e-4)


def test_a_large_offset_of_float64_does_not_lose_the_noise():
    plain, far = build(channels=1), build(channels=1, offset=1e9, scale=10.0, fractional=False)
    noisy = random_noisy(20, 24, 1).astype("float64")
    found = far.denoise(1e9 + 10.0 * noisy)
    assert found.dtype == "float64"
    np.testing.assert_allclose((found - 1e9) / 10.0, plain.denoise(noisy), atol=1e-6)
    with pytest.raises(ValueError, match="float32 cannot hold this float64 image"):
        far.predict(1e9 + 10.0 * noisy, verbose=0)


# --- intensity offset and scale ------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [KNOWN, RANGE], ids=["known", "range"])
def test_offset_and_scale_are_normalising_by_hand(noise):
    """A microscope's counts: the model brings them to the network's units and back."""
    plain, scaled = build(noise=noise), build(noise=noise, offset=500.0, scale=4000.0)
    noisy = random_noisy(30, 20)
    counts = 500.0 + 4000.0 * noisy
    for sigma in (None, 0.15):
        expected = plain.posterior(noisy, sigma)
        actual = scaled.posterior(counts, sigma and 4000.0 * sigma)
        np.testing.assert_allclose(actual.denoised, 500.0 + 4000.0 * expected.denoised, atol=0.1)
        np.testing.assert_allclose(actual.mean, 500.0 + 4000.0 * expected.mean, atol=0.1)
        np.testing.assert_allclose(actual.std, 4000.0 * expected.std, atol=0.1)
        np.testing.assert_allclose(actual.estimated_psnr, expected.estimated_psnr, atol=0.01)
    np.testing.assert_allclose(scaled(counts), 500.0 + 4000.0 * plain(noisy).numpy(), atol=0.5)
    np.testing.assert_allclose(scaled.own_sigma(counts), 4000.0 * plain.own_sigma(noisy).numpy(), rtol=1e-3)


# --- posterior -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"factor": "precision"}, {"offset": 10.0, "scale": 50.0}], ids=str)
def test_estimated_psnr_is_steins(options):
    denoiser = build(**options)
    scale = denoiser.scale
    noisy = denoiser.offset + scale * random_noisy(20, 24, batch=3)
    sigma = scale * np.array([0.05, 0.1, 0.2])
    posterior = denoiser.posterior(noisy, sigma)
    assert posterior.estimated_psnr.shape == (3,)
    for index in range(3):
        maps = [np.asarray(array[index], float) / scale for array in (posterior.denoised, noisy, posterior.std)]
        expected = reference.estimated_psnr(*maps, sigma[index] / scale)
        assert posterior.estimated_psnr[index] == pytest.approx(expected, abs=2e-3, nan_ok=True)
        alone = denoiser.posterior(noisy[index], sigma[index]).estimated_psnr
        assert alone == pytest.approx(expected, abs=2e-3, nan_ok=True)
    assert np.isfinite(posterior.estimated_psnr).any()
    assert isinstance(denoiser.posterior(noisy[0]).estimated_psnr, float)


def test_estimated_psnr_is_withheld_where_the_estimate_is_negative(rgb):
    """A picture with less noise than declared: the estimate of the squared error is below zero, and no 100 dB."""
    rng = np.random.default_rng(0)
    image = np.asarray(rgb.posterior(0.5 + 0.01 * rng.standard_normal((40, 40, 3))).mean)
    assert np.isnan(rgb.posterior(image, sigma=0.1).estimated_psnr)
    for image in (np.full((8, 8, 3), 0.5), np.zeros((1, 1, 3))):
        psnr = rgb.posterior(image, sigma=0.3).estimated_psnr
        assert not np.isinf(psnr) and not psnr > 90


# --- what is taken -------------------------------------------------------------------------------------------------

TAKEN = {
    "uint8": lambda unit: np.rint(255 * unit).astype("uint8"),
    "uint16": lambda unit: np.rint(65535 * unit).astype("uint16"),
    "big-endian uint16": lambda unit: np.rint(65535 * unit).astype(">u2"),
    "float16": lambda unit: unit.astype("float16"),
    "float64": lambda unit: unit.astype("float64"),
    "a list": lambda unit: unit.tolist(),
}
REFUSED = {
    "int32": (lambda unit: np.rint(255 * unit).astype("int32"), "uint8 or uint16"),
    "int64": (lambda unit: np.rint(255 * unit).astype("int64"), "uint8 or uint16"),
    "int8": (lambda unit: np.rint(100 * unit).astype("int8"), "uint8 or uint16"),
    "a list of integers": (lambda unit: np.rint(255 * unit).astype(int).tolist(), "uint8 or uint16"),
    "bool": (lambda unit: unit > 0.5, "uint8, uint16 or floats"),
    "complex": (lambda unit: unit + 1j, "uint8, uint16 or floats"),
    "floats of 0 to 255": (lambda unit: 255 * unit, "divide by"),
    "infinity": (lambda unit: np.where(unit > 0.9, np.inf, unit), "infinite"),
}
FRONTS = {
    "denoise": lambda denoiser, image: denoiser.denoise(image),
    "posterior": lambda denoiser, image: denoiser.posterior(image).denoised,
    "predict": lambda denoiser, image: denoiser.predict(image, verbose=0),
    "a call": lambda denoiser, image: np.asarray(denoiser(image)),
}


@pytest.mark.parametrize("kind", TAKEN)
@pytest.mark.parametrize("front", FRONTS)
def test_every_front_takes_the_same_arrays(rgb, front, kind):
    image = TAKEN[kind](np.clip(random_noisy(), 0, 1))
    fractions = np.asarray(image, "float64")
    fractions = fractions / {"uint8": 255, "uint16": 65535}.get(kind.rpartition(" ")[2], 1)
    np.testing.assert_allclose(FRONTS[front](rgb, image), rgb.denoise(fractions.astype("float32")), atol=1e-5)


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("front", FRONTS)
def test_every_front_refuses_the_same_arrays(rgb, front, kind):
    make, words = REFUSED[kind]
    with pytest.raises(ValueError, match=words):
        FRONTS[front](rgb, make(np.clip(random_noisy(), 0, 1)))


@pytest.mark.parametrize("front", ["predict", "a call"])
def test_batches_alone_are_predicted(rgb, front):
    with pytest.raises(ValueError, match=r"take a batch \(B, H, W, C\)"):
        FRONTS[front](rgb, random_noisy()[0])


def test_integer_tensors_are_scaled_or_refused(rgb):
    image = np.rint(255 * np.clip(random_noisy(), 0, 1)).astype("uint8")
    np.testing.assert_allclose(rgb(tf.constant(image)), rgb.denoise(image), atol=1e-5)
    predicted = rgb.predict(tf.data.Dataset.from_tensors(image), verbose=0)
    np.testing.assert_allclose(predicted, rgb.denoise(image), atol=1e-5)
    with pytest.raises(ValueError, match="floats, uint8 or uint16"):
        rgb(tf.constant(image.astype("int32")))


# --- tiles ---------------------------------------------------------------------------------------------------------

REACH = {1: 15, 2: 35}  # pixels to every side; test_network measures it


@pytest.mark.parametrize("size, depth, tile, overlap", [((98, 83), 1, 48, 16), ((37, 210), 2, 92, 36)], ids=str)
@pytest.mark.usefixtures("compiled")
def test_tiles_with_enough_overlap_are_exact(size, depth, tile, overlap):
    assert overlap >= REACH[depth]
    denoiser = build(depth=depth)
    noisy = random_noisy(*size)
    whole, tiled = denoiser.posterior(noisy), denoiser.posterior(noisy, tile=tile, overlap=overlap)
    for name, value in vars(whole).items():
        np.testing.assert_allclose(vars(tiled)[name], value, atol=1e-6 if name != "estimated_psnr" else 1e-4)
    np.testing.assert_allclose(denoiser.denoise(noisy, tile=tile, overlap=overlap), tiled.denoised, atol=1e-6)


@pytest.mark.usefixtures("compiled")
def test_tiles_with_less_overlap_are_not(rgb):
    """So the test above can fail; the more overlap, the less the error."""
    noisy = random_noisy(64, 50)
    whole = rgb.denoise(noisy)
    errors = [np.abs(rgb.denoise(noisy, tile=32, overlap=overlap) - whole).max() for overlap in (0, 6, 12)]
    assert errors[0] > errors[1] > errors[2] > 1e-3


@pytest.mark.usefixtures("compiled")
def test_overlap_of_tiles_by_default(rgb):
    noisy = random_noisy(70, 50)
    np.testing.assert_array_equal(rgb.denoise(noisy, tile=32), rgb.denoise(noisy, tile=32, overlap=8))


def test_sigma_is_estimated_on_the_whole_image(ranged):
    """Not tile by tile: seams would show."""
    noisy = random_noisy(90, 70, 1)
    whole = ranged.denoise(noisy)
    np.testing.assert_allclose(ranged.denoise(noisy, tile=48, overlap=16), whole, atol=1e-6)


@pytest.mark.parametrize("tile, overlap", [(33, None), (32, 7), (32, 16), (0, None)], ids=str)
def test_wrong_tiles(rgb, tile, overlap):
    with pytest.raises(ValueError, match="`tile` and `overlap` must be multiples of 2 with tile > 2"):
        rgb.denoise(random_noisy(), tile=tile, overlap=overlap)


# --- files ---------------------------------------------------------------------------------------------------------

DENOISERS = {
    "known": {},
    "range": {"noise": RANGE, "channels": 1},
    "precision": {"factor": "precision", "clamp": "diagonal"},
    "diagonal": {"method": "per_component"},
    "scaled": {"offset": 3.0, "scale": 20.0, "name": "microscope"},
    "provenance": {"provenance": {"images": 7, "corrupt": None, "tags": ["a", {"b": 0.5}]}},
}


@pytest.mark.parametrize("options", DENOISERS.values(), ids=DENOISERS.keys())
def test_save_and_load(options, tmp_path):
    denoiser = build(**options)
    denoiser.save(tmp_path / "denoiser.keras")
    loaded = keras.models.load_model(tmp_path / "denoiser.keras")
    assert type(loaded) is Denoiser
    assert json.dumps(loaded.get_config()) == json.dumps(denoiser.get_config())
    assert loaded.noise == denoiser.noise and loaded.estimator == denoiser.estimator
    assert loaded.provenance == options.get("provenance")
    assert loaded.name == denoiser.name and loaded.grid == denoiser.grid == 2
    noisy = random_noisy(channels=denoiser.channels)
    for one, other in zip(loaded.moments(noisy), denoiser.moments(noisy), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(loaded.predict(noisy, verbose=0), denoiser.predict(noisy, verbose=0))


LOAD = """
import sys
{imports}
import numpy as np
model_path, noisy_path, denoised_path = sys.argv[1:]
denoiser = keras.models.load_model(model_path, safe_mode=True)
np.save(denoised_path, denoiser.denoise(np.load(noisy_path)))
"""


@pytest.mark.parametrize(
    "imports",
    ["import keras\nimport bsdenoise", "import bsdenoise\nimport keras"],
    ids=["keras-first", "bsdenoise-first"],
)
def test_another_process_loads_it(imports, tmp_path):
    """Nothing but the two imports, in either order; bit for bit the same result."""
    denoiser, noisy = build(), random_noisy()
    denoiser.save(tmp_path / "denoiser.keras")
    np.save(tmp_path / "noisy.npy", noisy)
    paths = [str(tmp_path / name) for name in ("denoiser.keras", "noisy.npy", "denoised.npy")]
    subprocess.run([sys.executable, "-c", LOAD.format(imports=imports), *paths], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "denoised.npy"), denoiser.denoise(noisy))


def test_weights_alone(tmp_path):
    one, other = build(seed=0), build(seed=1)
    noisy = random_noisy()
    assert np.abs(one.denoise(noisy) - other.denoise(noisy)).max() > 0.01
    one.save_weights(tmp_path / "denoiser.weights.h5")
    other.load_weights(tmp_path / "denoiser.weights.h5")
    np.testing.assert_array_equal(other.denoise(noisy), one.denoise(noisy))


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_wrong_scale(scale):
    with pytest.raises(ValueError, match="`scale` must be positive. Received: scale="):
        build(scale=scale)


def test_network_of_another_size():
    with pytest.raises(
        ValueError, match="must have 9 outputs for 3 channels with method 'full'. Received: a network with 6"
    ):
        Denoiser(blind_spot_network(channels=3, width=4, depth=1, num_outputs=6), KNOWN)


@pytest.mark.parametrize(
    "option, match", [({"clamp": "hard"}, "`clamp` must be one of"), ({"factor": "x"}, "`factor` must be")]
)
def test_wrong_likelihood(option, match):
    with pytest.raises(ValueError, match=match):
        build(**option)


@pytest.mark.parametrize("shape", [(7,), (9, 7), (9, 7, 4), (2, 9, 7, 1), (1, 2, 9, 7, 3), ()], ids=str)
def test_wrong_shape(rgb, shape):
    with pytest.raises(ValueError, match=r"takes images \(H, W, 3\) or \(B, H, W, 3\)\. Received: shape="):
        rgb.denoise(np.zeros(shape))


def test_wrong_shape_of_grey(grey):
    with pytest.raises(ValueError, match=r"takes images \(H, W\), \(H, W, 1\) or \(B, H, W, 1\)\. Received: shape="):
        grey.denoise(np.zeros((9, 7, 3)))


@pytest.mark.parametrize("shape", [(0, 7, 3), (9, 0, 3), (0, 9, 7, 3), (2, 9, 0, 3)], ids=str)
def test_empty(rgb, shape):
    with pytest.raises(ValueError, match="The image is empty. Received: shape="):
        rgb.denoise(np.zeros(shape))


@pytest.mark.parametrize("value", [np.inf, -np.inf], ids=str)
def test_not_finite(rgb, value):
    image = np.zeros((9, 7, 3))
    image[4, 3, 1] = value
    with pytest.raises(ValueError, match="infinite values"):
        rgb.denoise(image)


@pytest.mark.parametrize("dtype", ["bool", "complex64", "U1", "object"])
def test_wrong_dtype(rgb, dtype):
    with pytest.raises(ValueError, match="Images must hold uint8, uint16 or floats. Received: dtype="):
        rgb.denoise(np.zeros((9, 7, 3), dtype))


@pytest.mark.parametrize("sigma", [0.0, -0.1, np.nan, np.inf, [0.1, 0.0]], ids=str)
def test_sigma_must_be_positive(rgb, sigma):
    with pytest.raises(ValueError, match="`sigma` must be positive. Received: sigma="):
        rgb.denoise(random_noisy(), sigma=sigma)


@pytest.mark.parametrize("sigma", [[0.1] * 3, [[0.1], [0.1]], np.full((2, 9, 7), 0.1)], ids=["three", "column", "map"])
def test_sigma_of_wrong_shape(rgb, sigma):
    with pytest.raises(ValueError, match="`sigma` must be a number or one per image. Received: shape="):
        rgb.denoise(random_noisy(), sigma=sigma)


def test_sigma_in_grey_levels(rgb):
    units = r"fractions of full scale \(25 grey levels of 8 bits are 0\.098\)"
    with pytest.raises(ValueError, match=rf"`sigma` must be at most 1: its units are {units}. Received: .*25"):
        rgb.denoise(random_noisy(), sigma=25)
    scaled = build(scale=255.0)
    assert np.isfinite(scaled.denoise(255.0 * random_noisy(), sigma=25)).all()


def test_pixels_in_grey_levels_are_told_from_fractions(rgb):
    noisy = 255.0 * np.clip(random_noisy(), 0.1, 0.9)
    with pytest.raises(ValueError, match=r"Pixels must lie between -16 and 16: the units are fractions of full scale"):
        rgb.denoise(noisy)
    with pytest.raises(ValueError, match="Received: pixels from .* to 1e[+]30"):
        rgb.denoise(np.full((4, 4, 3), 1e30))
    strong = random_noisy() + np.random.default_rng(0).standard_normal((2, 9, 7, 3))
    assert np.isfinite(rgb.denoise(strong, sigma=1.0)).all()


def test_a_fitted_scale_leaves_room_for_stars():
    denoiser = build(offset=100.0, scale=4000.0, fractional=False)
    image = 4000.0 * random_noisy()
    image[0, 4, 4] = 1e6
    assert np.isfinite(denoiser.denoise(image, sigma=400.0)).all()
    with pytest.raises(ValueError, match="span about 4000. Received: pixels from .* to 1e[+]09"):
        denoiser.denoise(np.full((4, 4, 3), 1e9))
    with pytest.raises(ValueError, match="`sigma` must be at most 4000"):
        denoiser.denoise(image, sigma=4001.0)


def test_a_model_of_float_images_refuses_integers(tmp_path):
    build(scale=4000.0, fractional=False).save(tmp_path / "m.keras")
    denoiser = keras.models.load_model(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="takes float images: its units are those of the float images .*4000. Rec"):
        denoiser.denoise(np.zeros((4, 4, 3), "uint16"))


# --- pixels that were not measured ----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [KNOWN, RANGE], ids=["known", "estimated"])
@pytest.mark.parametrize("method", ["full", "l2"])
def test_nan_comes_back_and_spoils_nothing(noise, method):
    denoiser = build(1, noise, method=method)
    noisy = random_noisy(64, 60, 1)
    noisy[0, 10:20, 15:30] = np.nan
    denoised = denoiser.denoise(noisy)
    holes = np.isnan(noisy)
    assert denoised[holes].tobytes() == noisy[holes].tobytes()
    assert np.isfinite(denoised[~holes]).all()
    np.testing.assert_allclose(denoised[1], denoiser.denoise(noisy[1]), atol=1e-5)
    masked = denoiser.denoise(np.ma.MaskedArray(np.where(holes, 9e30, noisy).astype("float32"), holes))
    assert np.ma.isMaskedArray(masked) and (masked.mask == holes).all()
    assert (masked.data[holes] == np.float32(9e30)).all()
    np.testing.assert_allclose(masked.data[~holes], denoised[~holes], atol=1e-6)
    np.testing.assert_allclose(denoiser.predict(noisy, verbose=0)[~holes], denoised[~holes], atol=1e-4)


def test_the_posterior_says_nothing_of_pixels_that_were_not_measured():
    denoiser = build(3, KNOWN)
    noisy = random_noisy(64, 60, 3)
    noisy[0, 10:20, 15:30, 1] = np.nan
    found = denoiser.posterior(noisy)
    holes = np.isnan(noisy)
    for name in ("denoised", "mean", "std"):
        np.testing.assert_array_equal(np.isnan(getattr(found, name)), holes)
    empty = denoiser.posterior(np.full((8, 9, 3), np.nan, "float32"))
    assert np.isnan(empty.std).all() and np.isnan(empty.estimated_psnr) and np.isnan(empty.sigma)


def test_windows_leave_nan_alone():
    denoiser = build(1, KNOWN)
    noisy = random_noisy(96, 90, 1, batch=1)[0]
    noisy[30:50, 40:70] = np.nan
    result = np.zeros_like(noisy)
    for window, (denoised, _, std) in denoiser.windows(lambda r, c: noisy[r, c], noisy.shape, tile=64, overlap=16):
        result[window] = denoised
        np.testing.assert_array_equal(np.isnan(std), np.isnan(noisy[window]))
    np.testing.assert_array_equal(np.isnan(result), np.isnan(noisy))


def test_a_call_refuses_what_it_cannot_give_back():
    denoiser = build(1, KNOWN)
    with pytest.raises(ValueError, match="takes no masked array"):
        denoiser(np.ma.MaskedArray(np.zeros((1, 8, 8, 1), "float32"), True))
    with pytest.raises(ValueError, match="NaN or infinite"):
        denoiser(np.full((1, 8, 8, 1), np.nan, "float32"))
    with pytest.raises(ValueError, match="NaN or infinite"):
        denoiser.denoise(np.full((8, 8), np.inf, "float32"))
