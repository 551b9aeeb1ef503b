"""Trainings that start from a trained model, or grow it."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_runs

from bsdenoise import presets, saved
from bsdenoise.training import preparation
from bsdenoise.training.loop import train
from bsdenoise.training.step import TrainingState

source, config, quick_export = training_runs.source, training_runs.full_config, training_runs.quick_export


def state_of(config):
    data, _ = preparation.open_data(config)
    return TrainingState(config, data, tf.distribute.get_strategy())


@pytest.fixture
def trained(config):
    """A run of a network of width 4 and depth 1."""
    train(config)
    return config.out


def outputs(denoiser):
    noisy = np.random.default_rng(0).random((1, 24, 20, 3), np.float32)
    return denoiser.network(noisy).numpy()


def test_it_starts_from_the_weights_of_a_model(trained, config):
    again = dataclasses.replace(
        config, out=config.out.with_name("again"), init=str(trained), noise="gaussian:10", width=48
    )
    state = state_of(again)
    expected = saved.load(trained)
    for weight, value in zip(state.denoiser.network.weights, expected.network.get_weights(), strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert state.denoiser.noise.low == pytest.approx(10 / 255)


def test_what_it_started_from_is_remembered(trained, config):
    again = dataclasses.replace(config, out=config.out.with_name("again"), init=str(trained), images=24)
    train(again)
    denoiser = saved.load(again.out)
    assert denoiser.provenance["started_from"] == saved.load(trained).provenance
    assert (
        presets.crops_seen(denoiser.provenance)
        == denoiser.provenance["crops"] + saved.load(trained).provenance["crops"]
    )
    assert str(trained) not in str(denoiser.provenance)


def test_it_grows(trained, config):
    wide = dataclasses.replace(config, out=config.out.with_name("wide"), init=str(trained), width=6, grow=True)
    state = state_of(wide)
    np.testing.assert_allclose(outputs(state.denoiser), outputs(saved.load(trained)), atol=1e-5)
    assert state.denoiser.network.get_layer("enc_conv0").filters == 6
    again = state_of(wide)  # the same seed gives the same new maps: workers of a cluster begin alike
    for weight, twin in zip(state.network.weights, again.network.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), twin.numpy())
    train(wide)
    assert saved.load(wide.out).provenance["started_from"]["crops"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 5}, "a model of width 4 cannot start a training of width 5"),
        ({"depth": 2}, "a model of depth 1 cannot start a training of depth 2"),
        ({"channels": 1}, "a model of channels 3 cannot start a training of channels 1"),
        ({"method": "l2"}, "a model of method full cannot start a training of method l2"),
        ({"factor": "precision"}, "a model of factor prior cannot start a training of factor precision"),
        ({"width": 3, "grow": True}, "--grow makes a blind-spot network wider. Received: --width 3 for one of width 4"),
        ({"init": "rgb-gaussian26"}, "rgb-gaussian26: no such model"),
        ({"init": None, "grow": True}, "there is no --init"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_refused(trained, config, change, message):
    with pytest.raises(ValueError, match=message):
        state_of(dataclasses.replace(config, **{"init": str(trained), **change}))


def test_a_network_of_ones_own_cannot_start_one(config, tmp_path, tiny_denoiser_path):
    denoiser = saved.load(tiny_denoiser_path(3))
    image = keras.Input((None, None, 3))
    body = keras.Model(image, keras.layers.Conv2D(9, 1)(image))
    type(denoiser)(body, denoiser.noise).save(tmp_path / "own.keras")
    with pytest.raises(ValueError, match="own.keras: its network is none that bsdenoise builds"):
        state_of(dataclasses.replace(config, init=str(tmp_path / "own.keras")))


def test_it_goes_on_with_muon_where_it_stopped(config, monkeypatch):
    """Its momentum is in the checkpoints."""
    config = dataclasses.replace(config, optimizer="muon", learning_rate=1e-2)
    whole = dataclasses.replace(config, out=config.out.with_name("whole"))
    train(whole)
    with monkeypatch.context() as interrupting:
        training_runs.stop_at(interrupting, 5)
        assert train(config).step == 5
    assert train(config).finished
    training_runs.assert_same_checkpoints(config, whole.out, config.out)
