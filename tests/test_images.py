"""Image files: what is read, what is refused, what survives a round trip, and pixel units."""

import io
import os
import re
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from bsdenoise import images
from bsdenoise.data.sources import open_source
from bsdenoise.images.formats import jpeg, png

ICC_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION_TAG = 0x0112
SIDEWAYS = 6


def random_pixels(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def smooth_pixels(height=40, width=56):
    """Strongly coloured and smooth, so that JPEG errs little but halved chroma would show at the colour edge."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2 + 1] = (220, 30, 30)
    picture[:, width // 2 + 1 :] = (30, 30, 220)
    return picture


def exif_bytes():
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = SIDEWAYS
    exif[0x010F] = "Maker of cameras"
    return exif.tobytes()


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def plain_png(width, height, bits, colour_type, rows, extra=b""):
    """A PNG put together here from the specification, so that it shares nothing with the code under test."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    )


# --- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (7, 5, 3), (64, 33, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".npy", ".PNG"])
def test_lossless_round_trip_is_exact(tmp_path, shape, dtype, suffix):
    pixels = random_pixels(shape, dtype)
    images.write(tmp_path / f"a{suffix}", pixels)
    back = images.read_array(tmp_path / f"a{suffix}")
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, pixels)


def test_16_bit_rgb_png_is_read_as_the_specification_says(tmp_path):
    pixels = random_pixels((3, 4, 3), np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(plain_png(4, 3, 16, 2, [row.astype(">u2").tobytes() for row in pixels]))
    np.testing.assert_array_equal(images.read_array(path), pixels)


def test_16_bit_png_is_written_in_big_endian_16_bits(tmp_path):
    images.write(tmp_path / "a.png", np.array([[258, 65535]], np.uint16))
    data = (tmp_path / "a.png").read_bytes()
    assert data[24:26] == bytes([16, 0])  # bits per sample, colour type grey
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), [[258, 65535]])


def test_interlaced_png_is_read(tmp_path, request):
    # Adam7: a 2×2 image has pixel (0,0) in pass 1, (0,1) in pass 6 and row 1 in pass 7.
    header = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 1)
    body = zlib.compress(bytes([0, 10, 0, 20, 0, 30, 40]))
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(images.read_array(tmp_path / "a.png"), [[10, 20], [30, 40]])


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4), (2, 6, 5, 1)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, ">f4", ">u2"])
def test_npy_keeps_values_and_training_gets_float32(tmp_path, shape, dtype):
    values = random_pixels(shape).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    picture = images.read(tmp_path / "a.npy")
    assert (picture.format, picture.array.dtype) == ("NPY", np.dtype(dtype).newbyteorder("="))
    np.testing.assert_array_equal(picture.array, values)
    pixels = images.read_array(tmp_path / "a.npy")
    assert pixels.dtype == (np.float32 if np.dtype(dtype).kind == "f" else picture.array.dtype)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_read_as_pillow_reads_it(tmp_path, mode):
    Image.fromarray(random_pixels((17, 23, 3))).convert(mode).save(tmp_path / "a.jpeg", quality=80)
    expected = np.asarray(Image.open(tmp_path / "a.jpeg"))
    np.testing.assert_array_equal(images.read_array(tmp_path / "a.jpeg"), expected)


