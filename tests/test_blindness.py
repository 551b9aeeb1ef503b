"""Larger blind spots: their sizes, what is seen around them, one result whatever way it is computed, and SURE."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported import Server, export_some
from test_inference import assert_same, randomize
from test_network import around, jacobian, random_images, seen

import bsdenoise
from bsdenoise import Denoiser, GaussianNoise, blind_spot_network, layers, unet
from bsdenoise.inference import engine
from bsdenoise.network import BlindSpotUNet, blindness

SIGMA = 0.1
NOISE = GaussianNoise(SIGMA, SIGMA)
SIZES = ((1, 1), (3, 3), (5, 1), (1, 5), (7, 3))
every_size = pytest.mark.parametrize("size", SIZES, ids=blindness.in_words)


def build(blind_spot, depth=1, channels=1, **options):
    return Denoiser(randomize(blind_spot_network(channels, 4, depth, blind_spot=blind_spot, **options)), NOISE)


# --- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, (1, 1)),
        ("1", (1, 1)),
        ("3x3", (3, 3)),
        ("5X1", (5, 1)),
        ("31", (31, 31)),
        ([1, 5], (1, 5)),
        ((7, 3), (7, 3)),
    ],
    ids=repr,
)
def test_sizes_are_read(value, expected):
    assert blindness.size_of(value) == expected == blindness.size_of(blindness.in_words(expected))
    assert layers.BlindSpot(value).size == expected
    assert blind_spot_network(1, 2, 1, blind_spot=value).blind_spot == expected


@pytest.mark.parametrize(
    "value",
    [0, 2, -1, 33, True, 1.0, None, "", "3x", "x3", "3x3x3", "2x3", "-1", "+3", (3,), (3, 4), (3, 3, 3), (3, "3"), {3}],
    ids=repr,
)
def test_other_sizes_are_refused(value):
    with pytest.raises(ValueError, match="The blind spot must be odd numbers of pixels from 1 to 31, height x width"):
        layers.BlindSpot(value)
    with pytest.raises(ValueError, match="The blind spot must be odd"):
        blind_spot_network(1, 2, 1, blind_spot=value)


# --- what is seen --------------------------------------------------------------------------------------------------


@every_size
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_outputs_depend_on_all_but_a_rectangle(size, pooling):
    """At every position: exactly zero within, borders included, not zero for whatever else is in the image.

    (A maximum passes on one of four pixels only, so the latter is tested with averages.) But for one thing: of the row
    that it sees first, a branch sees two pixels to either side, and those further away at every second position only,
    by the place of the pooling grid. With sides up to 5 no pixel is missed: other branches see those.
    """
    shape = (13, 10)
    network = randomize(blind_spot_network(1, 3, 2, 2, pooling, blind_spot=size))
    jac = jacobian(network, random_images(*shape, 1)[0])
    for dy in range(-shape[0] + 1, shape[0]):
        for dx in range(-shape[1] + 1, shape[1]):
            part = around(jac, *shape, dy, dx)
            if abs(dy) <= size[0] // 2 and abs(dx) <= size[1] // 2:
                np.testing.assert_array_equal(part, 0.0)
            elif pooling == "average":
                is_missed = size == (7, 3) and (abs(dy), abs(dx)) == (3, 2)
                share = np.mean(part != 0.0)
                assert 0.3 < share < 0.7 if is_missed else share == 1.0, (dy, dx)


@every_size
def test_large_changes_within_leave_an_output(size):
    """Where the derivative of a maximum might hide something."""
    network = randomize(blind_spot_network(1, 4, 2, blind_spot=size))
    image = random_images(21, 21, 1)
    changed = image.copy()
    high, wide = (slice(10 - side // 2, 11 + side // 2) for side in size)
    changed[:, high, wide] += np.random.default_rng(1).choice([-9.0, 9.0], (1, *size, 1))
    change = np.abs(network(changed) - network(image)).max(axis=(0, -1))
    assert change[10, 10] == 0.0
    assert (change[9 - size[0] // 2 : 12 + size[0] // 2, 9 - size[1] // 2 : 12 + size[1] // 2] > 0).sum() > 4


@pytest.mark.parametrize(("size", "reach"), [((3, 3), 16), ((5, 1), 17), ((1, 7), 18)], ids=str)
def test_reach(size, reach):
    """From the worst place on the pooling grid: what is moved further is seen from further away."""
    network = blind_spot_network(1, 1, 1, 1, "average", blind_spot=size)
    for weight in network.weights:
        weight.assign(np.full(weight.shape, 0.5))  # nothing cancels
    distances = []
    for place in (20, 21):
        field = seen(network, 42, place, place)
        for places in (np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))):
            distances += [place - places.min(), places.max() - place]
    assert max(distances) == reach == network.reach


def test_tiles_have_more_context_where_the_reach_is_beyond_that_of_one_pixel():
    contexts = {size: blind_spot_network(1, 1, 2, blind_spot=size) for size in (1, 11, 13, 31)}
    assert {size: network.context for size, network in contexts.items()} == {1: 40, 11: 40, 13: 44, 31: 52}
    assert all(network.context >= network.reach for network in contexts.values())


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 2)], ids=str)
def test_images_smaller_than_the_blind_spot(shape):
    """Nothing of them is seen: every output is the same."""
    network = randomize(blind_spot_network(1, 3, 2, blind_spot=(7, 17)))
    outputs = [network(random_images(*shape, 1, seed=seed)).numpy() for seed in (0, 1)]
    np.testing.assert_array_equal(*outputs)
    assert np.isfinite(outputs[0]).all()


# --- one result ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blind_spot", "depth"), [((3, 3), 1), ((1, 5), 1), ((7, 3), 2), ((15, 31), 1)], ids=str)
def test_stages_equal_one_pass(blind_spot, depth, monkeypatch):
    """With chunks that are hardly larger than their halos."""
    denoiser = build(blind_spot, depth)
    noisy = random_images(91, 67, 1)[0]
    whole = denoiser.posterior(noisy)
    monkeypatch.setattr(engine, "MAX_PASS_PIXELS", 30)
    monkeypatch.setattr(engine, "MAX_CHUNK_PIXELS", 900)
    assert_same(denoiser.posterior(noisy), whole)


@pytest.mark.parametrize("blind_spot", [(3, 3), (5, 13)], ids=blindness.in_words)
def test_tiles_equal_one_pass(blind_spot):
    denoiser = build(blind_spot)
    noisy = random_images(90, 80, 1)[0]
    overlap = denoiser.described_network().context
    assert_same(denoiser.posterior(noisy, tile=2 * overlap + 12, overlap=overlap), denoiser.posterior(noisy))


def test_a_body_in_bfloat16_keeps_the_blind_spot():
    denoiser = build((3, 5)).in_precision("bfloat16")
    assert denoiser.blind_spot == (3, 5)
    jac = jacobian(denoiser.network, random_images(7, 8, 1)[0], chunk=28)
    np.testing.assert_array_equal(around(jac, 7, 8, 1, -2), 0.0)
    assert (around(jac, 7, 8, 2, -2) != 0.0).any()


def test_the_export_gives_the_same_in_tiles_too(tmp_path):
    denoiser = build((5, 3))
    folder = export_some(denoiser, tmp_path / "1", "serving_default", "describe", tile=48, overlap=20)
    image = random_images(71, 53, 1)
    with Server() as server:
        served = server.call(folder, "serving_default", image=image)["denoised"]
    np.testing.assert_allclose(served, denoiser.denoise(image), atol=1e-5)
    assert np.abs(served - denoiser.with_blind_spot(1).denoise(image)).max() > 1e-3


# --- files and configurations --------------------------------------------------------------------------------------


def test_layer_and_network_are_saved_with_it(tmp_path):
    denoiser = build((5, 1))
    denoiser.save(tmp_path / "denoiser.keras")
    again = bsdenoise.load(tmp_path / "denoiser.keras")
    noisy = random_images(20, 17, 1)
    assert again.blind_spot == (5, 1)
    np.testing.assert_array_equal(again.denoise(noisy), denoiser.denoise(noisy))
    assert layers.BlindSpot.from_config(layers.BlindSpot("5x1").get_config()).size == (5, 1)


def test_configurations_without_one_mean_one_pixel():
    """Those that were saved before there were others."""
    network = blind_spot_network(1, 3, 1)
    config = network.get_config()
    assert config.pop("blind_spot") == (1, 1)
    assert BlindSpotUNet.from_config(config).blind_spot == (1, 1)
    config = layers.BlindSpot().get_config()
    del config["size"]
    assert layers.BlindSpot.from_config(config).size == (1, 1)


# --- other blind spots for the same weights ------------------------------------------------------------------------


def test_with_blind_spot():
    denoiser = Denoiser(
        randomize(blind_spot_network(1, 4, 1, blind_spot=5)), GaussianNoise(0.1, 0.2), offset=0.5, provenance={"a": 1}
    )
    smaller = denoiser.with_blind_spot("3x1")
    assert (denoiser.blind_spot, smaller.blind_spot) == ((5, 5), (3, 1))
    for one, other in zip(denoiser.network.get_weights(), smaller.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    kept = ("noise", "offset", "scale", "factor", "provenance")
    assert all(getattr(smaller, name) == getattr(denoiser, name) for name in kept)
    noisy = random_images(16, 18, 1)
    assert np.abs(smaller.denoise(noisy) - denoiser.denoise(noisy)).max() > 1e-3
    np.testing.assert_array_equal(smaller.with_blind_spot(5).denoise(noisy), denoiser.denoise(noisy))
    with pytest.raises(ValueError, match="The blind spot must be odd"):
        denoiser.with_blind_spot(4)


def own(joint):
    """A functional network of one's own, with or without a layer that opens a blind spot."""
    image = keras.Input((None, None, 1))
    conv = layers.ShiftConv2D(2, 3)
    maps = joint([conv(image, quarter_turns=turns) for turns in range(4)]) if joint else conv(image)
    return keras.Model(image, keras.layers.Conv2D(2, 1)(maps), name="own")


