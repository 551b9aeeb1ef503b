"""The optimizers: Muon's steps on kernels against a slow twin, and what it leaves to Adam."""

import keras
import numpy as np
import pytest
from keras import ops

from bsdenoise import blind_spot_network
from bsdenoise.methods.optimizers import ConvMuon, make

RATE = 0.01


def newton_schulz(matrix, steps=5):
    """Muon's polynomial on the singular values, by an SVD in double precision."""
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    values = values / np.linalg.norm(matrix)
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ np.diag(values) @ right


def variable(shape, path):
    with keras.name_scope(path):
        return keras.Variable(np.random.default_rng(1).standard_normal(shape, np.float32), name="kernel")


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (1, 1, 12, 3), (3, 3, 1, 12)], ids=str)
def test_kernels_take_orthogonal_steps(shape):
    kernel = variable(shape, "enc_conv1")
    optimizer = make("muon", RATE, 0.99)
    optimizer.build([kernel])
    rng = np.random.default_rng(0)
    expected, momentum = ops.convert_to_numpy(kernel), np.zeros(shape)
    for _ in range(3):
        gradient = rng.standard_normal(shape).astype(np.float32)
        optimizer.apply([ops.convert_to_tensor(gradient)])
        momentum = 0.95 * momentum + 0.05 * gradient
        matrix = (0.05 * gradient + 0.95 * momentum).reshape(-1, shape[-1])
        step = 0.2 * np.sqrt(max(matrix.shape)) * newton_schulz(matrix)
        expected = expected - RATE * step.reshape(shape)
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), expected, atol=1e-5)


def test_first_and_last_layer_and_biases_are_left_to_adam():
    network = blind_spot_network(channels=1, width=4, depth=1)
    muon = make("muon", RATE, 0.9)
    muon.build(network.trainable_variables)
    adam = make("adam", RATE, 0.9)
    twins = [keras.Variable(value.numpy()) for value in network.trainable_variables]
    adam.build(twins)
    rng = np.random.default_rng(0)
    for _ in range(2):
        gradients = [ops.convert_to_tensor(rng.standard_normal(twin.shape).astype(np.float32)) for twin in twins]
        muon.apply(gradients)
        adam.apply(gradients)
    alike = {
        weight.path
        for weight, twin in zip(network.trainable_variables, twins, strict=True)
        if np.allclose(weight.numpy(), twin.numpy(), atol=1e-6)
    }
    paths = {weight.path for weight in network.trainable_variables}
    biases = {path for path in paths if path.endswith("bias")}
    assert alike == biases | {"enc_conv0/kernel", "outputs/kernel"}
    assert len(paths) > len(alike)


def test_it_can_be_saved():
    optimizer = make("muon", RATE, 0.9)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert isinstance(again, ConvMuon)
    assert again.get_config() == optimizer.get_config()


def test_there_are_two():
    assert isinstance(make("adam", RATE, 0.99), keras.optimizers.Adam)
    with pytest.raises(ValueError, match="'adam' or 'muon'. Received: name='sgd'"):
        make("sgd", RATE, 0.99)
