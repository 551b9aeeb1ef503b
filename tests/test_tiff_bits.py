"""TIFF files whose integers have fewer bits than their type: packed ones, and those of which OME says so."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiff_files import RGB, random_pixels

from bsdenoise import images

PACKED = {
    # name: shape, options of tifffile.imwrite
    "grey": ((31, 41), {}),
    "one pixel": ((1, 1), {}),
    "rgb": ((31, 41, 3), RGB),
    "rgb in planes": ((3, 31, 41), {**RGB, "planarconfig": "separate"}),
    "tiles": ((40, 50), {"tile": (16, 32)}),
    "strips": ((40, 50), {"rowsperstrip": 7}),
    "pages": ((4, 20, 30), {}),
    "BigTIFF": ((20, 30), {"bigtiff": True}),
    "channels": ((2, 3, 20, 30), {"metadata": {"axes": "TCYX"}}),
    "ome": ((2, 20, 30), {"ome": True, "metadata": {"axes": "ZYX"}}),
    "white is zero": ((20, 30), {"photometric": "miniswhite"}),
}


def packed_by_hand(path, pixels, bits, byteorder="<"):
    """A file of one strip, each row of bits padded to whole bytes, as the specification has it."""
    rows = ("".join(f"{value:0{bits}b}" for value in row) for row in pixels)
    data = b"".join(int(row + "0" * (-len(row) % 8), 2).to_bytes(-(-len(row) // 8), "big") for row in rows)
    order = {"<": "little", ">": "big"}[byteorder]
    height, width = pixels.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags.append((279, len(data)))
    entries = [
        code.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(4, order)
        for code, value in tags
    ]
    start = b"II*\0" if byteorder == "<" else b"MM\0*"
    header = start + (8 + len(data)).to_bytes(4, order) + data
    path.write_bytes(header + len(tags).to_bytes(2, order) + b"".join(entries) + bytes(4))


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize(("shape", "options"), PACKED.values(), ids=PACKED)
def test_packed_integers_have_a_full_scale_of_their_own_and_stay_packed(tmp_path, shape, options, bits):
    pixels = random_pixels(shape, "u2") >> (16 - bits)
    name = "a.ome.tif" if "ome" in options else "a.tif"
    tifffile.imwrite(tmp_path / name, pixels, **{"photometric": "minisblack", "bitspersample": bits, **options})
    with images.opened(tmp_path / name) as file:
        assert (file.bits, file.full_scale, file.dtype) == (bits, 2**bits - 1, np.uint16)
        assert len(file.notes) == 0
    picture = images.read(tmp_path / name)
    assert (picture.bits, picture.full_scale) == (bits, 2**bits - 1)
    assert picture.array.max() <= picture.full_scale
    images.write(tmp_path / f"b-{name}", picture.array, like=picture)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / f"b-{name}"), pixels)
    with tifffile.TiffFile(tmp_path / f"b-{name}") as tif:
        assert tif.pages.first.bitspersample == bits
    assert images.read(tmp_path / f"b-{name}").bits == bits


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_integers_of_either_byte_order_are_read_and_written(tmp_path, byteorder, bits):
    pixels = random_pixels((7, 11), "u2") >> (16 - bits)
    packed_by_hand(tmp_path / "a.tif", pixels, bits, byteorder)
    picture = images.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.array, pixels)
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    np.testing.assert_array_equal(images.read(tmp_path / "b.tif").array, pixels)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        start, size = tif.pages.first.dataoffsets[0], tif.pages.first.databytecounts[0]
    packed_by_hand(tmp_path / "c.tif", pixels, bits)
    assert (tmp_path / "b.tif").read_bytes()[start : start + size] == (tmp_path / "c.tif").read_bytes()[8 : 8 + size]
    if bits == 12:  # of the others Pillow knows none
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.tif")), pixels)


def test_a_jpeg_of_12_bits_becomes_packed(tmp_path):
    pixels = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="jpeg", photometric="minisblack")
    picture = images.read(tmp_path / "a.tif")
    assert picture.bits == 12
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), picture.array)
    assert images.read(tmp_path / "b.tif").bits == 12


def test_values_that_need_more_bits_get_them(tmp_path):
    pixels = random_pixels((5, 6), "u2") >> 4
    tifffile.imwrite(tmp_path / "a.tif", pixels, bitspersample=12, photometric="minisblack", metadata=None)
    picture = images.read(tmp_path / "a.tif")
    images.write(tmp_path / "b.tif", picture.array * np.uint16(2), like=picture)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), pixels * 2)


def ome_with_bits(path, pixels, bits, **options):
    metadata = {"axes": "CYX", "SignificantBits": bits, "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata=metadata, **options)


@pytest.mark.parametrize(("bits", "expected"), [(12, 12), (8, 8), (16, None), (1, None), (32, None)])
def test_significant_bits_of_ome_are_believed(tmp_path, bits, expected):
    pixels = random_pixels((2, 9, 8), "u2") >> (16 - min(bits, 16))
    ome_with_bits(tmp_path / "a.ome.tif", pixels, bits)
    picture = images.read(tmp_path / "a.ome.tif")
    assert picture.bits == expected
    images.write(tmp_path / "b.ome.tif", picture.array, like=picture)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.ome.tif"), pixels)
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tif:
        assert f'SignificantBits="{bits}"' in tif.ome_metadata
        assert 'Name="GFP"' in tif.ome_metadata


def test_more_bits_than_ome_says_are_refused_in_words(tmp_path):
    pixels = np.full((2, 9, 8), 4096, "u2")
    ome_with_bits(tmp_path / "a.ome.tif", pixels, 12)
    with pytest.raises(ValueError, match="12 significant bits, and one is 4096: correct the SignificantBits"):
        images.read(tmp_path / "a.ome.tif")
    ome_with_bits(tmp_path / "b.ome.tif", pixels >> 1, 12)
    picture = images.read(tmp_path / "b.ome.tif")
    images.write(tmp_path / "c.ome.tif", pixels.transpose(1, 2, 0), like=picture)
    with tifffile.TiffFile(tmp_path / "c.ome.tif") as tif:
        assert "SignificantBits" not in tif.ome_metadata
    np.testing.assert_array_equal(images.read(tmp_path / "c.ome.tif").array, pixels.transpose(1, 2, 0))


def test_floats_have_no_bits(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random_pixels((5, 6), "f4"), photometric="minisblack")
    assert images.read(tmp_path / "a.tif").bits is None
    tifffile.imwrite(tmp_path / "b.tif", random_pixels((5, 6), "u2"), photometric="minisblack")
    assert images.read(tmp_path / "b.tif").bits is None


@pytest.mark.parametrize(("shape", "options"), PACKED.values(), ids=PACKED)
def test_windows_of_packed_files_are_parts_of_the_whole(tmp_path, shape, options):
    pixels = random_pixels(shape, "u2") >> 4
    tifffile.imwrite(tmp_path / "a.tif", pixels, **{"photometric": "minisblack", "bitspersample": 12, **options})
    with images.opened(tmp_path / "a.tif") as file:
        whole = file.read(0)
        height, width = whole.shape[:2]
        rows, columns = slice(height // 2, height), slice(width // 3, width - width // 4)
        np.testing.assert_array_equal(file.read_window(0, rows, columns), whole[rows, columns])
