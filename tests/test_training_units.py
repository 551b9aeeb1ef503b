"""Tests of training on images of any bit depth, range and number of channels, in their own units from end to end."""

import contextlib
import dataclasses
import json
import re

import counts
import keras
import numpy as np
import pytest
import tifffile
import training_runs
from PIL import Image
from scipy import ndimage

from bsdenoise import cli
from bsdenoise.config import TrainConfig
from bsdenoise.training import loop, preparation
from bsdenoise.training.loop import train
from bsdenoise.training.run_folder import RunFolder, earlier_facts


def _patterns(count, side, channels, seed=0):
    """Clean images (count, side, side, channels) with values from 0 to 1: waves with an edge."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / 10.0
    images = np.empty((count, side, side, channels))
    for image in images:
        for channel in range(channels):
            image[..., channel] = 0.5 + 0.5 * np.sin(rows * rng.uniform() + columns * rng.uniform() + rng.uniform(0, 6))
        image[: side // 2] *= 0.5
    return images


def _config(source, folder, **flags):
    settings = {"noise": "gaussian:25", "width": 4, "depth": 1, "crop": 16, "batch": 2, "images": 8, "log_every": 2}
    settings |= {"ema": 0.5, "learning_rate": 3e-3, "validation_crop": 16, "out": folder / "run"}
    return TrainConfig(source=str(source), **(settings | flags))


@pytest.fixture(name="exported")
def _exported(monkeypatch):
    """What was exported, instead of the export."""
    exported = []
    monkeypatch.setattr(loop, "export_saved_model", lambda denoiser, folder: exported.append(denoiser))
    return exported


@pytest.mark.parametrize(
    ("channels", "flags"),
    [
        (2, {"method": "per_component"}),
        (5, {"factor": "prior"}),
    ],
    ids=str,
)
def test_channels(tmp_path, exported, channels, flags):
    stack = (60000 * _patterns(6, 24, channels)).astype("uint16")
    if channels == 5:
        tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack", planarconfig="contig")
        source = tmp_path / "stack.tif"
    else:
        source = tmp_path / "stack.npy"
        np.save(source, stack)
    config = _config(source, tmp_path, noise="gaussian:2000", corrupt="fresh", **flags)
    outcome = train(config)
    assert outcome.finished and np.isfinite(outcome.score)
    assert [denoiser.channels for denoiser in exported] == [channels]
    denoiser = keras.models.load_model(outcome.denoiser_path)
    assert denoiser.channels == channels and denoiser.fractional
    assert denoiser.method.name == config.method and denoiser.factor == config.factor
    posterior = denoiser.posterior(stack[0])
    assert posterior.denoised.shape == (24, 24, channels) and np.isfinite(posterior.denoised).all()
    assert 0 < posterior.std.mean() < 2 * 2000 / 65535
    np.testing.assert_array_equal(exported[0].denoise(stack[0]), posterior.denoised)


def test_a_folder_that_is_written_to_is_not_shared(tmp_path, exported):
    np.save(tmp_path / "stack.npy", _patterns(6, 24, 1).astype("float32"))
    config = _config(tmp_path / "stack.npy", tmp_path, noise="gaussian:0.1", corrupt="fresh", method="n2c", images=2)
    with contextlib.closing(RunFolder(config.out, config)):
        with pytest.raises(ValueError, match="run: another training writes there at this moment"):
            train(config)
    assert train(config).finished


def test_an_export_that_failed_is_made_up_for(tmp_path, monkeypatch):
    """Also where there is nothing left to train; but the same model is not exported twice."""
    np.save(tmp_path / "stack.npy", _patterns(6, 24, 1).astype("float32"))
    config = _config(tmp_path / "stack.npy", tmp_path, noise="gaussian:0.1", corrupt="fresh", method="n2c")
    training_runs.replace_export(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "export_saved_model", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            train(config)
    for _ in range(2):
        assert train(config).finished
        assert [path.name for path in (config.out / "export").iterdir()] == ["1"]


@pytest.mark.slow
@pytest.mark.graph
def test_real_export(tmp_path):
    np.save(tmp_path / "stack.npy", (100 + 4000 * _patterns(6, 24, 5)).astype("float32"))
    outcome = train(_config(tmp_path / "stack.npy", tmp_path, noise="gaussian:200", corrupt="fixed"))
    assert (outcome.denoiser_path.parent / "export" / "1" / "saved_model.pb").exists()


def _write_kind(kind, folder, channels=1):
    """Writes noisy stack and gives it, the clean one, σ, and the full scale; all in the files' own units."""
    rng = np.random.default_rng(3)
    low, high, sigma, dtype = {
        "12 bits in 16, hot pixels": (200, 3900, 300, "uint16"),
        "small floats": (-1e-3, 1e-3, 1.5e-4, "float64"),
    }[kind]
    clean = low + (high - low) * (0.1 + 0.8 * _patterns(10, 48, channels))
    noisy = rng.normal(clean, sigma)
    if dtype == "uint16":
        noisy = np.rint(noisy).clip(0, 65535)
    if "hot" in kind:
        for image in noisy[:3]:
            image[rng.integers(48), rng.integers(48)] = 65535
    noisy = noisy.astype(dtype)
    tifffile.imwrite(folder / "noisy.tif", noisy[..., 0], photometric="minisblack")
    return noisy, clean, sigma, 65535 if dtype == "uint16" else 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["12 bits in 16, hot pixels", "small floats"])
