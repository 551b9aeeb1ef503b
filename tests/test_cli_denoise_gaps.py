"""Tests of `bsdenoise denoise` on pixels that hold no measurement: they come out as they went in."""

import denoise_command
import numpy as np
import pytest
import tifffile
from denoise_command import denoise, save
from PIL import Image

from bsdenoise import images
from bsdenoise.pipeline import file_task

use_model = denoise_command.use_model
LOWEST = float(np.finfo("float32").min)


def _pixels(dtype, no_data, shape=(20, 30)):
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0.3, 0.5, shape).astype(dtype) if dtype == "float32" else rng.integers(100, 120, shape, dtype)
    holes = np.zeros(shape, bool)
    holes[..., 5:12, 8:20] = holes[..., :3] = True
    return np.where(holes, np.asarray(no_data, dtype), pixels), holes


def _check(noisy, denoised, holes):
    """Bit for bit where nothing was measured; halved elsewhere."""
    assert denoised.dtype == noisy.dtype
    assert denoised[holes].tobytes() == noisy[holes].tobytes()
    tolerance = 1e-6 if noisy.dtype.kind == "f" else 0.5
    np.testing.assert_allclose(denoised[~holes], noisy[~holes].astype(float) / 2, atol=tolerance)


@pytest.mark.parametrize(
    ("dtype", "no_data", "flag"),
    [
        ("float32", LOWEST, "-3.4028234663852886e38"),
        ("float32", -9999, "-9999"),
        ("float32", np.nan, None),
        ("float32", -np.inf, "-inf"),
        ("uint16", 0, "0"),
        ("uint16", 65535, "65535"),
        ("uint8", 0, "0"),
        ("uint8", 255, "255"),
    ],
)
@pytest.mark.parametrize("shape", [(20, 30), (3, 20, 30)])
def test_values_come_out_as_they_went_in(tmp_path, use_model, capsys, dtype, no_data, flag, shape):
    model = use_model(1)
    noisy, holes = _pixels(dtype, no_data, shape)
    tifffile.imwrite(tmp_path / "a.tif", noisy, photometric="minisblack")
    flags = () if flag is None else (f"--no-data={flag}",)
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "b.tif", "--std", *flags) == 0
    _check(noisy, tifffile.imread(tmp_path / "b.tif"), holes)
    std = tifffile.imread(tmp_path / "b-std.tif")
    assert np.isnan(std[holes]).all() and np.isfinite(std[~holes]).all()
    lines = [line for line in capsys.readouterr().err.splitlines() if "hold no data" in line]
    share = 100 * holes.mean()
    expected = f"{holes.sum()} pixels ({share:.3g} %) hold no data and are left as they are"
    assert lines == [f"bsdenoise: note: {tmp_path / 'a.tif'}: {expected}"]
    assert len(model.shapes) == (1 if len(shape) == 2 else 3)


def test_the_value_of_the_file_is_obeyed_and_can_be_overruled(tmp_path, use_model):
    use_model(1)
    noisy, holes = _pixels("uint16", 0)
    tifffile.imwrite(tmp_path / "a.tif", noisy, extratags=[(42113, "s", 0, "0", True)])
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "b.tif") == 0
    _check(noisy, images.read_array(tmp_path / "b.tif"), holes)
    noisy[0, 10] = 1
    tifffile.imwrite(tmp_path / "c.tif", noisy + 3, extratags=[(42113, "s", 0, "3", True)])
    assert denoise(tmp_path / "c.tif", "--out", tmp_path / "d.tif", "--no-data", "nan") == 0
    _check(noisy + 3, images.read_array(tmp_path / "d.tif"), np.zeros_like(holes))


@pytest.mark.parametrize("streamed", [False, True])
def test_masks(tmp_path, use_model, monkeypatch, streamed):
    if streamed:
        monkeypatch.setattr(file_task, "STREAMED_PIXELS", 0)
    use_model(1)
    noisy, holes = _pixels("uint8", 77)
    for name in ("a", "b"):
        save(tmp_path / f"in/deep/{name}.png", noisy)
    (tmp_path / "masks/deep").mkdir(parents=True)
    Image.fromarray(holes).save(tmp_path / "masks/deep/a.png")  # one bit per pixel
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--mask", tmp_path / "masks") == 0
    _check(noisy, images.read_array(tmp_path / "out/deep/a.png"), holes)
    _check(noisy, images.read_array(tmp_path / "out/deep/b.png"), np.zeros_like(holes))
    assert (
        denoise(tmp_path / "in/deep/b.png", "--out", tmp_path / "c.png", "--mask", tmp_path / "masks/deep/a.png") == 0
    )
    _check(noisy, images.read_array(tmp_path / "c.png"), holes)


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_windows_of_large_files(tmp_path, use_model, monkeypatch, dtype):
    monkeypatch.setattr(file_task, "STREAMED_PIXELS", 0)
    use_model(1)
    noisy, holes = _pixels(dtype, 0, (2, 20, 30))
    save(tmp_path / "a.tif", noisy)
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "b.npy", "--std", "--no-data", 0) == 0
    _check(noisy, np.load(tmp_path / "b.npy"), holes)
    std = np.load(tmp_path / "b-std.npy")
    assert np.isnan(std[holes]).all() and np.isfinite(std[~holes]).all()


def test_channels_with_gaps_of_their_own(tmp_path, use_model):
    use_model(1)
    noisy = np.random.default_rng(0).uniform(0.3, 0.5, (20, 30, 4)).astype("float32")
    for channel in range(3):
        noisy[3 * channel : 3 * channel + 5, 4:20, channel] = np.nan
    np.save(tmp_path / "a.npy", noisy)
    assert denoise(tmp_path / "a.npy", "--out", tmp_path / "b.npy") == 0
    _check(noisy, np.load(tmp_path / "b.npy"), np.isnan(noisy))


def test_images_of_which_nothing_was_measured(tmp_path, use_model, capsys):
    use_model(1)
    noisy = np.full((20, 30), np.nan, "float32")
    np.save(tmp_path / "a.npy", noisy)
    assert denoise(tmp_path / "a.npy", "--out", tmp_path / "b.npy") == 0
    assert np.load(tmp_path / "b.npy").tobytes() == noisy.tobytes()
    assert "600 pixels (100 %) hold no data" in capsys.readouterr().err


def test_masks_without_an_image(tmp_path, use_model, capsys):
    use_model(1)
    save(tmp_path / "in/a.png", np.zeros((20, 30), "uint8"))
    save(tmp_path / "masks/b.png", np.zeros((20, 30), "uint8"))
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--mask", tmp_path / "masks") == 2
    assert "holds no mask under the name of an input, such as a.png" in capsys.readouterr().err
    save(tmp_path / "masks/a.png", np.zeros((20, 31), "uint8"))
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--mask", tmp_path / "masks") == 2
    assert "a mask must have the size of its image" in capsys.readouterr().err
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--no-data", "none") == 2
    assert "--no-data takes a number" in capsys.readouterr().err