@pytest.mark.parametrize("joint", [layers.BlindSpot((5, 1)), None], ids=["its own", "none"])
def test_networks_that_have_no_other(joint):
    denoiser = Denoiser(own(joint), NOISE)
    assert denoiser.blind_spot == (None if joint is None else (5, 1))
    with pytest.raises(ValueError, match="Only a blind-spot network whose class has an argument `blind_spot`.* 'own'"):
        denoiser.with_blind_spot(3)


def test_plain_networks_have_none():
    denoiser = Denoiser(unet(1, 2, 1, 1), NOISE, method="n2n")
    assert denoiser.blind_spot is None
    with pytest.raises(ValueError, match="Only a blind-spot network .* a network named 'unet'"):
        denoiser.with_blind_spot(3)


# --- self-ensembles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(3, 3), (5, 1)], ids=str)
@pytest.mark.parametrize("tta", [2, 4, 8])
def test_no_copy_sees_what_the_blind_spot_hides(size, tta):
    """d mean / d pixel is zero in the rectangle; transposed copies would turn a rectangle that is no square."""
    denoiser = build(size)
    noisy = random_images(13, 12, 1)[0]
    if tta == 8 and size == (5, 1):
        for function in (denoiser.denoise, denoiser.posterior):
            with pytest.raises(ValueError, match="`tta` must be at most 4 .*Received: tta=8 and a blind spot of 5x1"):
                function(noisy, tta=tta)
        return
    changed = noisy.copy()
    changed[4:9, 6] += 9.0  # a column of five
    seen = np.abs(denoiser.posterior(changed, tta=tta).mean - denoiser.posterior(noisy, tta=tta).mean)[6, 6]
    assert (seen == 0) == (size == (5, 1))
    changed = noisy.copy()
    changed[5:8, 5:8] += 9.0  # a square of three
    seen = np.abs(denoiser.posterior(changed, tta=tta).mean - denoiser.posterior(noisy, tta=tta).mean)[6, 6]
    assert (seen == 0) == (size == (3, 3))


