"""The same weights in another precision, and those of files that were saved when networks rotated their maps."""

from pathlib import Path

import keras
import numpy as np
import pytest

from bsdenoise import Denoiser, GaussianNoise, blind_spot_network, unet
from bsdenoise.network import BlindSpotUNet, UNet

GOLDEN = Path(__file__).parent / "golden"
NETWORKS = {
    "blind-spot": lambda **kwargs: blind_spot_network(channels=2, width=4, depth=3, **kwargs),
    "average": lambda **kwargs: blind_spot_network(channels=1, width=3, depth=1, num_outputs=7, pooling="average"),
    "unet": lambda **kwargs: unet(channels=1, width=4, depth=2, num_outputs=1, **kwargs),
    "unet-average": lambda **kwargs: unet(channels=1, width=4, depth=2, num_outputs=1, pooling="average", **kwargs),
}


@pytest.mark.parametrize("method", ["full", "n2n"])
def test_files_with_rotated_maps_are_read(method):
    """What the same weights gave then, they give now; by the layers of today."""
    denoiser = keras.models.load_model(GOLDEN / f"rotated-maps-{method}.keras")
    noisy = np.random.default_rng(0).random((11, 14)).astype("float32")
    expected = np.load(GOLDEN / f"rotated-maps-{method}.npy")
    np.testing.assert_allclose(denoiser.denoise(noisy), expected, rtol=1e-5, atol=1e-5)
    assert "rotate_stack" not in [layer.name for layer in denoiser.network.layers]


@pytest.mark.parametrize(
    ("name", "kind", "policy"),
    [("full-bfloat16", BlindSpotUNet, "mixed_bfloat16"), ("n2c", UNet, "float32")],
    ids=["blind spot", "plain"],
)
def test_files_with_functional_networks_are_read(name, kind, policy, tmp_path):
    """Whose configuration lists layers instead of saying sizes; what is saved again is of today."""
    denoiser = keras.models.load_model(GOLDEN / f"functional-{name}.keras")
    expected = np.load(GOLDEN / f"functional-{name}.npy")
    noisy = np.random.default_rng(0).random((11, 14, denoiser.channels), dtype=np.float32)
    for _ in range(2):
        assert type(denoiser.network) is kind
        assert denoiser.network.get_config()["dtype"] == policy
        np.testing.assert_allclose(denoiser.denoise(noisy), expected, rtol=1e-6, atol=1e-6)
        denoiser.save(tmp_path / "again.keras")
        denoiser = keras.models.load_model(tmp_path / "again.keras")


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_network_is_built_again_from_its_configuration(build):
    network = build()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
    again.set_weights(network.get_weights())
    images = np.random.default_rng(0).random((1, 9, 6, network.input_shape[-1])).astype("float32")
    np.testing.assert_array_equal(again(images), network(images))
    assert again.get_config() == network.get_config()


def test_only_networks_of_this_package_have_other_precisions():
    image = keras.Input((None, None, 1), name="image")
    network = keras.Model(image, keras.layers.Conv2D(2, 3, padding="same")(image), name="unet")
    denoiser = Denoiser(network, GaussianNoise(0.1, 0.1))
    with pytest.raises(ValueError, match="Only a network that .* Received: a network named 'unet'"):
        denoiser.in_precision("bfloat16")


def test_in_precision():
    denoiser = Denoiser(NETWORKS["blind-spot"](), GaussianNoise(0.1, 0.2), offset=0.5, scale=2.0, fractional=False)
    half = denoiser.in_precision("bfloat16")
    assert {layer.compute_dtype for layer in half.network.layers if layer.name.startswith("dec")} == {"bfloat16"}
    noisy = np.random.default_rng(0).random((12, 17, 2)).astype("float32")
    whole, rounded = denoiser.posterior(noisy, sigma=0.1), half.posterior(noisy, sigma=0.1)
    assert rounded.denoised.dtype == np.float32
    differences = np.abs(whole.denoised - rounded.denoised)
    assert 0 < differences.max() < 0.03
    np.testing.assert_array_equal(half.in_precision("float32").denoise(noisy, sigma=0.1), whole.denoised)
    assert half.get_config()["scale"] == 2.0 and half.noise == denoiser.noise


def test_wrong_precision():
    denoiser = Denoiser(NETWORKS["blind-spot"](), GaussianNoise(0.1, 0.2))
    with pytest.raises(ValueError, match=r"`precision` must be one of \['float32', 'bfloat16'\]. Received: .*'int8'"):
        denoiser.in_precision("int8")
