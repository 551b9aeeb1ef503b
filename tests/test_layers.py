"""The layers against loops, at any size, in any precision, through configuration and files."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from bsdenoise.network import layers

KERNELS = [(1, 1), (3, 3), (3, 5), (5, 3), (1, 3), (7, 1)]
SIZES = [(1, 1), (1, 6), (5, 1), (4, 4), (7, 4), (8, 13)]
TURNS = range(4)


def turn(images, turns):
    return np.rot90(images, turns, axes=(1, 2))


def turn_back(images, turns):
    return np.rot90(images, -turns, axes=(1, 2))


def tf_turn(images, turns):
    return tf.image.rot90(images, turns % 4)


def random_images(height, width, channels=2, batch=2, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, height, width, channels)).astype("float32")


def random_conv(kernel_size, filters=3, **kwargs):
    return layers.ShiftConv2D(
        filters, kernel_size, bias_initializer=keras.initializers.RandomNormal(stddev=1.0, seed=1), **kwargs
    )


# Every layer, with the input it takes: one (B, H, W, C), or a pair of them.
LAYERS = {
    "conv": (lambda **kwargs: random_conv((3, 5), activation="tanh", **kwargs), [(2, 7, 4, 2)]),
    "conv-no-bias": (lambda **kwargs: layers.ShiftConv2D(3, 3, use_bias=False, **kwargs), [(2, 7, 4, 2)]),
    "downsample-max": (lambda **kwargs: layers.ShiftDownsample(**kwargs), [(2, 7, 4, 2)]),
    "downsample-average": (lambda **kwargs: layers.ShiftDownsample("average", **kwargs), [(2, 7, 4, 2)]),
    "blind-spot": (lambda **kwargs: layers.BlindSpot(**kwargs), [(2, 7, 4, 2)] * 4),
    "pad": (lambda **kwargs: layers.PadToMultiple(4, **kwargs), [(2, 7, 4, 2)]),
    "crop": (lambda **kwargs: layers.CropLike(**kwargs), [(2, 8, 8, 3), (2, 7, 4, 2)]),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def make(kind, **kwargs):
    """A layer and an input for it."""
    build, shapes = LAYERS[kind]
    arrays = [
        np.random.default_rng(index).standard_normal(shape).astype("float32") for index, shape in enumerate(shapes)
    ]
    return build(**kwargs), arrays if len(arrays) > 1 else arrays[0]


def flat(outputs):
    """Outputs as a list of float64 arrays."""
    return [keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")).astype(float) for x in tf.nest.flatten(outputs)]


def assert_same(actual, expected, **tolerance):
    actual, expected = flat(actual), flat(expected)
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


# --- what they compute ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kernel_size", KERNELS, ids=str)
def test_shift_conv_is_pad_convolve_crop(kernel_size, size):
    images, layer = random_images(*size), random_conv(kernel_size)
    outputs = layer(images)
    expected = reference.shift_conv2d(images, layer.kernel.numpy(), layer.bias.numpy())
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_shift_conv_applies_its_activation():
    images, layer = random_images(5, 6), random_conv(3, activation="relu")
    outputs = layer(images)
    expected = np.maximum(reference.shift_conv2d(images, layer.kernel.numpy(), layer.bias.numpy()), 0.0)
    assert (expected == 0.0).any()
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel_size", KERNELS, ids=str)
def test_shift_conv_sees_its_own_row_and_those_above_only(kernel_size):
    images, layer, row = random_images(9, 6, batch=1), random_conv(kernel_size), 4
    changed = images.copy()
    changed[:, row] += 1.0
    difference = np.abs(layer(images).numpy() - layer(changed).numpy()).max(axis=(0, 2, 3))
    np.testing.assert_array_equal(difference[:row], 0.0)
    height = kernel_size[0]
    assert (difference[row : row + height] > 0.0).all()
    np.testing.assert_array_equal(difference[row + height :], 0.0)


@pytest.mark.parametrize("size", [(2, 2), (2, 7), (5, 2), (8, 6), (9, 13)], ids=str)
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_shift_downsample_is_shift_and_pool(pooling, size):
    images = random_images(*size)
    outputs = layers.ShiftDownsample(pooling)(images)
    np.testing.assert_allclose(outputs, reference.shift_downsample(images, pooling), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kernel_size", KERNELS, ids=str)
@pytest.mark.parametrize("turns", TURNS)
def test_shift_conv_of_a_turned_image(turns, kernel_size, size):
    images, layer = random_images(*size), random_conv(kernel_size)
    outputs = layer(images, quarter_turns=turns)
    expected = turn_back(reference.shift_conv2d(turn(images, turns), *layer.get_weights()), turns)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def upsampled(coarse, size):
    return coarse.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kernel_size", [*KERNELS, (5, 7)], ids=str)
@pytest.mark.parametrize("turns", TURNS)
def test_shift_conv_upsamples_and_concatenates_what_is_coarse(turns, kernel_size, size):
    """Odd sides too, where half of the last coarse pixels is cropped and must not be seen; in every direction."""
    images, layer = random_images(*size), random_conv(kernel_size)
    coarse = random_images(*((side + 1) // 2 for side in size), channels=4, seed=1)
    outputs = layer(images, coarse=coarse, quarter_turns=turns)
    assert layer.kernel.shape == (*kernel_size, 4 + 2, 3)
    joined = np.concatenate([upsampled(coarse, size), images], axis=-1)
    expected = turn_back(reference.shift_conv2d(turn(joined, turns), *layer.get_weights()), turns)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 4), (8, 13), (6, 6), (5, 3)], ids=str)
@pytest.mark.parametrize("turns", TURNS)
def test_gradients_of_a_convolution_of_coarse_maps(turns, size):
    """Those that automatic differentiation finds for the same thing done step by step."""
    layer, other = random_conv(3), random_conv(3)
    images, coarse = random_images(*size), random_images(*((side + 1) // 2 for side in size), channels=4, seed=1)
    layer(images, coarse=coarse)
    other(np.concatenate([upsampled(coarse, size), images], axis=-1))
    other.set_weights(layer.get_weights())

    def directly(images, coarse):
        return layer(images, coarse=coarse, quarter_turns=turns)

    def step_by_step(images, coarse):
        maps = tf.repeat(tf.repeat(coarse, 2, axis=1), 2, axis=2)[:, : size[0], : size[1]]
        return tf_turn(other(tf_turn(tf.concat([maps, images], axis=-1), turns)), -turns)

    gradients = []
    for function, of in ((directly, layer), (step_by_step, other)):
        variables = [tf.Variable(images), tf.Variable(coarse)]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(function(*variables)))
        gradients.append(tape.gradient(loss, [*variables, *of.trainable_variables]))
    assert_same(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turns", TURNS)
def test_unknown_sizes_of_coarse_maps(turns):
    """One graph for all sizes, with what is cropped decided in it."""
    layer = random_conv(3)
    specs = [tf.TensorSpec([None, None, None, channels]) for channels in (2, 4)]
    layer(random_images(4, 4), coarse=random_images(2, 2, 4))
    graph = tf.function(lambda x, coarse: layer(x, coarse=coarse, quarter_turns=turns), input_signature=specs)
    for size in SIZES:
        images, coarse = random_images(*size), random_images(*((side + 1) // 2 for side in size), channels=4, seed=1)
        expected = layer(images, coarse=coarse, quarter_turns=turns)
        np.testing.assert_allclose(graph(images, coarse), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(2, 2), (2, 6), (8, 4), (6, 10)], ids=str)
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("turns", TURNS)
def test_shift_downsample_of_a_turned_image(turns, pooling, size):
    images = random_images(*size)
    outputs = layers.ShiftDownsample(pooling)(images, quarter_turns=turns)
    expected = turn_back(reference.shift_downsample(turn(images, turns), pooling), turns)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("turns, expected", [(0, [0, 2]), (1, [2, 4]), (2, [2, 4]), (3, [0, 2])], ids=str)
def test_shift_downsample_keeps_the_grid_of_the_image_where_a_side_is_odd(turns, expected):
    """Rows or columns 0…4: whatever the direction, the last one does not open a cell of its own."""
    axis = 1 if turns % 2 == 0 else 2
    ramp = np.moveaxis(np.zeros((1, 4, 5, 1), "float32") + np.arange(5, dtype="float32")[:, None], 2, axis)
    outputs = layers.ShiftDownsample()(ramp, quarter_turns=turns).numpy()
    np.testing.assert_array_equal(np.moveaxis(outputs, axis, 2)[0, 0, :, 0], expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_blind_spot_moves_each_branch_away_from_where_it_looks(size):
    """A move down by one row in the frame of the turned image: down, left, up and right in the image's own."""
    branches = [random_images(*size, seed=turns) for turns in TURNS]
    expected = []
    for turns, images in enumerate(branches):
        turned = turn(images, turns)
        shifted = np.zeros_like(turned)
        shifted[:, 1:] = turned[:, :-1]
        expected.append(turn_back(shifted, turns))
    np.testing.assert_array_equal(layers.BlindSpot()(branches), np.concatenate(expected, axis=-1))