# --- noise that neighbours share -----------------------------------------------------------------------------------


def shared_noise(shape, taps, seed=0):
    """Noise of σ = `SIGMA`: white noise averaged over a rectangle of taps, correlated over one pixel less than that."""
    white = np.random.default_rng(seed).standard_normal((shape[0], shape[1] + taps[0] - 1, shape[2] + taps[1] - 1, 1))
    windows = np.lib.stride_tricks.sliding_window_view(white, taps, axis=(1, 2))
    return SIGMA * windows.sum(axis=(-2, -1)) / np.sqrt(taps[0] * taps[1])


def errors(denoiser, noisy, clean):
    """Squared errors of each image, estimated by Stein's formula and true."""
    found = denoiser.posterior(noisy, sigma=SIGMA)
    denoised, std = found.denoised.astype(np.float64), found.std.astype(np.float64)
    estimated = np.square(denoised - noisy) - SIGMA**2 + 2 * np.square(std)
    return estimated.mean(axis=(1, 2, 3)), np.square(denoised - clean).mean(axis=(1, 2, 3)), found.estimated_psnr


@pytest.fixture(scope="module")
def preset():
    return bsdenoise.load("grey-gaussian5-50-small")


@pytest.mark.parametrize(
    ("taps", "hides", "does_not"),
    [((2, 2), (3, 3), (1, 1)), ((2, 1), (3, 1), (1, 3)), ((1, 2), (1, 3), (3, 1))],
    ids=["both ways", "in columns", "in rows"],
)
def test_stein_holds_where_the_blind_spot_hides_what_is_shared(preset, taps, hides, does_not):
    """Over draws of the noise the estimated error is unbiased with it, and far too small without.

    A trained network, which would use what neighbours share.
    """
    rows, columns = np.mgrid[:32, :36] / 9
    clean = (0.5 + 0.2 * np.sin(rows) * np.cos(columns))[np.newaxis, ..., np.newaxis]
    noisy = (clean + shared_noise((24, 32, 36), taps)).astype("float32")
    estimated, true, psnr = errors(preset.with_blind_spot(hides), noisy, clean)
    differences = estimated - true
    assert abs(differences.mean()) < 3 * differences.std() / np.sqrt(len(noisy))
    assert differences.std() / np.sqrt(len(noisy)) < 0.1 * true.mean()  # so that a bias would be seen
    np.testing.assert_allclose(10 ** (-psnr / 10), estimated, rtol=1e-3)
    estimated, true, _ = errors(preset.with_blind_spot(does_not), noisy, clean)
    differences = estimated - true
    assert differences.mean() < -20 * differences.std() / np.sqrt(len(noisy))
    assert differences.mean() < -0.5 * true.mean()


def test_graphs_of_unknown_size():
    """Shifts are cut off where an image is smaller than they are, in a graph as well."""
    network = randomize(blind_spot_network(1, 3, 1, blind_spot=(9, 3)))
    graph = tf.function(network, input_signature=[tf.TensorSpec((None, None, None, 1))])
    for shape in ((2, 3), (17, 12)):
        images = random_images(*shape, 1)
        np.testing.assert_allclose(graph(images), network(images), atol=1e-6)
