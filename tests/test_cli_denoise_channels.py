"""`bsdenoise denoise` on channels that are no colours, and on integers with a full scale of their own."""

import contextlib
from types import SimpleNamespace

import denoise_command
import numpy as np
import pytest
import tifffile
from denoise_command import save_tiff

from bsdenoise import cli, images, presets
from bsdenoise.client import files
from bsdenoise.client.description import ServedNoise
from bsdenoise.noise.gaussian import PARAMETERS
from bsdenoise.pipeline import file_task

use_model = denoise_command.use_model
MINISBLACK = {"photometric": "minisblack", "planarconfig": "contig"}
INDEPENDENT = {
    "ome": ("a.ome.tif", (3, 9, 8), {"ome": True, "metadata": {"axes": "CYX"}}),
    "imagej": ("a.tif", (2, 3, 9, 8), {"imagej": True, "metadata": {"axes": "ZCYX"}}),
    "samples": ("a.tif", (9, 8, 3), {**MINISBLACK, "metadata": None}),
}


@pytest.fixture
def loaded(monkeypatch):
    """Doubles in the place of presets, by the names by which they were asked for."""
    return denoise_command.put_in_place_of_models(monkeypatch)


def denoise(*arguments):
    return cli.main(["denoise", *map(str, arguments)])


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize(("name", "shape", "options"), INDEPENDENT.values(), ids=INDEPENDENT)
def test_independent_channels_get_the_grey_preset_one_by_one(
    tmp_path, loaded, monkeypatch, is_large, name, shape, options
):
    if is_large:
        monkeypatch.setattr(file_task, "STREAMED_PIXELS", 1)
    pixels = save_tiff(tmp_path / name, shape, **options)
    assert denoise(tmp_path / name, "--out", tmp_path / "out") == 0
    assert [*loaded] == [presets.DEFAULTS[1]]
    assert {shape[-1] for shape in loaded[presets.DEFAULTS[1]].shapes} == {1}
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / name), pixels // 2)


def test_colour_files_beside_them_get_that_for_rgb(tmp_path, loaded):
    (tmp_path / "in").mkdir()
    save_tiff(tmp_path / "in/a.tif", (3, 9, 8), metadata={"axes": "CYX"})
    save_tiff(tmp_path / "in/b.tif", (9, 8, 3), photometric="rgb")
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert loaded[presets.DEFAULTS[3]].shapes == [(9, 8, 3)]
    assert loaded[presets.DEFAULTS[1]].shapes == [(9, 8, 1)] * 3


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("preset", ["rgb-gaussian5-50", "rgb-gaussian25-small"])
def test_a_preset_for_rgb_is_refused_in_one_line(tmp_path, loaded, monkeypatch, capsys, preset, is_large):
    if is_large:
        monkeypatch.setattr(file_task, "STREAMED_PIXELS", 1)
    save_tiff(tmp_path / "a.tif", (3, 9, 8), metadata={"axes": "CYX"})
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--model", preset) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "independent" in line]
    assert len(said) == 1
    assert f"preset {preset} is for: use {preset.replace('rgb', 'grey')}, which takes each channel" in said[0]
    assert not (tmp_path / "out").exists()


def test_a_model_of_the_users_own_takes_three_channels_together(tmp_path, use_model):
    denoiser = use_model(3)
    denoiser.provenance = {"started_from": {"preset": "rgb-gaussian5-50"}}
    pixels = save_tiff(tmp_path / "a.tif", (3, 9, 8), metadata={"axes": "CYX"})
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--model", "model.keras") == 0
    assert denoiser.shapes == [(9, 8, 3)]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.tif"), pixels // 2)


def test_what_png_makes_of_independent_channels_is_said(tmp_path, loaded, capsys):
    save_tiff(tmp_path / "a.tif", (3, 9, 8), metadata={"axes": "CYX"})
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "b.png") == 0
    assert "a.tif: its independent channels become red, green and blue: PNG has no others" in capsys.readouterr().err


# --- full scales -----------------------------------------------------------------------------------------------------


