"""What the tests of training share: photographs, a small run, and a look at what it left."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bsdenoise.config import TrainConfig
from bsdenoise.training.loop import train
from bsdenoise.training.step import TrainingState


def smooth(height, width, seed):
    """A smooth colour image with an edge, uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / 20.0
    waves = [np.sin(rows * rng.uniform() + columns * rng.uniform() + rng.uniform(0, 6)) for _ in range(3)]
    image = 128 + 60 * np.stack(waves, axis=-1)
    image[: height // 2] *= 0.6
    return image.astype("uint8")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    for number in range(6):
        Image.fromarray(smooth(48 + number, 40, number)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def finished_run(source, tmp_path_factory):
    """A whole run of `quick_config` that tests look at, compare with, or take a copy of."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        replace_export(patch)
        train(dataclasses.replace(small_config(source, out), method="n2c"))
    return out


@pytest.fixture
def full_config(source, tmp_path):
    return small_config(source, tmp_path / "run")


def small_config(source, out):
    """A run of a few steps of the smallest network."""
    return TrainConfig(
        source=str(source),
        out=out,
        noise="gaussian:25",
        corrupt="fresh",
        width=4,
        depth=1,
        crop=16,
        batch=4,
        images=48,
        learning_rate=3e-3,
        validate_every=6,
        log_every=2,
        ema=0.9,
    )


@pytest.fixture
def quick_config(full_config):
    """The network that is traced fastest: for tests of the loop, which is the same for all methods."""
    return dataclasses.replace(full_config, method="n2c")


@pytest.fixture(autouse=True)
def quick_export(request, monkeypatch):
    """What an export leaves, without the seconds that it takes; tests of the whole take the real one."""
    if "real_export" not in request.keywords:
        replace_export(monkeypatch)


def replace_export(monkeypatch):
    """Has trainings leave something that looks like an export."""

    def export(denoiser, folder):
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
        (folder / "serving.json").write_text(json.dumps({"training": denoiser.provenance}))

    monkeypatch.setattr("bsdenoise.training.loop.export_saved_model", export)


def log_lines(folder, kind):
    lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def logged_losses(folder):
    return [(line["step"], line["loss"]) for line in log_lines(folder, "train")]


def checkpointed(folder):
    """Gives all numbers of the newest checkpoint, by name."""
    path = tf.train.latest_checkpoint(str(Path(folder) / "checkpoints"))
    names = [name for name, _ in tf.train.list_variables(path) if not name.startswith("save_counter")]
    return {name: tf.train.load_variable(path, name) for name in names if "OBJECT_GRAPH" not in name}


def assert_same_checkpoints(one, two):
    left, right = checkpointed(one), checkpointed(two)
    assert left.keys() == right.keys() and len(left) > 50
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """Sends the process a signal during the given step of the next run."""
    original = TrainingState.train_on
    calls = []

    def train_on(self, shown, target, stop=False):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), number)
        return original(self, shown, target)

    monkeypatch.setattr(TrainingState, "train_on", train_on)
