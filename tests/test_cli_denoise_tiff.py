"""`bsdenoise denoise` with stacks, TIFF and other formats: axes, types, notes, memory."""

import io
import sys
import tracemalloc

import denoise_command
import numpy as np
import pytest
import tifffile
from denoise_command import axes_of, denoise, save_tiff
from PIL import Image

from bsdenoise import images
from bsdenoise.pipeline import local_files

use_model = denoise_command.use_model


TIFFS = {
    "pages": ((4, 5, 7), np.uint16, {"metadata": None}),
    "float with time and depth": ((2, 3, 5, 7), np.float32, {"metadata": {"axes": "TZYX"}, "compression": "zlib"}),
    "imagej": ((2, 3, 2, 5, 7), np.uint16, {"imagej": True, "metadata": {"axes": "TZCYX"}}),
    "imagej rgb": ((3, 5, 7, 3), np.uint8, {"imagej": True, "photometric": "rgb", "metadata": {"axes": "ZYXS"}}),
    "ome": ((2, 3, 2, 5, 7), np.uint16, {"ome": True, "metadata": {"axes": "TZCYX"}}),
    "rgb in planes": ((3, 5, 7), np.uint8, {"photometric": "rgb", "planarconfig": "separate"}),
    "5 channels": ((5, 5, 7), np.float64, {"metadata": {"axes": "CYX"}}),
}


@pytest.mark.parametrize(("shape", "dtype", "options"), TIFFS.values(), ids=TIFFS)
def test_tiff_keeps_axes_type_and_kind(tmp_path, use_model, shape, dtype, options):
    denoiser = use_model(1)
    denoiser.fractional = np.dtype(dtype).kind != "f"  # a model of fractions would be shown floats as such
    pixels = save_tiff(tmp_path / "a.tif", shape, dtype, **options)
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out") == 0
    assert axes_of(tmp_path / "out/a.tif") == axes_of(tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.tif"), pixels // 2)
    assert len(denoiser.shapes) == pixels.size // 35


def test_a_model_of_many_channels_takes_the_channels_of_each_image(tmp_path, use_model):
    denoiser = use_model(2)
    pixels = save_tiff(tmp_path / "a.ome.tif", (2, 3, 5, 7), np.uint16, metadata={"axes": "CZYX"})
    assert denoise(tmp_path / "a.ome.tif", "--out", tmp_path / "out") == 0
    assert denoiser.shapes == [(5, 7, 2)] * 3
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.ome.tif"), pixels // 2)


def test_other_numbers_of_channels_are_refused(tmp_path, use_model, capsys):
    use_model(2)
    save_tiff(tmp_path / "a.tif", (5, 5, 7), metadata={"axes": "CYX"})
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out") == 2
    assert "a.tif: an image with 5 channels cannot be denoised by a model for 2 channels" in capsys.readouterr().err


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, use_model, capsys):
    denoiser = use_model(1)
    save_tiff(tmp_path / "a.tif", (4, 5, 7))
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "b.png") == 2
    assert "b.png: PNG holds grey or RGB images. Received: shape=(4, 5, 7, 1)" in capsys.readouterr().err
    assert denoiser.shapes == []


def test_what_was_changed_on_reading_is_noted(tmp_path, use_model, capsys):
    use_model(1)
    Image.new("LA", (7, 5), (100, 50)).save(tmp_path / "a.png")
    assert denoise(tmp_path / "a.png", "--out", tmp_path / "out") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"bsdenoise: note: {tmp_path / 'a.png'}: its alpha channel is dropped"
    assert (images.read_array(tmp_path / "out/a.png") == 50).all()


def test_the_progress_bar_counts_pixels_of_all_images(tmp_path, use_model, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    use_model(1)
    (tmp_path / "in").mkdir()
    save_tiff(tmp_path / "in/a.tif", (4, 5, 7))
    save_tiff(tmp_path / "in/b.tif", (2, 5, 7))
    (tmp_path / "in/c.png").write_bytes(b"no image")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 2
    assert "3 of 3 files: 100%" in terminal.getvalue() and "210/210" in terminal.getvalue()  # 6 images of 5×7


def test_a_stack_needs_little_more_memory_than_its_result(tmp_path, use_model, monkeypatch):
    use_model(1)
    for name, images_ahead in {"BATCH_PIXELS": 1, "LOOK_AHEAD_PIXELS": 2, "WAITING_VALUES": 2}.items():
        monkeypatch.setattr(local_files, name, images_ahead * 64 * 64)
    pixels = save_tiff(tmp_path / "a.tif", (256, 64, 64), np.uint16)
    denoise(tmp_path / "a.tif", "--out", tmp_path / "first")
    tracemalloc.start()
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out") == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pixels.nbytes < peak < 1.3 * pixels.nbytes
