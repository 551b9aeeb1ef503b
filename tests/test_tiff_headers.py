"""TIFF files that are refused: unsupported, broken, or claiming more than they hold."""

import io
import logging
import struct
import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiff_files import RGB, random_pixels, save

from bsdenoise import images


def pages_unlike(change):
    """Three pages of a series that tifffile takes on trust, the second with one tag changed."""

    def make(path):
        pixels = random_pixels((3, 32, 48), "u1")
        options = {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib", "tile": (16, 16)}
        tifffile.imwrite(path, pixels, photometric="minisblack", **options)
        with tifffile.TiffFile(path, mode="r+") as tif:
            for code, value in change.items():
                tif.pages[1].tags[code].overwrite(value)

    return make


def save_two(path, first, second, **options):
    with tifffile.TiffWriter(path) as writer:
        for pixels in (first, second):
            writer.write(pixels, photometric="minisblack", metadata=None, **options)


def one_bit(path):
    Image.new("1", (16, 9)).save(path)


def four_bit(path):
    tags = [(256, 4, 4), (257, 4, 2), (258, 3, 4), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 4)]
    path.write_bytes(hand_made(tags, b"\x12\x34\x56\x78"))


def hand_made(tags, data, next_offset=0):
    """A little-endian TIFF of one page, put together here from the specification."""
    entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    start = 8 + len(data)
    return (
        struct.pack("<2sHI", b"II", 42, start)
        + data
        + struct.pack("<H", len(tags))
        + entries
        + struct.pack("<I", next_offset)
    )


def plain_tags(width=4, height=2, offset=8, count=8, compression=1, bits=8):
    sizes = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, 1)]
    return [*sizes, (273, 4, offset), (277, 3, 1), (278, 4, height), (279, 4, count)]


def missing_planes(path):
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels DimensionOrder="XYZCT" '
        'Type="uint8" SizeX="4" SizeY="3" SizeZ="1000000000" SizeC="1" SizeT="1"><TiffData/></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, np.zeros((3, 4), np.uint8), metadata=None, description=xml)


def other_file(path):
    save_ome = '<UUID FileName="other.tif">urn:uuid:2</UUID>'
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image><Pixels '
        'DimensionOrder="XYZCT" Type="uint8" SizeX="4" SizeY="3" SizeZ="1" SizeC="1" SizeT="1">'
        f'<TiffData IFD="0" PlaneCount="1">{save_ome}</TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, np.zeros((3, 4), np.uint8), metadata=None, description=xml)


def broken_ome(path):
    tifffile.imwrite(path, np.zeros((3, 4), np.uint8), metadata=None, description="<?xml?><OME><Image></OME>")


def endless_axis(path):
    xml = (
        '<OME xmlns="x"><StructuredAnnotations><XMLAnnotation ID="A" Namespace="modulo"><Value><Modulo><ModuloAlongT '
        'Type="lifetime" Start="0" End="1e15" Step="1"/></Modulo></Value></XMLAnnotation></StructuredAnnotations></OME>'
    )
    tifffile.imwrite(path, np.zeros((3, 4), np.uint8), metadata=None, description=xml)


def write(data):
    return lambda path: path.write_bytes(data)


def by_tifffile(shape, dtype, **options):
    return lambda path: tifffile.imwrite(path, np.zeros(shape, dtype), **{"photometric": "minisblack", **options})