def test_jpeg_is_written_with_full_colour_resolution(tmp_path):
    pixels = smooth_pixels()
    images.write(tmp_path / "a.jpg", pixels)
    with Image.open(tmp_path / "a.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
        # Annex K's luminance table begins with 16; at quality 95 a tenth of it is left, at 94 more than that.
        assert image.quantization[0][0] <= 2
    error = np.abs(images.read_array(tmp_path / "a.jpg").astype(int) - pixels)
    assert error.max() <= 8


def test_read_is_safe_in_threads(tmp_path):
    names = []
    for seed in range(16):
        names.append(tmp_path / f"{seed}.{'png' if seed % 2 else 'npy'}")
        images.write(names[-1], random_pixels((50, 40, 3), np.uint16, seed))
    with ThreadPoolExecutor(8) as pool:
        for seed, pixels in enumerate(pool.map(images.read_array, names)):
            np.testing.assert_array_equal(pixels, random_pixels((50, 40, 3), np.uint16, seed))


# --- metadata ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tagged(tmp_path):
    """One PNG and one JPEG by Pillow, each with ICC profile, EXIF and 300 dots per inch; the PNG has a text too."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Author", "someone")
    text.add_itxt("Title", "Größe")
    options = {"icc_profile": ICC_PROFILE, "exif": exif_bytes(), "dpi": (300, 300)}
    image = Image.fromarray(smooth_pixels())
    image.save(tmp_path / "source.png", pnginfo=text, **options)
    image.save(tmp_path / "source.jpg", **options)
    return tmp_path


@pytest.mark.parametrize("target", ["out.png", "out.jpg"])
@pytest.mark.parametrize("source", ["source.png", "source.jpg"])
def test_metadata_survive_within_and_across_formats(tagged, source, target):
    picture = images.read(tagged / source)
    assert picture.array.shape == (40, 56, 3)  # orientation not applied
    images.write(tagged / target, picture.array // 2, like=picture)
    with Image.open(tagged / target) as image:
        assert image.info["icc_profile"] == ICC_PROFILE
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.02)
        assert image.getexif()[ORIENTATION_TAG] == SIDEWAYS
        assert image.getexif()[0x010F] == "Maker of cameras"
        assert image.size == (56, 40)


def test_png_chunks_are_kept_byte_for_byte(tagged):
    picture = images.read(tagged / "source.png")
    images.write(tagged / "out.png", np.zeros((5, 5, 3), np.uint16), like=picture)
    again = images.read(tagged / "out.png")
    assert {chunk.name for chunk in picture.metadata["chunks"]} == {b"iCCP", b"pHYs", b"eXIf", b"tEXt", b"iTXt"}
    assert again.metadata["chunks"] == picture.metadata["chunks"]
    assert Image.open(tagged / "out.png").text == {"Author": "someone", "Title": "Größe"}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_colour_profile_is_not_put_into_a_grey_image(tagged, suffix):
    picture = images.read(tagged / f"source{suffix}")
    images.write(tagged / f"grey{suffix}", picture.array[..., 0], like=picture)
    with Image.open(tagged / f"grey{suffix}") as image:
        assert "icc_profile" not in image.info
        assert image.getexif()[ORIENTATION_TAG] == SIDEWAYS


def test_a_chunk_with_a_wrong_checksum_is_not_passed_on(tmp_path):
    broken = png_chunk(b"tEXt", b"Author\0someone")[:-1] + b"\0"
    (tmp_path / "a.png").write_bytes(plain_png(1, 1, 8, 0, [b"\7"], extra=broken))
    picture = images.read(tmp_path / "a.png")
    assert picture.array == [[7]]
    assert picture.metadata == {}


def test_a_broken_profile_stays_where_it_is_but_goes_nowhere_else(tmp_path):
    extra = png_chunk(b"iCCP", b"name\0\0not zlib")
    (tmp_path / "a.png").write_bytes(plain_png(1, 1, 8, 2, [b"\1\2\3"], extra=extra))
    assert "icc_profile" not in images.read(tmp_path / "a.png").metadata


# --- refused files -------------------------------------------------------------------------------------------------


def save_bytes(data):
    return lambda path: path.write_bytes(data)


def save_pillow(mode, kind="PNG", **options):
    return lambda path: Image.new(mode, (4, 4)).save(path, kind, **options)


def truncated(kind, keep):
    def save(path):
        file = io.BytesIO()
        Image.fromarray(random_pixels((60, 60, 3))).save(file, kind)
        path.write_bytes(file.getvalue()[: int(len(file.getvalue()) * keep)])

    return save


def save_npy(array):
    return lambda path: np.save(path, array)


def npy_header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def save_ycck(path):
    pixels = random_pixels((16, 16, 4))
    path.write_bytes(imagecodecs.jpeg8_encode(pixels, colorspace="CMYK", outcolorspace="YCCK"))


def corrupt_png(path):
    data = bytearray(plain_png(4, 4, 8, 0, [bytes(4)] * 4))
    data[45] ^= 0xFF
    path.write_bytes(data)


ANIMATED = plain_png(1, 1, 8, 0, [b"\7"], extra=png_chunk(b"acTL", struct.pack(">II", 2, 0)))
HUGE = plain_png(2**20, 2**20, 8, 0, [b"\7"])
JPEG_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
JPEG_BOMB = b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00" + JPEG_SCAN + b"\xff\xd9"
REFUSED = {
    "empty": ("a.png", save_bytes(b""), "it is empty"),
    "text": ("a.png", save_bytes(b"hello, I am no image\n"), "no image of a known kind"),
    "gif": ("a.png", save_pillow("P", "GIF"), "no image of a known kind"),
    "signature only": ("a.png", save_bytes(b"\x89PNG\r\n\x1a\n"), "as PNG: it does not begin with a PNG header"),
    "png cut in half": ("a.png", truncated("PNG", 0.5), "as PNG: it ends within a chunk"),
    "png without its end": ("a.png", save_bytes(plain_png(1, 1, 8, 0, [b"\7"])[:-12]), "ends before its end chunk"),
    "png with flipped bits": ("a.png", corrupt_png, "as PNG: .*"),
    "png without pixels": ("a.png", save_bytes(plain_png(9, 9, 8, 0, [])), "as PNG: .*"),
    "jpeg cut in half": ("a.jpg", truncated("JPEG", 0.5), "as JPEG: .*truncated"),
    "jpeg marker only": ("a.jpg", save_bytes(b"\xff\xd8\xff\xe0"), "as JPEG: "),
    "jpeg bomb": ("a.jpg", save_bytes(JPEG_BOMB), "as JPEG: .*decompression bomb"),
    "png bomb": ("a.png", save_bytes(HUGE), "more than the limit"),
    "one bit": ("a.png", save_pillow("1"), "1 bit per pixel .* no noise level to remove"),
    "one bit of palette": ("a.png", save_pillow("P", bits=1), "1 bit per pixel .* no noise level to remove"),
    "two bits": ("a.png", save_bytes(plain_png(4, 1, 2, 0, [b"\7"])), "2-bit grey images .*: rounding to 4 greys"),
    "four bits": ("a.png", save_bytes(plain_png(2, 1, 4, 0, [b"\7"])), "4-bit grey images .*: rounding to 16 greys"),
    "palette without colours": ("a.png", save_bytes(plain_png(1, 1, 8, 3, [b"\0"])), "palette is missing"),
    "unknown colours": ("a.png", save_bytes(plain_png(1, 1, 8, 5, [b"\7"])), "colour type 5 images are not supported"),
    "animation": ("a.png", save_bytes(ANIMATED), "animations are not supported"),
    "cmyk": ("a.jpg", save_pillow("CMYK", "JPEG"), "CMYK images are not supported: convert it to RGB"),
    "ycck": ("a.jpg", save_ycck, "CMYK images are not supported"),
    "npy of objects": ("a.npy", save_npy(np.array([[{}]], object)), "as NPY: .*pickle"),
    "npy of long doubles": ("a.npy", save_npy(np.zeros((3, 3), np.longdouble)), "uint8, uint16 or floats"),
    "npy of terabytes": ("a.npy", save_bytes(npy_header((2**20, 2**20))), "ends early: 8796093022208 bytes"),
    "npy of version 3": ("a.npy", save_bytes(b"\x93NUMPY\3\0" + bytes(9)), r"version \(3, 0\) .* not supported"),
    "npy cut in half": ("a.npy", save_bytes(npy_header((9, 9)) + bytes(300)), "ends early: 648 bytes"),
    "npy of integers": ("a.npy", save_npy(np.zeros((3, 3), int)), "uint8, uint16 or floats. Received: dtype=int64"),
    "npy with one axis": ("a.npy", save_npy(np.zeros(3)), r"shape must be \(H, W\)"),
    "npy without pixels": ("a.npy", save_npy(np.zeros((3, 0))), "nothing empty"),
    "npy with infinity": ("a.npy", save_npy(np.array([[1.0, np.inf]])), "infinite values"),
    "jpeg of its first bytes": (
        "a.jpg",
        save_bytes(b"\xff\xd8\xff\xe0" + bytes(16)),
        "damaged before the picture begins",
    ),
    "npy cut off": ("a.npy", save_bytes(b"\x93NUMPY\1\0"), "as NPY: "),
}


@pytest.mark.parametrize(("name", "save", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path, name, save, message):
    path = tmp_path / name
    save(path)
    with pytest.raises(ValueError, match=message) as caught:
        images.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def encoded(kind, mode="RGB", **options):
    pixels = random_pixels((40, 30, 4))
    Image.fromarray(pixels).convert(mode).save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


HOSTILE = {
    "png": encoded("PNG"),
    "png with alpha and profile": encoded("PNG", "RGBA", icc_profile=ICC_PROFILE),
    "png with palette": encoded("PNG", "P", transparency=3),
    "jpeg": encoded("JPEG", exif=exif_bytes()),
    "npy": npy_header((9, 9)) + bytes(648),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_give_nothing_but_one_line(data, capfd):
    ends = range(0, len(data) - 16, 64)
    rng = np.random.default_rng(0)
    broken = [data[:end] for end in ends]
    for number in range(150):
        flipped = bytearray(data)
        for position in rng.integers(0, len(data) if number % 2 else 200, 3):
            flipped[position] = rng.integers(256)
        broken.append(bytes(flipped))
    refused = []
    for number, content in enumerate(broken):
        try:
            images.decode(content, "name")
        except ValueError as error:
            assert re.fullmatch(r"name: cannot be read[^\n]*", str(error))
            refused.append(number)
    assert refused[: len(ends)] == list(range(len(ends)))  # all that are cut off
    assert len(refused) > len(ends)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        images.read(tmp_path / "a.png")


def test_content_counts_more_than_the_suffix(tmp_path):
    Image.fromarray(smooth_pixels()).save(tmp_path / "a.png", "JPEG")
    assert images.read(tmp_path / "a.png").format == "JPEG"


# --- notes ---------------------------------------------------------------------------------------------------------

ALPHA = "its alpha channel is dropped"
COLOUR = "its transparent colour is dropped"


@pytest.mark.parametrize(
    ("mode", "note"),
    [("RGBA", ALPHA), ("LA", ALPHA), ("RGB", COLOUR), ("L", COLOUR)],
)
def test_transparency_is_dropped_with_a_note(tmp_path, mode, note):
    pixels = random_pixels((7, 9, {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]))
    colour = {"L": 7, "RGB": (1, 2, 3)}.get(mode)
    options = {} if colour is None else {"transparency": colour}
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels).save(tmp_path / "a.png", **options)
    picture = images.read(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.array, pixels[..., 0] if "L" in mode else pixels[..., :3])
    assert picture.notes == (note,)
    images.write(tmp_path / "b.png", picture.array, like=picture)
    assert images.read(tmp_path / "b.png").notes == ()


@pytest.mark.parametrize(("colour_type", "channels"), [(4, 1), (6, 3)], ids=["grey", "rgb"])
def test_16_bit_alpha_is_dropped_too(tmp_path, colour_type, channels):
    pixels = random_pixels((3, 4, channels + 1), np.uint16)
    (tmp_path / "a.png").write_bytes(plain_png(4, 3, 16, colour_type, [row.astype(">u2").tobytes() for row in pixels]))
    expected = pixels[..., 0] if channels == 1 else pixels[..., :3]
    np.testing.assert_array_equal(images.read_array(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("is_grey", [False, True], ids=["rgb", "grey"])
def test_palettes_become_colours_with_a_note(tmp_path, bits, is_grey):
    colours = random_pixels((2**bits, 1 if is_grey else 3)) * np.ones((1, 3), np.uint8)
    indices = np.random.default_rng(0).integers(0, 2**bits, (5, 8), np.uint8)
    packed = np.packbits(np.unpackbits(indices[..., np.newaxis], axis=-1)[..., 8 - bits :].reshape(5, -1), axis=-1)
    extra = png_chunk(b"PLTE", colours.tobytes())
    (tmp_path / "a.png").write_bytes(plain_png(8, 5, bits, 3, [row.tobytes() for row in packed], extra=extra))
    picture = images.read(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.array, colours[indices][..., 0] if is_grey else colours[indices])
    (note,) = picture.notes
    assert note.startswith(f"its palette is turned into {'grey' if is_grey else 'RGB'}")


def test_a_transparent_palette_colour_is_noted_beside_the_palette(tmp_path):
    image = Image.fromarray(random_pixels((5, 8)) % 4).convert("P")
    image.putpalette(bytes(range(12)))
    image.save(tmp_path / "a.png", transparency=2)
    picture = images.read(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.array, np.asarray(image.convert("RGB")))
    assert (len(picture.notes), picture.notes[1]) == (2, COLOUR)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.npy"])
def test_nothing_to_note(tmp_path, name):
    images.write(tmp_path / name, smooth_pixels())
    assert images.read(tmp_path / name).notes == ()


# --- one image of a file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (4, 6, 5, 2), (1, 6, 5, 1)], ids=str)
def test_images_of_an_array_are_read_one_by_one(tmp_path, shape, order):
    values = np.asarray(random_pixels(shape, np.uint16).astype(">u2"), order=order)
    np.save(tmp_path / "a.npy", values)
    count = shape[0] if len(shape) == 4 else 1
    assert images.count(tmp_path / "a.npy") == count
    for index in range(count):
        expected = values[index] if len(shape) == 4 else values
        np.testing.assert_array_equal(images.read_image(tmp_path / "a.npy", index).array, expected)
    np.testing.assert_array_equal(images.read_array(tmp_path / "a.npy"), values)
    for index in (-1, count):
        with pytest.raises(ValueError, match=rf"a\.npy: .* no image {index}, it holds {count}, counted from 0"):
            images.read_image(tmp_path / "a.npy", index)


def test_one_image_of_an_array_costs_the_memory_of_one(tmp_path):
    values = np.zeros((64, 64, 64, 3), np.float32)
    np.save(tmp_path / "a.npy", values)
    tracemalloc.start()
    images.read_image(tmp_path / "a.npy", 63)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * values[0].nbytes


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_picture_is_one_image_with_all_its_metadata(tagged, name):
    path = tagged / name.replace("a.", "source.")
    assert images.count(path) == 1
    part, whole = images.read_image(path), images.read(path)
    np.testing.assert_array_equal(part.array, whole.array)
    assert (part.format, part.metadata) == (whole.format, whole.metadata)


def test_headers_are_known_without_the_pixels(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(plain_png(5, 3, 16, 6, [b"no pixels"]))
    assert images.count(path) == 1
    with images.opened(path) as file:
        assert (file.shape, file.dtype, file.notes, len(file)) == ((3, 5, 3), np.uint16, (ALPHA,), 1)
        with pytest.raises(ValueError, match=r"a\.png: cannot be read as PNG"):
            file.read(0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_headers_are_read_without_the_rest(kind):
    Image.fromarray(random_pixels((400, 300, 3))).save(file := io.BytesIO(), kind)
    size, num_read = len(file.getvalue()), 0

    class Counted(io.BytesIO):
        def read(self, *arguments):
            nonlocal num_read
            num_read += len(data := super().read(*arguments))
            return data

    found = {"PNG": png, "JPEG": jpeg}[kind].open_file(Counted(file.getvalue()))
    assert found.shape == (400, 300, 3)
    assert num_read < size / 10


def test_bytes_are_read_as_the_file_is(tagged):
    for name in ("source.png", "source.jpg"):
        picture = images.decode((tagged / name).read_bytes(), "somewhere")
        np.testing.assert_array_equal(picture.array, images.read_array(tagged / name))
    with pytest.raises(ValueError, match="^somewhere: cannot be read: it is empty"):
        images.decode(b"", "somewhere")


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.png", np.zeros((2, 2), np.float32), "PNG holds uint8 or uint16 pixels. Received: dtype=float32"),
        ("a.jpg", np.zeros((2, 2), np.uint16), "JPEG holds uint8 pixels. Received: dtype=uint16"),
        ("a.png", np.zeros((2, 2, 2), np.uint8), r"PNG holds grey or RGB images. Received: shape=\(2, 2, 2\)"),
        ("a.png", np.zeros((2, 2, 2, 3), np.uint8), r"Received: shape=\(2, 2, 2, 3\)"),
        ("a.bmp", np.zeros((2, 2), np.uint8), r"unknown kind of image file. Expected one of \.png"),
    ],
)
def test_write_refuses_what_the_format_cannot_hold(tmp_path, name, array, message):
    with pytest.raises(ValueError, match=message):
        images.write(tmp_path / name, array)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    images.write(path, np.full((2, 2), 9, np.uint8))

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        images.write(path, np.zeros((2, 2), np.uint8))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    assert (images.read_array(path) == 9).all()


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "message"),
    [
        ("a.png", (2, 5, 4, 1), np.uint8, r"a\.png: PNG holds grey or RGB images"),
        ("a.jpg", (5, 4), np.uint16, r"a\.jpg: JPEG holds uint8 pixels"),
        ("a.tif", (5, 4), np.int8, r"a\.tif: Pixels must be uint8, uint16 or floats"),
        ("a.bmp", (5, 4), np.uint8, r"a\.bmp: unknown kind of image file"),
    ],
)
def test_what_cannot_be_written_is_known_before(tmp_path, name, shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        images.check_writable(tmp_path / name, shape, dtype)


def test_the_file_appears_only_when_it_is_complete(tmp_path, monkeypatch):
    seen = []
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda a, b: (seen.append((os.path.exists(b), images.read_array(a))), replace(a, b))
    )
    images.write(tmp_path / "a.png", np.full((2, 2), 9, np.uint8))
    ((existed, pixels),) = seen
    assert not existed
    assert (pixels == 9).all()


def test_written_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    images.write(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- finding -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    for name in (
        "b.png",
        "a.JPG",
        "sub/c.npy",
        "sub/deep/d.jpeg",
        ".hidden.png",
        ".cache/e.png",
        "notes.txt",
        "f[1].png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", ["a.JPG", "b.png", "f[1].png", "sub/c.npy", "sub/deep/d.jpeg"]),
        ("b.png", ["b.png"]),
        ("*", ["a.JPG", "b.png", "f[1].png"]),
        ("**/*.*p*g", ["b.png", "f[1].png", "sub/deep/d.jpeg"]),
        ("f[1].png", ["f[1].png"]),
        (".cache", [".cache/e.png"]),
    ],
)
def test_find(tree, source, expected):
    found = images.find(os.path.join(tree, source))
    assert [file.relative_to(tree).as_posix() for file in found] == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing", "no such file or folder"),
        ("missing/*.png", "no image found there"),
        ("empty", "no image found there"),
        ("notes.txt", "not an image file that can be read. Expected one of .png"),
        ("", "glob is empty"),
    ],
)
def test_find_says_what_is_missing(tree, monkeypatch, source, message):
    (tree / "empty").mkdir()
    monkeypatch.chdir(tree)
    with pytest.raises(ValueError, match=message):
        images.find(source)


def test_find_reports_a_folder_that_cannot_be_listed(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="sub"):
        images.find(tree)


# --- units and channels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), ("float64", 1)])
def test_full_scale(dtype, scale):
    assert images.full_scale(dtype) == scale


def test_full_scale_refuses_other_types():
    with pytest.raises(ValueError, match="uint8, uint16 or floats. Received: dtype=bool"):
        images.full_scale(bool)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_integer_survives_unit_scale(dtype):
    values = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    unit = images.to_unit(values)
    assert (unit.dtype, unit[0], unit[-1]) == (np.float32, 0, 1)
    np.testing.assert_array_equal(images.from_unit(unit, dtype), values)


@given(hnp.arrays(np.float32, (4, 3), elements=st.floats(-2, 2, width=32)))
def test_from_unit_rounds_to_nearest_and_clips(unit):
    exact = np.clip(unit.astype(np.float64), 0, 1) * 255
    assert np.abs(images.from_unit(unit, np.uint8) - exact).max() <= 0.5 + 1e-4


def test_floats_keep_their_values():
    values = np.array([[-3.5, 1e6]])
    assert images.to_unit(values).dtype == np.float32
    np.testing.assert_array_equal(images.from_unit(images.to_unit(values), np.float64), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_luminance_is_rec_601(dtype):
    rgb = random_pixels((5, 6, 3), np.uint8).astype(dtype)
    exact = rgb.astype(np.float64) @ [0.299, 0.587, 0.114]
    grey = images.to_channels(rgb, 1)
    assert (grey.shape, grey.dtype) == ((5, 6, 1), dtype)
    assert np.abs(grey[..., 0] - exact).max() <= (1e-4 if dtype == np.float32 else 0.5 + 1e-4)


def test_luminance_of_white_is_white():
    assert images.to_channels(np.full((1, 1, 3), 65535, np.uint16), 1) == 65535


def test_to_channels_keeps_what_fits():
    stack = random_pixels((2, 4, 4, 3))
    assert images.to_channels(stack, 3) is stack
    np.testing.assert_array_equal(images.to_channels(stack[0, ..., 0], 1)[..., 0], stack[0, ..., 0])


@pytest.mark.parametrize(("shape", "channels"), [((4, 4), 3), ((4, 4, 1), 3), ((4, 4, 2), 1), ((4, 4, 3), 2)])
def test_to_channels_refuses_the_rest(shape, channels):
    with pytest.raises(ValueError, match=rf"cannot be used where {channels} are expected"):
        images.to_channels(np.zeros(shape, np.uint8), channels)


# Which axis of an array is which


@pytest.mark.parametrize(
    ("stored", "shape"),
    [
        ((9, 17), (9, 17)),
        ((9, 8, 16), (9, 8, 16)),
        ((9, 8, 17), (9, 8, 17, 1)),
        ((1, 64, 64), (1, 64, 64, 1)),
        ((2, 9, 8, 5), (2, 9, 8, 5)),
    ],
    ids=str,
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_axes_of_npy_files(stored, shape, order, tmp_path):
    """A stack of grey images is one for every reader, and comes out with the axes that it went in with."""
    array = np.asarray(np.random.default_rng(0).random(stored, np.float32), order=order)
    np.save(tmp_path / "a.npy", array)
    with images.opened(tmp_path / "a.npy") as file:
        assert file.shape == shape and len(file) == (shape[0] if len(shape) == 4 else 1)
        np.testing.assert_array_equal(file.read_all(), array.reshape(shape))
        images.write(tmp_path / "b.npy", file.read_all(), like=file)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), array)
    source = open_source(str(tmp_path / "a.npy"))
    assert len(source) == images.count(tmp_path / "a.npy")
    np.testing.assert_array_equal(
        source.read(0).array.ravel(), array.reshape(shape if len(shape) == 4 else (1, *shape))[0].ravel()
    )


def test_linked_folders_are_searched_once(tmp_path):
    (tmp_path / "real").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "real" / "a.png")
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "linked").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "search" / "linked twice").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real" / "back").symlink_to(tmp_path / "search", target_is_directory=True)
    (found,) = images.find(tmp_path / "search")
    assert found.parent.name in ("linked", "linked twice") and found.name == "a.png"


def test_independent_channels_have_no_luminance():
    pixels = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(ValueError, match="3 independent channels has no luminance: take its channels one by one"):
        images.to_channels(pixels, 1, independent=True)
    np.testing.assert_array_equal(images.to_channels(pixels, 3, independent=True), pixels)
    assert images.to_channels(pixels[..., :1], 1, independent=True).shape == (4, 5, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1000, 1), (1000, 1, 3), (3000, 2), (1, 1000, 3), (1, 1)], ids=str)
def test_narrow_noise_is_written_as_png(tmp_path, shape, dtype):
    """It cannot be compressed, and PNG puts a byte before each row."""
    noise = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    images.write(tmp_path / "noise.png", noise)
    np.testing.assert_array_equal(images.read_array(tmp_path / "noise.png"), noise)
