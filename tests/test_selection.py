"""Which model a training keeps, on images whose noise is not the one σ that was declared: by the true errors."""

import dataclasses
import json

import counts
import numpy as np
import pytest
import tensorflow as tf
import tifffile
import training_runs
from scipy import ndimage

from bsdenoise import loading
from bsdenoise.config import TrainConfig
from bsdenoise.training import preparation, validation
from bsdenoise.training.loop import train
from bsdenoise.training.step import EARLIER_BEST, TrainingState
from bsdenoise.training.validation import MEASURED, SURE, Validation

quick_export = training_runs.quick_export
CAMERAS = {"mid": counts.Camera(), "mostly dark": counts.Camera(3500, 12.0, 6.0, 100.0, 3.0)}


def stack_config(camera, folder, count=20, side=96, factor=1.0, **flags):
    """A training on a noisy stack, told the root of the mean noise variance (times a factor); and the clean stack."""
    clean, noisy = counts.stacks(camera, count, side)
    tifffile.imwrite(folder / "stack.tif", noisy, photometric="minisblack")
    settings = {"width": 4, "depth": 1, "crop": 32, "batch": 2, "images": 8, "validation_images": 4}
    settings |= {"noise": f"gaussian:{factor * camera.rms(clean):.4g}", "out": folder / "run", "validation_crop": side}
    return TrainConfig(source=str(folder / "stack.tif"), **(settings | flags)), clean


def validation_of(config):
    data, _ = preparation.open_data(config)
    state = TrainingState(config, data, tf.distribute.get_strategy())
    return Validation(state.denoiser, data, config.validation_images, config.validation_crop), data


def in_network_units(clean, data):
    return [(clean[index][..., np.newaxis] / 65535 - data.offset) / data.scale for index in data.held_out]


@pytest.mark.parametrize(("camera", "factor"), [("mostly dark", 0.7), ("mid", 1.0), ("mid", 1.4), ("mostly dark", 1.4)])
def test_the_error_ranks_models_as_the_truth_does(camera, factor, tmp_path, monkeypatch):
    """Models that differ in how far they trust their own prediction, which is a blurred clean image."""
    config, clean = stack_config(CAMERAS[camera], tmp_path, count=40, factor=factor, validation_images=8)
    measured, data = validation_of(config)
    assert measured.score == MEASURED
    truths = in_network_units(clean, data)
    errors, sure, true = [], [], []
    for spread in np.geomspace(0.2, 5.0, 12):
        found = []

        def moments_of(example, spread=spread, found=found):
            truth = truths[len(found)]
            mean, variance = ndimage.gaussian_filter(truth, (1.5, 1.5, 0)), float(example.theta[0]) ** 2
            gain = variance / (variance + (spread * 0.03) ** 2)
            denoised = example.noisy - gain * (example.noisy - mean)
            found.append((np.mean((denoised - truth) ** 2), denoised - example.noisy, variance, 1 - gain))
            return 0.0, [denoised, mean, np.full_like(mean, variance * (1 - gain))]

        monkeypatch.setattr(measured, "_denoised", moments_of)
        result = measured()
        errors.append(result.error)
        true.append(np.mean([one[0] for one in found]))
        sure.append(np.mean([np.mean(moved**2) - v + 2 * v * left for _, moved, v, left in found]))
        assert result.values[SURE] is None
    true = np.array(true)
    assert true[np.argmin(errors)] < 1.1 * true.min()  # models differ by factors; the noise of few images is not exact
    if factor == 1.4:  # what the declared noise alone makes of it
        assert true[np.argmin(sure)] > 1.2 * true.min()


def test_white_noise_is_compared_by_the_declared_sigma(tmp_path):
    clean = counts.photographs(20, 96)
    noisy = 255 * clean + np.random.default_rng(0).normal(0, 15, clean.shape)
    np.save(tmp_path / "stack.npy", noisy.astype("float32"))
    config = TrainConfig(
        source=str(tmp_path / "stack.npy"), out=tmp_path / "run", noise="gaussian:15", width=4, depth=1, crop=32,
        validation_images=4,
    )  # fmt: skip
    measured, _ = validation_of(config)
    assert measured.score == SURE and measured.noise_range is None
    assert SURE in measured().values


