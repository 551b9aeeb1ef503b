"""Trainings that are not told the noise, or which blind spot it needs: what they measure, and that it stays."""

import dataclasses
import json
import re

import numpy as np
import pytest
import tifffile
import training_runs
from PIL import Image
from scipy import ndimage

import bsdenoise
from bsdenoise import cli, loading
from bsdenoise.config import TrainConfig
from bsdenoise.training import dry_run, preparation, unknown_noise
from bsdenoise.training.loop import train

quick_export = training_runs.quick_export
SIDE, COUNT = 128, 2
GAIN, PEDESTAL, SIGMA = 3.0, 12.0, 8.0
RAMP = np.tile(np.linspace(20.0, 200.0, SIDE), (SIDE, 1))


def detector(rng):
    return GAIN * rng.poisson((RAMP - PEDESTAL) / GAIN) + PEDESTAL


def white(rng):
    return RAMP + SIGMA * rng.standard_normal(RAMP.shape)


def shared(rng):
    blurred = ndimage.gaussian_filter(rng.standard_normal(RAMP.shape), 0.8)
    return 0.4 * RAMP + 60 + SIGMA * blurred / blurred.std()


def clean(rng):
    return RAMP


def texture(rng):
    """Fine in most of the image, and weak noise in the rest."""
    is_fine = RAMP.T > 40
    return RAMP + np.where(is_fine, 40 * rng.integers(0, 2, RAMP.shape), 3 * rng.standard_normal(RAMP.shape))