@pytest.mark.graph
def test_noisy_stack_to_denoised_stack(tmp_path, exported, kind, capsys):
    """Training on noisy images and `bsdenoise denoise`, with σ in the files' own units."""
    noisy, clean, sigma, full_scale = _write_kind(kind, tmp_path)
    config = _config(
        tmp_path / "noisy.tif", tmp_path, noise=f"gaussian:{sigma}", width=8, depth=1, crop=32, batch=4, images=1000,
        ema=0.9, validate_every=125, validation_crop=40, learning_rate=3e-3,
    )  # fmt: skip
    outcome = train(config)
    facts = json.loads((config.out / "config.json").read_text())["facts"]
    assert facts["fractional"] == (full_scale > 1)
    assert facts["noise"]["sigma"][0] * full_scale == pytest.approx(sigma)
    assert facts["estimated_sigma"] * full_scale == pytest.approx(sigma, rel=0.1)
    spread = np.percentile(noisy, 99.9) - np.percentile(noisy, 0.1)
    assert facts["scale"] * full_scale == pytest.approx(spread, rel=0.05)
    denoiser = exported[0]
    assert (denoiser.offset, denoiser.scale) == (facts["offset"], facts["scale"])
    out = tmp_path / "denoised.tif"
    assert cli.main(["denoise", str(tmp_path / "noisy.tif"), "--out", str(out), "--model", str(config.out)]) == 0
    denoised = tifffile.imread(out)
    assert denoised.dtype == noisy.dtype and denoised.shape == noisy.shape[:3]
    usual = noisy[..., 0] < 60000  # hot pixels stay hot: they do not follow the noise model
    errors = [np.sqrt(np.mean((image - clean[..., 0])[usual] ** 2)) for image in (noisy[..., 0], denoised)]
    assert errors[0] == pytest.approx(sigma, rel=0.03) and errors[1] < 0.8 * sigma
    if usual.all():
        # PSNR is estimated relative to the range; on few held-out pixels, whose noise may have 10 % more energy.
        mse = 10 ** (-outcome.score / 10) * (facts["scale"] * full_scale) ** 2
        assert mse == pytest.approx(errors[1] ** 2, abs=0.1 * sigma**2)
    pictures = sorted((config.out / "samples").glob("*.png"))
    panels = np.asarray(Image.open(pictures[-1]))
    assert panels.shape == (40, 160) and 40 < panels[:, :120].mean() < 215 and panels[:, :120].std() > 30


