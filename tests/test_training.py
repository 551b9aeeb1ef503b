"""Tests of the training loop: what it computes, what it writes, how it stops and goes on."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bsdenoise import methods
from bsdenoise.config import TrainConfig
from bsdenoise.training import distribution, loop, preparation
from bsdenoise.training.loop import TrainingDivergedError, train
from bsdenoise.training.run_folder import RunFolder, sample_picture
from bsdenoise.training.schedule import RampUpDown
from bsdenoise.training.step import TrainingState
from bsdenoise.training.validation import Validation


def _smooth(height, width, seed):
    """A smooth colour image with an edge, uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / 20.0
    waves = [np.sin(rows * rng.uniform() + columns * rng.uniform() + rng.uniform(0, 6)) for _ in range(3)]
    image = 128 + 60 * np.stack(waves, axis=-1)
    image[: height // 2] *= 0.6
    return image.astype("uint8")


@pytest.fixture(name="source", scope="module")
def _source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    for number in range(6):
        Image.fromarray(_smooth(48 + number, 40, number)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(name="config")
def _config(source, tmp_path):
    return TrainConfig(
        source=str(source),
        out=tmp_path / "run",
        noise="gaussian:25",
        corrupt="fresh",
        width=4,
        depth=2,
        crop=16,
        batch=4,
        images=48,
        learning_rate=3e-3,
        validate_every=6,
        log_every=2,
        ema=0.9,
    )


@pytest.fixture(autouse=True)
def quick_export(request, monkeypatch):
    """What an export leaves, without the seconds that it takes; tests of the whole take the real one."""
    if "real_export" in request.keywords:
        return

    def export(denoiser, folder):
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
        (folder / "serving.json").write_text(json.dumps({"training": denoiser.provenance}))

    monkeypatch.setattr("bsdenoise.training.loop.export_saved_model", export)


def _log(folder, kind):
    lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def _losses(folder):
    return [(line["step"], line["loss"]) for line in _log(folder, "train")]


def _checkpointed(config, folder):
    """Gives all numbers of the newest checkpoint, by name."""
    path = tf.train.latest_checkpoint(str(Path(folder) / "checkpoints"))
    names = [name for name, _ in tf.train.list_variables(path) if not name.startswith("save_counter")]
    return {name: tf.train.load_variable(path, name) for name in names if "OBJECT_GRAPH" not in name}


def _assert_same_checkpoints(config, one, two):
    left, right = _checkpointed(config, one), _checkpointed(config, two)
    assert left.keys() == right.keys() and len(left) > 50
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def _stop_at(monkeypatch, step, number=signal.SIGTERM):
    """Sends the process a signal during the given step of the next run."""
    original = TrainingState.train_on
    calls = []

    def train_on(self, shown, target):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), number)
        return original(self, shown, target)

    monkeypatch.setattr(TrainingState, "train_on", train_on)


