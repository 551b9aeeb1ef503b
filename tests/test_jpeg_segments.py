"""Segments of JPEG files beside the pixels: which are kept, byte for byte, and what is said of the rest."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from tiff_files import random_pixels

from bsdenoise import images
from bsdenoise.images.formats import jpeg_segments

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmp:Rating="5"/></x:xmpmeta>'
MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 4, 0) + b"<x/>"
IPTC = b"\x1c\x02\x05\0\x05title"
PHOTOSHOP = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
EXIF = Image.Exif()
EXIF[0x010F] = "a camera"
EXIF[0x0112] = 6


def segment(marker, data):
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def photograph(path, *extra, mode="RGB", **options):
    """A JPEG by Pillow, with segments put in by hand behind its first one."""
    encoded = io.BytesIO()
    Image.fromarray(random_pixels((16, 24, 3) if mode == "RGB" else (16, 24), "u1")).save(encoded, "JPEG", **options)
    data = encoded.getvalue()
    end = 4 + int.from_bytes(data[4:6], "big")
    path.write_bytes(data[:end] + b"".join(extra) + data[end:])
    return path


def segments_of(path):
    """All segments before the pixels, by a walk of its own."""
    data, position, found = path.read_bytes(), 2, []
    while data[position + 1] != 0xDA:
        size = int.from_bytes(data[position + 2 : position + 4], "big")
        found.append((data[position + 1], data[position + 4 : position + 2 + size]))
        position += 2 + size
    return found


def index_of(number, byteorder="<"):
    """The part of a Multi-Picture Format that counts pictures."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[byteorder]
    entries = struct.pack(f"{byteorder}HHI4s", 0xB000, 7, 4, b"0100")
    entries += struct.pack(f"{byteorder}HHII", 0xB001, 4, 1, number)
    return b"MPF\0" + start + struct.pack(f"{byteorder}IH", 8, 2) + entries + bytes(4)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_xmp_iptc_and_comments_are_kept_byte_for_byte(tmp_path, mode):
    kept = [
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        (0xE1, MORE_XMP),
        (0xED, b"Photoshop 3.0\0" + PHOTOSHOP[:9]),
        (0xED, b"Photoshop 3.0\0" + PHOTOSHOP[9:]),
        (0xFE, b"by hand"),
        (0xFE, "zweite Zeile, μ".encode()),
        (0xFE, b""),
    ]
    options = {"exif": EXIF, "dpi": (300, 300)}
    source = photograph(tmp_path / "a.jpg", *(segment(*one) for one in kept), mode=mode, **options)
    picture = images.read(source)
    assert picture.notes == ()
    assert images.not_kept_in(tmp_path / "b.jpg", picture) == ()
    images.write(tmp_path / "b.jpg", picture.array, like=picture)
    assert [one for one in segments_of(tmp_path / "b.jpg") if one in kept] == kept
    with Image.open(tmp_path / "b.jpg") as image:
        image.load()
        assert (image.size, image.info["dpi"], image.getexif()[0x010F]) == ((24, 16), (300, 300), "a camera")
        assert image.info["xmp"] == XMP
        assert image.info["comment"] == "zweite Zeile, μ".encode() or image.info["comment"] == b""
    again = images.read(tmp_path / "b.jpg")
    assert again.metadata["segments"] == picture.metadata["segments"]


def test_a_large_profile_and_large_comments_survive_beside_each_other(tmp_path):
    comment = bytes(range(1, 256)) * 256
    photograph(tmp_path / "a.jpg", segment(0xFE, comment[:65533]), icc_profile=b"profile " * 20_000)
    picture = images.read(tmp_path / "a.jpg")
    images.write(tmp_path / "b.jpg", picture.array, like=picture)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["comment"] == comment[:65533]
        assert image.info["icc_profile"] == b"profile " * 20_000


def test_xmp_and_comments_go_to_png_and_back(tmp_path):
    source = photograph(
        tmp_path / "a.jpg",
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        segment(0xFE, b"plain"),
        segment(0xFE, "zweite Zeile, μ".encode()),
        exif=EXIF,
    )
    picture = images.read(source)
    assert images.not_kept_in(tmp_path / "b.png", picture) == ()
    images.write(tmp_path / "b.png", picture.array, like=picture)
    with Image.open(tmp_path / "b.png") as image:
        image.load()
        assert image.info["XML:com.adobe.xmp"].encode() == XMP
        assert image.text["Comment"] in ("plain", "zweite Zeile, μ")
        assert image.getexif()[0x0112] == 6
    middle = images.read(tmp_path / "b.png")
    images.write(tmp_path / "c.jpg", middle.array, like=middle)
    found = segments_of(tmp_path / "c.jpg")
    assert (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP) in found
    assert (0xFE, b"plain") in found