@pytest.mark.parametrize("multiple", [1, 2, 8])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pad_and_crop(size, multiple):
    images = random_images(*size)
    padded = layers.PadToMultiple(multiple)(images).numpy()
    height, width = (-(-side // multiple) * multiple for side in size)
    assert padded.shape == (2, height, width, 2)
    np.testing.assert_array_equal(padded[:, : size[0], : size[1]], images)
    assert np.count_nonzero(padded) == np.count_nonzero(images)
    np.testing.assert_array_equal(layers.CropLike()((padded, images)), images)


# --- what Keras asks of a layer ------------------------------------------------------------------------------------


@every_layer
def test_unknown_sizes(name):
    """A graph with no known size, and a Keras model with unknown height and width, equal the eager result."""
    layer, inputs = make(name)
    expected = layer(inputs)
    specs = tf.nest.map_structure(lambda array: tf.TensorSpec([None, None, None, array.shape[-1]]), inputs)
    assert_same(tf.function(layer, input_signature=[specs])(inputs), expected, rtol=1e-6, atol=1e-6)
    symbols = tf.nest.map_structure(lambda array: keras.Input((None, None, array.shape[-1])), inputs)
    model = keras.Model(symbols, layer(symbols))
    assert all(side is None for tensor in tf.nest.flatten(model.outputs) for side in tensor.shape[:3])
    assert_same(model(inputs), expected, rtol=1e-6, atol=1e-6)


@every_layer
def test_compute_output_shape(name):
    layer, inputs = make(name)
    outputs = layer(inputs)
    shapes = layer.compute_output_shape([array.shape for array in inputs] if isinstance(inputs, list) else inputs.shape)
    if not isinstance(outputs, tuple):
        outputs, shapes = (outputs,), (shapes,)
    assert [tuple(output.shape) for output in outputs] == [tuple(shape) for shape in shapes]


@every_layer
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(name, policy):
    layer, inputs = make(name, dtype=policy)
    outputs = layer(inputs)
    assert {keras.backend.standardize_dtype(x.dtype) for x in tf.nest.flatten(outputs)} == {layer.compute_dtype}
    assert {keras.backend.standardize_dtype(x.dtype) for x in layer.weights} <= {"float32"}
    full, _ = make(name)
    full(inputs)
    full.set_weights(layer.get_weights())
    assert_same(outputs, full(inputs), rtol=0.02, atol=0.05)


@every_layer
def test_config_round_trip(name):
    layer, inputs = make(name, name="some_name", dtype="float32")
    outputs = layer(inputs)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    again(inputs)
    again.set_weights(layer.get_weights())
    assert_same(again(inputs), outputs, rtol=0.0)


@every_layer
def test_save_and_load(name, tmp_path):
    layer, inputs = make(name)
    symbols = tf.nest.map_structure(lambda array: keras.Input((None, None, array.shape[-1])), inputs)
    model = keras.Model(symbols, layer(symbols))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded(inputs), model(inputs), rtol=0.0)


def test_gradients_reach_kernel_and_bias():
    images, layer = random_images(5, 6), random_conv(3)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(images) ** 2)
    for gradient in tape.gradient(loss, layer.trainable_variables):
        assert np.abs(gradient.numpy()).min() > 0.0


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [0, -1, 2.5, "3", None], ids=repr)
def test_wrong_filters(filters):
    with pytest.raises(ValueError, match=r"`filters` must be a positive integer\. Received: filters="):
        layers.ShiftConv2D(filters, 3)