@pytest.mark.slow
@pytest.mark.graph
def test_a_training_keeps_the_best_of_its_validations(tmp_path, monkeypatch):
    """From a preset that is told a σ that fits nowhere: whatever the interval, that of the least true error."""
    camera = CAMERAS["mid"]
    flags = {"images": 144, "batch": 4, "crop": 32, "width": None, "depth": None, "learning_rate": 6e-4, "ema": 0.9}
    config, clean = stack_config(camera, tmp_path, init="grey-gaussian5-50-small", validate_every=6, side=96, **flags)
    found, images = [], []
    validate, denoise = Validation.__call__, Validation._denoised

    def denoised(self, example):
        loss, moments = denoise(self, example)
        images.append(moments[0])
        return loss, moments

    def recorded(self):
        images.clear()
        result = validate(self)
        truths = in_network_units(clean, recorded.data)
        true = [np.mean((image - truth) ** 2) for image, truth in zip(images, truths, strict=True)]
        found.append((result.error, np.mean(true), result.values))
        return result

    recorded.data = preparation.open_data(config)[0]
    monkeypatch.setattr(Validation, "_denoised", denoised)
    monkeypatch.setattr(Validation, "__call__", recorded)
    train(config)
    errors, true = (np.array([row[number] for row in found]) for number in (0, 1))
    assert len(errors) == 7
    for interval in (1, 2, 3, 6):
        seen = np.arange(0, len(errors), interval)
        assert true[seen[np.argmin(errors[seen])]] < 1.02 * true[seen].min()
    assert loading.load(config.out).provenance["crops"] == 24 * np.argmin(errors)
    for line in (config.out / "log.jsonl").read_text().splitlines():
        values = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert all(value < 60 for name, value in values.items() if name.endswith("psnr") and value is not None)


def test_nothing_is_said_to_have_100_db(tmp_path, capsys):
    """A σ far too large: the estimate falls below zero, and is withheld; the smallest one is kept all the same."""
    config, _ = stack_config(CAMERAS["mid"], tmp_path, factor=3.0, validate_every=2)
    outcome = train(config)
    said = capsys.readouterr().out
    assert "does not fit the held-out images, whose sigma goes from about" in said
    assert "sure_psnr withheld" in said and "100.00" not in said
    lines = training_runs.log_lines(config.out, "validation")
    assert [line["sure_psnr"] for line in lines] == [None, None]
    best = min(lines, key=lambda line: line["error"])
    provenance = loading.load(config.out).provenance
    assert provenance["crops"] == 2 * best["step"]
    assert outcome.score == best["measured_psnr"]
    summary = json.loads((config.out / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert summary["best_error"] == best["error"] and summary["best_score"] == best["measured_psnr"]


def test_an_error_below_zero_is_withheld_and_still_compares(tmp_path, capsys, monkeypatch):
    config, _ = stack_config(CAMERAS["mid"], tmp_path, validate_every=1)
    measure, errors = Validation.__call__, [-1e-3, -3e-3, -2e-3, 1e-3]
    rest = iter(errors)

    def negative(self):
        result = measure(self)
        return dataclasses.replace(result, error=next(rest), values=result.values | {self.score: None})

    monkeypatch.setattr(Validation, "__call__", negative)
    assert train(config).score is None
    said = capsys.readouterr().out
    provenance = loading.load(config.out).provenance
    assert provenance["crops"] == 2 * (1 + np.argmin(errors)) and provenance["measured_psnr"] is None
    assert said.count("measured_psnr is withheld: the noise of the image is not what was declared") == 1
    summary = json.loads((config.out / "summary.json").read_text())
    assert (summary["best_score"], summary["best_error"]) == (None, min(errors))


@pytest.mark.parametrize(
    ("mean", "spread", "expected"),
    [(-1e-3, 0.0, None), (0.0, 0.0, None), (5e-5, 0.0, None), (1e-3, 0.1, None), (1e-3, 0.01, 30.0), (1e-3, 0.0, 30.0)],
    ids=["negative", "zero", "under a percent of the noise", "less than its own error", "clear", "certain"],
)
def test_a_psnr_that_cannot_be_believed_is_none(mean, spread, expected):
    term = mean + spread * np.resize([-1.0, 1.0], 1000)
    found = validation._psnr(SURE, [term, term], 0.1**2)
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_run_of_an_earlier_version_goes_on(tmp_path, capsys, monkeypatch):
    """Its checkpoints hold a PSNR of up to 100 dB, which nothing would surpass: the model it kept is measured anew."""
    config, _ = stack_config(CAMERAS["mid"], tmp_path, validate_every=2)
    short = dataclasses.replace(config, images=4)

    def earlier(self):
        names = {"network": self.network, "optimizer": self.optimizer, "average": self.denoiser.network}
        names |= {"loss_sum": self.loss_sum, "loss_count": self.loss_count, "num_skipped": self._num_skipped}
        return names | {EARLIER_BEST: tf.Variable(100.0, dtype=tf.float64)}

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "trackables", earlier)
        train(short)
    capsys.readouterr()
    outcome = train(config)
    said = capsys.readouterr().out
    assert said.count("begun by an earlier version") == 1 and "going on at step 2" in said
    assert outcome.finished and np.isfinite(outcome.summary["best_error"])
    assert outcome.summary["best_error"] <= training_runs.log_lines(config.out, "validation")[0]["error"] + 1e-12
