"""Tests of loss and gradients in parts of the batch and with branches that are computed again."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_runs
from training_runs import logged_losses, stop_at

from bsdenoise import GaussianNoise, methods
from bsdenoise.training import gradients, preparation
from bsdenoise.training.loop import train
from bsdenoise.training.step import TrainingState

source, config, quick_export = training_runs.source, training_runs.full_config, training_runs.quick_export

NOISE = GaussianNoise(0.1, 0.1)
SAVING = [(2, False), (None, True), (2, True)]
SAVING_IDS = ["two by two", "recomputed", "recomputed two by two"]


def _batch(method, crops=5, side=13):
    rng = np.random.default_rng(0)
    shown = rng.uniform(size=(crops, side, side + 2, 3)).astype("float32")
    extra = np.full((*shown.shape[:3], 1), 0.1, "float32")
    return shown, np.concatenate([shown, extra], axis=-1) if method.num_extra(NOISE) else shown


def _network(method, policy="float32"):
    keras.utils.set_random_seed(1)
    network = method.network(3, 4, 1, dtype=policy)
    for weight in network.weights:  # a bias of zero would hide what it does
        weight.assign_add(0.01 * tf.random.stateless_normal(weight.shape, (0, 1)))
    return network


def _assert_close(results, expected, tolerance):
    """Compares losses, and each gradient by the size of the expected one."""
    assert float(results[0]) == pytest.approx(float(expected[0]), rel=tolerance, abs=tolerance)
    assert len(results[1]) == len(expected[1])
    for one, other in zip(results[1], expected[1], strict=True):
        size = float(tf.norm(other))
        assert size > 0 and float(tf.norm(one - other)) < tolerance * size


@pytest.mark.parametrize(("micro_batch", "recompute"), SAVING, ids=SAVING_IDS)
@pytest.mark.parametrize("name", ["full", "l2", "n2v"])
def test_the_same_with_less_memory(name, micro_batch, recompute):
    """Against Keras' own loss and one gradient of everything; five crops, so that the last part is a smaller one."""
    method = methods.get(name)
    network, loss = _network(method), method.loss(3, "prior", NOISE)
    shown, target = _batch(method)
    if recompute and name == "n2v":
        with pytest.raises(
            ValueError, match="--recompute is for networks with branches.*'unet' has none. --micro-batch"
        ):
            gradients.make(network, loss, 5, micro_batch, recompute)
        return
    with tf.GradientTape() as tape:
        expected = loss(target, network(shown, training=True))  # the mean over crops and pixels
    expected = expected, tape.gradient(expected, network.trainable_variables)
    function = tf.function(gradients.make(network, loss, 5, micro_batch, recompute))
    _assert_close(function(shown, target), expected, 2e-6)


def test_shares_of_devices_add_up():
    method = methods.get("full")
    network, (shown, target) = _network(method), _batch(method)
    whole = gradients.make(network, method.loss(3, "prior", NOISE), 5)(shown, target)
    function = gradients.make(network, method.loss(3, "prior", NOISE), 5, micro_batch=2)
    (one, of_one), (two, of_two) = (function(shown[part], target[part]) for part in (slice(3), slice(3, 5)))
    _assert_close((one + two, [a + b for a, b in zip(of_one, of_two, strict=True)]), whole, 2e-6)
    nothing, of_nothing = function(shown[:0], target[:0])  # the part of a device that a small batch leaves idle
    assert float(nothing) == 0 and not any(np.any(gradient) for gradient in of_nothing)


def test_recomputed_bfloat16_is_the_same():
    """Branches are computed again by the very same operations: gradients agree far better than bfloat16 rounds."""
    method = methods.get("full")
    network, (shown, target) = _network(method, "mixed_bfloat16"), _batch(method)
    kept, again = (
        gradients.make(network, method.loss(3, "prior", NOISE), 5, 2, recompute) for recompute in (False, True)
    )
    expected = kept(shown, target)
    assert all(gradient.dtype == tf.float32 for gradient in expected[1])
    _assert_close(again(shown, target), expected, 1e-5)