A, B = np.zeros((8, 6), np.uint8), np.zeros((5, 4), np.uint8)
REFUSED = {
    "two sizes": (
        lambda path: save_two(path, A, B),
        r"2 series of images \(8×6, 5×4\) where one is expected: split it",
    ),
    "half the size": (lambda path: save_two(path, A, A[::2, ::2]), "2 series of images"),
    "two types": (lambda path: save_two(path, A, A.astype(np.uint16)), "2 series of images"),
    "int16": (by_tifffile((4, 5), np.int16), "uint8, uint16 or floats. Received: dtype=int16"),
    "uint32": (by_tifffile((4, 5), np.uint32), "Received: dtype=uint32"),
    "complex": (by_tifffile((4, 5), np.complex64), "Received: dtype=complex64"),
    "one bit": (one_bit, "1 bit per pixel .* no noise level to remove"),
    "four bits": (four_bit, "4-bit grey images are not supported: rounding to 16 greys"),
    "cmyk": (lambda path: Image.new("CMYK", (8, 6)).save(path), r"CMYK .* not supported: convert it to RGB"),
    "lab": (lambda path: Image.new("LAB", (8, 6)).save(path), "LAB images are not supported"),
    "mosaic": (by_tifffile((4, 6), np.uint16, photometric="cfa", metadata=None), "mosaic"),
    "ycbcr": (lambda path: Image.new("YCbCr", (8, 6)).save(path), "YCbCr .*images are not supported"),
    "infinite": (lambda path: tifffile.imwrite(path, np.full((4, 5), np.inf, np.float32)), "infinite values"),
    "header only": (write(b"II*\0"), r"a\.tif: cannot be read as TIFF: "),
    "no page": (write(b"II*\0\0\0\0\0"), r"a\.tif: cannot be read as TIFF: "),
    "first page beyond the end": (write(struct.pack("<2sHI", b"II", 42, 999)), r"a\.tif: cannot be read as TIFF: "),
    "second page beyond the end": (write(hand_made(plain_tags(), bytes(8), 9999)), "it ends early, after 1 whole page"),
    "a chain in a ring": (write(hand_made(plain_tags(), bytes(8), 16)), "chain of pages runs in a ring"),
    "pixels beyond the end": (write(hand_made(plain_tags(height=200, count=800), bytes(8))), "ends early: pixels are"),
    "terabytes": (write(hand_made(plain_tags(2**20, 2**20, count=2**30), bytes(8))), "ends early: pixels are missing"),
    "terabytes packed": (write(hand_made(plain_tags(2**20, 2**20, compression=8), bytes(8))), "claims 1099511627776 b"),
    "too few strips": (write(hand_made(plain_tags(height=64, compression=8, count=0), bytes(8))), "pixels are missing"),
    "no pixels": (write(hand_made(plain_tags()[:5], bytes(8))), r"a\.tif: cannot be read as TIFF: "),
    "a page of another width": (pages_unlike({256: 30}), "page 1 is not like the others"),
    "a page of endless tiles": (pages_unlike({322: 2**20, 323: 2**20}), "page claims 1099511627776 bytes"),
    "ome with missing planes": (missing_planes, "speaks of 1000000000 pages, and it holds 1"),
    "ome over several files": (other_file, "one of a set of files"),
    "ome that is no XML": (broken_ome, "OME description is broken"),
    "ome with an endless axis": (endless_axis, "more than 1048576 positions"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path, capfd, make, message):
    path = tmp_path / "a.tif"
    make(path)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message) as caught:
        images.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: cannot be read as TIFF: ")
    assert "\n" not in str(caught.value)
    assert peak < 2**24
    assert capfd.readouterr() == ("", "")


SAMPLES = {
    "lzw": ((5, 40, 30), "u1", {"compression": "lzw", "metadata": None}),
    "tiles": ((40, 30, 3), "u2", {**RGB, "compression": "zlib", "predictor": True, "tile": (16, 16)}),
    "ome": ((2, 3, 20, 30), "u2", {"ome": True, "metadata": {"axes": "TCYX"}}),
    "imagej": ((2, 3, 20, 30), "u2", {"imagej": True, "metadata": {"axes": "TCYX"}}),
    "shaped": ((2, 3, 9, 30), "f4", {"bigtiff": True, "metadata": {"axes": "TCYX"}}),
    "jpeg": ((48, 48, 3), "u1", {**RGB, "compression": "jpeg"}),
}


@pytest.mark.parametrize(("shape", "dtype", "options"), SAMPLES.values(), ids=SAMPLES)
def test_hostile_bytes_give_nothing_but_one_line(shape, dtype, options, capfd):
    file = io.BytesIO()
    save(file, shape, dtype, **options)
    data = file.getvalue()
    for end in range(0, len(data) - 16, 128):  # the last bytes may be of a resolution that every page repeats
        with pytest.raises(ValueError, match=r"^name: cannot be read[^\n]*$"):
            images.decode(data[:end], "name")
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(150):
        flipped = bytearray(data)
        for position in rng.integers(0, min(len(data), 600), 3):  # where the headers are
            flipped[position] = rng.integers(256)
        try:
            images.decode(bytes(flipped), "name")
        except ValueError as error:
            num_refused += 1
            assert "\n" not in str(error)
    assert 0 < num_refused
    assert capfd.readouterr() == ("", "")


def test_the_log_of_tifffile_is_heard_outside(tmp_path, caplog):
    save(tmp_path / "a.tif", (9, 8), "u1")
    images.read(tmp_path / "a.tif")
    logging.getLogger("tifffile").warning("of somebody else")
    assert caplog.messages == ["of somebody else"]