@pytest.mark.parametrize(
    ("dtype", "spec", "sigmas"),
    [
        ("uint8", "gaussian:25", (25, 25)),
        ("uint16", "gaussian:25", (25, 25)),
        ("uint16", "gaussian:10-40", (10, 40)),
        ("uint16", "gaussian:0.1/255", (25.7, 25.7)),
        ("float32", "gaussian:25", (25, 25)),
        ("float32", "gaussian:0.5-40", (0.5, 40)),
        ("float32", "gaussian:51/255", (0.2, 0.2)),
    ],
)
def test_noise_is_a_fraction_of_the_scale(tmp_path, dtype, spec, sigmas):
    np.save(tmp_path / "stack.npy", (200 * _patterns(5, 20, 1) + 20).astype(dtype))
    config = _config(tmp_path / "stack.npy", tmp_path, noise=spec, corrupt="fresh")
    data, sample = preparation.open_data(config)
    assert (data.scale == 1.0) == (dtype == "uint8")
    in_files = [level * data.scale * sample.full_scale for level in (data.noise.low, data.noise.high)]
    assert in_files == pytest.approx(sigmas, rel=1e-6)
    told = preparation.facts(data, sample)["noise"]
    assert told == {"sigma": pytest.approx(np.array(sigmas) / sample.full_scale, rel=1e-6)}


def test_eight_bits_have_exactly_the_old_sigma(tmp_path):
    np.save(tmp_path / "stack.npy", np.zeros((5, 20, 20), "uint8"))
    data, sample = preparation.open_data(_config(tmp_path / "stack.npy", tmp_path, corrupt="fresh"))
    assert (data.noise.low, data.noise.high, data.offset, data.scale) == (25 / 255, 25 / 255, 0.0, 1.0)


@pytest.mark.parametrize(
    ("dtype", "spec", "words"),
    [
        ("uint16", "gaussian:250", r"sigma of 250, and the images span only 200 \(from 20 to 220\)"),
        ("uint16", "gaussian:5-250", r"sigma of 250, and the images span only 200"),
        ("uint16", "gaussian:25/255", r"sigma of 6425, and the images span only 200"),
        ("float32", "gaussian:250", r"sigma of 250, and the images span only 200 \(from 20 to 220\)"),
        ("uint8", "gaussian:256", r"sigma of 256, and the images span only 255 \(from 0 to 255\)"),
    ],
)
def test_noise_beyond_the_range_of_the_data(tmp_path, dtype, spec, words):
    ramp = np.linspace(20, 220, 21 * 20).reshape(1, 21, 20)
    np.save(tmp_path / "stack.npy", np.repeat(np.where(ramp < 120, 20, 220), 2, axis=0).astype(dtype))
    with pytest.raises(ValueError, match=f"--noise {spec} has a {words}.*files' own units"):
        preparation.open_data(_config(tmp_path / "stack.npy", tmp_path, noise=spec, corrupt="fresh"))


@pytest.mark.parametrize(("dtype", "factor"), [("uint16", 1), ("float32", 1), ("float32", 1e-3)])
@pytest.mark.parametrize("is_clean", [True, False], ids=["clean", "noisy"])
def test_forgotten_corrupt_is_noticed_in_any_units(tmp_path, capsys, dtype, factor, is_clean):
    stack = 3000 * _patterns(5, 64, 1) + 1000
    if not is_clean:
        stack += np.random.default_rng(0).normal(0, 100, stack.shape)
    np.save(tmp_path / "stack.npy", (stack * factor).astype(dtype))
    preparation.open_data(_config(tmp_path / "stack.npy", tmp_path, noise=f"gaussian:{100 * factor:g}"))
    output = capsys.readouterr().out
    assert (f"says {100 * factor:.3g}. If they are clean, add --corrupt fresh" in output) == is_clean
    assert f"sigma {100 * factor:.4g} (all in the files' own units)" in output


def test_a_run_that_goes_on_keeps_its_range(tmp_path, exported, capsys):
    path = tmp_path / "stack.npy"
    stack = (4000 * _patterns(6, 24, 1)).astype("float32")
    np.save(path, stack)
    config = _config(path, tmp_path, noise="gaussian:200", corrupt="fresh", method="n2c")
    train(config)
    before = earlier_facts(config.out)
    assert before["scale"] == pytest.approx(4000, rel=0.2)
    np.save(path, np.concatenate([2 * stack, 2 * stack]))
    capsys.readouterr()
    train(dataclasses.replace(config, images=12))
    after = earlier_facts(config.out)
    assert (after["offset"], after["scale"]) == (before["offset"], before["scale"])
    assert (exported[1].offset, exported[1].scale) == (before["offset"], before["scale"])
    assert "SOURCE had 6 images when this run began and has 12 now" in capsys.readouterr().out
    fresh, _ = preparation.open_data(config)
    assert fresh.scale == pytest.approx(2 * before["scale"], rel=0.05)