@pytest.mark.slow
@pytest.mark.real_export
def test_run_folder_is_complete_and_the_model_denoises(config, source):
    config = dataclasses.replace(config, images=600, crop=24, validate_every=75, learning_rate=5e-3)
    outcome = train(config)
    assert outcome.finished and outcome.signal is None and outcome.step == 150
    assert sorted(path.name for path in config.out.iterdir()) == [
        "checkpoints", "config.json", "denoiser.keras", "export", "log.jsonl", "samples", "tensorboard",
    ]  # fmt: skip
    assert (config.out / "export" / "1" / "saved_model.pb").exists()
    assert len(list((config.out / "samples").glob("*.png"))) == 2
    assert list((config.out / "tensorboard").glob("events*"))
    written = json.loads((config.out / "config.json").read_text())
    assert written["config"]["noise"] == "gaussian:25" and written["facts"]["num_held_out"] == 1
    losses = _losses(config.out)
    assert losses[-1][1] < losses[0][1] - 1
    validation = _log(config.out, "validation")
    assert validation[-1]["psnr"] > validation[-1]["psnr_mean"]
    assert validation[-1]["sure_psnr"] == pytest.approx(validation[-1]["psnr"], abs=0.7)
    assert outcome.score == max(line["sure_psnr"] for line in validation)
    clean = _smooth(50, 61, 99) / np.float32(255)
    noisy = clean + np.random.default_rng(1).normal(0, 25 / 255, clean.shape).astype("float32")
    denoiser = keras.models.load_model(outcome.denoiser_path)
    assert {weight.dtype for weight in denoiser.weights} == {"float32"}
    best = max(validation, key=lambda line: line["sure_psnr"])
    told = json.loads((config.out / "export" / "1" / "serving.json").read_text())["training"]
    assert told == denoiser.provenance
    assert told["crops"] == 4 * best["step"] and told["sure_psnr"] == pytest.approx(best["sure_psnr"], abs=1e-3)
    assert told["images"] == written["facts"]["num_images"] - 1
    assert (told["source"], told["noise"], told["corrupt"]) == (None, "gaussian:25", config.corrupt)
    assert str(source) not in json.dumps(told)
    assert np.mean((denoiser.denoise(noisy) - clean) ** 2) < 0.8 * np.mean((noisy - clean) ** 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_interrupted_run_goes_on_bit_for_bit(config, monkeypatch, tmp_path, number):
    straight = dataclasses.replace(config, out=tmp_path / "straight")
    train(straight)
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        _stop_at(patch, 5, number)
        stopped = train(config)
    assert (stopped.step, stopped.signal, stopped.finished) == (5, number, False)
    assert signal.getsignal(number) == handler
    outcome = train(config)
    assert outcome.finished and outcome.step == 12
    _assert_same_checkpoints(config, config.out, straight.out)
    assert _losses(config.out) == _losses(straight.out)
    assert len(_losses(config.out)) == 6
    both = [keras.models.load_model(run.out / "denoiser.keras").get_weights() for run in (config, straight)]
    for one, two in zip(*both, strict=True):
        np.testing.assert_array_equal(one, two)


def test_crashed_run_goes_on_from_its_checkpoint(config, monkeypatch, tmp_path):
    """Steps and log lines beyond the last checkpoint are done again, none twice."""
    straight = dataclasses.replace(config, out=tmp_path / "straight")
    train(straight)
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
    assert [step for step, _ in _losses(config.out)] == [2, 4, 6, 8]
    with (config.out / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # a line cut off
    train(config)
    assert _losses(config.out) == _losses(straight.out)
    _assert_same_checkpoints(config, config.out, straight.out)


def test_finished_run_stays_as_it_is(config):
    train(config)
    before = (config.out / "denoiser.keras").read_bytes(), _losses(config.out)
    assert train(config).finished
    assert ((config.out / "denoiser.keras").read_bytes(), _losses(config.out)) == before


def test_same_folder_with_other_flags_is_refused(config):
    train(config)
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

    def train_on(self, shown, target):
        original(self, shown, target)
        if self.step == 5:
            self.network.weights[0].assign(np.full(self.network.weights[0].shape, np.nan))

    monkeypatch.setattr(TrainingState, "train_on", train_on)
    with pytest.raises(TrainingDivergedError, match=r"weights are no longer finite at step 5.*ckpt-4"):
        train(dataclasses.replace(config, checkpoint_minutes=0.0))
    for name, value in _checkpointed(config, config.out).items():
        assert np.isfinite(value).all() or name.startswith("best_score"), name


def test_a_run_is_reproducible_and_the_seed_matters(config, tmp_path):
    runs = [dataclasses.replace(config, out=tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for run in runs:
        train(run)
    train(config)
    assert _losses(config.out) == _losses(runs[0].out)
    assert _losses(config.out) != _losses(runs[1].out)


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bfloat16"},
        {"xla": True},
        {"factor": "precision"},
        {"method": "per_component"},
        {"method": "l2"},
        {"method": "n2n", "corrupt": "fixed"},
        {"method": "n2c"},
        {"method": "n2v", "n2v_fraction": 0.1, "n2v_radius": 2, "n2v_center": True},
        {"method": "n2v", "noise": "gaussian:5-50"},
        {"channels": 1},
        {"noise": "gaussian:5-50"},
        {"corrupt": "fixed"},
        {"ema": 0.0},
        {"augment": True},
    ],
    ids=lambda change: "-".join(f"{name}={value}" for name, value in change.items()),
)
def test_flags_train(config, change):
    config = dataclasses.replace(config, images=24, **change)
    outcome = train(config)
    denoiser = keras.models.load_model(outcome.denoiser_path)
    noisy = np.random.default_rng(0).uniform(size=(9, 11, denoiser.channels)).astype("float32")
    assert np.isfinite(denoiser.denoise(noisy)).all()
    assert np.isfinite(outcome.score)
    assert denoiser.factor == config.factor and denoiser.method.name == config.method
    assert denoiser.provenance["method"] == config.method
    assert denoiser.channels == (config.channels or 3)
    assert denoiser.noise.is_known == (config.noise == "gaussian:25")


@pytest.mark.parametrize("factor", ["prior", "precision"])
def test_full_and_per_component_are_identical_on_grey(config, tmp_path, factor):
    """Same seed, one channel: the same weights, bit for bit."""
    config = dataclasses.replace(config, channels=1, factor=factor)
    runs = [dataclasses.replace(config, out=tmp_path / name, method=name) for name in ("full", "per_component")]
    for run in runs:
        train(run)
    assert _losses(runs[0].out) == _losses(runs[1].out)
    _assert_same_checkpoints(config, runs[0].out, runs[1].out)


def test_the_documented_method_of_ones_own_trains(config, monkeypatch):
    """The class in docs/methods.md, as it stands there."""
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))
    text = (Path(__file__).parents[1] / "docs" / "methods.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    before, call = code.split("train(TrainConfig(")
    assert 'method="median"' in call
    exec(before, {"__name__": "documented"})
    outcome = train(dataclasses.replace(config, method="median", images=24))
    denoiser = keras.models.load_model(outcome.denoiser_path)
    assert denoiser.method.name == "median" and np.isfinite(outcome.score)
    assert denoiser.denoise(np.zeros((8, 8, 3), "uint8")).shape == (8, 8, 3)


def test_a_kind_of_n2v_stays_what_it_is(config, monkeypatch):
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))

    class Own(methods.NoiseToVoid):
        name = "own"

    methods.register(Own())
    method = preparation.method_of(dataclasses.replace(config, method="own", n2v_radius=3))
    assert type(method) is Own and method.masking.radius == 3


@pytest.mark.parametrize("name", ["l2", "n2n", "n2c", "n2v"])
def test_validation_of_point_estimates_equals_a_twin(config, name):
    settings = {"n2v_fraction": 0.1} if name == "n2v" else {}
    data, _ = preparation.open_data(dataclasses.replace(config, method=name, **settings))
    state = TrainingState(config, data, tf.distribute.get_strategy())
    validation = Validation(state.denoiser, data, 16, 30)
    values, moments = validation()
    crop = data.validation_crop(int(data.held_out[0]), 30)
    shown, target = data.method.example(crop)
    noisy, clean, variance = crop.noisy(0), crop.clean, float(crop.sigma) ** 2
    denoised = state.denoiser.denoise(noisy)
    (only,) = moments
    np.testing.assert_allclose(only, denoised, atol=1e-5)
    assert values["psnr"] == pytest.approx(-10 * np.log10(np.mean((denoised - clean) ** 2)), abs=1e-3)
    if name == "l2":
        mse = np.mean((denoised - noisy) ** 2) - variance
    elif name == "n2n":
        first = denoised if np.array_equal(shown, noisy) else state.denoiser.denoise(crop.noisy(1))
        mse = np.mean((first - target) ** 2) - variance
    elif name == "n2c":
        mse = np.mean((denoised - clean) ** 2)
    else:
        masked = target[..., 3] == 1
        mse = np.mean((state.denoiser.denoise(shown) - noisy)[masked] ** 2) - variance
    assert validation.score == ("sure_psnr" if name == "l2" else "held_out_psnr")
    assert values[validation.score] == pytest.approx(-10 * np.log10(mse), abs=1e-2)
    assert set(values) == {"loss", "psnr", validation.score}


@pytest.mark.parametrize("name", ["n2n", "n2c"])
def test_methods_that_need_more_than_noisy_images(config, name):
    needs = {"n2n": "two noisy copies of each image", "n2c": "a clean copy of each image"}[name]
    match = f"--method {name} needs {needs}: either made from clean images by --corrupt .* or given by --targets"
    for change, received in (({"corrupt": None}, "neither"), ({"targets": "elsewhere"}, "both")):
        with pytest.raises(ValueError, match=rf"{match}\. Received: {received}\."):
            train(dataclasses.replace(config, method=name, **change))
    with pytest.raises(ValueError, match="--method l2 compares images with themselves: it takes no --targets"):
        train(dataclasses.replace(config, method="l2", corrupt=None, targets="elsewhere"))


def _pairs(folder, source):
    """Writes two noisy copies and the clean one of each image, in three folders."""
    rng = np.random.default_rng(0)
    for path in sorted(source.glob("*.png")):
        clean = np.asarray(Image.open(path))
        for kind in ("first", "second", "clean"):
            noise = 0 if kind == "clean" else rng.normal(0, 25, clean.shape)
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(np.clip(clean + noise, 0, 255).astype("uint8")).save(folder / kind / path.name)


@pytest.mark.parametrize(("name", "kind"), [("n2n", "second"), ("n2c", "clean")], ids=["n2n", "n2c"])
def test_real_pairs(config, source, tmp_path, name, kind):
    """Crops of an image and its partner come from the same place; only a clean partner tells validation the truth."""
    _pairs(tmp_path, source)
    flags = {"source": str(tmp_path / "first"), "targets": str(tmp_path / kind), "corrupt": None, "method": name}
    config = dataclasses.replace(config, images=16, validate_every=4, max_side=52, **flags)
    data, _ = preparation.open_data(config)
    assert len(data.source) == len(data.targets) == 5  # the tallest one is too large
    seen = set()
    for number in range(20):
        shown, target = data.example(number)
        noise = (shown - target) * 255
        assert 15 < noise.std() < 45  # elsewhere than in its place it would be far more
        seen.add(float(shown[0, 0, 0]))
        if name == "n2c":
            assert np.abs(np.diff(target, axis=1)).mean() < 0.03
    assert len(seen) > 10
    outcome = train(config)
    assert set(_log(config.out, "validation")[-1]) - {"kind", "step"} == (
        {"loss", "held_out_psnr", "psnr"} if name == "n2c" else {"loss", "held_out_psnr"}
    )
    assert outcome.finished
    assert keras.models.load_model(outcome.denoiser_path).provenance["pairs"] is True


def test_pairs_that_do_not_fit(config, source, tmp_path, capsys):
    _pairs(tmp_path, source)
    flags = {"source": str(tmp_path / "first"), "targets": str(tmp_path / "second"), "corrupt": None, "method": "n2n"}
    config = dataclasses.replace(config, images=8, **flags)
    Image.fromarray(np.zeros((30, 30, 3), "uint8")).save(tmp_path / "second" / "3.png")
    train(config)
    output = capsys.readouterr().out
    assert "3.png has another size: (30, 30, 3), not (51, 40, 3)" in output
    with pytest.raises(ValueError, match=r"other images than those of SOURCE. Received: .*first/0.png for both"):
        train(dataclasses.replace(config, targets=config.source))
    (tmp_path / "second" / "5.png").rename(tmp_path / "second" / "7.png")
    with pytest.raises(ValueError, match=r"under the same names. Received: .*second/7.png for .*first/5.png"):
        train(config)
    (tmp_path / "second" / "7.png").unlink()
    with pytest.raises(ValueError, match="as many images as SOURCE. Received: 5 targets for 6 images"):
        train(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "n2w"}, "`method` must be one of"),
        ({"method": "n2v", "n2v_fraction": 0.0}, "fraction of masked pixels must be in"),
        ({"method": "n2v", "n2v_radius": 0}, "radius of the neighbourhood must be at least 1"),
        ({"n2v_radius": 3}, "--n2v-radius is for --method n2v. Received: --method full"),
    ],
    ids=str,
)
def test_wrong_methods(config, change, message):
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(config, **change))


