"""Tests of models without a posterior (l2, n2n, n2c, n2v): denoised, saved, exported; what they lack is said."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from bsdenoise import cli, methods
from bsdenoise.denoiser import Denoiser
from bsdenoise.export import export_saved_model, signature_names
from bsdenoise.noise import GaussianNoise
from tests.exported import Server, decoded, png_file, strings

NAMES = ("l2", "n2n", "n2c", "n2v")
KNOWN = GaussianNoise(25 / 255, 25 / 255)
RANGE = GaussianNoise(0.05, 0.2)


def build(method="n2n", channels=3, noise=KNOWN, depth=1, **options):
    """A small denoiser with random weights."""
    keras.utils.set_random_seed(3)
    network = methods.get(method).network(channels, width=4, depth=depth)
    return Denoiser(network, noise, method=method, **options)


def noisy_image(height=9, width=7, channels=3, batch=2):
    return np.random.default_rng(0).uniform(-0.2, 1.2, (batch, height, width, channels)).astype("float32")


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.mark.parametrize("noise", [KNOWN, RANGE], ids=["known", "range"])
@pytest.mark.parametrize("name", NAMES)
def test_denoised_is_what_the_network_gives(name, noise):
    denoiser, noisy = build(name, noise=noise), noisy_image()
    expected = np.asarray(denoiser.network(noisy))
    np.testing.assert_allclose(denoiser.denoise(noisy), expected, atol=1e-6)
    np.testing.assert_array_equal(denoiser.denoise(noisy, sigma=0.03), denoiser.denoise(noisy))
    np.testing.assert_allclose(denoiser.predict(noisy, verbose=0), expected, atol=1e-6)
    assert denoiser.denoise(noisy[0]).shape == noisy[0].shape
    assert not denoiser.has_posterior and denoiser.method.name == name


def test_units_of_the_image():
    scaled = build(offset=100.0, scale=4000.0, fractional=False)
    noisy = noisy_image()
    expected = np.asarray(build().network(noisy)) * 4000.0 + 100.0
    np.testing.assert_allclose(scaled.denoise(noisy * 4000.0 + 100.0), expected, rtol=1e-4, atol=1.0)


@pytest.mark.parametrize("name", ["l2", "n2n"])
def test_tiles_of_full_context_change_nothing(name):
    denoiser, noisy = build(name), noisy_image(70, 61, batch=1)
    np.testing.assert_allclose(denoiser.denoise(noisy, tile=48, overlap=20), denoiser.denoise(noisy), atol=1e-5)


def test_what_it_lacks_is_said():
    with pytest.raises(ValueError, match="A model of method 'n2n' has no posterior: it only denoises"):
        build().posterior(noisy_image())
    with pytest.raises(ValueError, match="`sigma` must be positive"):
        build().denoise(noisy_image(), sigma=-1.0)
    with pytest.raises(ValueError, match="must have 3 outputs for 3 channels with method 'l2'. Received: .* with 9"):
        Denoiser(methods.get("full").network(3, 4, 1), KNOWN, method="l2")
    with pytest.raises(ValueError, match="`method` must be one of"):
        Denoiser(methods.get("l2").network(3, 4, 1), KNOWN, method="l3")


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load(name, tmp_path):
    denoiser, noisy = build(name), noisy_image()
    denoiser.save(tmp_path / "denoiser.keras")
    loaded = keras.models.load_model(tmp_path / "denoiser.keras")
    assert loaded.method is denoiser.method and loaded.estimator == denoiser.estimator
    np.testing.assert_array_equal(loaded.denoise(noisy), denoiser.denoise(noisy))


@pytest.mark.parametrize(("diagonal", "name"), [(True, "per_component"), (False, "full")])
def test_models_from_before_there_were_methods(diagonal, name):
    config = build(name).get_config()
    del config["method"]
    assert Denoiser.from_config(config | {"diagonal": diagonal}).method.name == name


def test_signature_names():
    assert signature_names(3, posterior=False) == ("serving_default", "encoded", "describe")
    assert signature_names(1, posterior=False) == signature_names(3, posterior=False)
    assert signature_names(5, posterior=False) == ("serving_default", "describe")
    assert signature_names(3, fractional=False, posterior=False) == ("serving_default", "describe")


def test_export_command_tells_the_signatures_that_there_are(tmp_path, capsys):
    build("n2v").save(tmp_path / "model.keras")
    assert cli.main(["export", str(tmp_path / "model.keras"), "--out", str(tmp_path / "models")]) == 0
    output = capsys.readouterr().out
    told = json.loads((tmp_path / "models" / "1" / "serving.json").read_text())
    assert "signatures: serving_default, encoded, describe\n" in output
    assert told["signatures"] == ["serving_default", "encoded", "describe"]


@pytest.mark.parametrize(("name", "noise"), [("l2", KNOWN), ("n2n", RANGE)], ids=["l2", "n2n"])
def test_export(name, noise, server, tmp_path):
    denoiser = build(name, noise=noise, provenance={"method": name})
    folder = export_saved_model(denoiser, tmp_path / "1", tile=16, overlap=4, warm_up=[(8, 9), (5, 6)])
    told = json.loads((folder / "serving.json").read_text())
    assert (told["method"], told["factor"], told["training"]) == (name, None, {"method": name})
    assert told["signatures"] == ["serving_default", "encoded", "describe"]
    noisy = noisy_image(33, 21)
    served = server.call(folder, "serving_default", image=noisy)["denoised"]
    np.testing.assert_allclose(served, denoiser.denoise(noisy, tile=16, overlap=4), atol=1e-5)
    pixels = np.random.default_rng(1).integers(0, 256, (9, 7, 3), "uint8")
    answer = server.call(folder, "encoded", image_bytes=strings(png_file(pixels)))["denoised_bytes"][0]
    expected = np.clip(np.floor(denoiser.denoise(pixels) * 255 + 0.5), 0, 255)
    assert np.abs(decoded(answer).astype(float) - expected).max() <= 1  # one step, where rounding meets rounding
    assert set(tf.saved_model.load(str(folder)).signatures) == set(told["signatures"])
    path = str(folder / "assets.extra" / "tf_serving_warmup_requests")
    logs = [prediction_log_pb2.PredictionLog.FromString(one.numpy()) for one in tf.data.TFRecordDataset(path)]
    called = [log.predict_log.request.model_spec.signature_name for log in logs]
    assert called == ["serving_default", "encoded", "serving_default"]
