"""The networks: sizes, precision, and a proof that the blind spot is blind at every pixel."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from bsdenoise.network import blind_spot_network, num_gaussian_outputs, unet

BUILDERS = {"blind-spot": blind_spot_network, "unet": unet}
both = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())
NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def randomize(network, seed=0):
    """Gives every kernel and every bias random values, so that nothing is zero by chance or by initialisation."""
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 4.0
        weight.assign(rng.standard_normal(weight.shape) / np.sqrt(fan_in))
    return network


def random_images(height, width, channels=3, batch=1, seed=0):
    return np.random.default_rng(seed).uniform(0.0, 1.0, (batch, height, width, channels)).astype("float32")


def jacobian(network, image, chunk=128):
    """d out[i, j, f] / d in[k, l, c] as an array (H·W, n, H, W, C), in as many backward passes as there are outputs.

    Every pixel gets its own copy of the image in the batch, and only that pixel's outputs of that copy are
    differentiated.
    """
    height, width, _ = image.shape
    pixels = height * width
    chunk = min(chunk, pixels)

    def gradients(copies, places):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(copies)
            outputs = network(copies)
            outputs = tf.reshape(outputs, (chunk, pixels, outputs.shape[-1]))
            own = tf.unstack(tf.reduce_sum(tf.gather(outputs, places, batch_dims=1), axis=0))
        return tf.stack([tape.gradient(output, copies) for output in own], axis=1)

    copies = tf.repeat(tf.constant(image)[None], chunk, axis=0)
    places = np.arange(-(-pixels // chunk) * chunk) % pixels
    parts = [gradients(copies, tf.constant(part)).numpy() for part in places.reshape(-1, chunk)]
    return np.concatenate(parts)[:pixels]


def around(jac, height, width, dy, dx):
    """The part of a Jacobian that goes from each pixel's neighbour at (dy, dx) to the pixel: (pixels inside, n, C)."""
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    inside = (0 <= rows + dy) & (rows + dy < height) & (0 <= columns + dx) & (columns + dx < width)
    pixels = np.flatnonzero(inside)
    return jac[pixels, :, rows[pixels] + dy, columns[pixels] + dx]


# --- the blind spot ------------------------------------------------------------------------------------------------

BLIND_SPOTS = {
    "7x5-depth3": ((7, 5), {"depth": 3}),
    "16x16-depth2": ((16, 16), {"depth": 2}),
    "33x19-depth2": ((33, 19), {"depth": 2, "width": 2, "channels": 2, "num_outputs": 2}),
    "19x33-average": ((19, 33), {"depth": 2, "width": 2, "channels": 1, "num_outputs": 1, "pooling": "average"}),
    "12x10-depth5": ((12, 10), {"depth": 5}),
    "1x6-depth1": ((1, 6), {"depth": 1}),
    "5x1-depth1": ((5, 1), {"depth": 1}),
}


@pytest.mark.parametrize("size, options", BLIND_SPOTS.values(), ids=BLIND_SPOTS.keys())
def test_no_output_depends_on_its_own_pixel(size, options):
    """Exactly zero for the pixel itself, at every position and between all channels; not zero for its neighbours."""
    network = randomize(blind_spot_network(**{"channels": 3, "width": 3, "num_outputs": 3, **options}))
    jac = jacobian(network, random_images(*size, network.input_shape[-1])[0])
    own = around(jac, *size, 0, 0)
    assert own.shape == (size[0] * size[1], network.output_shape[-1], network.input_shape[-1])
    np.testing.assert_array_equal(own, 0.0)
    for offset in NEIGHBOURS:
        assert (around(jac, *size, *offset) != 0.0).all(), offset


def test_plain_unet_has_no_blind_spot():
    """The check above can fail: the network without shifts and rotations depends on the pixel itself everywhere."""
    network = randomize(unet(channels=3, width=3, depth=2, num_outputs=3))
    jac = jacobian(network, random_images(9, 6)[0])
    assert (around(jac, 9, 6, 0, 0) != 0.0).all()


