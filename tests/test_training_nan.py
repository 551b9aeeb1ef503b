"""Steps whose loss or gradient is no number."""

import dataclasses
import json

import numpy as np
import pytest
import training_runs
from training_runs import log_lines

from bsdenoise.data.training_images import TrainingImages
from bsdenoise.training import preparation
from bsdenoise.training.distribution import join
from bsdenoise.training.loop import TrainingDivergedError, train
from bsdenoise.training.step import TrainingState

source, full_config, quick_export = training_runs.source, training_runs.full_config, training_runs.quick_export
config = training_runs.quick_config


@pytest.fixture
def stack(config, tmp_path):
    """A run on a stack of ordinary numbers, but for single pixels that make the loss of a crop infinite."""
    images = np.random.default_rng(0).normal(size=(8, 40, 44, 3)).astype("float32")
    images[[2, 5, 7], 20, 22] = 1e30  # too few pixels to count when the range of intensities is fitted
    np.save(tmp_path / "stack.npy", images)
    return dataclasses.replace(config, source=str(tmp_path / "stack.npy"), noise="gaussian:0.5", images=96, log_every=1)


def bad_steps(config, data):
    """Steps whose batch holds one of those pixels."""
    steps = []
    for step in range(config.steps):
        examples = [data.example(step * config.batch + place)[0] for place in range(config.batch)]
        if np.abs(examples).max() > 1e20:
            steps.append(step + 1)
    return steps


def test_skipped_and_counted(stack, capsys):
    data, _ = preparation.open_data(stack)
    bad = bad_steps(stack, data)
    assert 2 < len(bad) < stack.steps - 2
    with np.errstate(over="ignore"):
        outcome = train(dataclasses.replace(stack, on_nan="skip", log_every=4, validation_images=1))
    assert outcome.finished and outcome.step == stack.steps
    lines = log_lines(stack.out, "train")
    assert [line["skipped"] for line in lines] == [sum(step <= line["step"] for step in bad) for line in lines]
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert "loss or gradient was not finite" in capsys.readouterr().out
    assert json.loads((stack.out / "summary.json").read_text())["skipped_steps"] == len(bad)


def test_a_skipped_step_is_no_end_where_every_step_is_logged(stack):
    data, _ = preparation.open_data(stack)
    bad = bad_steps(stack, data)
    train(dataclasses.replace(stack, on_nan="skip", validation_images=1))
    assert [line["step"] for line in log_lines(stack.out, "train")] == sorted({*range(1, stack.steps + 1)} - {*bad})
    assert log_lines(stack.out, "train")[-1]["skipped"] == sum(
        step < log_lines(stack.out, "train")[-1]["step"] for step in bad
    )


def test_a_skipped_step_changes_nothing_but_the_counts(stack):
    data, _ = preparation.open_data(stack)
    first_bad = bad_steps(stack, data)[0]
    state = TrainingState(stack, data, join().strategy)
    batches = iter(data.batches(stack.batch, 0, stack.steps))
    for step in range(1, first_bad + 1):
        before = [weight.numpy() for weight in (*state.network.weights, *state.denoiser.network.weights)]
        moments = [variable.numpy() for variable in state.optimizer.variables[2:]]
        state.train_on(*next(batches))
        after = [weight.numpy() for weight in (*state.network.weights, *state.denoiser.network.weights)]
        is_same = all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
        assert is_same == (step == first_bad)
    for one, other in zip(moments, state.optimizer.variables[2:], strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    assert (state.step, state.num_skipped) == (first_bad, 1)
    assert float(state.loss_count) == first_bad - 1 and np.isfinite(state.take_loss())


def test_stops_at_the_next_line_of_the_log_and_keeps_good_weights(stack):
    data, _ = preparation.open_data(stack)
    first_bad = bad_steps(stack, data)[0]
    with pytest.raises(TrainingDivergedError, match=f"not a finite number at step {first_bad}.*--on-nan skip"):
        train(stack)


def test_a_gradient_alone_that_is_no_number(config, monkeypatch):
    """The loss is finite: what it depends on is not differentiable there."""
    import tensorflow as tf

    data, _ = preparation.open_data(config)
    state = TrainingState(config, data, join().strategy)
    original = state._loss_and_gradients

    def broken(shown, target):
        loss, shares = original(shown, target)
        return loss, [shares[0] * tf.constant(float("nan")), *shares[1:]]

    state._loss_and_gradients = broken
    before = [weight.numpy() for weight in state.network.weights]
    state.train_on(*next(iter(data.batches(4, 0, 1))))
    assert (state.step, state.num_skipped) == (1, 1)
    for one, other in zip(before, state.network.weights, strict=True):
        np.testing.assert_array_equal(one, other.numpy())


def test_nothing_but_skipped_steps_ends_the_training(config, monkeypatch):
    original = TrainingImages.example

    def example(self, number):
        shown, target = original(self, number)
        return (shown, target) if number < 16 else (np.full_like(shown, np.inf), target)

    monkeypatch.setattr(TrainingImages, "example", example)
    monkeypatch.setattr("bsdenoise.training.loop.MOST_SKIPPED_IN_A_ROW", 2)
    with pytest.raises(TrainingDivergedError, match="not a finite number at step 6"):
        train(dataclasses.replace(config, on_nan="skip"))
