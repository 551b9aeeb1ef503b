"""Tests of the validation during a training."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import training_runs

from bsdenoise.images import missing
from bsdenoise.training import preparation
from bsdenoise.training.loop import train
from bsdenoise.training.run_folder import sample_picture
from bsdenoise.training.step import TrainingState
from bsdenoise.training.validation import Validation

source, config, quick_export = training_runs.source, training_runs.full_config, training_runs.quick_export


def test_validation_equals_a_twin(config):
    """Validation numbers against what the denoiser and plain NumPy give for the same images."""
    data, _ = preparation.open_data(config)
    state = TrainingState(config, data, tf.distribute.get_strategy())
    validated = Validation(state.denoiser, data, 16, 30)()
    values, moments = validated.values, validated.moments
    crop = data.validation_crop(int(data.held_out[0]), 30)
    noisy, sigma, clean = crop.noisy(0), crop.theta[0], crop.clean
    result = state.denoiser.posterior(noisy, sigma=float(sigma))
    np.testing.assert_allclose(moments[0], result.denoised, atol=1e-5)
    assert values["psnr"] == pytest.approx(-10 * np.log10(np.mean((result.denoised - clean) ** 2)), abs=1e-3)
    assert values["psnr_mean"] == pytest.approx(-10 * np.log10(np.mean((result.mean - clean) ** 2)), abs=1e-3)
    assert values["sure_psnr"] == pytest.approx(result.estimated_psnr, abs=1e-3)
    assert validated.error == pytest.approx(10 ** (-values["sure_psnr"] / 10), rel=1e-6)
    expected = -10 * np.log10(np.mean((result.mean - noisy) ** 2) - sigma**2)
    assert values["sure_psnr_mean"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["l2", "n2n", "n2c", "n2v"])
def test_validation_of_point_estimates_equals_a_twin(config, name):
    settings = {"n2v_fraction": 0.1} if name == "n2v" else {}
    data, _ = preparation.open_data(dataclasses.replace(config, method=name, **settings))
    state = TrainingState(config, data, tf.distribute.get_strategy())
    validation = Validation(state.denoiser, data, 16, 30)
    validated = validation()
    values, moments = validated.values, validated.moments
    crop = data.validation_crop(int(data.held_out[0]), 30)
    shown, target = data.method.example(crop)
    noisy, clean, variance = crop.noisy(0), crop.clean, float(crop.theta[0]) ** 2
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


def test_validation_without_held_out_images(config, source, capsys):
    config = dataclasses.replace(config, source=str(source / "0.png"), images=4)
    assert train(config).finished
    assert "too few images to hold any out" in capsys.readouterr().out


def test_unreadable_held_out_images_are_replaced_in_validation(config, source, tmp_path):
    data, _ = preparation.open_data(config)
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / Path(data.source.name(int(data.held_out[0]))).name).write_bytes(b"broken")
    assert train(dataclasses.replace(config, source=str(tmp_path), images=4)).finished


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_sample_picture(channels):
    shape = (4, 5, channels)
    moments = [np.full(shape, level) for level in (0.5, 0.25, 0.05**2)]
    picture = sample_picture(np.full(shape, 1.0), moments, 0.1)
    assert picture.shape == (4, 20, 3 if channels == 3 else 1) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[0, ::5, 0], [255, 64, 128, 128])
    picture = sample_picture(np.full(shape, 1.0), moments[:1], 0.1)
    np.testing.assert_array_equal(picture[0, ::5, 0], [255, 128])


def test_pixels_that_were_not_measured_do_not_count(config, tmp_path):
    """SURE and PSNR are those of the measured pixels, by NumPy on what the denoiser gives for the filled one."""
    folder = tmp_path / "gaps"
    folder.mkdir()
    for number in range(6):
        array = training_runs.smooth(48, 40, number).astype("float32") / 255
        array[10:30, 5:30] = np.nan
        np.save(folder / f"{number}.npy", array)
    config = dataclasses.replace(config, source=str(folder), noise="gaussian:0.1")
    data, sample = preparation.open_data(config)
    assert sample.ignored == pytest.approx(500 / 48 / 40)
    state = TrainingState(config, data, tf.distribute.get_strategy())
    values = Validation(state.denoiser, data, 16, 64)().values
    crop = data.validation_crop(int(data.held_out[0]), 64)
    measured = ~np.isnan(crop.clean).any(axis=-1)
    assert measured.sum() == 48 * 40 - 500
    noisy = missing.filled(crop.noisy(0)) * data.scale + data.offset
    result = state.denoiser.posterior(noisy, sigma=float(crop.theta[0]) * data.scale)
    denoised, mean = ((one - data.offset) / data.scale for one in (result.denoised, result.mean))
    assert values["psnr"] == pytest.approx(-10 * np.log10(np.mean((denoised - crop.clean)[measured] ** 2)), abs=2e-2)
    expected = -10 * np.log10(np.mean((mean - crop.noisy(0))[measured] ** 2) - crop.theta[0] ** 2)
    assert values["sure_psnr_mean"] == pytest.approx(expected, abs=2e-2)
    assert np.isfinite(values["loss"])
