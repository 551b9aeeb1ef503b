import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import bsdenoise
from bsdenoise import GaussianNoise

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "fit_any_backend.py"
MAX_FILE_BYTES = 16_000_000
SMALL = ["--crop", "32", "--width", "8", "--depth", "1", "--batch", "4", "--learning-rate", "3e-3"]

# Runs the example where TensorFlow cannot be imported, then denoises an image with the denoiser that it gives.
WITHOUT_TENSORFLOW = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ImportError("TensorFlow is not here")

sys.meta_path.insert(0, Absent())
noisy_path, denoised_path, *argv = sys.argv[1:]
import fit_any_backend
import keras
import numpy as np
denoiser = fit_any_backend.fit(fit_any_backend.parse(argv))
np.save(denoised_path, denoiser.predict(np.load(noisy_path)[None], verbose=0)[0])
print("backend", keras.backend.backend(), "tensorflow" in sys.modules)
"""


def load_example():
    spec = importlib.util.spec_from_file_location("fit_any_backend", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load_example()


def smooth_images(count, height, width, channels, seed=0):
    """Waves of random direction: uint8 (count, height, width, channels)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / 40
    shape = (count, 1, 1, channels)
    waves = sum(
        np.sin(rng.uniform(-6, 6, shape) * rows[..., None] + rng.uniform(-6, 6, shape) * columns[..., None])
        for _ in range(2)
    )
    return (127.5 + 60 * waves).astype("uint8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images to train on, grey and RGB, and one noisy image of each."""
    path = tmp_path_factory.mktemp("fit_any_backend")
    for name, channels in (("rgb", 3), ("grey", 1)):
        np.save(path / f"{name}.npy", smooth_images(12, 48, 40, channels))
        image = smooth_images(1, 37, 45, channels, seed=1)[0] / 255
        noisy = image + 0.1 * np.random.default_rng(2).standard_normal(image.shape)
        np.save(path / f"{name}_noisy.npy", noisy.astype("float32"))
    return path


def train(folder, run, images, *arguments):
    """Calls the example on JAX in a process without TensorFlow; gives what it printed and the image it denoised."""
    out = folder / f"{run}_denoised.npy"
    argv = [folder / f"{images}_noisy.npy", out, "--images", folder / f"{images}.npy", "--out", folder / run]
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        # For speed: the runs compile much the same, and compiling takes longer than computing.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "EPATH_USE_TF": "false",  # else the cache looks for TensorFlow, which is not there, and keeps nothing
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT), str(SCRIPT.parent)]),
    }
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *map(str, argv), *SMALL, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "backend jax False" in result.stdout
    return result.stdout, np.load(out)


def saved_arrays(run):
    """Reads the variables of a run by an own path through its files: names and arrays."""
    state = json.loads((run / "state.json").read_text())
    data = b"".join((run / name).read_bytes() for name in state["files"])
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return state["variables"], [arrays[name] for name in sorted(arrays.files)]


@pytest.fixture(scope="module")
def whole_run(folder):
    """A run of 100 steps in one go."""
    printed, denoised = train(
        folder, "whole", "rgb", "--noise", "gaussian:25", "--steps", "100", "--log-every", "20", "--ema", "0.9"
    )
    return folder / "whole", printed, denoised


def test_loss_falls_and_is_logged(whole_run):
    run, printed, _ = whole_run
    state = json.loads((run / "state.json").read_text())
    history = state["history"]
    assert [line["step"] for line in history] == [20, 40, 60, 80, 100]
    assert history[-1]["loss"] < history[0]["loss"] - 1.0
    assert "step 100/100  loss" in printed and "images/s" in printed and "finished" in printed


def test_denoiser_loads_into_tensorflow_and_gives_the_same(whole_run, folder):
    run, _, denoised = whole_run
    assert keras.backend.backend() == "tensorflow"
    denoiser = keras.models.load_model(run / "denoiser.keras")
    assert isinstance(denoiser, bsdenoise.Denoiser)
    noisy = np.load(folder / "rgb_noisy.npy")
    np.testing.assert_allclose(denoiser.denoise(noisy), denoised, atol=1e-4)
    clean = smooth_images(1, 37, 45, 3, seed=1)[0] / 255
    assert np.mean((denoised - clean) ** 2) < 0.8 * np.mean((noisy - clean) ** 2)


