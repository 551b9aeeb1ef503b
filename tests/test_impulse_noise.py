"""Impulse noise: its likelihood, posterior, estimates, and the models that are trained for it."""

import counts
import keras
import numpy as np
import pytest
import tensorflow as tf
import training_runs
from PIL import Image

from bsdenoise import cli, images, loading, noise
from bsdenoise.export import export_saved_model
from bsdenoise.likelihood import GaussianLikelihood
from bsdenoise.noise.impulse import ROUNDING

THETA = np.array([0.3, 0.0, 1.0], np.float32)
MODEL = noise.ImpulseNoise((0.1, 0.7))


def gaussian(x, mean, covariance):
    residual = x - mean
    exponent = -0.5 * residual @ np.linalg.solve(covariance, residual)
    return np.exp(exponent) / np.sqrt(np.linalg.det(2 * np.pi * covariance))


@pytest.fixture(scope="module", params=[1, 3])
def drawn(request):
    """Predictions, clean pixels that follow them, and noisy ones: (1, H, W, C) each."""
    channels, rng = request.param, np.random.default_rng(request.param)
    likelihood = GaussianLikelihood(channels)
    outputs = 0.1 * rng.standard_normal((1, 300, 400, likelihood.num_outputs)).astype("float32")
    outputs[..., :channels] += 0.5
    prior = likelihood.prior(tf.constant(outputs))
    rows, columns = np.tril_indices(channels)
    factor = np.zeros((1, 300, 400, channels, channels))
    factor[..., rows, columns] = np.asarray(prior.factor, float)
    normal = rng.standard_normal((1, 300, 400, channels, 1))
    clean = np.asarray(prior.mean, float) + (factor @ normal)[..., 0]
    noisy = MODEL.corrupt(clean[0].astype("float32"), THETA, rng)[None]
    return prior, factor @ factor.swapaxes(-1, -2), clean, noisy


def test_corrupted_pixels_have_all_channels_replaced():
    clean = np.full((400, 500, 3), 2.0, np.float32)
    noisy = MODEL.corrupt(clean, np.float32([0.25, -0.5, 1.5]), np.random.default_rng(0))
    replaced = noisy != 2.0
    assert noisy.dtype == np.float32 and (replaced.all(axis=-1) == replaced.any(axis=-1)).all()
    assert replaced.mean() == pytest.approx(0.25, abs=0.005)
    colours = noisy[replaced[..., 0]]
    np.testing.assert_allclose([colours.min(), colours.max(), colours.mean()], [-0.5, 1.5, 0.5], atol=0.01)
    np.testing.assert_allclose(np.corrcoef(colours.T), np.eye(3), atol=0.02)


def test_likelihood_and_posterior_are_those_of_a_loop(drawn):
    prior, covariance, _, noisy = drawn
    theta = tf.constant(THETA[None])
    nll, moments = np.asarray(MODEL.nll(prior, noisy, theta)), MODEL.posterior(prior, noisy, theta)
    channels = noisy.shape[-1]
    for row, column in np.random.default_rng(0).integers(0, 300, (40, 2)):
        place = 0, row, column
        mean, seen = np.asarray(prior.mean[place], float), noisy[place].astype(float)
        kept = 0.7 * gaussian(seen, mean, covariance[place] + ROUNDING**2 * np.eye(channels))
        replaced = 0.3 * (seen.min() >= -ROUNDING and seen.max() <= 1 + ROUNDING)
        assert nll[place] == pytest.approx(-np.log(kept + replaced), rel=1e-3, abs=1e-3)
        weight = kept / (kept + replaced)
        expected = weight * seen + (1 - weight) * mean
        np.testing.assert_allclose(moments.denoised[place], expected, atol=2e-5)
        variance = (1 - weight) * (np.diag(covariance[place]) + weight * (seen - mean) ** 2)
        np.testing.assert_allclose(moments.variance[place], variance, rtol=1e-3, atol=1e-7)


def test_the_posterior_is_right_on_average(drawn):
    prior, _, clean, noisy = drawn
    moments = MODEL.posterior(prior, noisy, tf.constant(THETA[None]))
    denoised, mean, variance = (np.asarray(one, float) for one in moments)
    error = (denoised - clean) ** 2
    assert error.mean() == pytest.approx(variance.mean(), rel=0.03)
    assert error.mean() < 0.7 * min(((mean - clean) ** 2).mean(), ((noisy - clean) ** 2).mean())
    estimate = MODEL.squared_error_of_mean(mean, noisy, THETA[None].astype(float))
    assert estimate.mean() == pytest.approx(((mean - clean) ** 2).mean(), rel=0.05)
    added = MODEL.variance(clean, THETA[None])
    bias = 0.3 * (0.5 - clean)  # of the noise, which pulls to the middle of the range
    assert ((noisy - clean - bias) ** 2).mean() == pytest.approx(added.mean(), rel=0.02)


