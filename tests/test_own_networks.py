"""Networks of one's own: measured where they do not say it, denoising without seams, saved, and asked for in vain."""

import keras
import numpy as np
import own_networks
import pytest
import tensorflow as tf
from exported import export_some

from bsdenoise import Denoiser, GaussianNoise, blind_spot_network, loading, unet
from bsdenoise.export import export_saved_model
from bsdenoise.inference import tiling
from bsdenoise.network import BlindSpotUNet, DenoisingNetwork, UNet, described
from bsdenoise.network.context import MAX_CONTEXT
from bsdenoise.network.measuring import MAX_REACH

NOISE = GaussianNoise(0.1, 0.1)


def randomize(network, seed=0):
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 25.0
        weight.assign(rng.standard_normal(weight.shape) / np.sqrt(fan_in))
    return network


def random_noisy(*shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def anonymous(network):
    """The same network without anything that it says of itself."""
    return keras.Model(network.input, network.output)


# --- what is measured ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("build", [blind_spot_network, unet])
def test_what_our_networks_say_is_what_is_measured(build, depth):
    network = build(channels=1, width=2, depth=depth, pooling="average")
    found = described(anonymous(network))
    assert (found.grid, found.is_blind) == (network.grid, network.is_blind)
    assert network.reach <= found.reach < network.reach + network.grid
    assert found.context == -(-found.reach // found.grid) * found.grid
    assert (found.channels, found.map_bytes) == (network.channels, network.map_bytes)


@pytest.mark.parametrize(
    ("network", "grid", "reach"),
    [
        (own_networks.convolutions(5), 1, 2),
        (own_networks.convolutions(3, dilation=50, number=2), 1, 100),
        (own_networks.convolutions(3, number=40), 1, 40),
        (own_networks.strided(4), 4, 3),
        (own_networks.strided(3), 3, 2),
    ],
    ids=["one", "dilated", "many", "pooled", "pooled by three"],
)
def test_reach_and_grid_of_others(network, grid, reach):
    found = described(network)
    assert found.grid == grid
    assert reach <= found.reach < reach + grid


def test_it_is_measured_again_when_the_weights_have_changed():
    network = own_networks.convolutions(5)
    found = described(network)
    kernel = network.weights[0]
    kernel.assign(np.zeros(kernel.shape))
    assert found.reach == 0
    kernel.assign(np.ones(kernel.shape))
    assert found.reach == 2


def test_measuring_happens_once_and_not_when_files_are_written(tmp_path, monkeypatch):
    passes = []
    call = keras.layers.Conv2D.call
    monkeypatch.setattr(keras.layers.Conv2D, "call", lambda self, x: passes.append(1) or call(self, x))
    denoiser = Denoiser(own_networks.Plain(), NOISE, method="n2c")
    passes.clear()
    denoiser.save(tmp_path / "own.keras")
    assert not passes
    assert (denoiser.grid, denoiser.described_network().reach) == (1, 3)
    count = len(passes)
    assert count > 0
    assert (denoiser.grid, denoiser.described_network().reach) == (1, 3)
    assert len(passes) == count


# --- images that are larger than a pass ----------------------------------------------------------------------------


def test_large_images_have_no_seams(monkeypatch):
    """Depth 3, and a reach of 76 pixels, of which its layers' names say nothing."""
    denoiser = Denoiser(randomize(own_networks.blind(1, 2)), NOISE)
    noisy = random_noisy(301, 420)
    whole = denoiser.denoise(noisy)
    monkeypatch.setattr(tiling, "MAX_UNTILED_PIXELS", 200 * 200)
    asked = []
    plan = tiling.plan
    monkeypatch.setattr(tiling, "plan", lambda *arguments: asked.append(arguments[3:]) or plan(*arguments))
    tiled = denoiser.denoise(noisy)
    assert asked == [(80, 8)]
    assert np.abs(tiled - whole).max() < 1e-5
    assert np.abs(whole - noisy).max() > 0.01
    windowed = np.zeros_like(whole)
    for place, (part, *_) in denoiser.windows(lambda *window: noisy[window][..., None], (*noisy.shape, 1), tile=344):
        windowed[place] = part[..., 0]
    np.testing.assert_allclose(windowed, whole, atol=1e-5)


def test_above_a_megapixel():
    """Where tiles are not asked for: those that are chosen have all the context that the network needs."""
    denoiser = Denoiser(randomize(own_networks.convolutions(3, dilation=40, number=5)), NOISE, method="n2c")
    noisy = random_noisy(1030, 1040, 1)
    assert noisy.size > tiling.MAX_UNTILED_PIXELS
    whole = denoiser(noisy[np.newaxis]).numpy()[0]
    assert denoiser.described_network().context == 200 > MAX_CONTEXT
    assert np.abs(denoiser.denoise(noisy) - whole).max() < 1e-5


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (own_networks.pooled_globally(), f"'global' looks further than {MAX_REACH} pixels, as global pooling"),
        (own_networks.tells_where(), "'where' has no pooling grid of at most 64 pixels"),
    ],
    ids=["global", "where"],
)
def test_what_cannot_be_cut_is_computed_whole_or_refused(network, message, monkeypatch):
    denoiser = Denoiser(network, NOISE, method="n2c")
    noisy = random_noisy(60, 50, 1)
    np.testing.assert_allclose(denoiser.denoise(noisy), network(noisy[np.newaxis])[0], atol=1e-6)
    monkeypatch.setattr(tiling, "MAX_UNTILED_PIXELS", 2000)
    with pytest.raises(ValueError, match=message):
        denoiser.denoise(noisy)


