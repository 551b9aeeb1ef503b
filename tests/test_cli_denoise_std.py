"""`bsdenoise denoise --std`: the uncertainty beside the denoised files."""

import denoise_command
import numpy as np
import pytest
import tifffile
from denoise_command import axes_of, denoise, grey, save, save_tiff, written

from bsdenoise import images

use_model = denoise_command.use_model


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)], ids=str)
@pytest.mark.parametrize("sigma", [[], ["--sigma", "10"]], ids=["own", "given"])
def test_std_is_relative_to_sigma(tmp_path, use_model, shape, sigma):
    use_model(shape[2] if len(shape) > 2 else 1)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    save(tmp_path / "a.png", pixels)
    assert denoise(tmp_path / "a.png", "--out", tmp_path / "out", "--std", *sigma) == 0
    np.testing.assert_allclose(images.read_array(tmp_path / "out/a-std.png"), pixels, atol=1)


@pytest.mark.parametrize("channels", [1, 4], ids=["one by one", "together"])
@pytest.mark.parametrize("suffix", ["npy", "tif", "zarr"])
def test_std_has_the_channels_of_the_image(tmp_path, use_model, channels, suffix):
    use_model(channels)
    save(tmp_path / f"a.{suffix}", np.broadcast_to(np.array([0, 51, 102, 255], np.uint8), (5, 7, 4)).copy())
    assert denoise(tmp_path / f"a.{suffix}", "--out", tmp_path / "out", "--std") == 0
    ratio = images.read_array(tmp_path / f"out/a-std.{suffix}")
    assert (ratio.shape, ratio.dtype) == ((5, 7, 4), np.float32)
    np.testing.assert_allclose(ratio, np.broadcast_to([0.0, 0.2, 0.4, 1.0], (5, 7, 4)), atol=1e-5)


def test_a_picture_of_independent_channels_is_that_of_their_mean(tmp_path, use_model):
    use_model(1)
    pixels = np.array([51, 102, 255], np.uint8)[:, np.newaxis, np.newaxis] * np.ones((1, 5, 7), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", metadata={"axes": "CYX"})
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out/b.png", "--std") == 0
    np.testing.assert_array_equal(images.read_array(tmp_path / "out/b-std.png"), np.full((5, 7), 136))


def test_std_of_a_stack_is_a_stack(tmp_path, use_model):
    use_model(1)
    save(tmp_path / "a.npy", grey(51, shape=(2, 5, 7, 1)))
    assert denoise(tmp_path / "a.npy", "--out", tmp_path / "out", "--std") == 0
    ratio = images.read_array(tmp_path / "out/a-std.npy")
    assert ratio.shape == (2, 5, 7, 1)
    np.testing.assert_allclose(ratio, 0.2, rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (2, 5, 7, 1)], ids=str)
def test_std_of_tiff_is_float_tiff(tmp_path, use_model, shape):
    use_model(1)
    save(tmp_path / "a.tif", grey(51, shape=shape))
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--std") == 0
    ratio = images.read_array(tmp_path / "out/a-std.tif")
    assert (ratio.shape, ratio.dtype) == (shape, np.float32)
    np.testing.assert_allclose(ratio, 0.2, rtol=1e-5)


def test_std_of_a_microscope_stack_keeps_its_axes(tmp_path, use_model):
    use_model(1)
    save_tiff(tmp_path / "a.tif", (2, 3, 2, 5, 7), imagej=True, metadata={"axes": "TZCYX"})
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--std") == 0
    assert axes_of(tmp_path / "out/a-std.tif") == ("imagej", "TZCYX", (2, 3, 2, 5, 7), np.float32)


def test_std_of_a_microscope_stack_keeps_names_and_sizes(tmp_path, use_model):
    use_model(1)
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "Channel": {"Name": ["DAPI", "GFP"]}}
    save_tiff(tmp_path / "a.ome.tif", (2, 3, 5, 7), ome=True, metadata={"axes": "CZYX", **sizes})
    imagej = {"axes": "ZCYX", "unit": "um", "spacing": 0.5, "Labels": ["a", "b"] * 3}
    save_tiff(tmp_path / "b.tif", (3, 2, 5, 7), imagej=True, resolution=(4, 4), metadata=imagej)
    assert denoise(tmp_path, "--out", tmp_path / "out", "--std") == 0
    with tifffile.TiffFile(tmp_path / "out/a.ome-std.tif") as tif:
        assert (tif.series[0].axes, tif.series[0].dtype) == ("CZYX", np.float32)
        for text in ('Name="DAPI"', 'Name="GFP"', 'PhysicalSizeX="0.25"', 'Type="float"'):
            assert text in tif.ome_metadata
    with tifffile.TiffFile(tmp_path / "out/b-std.tif") as tif:
        assert (tif.series[0].axes, tif.series[0].dtype) == ("ZCYX", np.float32)
        known = tif.imagej_metadata
        assert (known["unit"], known["spacing"], known["Labels"]) == ("um", 0.5, imagej["Labels"])
        assert tif.pages.first.tags["XResolution"].value == (4, 1)


def test_std_of_a_coloured_grey_imagej_file_is_one_of_imagej(tmp_path, use_model):
    use_model(1)
    colours = np.zeros((3, 256), np.uint16)
    pixels = np.full((5, 7), 51, np.uint8)
    options = {"imagej": True, "colormap": colours, "resolution": (4, 4), "metadata": {"unit": "um"}}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--std") == 0
    with tifffile.TiffFile(tmp_path / "out/a-std.tif") as tif:
        assert (tif.imagej_metadata["unit"], tif.pages.first.photometric.name) == ("um", "MINISBLACK")
        np.testing.assert_allclose(tif.asarray(), 0.2, rtol=1e-5)


def test_the_uncertainties_of_one_name_in_several_formats_are_apart(tmp_path, use_model):
    use_model(1)
    names = ["a.png", "a.jpg", "a.jpeg", "a.tif", "a.tiff", "a.npy"]
    for name in names:
        save(tmp_path / "in" / name, grey())
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--std") == 0
    uncertainties = ["a-std.npy", "a-std.png", "a-std.tif", "a-std.tiff", "a.jpeg-std.png", "a.jpg-std.png"]
    assert written(tmp_path / "out") == sorted(names + uncertainties)
