"""`bsdenoise denoise --std`: the uncertainty beside the denoised files."""

import denoise_command
import numpy as np
import pytest
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


def test_std_of_many_channels_is_their_mean(tmp_path, use_model):
    use_model(4)
    save(tmp_path / "a.npy", np.broadcast_to(np.array([0, 51, 102, 255], np.uint8), (5, 7, 4)).copy())
    assert denoise(tmp_path / "a.npy", "--out", tmp_path / "out", "--std") == 0
    ratio = images.read_array(tmp_path / "out/a-std.npy")
    assert (ratio.shape, ratio.dtype) == ((5, 7, 1), np.float32)
    np.testing.assert_allclose(ratio, 0.4, rtol=1e-5)


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
    # The mean over channels has none.
    assert axes_of(tmp_path / "out/a-std.tif") == ("shaped", "TZYX", (2, 3, 5, 7), np.float32)


def test_the_uncertainties_of_one_name_in_several_formats_are_apart(tmp_path, use_model):
    use_model(1)
    names = ["a.png", "a.jpg", "a.jpeg", "a.tif", "a.tiff", "a.npy"]
    for name in names:
        save(tmp_path / "in" / name, grey())
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--std") == 0
    uncertainties = ["a-std.npy", "a-std.png", "a-std.tif", "a-std.tiff", "a.jpeg-std.png", "a.jpg-std.png"]
    assert written(tmp_path / "out") == sorted(names + uncertainties)