def packed(path, value, bits=12, shape=(9, 8)):
    tifffile.imwrite(path, np.full(shape, value, np.uint16), bitspersample=bits, photometric="minisblack")


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize(("sigma", "expected"), [("30", 30.0), ("0.02/1", None), (None, None)])
def test_packed_integers_are_fractions_of_their_own_full_scale(
    tmp_path, use_model, monkeypatch, capsys, bits, sigma, expected, is_large
):
    if is_large:
        monkeypatch.setattr(file_task, "STREAMED_PIXELS", 1)
    denoiser = use_model(1, is_known=False)
    full = 2**bits - 1
    packed(tmp_path / "a.tif", full, bits)
    told = [] if sigma is None else ["--sigma", sigma]
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--model", "model.keras", *told) == 0
    # The double estimates 0.1 (1 + mean), in units of full scale; and halves: to the nearest, halves upwards.
    used = 0.2 if sigma is None else 0.02 if expected is None else expected / full
    np.testing.assert_allclose(denoiser.sigmas, used, rtol=1e-6)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.tif"), np.full((9, 8), (full + 1) // 2))
    assert images.read(tmp_path / "out/a.tif").bits == bits
    if sigma is None:
        assert f"sigma {0.2 * full:.1f} (estimated)" in capsys.readouterr().err


def test_denoised_values_stay_within_their_bits(tmp_path, use_model, monkeypatch):
    denoiser = use_model(1)
    monkeypatch.setattr(denoiser, "denoise", lambda noisy, sigma, **options: np.full_like(noisy, 7.0))
    packed(tmp_path / "a.tif", 4000)
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--model", "model.keras") == 0
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out/b.png", "--model", "model.keras") == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.tif"), np.full((9, 8), 4095))
    np.testing.assert_array_equal(images.read_array(tmp_path / "out/b.png"), np.full((9, 8), 4095))


def test_files_of_several_depths_are_not_computed_with_one_sigma(tmp_path, use_model):
    denoiser = use_model(1)
    (tmp_path / "in").mkdir()
    for bits in (10, 12, 14):
        packed(tmp_path / f"in/{bits}.tif", 1000, bits)
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--model", "m.keras", "--sigma", "20") == 0
    np.testing.assert_allclose(sorted(denoiser.sigmas), sorted(20 / (2**bits - 1) for bits in (10, 12, 14)), rtol=1e-6)


def test_integers_stay_integers_for_a_model_of_floats(tmp_path, use_model, monkeypatch):
    """It refuses them by their type, which must not be hidden from it."""
    denoiser = use_model(1)
    denoiser.fractional = False
    seen = []
    monkeypatch.setattr(denoiser, "own_sigma", lambda image: np.full(len(image), 0.1))
    monkeypatch.setattr(denoiser, "posterior", None)
    monkeypatch.setattr(denoiser, "denoise", lambda noisy, sigma, **options: seen.append(noisy.dtype) or noisy / 2.0)
    packed(tmp_path / "a.tif", 100)
    denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--model", "model.keras")
    assert seen == [np.uint16]


DESCRIPTION = {"pixels": {"fractional": True, "scale": 1.0}}
NOISE = ServedNoise("gaussian", PARAMETERS, (0.1,), (0.1,))


def test_a_served_model_is_sent_fractions(tmp_path):
    asked = []

    def halve(noisy, sigma):
        asked.append((noisy.dtype, float(noisy.max()), sigma))
        return noisy / 2

    packed(tmp_path / "a.tif", 4095)
    served = SimpleNamespace(channels=1, denoise=halve, description=DESCRIPTION, has_posterior=True, noise=NOISE)
    files.denoise_file(served, tmp_path / "a.tif", tmp_path / "b.tif", 0.1)
    assert asked == [(np.float32, 1.0, 0.1)]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), np.full((9, 8), 2048))


@pytest.mark.parametrize(("training", "is_refused"), [({"preset": "rgb-gaussian5-50"}, True), (None, False)])
def test_a_served_model_for_rgb_is_refused_too(tmp_path, training, is_refused):
    served = SimpleNamespace(channels=3, denoise=lambda noisy: noisy / 510, has_posterior=False, noise=NOISE)
    served.method = SimpleNamespace(name="l2")
    served.description = DESCRIPTION | {"training": training}
    pixels = save_tiff(tmp_path / "a.tif", (3, 9, 8), metadata={"axes": "CYX"})
    with pytest.raises(ValueError, match="use grey-gaussian5-50, which") if is_refused else contextlib.nullcontext():
        files.denoise_file(served, tmp_path / "a.tif", tmp_path / "b.tif", None)
    assert (tmp_path / "b.tif").exists() is not is_refused
    if not is_refused:
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), pixels // 2)