KINDS = (detector, white, shared, clean, texture)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of images of each kind."""
    found = {}
    for kind in KINDS:
        found[kind] = folder = tmp_path_factory.mktemp(kind.__name__)
        for number in range(COUNT):
            pixels = np.rint(kind(np.random.default_rng(number))).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return found


@pytest.fixture
def config(folders, tmp_path):
    def made(kind, **flags):
        settings = {"width": 4, "depth": 1, "crop": 16, "batch": 2, "images": 8, "ema": 0.5, "validation_crop": 32}
        return TrainConfig(str(folders.get(kind, kind)), tmp_path / "run", **{**settings, **flags})

    return made


def opened(config):
    """The noise in grey levels, and what is said."""
    said = []
    data, sample = preparation.open_data(config, None, said.append)
    noise = data.noise
    scale = data.scale * sample.full_scale
    theta = noise.restored(np.array(noise.least), data.offset * sample.full_scale, scale)
    return dict(zip((one.name for one in noise.parameters), theta, strict=True)), data, said


# --- the noise -----------------------------------------------------------------------------------------------------


def test_noise_of_a_detector_is_found_and_said_in_one_line(config, folders):
    theta, data, said = opened(config(detector))
    assert data.noise.kind == "poisson-gaussian" and data.noise.is_known
    assert theta["gain"] == pytest.approx(GAIN, rel=0.1)
    for level in (30, 100, 190):  # σ and pedestal are two names for the variance at black
        variance = theta["gain"] * (level - theta["pedestal"]) + theta["sigma"] ** 2
        assert variance == pytest.approx(GAIN * (level - PEDESTAL), rel=0.1, abs=2 * GAIN)
    (line,) = said
    assert line.startswith(f"noise of {COUNT} images: noise that grows with the signal") and "±" in line
    # It is what `inspect` says of the same images.
    command = bsdenoise.inspect_files(folders[detector]).commands["train"]
    spec = data.measured["noise"]
    assert command.endswith(f"--noise {spec}") and f"taken as --noise {spec}" in line


def test_white_noise_is_found(config):
    theta, data, said = opened(config(white, noise="unknown"))
    assert data.noise.kind == "gaussian" and data.noise.is_known
    assert theta["sigma"] == pytest.approx(SIGMA, rel=0.1)
    assert len(said) == 1


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_counts_have_units_of_their_own(config, tmp_path, dtype):
    """12 bits in 16, and floats far from 0."""
    offset = 0 if dtype == "uint16" else 5000
    stack = [offset + 16 * detector(np.random.default_rng(number)) for number in range(COUNT)]
    tifffile.imwrite(tmp_path / "stack.tif", np.array(stack).astype(dtype), photometric="minisblack")
    theta, data, _ = opened(config(tmp_path / "stack.tif"))
    assert data.noise.kind == "poisson-gaussian"
    assert theta["gain"] == pytest.approx(16 * GAIN, rel=0.1)
    level = offset + 16 * 100
    variance = theta["gain"] * (level - theta["pedestal"]) + theta["sigma"] ** 2
    assert variance == pytest.approx(16**2 * GAIN * (100 - PEDESTAL), rel=0.1)


def test_noise_that_differs_from_image_to_image_is_said(config, tmp_path):
    for number, factor in enumerate((1.0, 2.0)):
        noisy = RAMP + factor * SIGMA * np.random.default_rng(number).standard_normal(RAMP.shape)
        Image.fromarray(np.rint(noisy).clip(0, 255).astype("uint8")).save(tmp_path / f"{number}.png")
    *_, said = opened(config(tmp_path))
    low, high = re.search(r"differs from image to image, sigma ([\d.]+) to ([\d.]+)", said[1]).groups()
    assert float(low) == pytest.approx(SIGMA, rel=0.1) and float(high) == pytest.approx(2 * SIGMA, rel=0.1)


def test_pixels_that_are_masked_do_not_count(config, folders, tmp_path):
    """Half of each image is texture."""
    noisy = np.array(Image.open(folders[white] / "0.png"))
    noisy[:, SIDE // 2 :] = 255 * np.random.default_rng(0).integers(0, 2, (SIDE, SIDE // 2))
    Image.fromarray(noisy).save(tmp_path / "one.png")
    mask = np.zeros((SIDE, SIDE), "uint8")
    mask[:, SIDE // 2 :] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    theta, *_ = opened(config(tmp_path / "one.png", mask=str(tmp_path / "mask.png")))
    assert theta["sigma"] == pytest.approx(SIGMA, rel=0.15)


def test_a_run_goes_on_with_the_noise_that_it_began_with(config, monkeypatch, capsys):
    first = config(detector, images=12)
    with monkeypatch.context() as interrupting:
        training_runs.stop_at(interrupting, 2)
        assert train(first).step == 2
    measured = json.loads((first.out / "config.json").read_text())["facts"]["measured"]
    assert measured["verdict"] == "signal-dependent"
    with pytest.raises(ValueError, match="noise was 'unknown', now 'gaussian:25'"):
        train(dataclasses.replace(first, noise="gaussian:25"))
    monkeypatch.setattr(unknown_noise, "measure_picture", None)
    capsys.readouterr()
    assert train(dataclasses.replace(first, noise="unknown")).finished
    assert f"found when this run began: {measured['in_words']}" in capsys.readouterr().out
    content = json.loads((first.out / "config.json").read_text())
    assert content["facts"]["measured"] == measured and content["config"]["noise"] == "unknown"
    denoiser = loading.load(first.out)
    assert denoiser.provenance["noise"] == measured["noise"] and denoiser.provenance["measured"] == measured
    spec = bsdenoise.noise.parse(measured["noise"], 255)
    np.testing.assert_allclose(denoiser.noise.least, spec.least, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (clean, "No noise was found in 2 images.* If they are clean, add some by --noise"),
        (texture, "What noise 2 images have cannot be told: fine texture.* Say it by --noise"),
    ],
    ids=["clean", "texture"],
)
def test_where_nothing_can_be_measured_the_command_says_what_to_do(config, folders, tmp_path, capsys, kind, message):
    with pytest.raises(ValueError, match=message):
        opened(config(kind))
    command = ["train", str(folders[kind]), "--out", str(tmp_path / "run"), "--crop", "16"]
    capsys.readouterr()
    assert cli.main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"corrupt": "fresh"}, "--corrupt fresh needs --noise, the noise that is added"),
        ({"corrupt": "fixed", "noise": "unknown"}, "--corrupt fixed needs --noise"),
        ({"corrupt": "fresh", "noise": "gaussian:9", "blind_spot": "auto"}, "--blind-spot auto measures noise that"),
        ({"method": "n2v", "blind_spot": "auto"}, "--blind-spot is for methods whose network has one"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_refused_before_anything_is_opened(config, flags, message):
    with pytest.raises(ValueError, match=message):
        train(config("missing", **flags))


@pytest.mark.parametrize(("method", "kind"), [("l2", clean), ("n2v", texture), ("l2", detector)], ids=["0", "1", "2"])
def test_methods_without_a_posterior_need_no_noise(config, method, kind):
    """They use it for no more than the PSNR that is estimated in validation."""
    theta, data, _ = opened(config(kind, method=method))
    assert theta["sigma"] + theta.get("gain", 0) > 0
    assert data.noise.kind == ("poisson-gaussian" if kind is detector else "gaussian")


def test_one_of_them_trains_on_constant_images(config, tmp_path):
    for number in range(2):
        Image.fromarray(np.full((32, 32), 80, "uint8")).save(tmp_path / f"{number}.png")
    assert train(config(tmp_path, method="n2v", images=2)).finished


def test_the_plan_says_it_too(config, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "MIN_SECONDS", 0.0)
    dry_run.show(config(shared, blind_spot="auto", validation_images=1, validation_crop=16))
    said = capsys.readouterr().out
    assert said.startswith(f"noise of {COUNT} images: noise that neighbouring pixels share")


# --- the blind spot ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "noise"), [(shared, None), (shared, f"gaussian:{SIGMA}"), (white, None)], ids=["shared", "told", "white"]
)
def test_the_blind_spot_is_that_which_the_noise_needs(config, folders, kind, noise):
    theta, data, said = opened(config(kind, noise=noise, blind_spot="auto"))
    command = bsdenoise.inspect_files(folders[kind]).commands["train"]
    recommended = command.partition("--blind-spot ")[2] or "1x1"
    assert data.measured["blind_spot"] == recommended
    assert (recommended == "1x1") == (kind is white)
    assert f"--blind-spot {recommended}" in said[0]
    assert theta["sigma"] == pytest.approx(SIGMA, rel=0.15)
    assert (data.measured["noise"] is None) == (noise is not None)


def test_a_run_keeps_the_blind_spot_that_it_found(config, monkeypatch):
    first = config(shared, blind_spot="auto", images=12)
    with monkeypatch.context() as interrupting:
        training_runs.stop_at(interrupting, 2)
        train(first)
    monkeypatch.setattr(unknown_noise, "measure_picture", None)
    assert train(first).finished
    size = loading.load(first.out).blind_spot
    assert (
        "x".join(map(str, size))
        == json.loads((first.out / "config.json").read_text())["facts"]["measured"]["blind_spot"]
    )
    assert min(size) > 1


def test_without_auto_it_is_said_that_one_is_needed(config):
    _, data, said = opened(config(shared))
    assert "--blind-spot auto" in said[1] and data.measured["needed_blind_spot"] in said[1]
    for told in (opened(config(shared, blind_spot="3x3")), opened(config(white))):
        assert len(told[2]) == 1
