"""The value of pixels without a measurement, as GDAL writes it into TIFF files."""

import math

import numpy as np
import pytest
import tifffile
from tiff_files import random_pixels

from bsdenoise import images

GEO = [
    (33550, 12, 3, (10.0, 10.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 4.5e5, 5.1e6, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
    (34736, 12, 1, 6378137.0, True),
    (34737, 2, 0, "WGS 84|", True),
    (42112, 2, 0, '<GDALMetadata><Item name="a">b</Item></GDALMetadata>', True),
]


def save(path, text, dtype="f4", **options):
    pixels = random_pixels((5, 6), dtype)
    tags = [*GEO, (42113, 2, 0, text, True)]
    tifffile.imwrite(path, pixels, metadata=None, extratags=tags, **{"photometric": "minisblack", **options})
    return pixels


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("-9999", "f4", -9999.0),
        (" -9999.0 ", "f4", -9999.0),
        ("0", "u1", 0.0),
        ("65535", "u2", 65535.0),
        ("-9999", "u2", -9999.0),  # no pixel has it, which is no harm
        ("nan", "f4", math.nan),
        ("NaN", "f8", math.nan),
        ("-1.#IND", "f4", math.nan),
        ("-inf", "f4", -math.inf),
        ("1e20", "u1", 1e20),
        ("-3.40282346638529e+38", "f4", float(np.finfo("f4").min)),
        ("-3.4028234663852886e+38", "f4", float(np.finfo("f4").min)),
        ("-1.7976931348623157e+308", "f8", float(np.finfo("f8").min)),
        ("0.1", "f4", float(np.float32(0.1))),
        ("0.1", "f8", 0.1),
        ("-9999 -9999", "f4", -9999.0),
        ("", "f4", None),
    ],
)
def test_the_value_is_read(tmp_path, text, dtype, expected):
    save(tmp_path / "a.tif", text, dtype)
    picture = images.read(tmp_path / "a.tif")
    assert repr(picture.no_data) == repr(expected)  # NaN is not equal to itself
    assert picture.notes == ()
    if expected is not None and np.dtype(dtype).kind == "f":  # a pixel that holds it is found by comparing
        pixel = np.dtype(dtype).type(picture.no_data)
        assert pixel == picture.no_data or (math.isnan(pixel) and math.isnan(picture.no_data))


@pytest.mark.parametrize("text", ["none", "1_0", "-9999 0", "1.#WHAT", "0x10", "nan+nani"])
def test_what_is_no_number_is_ignored_with_a_note(tmp_path, text):
    save(tmp_path / "a.tif", text)
    picture = images.read(tmp_path / "a.tif")
    assert picture.no_data is None
    assert picture.notes == (f"its no-data value {text!r} (GDAL_NODATA) is not one number and is ignored",)


def test_where_0_is_white_the_value_is_turned_round_like_the_pixels(tmp_path):
    pixels = save(tmp_path / "a.tif", "7", "u1", photometric="miniswhite")
    picture = images.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.array, 255 - pixels)
    assert picture.no_data == 248


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_the_value_and_the_place_on_earth_are_kept(tmp_path, dtype, byteorder):
    save(tmp_path / "a.tif", "-9999", dtype, byteorder=byteorder, compression="lzw")
    with images.opened(tmp_path / "a.tif") as file:
        array = file.read_all()
        images.write(tmp_path / "b.tif", array, like=file)
        images.write(tmp_path / "std.tif", array.astype("f4"), like=file)
    for name in ("b.tif", "std.tif"):
        with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / name) as after:
            for code, *_ in [*GEO, (42113,)]:
                assert after.pages.first.tags[code].value == before.pages.first.tags[code].value
            assert after.geotiff_metadata == before.geotiff_metadata