def test_xmp_and_iptc_go_to_tiff_and_back(tmp_path):
    source = photograph(
        tmp_path / "a.jpg",
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        segment(0xED, b"Photoshop 3.0\0" + PHOTOSHOP),
        segment(0xFE, b"plain"),
        exif=EXIF,
    )
    picture = images.read(source)
    assert images.not_kept_in(tmp_path / "b.tif", picture) == ("its comments are not kept in b.tif",)
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    with Image.open(tmp_path / "b.tif") as image:
        assert bytes(image.tag_v2[700]) == XMP
        assert bytes(image.tag_v2[34377]) == PHOTOSHOP
        assert (image.tag_v2[271], image.tag_v2[274]) == ("a camera", 6)
    middle = images.read(tmp_path / "b.tif")
    images.write(tmp_path / "c.jpg", middle.array, like=middle)
    assert (0xED, b"Photoshop 3.0\0" + PHOTOSHOP) in segments_of(tmp_path / "c.jpg")
    assert (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP) in segments_of(tmp_path / "c.jpg")


def test_what_other_formats_cannot_hold_is_said(tmp_path):
    source = photograph(
        tmp_path / "a.jpg",
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        segment(0xE1, MORE_XMP),
        segment(0xED, b"Photoshop 3.0\0" + PHOTOSHOP),
        segment(0xFE, b"plain"),
        exif=EXIF,
    )
    picture = images.read(source)
    (said,) = images.not_kept_in(tmp_path / "b.png", picture)
    assert said == "its Photoshop and IPTC data and extended XMP are not kept in b.png"
    (said,) = images.not_kept_in(tmp_path / "b.npy", picture)
    assert said == "its EXIF, XMP, Photoshop and IPTC data, comments and extended XMP are not kept in b.npy"


def test_segments_of_other_applications_are_named(tmp_path):
    source = photograph(
        tmp_path / "a.jpg", segment(0xE2, b"FPXR\0\0"), segment(0xEB, b"JP\0\1seal"), segment(0xE5, b"\1\2")
    )
    (said,) = images.not_kept_in(tmp_path / "b.jpg", images.read(source))
    assert said == "its APP2 (FPXR), APP11 (JP) and APP5 (unknown) are not kept in b.jpg"


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("number", "words"),
    [(2, "1 further picture of its file is left out"), (4, "3 further pictures of its file are left out"), (1, None)],
)
def test_further_pictures_are_counted(tmp_path, byteorder, number, words):
    source = photograph(tmp_path / "a.jpg", segment(0xE2, index_of(number, byteorder)))
    notes = images.read(source).notes
    assert len(notes) == (words is not None)
    assert words is None or notes[0].startswith(words)
    assert images.not_kept_in(tmp_path / "b.jpg", images.read(source)) == ()  # which is said once


def test_further_pictures_of_an_mpo_by_pillow_are_counted(tmp_path):
    first, *others = (Image.fromarray(random_pixels((16, 24, 3), "u1", seed)) for seed in range(3))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=others)
    picture = images.read(tmp_path / "a.jpg")
    assert picture.notes == ("2 further pictures of its file are left out, such as another view or a gain map",)
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(picture.array, np.asarray(image))
    images.write(tmp_path / "b.jpg", picture.array, like=picture)
    with Image.open(tmp_path / "b.jpg") as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("JPEG", 1)


@pytest.mark.parametrize("words", [b'GCamera:MotionPhoto="1"', b"<GCamera:MicroVideo>1</GCamera:MicroVideo>"])
def test_a_video_behind_the_picture_is_said(tmp_path, words):
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + XMP + words
    source = photograph(tmp_path / "a.jpg", segment(0xE1, xmp))
    source.write_bytes(source.read_bytes() + b"\0\0\0\x18ftypmp42")
    assert images.read(source).notes == ("the video of its file is left out",)


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("index", [b"", b"MPF\0", b"MPF\0II*\0\xff\xff\xff\xff", b"MPF\0II*\0\x08\0\0\0\xff\xff"])
def test_a_damaged_index_is_no_index(tmp_path, index):
    assert images.read(photograph(tmp_path / "a.jpg", segment(0xE2, index))).notes == ()


@pytest.mark.parametrize("end", range(2, 60, 3))
def test_headers_that_end_early_are_no_endless_walk(end):
    data = b"\xff\xd8" + segment(0xE0, b"JFIF\0" + bytes(9)) + segment(0xFE, b"comment") + b"\xff" * 8
    assert len(list(jpeg_segments.segments(io.BytesIO(data[:end])))) <= 2


def test_xmp_too_large_for_a_segment_is_said(tmp_path):
    pixels = random_pixels((4, 5), "u1")
    like = images.Picture(pixels, "TIFF", {"xmp": b"x" * 70_000})
    assert images.not_kept_in(tmp_path / "b.jpg", like) == ("its XMP (more than 64 kB) is not kept in b.jpg",)
    images.write(tmp_path / "b.jpg", pixels, like=like)
    assert all(b"xap" not in data for _, data in segments_of(tmp_path / "b.jpg"))
