"""Noise that neighbouring pixels share: how it is measured, made white, and denoised."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import data

import bsdenoise
from bsdenoise import cli, images, noise
from bsdenoise.inference import whitening
from bsdenoise.noise import correlated, noise_floor, verdicts
from bsdenoise.noise.correlated import LAGS, blind_spot
from bsdenoise.pipeline import file_task

SIGMA = 16 / 255
BLUR = 0.8


def shared_noise(shape, seed=0, blur=BLUR):
    """Noise of standard deviation SIGMA, and the correlation of its direct neighbours."""
    white = np.random.default_rng(seed).standard_normal(shape)
    found = ndimage.gaussian_filter(white, (blur, blur, 0), mode="wrap")
    return (SIGMA * found / found.std()).astype("float32"), np.exp(-1 / (4 * blur**2))


@pytest.fixture(scope="module")
def clean():
    photograph = data.astronaut()[60:316, 60:316] @ [0.2989, 0.587, 0.114] / 255
    return photograph.astype("float32")[..., np.newaxis]


@pytest.fixture(scope="module")
def denoiser():
    return bsdenoise.load("grey-gaussian5-50-small")


def psnr(one, other):
    return -10 * np.log10(np.mean(np.square(one.astype(float) - other)))


# --- measuring -----------------------------------------------------------------------------------------------------


def test_autocovariance_is_that_of_the_noise():
    field, neighbours = shared_noise((400, 300, 2))
    found = noise.estimate_correlated(0.5 + field)
    # A plane is taken off each block, and the flattest blocks are those with a little less noise.
    np.testing.assert_allclose(found.sigma, SIGMA, rtol=0.15)
    assert found.neighbours == pytest.approx(neighbours, abs=0.08)
    assert found.correlation(3, -2) == pytest.approx(np.exp(-13 / (4 * BLUR**2)), abs=0.05)


def test_autocovariance_is_that_of_a_loop():
    image = np.random.default_rng(0).random((24, 24, 1))
    ramp = np.arange(24) - 11.5
    plane = np.stack([np.ones((24, 24)), np.broadcast_to(ramp, (24, 24)), np.broadcast_to(ramp, (24, 24)).T], -1)
    rest = image[..., 0] - plane @ np.linalg.lstsq(plane.reshape(-1, 3), image.ravel(), rcond=None)[0]
    found = noise.estimate_correlated(image).autocovariance[..., 0]
    for down, right in ((0, 0), (0, 1), (3, 0), (5, -7), (-8, 8)):
        pairs = [
            rest[row, column] * rest[row + down, column + right]
            for row in range(max(0, -down), min(24, 24 - down))
            for column in range(max(0, -right), min(24, 24 - right))
        ]
        assert found[LAGS + down, LAGS + right] == pytest.approx(np.mean(pairs), rel=1e-9, abs=1e-12)


def test_what_is_added_makes_it_white():
    field, _ = shared_noise((512, 512, 1))
    found = noise.estimate_correlated(0.5 + field)
    whole = field + found.complement(512, np.random.default_rng(1))
    assert whole.std() == pytest.approx(found.white_sigma, rel=0.1)
    again = noise.estimate_correlated(0.5 + whole)
    others = again.autocovariance[..., 0] / again.autocovariance[LAGS, LAGS, 0]
    others[LAGS, LAGS] = 0
    assert abs(others).max() < 0.1 < noise.estimate_correlated(0.5 + field).correlation(1, 1)


def test_white_noise_lacks_nothing():
    white = np.random.default_rng(0).normal(0.5, SIGMA, (400, 400, 1))
    found = noise.estimate_correlated(white)
    assert abs(found.neighbours) < 0.03 and found.white_sigma < 1.35 * SIGMA


def test_blocks_without_noise_or_measurement_do_not_count():
    field, neighbours = shared_noise((300, 300, 1))
    image = 0.5 + field
    image[:100], image[100:150], image[0, 0] = 0.0, np.nan, 1.0
    found = noise.estimate_correlated(image)
    assert found.neighbours == pytest.approx(neighbours, abs=0.08)
    np.testing.assert_allclose(found.sigma, SIGMA, rtol=0.2)


@pytest.mark.parametrize("image", [np.ones((23, 99, 1)), np.zeros((99, 99, 1)), np.full((99, 99, 1), np.nan)])
def test_what_cannot_be_measured_is_told(image, denoiser):
    assert noise.estimate_correlated(image) is None
    if not np.isnan(image).any():
        with pytest.raises(ValueError, match="cannot be measured"):
            denoiser.denoise_correlated(image.astype("float32"))


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        ({}, (1, 1)),
        ({(0, 1): 0.5}, (1, 3)),
        ({(1, 0): 0.5, (2, 0): 0.3}, (5, 1)),
        ({(1, 1): -0.3, (0, 2): 0.1}, (3, 3)),
    ],
)
def test_the_blind_spot_hides_what_is_shared(shared, expected):
    correlation = np.zeros((2 * LAGS + 1, 2 * LAGS + 1))
    correlation[LAGS, LAGS] = 1.0
    for (row, column), value in shared.items():
        correlation[LAGS + row, LAGS + column] = correlation[LAGS - row, LAGS - column] = value
    assert blind_spot(correlation) == expected


# --- denoising -----------------------------------------------------------------------------------------------------


def test_it_is_far_better_than_for_white_noise(clean, denoiser):
    field, _ = shared_noise(clean.shape)
    noisy = clean + field
    alone, correlated = denoiser.denoise(noisy), denoiser.denoise_correlated(noisy)
    assert correlated.shape == noisy.shape and correlated.dtype == np.float32
    assert psnr(correlated, clean) > psnr(alone, clean) + 2 and psnr(correlated, clean) > psnr(noisy, clean) + 3
    np.testing.assert_array_equal(denoiser.denoise_correlated(noisy), correlated)


def test_opposite_noise_cancels(clean, denoiser):
    """Where nothing is to be denoised, what is added goes again, whatever it is."""
    field, _ = shared_noise(clean.shape)
    found = noise.estimate_correlated(0.5 + field)
    whitened = whitening.Whitening([found], clean.shape[:2], 4)
    copies = whitened.applied(clean[None], 0, 0)
    assert copies.shape == (4, *clean.shape) and np.abs(copies[0] - copies[1]).max() > SIGMA
    np.testing.assert_allclose(whitened.averaged(copies)[0], clean, atol=1e-6)
    assert whitened.sigma.shape == (4,)
    part = whitened.applied(clean[None, 70:90, 30:77], 70, 30)
    np.testing.assert_array_equal(part, copies[:, 70:90, 30:77])


def test_batches_integers_and_blocks_are_as_single_images(clean, denoiser):
    noisy = np.stack([clean[:96, :80] + shared_noise((96, 80, 1), seed)[0] for seed in range(2)])
    pixels = np.uint8(np.clip(np.round(255 * noisy), 0, 255))
    both = denoiser.denoise_correlated(pixels)
    assert both.shape == pixels.shape
    found = [noise.estimate_correlated(one / np.float32(255)) for one in pixels]
    np.testing.assert_allclose(denoiser.denoise_correlated(pixels, found), both, atol=1e-6)
    np.testing.assert_allclose(denoiser.denoise_correlated(pixels[0, ..., 0]), both[0, ..., 0], atol=1e-5)
    tiled = denoiser.denoise_correlated(pixels[0], tile=64, overlap=0)
    # Without context tiles differ a little, most at their seams.
    assert 0 < np.abs(tiled - both[0]).mean() < 0.01
    masked = np.ma.masked_array(pixels[0], mask=False)
    masked[10:12, 20:22] = np.ma.masked
    result = denoiser.denoise_correlated(masked)
    assert np.ma.isMaskedArray(result) and result.mask.sum() == 4 and np.isfinite(result.compressed()).all()


def test_models_for_detectors_take_it_too(clean, denoiser):
    noisy = clean + shared_noise(clean.shape)[0]
    found = noise.estimate_correlated(noisy)
    expected = denoiser.denoise_correlated(noisy, found)
    np.testing.assert_allclose(denoiser.stabilized().denoise_correlated(noisy, found), expected, atol=1e-5)


def test_refusals(clean, denoiser):
    found = noise.estimate_correlated(clean + shared_noise(clean.shape)[0])
    for copies in (0, 1, 3, 2.0):
        with pytest.raises(ValueError, match="`copies`"):
            denoiser.denoise_correlated(clean, found, copies=copies)
    with pytest.raises(ValueError, match="one for each of 1"):
        denoiser.denoise_correlated(clean, [found, found])
    pointwise = bsdenoise.Denoiser(
        bsdenoise.unet(1, width=2, depth=1, num_outputs=1), bsdenoise.GaussianNoise(0.1, 0.1), method="n2c"
    )
    with pytest.raises(ValueError, match="told a sigma"):
        pointwise.denoise_correlated(clean, found)


# --- files ---------------------------------------------------------------------------------------------------------


def written(path, array):
    Image.fromarray(np.uint8(np.clip(np.round(255 * array[..., 0]), 0, 255))).save(path)
    return path


@pytest.mark.parametrize("is_large", [False, True])
def test_the_command_notices_and_says_so(tmp_path, clean, denoiser, monkeypatch, capsys, is_large):
    if is_large:
        monkeypatch.setattr(file_task, "STREAMED_PIXELS", 1)
    correlated = written(tmp_path / "correlated.png", clean + shared_noise(clean.shape)[0])
    white = written(tmp_path / "white.png", clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape))
    out = tmp_path / "out"
    model = ["--model", "grey-gaussian5-50-small", "--std"]
    assert cli.main(["denoise", str(correlated), str(white), "--out", str(out), *model]) == 0
    told = capsys.readouterr()
    lines = [line for line in (told.out + told.err).splitlines() if "neighbouring pixels" in line]
    assert len(lines) == 1 and "correlated.png" in lines[0] and "correlation 0.6" in lines[0]
    expected = denoiser.denoise_correlated(images.read_image(correlated).array)
    found = images.read_image(out / "correlated.png").array / 255
    assert np.abs(found - np.clip(expected, 0, 1)).max() < 1.01 / 255
    assert psnr(found, clean[..., 0]) > psnr(images.read_image(correlated).array / 255, clean[..., 0]) + 3
    ratios = images.read_image(out / "correlated-std.png").array
    assert ratios.dtype == np.uint8 and 0 < ratios.mean() < 255


def test_stacks_are_looked_at_once(tmp_path, clean):
    frames = np.stack([clean[..., 0] + shared_noise(clean.shape, seed)[0][..., 0] for seed in range(3)])
    np.save(tmp_path / "stack.npy", frames)
    [result] = bsdenoise.denoise_files(
        tmp_path / "stack.npy", tmp_path / "out.npy", model="grey-gaussian5-50-small", axes="TYX"
    )
    assert result.error is None
    assert sum("neighbouring pixels" in note for note in result.notes) == 1
    assert [sigma == pytest.approx(SIGMA, rel=0.2) for sigma in result.sigmas] == [True] * 3
    denoised = np.load(tmp_path / "out.npy")
    gains = [psnr(one, clean[..., 0]) - psnr(frame, clean[..., 0]) for one, frame in zip(denoised, frames, strict=True)]
    assert min(gains) > 3


# --- texture is not noise ------------------------------------------------------------------------------------------


def jpeg(array, quality):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def looks_correlated(array):
    return verdicts.looks_correlated(images.to_unit(array)[np.newaxis])


def test_channels_tell_noise_from_texture():
    """Those of texture vary alike, as in this fur; those of a camera's noise do not, in a JPEG file either."""
    cat = np.asarray(Image.fromarray(data.cat()).resize((225, 150), Image.Resampling.LANCZOS))
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(data.astronaut().shape), (0.8, 0.8, 0))
    camera = np.rint(data.astronaut() + 6 / noise.std() * noise).clip(0, 255).astype(np.uint8)
    limit = noise_floor.MAX_BETWEEN_CHANNELS
    for quality in (None, 85):
        texture = cat if quality is None else jpeg(cat, quality)
        floors = verdicts.known(verdicts.quiet_parts(images.to_unit(texture)[np.newaxis]))
        assert noise_floor.is_correlated(floors, 1.0)  # without a look at the channels
        assert correlated.between_channels(images.to_unit(texture)) > limit
        assert not looks_correlated(texture)
    for quality in (None, 90):
        noisy = camera if quality is None else jpeg(camera, quality)
        assert correlated.between_channels(images.to_unit(noisy)) < limit
        assert looks_correlated(noisy)
    assert not looks_correlated(data.astronaut())


def test_channels_that_are_one_or_are_no_colours_tell_nothing():
    grey = np.random.default_rng(0).random((64, 64, 1))
    for image in (grey, np.repeat(grey, 3, axis=-1), np.random.default_rng(0).random((64, 64, 4)), grey[:20]):
        assert np.isnan(correlated.between_channels(image))
    assert noise_floor.limits(np.nan) == noise_floor.USUAL
    assert abs(correlated.between_channels(np.random.default_rng(0).random((64, 64, 3)))) < 0.1
