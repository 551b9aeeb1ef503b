"""What `inspect` finds of images whose noise is known."""

import json

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

import bsdenoise
from bsdenoise import images
from bsdenoise.inspection import words
from bsdenoise.inspection.fixed_pattern import Shared
from bsdenoise.inspection.levels import Values
from bsdenoise.inspection.outliers import Defects
from bsdenoise.noise import StabilizedNoise, verdicts

SIDE = 256
PHOTOGRAPH = 0.8 * data.camera()[100 : 100 + SIDE, 100 : 100 + SIDE].astype(float) + 20
RAMP = np.tile(np.linspace(20.0, 200.0, SIDE), (SIDE, 1))
NOISE = np.random.default_rng(0).standard_normal((16, SIDE, SIDE))


def rounded(pixels, dtype=np.uint8):
    return np.rint(pixels).clip(0, np.iinfo(dtype).max).astype(dtype)


def counted(clean, gain, sigma=0.0, pedestal=0.0):
    """Photo-electrons that are counted, with read noise and a black level."""
    rng = np.random.default_rng(1)
    electrons = rng.poisson(np.maximum(clean - pedestal, 0) / gain)
    return gain * electrons + pedestal + sigma * rng.standard_normal(clean.shape)


@pytest.fixture
def look(tmp_path):
    """Writes an array as a file, and gives what is found of it."""

    def run(array, name="a.tif", **options):
        path = tmp_path / name
        if name.endswith(".npy"):
            np.save(path, array)
        else:
            images.write(path, array)
        found = bsdenoise.inspect_files(path, **options)
        json.dumps(found.as_dict(), allow_nan=False)
        assert found.files[0].error is None
        return found

    return run


# --- the kind of noise, and how strong it is -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        rounded(PHOTOGRAPH + 10 * NOISE[0]),
        rounded(40 * (PHOTOGRAPH + 10 * NOISE[0]), np.uint16),
        ((PHOTOGRAPH + 10 * NOISE[0]) / 255).astype(np.float32),
        (1000 + 40 * (PHOTOGRAPH + 10 * NOISE[0])).astype(np.float64),
    ],
    ids=["8 bits", "counts of 16 bits", "fractions", "floats in counts"],
)
def test_white_noise(look, array):
    found = look(array)
    (file,) = found.files
    unit = {"uint8": 1, "uint16": 40, "float32": 1 / 255, "float64": 40}[array.dtype.name]
    (channel,) = file.channels
    assert file.verdict == channel.verdict == found.collection.verdict == "white"
    assert channel.sigma.value == pytest.approx(10 * unit, rel=0.1)
    assert 0 < channel.sigma.error < 0.05 * channel.sigma.value
    assert abs(channel.lag(0, 1)) < 0.1 and abs(channel.lag(1, 0)) < 0.1 and channel.lag(0, 0) == 1
    assert file.theta[0, 0] == 0 and not file.pattern.is_found
    assert f"--noise gaussian:{channel.sigma.value:.4g}" in found.commands["train"]


@pytest.mark.parametrize(
    ("gain", "sigma", "pedestal", "offset", "dtype"),
    [(3, 0, 12, 0, np.uint8), (3, 8, 0, 0, np.uint8), (50, 0, 600, 0, np.uint16), (50, 0, 600, 5000, np.float32)],
)
def test_noise_of_a_detector(look, gain, sigma, pedestal, offset, dtype):
    clean = (RAMP - 15 if dtype == np.uint8 else 20 * (RAMP - 15)) + pedestal
    noisy = counted(clean, gain, sigma, pedestal) + offset
    found = look(noisy.astype(dtype) if dtype == np.float32 else rounded(noisy, dtype))
    (file,) = found.files
    curve = file.channels[0].curve
    assert file.verdict == "signal-dependent"
    assert curve.gain.value == pytest.approx(gain, rel=0.1)
    assert 0 < curve.gain.error < 0.1 * gain
    # σ and pedestal are two names for the variance at black: that is compared where the image is.
    for level in (clean.min(), clean.mean(), clean.max()):
        expected = gain * (level - pedestal) + sigma**2
        assert curve.line(np.array(level + offset)) == pytest.approx(expected, rel=0.1, abs=2 * gain)
    if pedestal:
        assert curve.pedestal.value - offset == pytest.approx(pedestal, rel=0.1) and curve.sigma.value == 0
        assert 0 < curve.pedestal.error < 0.2 * pedestal
    if sigma:
        assert curve.sigma.value == pytest.approx(sigma, rel=0.1) and curve.pedestal.value == 0
    # What is denoised with has a pedestal that is a little lower.
    used, *_, lowered = file.theta[0]
    assert used == pytest.approx(curve.gain.value, rel=0.05)
    assert curve.pedestal.value - 2 * (curve.pedestal.error or 0) <= lowered <= curve.pedestal.value + 1e-3
    declared = bsdenoise.noise.registry.read(found.commands["train"].split("--noise ")[1], file.full_scale)
    assert declared.least[0] * file.full_scale == pytest.approx(gain, rel=0.1)


