"""`bsdenoise denoise` with files that need not fit into memory: the files of those that do, and what is told."""

import io
import re
import sys

import denoise_command
import numpy as np
import pytest
import tifffile
from denoise_command import OWN_SIGMA, axes_of, denoise, grey, save, save_tiff, written

from bsdenoise import cli, images
from bsdenoise.inference import tiling
from bsdenoise.pipeline import file_task, large_files

use_model = denoise_command.use_model


@pytest.fixture
def all_are_large(monkeypatch):
    def make(threshold=0):
        monkeypatch.setattr(file_task, "STREAMED_PIXELS", threshold)

    return make


def noisy(shape, dtype=np.uint8):
    pixels = np.random.default_rng(0).integers(0, 256, shape)
    return (pixels / 255).astype(dtype) if np.dtype(dtype).kind == "f" else pixels.astype(dtype)


FILES = {
    "grey png": ("a.png", (20, 13), np.uint8),
    "deep colour png": ("a.png", (20, 13, 3), np.uint16),
    "jpeg": ("a.jpg", (20, 13, 3), np.uint8),
    "npy stack": ("a.npy", (3, 20, 13, 1), np.uint16),
    "npy of 4 channels": ("a.npy", (20, 13, 4), np.float64),
    "grey tiff": ("a.tif", (20, 13), np.float32),
    "tiff stack": ("a.tif", (2, 20, 13, 3), np.uint8),
}


@pytest.mark.parametrize("channels", [1, None], ids=["grey model", "its channels"])
@pytest.mark.parametrize("options", [["--std"], ["--sigma", "0.3/1", "--std"], []], ids=["std", "given", "plain"])
@pytest.mark.parametrize(("name", "shape", "dtype"), FILES.values(), ids=FILES)
def test_a_streamed_file_is_that_of_the_whole(
    tmp_path, use_model, capsys, all_are_large, name, shape, dtype, options, channels
):
    denoiser = use_model(channels or (shape[-1] if len(shape) > 2 else 1), is_known=False)
    save(tmp_path / name, noisy(shape, dtype))
    assert denoise(tmp_path / name, "--out", tmp_path / "whole", *options) == 0
    lines, shapes = capsys.readouterr().err, len(denoiser.shapes)
    all_are_large()
    assert denoise(tmp_path / name, "--out", tmp_path / "streamed", *options, "--tile", "8", "--overlap", "0") == 0
    assert capsys.readouterr().err == lines
    assert len(denoiser.shapes) - shapes == 3 * 2 * shapes  # tiles of 8 x 8
    assert written(tmp_path / "streamed") == written(tmp_path / "whole") != []
    for file in written(tmp_path / "whole"):
        expected, found = (images.read(tmp_path / side / file) for side in ("whole", "streamed"))
        assert found.array.dtype == expected.array.dtype
        np.testing.assert_allclose(found.array, expected.array, rtol=1e-5, atol=1e-6)