def test_denoiser_holds_the_average_not_the_last_weights(whole_run):
    run, _, _ = whole_run
    names, arrays = saved_arrays(run)
    averages = [array for name, array in zip(names, arrays, strict=True) if name.endswith("average")]
    network = keras.models.load_model(run / "denoiser.keras").network
    weights = network.get_weights()
    assert len(averages) == len(weights)
    for weight, average, last in zip(weights, averages, arrays, strict=False):
        np.testing.assert_array_equal(weight, average)
        assert weight.shape == last.shape and not np.array_equal(weight, last)


def test_continued_run_equals_uninterrupted_run_bit_for_bit(whole_run, folder):
    whole, _, denoised = whole_run
    arguments = ["--noise", "gaussian:25", "--steps", "100", "--ema", "0.9", "--log-every", "7"]
    printed, _ = train(folder, "parts", "rgb", *arguments, "--call-steps", "45")
    assert "not finished" in printed
    run = folder / "parts"
    orphan = run / "state-00000063-0.npz.part"  # what a call that was killed while saving leaves
    orphan.write_bytes(b"half a file")
    printed, denoised_in_parts = train(folder, "parts", "rgb", *arguments)
    assert "goes on from step 45" in printed and "finished" in printed
    assert not orphan.exists()
    names, arrays = saved_arrays(run)
    expected_names, expected = saved_arrays(whole)
    assert names == expected_names
    for name, array, other in zip(names, arrays, expected, strict=True):
        np.testing.assert_array_equal(array, other, err_msg=name)
    np.testing.assert_array_equal(denoised_in_parts, denoised)


def test_bfloat16_range_of_sigma_grey_precision_factor_and_muon(folder):
    options = ["--precision", "mixed_bfloat16", "--noise", "gaussian:5-50", "--factor", "precision", "--augment"]
    options += ["--optimizer", "muon"]
    _, denoised = train(folder, "grey", "grey", *options, "--steps", "40", "--log-every", "10", "--ema", "0")
    history = json.loads((folder / "grey" / "state.json").read_text())["history"]
    assert history[-1]["loss"] < history[0]["loss"] - 0.2
    _, arrays = saved_arrays(folder / "grey")
    assert {array.dtype.name for array in arrays if array.dtype.kind == "f"} == {"float32"}
    denoiser = keras.models.load_model(folder / "grey" / "denoiser.keras")
    assert {layer.compute_dtype for layer in denoiser.network.layers} == {"float32"}
    assert denoiser.noise == GaussianNoise(5 / 255, 50 / 255)
    np.testing.assert_allclose(denoiser.denoise(np.load(folder / "grey_noisy.npy")), denoised, atol=1e-4)


def test_begins_with_the_weights_of_a_trained_model_and_says_so(whole_run, folder):
    run, _, denoised = whole_run
    init = ["--init", str(run), "--noise", "gaussian:25", "--seed", "1"]
    almost_none = ["--steps", "2", "--log-every", "1", "--learning-rate", "1e-9", "--ema", "0"]
    _, again = train(folder, "again", "rgb", *init, *almost_none)
    np.testing.assert_allclose(again, denoised, atol=1e-4)
    denoiser = keras.models.load_model(folder / "again" / "denoiser.keras")
    facts = denoiser.provenance
    assert (facts["crops"], facts["crop"], facts["images"], facts["backend"]) == (8, 32, 12, "jax")
    assert facts["started_from"]["crops"] == 400 and facts["started_from"]["started_from"] is None


@pytest.mark.parametrize(
    "argument, message",
    [
        (["--width", "16"], "a model of width 8 cannot begin a training of width 16"),
        (["--factor", "precision"], "a model of factor prior cannot begin a training of factor precision"),
        (["--images", "grey.npy"], "a model of channels 3 cannot begin a training of channels 1"),
    ],
)
def test_a_model_of_another_kind_cannot_begin_it(whole_run, folder, monkeypatch, capsys, argument, message):
    monkeypatch.chdir(folder)
    argv = ["--images", "rgb.npy", "--out", "other", "--noise", "gaussian:25", "--crop", "32", *argument]
    monkeypatch.setattr(sys, "argv", ["fit_any_backend.py", *argv, "--init", str(whole_run[0])])
    assert example.main() == 2
    assert message in capsys.readouterr().err
    assert not (folder / "other").exists()