def test_shared_noise(look):
    blurred = ndimage.gaussian_filter(NOISE[0], 1.0)
    found = look(rounded(0.7 * PHOTOGRAPH + 30 + 10 * blurred / blurred.std()))
    (channel,) = found.files[0].channels
    assert found.files[0].verdict == found.collection.verdict == "correlated"
    assert "--noise gaussian:" in found.commands["train"] and "--blind-spot 5x5" in found.commands["train"]
    assert channel.sigma.value == pytest.approx(10, rel=0.15)
    # Of a Gaussian of σ = 1, the autocorrelation is one of σ = √2.
    assert channel.lag(0, 1) == pytest.approx(np.exp(-1 / 4), abs=0.05)
    assert channel.lag(1, 1) == pytest.approx(np.exp(-1 / 2), abs=0.07)
    assert "unprocessed" in found.commands["advice"]


@pytest.mark.parametrize("greatest", [4095, 65535])
def test_shared_noise_is_weighed_against_the_range_of_intensities(look, greatest):
    """12-bit counts in a 16-bit file fill a sixteenth of its full scale."""
    blurred = ndimage.gaussian_filter(NOISE[0], 1.0)
    noisy = (0.7 * PHOTOGRAPH + 30 + 10 * blurred / blurred.std()) / 255
    counts = np.rint(greatest * noisy.clip(0, 1)).astype(np.uint16)
    clean = np.rint(greatest * (0.7 * PHOTOGRAPH + 30) / 255).astype(np.uint16)
    assert look(counts).files[0].verdict == "correlated"
    assert look(clean).files[0].verdict != "correlated"


@pytest.mark.parametrize(
    ("array", "verdict", "text"),
    [
        (data.astronaut()[:SIDE, 100 : 100 + SIDE], "none", "no noise found: at most sigma"),
        (np.full((SIDE, SIDE), 77, np.uint8), "none", "no noise found"),
        (rounded(PHOTOGRAPH + 10 * NOISE[0])[:5, :5], "unclear", "too small, less than 54 pixels"),
        (rounded(PHOTOGRAPH + 10 * NOISE[0])[:1, :1], "none", "no noise found"),
        (data.astronaut()[:SIDE, 100 : 100 + SIDE] / 255.0, "none", "no noise found: at most sigma"),
    ],
    ids=["clean", "constant", "tiny", "one pixel", "clean floats"],
)
def test_nothing_to_find(look, array, verdict, text):
    found = look(array)
    assert found.files[0].verdict == verdict
    assert text in words.as_text(found)


def test_the_verdict_is_what_denoise_goes_by(look):
    noisy = rounded(counted(PHOTOGRAPH, 3))
    seen = StabilizedNoise(5 / 255, 50 / 255).estimate(images.to_unit(noisy)[np.newaxis, ..., np.newaxis])
    np.testing.assert_allclose(look(noisy).files[0].theta, 255 * np.asarray(seen), rtol=1e-6)
    decided = verdicts.decide(images.to_unit(noisy)[np.newaxis, ..., np.newaxis], StabilizedNoise(5 / 255, 50 / 255))
    assert decided.kind == verdicts.SIGNAL_DEPENDENT


def test_colours_are_taken_together_and_other_channels_each(look):
    colours = np.stack([PHOTOGRAPH + 10 * noise for noise in NOISE[:3]], axis=-1)
    file = look(rounded(colours), "a.png").files[0]
    assert file.is_rgb and len(file.channels) == 3 and len(file.theta) == 1
    channels = np.stack([counted(RAMP, 3), PHOTOGRAPH + 10 * NOISE[0]], axis=-1)
    found = look(rounded(channels)[np.newaxis], "a.npy", axes="NYXC")
    assert [channel.verdict for channel in found.files[0].channels] == ["signal-dependent", "white"]
    assert found.files[0].theta[1, 0] == 0 and found.collection.gain.value == pytest.approx(3, rel=0.1)