def test_a_streamed_tiff_keeps_its_axes(tmp_path, use_model, all_are_large):
    use_model(1)
    pixels = save_tiff(tmp_path / "a.tif", (2, 3, 2, 15, 17), np.uint16, imagej=True, metadata={"axes": "TZCYX"})
    all_are_large()
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--std") == 0
    assert axes_of(tmp_path / "out/a.tif") == axes_of(tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.tif"), pixels // 2)
    assert images.read(tmp_path / "out/a-std.tif").shape == (6, 15, 17, 2)


def test_a_zarr_store_is_a_file_to_read_and_to_write(tmp_path, use_model, all_are_large):
    use_model(1)
    pixels = noisy((20, 13))
    source = save(tmp_path / "in/a.zarr", pixels)
    assert denoise(source, "--out", tmp_path / "whole", "--std") == 0
    all_are_large()
    assert denoise(tmp_path / "in", "--out", tmp_path / "streamed", "--std") == 0
    assert denoise(source, "--out", source, "--overwrite") == 0
    for result in ("whole/a.zarr", "streamed/a.zarr", "in/a.zarr"):
        np.testing.assert_array_equal(images.read_array(tmp_path / result), np.floor(pixels / 2 + 0.5))
    for result in ("whole/a-std.zarr", "streamed/a-std.zarr"):
        np.testing.assert_allclose(images.read_array(tmp_path / result), pixels / 255, rtol=1e-5)


def test_only_files_of_many_pixels_are_streamed(tmp_path, use_model, monkeypatch, all_are_large):
    use_model(1)
    streamed = []
    real = large_files.denoise

    def remember(task, *arguments):
        streamed.append(task.job.source.name)
        real(task, *arguments)

    monkeypatch.setattr(large_files, "denoise", remember)
    all_are_large(35)
    shapes = {"large.npy": (6, 6), "small.npy": (5, 7), "stack.npy": (2, 5, 7, 1), "wide.npy": (5, 7, 3)}
    for name, shape in shapes.items():
        save(tmp_path / "in" / name, noisy(shape))
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert streamed == ["large.npy", "stack.npy"]
    assert written(tmp_path / "out") == sorted(shapes)


@pytest.mark.parametrize("options", [[], ["--sigma", "51"]], ids=["own", "given"])
def test_sigma_is_estimated_in_the_middle_and_that_is_told(
    tmp_path, use_model, capsys, monkeypatch, all_are_large, options
):
    denoiser = use_model(1, is_known=False)
    monkeypatch.setattr(tiling, "MIDDLE", 4)
    all_are_large(20)
    pixels = np.zeros((9, 11), np.uint8)
    pixels[2:6, 3:7] = 255
    source = save(tmp_path / "a.png", pixels)
    assert denoise(source, "--out", tmp_path / "out", *options) == 0
    lines = capsys.readouterr().err.splitlines()
    if options:
        assert lines == ["1 written, 0 failed"]
        assert denoiser.sigmas == pytest.approx([0.2] * len(denoiser.sigmas))
    else:
        assert lines == [
            f"{source}: sigma 51.0 (estimated in its middle)",
            "1 written, 0 failed; sigma 51.0 (estimated per image)",
        ]
        assert denoiser.sigmas == pytest.approx([2 * OWN_SIGMA] * len(denoiser.sigmas))


def test_a_model_without_posterior_needs_no_sigma(tmp_path, use_model, capsys, all_are_large):
    denoiser = use_model(1, is_known=False, method="l2")
    all_are_large()
    save(tmp_path / "a.npy", np.full((9, 11, 3), 100, np.uint8))
    assert denoise(tmp_path / "a.npy", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().err == "1 written, 0 failed\n"
    assert set(denoiser.sigmas) == {None}
    assert (images.read_array(tmp_path / "out/a.npy") == 50).all()


def test_a_failure_in_the_middle_leaves_nothing_and_stops_no_other(
    tmp_path, use_model, capsys, monkeypatch, all_are_large
):
    denoiser = use_model(1)
    all_are_large(50)
    pixels = np.zeros((16, 16), np.uint8)
    pixels[12, 12] = 250
    save(tmp_path / "in/b.tif", pixels)
    for name in ("a.png", "c.png"):
        save(tmp_path / "in" / name, grey())
    real = denoiser.denoise

    def fail_for_bright_ones(noisy, sigma, **options):
        if noisy.max() > 200:
            raise ValueError("too bright")
        return real(noisy, sigma, **options)

    monkeypatch.setattr(denoiser, "denoise", fail_for_bright_ones)
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--std") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"bsdenoise: error: {tmp_path / 'in/b.tif'}: too bright"
    assert lines[1].startswith("2 written, 1 failed")
    assert written(tmp_path / "out") == ["a-std.png", "a.png", "c-std.png", "c.png"]


def test_ctrl_c_leaves_nothing_of_a_streamed_file(tmp_path, use_model, monkeypatch, all_are_large):
    denoiser = use_model(1)
    all_are_large()
    real = denoiser.denoise

    def interrupt(noisy, sigma, **options):
        if denoiser.shapes:
            raise KeyboardInterrupt
        return real(noisy, sigma, **options)

    monkeypatch.setattr(denoiser, "denoise", interrupt)
    save(tmp_path / "a.tif", noisy((20, 13)))
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out") == 130
    assert written(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("array", "message"),
    [(noisy((9, 9)), "a grey image cannot be denoised by a model for 3 channels"), (None, "cannot be read")],
    ids=["channels", "broken"],
)
def test_what_is_refused_of_small_files_is_of_large_ones(tmp_path, use_model, capsys, all_are_large, array, message):
    use_model(3)
    all_are_large()
    if array is None:
        (tmp_path / "a.png").write_text("no image")
    else:
        save(tmp_path / "a.png", array)
    assert denoise(tmp_path / "a.png", "--out", tmp_path / "out") == 2
    assert f"error: {tmp_path / 'a.png'}: {message}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, use_model, capsys, all_are_large):
    denoiser = use_model(1)
    all_are_large()
    save(tmp_path / "a.npy", noisy((4, 9, 9, 1)))
    assert denoise(tmp_path / "a.npy", "--out", tmp_path / "b.png") == 2
    assert "b.png: PNG holds grey or RGB images. Received: shape=(4, 9, 9, 1)" in capsys.readouterr().err
    assert denoiser.shapes == []


def test_the_progress_bar_counts_pixels_where_a_file_is_large(tmp_path, use_model, monkeypatch, all_are_large):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    use_model(1)
    all_are_large(1000)
    save(tmp_path / "in/large.npy", noisy((40, 50)))
    save(tmp_path / "in/small.npy", noisy((2, 10, 50, 1)))
    save(tmp_path / "in/broken.npy", noisy((10, 50)))
    with open(tmp_path / "in/broken.npy", "r+b") as file:
        file.truncate(300)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 2
    assert re.search(r"3\.00k/3\.00k \[.*px/s", terminal.getvalue())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [[], ["--tta", "2", "--std"]], ids=["plain", "tta and std"])
def test_a_real_model_with_tiles_gives_the_same_streamed(
    tmp_path, tiny_denoiser_path, all_are_large, channels, options
):
    pixels = np.random.default_rng(0).uniform(0.3, 0.7, (90, 70, 3)).astype(np.float32)
    source = save(tmp_path / "a.npy", pixels)
    flags = ["--model", str(tiny_denoiser_path(channels, 0.3)), *options]
    # Context that is more than the network of depth 2 sees, 35 pixels, even if a mirror image takes three of it.
    tiles = ["--tile", "84", "--overlap", "40"]
    assert cli.main(["denoise", str(source), "--out", str(tmp_path / "whole"), *flags]) == 0
    all_are_large()
    assert cli.main(["denoise", str(source), "--out", str(tmp_path / "tiles"), *flags, *tiles]) == 0
    assert cli.main(["denoise", str(source), "--out", str(tmp_path / "chosen"), *flags]) == 0
    for side in ("tiles", "chosen"):
        assert written(tmp_path / side) == written(tmp_path / "whole")
        for file in written(tmp_path / "whole"):
            expected, found = (images.read_array(tmp_path / folder / file) for folder in ("whole", side))
            power = 2 if "-std" in file else 1  # roots are wild near zero
            np.testing.assert_allclose(found**power, expected**power, atol=2e-5)
    assert np.abs(images.read_array(tmp_path / "whole/a.npy") - pixels).mean() > 1e-3
