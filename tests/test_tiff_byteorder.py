"""Big-endian TIFF files: floats come out little-endian, with all tags turned round; other readers read them right."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiff_files import random_pixels

from bsdenoise import images
from bsdenoise.images.formats import tiff_byteorder

TAGS = [
    (33550, 12, 3, (0.5, 0.25, 0.0), True),  # doubles
    (34735, 3, 4, (1, 1, 0, 300), True),  # shorts
    (286, 5, 1, (1, 3), True),  # a fraction
    (315, 2, 0, "someone", True),
    (42113, 2, 0, "-9999", True),
    (700, 1, 4, b"<x/>", True),
]
LABELS = ["first", "zweites Bild", "μ"]


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("predictor", [False, True])
def test_other_readers_read_floats_right(tmp_path, compression, predictor):
    pixels = random_pixels((9, 8), "f4")
    options = {"compression": compression, "predictor": predictor and compression is not None}
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=">", metadata=None, extratags=TAGS, **options)
    picture = images.read(tmp_path / "a.tif")
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.tif")), pixels)
    with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert (before.byteorder, after.byteorder) == (">", "<")
        np.testing.assert_array_equal(after.asarray(), pixels)
        for code, *_ in TAGS:
            assert after.pages.first.tags[code].value == before.pages.first.tags[code].value
            assert after.pages.first.tags[code].dtype == before.pages.first.tags[code].dtype


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_integers_keep_their_byte_order(tmp_path, dtype):
    pixels = random_pixels((9, 8), dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=">", metadata=None, compression="zlib", extratags=TAGS)
    picture = images.read(tmp_path / "a.tif")
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.tif")), pixels)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert tif.byteorder == ">"
        assert tif.pages.first.tags[33550].value == (0.5, 0.25, 0.0)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["f4", "u2"])
def test_what_imagej_says_is_read_from_floats_of_either_order(tmp_path, byteorder, dtype):
    metadata = {
        "axes": "ZYX",
        "unit": "um",
        "spacing": 0.5,
        "Labels": LABELS,
        "Ranges": (1.0, 2.5),
        "Info": "long text\n",
        "LUTs": [random_pixels((3, 256), "u1")],
        "Properties": {"key": "value"},
        "ROI": b"Iout" + bytes(range(16)),
    }
    shape = (3, 9, 8)
    options = {"imagej": True, "byteorder": byteorder, "resolution": (2.5, 4.5)}
    tifffile.imwrite(tmp_path / "a.tif", random_pixels(shape, dtype), metadata=metadata, **options)
    with images.opened(tmp_path / "a.tif") as file:  # integers too become floats: that is what `--std` writes
        pixels = random_pixels(file.shape, "f4", seed=1)
        images.write(tmp_path / "b.tif", pixels, like=file)
    with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert after.is_imagej
        assert (after.byteorder, after.series[0].axes) == ("<", "ZYX")
        np.testing.assert_array_equal(after.asarray(), pixels[..., 0])
        known, expected = after.imagej_metadata, before.imagej_metadata
        assert known.keys() == expected.keys()
        for key in ("Labels", "Ranges", "Info", "Properties", "ROI", "unit", "spacing"):
            assert known[key] == expected[key], key
        np.testing.assert_array_equal(known["LUTs"], expected["LUTs"])


def test_a_damaged_block_of_imagej_is_left_out():
    tags = ((50838, 4, 1, (99).to_bytes(4, "big"), True), (50839, 1, 6, b"IJIJab", True), (315, 2, 2, b"a\0", True))
    assert tiff_byteorder.swapped(tags, ">") == (tags[2],)


def test_swapping_twice_changes_nothing(tmp_path):
    options = {"imagej": True, "metadata": {"axes": "ZYX", "Labels": LABELS, "Ranges": (0.0, 1.0)}, "byteorder": ">"}
    tifffile.imwrite(tmp_path / "a.tif", random_pixels((3, 9, 8), "f4"), **options)
    tags = images.read(tmp_path / "a.tif").metadata["tiff"].tags.extra
    once = tiff_byteorder.swapped(tags, ">")
    assert once != tags
    assert tiff_byteorder.swapped(once, "<") == tags
