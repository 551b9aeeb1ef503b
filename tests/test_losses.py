"""The likelihood as a Keras loss, alone and in `compile` and `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bsdenoise.likelihood import GaussianLikelihood
from bsdenoise.methods.losses import GaussianNLL, MaskedSquaredError, SquaredError
from bsdenoise.network import blind_spot_network

SIGMA = 25 / 255
OPTIONS = {
    "prior": {},
    "precision": {"factor": "precision"},
    "prior-diagonal": {"diagonal": True},
    "precision-diagonal": {"factor": "precision", "diagonal": True},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def random_problem(channels=3, seed=0, **options):
    """Outputs, noisy images and σ of two images."""
    rng = np.random.default_rng(seed)
    num_outputs = GaussianLikelihood(channels, **options).num_outputs
    outputs = 0.1 * rng.standard_normal((2, 6, 5, num_outputs)).astype("float32")
    noisy = rng.uniform(0.0, 1.0, (2, 6, 5, channels)).astype("float32")
    return outputs, noisy, np.array([0.05, 0.2], "float32")


def with_sigma(noisy, sigma):
    """The noisy image with σ as one more channel."""
    return np.concatenate([noisy, np.broadcast_to(sigma[:, None, None, None], (*noisy.shape[:3], 1))], axis=-1)


@every_option
def test_loss_is_the_mean_nll(options):
    outputs, noisy, _ = random_problem(**options)
    nll = GaussianLikelihood(3, **options).nll(outputs, noisy, SIGMA).numpy()
    assert float(GaussianNLL(3, SIGMA, **options)(noisy, outputs)) == pytest.approx(nll.mean(), rel=1e-5)
    per_pixel = GaussianNLL(3, SIGMA, reduction=None, **options)(noisy, outputs)
    np.testing.assert_allclose(per_pixel, nll, rtol=1e-5)


@every_option
@pytest.mark.parametrize("channels", [1, 3])
def test_sigma_may_travel_with_the_image(channels, options):
    outputs, noisy, sigma = random_problem(channels, **options)
    nll = GaussianLikelihood(channels, **options).nll(outputs, noisy, sigma).numpy()
    loss = GaussianNLL(channels, **options)
    assert float(loss(with_sigma(noisy, sigma), outputs)) == pytest.approx(nll.mean(), rel=1e-5)
    if options.get("factor") != "precision":  # Eq. 1 does not depend on σ
        assert float(loss(with_sigma(noisy, sigma[::-1]), outputs)) != pytest.approx(nll.mean(), rel=1e-3)


@every_option
@pytest.mark.parametrize("sigma", [None, SIGMA], ids=["sigma-varies", "sigma-known"])
def test_config_round_trip(options, sigma):
    loss = GaussianNLL(2, sigma, reduction="sum", name="some_name", **options)
    config = keras.saving.serialize_keras_object(loss)
    assert config["registered_name"] == "bsdenoise>GaussianNLL"
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    outputs, noisy, sigmas = random_problem(2, **options)
    target = noisy if sigma else with_sigma(noisy, sigmas)
    assert float(again(target, outputs)) == float(loss(target, outputs))


def test_half_precision_outputs_and_floatx():
    """The noisy image is not rounded to the precision of the network."""
    outputs, noisy, _ = random_problem()
    half = tf.cast(outputs, "bfloat16")
    expected = GaussianLikelihood(3).nll(half, noisy, SIGMA).numpy().mean()
    keras.config.set_floatx("bfloat16")
    try:
        loss = GaussianNLL(3, SIGMA)(noisy, half)
    finally:
        keras.config.set_floatx("float32")
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss) == pytest.approx(expected, rel=1e-5)


# --- fit -----------------------------------------------------------------------------------------------------------


def smooth_images(count, size, sigma, seed):
    """Noisy pictures of soft colour gradients: much to be learnt from the neighbours, and soon."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(0.0, 1.0, size)
    slopes = rng.uniform(-0.4, 0.4, (2, count, 1, 1, 1))
    clean = 0.5 + slopes[0] * (axis[:, None, None] - 0.5) + slopes[1] * (axis[None, :, None] - 0.5)
    sigma = np.reshape(sigma, (-1, 1, 1, 1))
    noisy = clean + sigma * rng.standard_normal((count, size, size, 1))
    return clean.astype("float32"), noisy.astype("float32")


def psnr(image, clean):
    return -10.0 * np.log10(np.mean((np.asarray(image) - clean) ** 2))


@pytest.mark.parametrize("factor", ["prior", "precision"])
def test_fit_learns(factor):
    """A short fit from noisy images alone lowers the loss, and MAP then beats the mean and the noisy image."""
    keras.utils.set_random_seed(0)
    clean, noisy = smooth_images(64, 16, SIGMA, seed=0)
    network = blind_spot_network(channels=1, width=8, depth=2)
    network.compile(optimizer=keras.optimizers.Adam(3e-3), loss=GaussianNLL(1, SIGMA, factor))
    before = network.evaluate(noisy, noisy, batch_size=64, verbose=0)
    history = network.fit(noisy, noisy, batch_size=8, epochs=6, verbose=0).history["loss"]
    assert history[-1] < before - 0.3
    assert network.evaluate(noisy, noisy, batch_size=64, verbose=0) < before - 0.3
    likelihood = GaussianLikelihood(1, factor)
    denoised, mean, _ = likelihood.moments(network(noisy), noisy, SIGMA)
    assert psnr(denoised, clean) > psnr(noisy, clean) + 1.0
    assert psnr(denoised, clean) > psnr(mean, clean)