def test_a_network_may_say_its_own_reach(monkeypatch):
    class Known(own_networks.Plain):
        reach, grid = 500, 4

    denoiser = Denoiser(Known(1, 1), NOISE, method="n2c")
    assert (denoiser.grid, denoiser.described_network().context) == (4, 500)
    assert tiling.choose(4, context=500) == (2000, 500)


# --- blindness and channels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["denoise", "posterior", "windows", "export"])
def test_a_network_that_sees_the_pixel_is_refused(use, tmp_path):
    denoiser = Denoiser(own_networks.Plain(1, 2, name="plain"), NOISE)
    noisy = random_noisy(9, 7, 1)
    uses = {
        "denoise": lambda: denoiser.denoise(noisy),
        "posterior": lambda: denoiser.posterior(noisy),
        "windows": lambda: list(denoiser.windows(lambda *window: noisy[window], noisy.shape)),
        "export": lambda: export_saved_model(denoiser, tmp_path / "1"),
    }
    with pytest.raises(
        ValueError, match="Method 'full' needs a network whose output .* network 'plain', which sees it"
    ):
        uses[use]()


def test_a_pixel_that_is_seen_at_few_places_is_found():
    """At one place of the pooling grid in sixteen."""
    image = keras.Input((None, None, 1))
    places = keras.layers.Conv2DTranspose(1, 4, 4, use_bias=False, name="places")
    corner = keras.layers.AveragePooling2D(4)(keras.layers.ZeroPadding2D(((0, 3), (0, 3)))(image))
    network = keras.Model(image, keras.layers.Cropping2D(((0, 0), (0, 0)))(places(corner)))
    kernel = np.zeros((4, 4, 1, 1))
    kernel[1, 2] = 1.0
    places.set_weights([kernel])
    assert not described(network).is_blind


@pytest.mark.parametrize("kind", [BlindSpotUNet, UNet])
def test_inputs_may_have_more_channels_than_are_denoised(kind):
    network = kind(channels=1, width=2, depth=1, input_channels=3)
    assert (network.channels, network.input_channels, network.num_outputs) == (1, 3, 2)
    assert network(random_noisy(1, 6, 5, 3)).shape == (1, 6, 5, 2)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
    assert again.get_config() == network.get_config()
    with pytest.raises(ValueError, match="The network takes 3 channels and denoises 1 of them"):
        Denoiser(network, NOISE)
    with pytest.raises(
        ValueError, match="`input_channels` must be an integer, at least the 2 channels .* Received: .*=1"
    ):
        kind(channels=2, input_channels=1)