@pytest.mark.parametrize("size", [(7, 5), (12, 9)], ids=str)
def test_changing_a_pixel_leaves_its_own_output(size):
    """Large finite changes, where the derivative of a maximum might hide something."""
    network = randomize(blind_spot_network(width=4, depth=2), seed=1)
    height, width = size
    pixels = height * width
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    copies = np.repeat(random_images(*size), pixels + 1, axis=0)
    copies[np.arange(pixels), rows, columns] += np.random.default_rng(2).choice([-9.0, 9.0], (pixels, 3))
    outputs = network(copies).numpy()
    before, after = outputs[-1], outputs[:-1]
    changes = np.abs(after - before).max(axis=-1)
    np.testing.assert_array_equal(changes[np.arange(pixels), rows, columns], 0.0)
    for pixel, (row, column) in enumerate(zip(rows, columns, strict=True)):
        window = changes[pixel, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert np.count_nonzero(window > 1e-3) == window.size - 1


def seen(network, size, row, column):
    """Which pixels of a size × size image the outputs at one place depend on."""
    image = tf.constant(random_images(size, size, network.input_shape[-1]))
    with tf.GradientTape() as tape:
        tape.watch(image)
        output = tf.reduce_sum(network(image)[0, row, column])
    return np.abs(tape.gradient(output, image)[0].numpy()).max(axis=-1) > 0.0


def test_receptive_field_is_everything_around():
    """All four half planes, with no gap but the centre. (With averages: a maximum passes on one of four only.)"""
    network = randomize(blind_spot_network(width=4, depth=2, num_outputs=2, pooling="average"))
    expected = np.ones((17, 17), bool)
    expected[8, 8] = False
    np.testing.assert_array_equal(seen(network, 17, 8, 8), expected)


@pytest.mark.parametrize("depth, reach", [(1, 15), (2, 35), (3, 75)])
def test_reach(depth, reach):
    """20 · 2^(depth − 1) − 5 pixels to every side, from the worst place on the pooling grid: 315 at a depth of 5."""
    network = blind_spot_network(channels=1, width=1, depth=depth, num_outputs=1, pooling="average")
    for weight in network.weights:
        weight.assign(np.full(weight.shape, 0.5))  # nothing cancels
    grid = 2**depth
    center = -(-(reach + 1) // grid) * grid
    distances = []
    for place in range(center, center + grid):
        field = seen(network, 2 * (center + grid), place, place)
        for places in (np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))):
            distances += [place - places.min(), places.max() - place]
    assert max(distances) == reach == 20 * 2 ** (depth - 1) - 5


# --- what they are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels, num_parameters", [(3, 1_269_129), (1, 1_265_858)], ids=["rgb", "grey"])
def test_number_of_parameters(channels, num_parameters):
    """As published: Laine et al. 2019, Appendix A."""
    network = blind_spot_network(channels=channels)
    assert network.count_params() == num_parameters
    assert network.output_shape == (None, None, None, num_gaussian_outputs(channels))


@pytest.mark.parametrize("channels, expected", [(1, 2), (2, 5), (3, 9), (5, 20), (16, 152)])
def test_num_gaussian_outputs(channels, expected):
    assert num_gaussian_outputs(channels) == expected


def test_layers_are_those_of_the_paper():
    """Encoder of 48 maps, decoder of 96, head 384 → 96 → n, and every skip connection where it belongs."""
    network = blind_spot_network(channels=3)
    kernels = {weight.path.split("/")[-2]: weight.shape for weight in network.weights if weight.name == "kernel"}
    encoder = {f"enc_conv{index}": (3, 3, 3 if index == 0 else 48, 48) for index in range(7)}
    decoder = {f"dec_conv{level}b": (3, 3, 96, 96) for level in range(1, 6)}
    joined = {5: 48 + 48, 4: 96 + 48, 3: 96 + 48, 2: 96 + 48, 1: 96 + 3}
    decoder |= {f"dec_conv{level}a": (3, 3, maps, 96) for level, maps in joined.items()}
    head = {"head_conv0": (1, 1, 384, 384), "head_conv1": (1, 1, 384, 96), "outputs": (1, 1, 96, 9)}
    assert kernels == encoder | decoder | head
    for turns in range(4):
        skips = [network.get_layer(f"dec_conv{level}a")._inbound_nodes[turns] for level in (5, 4, 3, 2, 1)]
        pools = [network.get_layer(f"pool{level}")._inbound_nodes[turns].outputs[0].name for level in (4, 3, 2, 1)]
        assert [node.arguments.args[0].name for node in skips] == [*pools, network.input.name]
        assert {node.arguments.kwargs["quarter_turns"] for node in skips} == {turns}


