"""Tests of the training loop: what it computes, what it writes, how it stops and goes on."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_runs
from PIL import Image
from training_runs import assert_same_checkpoints, checkpointed, log_lines, logged_losses, smooth, stop_at

from bsdenoise.training import loop
from bsdenoise.training.loop import TrainingDivergedError, train
from bsdenoise.training.run_folder import RunFolder
from bsdenoise.training.step import TrainingState

source, full_config, quick_export = training_runs.source, training_runs.full_config, training_runs.quick_export
config, finished_run = training_runs.quick_config, training_runs.finished_run


@pytest.fixture
def finished(finished_run, config):
    """A run of `config` that is finished already."""
    shutil.copytree(finished_run, config.out)
    return config


@pytest.mark.slow
@pytest.mark.real_export
@pytest.mark.graph
def test_run_folder_is_complete_and_the_model_denoises(config, source):
    config = dataclasses.replace(config, method="full", images=600, crop=24, validate_every=75, learning_rate=5e-3)
    outcome = train(config)
    assert outcome.finished and outcome.signal is None and outcome.step == 150
    assert sorted(path.name for path in config.out.iterdir()) == [
        "checkpoints", "config.json", "denoiser.keras", "export", "log.jsonl", "samples", "summary.json", "tensorboard",
    ]  # fmt: skip
    assert (config.out / "export" / "1" / "saved_model.pb").exists()
    assert len(list((config.out / "samples").glob("*.png"))) == 2
    assert list((config.out / "tensorboard").glob("events*"))
    written = json.loads((config.out / "config.json").read_text())
    assert written["config"]["noise"] == "gaussian:25" and written["facts"]["num_held_out"] == 1
    losses = logged_losses(config.out)
    assert losses[-1][1] < losses[0][1] - 1
    validation = log_lines(config.out, "validation")
    assert validation[-1]["psnr"] > validation[-1]["psnr_mean"]
    assert validation[-1]["sure_psnr"] == pytest.approx(validation[-1]["psnr"], abs=0.7)
    best = min(validation, key=lambda line: line["error"])
    assert outcome.score == best["sure_psnr"] == pytest.approx(-10 * np.log10(best["error"]), abs=1e-6)
    clean = smooth(50, 61, 99) / np.float32(255)
    noisy = clean + np.random.default_rng(1).normal(0, 25 / 255, clean.shape).astype("float32")
    denoiser = keras.models.load_model(outcome.denoiser_path)
    assert {weight.dtype for weight in denoiser.weights} == {"float32"}
    told = json.loads((config.out / "export" / "1" / "serving.json").read_text())["training"]
    assert told == denoiser.provenance
    assert told["crops"] == 4 * best["step"] and told["sure_psnr"] == pytest.approx(best["sure_psnr"], abs=1e-3)
    assert told["images"] == written["facts"]["num_images"] - 1
    assert (told["source"], told["noise"], told["corrupt"]) == (None, "gaussian:25", config.corrupt)
    assert str(source) not in json.dumps(told)
    assert np.mean((denoiser.denoise(noisy) - clean) ** 2) < 0.8 * np.mean((noisy - clean) ** 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_interrupted_run_goes_on_bit_for_bit(config, finished_run, monkeypatch, number):
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stop_at(patch, 5, number)
        stopped = train(config)
    assert (stopped.step, stopped.signal, stopped.finished) == (5, number, False)
    assert signal.getsignal(number) == handler
    summary = json.loads((config.out / "summary.json").read_text())
    assert not summary["finished"] and (summary["steps"], summary["images"]) == (5, 20)
    outcome = train(config)
    assert outcome.finished and outcome.step == 12
    summary = json.loads((config.out / "summary.json").read_text())
    assert summary["finished"] and summary["steps"] == 12 and summary["epochs"] == pytest.approx(48 / 5, abs=1e-3)
    assert summary["this_call"]["from_step"] == 5 and summary["this_call"]["devices"] == "1 CPU"
    assert summary["this_call"]["images_per_second"] == pytest.approx(28 / summary["this_call"]["seconds"], rel=0.2)
    assert (summary["best_score"], summary["score"]) == (outcome.score, "held_out_psnr")
    assert (summary["skipped_steps"], summary["left_out_images"]) == (0, 0)
    assert_same_checkpoints(config.out, finished_run)
    assert logged_losses(config.out) == logged_losses(finished_run)
    assert len(logged_losses(config.out)) == 6
    both = [keras.models.load_model(run / "denoiser.keras").get_weights() for run in (config.out, finished_run)]
    for one, two in zip(*both, strict=True):
        np.testing.assert_array_equal(one, two)


def test_crashed_run_goes_on_from_its_checkpoint(config, finished_run, monkeypatch):
    """Steps and log lines beyond the last checkpoint are done again, none twice."""
    with monkeypatch.context() as patch:
        original = loop._Loop._checkpoint

        def save_at_three_then_crash(self, step):
            if step == 3:
                original(self, step)
            if step == 8:
                raise MemoryError("crash")

        patch.setattr(loop._Loop, "_checkpoint", save_at_three_then_crash)
        with pytest.raises(MemoryError):
            train(dataclasses.replace(config, checkpoint_minutes=0.0))
    assert [step for step, _ in logged_losses(config.out)] == [2, 4, 6, 8]
    with (config.out / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # a line cut off
    train(config)
    assert logged_losses(config.out) == logged_losses(finished_run)
    assert_same_checkpoints(config.out, finished_run)


def test_finished_run_stays_as_it_is(finished):
    config = finished
    before = (config.out / "denoiser.keras").read_bytes(), logged_losses(config.out)
    assert train(config).finished
    assert ((config.out / "denoiser.keras").read_bytes(), logged_losses(config.out)) == before


def test_same_folder_with_other_flags_is_refused(finished):
    config = finished
    with pytest.raises(ValueError, match=r"other flags \(crop was 16, now 24\)"):
        train(dataclasses.replace(config, crop=24))
    assert not (config.out / "export" / "2").exists()
    best = keras.models.load_model(config.out / "denoiser.keras").provenance
    longer = train(dataclasses.replace(config, images=56))
    assert longer.step == 14
    # A new version only if it is a better one.
    is_better = keras.models.load_model(longer.denoiser_path).provenance != best
    assert (config.out / "export" / "2" / "saved_model.pb").exists() == is_better


def test_diverging_run_stops_and_leaves_no_model(config):
    config = dataclasses.replace(config, learning_rate=1e35, ramp_up=0.0)
    with pytest.raises(TrainingDivergedError, match="lower --learning-rate"):
        train(config)
    assert not (config.out / "denoiser.keras").exists()


def test_weights_that_turn_to_nan_never_reach_a_checkpoint(config, monkeypatch):
    """A loss is computed before the update that spoils the weights: so the weights themselves are looked at."""
    original = TrainingState.train_on

    def train_on(self, shown, target, stop=False):
        original(self, shown, target)
        if self.step == 5:
            self.network.weights[0].assign(np.full(self.network.weights[0].shape, np.nan))

    monkeypatch.setattr(TrainingState, "train_on", train_on)
    with pytest.raises(TrainingDivergedError, match=r"weights are no longer finite at step 5.*ckpt-4"):
        train(dataclasses.replace(config, checkpoint_minutes=0.0))
    for name, value in checkpointed(config.out).items():
        assert np.isfinite(value).all() or name.startswith("best/"), name


def test_a_run_is_reproducible_and_the_seed_matters(config, finished_run, tmp_path):
    other = dataclasses.replace(config, out=tmp_path / "other", seed=1)
    for run in (config, other):
        train(run)
    assert logged_losses(config.out) == logged_losses(finished_run)
    assert logged_losses(config.out) != logged_losses(other.out)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "full", "precision": "bfloat16", "augment": True, "ema": 0.0, "factor": "precision"},
        {"method": "per_component", "noise": "gaussian:5-50", "corrupt": "fixed"},
        {"method": "l2", "channels": 1},
        {"method": "n2n", "corrupt": "fixed"},
        {"method": "n2c", "xla": True},
        {"method": "n2v", "n2v_fraction": 0.1, "n2v_radius": 2, "n2v_center": True, "noise": "gaussian:5-50"},
    ],
    ids=lambda change: "-".join(f"{name}={value}" for name, value in change.items()),
)
def test_flags_train(config, change):
    config = dataclasses.replace(config, images=8, **change)
    outcome = train(config)
    denoiser = keras.models.load_model(outcome.denoiser_path)
    noisy = np.random.default_rng(0).uniform(size=(9, 11, denoiser.channels)).astype("float32")
    assert np.isfinite(denoiser.denoise(noisy)).all()
    assert np.isfinite(outcome.score)
    assert denoiser.factor == config.factor and denoiser.method.name == config.method
    assert denoiser.provenance["method"] == config.method
    assert denoiser.channels == (config.channels or 3)
    assert denoiser.noise.is_known == (config.noise == "gaussian:25")


def test_flags_that_came_later_do_not_hinder_a_run(config):
    """A run that began before they existed had the effect of their defaults."""
    config = dataclasses.replace(config, method="n2v")
    train(dataclasses.replace(config, images=4))
    path = config.out / "config.json"
    content = json.loads(path.read_text())
    for name in ("n2v_fraction", "n2v_radius", "n2v_center"):
        del content["config"][name]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"other flags \(n2v_radius was 5, now 3\)"):
        train(dataclasses.replace(config, images=8, n2v_radius=3))
    assert train(dataclasses.replace(config, images=8)).step == 2


def test_terminated_command_saves_and_says_how_to_go_on(config):
    """The whole command, as a scheduler would stop it."""
    command = [
        sys.executable, "-m", "bsdenoise.cli", "train", config.source, "--out", str(config.out),
        "--noise", "gaussian:25", "--corrupt", "fresh", "--method", "n2c", "--width", "4", "--depth", "1",
        "--crop", "16", "--images", "1000000", "--log-every", "2",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        log = config.out / "log.jsonl"
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "run the same command again" in output and "Traceback" not in output
    step = int(tf.train.latest_checkpoint(str(config.out / "checkpoints")).rsplit("-", 1)[1])
    assert step >= 2 and f"stopped at step {step}" in output


def test_a_run_that_failed_before_its_first_step_does_not_block_the_folder(config):
    with pytest.raises(ValueError, match="None of the 5 images"):
        train(dataclasses.replace(config, crop=64))
    assert train(dataclasses.replace(config, images=4)).finished


def test_out_is_a_file(config, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        train(config)


def test_broken_config_in_the_run_folder(finished):
    config = finished
    (config.out / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not a readable run configuration"):
        train(config)
    (config.out / "config.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoints but no config\.json"):
        train(config)


def test_broken_checkpoint(finished):
    config = finished
    for path in (config.out / "checkpoints").glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="checkpoint cannot be read"):
        train(config)


def test_unfinished_model_file_replaces_nothing(finished, monkeypatch):
    config, path = finished, finished.out / "denoiser.keras"
    before = path.read_bytes()
    denoiser = keras.models.load_model(path)

    def fail(path):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(denoiser, "save", fail)
    names = sorted(path.name for path in config.out.iterdir())
    with pytest.raises(OSError, match="disk full.*denoiser.keras"):
        RunFolder(config.out, config).save_denoiser(denoiser)
    assert path.read_bytes() == before
    assert sorted(path.name for path in config.out.iterdir()) == names


def test_full_disk_while_saving_is_named(config, monkeypatch):
    def fail(self, path):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", fail)
    with pytest.raises(OSError, match=r"cannot be written: no space left.*checkpoints"):
        train(dataclasses.replace(config, images=4))


def test_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(config, finished_run, capsys):
    config = dataclasses.replace(config, checkpoint_minutes=0.0)
    train(dataclasses.replace(config, images=28))
    newest = next((config.out / "checkpoints").glob("ckpt-7.data*"))
    newest.write_bytes(newest.read_bytes()[:1000])
    assert train(config).finished
    assert "ckpt-7: checkpoint cannot be read" in (said := capsys.readouterr().out)
    assert "going on at step 6" in said
    assert [step for step, _ in logged_losses(config.out)] == [step for step, _ in logged_losses(finished_run)]


def test_images_that_vanish_during_training_are_left_out(config, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "photos"
    shutil.copytree(config.source, folder)
    original = TrainingState.train_on

    def train_on(self, shown, target, stop=False):
        if self.step == 2:
            for path in sorted(folder.iterdir())[1:4]:
                path.unlink()
        return original(self, shown, target)

    monkeypatch.setattr(TrainingState, "train_on", train_on)
    assert train(dataclasses.replace(config, source=str(folder))).finished
    assert "warning: left out" in capsys.readouterr().out
    summary = json.loads((config.out / "summary.json").read_text())
    assert 1 <= summary["left_out_images"] <= 3


def test_images_that_all_vanish_end_the_training(config, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    shutil.copytree(config.source, folder)
    original = TrainingState.train_on

    def train_on(self, shown, target, stop=False):
        if self.step == 2:
            shutil.rmtree(folder)
        return original(self, shown, target)

    monkeypatch.setattr(TrainingState, "train_on", train_on)
    with pytest.raises(ValueError, match=r"None of the 5 images can be used"):
        train(dataclasses.replace(config, source=str(folder), images=4000))


def test_config_json_says_all_that_is_needed_to_do_it_again(finished_run):
    written = json.loads((finished_run / "config.json").read_text())
    assert written["config"]["seed"] == 0
    assert {"python", "tensorflow", "keras", "numpy", "pillow"} <= {
        name for name, known in written["versions"].items() if known
    }
    assert written["machine"]["devices"] == "1 CPU"


@pytest.mark.slow
def test_deterministic_runs_are_equal_bit_for_bit_across_an_interruption(config, tmp_path):
    """In a process of its own: what --deterministic switches on stays on."""
    script = """
        import os, signal, sys
        from bsdenoise import cli
        from bsdenoise.training import loop
        loop._export = lambda folder: None
        source, straight, broken = sys.argv[1:]
        flags = "--noise gaussian:25 --corrupt fresh --method n2c --width 4 --depth 1 --crop 16 --images 40".split()
        flags += ["--deterministic"]
        assert cli.main(["train", source, "--out", straight, *flags]) == 0
        from bsdenoise.training.step import TrainingState
        train_on = TrainingState.train_on
        def stopping(self, *arguments):
            if self.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return train_on.__get__(self, TrainingState)(*arguments)
        TrainingState.train_on = stopping
        assert cli.main(["train", source, "--out", broken, *flags]) == 143
        TrainingState.train_on = train_on
        assert cli.main(["train", source, "--out", broken, *flags]) == 0
        print("done")
    """
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    command = [sys.executable, "-c", textwrap.dedent(script), config.source, str(straight), str(broken)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.endswith("done\n"), result.stderr[-2000:]
    assert "going on at step 5" in result.stdout
    assert_same_checkpoints(straight, broken)


def test_a_run_that_goes_on_with_other_images_says_so(config, tmp_path, capsys):
    """As many as before, under the same names, but others."""
    folder = tmp_path / "photos"
    shutil.copytree(config.source, folder)
    config = dataclasses.replace(config, source=str(folder), images=4)
    train(config)
    before = json.loads((config.out / "config.json").read_text())["facts"]["manifest"]
    Image.fromarray(smooth(50, 44, 77)).save(folder / "3.png")
    capsys.readouterr()
    train(config)
    assert "warning: the images of SOURCE are not those that this run began with" in capsys.readouterr().out
    assert json.loads((config.out / "config.json").read_text())["facts"]["manifest"] != before