def test_flags_that_came_later_do_not_hinder_a_run(config):
    """A run that began before they existed had the effect of their defaults."""
    config = dataclasses.replace(config, method="n2v")
    train(dataclasses.replace(config, images=16))
    path = config.out / "config.json"
    content = json.loads(path.read_text())
    for name in ("n2v_fraction", "n2v_radius", "n2v_center"):
        del content["config"][name]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"other flags \(n2v_radius was 5, now 3\)"):
        train(dataclasses.replace(config, images=24, n2v_radius=3))
    assert train(dataclasses.replace(config, images=24)).step == 6


def test_logged_loss_is_the_mean_since_the_last_line(config):
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


def test_two_devices_train_as_one(config, tmp_path):
    """Loss and weights on two logical CPU devices equal those on one, to rounding, also for an odd batch."""
    script = """
        import dataclasses, sys, numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        from bsdenoise.config import TrainConfig
        from bsdenoise.training import distribution, loop, preparation
        from bsdenoise.training.step import TrainingState
        for batch in (4, 3):
            config = TrainConfig(source=sys.argv[1], out=None, noise="gaussian:5-50", corrupt="fresh", width=4, depth=2,
                                 crop=16, batch=batch, images=5 * batch, learning_rate=1e-3, ramp_up=0.0)
            results = []
            for strategy in (tf.distribute.OneDeviceStrategy("CPU:0"), distribution.choose_strategy()):
                data, _ = preparation.open_data(config)
                state = TrainingState(config, data, strategy)
                before = state.network.get_weights()
                losses = []
                for shown, target in strategy.experimental_distribute_dataset(data.batches(batch, 0, 5)):
                    state.train_on(shown, target)
                    losses.append(state.take_loss())
                results.append((losses, state.network.get_weights(), state.denoiser.network.get_weights()))
                assert max(np.abs(a - b).max() for a, b in zip(before, state.network.get_weights())) > 1e-3
            assert strategy.num_replicas_in_sync == 2, strategy
            assert distribution.describe(strategy) == "2 CPUs"
            np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5, atol=2e-5)
            for index in (1, 2):
                for one, two in zip(results[0][index], results[1][index], strict=True):
                    np.testing.assert_allclose(one, two, atol=2e-5)
        print("equal")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), config.source], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip().endswith("equal"), result.stderr[-2000:]


def test_terminated_command_saves_and_says_how_to_go_on(config):
    """The whole command, as a scheduler would stop it."""
    command = [
        sys.executable, "-m", "bsdenoise.cli", "train", config.source, "--out", str(config.out),
        "--noise", "gaussian:25", "--corrupt", "fresh", "--width", "4", "--depth", "2", "--crop", "16",
        "--images", "1000000", "--log-every", "2",
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


def test_unseen_gpu_is_hinted_at(monkeypatch, tmp_path):
    monkeypatch.setattr(distribution, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert "bsdenoise[gpu]" in distribution.hint()
    monkeypatch.setattr(distribution, "NVIDIA_DRIVER", tmp_path / "none")
    assert distribution.hint() is None


def test_forgotten_corrupt_is_noticed(config, capsys):
    config = dataclasses.replace(config, corrupt=None, images=4)
    train(config)
    assert "add --corrupt fresh" in capsys.readouterr().out
    train(dataclasses.replace(config, corrupt="fresh", out=config.out.with_name("other")))
    assert "add --corrupt" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "missing"}, "missing: no such file or folder"),
        ({"noise": "gauss:25"}, "noise SPEC reads"),
        ({"noise": "gaussian:300"}, "sigma of 300, and the images span only 255 .from 0 to 255"),
        ({"noise": "gaussian:300/255"}, "0 < sigma <= 1"),
        ({"noise": "gaussian:50-5"}, "lower end first. Received: 0.196"),
        ({"min_side": 0}, "--min-side must be at least 1"),
        ({"max_side": 15}, "--max-side must be at least the side of a crop"),
        ({"min_side": 60, "max_side": 50}, "--max-side must be at least .* --min-side"),
        ({"min_side": 100}, "None of the 6 images has sides of at least 100"),
        ({"noise": "gaussian:5-50", "corrupt": None}, "needs --corrupt"),
        ({"crop": 0}, "--crop must be at least 1"),
        ({"crop": 64}, "None of the 5 images can be used"),
        ({"ema": 1.0}, "--ema must be"),
        ({"beta_2": -1.0}, "--beta-2 must be"),
        ({"validation_images": 0}, "--validation-images must be"),
        ({"channels": 0}, "--channels must be"),
        ({"channels": 1, "corrupt": None}, "--channels 1 takes the luminance"),
        ({"channels": 2}, "None of the images can be read"),
        ({"seed": -1}, "--seed must not"),
        ({"checkpoint_minutes": float("nan")}, "--checkpoint-minutes must be"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive"),
        ({"ramp_up": 0.8}, "together at most 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_flags(config, change, message):
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(config, **change))


def test_a_run_that_failed_before_its_first_step_does_not_block_the_folder(config):
    with pytest.raises(ValueError, match="None of the 5 images"):
        train(dataclasses.replace(config, crop=64))
    assert train(dataclasses.replace(config, images=4)).finished


def test_unreadable_held_out_images_are_replaced_in_validation(config, source, tmp_path):
    data, _ = preparation.open_data(config)
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / Path(data.source.name(int(data.held_out[0]))).name).write_bytes(b"broken")
    assert train(dataclasses.replace(config, source=str(tmp_path), images=4)).finished


def test_out_is_a_file(config, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        train(config)


def test_broken_config_in_the_run_folder(config):
    train(dataclasses.replace(config, images=4))
    (config.out / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not a readable run configuration"):
        train(config)
    (config.out / "config.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoints but no config\.json"):
        train(config)


def test_broken_checkpoint(config):
    train(dataclasses.replace(config, images=4))
    for path in (config.out / "checkpoints").glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="checkpoint cannot be read"):
        train(config)


def test_unfinished_model_file_replaces_nothing(config, monkeypatch):
    outcome = train(config)
    before = outcome.denoiser_path.read_bytes()
    denoiser = keras.models.load_model(outcome.denoiser_path)

    def fail(path):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(denoiser, "save", fail)
    names = sorted(path.name for path in config.out.iterdir())
    with pytest.raises(OSError, match="disk full.*denoiser.keras"):
        RunFolder(config.out, config).save_denoiser(denoiser)
    assert outcome.denoiser_path.read_bytes() == before
    assert sorted(path.name for path in config.out.iterdir()) == names


def test_validation_equals_a_twin(config):
    """Validation numbers against what the denoiser and plain NumPy give for the same images."""
    data, _ = preparation.open_data(config)
    state = TrainingState(config, data, tf.distribute.get_strategy())
    values, moments = Validation(state.denoiser, data, 16, 30)()
    crop = data.validation_crop(int(data.held_out[0]), 30)
    noisy, sigma, clean = crop.noisy(0), crop.sigma, crop.clean
    result = state.denoiser.posterior(noisy, sigma=float(sigma))
    np.testing.assert_allclose(moments[0], result.denoised, atol=1e-5)
    assert values["psnr"] == pytest.approx(-10 * np.log10(np.mean((result.denoised - clean) ** 2)), abs=1e-3)
    assert values["psnr_mean"] == pytest.approx(-10 * np.log10(np.mean((result.mean - clean) ** 2)), abs=1e-3)
    assert values["sure_psnr"] == pytest.approx(result.estimated_psnr, abs=1e-3)
    expected = -10 * np.log10(np.mean((result.mean - noisy) ** 2) - sigma**2)
    assert values["sure_psnr_mean"] == pytest.approx(expected, abs=1e-3)


def test_validation_without_held_out_images(config, source, capsys):
    config = dataclasses.replace(config, source=str(source / "0.png"), images=4)
    assert train(config).finished
    assert "too few images to hold any out" in capsys.readouterr().out


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


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_sample_picture(channels):
    shape = (4, 5, channels)
    moments = [np.full(shape, level) for level in (0.5, 0.25, 0.05**2)]
    picture = sample_picture(np.full(shape, 1.0), moments, 0.1)
    assert picture.shape == (4, 20, 3 if channels == 3 else 1) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[0, ::5, 0], [255, 64, 128, 128])
    picture = sample_picture(np.full(shape, 1.0), moments[:1], 0.1)
    np.testing.assert_array_equal(picture[0, ::5, 0], [255, 128])


def test_full_disk_while_saving_is_named(config, monkeypatch):
    def fail(self, checkpoint_number=None):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.train.CheckpointManager, "save", fail)
    with pytest.raises(OSError, match=r"cannot be written: no space left.*checkpoints"):
        train(dataclasses.replace(config, images=4))