def test_only_the_pixels_that_are_denoised_must_not_be_seen():
    """A guide beside them may be: that is what it is for."""
    image = keras.Input((None, None, 2))
    guided = DenoisingNetwork(image, keras.layers.Conv2D(2, 1)(image), channels=1)
    kernel = np.zeros((1, 1, 2, 2))
    kernel[0, 0, 1] = 1.0
    guided.layers[-1].set_weights([kernel, np.zeros(2)])
    assert (guided.channels, guided.input_channels, guided.is_blind) == (1, 2, True)
    kernel[0, 0, 0] = 1.0
    guided.layers[-1].set_weights([kernel, np.zeros(2)])
    assert not guided.is_blind


@pytest.mark.parametrize("channels", [0, 4, 1.5])
def test_wrong_channels(channels):
    image = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match=f"at most the 3 channels of the input. Received: channels={channels}"):
        DenoisingNetwork(image, keras.layers.Conv2D(2, 1)(image), channels=channels)


def test_what_is_no_network_of_images_is_refused():
    number = keras.Input((4,))
    with pytest.raises(ValueError, match=r"one input \(B, H, W, C\) .* 'numbers' of input shape \(None, 4\)"):
        Denoiser(keras.Model(number, keras.layers.Dense(2)(number), name="numbers"), NOISE)


# --- files and precision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: own_networks.blind(1, 2),
        lambda: own_networks.Plain(1, 1, 3),
        lambda: anonymous(own_networks.Plain(1, 1, 3)),
        lambda: DenoisingNetwork(
            *(lambda net: (net.inputs[0], net.outputs[0]))(own_networks.convolutions(3)), channels=1
        ),
        lambda: keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(1, 3, padding="same")]),
    ],
    ids=["function", "class", "functional", "base", "sequential"],
)
def test_denoisers_of_ones_own_networks_are_saved_and_loaded(make, tmp_path):
    network = randomize(make())
    denoiser = Denoiser(network, NOISE, method="n2c" if network.output_shape[-1] == 1 else "full")
    noisy = random_noisy(20, 17)
    expected = denoiser.denoise(noisy)
    for round in range(2):
        denoiser.save(tmp_path / f"{round}.keras")
        denoiser = loading.load(tmp_path / f"{round}.keras")
        assert type(denoiser.network) is type(network)
        np.testing.assert_array_equal(denoiser.denoise(noisy), expected)


def test_a_class_that_does_not_say_how_it_is_made_cannot_be_saved(tmp_path):
    class Silent(DenoisingNetwork):
        def __init__(self, channels=1, width=2, **kwargs):
            image = keras.Input((None, None, channels))
            super().__init__(image, keras.layers.Conv2D(1, 3, padding="same")(image), **kwargs)

    with pytest.raises(NotImplementedError, match="Silent must override `get_config` .* arguments: channels, width"):
        Denoiser(Silent(), NOISE, method="n2c").save(tmp_path / "own.keras")


def test_other_precisions_keep_name_and_weights():
    network = randomize(blind_spot_network(channels=1, width=3, depth=1))
    half = network.with_dtype("mixed_bfloat16")
    assert type(half) is BlindSpotUNet and half.get_config() == network.get_config() | {"dtype": "mixed_bfloat16"}
    for weight, value in zip(half.weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    with pytest.raises(ValueError, match="Only a network .* with an argument `dtype`"):
        own_networks.Plain().with_dtype("mixed_bfloat16")


def test_the_export_denoises_large_images_alike(tmp_path):
    """In tiles, whose grid and context are those that were measured."""
    denoiser = Denoiser(randomize(own_networks.blind(1, 2, depth=2)), NOISE)
    noisy = random_noisy(150, 145, 1)
    folder = export_some(denoiser, tmp_path / "1", "serving_default", tile=140, untiled_pixels=0)
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    tiled = served(image=noisy[np.newaxis])["denoised"].numpy()[0]
    assert np.abs(tiled - denoiser.denoise(noisy)).max() < 1e-5