def test_pixels_without_a_measurement(look, tmp_path):
    noisy = (PHOTOGRAPH + 10 * NOISE[0]).astype(np.float32)
    whole = look(noisy).files[0].channels[0].sigma.value
    for value, options in ((np.nan, {}), (-9999.0, {"no_data": -9999})):
        spoilt = noisy.copy()
        spoilt[:80, :80] = value
        file = look(spoilt, **options).files[0]
        assert file.ignored == pytest.approx(80**2 / SIDE**2) and file.channels[0].clipping.least > -100
        assert file.channels[0].sigma.value == pytest.approx(whole, rel=0.05)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:80, :80] = 255
    images.write(tmp_path / "mask.png", mask)
    spoilt[:80, :80] = 1e6
    file = look(spoilt, mask=tmp_path / "mask.png").files[0]
    assert file.channels[0].clipping.greatest < 400 and file.channels[0].sigma.value == pytest.approx(whole, rel=0.05)
    images.write(tmp_path / "nothing.tif", np.full((60, 60), np.nan, np.float32))
    (file,) = bsdenoise.inspect_files(tmp_path / "nothing.tif").files
    assert "none of its pixels holds a measurement" in str(file.error)


# --- values ----------------------------------------------------------------------------------------------------------


def test_saturated(look):
    noisy = rounded(1.5 * PHOTOGRAPH + 10 * NOISE[0])
    (channel,) = look(noisy).files[0].channels
    ends = channel.clipping
    assert ends.is_saturated and ends.at_greatest == np.mean(noisy == 255) > 0.05
    assert not ends.is_clipped_low
    assert channel.sigma.value == pytest.approx(10, rel=0.12)


def test_the_tail_of_a_histogram_is_no_limit():
    values = Values(rounded(128 + 2 * NOISE), 255.0)
    assert values.clipping().at_least > 0 and not values.clipping().is_clipped_low
    cut = Values(rounded(np.maximum(128 + 2 * NOISE, 126)), 255.0)
    assert cut.clipping().is_clipped_low and cut.clipping().least == 126


@pytest.mark.parametrize("step", [1, 4, 16])
def test_steps_between_levels(look, step):
    noisy = rounded(step * np.rint((PHOTOGRAPH + (3 if step == 16 else 6) * NOISE[0]) / step))
    found = look(noisy)
    levels = found.files[0].channels[0].levels
    assert levels.step == step and levels.distinct == len(np.unique(noisy))
    assert levels.sigma_in_steps == pytest.approx(found.files[0].channels[0].sigma.value / step)
    said = words.as_text(found)
    assert (f"its levels are {step} apart" in said) == (step > 1)
    assert ("rounding hides the noise" in said) == (step == 16)


def test_levels_of_floats_and_of_stretched_images():
    levels = Values((rounded(PHOTOGRAPH + 10 * NOISE[0]) / 255).astype(np.float32), None).described(10 / 255)
    assert levels.step == pytest.approx(1 / 255, rel=1e-3) and levels.sigma_in_steps == pytest.approx(10, rel=1e-3)
    assert Values(PHOTOGRAPH + NOISE[0], None).step() is None
    stretched = rounded(1.5 * rounded(0.6 * PHOTOGRAPH + 5 * NOISE[0]))
    described = Values(stretched, 255.0).described(7.5)
    assert described.step == 1 and described.share_used == pytest.approx(2 / 3, abs=0.05)


def test_effective_bits():
    noisy = rounded(RAMP + 8 * NOISE[0])
    expected = np.log2(np.ptp(noisy.astype(int)) / (8 * 12**0.5))
    assert Values(noisy, 255.0).described(8.0).effective_bits == pytest.approx(expected)


# --- detectors -------------------------------------------------------------------------------------------------------


def test_hot_and_dead_pixels(look):
    hot, dead = [(5 + 31 * k, 9 + 29 * k) for k in range(8)], [(40 + 20 * k, 200 - 17 * k) for k in range(5)]
    stack = 0.5 * RAMP + 90 + 4 * NOISE[:6]
    for number, places in ((75, hot), (-75, dead)):
        for place in places:
            stack[:, *place] += number
    found = look(rounded(stack)[..., np.newaxis])
    outliers = found.files[0].channels[0].outliers
    assert {*map(tuple, outliers.places)} == {*hot, *dead}
    assert outliers.hot == pytest.approx(8, abs=0.5) and outliers.dead == pytest.approx(5, abs=0.5)
    assert "13 places have one in most images" in words.as_text(found)


def test_few_photons_are_no_hot_pixels():
    noisy = counted(np.full((SIDE, SIDE), 3.0), 3)
    curve = bsdenoise.inspection.curves.through(np.array([0.0, 10.0]), np.array([0.0, 30.0]), np.ones(2), 0.0, 10.0)
    defects = Defects(2.0, curve, 3.0)
    defects.add(noisy, np.ones(noisy.shape, bool))
    assert defects.found().hot == 0


