"""Noise that grows with the signal: the models, their likelihood, how it is estimated, and the Anscombe transform."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from skimage import data

import bsdenoise
from bsdenoise import cli, images, loading, noise
from bsdenoise.likelihood import GaussianLikelihood
from bsdenoise.noise import anscombe, registry

GAIN, SIGMA, PEDESTAL = 0.02, 0.03, 0.05
THETA = np.array([GAIN, SIGMA, PEDESTAL], np.float32)


def photograph(name="astronaut", side=256):
    image = getattr(data, name)()
    grey = image if image.ndim == 2 else image @ [0.2989, 0.587, 0.114]
    return (grey[40 : 40 + side, 60 : 60 + side, None] / 255).astype("float32")


def psnr(one, other):
    return -10 * np.log10(np.mean(np.square(one.astype(float) - other)))


# --- what it is ----------------------------------------------------------------------------------------------------


def test_samples_have_mean_variance_and_whole_electrons():
    levels = np.array([0.0, PEDESTAL, 0.1, 0.5, 1.0], np.float32)
    clean = np.broadcast_to(levels, (400, 500, 5)).copy()
    noisy = noise.PoissonGaussianNoise((GAIN, GAIN), (SIGMA, SIGMA)).corrupt(clean, THETA, np.random.default_rng(0))
    assert noisy.dtype == np.float32
    variance = GAIN * np.maximum(levels - PEDESTAL, 0) + SIGMA**2
    np.testing.assert_allclose(noisy.mean(axis=(0, 1)), levels, atol=4 * np.sqrt(variance.max() / 200_000))
    np.testing.assert_allclose(noisy.var(axis=(0, 1)), variance, rtol=0.02)
    alone = noise.PoissonGaussianNoise((GAIN, GAIN)).corrupt(
        clean, np.float32([GAIN, 0, PEDESTAL]), np.random.default_rng(0)
    )
    electrons = (alone[..., 1:] - PEDESTAL) / GAIN
    np.testing.assert_allclose(electrons, np.round(electrons), atol=1e-3)


def test_variance_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    mean, theta = rng.uniform(-0.1, 1.1, (2, 3, 4, 2)), rng.uniform(0.01, 0.1, (2, 3))
    for xp, found in ((np, mean), (tf.keras.ops, tf.constant(mean))):
        values = np.asarray(
            noise.PoissonGaussianNoise((0.1, 0.1)).variance(found, theta if xp is np else tf.constant(theta), xp)
        )
        for place in np.ndindex(*mean.shape):
            gain, sigma, pedestal = theta[place[0]]
            assert values[place] == pytest.approx(gain * max(mean[place] - pedestal, 1e-3) + sigma**2, rel=1e-6)


def test_likelihood_and_posterior_take_the_variance_at_the_mean():
    rng = np.random.default_rng(0)
    outputs, noisy = (rng.uniform(0.1, 0.9, (1, 4, 5, size)).astype("float32") for size in (2, 1))
    prior = GaussianLikelihood(1).prior(tf.constant(outputs))
    model = noise.PoissonGaussianNoise((GAIN, GAIN))
    mean, factor = outputs[0, ..., 0].astype(float), outputs[0, ..., 1] + 0.1
    own = GAIN * np.maximum(mean - PEDESTAL, 1e-3) + SIGMA**2
    total, residual = np.square(factor.astype(float)) + own, noisy[0, ..., 0] - mean
    np.testing.assert_allclose(
        model.nll(prior, noisy, THETA[None])[0], 0.5 * (residual**2 / total + np.log(total)), rtol=1e-4
    )
    moments = model.posterior(prior, noisy, THETA[None])
    np.testing.assert_allclose(moments.denoised[0, ..., 0], noisy[0, ..., 0] - own / total * residual, rtol=1e-4)
    np.testing.assert_allclose(moments.variance[0, ..., 0], own * (1 - own / total), rtol=1e-3)


@pytest.mark.parametrize(
    ("spec", "full_scale", "least", "greatest"),
    [
        ("poisson-gaussian:gain=8.9,sigma=0,pedestal=6.5", 255, (8.9 / 255, 0, 6.5 / 255), (8.9 / 255, 0, 6.5 / 255)),
        ("poisson-gaussian:gain=2-18,pedestal=3-10", 255, (2 / 255, 0, 3 / 255), (18 / 255, 0, 10 / 255)),
        ("poisson-gaussian: sigma=1-2, gain=5 /100", 65535, (0.05, 0.01, 0), (0.05, 0.02, 0)),
        ("poisson-gaussian:gain=1,pedestal=-20", 200, (1 / 200, 0, -0.1), (1 / 200, 0, -0.1)),
        ("poisson:30", 65535, (1 / 30, 0, 0), (1 / 30, 0, 0)),
        ("poisson:5-50", 255, (1 / 50, 0, 0), (1 / 5, 0, 0)),
    ],
)
def test_specs(spec, full_scale, least, greatest):
    model = noise.parse(spec, full_scale)
    np.testing.assert_allclose(model.least, least, rtol=1e-12)
    np.testing.assert_allclose(model.greatest, greatest, rtol=1e-12)
    assert registry.deserialize(registry.serialize(model)) == model


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("poisson-gaussian:", "A poisson-gaussian SPEC reads"),
        ("poisson-gaussian:8.9", "A poisson-gaussian SPEC reads"),
        ("poisson-gaussian:sigma=3", "Gain is needed"),
        ("poisson-gaussian:gain=3,gain=4", "A poisson-gaussian SPEC reads"),
        ("poisson-gaussian:gain=3/0", "A poisson-gaussian SPEC reads"),
        ("poisson-gaussian:gain=0", "needs a positive gain or sigma"),
        ("poisson-gaussian:gain=9-3", "The gain of poisson-gaussian noise must lie between 0 and 1 .* lower end first"),
        ("poisson-gaussian:gain=300", "must lie between 0 and 1 as a fraction of full scale"),
        ("poisson:0", "A poisson SPEC reads poisson:30"),
        ("poisson:50-5", "A poisson SPEC reads poisson:30"),
        ("poisson:a", "A poisson SPEC reads poisson:30"),
        ("stabilized:3", "stabilized noise is no noise of images"),
    ],
)
def test_specs_that_say_nothing(spec, words):
    with pytest.raises(ValueError, match=words):
        noise.parse(spec, 255)


def test_photo_electrons_are_drawn_evenly():
    rng, model = np.random.default_rng(0), noise.parse("poisson:5-50", 255)
    electrons = np.array([1 / model.draw(rng)[0] for _ in range(3000)])
    counts, _ = np.histogram(electrons, 9, (5, 50))
    assert counts.min() > 260 and counts.max() < 410  # 333 each


# --- the transform -------------------------------------------------------------------------------------------------


def theta_of(*values):
    return np.array([values], np.float32)


@pytest.mark.parametrize("theta", [(0.02, 0.03, 0.05), (0.1, 0.0, 0.0), (0.004, 0.1, -0.2)], ids=str)
def test_transform_is_the_textbooks_less_a_constant(theta):
    gain, sigma, pedestal = theta
    z = np.linspace(pedestal, 1.0, 50)
    textbook = 2 / gain * np.sqrt(gain * (z - pedestal) + 0.375 * gain**2 + sigma**2)
    found = anscombe._transformed(z[None, None, :, None], np.array([theta]))[0, 0, :, 0]
    np.testing.assert_allclose(found, textbook - textbook[0], rtol=1e-9, atol=1e-9)


def test_without_gain_it_divides_by_sigma():
    z = np.linspace(-0.5, 1.5, 50, dtype=np.float32)[None, None, :, None]
    np.testing.assert_allclose(anscombe._transformed(z, theta_of(0, 0.1, 0)), z / 0.1, rtol=1e-6)
    tiny = anscombe._transformed(z, theta_of(1e-9, 0.1, 0))  # float32 would cancel in the textbook's form
    np.testing.assert_allclose(tiny, z / 0.1, rtol=1e-5)


@pytest.mark.parametrize(("theta", "level"), [((0.02, 0, 0), 0.2), ((0.02, 0.03, 0.1), 0.15), ((0.05, 0.02, 0), 0.9)])
def test_noise_has_a_standard_deviation_of_one(theta, level):
    clean = np.full((400, 500, 1), level, np.float32)
    noisy = anscombe.detector_noise(clean, np.float32(theta), np.random.default_rng(0))
    assert anscombe._transformed(noisy[None], theta_of(*theta)).std() == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("photons", [0.5, 1, 2, 5, 20, 100])
@pytest.mark.parametrize("sigma", [0.0, 0.02])
def test_inverse_is_unbiased(photons, sigma):
    """What is averaged after the transform comes back as the mean before it, not a quarter of a gain too low."""
    gain, pedestal = 0.01, 0.07
    theta, level = theta_of(gain, sigma, pedestal), pedestal + gain * photons
    clean = np.full((1000, 1000, 1), level, np.float32)
    noisy = anscombe.detector_noise(clean, theta[0], np.random.default_rng(1)).astype(float)
    mean = anscombe._transformed(noisy[None], theta.astype(float)).mean(keepdims=True)
    found = float(anscombe._inverse(mean, theta.astype(float))[0].squeeze())
    assert found == pytest.approx(level, abs=0.08 * gain)


def test_derivative_of_the_inverse():
    theta = np.array([[0.02, 0.03, 0.05]])
    t = np.linspace(0.5, 30, 60)[None, None, :, None]
    step = 1e-5
    value = [anscombe._inverse(t + sign * step, theta)[0] for sign in (-1, 1)]
    np.testing.assert_allclose(anscombe._inverse(t, theta)[1], (value[1] - value[0]) / (2 * step), rtol=1e-5)


# --- estimates -----------------------------------------------------------------------------------------------------


def curve(theta):
    """The variance at some levels, which is what matters: gain, σ and pedestal may trade places."""
    levels = np.array([0.2, 0.5, 0.8])[None, None, :, None]
    return noise.PoissonGaussianNoise((1, 1)).variance(levels, np.asarray(theta)[None]).squeeze()


def estimated(noisy, counts=None):
    return np.asarray(noise.estimate_poisson_gaussian(noisy[None], counts))[0]


@pytest.mark.parametrize("theta", [(0.02, 0.0, 0.0), (0.05, 0.02, 0.0), (0.01, 0.0, 0.03), (0.0, 0.1, 0.0)], ids=str)
@pytest.mark.parametrize("name", ["astronaut", "camera"])
def test_the_noise_curve_of_photographs_is_found(name, theta):
    noisy = anscombe.detector_noise(photograph(name), np.float32(theta), np.random.default_rng(0))
    np.testing.assert_allclose(curve(estimated(noisy)), curve(theta), rtol=0.15)


@pytest.mark.parametrize(("name", "gain", "pedestal"), [("camera", 0.04, 0.02), ("coffee", 0.1, 0.0)])
def test_few_dark_parts_do_not_cost_quality(stabilized, name, gain, pedestal):
    """Lines through bright parts alone meet zero anywhere; a pedestal that is too high costs most."""
    clean, losses = photograph(name, 192)[..., :1] * 0.9 + pedestal, []
    for seed in range(4):
        noisy = anscombe.detector_noise(clean, np.float32([gain, 0.0, pedestal]), np.random.default_rng(seed))
        told, found = (stabilized.denoise(noisy, noise=theta) for theta in ([gain, 0, pedestal], None))
        losses.append(psnr(told, clean) - psnr(found, clean))
    assert np.mean(losses) < 0.1 and max(losses) < 0.25


@pytest.mark.parametrize("axis", [0, 1], ids=["columns", "rows"])
def test_noise_that_neighbours_of_a_line_share_a_little_is_not_taken_for_weaker(axis):
    """As that of detectors that scan; white noise keeps its estimate."""
    clean = 0.7 * photograph("camera", 512) + 0.1
    white = np.random.default_rng(0).standard_normal(clean.shape).astype("float32")
    shared = white + 0.057 * np.roll(white, 1, axis)
    shared /= shared.std()
    plain, made_up_for = (curve(estimated(clean + np.sqrt(3 / 255 * clean) * noise)) for noise in (white, shared))
    np.testing.assert_allclose(made_up_for, plain, rtol=0.04)  # 0.92 without


def test_clipped_pixels_and_gaps_do_not_count():
    clean = np.tile(np.linspace(0, 1, 256, dtype=np.float32)[None, :, None], (256, 1, 1))
    noisy = anscombe.detector_noise(clean, np.float32([0.02, 0.05, 0]), np.random.default_rng(0))
    np.testing.assert_allclose(estimated(noisy), [0.02, 0.05, 0], atol=0.005)
    clipped = noisy.clip(0, 0.9)
    assert (np.mean(clipped == 0) > 0.02) and (np.mean(clipped == clipped.max()) > 0.08)
    np.testing.assert_allclose(curve(estimated(clipped)), curve([0.02, 0.05, 0]), rtol=0.15)
    counts = np.ones((1, 256, 256, 1), bool)
    counts[:, 100:140] = False
    spoilt = np.where(counts[0], noisy, 7.0).astype("float32")
    np.testing.assert_allclose(estimated(spoilt, counts), estimated(noisy), atol=0.004)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 200, 3), (1, 10, 10, 1), (1, 17, 31, 2)], ids=str)
def test_images_too_small_to_tell_have_an_estimate(shape):
    noisy = np.random.default_rng(0).uniform(size=shape).astype("float32")
    found = np.asarray(noise.estimate_poisson_gaussian(noisy))
    assert found.shape == (shape[0], 3) and np.isfinite(found).all()
    assert (found[:, 0] + found[:, 1] > 0).all()


STABILIZED = noise.StabilizedNoise(5 / 255, 50 / 255)


@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee", "cat", "brick", "grass"])
@pytest.mark.parametrize("sigma", [0, 10, 25, 50])
def test_white_noise_stays_white(name, sigma):
    """And photographs without noise, whose texture may be stronger where they are bright."""
    clean = photograph(name)
    noisy = clean + np.float32(sigma / 255) * np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    found = np.asarray(STABILIZED.estimate(noisy[None]))[0]
    assert (found[0], found[2]) == (0, 0)
    assert found[1] == np.asarray(STABILIZED.white.estimate(noisy[None]))[0, 0]


@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee", "cat"])
@pytest.mark.parametrize("photons", [10, 30, 100])
def test_noise_of_photons_is_seen(name, photons):
    noisy = anscombe.detector_noise(photograph(name), np.float32([1 / photons, 0, 0]), np.random.default_rng(0))
    found = np.asarray(STABILIZED.estimate(noisy[None]))[0]
    assert found[0] > 0
    np.testing.assert_allclose(curve(found)[1:], curve([1 / photons, 0, 0])[1:], rtol=0.2)


# --- models for white noise, stabilized ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def preset():
    return bsdenoise.load("grey-gaussian5-50-small")


@pytest.fixture(scope="module")
def stabilized(preset):
    return preset.stabilized()


def detected(name="camera", gain=1 / 25, pedestal=0.02, seed=0):
    clean = photograph(name, 192) * 0.9 + pedestal
    return clean, anscombe.detector_noise(clean, np.float32([gain, 0.0, pedestal]), np.random.default_rng(seed))


def test_noise_of_photons_is_denoised_better(preset, stabilized):
    clean, noisy = detected()
    told = stabilized.denoise(noisy, noise=[1 / 25, 0, 0.02])
    estimated = stabilized.posterior(noisy)
    assert psnr(told, clean) > psnr(preset.denoise(noisy), clean) + 0.5 > psnr(noisy, clean) + 5
    assert psnr(estimated.denoised, clean) > psnr(told, clean) - 0.15
    assert estimated.noise[0] == pytest.approx(1 / 25, rel=0.1) and estimated.sigma is None
    squared = np.square(estimated.denoised - clean, dtype=float)
    assert 0.6 < squared.mean() / np.square(estimated.std, dtype=float).mean() < 1.6
    assert np.isnan(estimated.estimated_psnr) or abs(estimated.estimated_psnr - psnr(estimated.denoised, clean)) < 4


def test_white_noise_is_denoised_as_before(preset, stabilized):
    clean = photograph("camera", 192)
    noisy = clean + np.float32(25 / 255) * np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    expected, found = preset.posterior(noisy), stabilized.posterior(noisy)
    np.testing.assert_allclose(found.denoised, expected.denoised, atol=2e-5)
    np.testing.assert_allclose(found.std, expected.std, atol=2e-5)
    np.testing.assert_allclose(found.noise, [0, expected.sigma, 0], rtol=1e-5)
    np.testing.assert_allclose(found.estimated_psnr, expected.estimated_psnr, atol=0.01)
    told = stabilized.denoise(noisy, noise=[0, 25 / 255, 0])
    np.testing.assert_allclose(told, preset.denoise(noisy, sigma=25 / 255), atol=2e-5)


def test_images_of_both_kinds_in_one_batch(stabilized):
    _, photons = detected()
    white = photons[::-1] * 0 + 0.5 + 0.1 * np.random.default_rng(0).standard_normal(photons.shape, np.float32)
    together = stabilized.posterior(np.stack([photons, white]))
    for index, one in enumerate((photons, white)):
        alone = stabilized.posterior(one)
        np.testing.assert_allclose(together.denoised[index], alone.denoised, atol=2e-5)
        np.testing.assert_allclose(together.noise[index], alone.noise, rtol=1e-4, atol=1e-6)


def test_tiles_windows_gaps_and_files(stabilized, tmp_path):
    _, noisy = detected()
    told = np.array([1 / 25, 0, 0.02], np.float32)
    whole = stabilized.denoise(noisy, noise=told)
    windows = stabilized.windows(lambda *window: noisy[window], noisy.shape, noise=told)
    for window, maps in windows:
        np.testing.assert_allclose(maps[0], whole[window], atol=1e-4)
    tiled = stabilized.denoise(noisy, noise=told, tile=160, overlap=64)
    assert psnr(tiled, whole) > 45
    gaps = noisy.copy()
    gaps[20:30, 20:40] = np.nan
    found = stabilized.posterior(gaps)
    assert np.isnan(found.denoised[20:30, 20:40]).all() and np.isfinite(found.denoised[50:]).all()
    assert found.noise[0] == pytest.approx(1 / 25, rel=0.12)
    stabilized.save(tmp_path / "a.keras")
    np.testing.assert_allclose(loading.load(tmp_path / "a.keras").denoise(noisy), stabilized.denoise(noisy), atol=1e-6)


def test_only_models_of_white_noise_of_a_range_are_stabilized(tmp_path):
    network = bsdenoise.blind_spot_network(1, 4, 1)
    for model in (noise.GaussianNoise(0.1, 0.1), noise.PoissonGaussianNoise((0.1, 0.2)), STABILIZED):
        with pytest.raises(ValueError, match="Only a model that was trained for white noise of a range"):
            bsdenoise.Denoiser(network, model).stabilized()


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_finds_noise_of_photons_by_itself(tmp_path, capsys, preset):
    clean, noisy = detected()
    images.write(tmp_path / "a.png", images.from_unit(noisy[..., 0], np.uint8))
    common = ["denoise", str(tmp_path / "a.png"), "--model", "grey-gaussian5-50-small", "--out"]
    assert cli.main([*common, str(tmp_path / "b.png"), "--std"]) == 0
    (gain,) = re.findall(r"a\.png: gain ([\d.]+), ", capsys.readouterr().err)
    assert float(gain) == pytest.approx(255 / 25, rel=0.2)  # of 192 × 192 pixels
    assert cli.main([*common, str(tmp_path / "c.png"), "--noise", "poisson-gaussian:gain=10.2,pedestal=5.1"]) == 0
    assert cli.main([*common, str(tmp_path / "d.png"), "--sigma", "20"]) == 0
    found = [psnr(images.read_array(tmp_path / f"{name}.png") / 255, clean[..., 0].clip(0, 1)) for name in "bcd"]
    assert found[0] > found[1] - 0.2 > found[2]
    (file,) = bsdenoise.denoise_files(tmp_path / "a.png", tmp_path / "e.png", model=preset)
    assert file.sigmas == () and file.noise[0]["gain"] == pytest.approx(10.2, rel=0.2)
    assert (tmp_path / "b-std.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--noise", "poisson-gaussian:gian=3"], "A poisson-gaussian SPEC reads"),
        (["--noise", "poisson:5-50"], "noise of a range is for training; give each file's own, or leave it out"),
        (["--noise", "poisson:30", "--sigma", "5"], "--sigma is for white noise, --noise for other kinds"),
        (["--noise", "loud"], "A noise SPEC reads gaussian:25"),
        (["--noise", "poisson:30", "--model", "grey-gaussian25"], "the model knows noise by sigma alone"),
    ],
)
def test_noise_that_cannot_be_told_is_one_line(tmp_path, capsys, options, words):
    images.write(tmp_path / "a.png", np.zeros((20, 20), np.uint8))
    options = options if "--model" in options else [*options, "--model", "grey-gaussian5-50-small"]
    assert cli.main(["denoise", str(tmp_path / "a.png"), "--out", str(tmp_path / "b.png"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("theta", [(1 / 30, 0.0, 0.0), (0.02, 0.03, 0.05), (0.0, 0.06, 0.0)])
def test_the_psnr_is_estimated_for_photons(stabilized, theta):
    """Over images and draws the estimate is unbiased; near black, where half of the photons are none, as well."""
    errors, estimates = [], []
    for number, name in enumerate(("astronaut", "camera", "coffee")):
        clean = 0.8 * photograph(name) + 0.05
        model = noise.PoissonGaussianNoise((theta[0] + 1e-9, 1.0), (0.0, 1.0), (-1.0, 1.0))
        noisy = model.corrupt(clean, np.float32(theta), np.random.default_rng(number))
        found = stabilized.posterior(noisy, noise=np.float32(theta))
        errors.append(np.mean(np.square(found.denoised - clean)))
        estimates.append(10 ** (-found.estimated_psnr / 10))
        assert found.estimated_psnr == pytest.approx(psnr(found.denoised, clean), abs=0.8)  # of 65,536 pixels
    assert np.mean(estimates) == pytest.approx(np.mean(errors), rel=0.1)


def test_the_psnr_is_estimated_for_photons_of_all_colours():
    denoiser = bsdenoise.load("rgb-gaussian5-50-small").stabilized()
    clean = (0.9 * data.coffee()[60:316, 60:316] / 255).astype("float32")
    noisy = noise.PoissonNoise((1 / 30, 1 / 30)).corrupt(clean, np.float32([1 / 30, 0, 0]), np.random.default_rng(0))
    found = denoiser.posterior(noisy, noise=[1 / 30, 0.0, 0.0])
    assert found.estimated_psnr == pytest.approx(psnr(found.denoised, clean), abs=0.6)


def test_the_psnr_is_that_of_a_loop(stabilized):
    """z f(z − gain) stands for x f(z), photon by photon."""
    gain, pedestal = 0.05, 0.1
    theta = np.array([[gain, 0.0, pedestal]])
    fit = anscombe.Stabilized(theta, np.zeros(1), np.ones(1), np.ones(1))
    noisy = (pedestal + gain * np.arange(12.0)).reshape(1, 1, 12, 1)
    mean, kept = np.full(noisy.shape, 0.35), 0.3
    expected = anscombe._solved(mean, theta)

    def estimate(image):
        t = expected + kept * (fit.applied(image) - expected)
        return fit.undone([t])[0], t

    denoised, t = estimate(noisy)
    variance = kept * anscombe._inverse(t, theta)[1] ** 2
    found = stabilized.noise.squared_errors(denoised, noisy, mean, variance, theta)
    np.testing.assert_allclose(anscombe._solved(denoised, theta), t, rtol=1e-6)
    for place, z in enumerate(gain * np.arange(12.0)):
        value, one_less = (
            estimate(np.full(noisy.shape, level + pedestal))[0][0, 0, place, 0] for level in (z, z - gain)
        )
        wanted = (value - pedestal) ** 2 - 2 * z * (one_less - pedestal) + z**2 - gain * z
        assert found[0, 0, place, 0] == pytest.approx(wanted, rel=1e-4, abs=1e-7)


def test_the_psnr_is_withheld_where_noise_is_another(preset, stabilized):
    clean, noisy = detected()
    assert np.isnan(preset.posterior(noisy).estimated_psnr) and np.isnan(
        preset.posterior(noisy, sigma=0.1).estimated_psnr
    )
    shared = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(clean.shape), (0.8, 0.8, 0))
    correlated = (clean + 0.06 / shared.std() * shared).astype("float32")
    for denoiser in (preset, stabilized):
        assert np.isnan(denoiser.posterior(correlated).estimated_psnr)
    white = clean + np.float32(0.1) * np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    found = preset.posterior(white, sigma=0.1)
    assert found.estimated_psnr == pytest.approx(psnr(found.denoised, clean), abs=0.8)


@pytest.mark.op_by_op
def test_trained_on_photons(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        images.write(folder / f"{number}.png", images.from_unit(photograph("astronaut", 48 + number)[..., 0], np.uint8))
    flags = ["train", folder, "--out", tmp_path / "run", "--noise", "poisson:5-50", "--corrupt", "fresh", "--images", 4]
    flags += ["--batch", 2, "--crop", 32, "--width", 4, "--depth", 1, "--validate-every", 2, "--validation-crop", 32]
    assert cli.main([*map(str, flags)]) == 0
    model = loading.load(tmp_path / "run")
    assert type(model.noise) is noise.PoissonNoise and model.noise.gain == pytest.approx((1 / 50, 1 / 5))
    found = model.posterior(detected()[1])
    assert found.noise.shape == (3,) and np.isfinite(found.std).all()


def test_presets_are_evaluated_on_photons(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    images.write(tmp_path / "set/a.png", images.from_unit(photograph("camera", 128)[..., 0], np.uint8))
    flags = ["evaluate", "--data", tmp_path / "set", "--noise", "poisson:20", "--json", tmp_path / "a.json"]
    assert cli.main([*map(str, flags), "--model", "grey-gaussian5-50-small"]) == 0
    (record,) = json.loads((tmp_path / "a.json").read_text())["images"]
    assert record["psnr_unrounded"] > record["psnr_noisy"] + 6 and record["sigma"] is None
    capsys.readouterr()
    assert cli.main([*map(str, flags), "--model", "grey-gaussian25"]) == 2
    assert "the noise is poisson, and the model grey-gaussian25 knows gaussian noise" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "gain", "sigma", "words"),
    [
        ("detector", 1 / 25, 0.0, "it grows with the signal; without --sigma it is taken as such"),
        ("shared", 0.0, 0.1, "neighbouring pixels share it; without --sigma it is made white first"),
        ("white", 0.0, 0.1, None),
    ],
)
def test_white_noise_that_is_declared_is_doubted_once(tmp_path, capsys, name, gain, sigma, words):
    clean, _ = detected()
    rng = np.random.default_rng(0)
    for number in range(2):
        drawn = rng.standard_normal(clean.shape)
        if name == "shared":
            drawn = ndimage.gaussian_filter(drawn, (1, 1, 0))
        noisy = anscombe.detector_noise(clean, np.float32([gain, 0, 0.02]), rng) + sigma * drawn / drawn.std()
        images.write(tmp_path / f"{number}.png", images.from_unit(noisy[..., 0], np.uint8))
    flags = ["--sigma", "25", "--model", "grey-gaussian5-50-small", "--out", str(tmp_path / "out")]
    assert cli.main(["denoise", str(tmp_path), *flags]) == 0
    said = capsys.readouterr().err
    assert said.count("--sigma says that its noise is white, and it looks as if") == (words is not None)
    assert words is None or f"0.png: --sigma says that its noise is white, and it looks as if {words}\n" in said


@pytest.mark.parametrize("offset", [0, 5000])
def test_a_pedestal_is_told_in_the_units_of_floats(tmp_path, offset):
    """What is estimated of a file says the same of it when it is told, wherever its black is."""
    clean, noisy = detected()
    images.write(tmp_path / "a.tif", (4000 * noisy[..., 0] + offset).astype(np.float32))
    model = {"model": "grey-gaussian5-50-small", "overwrite": True}
    (found,) = bsdenoise.denoise_files(tmp_path / "a.tif", tmp_path / "b.tif", **model)
    (theta,) = found.noise
    assert theta["gain"] == pytest.approx(160, rel=0.2) and theta["pedestal"] >= offset
    by_itself = images.read_array(tmp_path / "b.tif")
    spec = "poisson-gaussian:" + ",".join(f"{name}={value:.7g}" for name, value in theta.items())
    (told,) = bsdenoise.denoise_files(tmp_path / "a.tif", tmp_path / "b.tif", noise=spec, **model)
    assert told.error is None
    np.testing.assert_allclose(images.read_array(tmp_path / "b.tif"), by_itself, atol=2)
    assert psnr((by_itself - offset) / 4000, clean[..., 0]) > psnr(noisy, clean) + 5