@pytest.mark.parametrize("kernel_size", [0, 2, -1, (3, 2), (4, 3)], ids=repr)
def test_even_kernel(kernel_size):
    with pytest.raises(ValueError, match="`kernel_size` must be odd and positive"):
        layers.ShiftConv2D(3, kernel_size)


@pytest.mark.parametrize("kernel_size", [(3,), (3, 3, 3), 3.0, "33", (3, 1.5), None], ids=repr)
def test_kernel_that_is_no_pair(kernel_size):
    with pytest.raises(ValueError, match="`kernel_size` must be an integer or two integers"):
        layers.ShiftConv2D(3, kernel_size)


@pytest.mark.parametrize("shapes", [[(None, None, None, None)], [(None, 4, 4, 2), (None, 2, 2, None)]], ids=str)
def test_unknown_channels(shapes):
    with pytest.raises(ValueError, match="number of input channels must be known"):
        layers.ShiftConv2D(3, 3).build(*shapes)


@pytest.mark.parametrize("layer", [layers.ShiftConv2D(3, 3), layers.ShiftDownsample()], ids=["conv", "downsample"])
def test_wrong_rank(layer):
    with pytest.raises(ValueError, match="expected ndim=4"):
        layer(np.zeros((5, 6, 2), "float32"))


def test_wrong_channels():
    layer = layers.ShiftConv2D(3, 3)
    layer(random_images(5, 6, channels=2))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 2"):
        layer(random_images(5, 6, channels=3))


@pytest.mark.parametrize("pooling", ["median", None, []], ids=repr)
def test_wrong_pooling(pooling):
    with pytest.raises(ValueError, match="`pooling` must be 'max' or 'average'"):
        layers.ShiftDownsample(pooling)


@pytest.mark.parametrize("multiple", [0, -2, 1.5], ids=repr)
def test_wrong_multiple(multiple):
    with pytest.raises(ValueError, match="`multiple` must be a positive integer"):
        layers.PadToMultiple(multiple)