def test_bfloat16_in_parts_is_as_near_to_float32():
    method = methods.get("full")
    (shown, target), found = _batch(method), {}
    for policy, size in (("float32", None), ("mixed_bfloat16", None), ("mixed_bfloat16", 2)):
        function = tf.function(gradients.make(_network(method, policy), method.loss(3, "prior", NOISE), 5, size))
        found[policy, size] = np.concatenate([gradient.numpy().ravel() for gradient in function(shown, target)[1]])
    exact, whole, parts = found.values()
    rounding = np.linalg.norm(whole - exact)
    assert 0 < rounding < 0.1 * np.linalg.norm(exact)
    assert 0 < np.linalg.norm(parts - exact) < 1.5 * rounding


@pytest.mark.slow
@pytest.mark.graph
def test_the_same_compiled_by_xla():
    method = methods.get("l2")
    network, (shown, target) = _network(method), _batch(method, crops=3, side=6)
    expected = gradients.make(network, method.loss(3, "prior", NOISE), 3)(shown, target)
    function = tf.function(gradients.make(network, method.loss(3, "prior", NOISE), 3, 2, recompute=True, xla=True))
    _assert_close(function(shown, target), expected, 5e-6)


def test_branches_are_computed_again_one_after_the_other():
    """Each branch twice; and the graph has no path on which two of them run side by side."""
    method = methods.get("l2")
    network, (shown, target) = _network(method), _batch(method)
    layer, calls = network.get_layer("enc_conv0"), []
    original = layer.call
    layer.call = lambda *args, **options: calls.append(options["quarter_turns"]) or original(*args, **options)
    graph = tf.function(gradients.make(network, method.loss(3, "prior", NOISE), 5, recompute=True))
    graph = graph.get_concrete_function(shown, target).graph
    assert calls == [0, 1, 2, 3] * 2
    images = [operation.name for operation in graph.get_operations() if operation.type == "Placeholder"]
    starts = [
        operation
        for operation in graph.get_operations()
        if operation.control_inputs and any(tensor.op.name in images for tensor in operation.inputs)
    ]
    assert len(starts) == 7  # all but the first wait for something before them
    for earlier, later in zip(starts, starts[1:], strict=False):
        assert earlier.name in _before(later)


def _before(operation):
    """Names all operations that have to be done before one."""
    found, waiting = set(), [operation]
    while waiting:
        current = waiting.pop()
        for one in [*current.control_inputs, *(tensor.op for tensor in current.inputs)]:
            if one.name not in found:
                found.add(one.name)
                waiting.append(one)
    return found


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_less_memory(config, monkeypatch, tmp_path):
    config = dataclasses.replace(config, images=24, method="l2")
    straight = dataclasses.replace(config, out=tmp_path / "straight")
    train(straight)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert train(config).step == 3
    assert train(dataclasses.replace(config, micro_batch=3, recompute=True)).finished
    one, two = logged_losses(config.out), logged_losses(straight.out)
    assert [step for step, _ in one] == [step for step, _ in two] == [2, 4, 6]
    np.testing.assert_allclose([loss for _, loss in one], [loss for _, loss in two], rtol=1e-4)


@pytest.mark.parametrize(("micro_batch", "parts"), [(2, 2), (4, 1)], ids=str)
def test_parts_no_smaller_than_the_batch_are_the_batch(config, micro_batch, parts):
    data, _ = preparation.open_data(config)
    state = TrainingState(dataclasses.replace(config, micro_batch=micro_batch), data, tf.distribute.get_strategy())
    shown, target = next(iter(data.batches(4, 0, 1)))
    graph = state.train_on.get_concrete_function(shown, target).graph
    loops = [operation for operation in graph.get_operations() if operation.type in ("While", "StatelessWhile")]
    assert len(loops) == (parts > 1)
    assert all(loop.get_attr("parallel_iterations") == 1 for loop in loops)