def test_a_run_of_an_earlier_version_knew_no_range(tmp_path):
    np.save(tmp_path / "stack.npy", np.linspace(0, 0.1, 6 * 400, dtype="float32").reshape(6, 20, 20))
    data, _ = preparation.open_data(_config(tmp_path / "stack.npy", tmp_path, noise="gaussian:0.01"), {"channels": 1})
    assert (data.offset, data.scale, data.noise.low) == (0.0, 1.0, 0.01)


def test_earlier_facts_of_a_folder_without_a_run(tmp_path):
    assert earlier_facts(tmp_path / "missing") is None
    (tmp_path / "checkpoints").mkdir()
    assert earlier_facts(tmp_path) is None


def test_only_images_of_the_wanted_size_are_used(tmp_path, capsys):
    for number in range(12):
        array = np.full((20 + 2 * number, 30, 3), number, "uint8")
        Image.fromarray(array).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "broken.png").write_bytes(b"broken")
    config = _config(tmp_path, tmp_path, corrupt="fresh", min_side=24, max_side=36)
    data, sample = preparation.open_data(config)
    output = capsys.readouterr().out
    assert "7 of 13 images have sides within --min-side and --max-side" in output
    assert "warning: left out" in output and "broken.png" in output
    names = {data.source.name(int(index)) for index in [*data.held_out, *data.training]}
    assert names == {str(tmp_path / f"{number:02d}.png") for number in range(2, 9)}
    assert len(data.held_out) == 1 and preparation.facts(data, sample)["num_images"] == 7


def test_what_reading_changes_is_said_once(tmp_path, capsys):
    for number in range(40):
        Image.fromarray(np.full((20, 20, 4), number, "uint8")).save(tmp_path / f"{number:02d}.png")
    data, _ = preparation.open_data(_config(tmp_path, tmp_path, corrupt="fresh"))
    for number in range(40):
        data.example(number)
    lines = [line for line in capsys.readouterr().out.splitlines() if "alpha" in line]
    assert len(lines) == 1 and lines[0].startswith("note: ") and "00.png" in lines[0]
    assert data.channels == 3


def _photos(folder, noise, sigma, dtype="uint8", blur=0.0):
    """Eight photographs of 128×128 pixels with noise, in a stack of the type's own units."""
    rng = np.random.default_rng(0)
    clean = 255 * counts.photographs(8, 128)
    drawn = ndimage.gaussian_filter(rng.standard_normal(clean.shape), (0, blur, blur))
    noisy = clean + sigma * drawn / drawn.std()
    np.save(folder / "stack.npy", noisy if dtype == "float32" else np.rint(noisy).clip(0, 255).astype(dtype))
    preparation.open_data(_config(folder / "stack.npy", folder, **noise))


def test_correlated_noise_is_not_told_to_add_noise(tmp_path, capsys):
    _photos(tmp_path, {"noise": "gaussian:25"}, 25, blur=1.0)
    said = capsys.readouterr().out
    assert "neighbouring pixels seem to share their noise" in said and "--noise gaussian:25 says 25" in said
    assert "--corrupt" not in said


@pytest.mark.parametrize("sigma", [0, 25])
def test_clean_and_white_images_are_no_correlated_noise(tmp_path, capsys, sigma):
    _photos(tmp_path, {"noise": "gaussian:25"}, sigma)
    said = capsys.readouterr().out
    assert "share their noise" not in said and ("add --corrupt fresh" in said) == (sigma == 0)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("spec", ["gaussian:25", "poisson-gaussian:gain=4,sigma=0,pedestal=0"])
def test_noise_that_grows_with_the_signal_is_told_from_white_noise(tmp_path, capsys, dtype, spec):
    ramps = np.broadcast_to(np.linspace(10, 200, 128), (8, 128, 128))
    counted = 4 * np.random.default_rng(0).poisson(ramps / 4)
    np.save(tmp_path / "stack.npy", counted.clip(0, 255).astype(dtype))
    preparation.open_data(_config(tmp_path / "stack.npy", tmp_path, noise=spec))
    said = capsys.readouterr().out
    assert ("--noise gaussian:25 says that it is the same everywhere" in said) == (spec == "gaussian:25")
    if spec == "gaussian:25":
        declared = re.search("Declare --noise (poisson-gaussian:[^ ]+), or", said)[1]
        gain = float(re.search("gain=([0-9.]+)", declared)[1])
        assert gain == pytest.approx(4, rel=0.2) and said.count("warning") == 1


