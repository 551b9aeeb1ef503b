"""Tests of the training step: loss, averaged weights, learning rate, several devices, and nothing done in vain."""

import dataclasses
import subprocess
import sys
import textwrap
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_runs

from bsdenoise.training import loop, preparation, selection
from bsdenoise.training.loop import train
from bsdenoise.training.schedule import RampUpDown
from bsdenoise.training.step import TrainingState
from bsdenoise.training.validation import Validation

source, config, quick_export = training_runs.source, training_runs.full_config, training_runs.quick_export


def test_logged_loss_is_the_mean_since_the_last_line(config):
    config = dataclasses.replace(config, method="n2c")
    data, _ = preparation.open_data(config)
    states = [TrainingState(config, data, tf.distribute.get_strategy()) for _ in range(2)]
    single = []
    for shown, target in data.batches(4, 0, 5):
        for state in states:
            state.train_on(shown, target)
        single.append(states[0].take_loss())
        if len(single) == 2:
            assert states[1].take_loss() == pytest.approx(np.mean(single), rel=1e-5)
    assert states[1].take_loss() == pytest.approx(np.mean(single[2:]), rel=1e-5)


def test_average_follows_the_weights(config):
    """The moving average equals a NumPy twin over the steps."""
    config = dataclasses.replace(config, method="n2c")
    data, _ = preparation.open_data(config)
    state = TrainingState(config, data, tf.distribute.get_strategy())
    expected = [weight.numpy() for weight in state.network.weights]
    for done, (shown, target) in enumerate(data.batches(4, 0, 4), start=1):
        state.train_on(shown, target)
        decay = min(0.9, (1 + done) / (10 + done))
        expected = [decay * a + (1 - decay) * w.numpy() for a, w in zip(expected, state.network.weights, strict=True)]
    for average, twin in zip(state.denoiser.network.weights, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), twin, atol=1e-6)
    assert any(
        np.any(average.numpy() != weight.numpy())
        for average, weight in zip(state.denoiser.network.weights, state.network.weights, strict=True)
    )