def test_fit_with_sigma_in_the_target():
    keras.utils.set_random_seed(0)
    sigma = np.random.default_rng(1).uniform(0.05, 0.2, 64).astype("float32")
    clean, noisy = smooth_images(64, 16, sigma, seed=0)
    network = blind_spot_network(channels=1, width=8, depth=2)
    network.compile(optimizer=keras.optimizers.Adam(3e-3), loss=GaussianNLL(1))
    history = network.fit(noisy, with_sigma(noisy, sigma), batch_size=8, epochs=6, verbose=0).history["loss"]
    assert history[-1] < history[0] - 0.1
    denoised, mean, _ = GaussianLikelihood(1).moments(network(noisy), noisy, sigma)
    assert psnr(denoised, clean) > max(psnr(mean, clean), psnr(noisy, clean))


def test_compiled_network_is_loaded_with_its_loss(tmp_path):
    network = blind_spot_network(channels=1, width=4, depth=1)
    network.compile(optimizer="adam", loss=GaussianNLL(1, SIGMA, "precision"))
    _, noisy = smooth_images(4, 8, SIGMA, seed=0)
    network.fit(noisy, noisy, verbose=0)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert loaded.loss.get_config() == network.loss.get_config()
    assert loaded.evaluate(noisy, noisy, verbose=0) == pytest.approx(
        network.evaluate(noisy, noisy, verbose=0), rel=1e-5
    )


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan")])
def test_wrong_sigma(sigma):
    with pytest.raises(ValueError, match="`sigma` must be positive. Received: sigma="):
        GaussianNLL(3, sigma)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"channels": 0}, "`channels` must be a positive integer"),
        ({"channels": 3, "factor": "variance"}, "`factor` must be one of"),
        ({"channels": 3, "reduction": "median"}, "Invalid value for argument `reduction`"),
    ],
    ids=["channels", "factor", "reduction"],
)
def test_wrong_options(options, match):
    with pytest.raises(ValueError, match=match):
        GaussianNLL(**options)


def test_sigma_missing_in_the_target():
    outputs, noisy, _ = random_problem()
    with pytest.raises(
        ValueError, match=r"`y_true` must have 4 channels: those of the image, then sigma\. Received: .*5, 3\)"
    ):
        GaussianNLL(3)(noisy, outputs)


def test_sigma_given_twice():
    outputs, noisy, sigma = random_problem()
    with pytest.raises(ValueError, match=r"`y_true` must have 3 channels: those of the image\. Received: .*5, 4\)"):
        GaussianNLL(3, SIGMA)(with_sigma(noisy, sigma), outputs)


# --- pixels that were not measured ----------------------------------------------------------------------------------

LOSSES = {
    "full": (GaussianNLL(3, SIGMA), 9),
    "precision": (GaussianNLL(3, SIGMA, factor="precision"), 9),
    "diagonal": (GaussianNLL(3, SIGMA, diagonal=True), 6),
    "squared error": (SquaredError(), 3),
    "masked squared error": (MaskedSquaredError(), 3),
}
every_loss = pytest.mark.parametrize(("loss", "num_outputs"), LOSSES.values(), ids=LOSSES.keys())


def _with_gaps(loss, num_outputs, seed=0):
    """Outputs, targets, and the same with NaN in a channel of some pixels of the first image and all of the second."""
    rng = np.random.default_rng(seed)
    outputs = 0.1 * rng.standard_normal((3, 8, 7, num_outputs)).astype("float32")
    target = rng.uniform(0.0, 1.0, (3, 8, 7, 3)).astype("float32")
    holes = np.zeros((3, 8, 7), bool)
    holes[0, 2:5, 1:6] = holes[1] = True
    with_nan = target.copy()
    with_nan[0, 2:5, 1:6, 1] = np.nan
    with_nan[1] = np.nan
    if isinstance(loss, MaskedSquaredError):
        mask = (rng.random((3, 8, 7, 1)) < 0.4).astype("float32")
        target, with_nan = (np.concatenate([one, mask], axis=-1) for one in (target, with_nan))
    return outputs, target, with_nan, holes


@every_loss
def test_pixels_that_were_not_measured_do_not_count(loss, num_outputs):
    """The mean of each image is that over the others, computed without them; an image of none has none."""
    outputs, target, with_nan, holes = _with_gaps(loss, num_outputs)
    per_pixel = loss.call(tf.constant(with_nan), tf.constant(outputs)).numpy()
    assert (per_pixel[holes] == 0).all() and np.isfinite(per_pixel).all()
    # One row of the pixels that are left, as an image of its own.
    rest = loss.call(tf.constant(target[:1][:, ~holes[0]][:, None]), tf.constant(outputs[:1][:, ~holes[0]][:, None]))
    assert per_pixel[0].mean() == pytest.approx(rest.numpy().mean(), rel=1e-5)
    assert per_pixel[1].mean() == 0
    np.testing.assert_array_equal(per_pixel[2], loss.call(tf.constant(target), tf.constant(outputs)).numpy()[2])


@every_loss
def test_gradients_do_not_come_from_pixels_that_were_not_measured(loss, num_outputs):
    outputs, _, with_nan, holes = _with_gaps(loss, num_outputs)
    variable = tf.Variable(1e4 * outputs)  # far off, where a careless zero times infinity would be NaN
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(loss.call(tf.constant(with_nan), variable))
    gradient = tape.gradient(value, variable).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[holes] == 0).all() and (gradient[2] != 0).any()


@pytest.mark.parametrize("loss", [SquaredError(), MaskedSquaredError()], ids=["squared", "masked"])
def test_round_trip_of_squared_errors(loss):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()


def test_squared_error_is_the_mean_of_squares():
    rng = np.random.default_rng(0)
    target, outputs = (rng.uniform(0, 1, (2, 5, 6, 3)).astype("float32") for _ in range(2))
    assert float(SquaredError()(target, outputs)) == pytest.approx(np.mean((target - outputs) ** 2), rel=1e-6)