@both
def test_initialisation_keeps_the_scale(build):
    """He's initialisation: the outputs of a fresh network are of the order of its input, biases are zero."""
    keras.utils.set_random_seed(0)
    network = build(channels=3, width=16, depth=3)
    outputs = network(np.random.default_rng(0).standard_normal((1, 48, 40, 3)).astype("float32")).numpy()
    assert 0.3 < outputs.std() < 3.0
    assert all(not weight.numpy().any() for weight in network.weights if weight.name == "bias")


@both
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (16, 16), (33, 19), (8, 50)], ids=str)
def test_any_size(build, size):
    network = build(channels=3, width=4, depth=3)
    outputs = network(random_images(*size, batch=2))
    assert outputs.shape == (2, *size, 9)
    assert np.isfinite(outputs.numpy()).all()


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def slow_network(network, image, depth):
    """The network in NumPy, from its weights: four branches, each padded in the frame of the image."""
    weights = {weight.path: weight.numpy() for weight in network.weights}
    weights = {tuple(path.split("/")[-2:]): value for path, value in weights.items()}

    def conv(name, x):
        return leaky(reference.shift_conv2d(x, weights[name, "kernel"], weights[name, "bias"]))

    def pool(x, turns):
        upright = np.rot90(x, -turns, axes=(1, 2))
        odd = [(0, side % 2) for side in upright.shape[1:3]]
        padded = np.pad(upright, ((0, 0), *odd, (0, 0)))
        return reference.shift_downsample(np.rot90(padded, turns, axes=(1, 2)), "max")

    def upsample(x, like, turns):
        upright = np.rot90(x, -turns, axes=(1, 2)).repeat(2, axis=1).repeat(2, axis=2)
        height, width = np.rot90(like, -turns, axes=(1, 2)).shape[1:3]
        return np.rot90(upright[:, :height, :width], turns, axes=(1, 2))

    branches = []
    for turns in range(4):
        skips = [np.rot90(image, turns, axes=(1, 2))]
        maps = conv("enc_conv0", skips[0])
        for level in range(1, depth + 1):
            maps = pool(conv(f"enc_conv{level}", maps), turns)
            skips.append(maps)
        maps = conv(f"enc_conv{depth + 1}", maps)
        for level in range(depth, 0, -1):
            maps = np.concatenate([upsample(maps, skips[level - 1], turns), skips[level - 1]], axis=-1)
            maps = conv(f"dec_conv{level}b", conv(f"dec_conv{level}a", maps))
        shifted = np.zeros_like(maps)
        shifted[:, 1:] = maps[:, :-1]
        branches.append(np.rot90(shifted, -turns, axes=(1, 2)))
    maps = np.concatenate(branches, axis=-1)
    for name in ("head_conv0", "head_conv1"):
        maps = leaky(maps @ weights[name, "kernel"][0, 0] + weights[name, "bias"])
    return maps @ weights["outputs", "kernel"][0, 0] + weights["outputs", "bias"]


@pytest.mark.parametrize("size", [(8, 4), (5, 7), (6, 9), (1, 3)], ids=str)
def test_the_whole_network_against_numpy(size):
    network = randomize(blind_spot_network(channels=1, width=2, depth=2))
    image = random_images(*size, channels=1, batch=2)
    np.testing.assert_allclose(network(image), slow_network(network, image, 2), rtol=1e-4, atol=1e-5)


