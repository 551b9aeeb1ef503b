"""A user's keras.json may say channels_first: images are (H, W, C) all the same."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from bsdenoise import images, loading, network


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("builder", [network.blind_spot_network, network.unet])
def test_networks_are_the_same(builder, pooling, channels_first):
    image = np.random.default_rng(0).uniform(size=(1, 13, 18, 3)).astype("float32")
    first = builder(3, 4, 2, pooling=pooling)
    outputs = first.predict(image, verbose=0)
    configs = [layer.get_config() for layer in first.layers]
    keras.config.set_image_data_format("channels_last")
    last = builder(3, 4, 2, pooling=pooling)
    last.set_weights(first.get_weights())
    np.testing.assert_allclose(outputs, last.predict(image, verbose=0), rtol=1e-5, atol=1e-6)
    assert configs[1:] == [layer.get_config() for layer in last.layers[1:]]


def test_a_saved_model_is_the_same(tiny_denoiser_path, channels_first):
    image = np.random.default_rng(0).uniform(size=(40, 30)).astype("float32")
    first = loading.load(tiny_denoiser_path(1)).denoise(image)
    keras.config.set_image_data_format("channels_last")
    np.testing.assert_allclose(first, loading.load(tiny_denoiser_path(1)).denoise(image), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_command(tiny_denoiser_path, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30)).astype("uint8")
    images.write(tmp_path / "a.png", pixels)
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "tensorflow", "image_data_format": "channels_first"}))
    command = [sys.executable, "-m", "bsdenoise.cli", "denoise", "a.png", "--model", str(tiny_denoiser_path(1))]
    environment = os.environ | {"KERAS_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = images.from_unit(loading.load(tiny_denoiser_path(1)).denoise(pixels), np.uint8).astype(int)
    assert np.abs(images.read_array(tmp_path / "denoised-a.png") - expected).max() <= 1