@pytest.mark.graph
def test_two_devices_train_as_one(config, tmp_path):
    """Loss and weights on two logical CPU devices equal those on one, to rounding, for an odd batch.

    The two go through their crops one by one and compute branches twice, where the one device computes all at once;
    but those of Muon, which is tried on a network without branches.
    """
    script = """
        import dataclasses, pathlib, sys, numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        from bsdenoise.config import TrainConfig
        from bsdenoise.training import distribution, loop, preparation
        from bsdenoise.training.step import TrainingState
        config = TrainConfig(source=sys.argv[1], out=None, noise="gaussian:5-50", corrupt="fresh", width=2, depth=1,
                             crop=16, batch=3, images=15, learning_rate=1e-3, ramp_up=0.0)
        results = {}
        saved = {"micro_batch": 1, "recompute": True}
        plain = {"method": "n2c", "width": 4, "optimizer": "muon"}
        one, two = (distribution.join(kind) for kind in ("one", "auto"))
        for optimizer, place, flags in (
            ("adam", one, {}), ("muon", one, plain), ("adam", two, saved), ("muon", two, plain)
        ):
            flagged = dataclasses.replace(config, **flags)
            data, _ = preparation.open_data(flagged)
            state = TrainingState(flagged, data, place.strategy)
            before = state.network.get_weights()
            losses = []
            for shown, target in place.strategy.experimental_distribute_dataset(data.batches(3, 0, 5)):
                state.train_on(shown, target)
                losses.append(state.take_loss())
            found = losses, state.network.get_weights(), state.denoiser.network.get_weights()
            results.setdefault(optimizer, []).append(found)
            assert max(np.abs(a - b).max() for a, b in zip(before, state.network.get_weights())) > 1e-3
        assert place.strategy.num_replicas_in_sync == 2, place
        assert (str(place), place.workers, place.is_chief) == ("2 CPUs", 1, True)
        for optimizer, tolerance in (("adam", 2e-5), ("muon", 1e-4)):
            alone, together = results[optimizer]
            np.testing.assert_allclose(alone[0], together[0], rtol=1e-5, atol=2e-5)
            for index in (1, 2):
                for one, two in zip(alone[index], together[index], strict=True):
                    np.testing.assert_allclose(one, two, atol=tolerance)
        # The whole loop.
        config = dataclasses.replace(config, batch=4, images=8, out=pathlib.Path(sys.argv[2]))
        loop._export = lambda folder: None
        assert loop.train(config).step == 2
        # Another network in the same process: gradients of other shapes; and it goes on from a checkpoint.
        other = dataclasses.replace(config, method="n2c", width=6, out=config.out.with_name("other"))
        assert loop.train(other).step == 2
        outcome = loop.train(dataclasses.replace(other, images=16))
        assert (outcome.step, str(outcome.place), outcome.summary["this_call"]["from_step"]) == (4, "2 CPUs", 2)
        print("equal")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), config.source, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip().endswith("equal"), result.stderr[-2000:]


def test_schedule_equals_the_formula():
    schedule = RampUpDown(2.0, 1000, ramp_up=0.1, ramp_down=0.3)
    for step in (0, 50, 99, 100, 500, 699, 700, 850, 999):
        t = (step + 0.5) / 1000
        expected = 2.0
        if t < 0.1:
            expected *= 0.5 - 0.5 * np.cos(np.pi * t / 0.1)
        if t > 0.7:
            expected *= (0.5 + 0.5 * np.cos(np.pi * (t - 0.7) / 0.3)) ** 2
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == schedule.get_config()
    assert float(RampUpDown(2.0, 10, 0.0, 0.0)(0)) == 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 10), "learning_rate"),
        ((1.0, 0), "steps"),
        ((1.0, 10, -0.1), "fractions"),
        ((1.0, 10, 0.5, 0.6), "most 1"),
    ],
    ids=["rate", "steps", "negative", "too long"],
)
def test_schedule_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        RampUpDown(*arguments)


@pytest.mark.graph
def test_nothing_is_traced_twice(config, monkeypatch):
    """Step and validation are each made into a graph once, in a run of many steps, validations and image sizes."""
    steps, states = [], []
    original = TrainingState._replica_gradients

    def replica_gradients(self, shown, target, stop):
        steps.append(shown.shape)
        states.append(self)
        return original(self, shown, target, stop)

    validations = []
    measured = Validation.__call__
    monkeypatch.setattr(TrainingState, "_replica_gradients", replica_gradients)
    monkeypatch.setattr(Validation, "__call__", lambda self: validations.append(self) or measured(self))
    train(dataclasses.replace(config, images=32, validate_every=2, validation_images=3, validation_crop=99))
    assert steps == [(4, 16, 16, 3)]
    assert states[0].step == 8 and states[0].train_on.experimental_get_tracing_count() == 1
    (validation,) = set(validations)
    assert len(validations) == 4
    assert validation._loss_and_moments.experimental_get_tracing_count() == 1


@pytest.mark.graph
def test_the_device_is_waited_for_when_a_line_is_logged_only(config, monkeypatch):
    """Numbers come from the device after steps 4 and 8, where the log is written, and at the end; never in between."""
    config = dataclasses.replace(config, method="n2c")
    fetched, step = [], [0]
    tensor_class = next(kind for kind in type(tf.constant(0.0)).__mro__ if "_numpy" in vars(kind))
    original, train_on = tensor_class._numpy, TrainingState.train_on

    def to_numpy(self):
        if threading.current_thread() is threading.main_thread():
            fetched.append(step[0])
        return original(self)

    def counted(self, *arguments):
        step[0] += 1
        return train_on.__get__(self, TrainingState)(*arguments)

    monkeypatch.setattr(TrainingState, "train_on", counted)
    monkeypatch.setattr(selection.Selection, "validate", lambda self, step, require: None)
    monkeypatch.setattr(loop._Loop, "_checkpoint", lambda self, step: None)
    monkeypatch.setattr(loop, "_export", lambda folder: None)
    monkeypatch.setattr(tensor_class, "_numpy", to_numpy)
    train(dataclasses.replace(config, images=40, log_every=4))
    assert set(fetched) == {0, 4, 8, 10}