def run_of(tmp_path, monkeypatch, *, width=8, depth=1, part_bytes=None):
    """A run in this process that has saved its untrained state."""
    if part_bytes:
        monkeypatch.setattr(example, "PART_BYTES", part_bytes)
    argv = ["--images", "-", "--out", str(tmp_path / "run"), "--noise", "gaussian:25", "--depth", str(depth)]
    args = example.parse([*argv, "--width", str(width)])
    noise = GaussianNoise(0.1, 0.1)
    networks = [bsdenoise.blind_spot_network(width=width, depth=depth) for _ in range(2)]
    training = example.NoisyTraining(networks[0], noise, "prior", seed=0)
    training.compile(keras.optimizers.Adam(use_ema=True))
    training.optimizer.build(training.trainable_variables)
    return training, lambda: example.Run(training, bsdenoise.Denoiser(networks[1], noise), args, {"num_images": 1})


def test_full_size_state_comes_in_files_under_16_mb(tmp_path, monkeypatch):
    _, make = run_of(tmp_path, monkeypatch, width=48, depth=5)
    make().save()
    sizes = [path.stat().st_size for path in (tmp_path / "run").iterdir()]
    assert sum(sizes) > MAX_FILE_BYTES
    assert max(sizes) < MAX_FILE_BYTES


def test_state_in_many_parts_is_restored(tmp_path, monkeypatch):
    training, make = run_of(tmp_path, monkeypatch, part_bytes=20_000)
    make().save()
    before = training.get_weights()
    for variable in training.trainable_variables:
        variable.assign(variable * 0)
    make()
    assert len(list((tmp_path / "run").glob("*.part"))) > 3
    for array, other in zip(training.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, other)


def test_other_arguments_are_refused(whole_run, folder, monkeypatch, capsys):
    argv = ["--images", str(folder / "rgb.npy"), "--out", str(whole_run[0]), "--noise", "gaussian:30", *SMALL]
    monkeypatch.setattr(sys, "argv", ["fit_any_backend.py", *argv, "--steps", "100", "--ema", "0.9"])
    assert example.main() == 2
    assert "noise was 'gaussian:25', now 'gaussian:30'" in capsys.readouterr().err


def after_one_step(training, run):
    """Stands in for `fit`: takes the callback through the beginning of an epoch and of one step."""
    training.stop_training = False
    run.set_model(training)
    run.on_epoch_begin(0)
    run.on_train_batch_begin(0)
    return training.stop_training


@pytest.mark.parametrize("reason", ["none", "minutes", "signal"])
def test_leaves_in_time_and_saves(tmp_path, monkeypatch, reason):
    training, make = run_of(tmp_path, monkeypatch)
    run = make()
    run.args.minutes = 10.0
    minutes_ago = 9.6 if reason == "minutes" else 9.0
    monkeypatch.setattr(example, "STARTED", example.time.monotonic() - 60 * minutes_ago)
    if reason == "signal":
        run.interrupt()
    leaves = reason != "none"
    assert after_one_step(training, run) == leaves
    run.on_epoch_end(0, {"loss": 1.0})
    assert (run.folder / "state.json").exists() == leaves
    assert make().step == (1 if leaves else 0)


def test_says_that_it_compiles_and_obeys_meanwhile(folder):
    """A signal is not handled by Python while JAX compiles, which takes far longer here than this test waits."""
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    arguments = ["--images", folder / "rgb.npy", "--out", folder / "stopped", "--noise", "gaussian:25", "--crop", "32"]
    command = [sys.executable, "-u", str(SCRIPT), *map(str, arguments)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline()]
        assert "compiling the step for jax" in lines[0]
        time.sleep(2.0)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        lines += process.stdout.readlines()
        code = process.wait(timeout=60)
    assert time.monotonic() - asked < 10.0
    assert code == 128 + signal.SIGTERM
    assert "stopped before the first step of this call was done" in lines[-1]
    assert not any("finished" in line for line in lines)


def test_says_when_the_first_step_is_done(whole_run):
    _, printed, _ = whole_run
    lines = printed.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("step 20/100"))
    said = [number for number, line in enumerate(lines) if line.startswith("compiled in ")]
    assert len(said) == 1 and said[0] < first
    assert lines[0].startswith("compiling the step for jax")


