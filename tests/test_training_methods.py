"""Tests of training by the methods of Table 1, by one's own, and with given targets."""

import dataclasses
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import training_runs
from PIL import Image
from training_runs import assert_same_checkpoints, log_lines, logged_losses

from bsdenoise import methods
from bsdenoise.methods import registry
from bsdenoise.training import preparation
from bsdenoise.training.loop import train

source, config, quick_export = training_runs.source, training_runs.full_config, training_runs.quick_export


@pytest.mark.parametrize("factor", ["prior", "precision"])
def test_full_and_per_component_are_identical_on_grey(config, tmp_path, factor):
    """Same seed, one channel: the same weights, bit for bit."""
    config = dataclasses.replace(config, channels=1, factor=factor)
    runs = [dataclasses.replace(config, out=tmp_path / name, method=name) for name in ("full", "per_component")]
    for run in runs:
        train(run)
    assert logged_losses(runs[0].out) == logged_losses(runs[1].out)
    assert_same_checkpoints(runs[0].out, runs[1].out)


def test_the_documented_method_of_ones_own_trains(config, monkeypatch):
    """The class in docs/methods.md, as it stands there."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
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
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    class Own(methods.NoiseToVoid):
        name = "own"

    methods.register(Own())
    method = preparation.method_of(dataclasses.replace(config, method="own", n2v_radius=3))
    assert type(method) is Own and method.masking.radius == 3


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
    assert set(log_lines(config.out, "validation")[-1]) - {"kind", "step"} == (
        {"loss", "error", "held_out_psnr", "psnr"} if name == "n2c" else {"loss", "error", "held_out_psnr"}
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
        ({"method": "n2w"}, "--method must be one of full, .* n2v, or a method of one's own .*Received: n2w"),
        ({"method": "n2v", "n2v_fraction": 0.0}, "--n2v-fraction must be above 0 and at most 1. Received: 0.0"),
        ({"method": "n2v", "n2v_radius": 0}, "--n2v-radius must be at least 1. Received: 0"),
        ({"n2v_radius": 3}, "--n2v-radius is for --method n2v. Received: --method full"),
    ],
    ids=str,
)
def test_wrong_methods(config, change, message):
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(config, **change))
