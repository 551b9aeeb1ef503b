"""Trainings that start from a trained model, or grow it."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_runs

from bsdenoise import blind_spot_network, loading, presets
from bsdenoise.training import loop, preparation, starting_point
from bsdenoise.training.loop import train
from bsdenoise.training.step import TrainingState
from bsdenoise.training.validation import Validation

source, config, quick_export = training_runs.source, training_runs.full_config, training_runs.quick_export


def state_of(config):
    data, _ = preparation.open_data(config)
    return TrainingState(config, data, tf.distribute.get_strategy())


@pytest.fixture(scope="module")
def first_run(source, tmp_path_factory):
    """A run of a network of width 4 and depth 1."""
    out = tmp_path_factory.mktemp("first") / "run"
    with pytest.MonkeyPatch.context() as patch:
        training_runs.replace_export(patch)
        train(training_runs.small_config(source, out))
    return out


@pytest.fixture
def trained(first_run, config):
    """A copy of it, where a test of its own may change it."""
    return shutil.copytree(first_run, config.out)


def outputs(denoiser):
    noisy = np.random.default_rng(0).random((1, 24, 20, 3), np.float32)
    return denoiser.network(noisy).numpy()


def test_it_starts_from_the_weights_of_a_model(trained, config):
    again = dataclasses.replace(
        config, out=config.out.with_name("again"), init=str(trained), noise="gaussian:10", width=None, depth=None
    )
    state = state_of(again)
    expected = loading.load(trained)
    for weight, value in zip(state.denoiser.network.weights, expected.network.get_weights(), strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert state.denoiser.noise.low == pytest.approx(10 / 255)


def test_what_it_started_from_is_remembered(trained, config):
    again = dataclasses.replace(config, out=config.out.with_name("again"), init=str(trained), images=24)
    train(again)
    denoiser = loading.load(again.out)
    assert denoiser.provenance["started_from"] == loading.load(trained).provenance
    crops = [one.provenance["crops"] for one in (denoiser, loading.load(trained))]
    assert presets.pixels_seen(denoiser.provenance) == sum(crops) * config.crop**2
    assert str(trained) not in str(denoiser.provenance)


def test_it_grows(trained, config):
    wide = dataclasses.replace(config, out=config.out.with_name("wide"), init=str(trained), width=6, grow=True)
    state = state_of(wide)
    np.testing.assert_allclose(outputs(state.denoiser), outputs(loading.load(trained)), atol=1e-5)
    assert state.denoiser.network.get_layer("enc_conv0").filters == 6
    again = state_of(wide)  # the same seed gives the same new maps: workers of a cluster begin alike
    for weight, twin in zip(state.network.weights, again.network.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), twin.numpy())
    train(wide)
    assert loading.load(wide.out).provenance["started_from"]["crops"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 5}, "a model of width 4 cannot start a training of width 5"),
        ({"depth": 2}, "a model of depth 1 cannot start a training of depth 2"),
        ({"channels": 1}, "a model of channels 3 cannot start a training of channels 1"),
        ({"method": "l2"}, "a model of method full cannot start a training of method l2"),
        ({"factor": "precision"}, "a model of factor prior cannot start a training of factor precision"),
        ({"width": 4, "grow": True}, "--grow makes a blind-spot network wider. Received: --width 4 for one of width 4"),
        ({"width": None, "grow": True}, "--grow makes .* wider. Received: --width None for one of width 4"),
        ({"init": "rgb-gaussian26"}, "rgb-gaussian26: no such model"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_refused(trained, config, change, message):
    with pytest.raises(ValueError, match=message):
        state_of(dataclasses.replace(config, **{"init": str(trained), **change}))


def test_mistakes_are_found_before_anything_is_made(config):
    with pytest.raises(ValueError, match="there is no --init"):
        train(dataclasses.replace(config, grow=True))
    with pytest.raises(ValueError, match="rgb-gaussian26: no such model"):
        train(dataclasses.replace(config, init="rgb-gaussian26", source="missing"))
    assert not config.out.exists()


def test_a_plain_network_starts_one_and_does_not_grow(config):
    plain = dataclasses.replace(config, method="n2c", images=8)
    train(plain)
    again = dataclasses.replace(plain, out=config.out.with_name("again"), init=str(plain.out), optimizer="muon")
    np.testing.assert_array_equal(outputs(state_of(again).denoiser), outputs(loading.load(plain.out)))
    assert train(again).finished
    with pytest.raises(ValueError, match="--grow makes a blind-spot network wider. .* method n2c"):
        state_of(dataclasses.replace(again, width=6, grow=True))


def test_what_is_kept_is_never_worse_than_what_it_began_with(trained, config, monkeypatch):
    """Here every validation is said to be worse than the one before."""
    measure, errors = Validation.__call__, []

    def worse(self):
        errors.append(float(len(errors)))
        result = measure(self)
        return dataclasses.replace(result, error=errors[-1], values=result.values | {self.score: -errors[-1]})

    monkeypatch.setattr(Validation, "__call__", worse)
    again = dataclasses.replace(config, out=config.out.with_name("again"), init=str(trained), images=24)
    assert train(again).score == 0.0
    assert len(errors) == 2
    kept = loading.load(again.out)
    np.testing.assert_array_equal(outputs(kept), outputs(loading.load(trained)))
    assert kept.provenance["crops"] == 0
    assert [line["step"] for line in training_runs.log_lines(again.out, "validation")] == [0, 6]


@pytest.mark.parametrize("grow", [False, True], ids=["as it is", "grown"])
def test_it_goes_on_without_the_model_that_it_began_with(trained, config, monkeypatch, grow):
    again = dataclasses.replace(
        config, out=config.out.with_name("again"), init=str(trained), images=24, grow=grow, width=6 if grow else None
    )
    with monkeypatch.context() as interrupting:
        training_runs.stop_at(interrupting, 2)
        assert train(again).step == 2
    before = loading.load(trained).provenance
    (trained / loading.MODEL_NAME).unlink()
    assert train(again).finished
    assert loading.load(again.out).provenance["started_from"] == before


def test_workers_must_start_from_the_same(trained, config):
    """What they compare tells models apart that have the same name."""
    again = dataclasses.replace(config, init=str(trained))
    data, _ = preparation.open_data(again)
    one = loop._agreed(again, {}, starting_point.load(again, data))
    denoiser = loading.load(trained)
    denoiser.network.set_weights([weight + 1e-3 for weight in denoiser.network.get_weights()])
    denoiser.save(trained / loading.MODEL_NAME)
    other = loop._agreed(again, {}, starting_point.load(again, data))
    assert {name for name in one if one[name] != other[name]} == {"the model of --init"}


def test_a_network_of_ones_own_cannot_start_one(config, tmp_path, tiny_denoiser_path):
    denoiser = loading.load(tiny_denoiser_path(3))
    image = keras.Input((None, None, 3))
    body = keras.Model(image, keras.layers.Conv2D(9, 1)(image))
    averaging = blind_spot_network(width=4, depth=1, pooling="average")
    for network in (body, averaging):
        type(denoiser)(network, denoiser.noise).save(tmp_path / "own.keras")
        with pytest.raises(ValueError, match="own.keras: its network is none that bsdenoise train builds"):
            state_of(dataclasses.replace(config, init=str(tmp_path / "own.keras")))


def test_it_goes_on_with_muon_where_it_stopped(config, monkeypatch):
    """Its momentum is in the checkpoints."""
    config = dataclasses.replace(config, method="n2c", optimizer="muon", learning_rate=1e-2)
    whole = dataclasses.replace(config, out=config.out.with_name("whole"))
    train(whole)
    with monkeypatch.context() as interrupting:
        training_runs.stop_at(interrupting, 5)
        assert train(config).step == 5
    assert train(config).finished
    training_runs.assert_same_checkpoints(whole.out, config.out)