@pytest.mark.parametrize("number", [4, 8, 16])
def test_a_fixed_pattern(number):
    pattern = 4 * np.random.default_rng(5).standard_normal((SIDE, SIDE))
    shared, independent = Shared(), Shared()
    for index in range(number):
        frame = np.roll(PHOTOGRAPH, (17 * index, 29 * index), (0, 1)) + 6 * NOISE[index]
        shared.add(frame + pattern, np.ones(frame.shape, bool))
        independent.add(frame, np.ones(frame.shape, bool))
    found = shared.found(6.0)
    assert found.is_found and found.images == number
    assert found.sigma == pytest.approx(4, rel=0.2)
    assert not independent.found(6.0).is_found


@pytest.mark.parametrize("axis", [0, 1])
def test_a_pattern_of_lines(look, axis):
    lines = 3 * np.random.default_rng(6).standard_normal((SIDE, 1) if axis == 0 else (1, SIDE))
    found = look(rounded(PHOTOGRAPH + 6 * NOISE[0] + lines)).files[0].pattern
    strength = (found.rows, found.columns)
    assert found.is_found and strength[axis] == pytest.approx(3, rel=0.2) and strength[1 - axis] == 0


def test_a_stack_is_looked_at_in_part(look):
    found = look(rounded(PHOTOGRAPH[:64, :64] + 6 * np.random.default_rng(2).standard_normal((40, 64, 64)))[..., None])
    assert found.files[0].images == 16 and found.files[0].count == 40
    assert "looked at 16 of 40 images" in words.as_text(found)


def test_a_large_image_is_looked_at_in_its_middle(tmp_path):
    tile = rounded(PHOTOGRAPH + 10 * NOISE[0])
    images.write(tmp_path / "large.tif", np.tile(tile, (10, 9)))
    found = bsdenoise.inspect_files(tmp_path / "large.tif")
    assert found.files[0].window == (256, 2304, 128, 2176) and found.files[0].verdict == "white"
    assert "looked at the middle, 2048×2048 of 2304×2560 pixels" in words.as_text(found)


# --- several files ---------------------------------------------------------------------------------------------------


def test_files_together(tmp_path):
    for index in range(6):
        images.write(tmp_path / f"{index}.png", rounded(counted(RAMP + index, 3, 0, 12))[:128])
    reported = []
    found = bsdenoise.inspect_files(tmp_path, sample=4, report=reported.append)
    assert [file.source.stem for file in found.files] == ["0", "1", "3", "5"] and tuple(reported) == found.files
    assert found.available == 6 and found.collection.verdict == "signal-dependent"
    assert found.collection.gain.value == pytest.approx(3, rel=0.1)
    assert found.collection.gain.error < found.files[0].channels[0].curve.gain.error
    text = words.as_text(found)
    assert "looked at 4 of 6 files" in text and f"bsdenoise denoise {tmp_path} --out denoised" in text


def test_units_that_differ_are_not_taken_together(tmp_path):
    images.write(tmp_path / "a.png", rounded(RAMP + 10 * NOISE[0]))
    images.write(tmp_path / "b.tif", rounded(100 * (RAMP + 10 * NOISE[1]), np.uint16))
    found = bsdenoise.inspect_files(tmp_path)
    assert found.collection.verdict == "white" and found.collection.sigma is None
    assert found.commands["train"] is None and "one bit depth" in found.commands["advice"]


def test_a_bad_file_does_not_stop_the_others(tmp_path):
    (tmp_path / "a.png").write_bytes(b"broken")
    images.write(tmp_path / "b.png", rounded(RAMP + 10 * NOISE[0]))
    found = bsdenoise.inspect_files(tmp_path)
    assert "a.png: cannot be read" in str(found.files[0].error) and found.collection.verdict == "white"
    assert found.as_dict()["files"][0] == {"file": str(tmp_path / "a.png"), "error": str(found.files[0].error)}


def test_what_cannot_be_looked_at_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected at least one image file"):
        bsdenoise.inspect_files([])
    with pytest.raises(ValueError, match="no such file or folder"):
        bsdenoise.inspect_files(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="--sample must be at least 1"):
        bsdenoise.inspect_files(tmp_path, sample=0)
    images.write(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "masks").mkdir()
    images.write(tmp_path / "masks" / "b.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="No mask is named after an input, such as a.png"):
        bsdenoise.inspect_files(tmp_path / "a.png", mask=tmp_path / "masks")