@both
def test_one_graph_serves_all_sizes(build):
    network = randomize(build(channels=2, width=4, depth=2, num_outputs=3))
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2])])
    def graph(images):
        traces.append(images.shape)
        return network(images)

    for batch, height, width in [(1, 1, 1), (3, 6, 11), (2, 16, 4)]:
        images = random_images(height, width, 2, batch)
        np.testing.assert_allclose(graph(images), network(images), rtol=1e-5, atol=1e-6)
    assert len(traces) == 1


@both
def test_images_of_a_batch_do_not_mix(build):
    network = randomize(build(channels=1, width=4, depth=2))
    images = random_images(9, 6, 1, batch=4)
    one_by_one = np.concatenate([network(image[None]) for image in images])
    np.testing.assert_allclose(network(images), one_by_one, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_large_image():
    network = blind_spot_network(channels=1, width=4, depth=2)
    outputs = network(random_images(900, 1500, 1))
    assert outputs.shape == (1, 900, 1500, 2)
    assert np.isfinite(outputs.numpy()).all()


# --- precision, configuration, files -------------------------------------------------------------------------------


@pytest.fixture
def global_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def distinct_values(outputs):
    """How many different values lie in [0.5, 1). A bfloat16 has 128 there, a float32 eight million."""
    outputs = np.asarray(outputs)
    return len(np.unique(outputs[(outputs >= 0.5) & (outputs < 1.0)]))


def assert_no_banding(network):
    """Outputs spread over [0.5, 1) are float32 and not merely bfloat16 numbers in a wider type."""
    randomize(network)
    last = network.get_layer("outputs")
    last.kernel.assign(0.2 * last.kernel.numpy())
    last.bias.assign(np.full(last.bias.shape, 0.75))
    outputs = network(random_images(40, 40))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert distinct_values(outputs) > 1000
    assert distinct_values(tf.cast(tf.cast(outputs, "bfloat16"), "float32")) <= 128


@both
def test_bfloat16_gives_float32_without_banding(build):
    network = build(channels=3, width=4, depth=2, dtype="mixed_bfloat16")
    assert_no_banding(network)
    assert {weight.dtype for weight in network.weights} == {"float32"}


@both
def test_global_policy(build, global_bfloat16):
    network = build(channels=3, width=4, depth=2)
    assert_no_banding(network)
    assert network.get_layer("head_conv0").compute_dtype == "bfloat16"
    assert network.get_layer("outputs").compute_dtype == "float32"


@both
def test_bfloat16_is_close_to_float32(build):
    network = randomize(build(channels=3, width=4, depth=2))
    half = build(channels=3, width=4, depth=2, dtype="mixed_bfloat16")
    half.set_weights(network.get_weights())
    images = random_images(20, 12)
    outputs = network(images).numpy()
    np.testing.assert_allclose(half(images), outputs, atol=0.1 * outputs.std())


def test_blind_spot_in_bfloat16():
    network = randomize(blind_spot_network(width=3, depth=2, num_outputs=2, dtype="mixed_bfloat16"))
    jac = jacobian(network, random_images(7, 6)[0])
    np.testing.assert_array_equal(around(jac, 7, 6, 0, 0), 0.0)
    for offset in NEIGHBOURS:
        assert (around(jac, 7, 6, *offset) != 0.0).any(axis=(1, 2)).all(), offset


@both
@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
def test_save_and_load(build, dtype, tmp_path):
    network = randomize(build(channels=2, width=4, depth=2, pooling="average", dtype=dtype))
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    images = random_images(9, 6, 2)
    assert loaded.name == network.name
    np.testing.assert_array_equal(loaded(images), network(images))


@both
@pytest.mark.parametrize("name", ["channels", "width", "depth", "num_outputs"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3"], ids=repr)
def test_wrong_sizes(build, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer. Received: {name}={value!r}"):
        build(**{name: value})


@both
def test_wrong_pooling(build):
    with pytest.raises(ValueError, match="`pooling` must be 'max' or 'average'. Received: pooling='median'"):
        build(width=4, depth=1, pooling="median")