def test_loss_that_is_not_finite_stops_the_run_and_is_not_saved(tmp_path, monkeypatch):
    training, make = run_of(tmp_path, monkeypatch)
    run = make()
    run.save()
    after_one_step(training, run)
    run.training.stop_training = True
    with pytest.raises(ValueError, match="loss is nan at step 1; step 0 is saved"):
        run.on_epoch_end(0, {"loss": float("nan")})
    assert make().step == 0


@pytest.mark.parametrize("flag", ["--steps", "--batch", "--log-every"])
def test_counts_must_be_positive(flag, capsys):
    with pytest.raises(SystemExit):
        example.parse(["--images", "a.npy", "--out", "run", "--noise", "gaussian:25", flag, "0"])
    assert "must be at least 1" in capsys.readouterr().err


def crops(images, first_step=0, seed=0, batch=4, augment=False):
    return example.Crops(images, first_step, batch, 16, seed, augment, workers=2)


def test_crops_depend_on_seed_and_step_alone():
    images = [smooth_images(5, 20, 24, 3), smooth_images(6, 18, 16, 3, seed=3)]
    whole = [crops(images)[step][0] for step in (0, 1, 7)]
    dataset = crops(images)
    for step in (0, 0, 1):  # asked for twice, as `fit` may do
        np.testing.assert_array_equal(dataset[step][0], whole[step])
    np.testing.assert_array_equal(crops(images, first_step=5)[2][0], whole[2])
    assert not np.array_equal(crops(images, seed=1)[0][0], whole[0])
    assert not np.array_equal(crops(images, augment=True)[0][0], whole[0])
    assert whole[0].shape == (4, 16, 16, 3) and whole[0].dtype == np.uint8


def test_every_image_is_shown_once_per_pass_in_another_order():
    images = [np.full((count, 16, 16, 1), 0, "uint8") for count in (5, 7)]
    for number, image in enumerate(image for stack in images for image in stack):
        image[:] = number
    dataset = crops(images)
    shown = np.concatenate([dataset[step][0][:, 0, 0, 0] for step in range(6)])
    first, second = shown[:12], shown[12:]
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)


@pytest.mark.parametrize("low, high", [(0.1, 0.1), (0.05, 0.5)], ids=["known", "range"])
def test_noise_has_the_declared_sigma_and_changes(low, high):
    image = keras.Input((None, None, 1))
    passes_on = keras.Model(image, keras.layers.Concatenate()([image, image]))  # mean and factor are the noisy image
    training = example.NoisyTraining(passes_on, GaussianNoise(low, high), "prior", seed=0)
    clean = np.full((32, 40, 40, 1), 51, "uint8")
    first, second = (keras.ops.convert_to_numpy(training(clean))[..., 0] for _ in range(2))
    np.testing.assert_allclose(first.mean(), 51 / 255, atol=0.01)
    stds = first.std(axis=(1, 2))
    assert 0.93 * low < stds.min() and stds.max() < 1.07 * high
    assert (np.ptp(stds) > 0.6 * (high - low)) if high > low else np.ptp(stds) < 0.02
    assert np.abs(np.corrcoef(first.ravel() / stds.mean(), second.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((2, 40, 40, 3), "float32"), "must hold uint8"),
        (np.zeros((2, 40, 20, 3), "uint8"), "at least the crop"),
        (np.zeros((0, 40, 40, 3), "uint8"), "must hold uint8"),
        (np.zeros((40, 40), "uint8"), "must hold uint8"),
    ],
    ids=["float", "small", "empty", "single"],
)
def test_unfit_images_are_refused(tmp_path, array, message):
    np.save(tmp_path / "images.npy", array)
    with pytest.raises(ValueError, match=message):
        example.load_images([str(tmp_path)], crop=32)


def test_missing_and_mixed_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="No .npy file"):
        example.load_images([str(tmp_path)], crop=32)
    np.save(tmp_path / "grey.npy", np.zeros((2, 40, 40), "uint8"))
    assert example.load_images([str(tmp_path)], crop=32)[0].shape == (2, 40, 40, 1)
    np.save(tmp_path / "rgb.npy", np.zeros((2, 40, 40, 3), "uint8"))
    with pytest.raises(ValueError, match="as many channels"):
        example.load_images([str(tmp_path)], crop=32)