@pytest.mark.parametrize("fraction", [0.12, 0.5, 0.68])
def test_the_fraction_is_found(drawn, fraction):
    prior, _, clean, _ = drawn
    noisy = MODEL.corrupt(clean[0].astype("float32"), np.float32([fraction, 0, 1]), np.random.default_rng(1))[None]
    first = MODEL.estimate(tf.constant(noisy))
    np.testing.assert_allclose(first, [[0.4, 0.0, 1.0]], rtol=1e-6)
    found = np.asarray(MODEL.refined(prior, tf.constant(noisy), first))
    assert found[0, 0] == pytest.approx(fraction, abs=0.02)
    counted = np.ones(noisy.shape, bool)
    counted[:, :100] = False
    noisy[:, :100] = 5.0
    found = np.asarray(MODEL.refined(prior, tf.constant(noisy), first, tf.constant(counted)))
    assert found[0, 0] == pytest.approx(fraction, abs=0.025)


def test_other_units_change_nothing(drawn):
    """Images of 12-bit counts with an offset, as a network sees them."""
    theta = MODEL.rescaled(np.float32([0.3, 100.0, 4100.0]), 100.0, 4000.0)
    np.testing.assert_allclose(theta, THETA, rtol=1e-6)
    prior, _, _, noisy = drawn
    half = GaussianLikelihood(prior.channels).prior(tf.zeros((*noisy.shape[:3], 9 if prior.channels == 3 else 2)))
    for one in (prior, half):
        assert np.isfinite(np.asarray(MODEL.nll(one, 100 * noisy, tf.constant(THETA[None])))).all()


@pytest.mark.parametrize(
    ("spec", "fraction"), [("impulse:0.5", (0.5, 0.5)), ("impulse: 0.1-0.9", (0.1, 0.9)), ("impulse:.25", (0.25, 0.25))]
)
def test_specs(spec, fraction):
    assert noise.parse(spec, 255.0) == noise.parse(spec, 1.0) == noise.ImpulseNoise(fraction)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("impulse:", "An impulse SPEC reads"),
        ("impulse:half", "An impulse SPEC reads"),
        ("impulse:0.1-", "An impulse SPEC reads"),
        ("impulse:0", "between 0 and 1"),
        ("impulse:1", "between 0 and 1"),
        ("impulse:0.9-0.1", "between 0 and 1"),
    ],
)
def test_specs_that_say_nothing(spec, words):
    with pytest.raises(ValueError, match=words):
        noise.parse(spec, 255.0)


def test_a_precision_factor_is_refused():
    likelihood = GaussianLikelihood(1, "precision")
    prior = likelihood.prior(tf.zeros((1, 2, 2, likelihood.num_outputs)))
    with pytest.raises(ValueError, match='factor="prior"'):
        MODEL.posterior(prior, tf.zeros((1, 2, 2, 1)), tf.constant(THETA[None]))


def test_trained_exported_and_used(tmp_path, monkeypatch, capsys):
    training_runs.replace_export(monkeypatch)
    folder = tmp_path / "in"
    folder.mkdir()
    for number, photograph in enumerate(counts.photographs(4, 64)):
        Image.fromarray(np.uint8(np.round(255 * photograph))).save(folder / f"{number}.png")
    flags = ["train", folder, "--out", tmp_path / "run", "--noise", "impulse:0.2-0.6", "--corrupt", "fresh"]
    flags += ["--images", 16, "--batch", 4, "--crop", 32, "--width", 8, "--depth", 2]
    assert cli.main([*map(str, flags)]) == 0
    told = capsys.readouterr()
    assert "warning" not in told.out + told.err
    denoiser = loading.load(tmp_path / "run")
    assert denoiser.noise == noise.ImpulseNoise((0.2, 0.6))
    clean = counts.photographs(1, 64)[0][..., None].astype("float32")
    noisy = denoiser.noise.corrupt(clean, np.float32([0.4, 0, 1]), np.random.default_rng(0))
    found = denoiser.posterior(noisy, noise=[0.4, 0.0, 1.0])
    assert np.isnan(found.estimated_psnr) and found.std.max() > 0 and found.sigma is None
    assert 0.0 < denoiser.posterior(noisy).noise[0] < 1.0
    images.write(tmp_path / "a.png", np.uint8(np.round(255 * noisy[..., 0])))
    command = ["denoise", tmp_path / "a.png", "--model", tmp_path / "run", "--noise", "impulse:0.4"]
    assert cli.main([*map(str, command), "--out", str(tmp_path / "b.png")]) == 0
    expected = denoiser.denoise(images.read_image(tmp_path / "a.png").array, noise=[0.4, 0.0, 1.0])
    difference = images.read_image(tmp_path / "b.png").array / 255 - np.clip(expected, 0, 1)
    assert np.abs(difference).max() < 0.51 / 255
    served = tf.saved_model.load(export_saved_model(denoiser, tmp_path / "m" / "1")).signatures
    answer = served["posterior"](image=tf.constant(noisy[None]), noise=tf.constant([[0.4, 0.0, 1.0]]))
    np.testing.assert_allclose(answer["denoised"][0], found.denoised, atol=1e-5)
    assert answer["estimated_psnr"].numpy() == [-1.0]
    keras.backend.clear_session()