@pytest.mark.parametrize(("sigma", "declared"), [(25, 25), (25, 12), (10, 4)])
def test_more_noise_than_declared_is_noticed(tmp_path, capsys, sigma, declared):
    _photos(tmp_path, {"noise": f"gaussian:{declared}"}, sigma)
    said = capsys.readouterr().out
    assert (f"where --noise gaussian:{declared} says {declared}. If that is no fine texture" in said) == (
        declared < sigma
    )
    if declared < sigma:
        assert float(re.search("show noise of about ([0-9.]+)", said)[1]) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("spec", ["gaussian:25", "gaussian:5-50"])
@pytest.mark.parametrize("blur", [0.0, 1.0], ids=["white", "correlated"])
@pytest.mark.parametrize("sigma", [0, 25])
def test_noise_is_not_added_to_noisy_images_unsaid(tmp_path, capsys, spec, blur, sigma):
    _photos(tmp_path, {"noise": spec, "corrupt": "fresh"}, sigma, blur=blur)
    said = capsys.readouterr().out
    assert ("the images look noisy already" in said) == (sigma > 0)
    assert ("leave --corrupt out (--corrupt None where --config sets it)" in said) == (sigma > 0)


def test_a_fraction_of_floats_in_counts_is_told_the_cure(tmp_path, capsys):
    _photos(tmp_path, {"noise": "gaussian:25/255"}, 25, dtype="float32")
    assert "declare what they have, without a slash: the full scale of floats is 1" in capsys.readouterr().out
    np.save(tmp_path / "unit.npy", np.random.default_rng(0).random((5, 64, 64)).astype("float32"))
    with pytest.raises(ValueError, match="images from 0 to 1, 25 of 255 levels are gaussian:25/255"):
        preparation.open_data(_config(tmp_path / "unit.npy", tmp_path, noise="gaussian:25"))


def test_units_of_any_size_train_alike(tmp_path, exported):
    """Numbers in the units of the network do not depend on those of the files."""
    units = (1e-30, 1e30)
    rng = np.random.default_rng(0)
    noisy = rng.normal(100 + 50 * _patterns(6, 48, 1), 10.0)
    outcomes = []
    for scale in (1.0, *units):
        folder = tmp_path / f"{scale:g}"
        folder.mkdir()
        np.save(folder / "stack.npy", (noisy * scale).astype("float32"))
        outcomes.append(train(_config(folder / "stack.npy", folder, noise=f"gaussian:{10 * scale:g}")))
    ordinary, *others = exported
    expected = ordinary.denoise(noisy[0].astype("float32"))
    for unit, outcome, other in zip(units, outcomes[1:], others, strict=True):
        assert outcome.score == pytest.approx(outcomes[0].score, abs=0.05)
        assert other.scale == pytest.approx(unit * ordinary.scale, rel=1e-3)
        found = other.denoise((noisy[0] * unit).astype("float32")) / unit
        np.testing.assert_allclose(found, expected, rtol=0.01)


@pytest.mark.parametrize("kind", ["npy", "tif"])
def test_noise_that_single_precision_would_lose_is_refused(tmp_path, kind):
    stack = np.random.default_rng(0).normal(1e9, 1.0, (5, 40, 40))
    path = tmp_path / f"stack.{kind}"
    np.save(path, stack) if kind == "npy" else tifffile.imwrite(path, stack, photometric="minisblack")
    with pytest.raises(
        ValueError, match=r"the first is .*cannot hold .*beside values such as 1e\+09\. Subtract the offset"
    ):
        preparation.open_data(_config(path, tmp_path, noise="gaussian:1"))
    np.save(tmp_path / "moderate.npy", stack - 1e9 + 1e4)
    preparation.open_data(_config(tmp_path / "moderate.npy", tmp_path, noise="gaussian:1"))
