"""Pixels without a measurement on the page: left as they are, no part of what is told, and the command's file."""

import numpy as np
import pytest
import tifffile

from bsdenoise import cli
from bsdenoise.app.denoising import Workshop
from bsdenoise.app.page import Handlers
from bsdenoise.cli import models

GDAL_NODATA = 42113


def pixels_with_gaps(dtype, value):
    """Noise around the middle of the range, with a frame and a few spots of a value that means nothing."""
    rng = np.random.default_rng(0)
    scale = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    pixels = (scale * (0.5 + 0.1 * rng.standard_normal((30, 40)))).astype(dtype)
    gaps = np.zeros((30, 40), bool)
    gaps[:5], gaps[20, 7:9], gaps[:, -1] = True, True, True
    pixels[gaps] = value
    return pixels, gaps


FILES = {
    "counts": (np.uint16, 0, "0", "a.tif"),
    "floats": (np.float32, -9999.0, "-9999", "a.tif"),
    "NaN": (np.float32, np.nan, None, "a.npy"),
}


@pytest.mark.parametrize("sigma", [None, "0.1/1"], ids=["estimated", "given"])
@pytest.mark.parametrize(("dtype", "value", "declared", "name"), FILES.values(), ids=FILES)
def test_they_come_back_and_the_file_is_that_of_the_command(
    tmp_path, tiny_denoiser_path, dtype, value, declared, name, sigma
):
    pixels, gaps = pixels_with_gaps(dtype, value)
    source = tmp_path / name
    if declared is None:
        np.save(source, pixels)
    else:
        tag = (GDAL_NODATA, 2, len(declared) + 1, declared, True)
        tifffile.imwrite(source, pixels, photometric="minisblack", extratags=[tag])
    path = tiny_denoiser_path(1, 60 / 255)
    workshop = Workshop(models.load_denoiser(path), 2**20)
    _, chosen, _ = workshop.denoise(source, tmp_path / f"page-{name}", sigma, 0)
    flags = [] if sigma is None else ["--sigma", sigma]
    assert cli.main(["denoise", str(source), "--out", str(tmp_path / "out"), "--model", str(path), *flags]) == 0
    assert (tmp_path / f"page-{name}").read_bytes() == (tmp_path / "out" / name).read_bytes()
    np.testing.assert_array_equal(chosen.denoised[gaps, 0], pixels[gaps])
    np.testing.assert_array_equal(chosen.noisy[..., 0], pixels)
    assert (chosen.denoised[~gaps, 0] != pixels[~gaps]).mean() > 0.9
    np.testing.assert_array_equal(np.isnan(chosen.ratio), gaps)
    assert chosen.ignored_share == pytest.approx(gaps.mean())
    scale = 65535 if dtype == np.uint16 else 1
    assert chosen.sigmas[0] / scale == pytest.approx(0.1, rel=0.15)


@pytest.mark.filterwarnings("error")
def test_they_are_told_and_drawn_in_grey(tmp_path, tiny_denoiser_path):
    pytest.importorskip("gradio")
    pixels, gaps = pixels_with_gaps(np.float32, np.nan)
    np.save(tmp_path / "a.npy", pixels)
    handlers = Handlers(Workshop(models.load_denoiser(tiny_denoiser_path(1, 60 / 255)), 2**20), tmp_path)
    alert, facts, (noisy, denoised), uncertainty, _ = handlers.denoise(str(tmp_path / "a.npy"), "", 1)
    assert not alert["visible"]
    assert f"{100 * gaps.mean():.3g} % of the pixels" in facts["value"] and "nan" not in facts["value"]
    assert (uncertainty[gaps] == 128).all() and not (uncertainty[~gaps] == 128).all(axis=-1).any()
    assert (noisy[gaps] == 0).all() and (denoised[gaps] == 0).all()
    assert 60 < denoised[~gaps].mean() < 190


@pytest.mark.filterwarnings("error")
def test_an_image_without_any_measurement_comes_back(tmp_path, tiny_denoiser_path):
    np.save(tmp_path / "a.npy", np.full((9, 12), np.nan, np.float32))
    handlers = Handlers(Workshop(models.load_denoiser(tiny_denoiser_path(1, 60 / 255)), 2**20), tmp_path)
    alert, facts, _, _, download = handlers.denoise(str(tmp_path / "a.npy"), "", 1)
    assert not alert["visible"]
    assert "100 % of the pixels" in facts["value"] and "nan" not in facts["value"].replace("a.npy", "")
    assert np.isnan(np.load(download["value"])).all()
