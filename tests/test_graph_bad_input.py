"""Whatever is sent to the exported graph, it answers with one sentence: called past Python's own checks."""

import struct
import zlib

import bad_input
import numpy as np
import pytest
import tensorflow as tf
from bad_input import CASES, FILES, TABLE, chunk, png_by_hand, png_header
from exported import Server, export_some, make_denoiser, noisy_pixels, pillow_file, png_file, strings

from bsdenoise.export.graph import tiles
from bsdenoise.noise import GaussianNoise

MIB = 2**20


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bad_input.export_model(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def grey_folder(tmp_path_factory):
    denoiser = make_denoiser(1, GaussianNoise(25 / 255, 25 / 255))
    return export_some(denoiser, tmp_path_factory.mktemp("grey") / "1", "encoded")


@pytest.fixture(scope="module")
def rows():
    text = TABLE.read_text().split(bad_input.BEGIN)[1].split(bad_input.END)[0]
    return text.splitlines(keepends=True)[2:]


@pytest.mark.parametrize(
    ("number", "signature"),
    [(number, signature) for number, case in enumerate(CASES) for signature in case.signatures],
    ids=lambda value: CASES[value].sent if isinstance(value, int) else value,
)
def test_the_graph_says_what_the_table_says(number, signature, server, folder, rows):
    """The table is written by `python tests/bad_input.py`."""
    case = CASES[number]
    seen = bad_input.ask(server, folder, case, signature)
    assert bad_input.row(case, seen) == rows[number]
    assert (bad_input.words(seen) is not None) == case.is_ours
    assert "\\" not in seen  # TensorFlow escapes quotes: they would not look well


def test_the_table_has_no_other_rows(rows):
    assert len(rows) == len(CASES)


def test_the_server_still_works_after_all_that(server, folder):
    image = np.full((1, 5, 7, 3), 0.5, "float32")
    assert server.call(folder, "with_sigma", image=image, sigma=np.ones(1, "float32"))["denoised"].shape == image.shape
    assert server.call(folder, "encoded", image_bytes=strings(FILES["png"], FILES["jpeg"]))


@pytest.mark.parametrize("height, width", [(100, 1000), (250, 400)])
def test_the_limit_itself_is_accepted(height, width, server, folder):
    assert height * width == bad_input.MAX_PIXELS
    file = png_header(width, height) + FILES["few pixels"][33:]  # so far that the decoder looks for the pixels
    with pytest.raises(ValueError, match="Invalid PNG data"):
        server.call(folder, "encoded", image_bytes=strings(file))
    file = png_header(width, height + 1) + FILES["few pixels"][33:]
    with pytest.raises(ValueError, match=f"at most 100000 per image.*{height + 1} rows and {width} columns"):
        server.call(folder, "encoded", image_bytes=strings(file))
    image = np.zeros((1, height, width, 3), "float32")
    assert server.call(folder, "serving_default", image=image)["denoised"].shape == image.shape


# Files cut and damaged

WHOLE = {
    "png": lambda pixels: png_by_hand(pixels, before=chunk(b"tEXt", b"a\0b"), idats=3),
    "jpeg": lambda pixels: pillow_file(pixels, "JPEG"),
    "progressive": lambda pixels: pillow_file(pixels, "JPEG", progressive=True),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_at_any_byte_is_refused_in_own_words(kind, server, folder):
    data = WHOLE[kind](noisy_pixels(3, (6, 5), np.uint8))
    assert server.call(folder, "encoded", image_bytes=strings(data))
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r"^InvalidArgumentError: assertion failed: \[image_bytes\[0\] "):
            server.call(folder, "encoded", image_bytes=strings(data[:end]))


@pytest.mark.parametrize("kind", WHOLE)
def test_a_damaged_file_is_denoised_or_refused(kind, server, folder):
    """Whatever byte is wrong: the process lives, and a picture of the right size comes or the reason why not."""
    data, rng = WHOLE[kind](noisy_pixels(3, (6, 5), np.uint8)), np.random.default_rng(0)
    refused = 0
    for position in range(2, len(data)):
        damaged = data[:position] + bytes([data[position] ^ rng.integers(1, 256)]) + data[position + 1 :]
        try:
            answer = server.call(folder, "encoded", image_bytes=strings(damaged))
        except ValueError as error:
            refused += 1
            assert str(error).startswith("InvalidArgumentError: ")
        else:
            assert answer["denoised_bytes"][0].startswith(bad_input.PNG_START)
    assert 0 < refused < len(data)


# Claims that are not believed


def swollen(pixels, size=256 * MIB):
    """Files that unpack to far more than they are, by what swells."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB)) + packer.flush()
    return {
        "text": png_by_hand(pixels, before=chunk(b"zTXt", b"key\0\0" + packed)),
        "text behind": png_by_hand(pixels, after=chunk(b"zTXt", b"key\0\0" + packed)),
        "profile": png_by_hand(pixels, before=chunk(b"iCCP", b"name\0\0" + packed)),
        "much text": png_by_hand(pixels, before=chunk(b"tEXt", b"key\0" + bytes(1000)) * 2000),
        "pixels": png_header(5, 6) + chunk(b"IDAT", packed) + chunk(b"IEND"),
        "header": png_header(60_000, 60_000) + chunk(b"IDAT", packed) + chunk(b"IEND"),
        "jpeg header": FILES["jpeg wide"],
    }


def test_what_a_file_claims_takes_no_memory(folder):
    pixels = noisy_pixels(3, (6, 5), np.uint8)
    with Server() as server:
        expected = server.call(folder, "encoded", image_bytes=strings(png_file(pixels)))["denoised_bytes"][0]
        before = server.peak()
        for name, data in swollen(pixels).items():
            if "header" in name:
                with pytest.raises(ValueError, match="holds too many pixels"):
                    server.call(folder, "encoded", image_bytes=strings(data))
            elif name == "pixels":
                with pytest.raises(ValueError, match="must not hold more data than its pixels need"):
                    server.call(folder, "encoded", image_bytes=strings(data))
            else:
                assert server.call(folder, "encoded", image_bytes=strings(data))["denoised_bytes"][0] == expected
        assert server.peak() - before < 64  # MiB; unpacked, any one of them has 256


def test_a_file_wider_than_the_decoder_takes_is_refused(server, grey_folder):
    file = png_header(1_000_001, 2, colour=0) + FILES["few pixels"][33:]
    with pytest.raises(ValueError, match="at most 1000000 pixels high and wide.*2 rows and 1000001 columns"):
        server.call(grey_folder, "encoded", image_bytes=strings(file))


@pytest.mark.parametrize("shape", [(70_000, 70_000, 1), (1, 60_000, 60_000), (2**30, 1, 1)])
def test_pixels_are_counted_beyond_32_bits(shape):
    by_hand = shape[0] * -(-shape[1] // 32) * 32 * -(-shape[2] // 32) * 32
    assert int(tiles.padded_pixels(tf.constant(shape), 32)) == by_hand > 2**31


# Models for other images


def test_a_model_of_float_images_names_its_own_units(server, tmp_path):
    noise = GaussianNoise(0.1, 0.1)
    denoiser = make_denoiser(2, noise, offset=100.0, scale=4000.0, fractional=False)
    folder = export_some(denoiser, tmp_path / "1", "with_sigma", "posterior")
    image, sigma = np.full((1, 5, 7, 2), 600.0, "float32"), np.full(1, 300.0, "float32")
    assert server.call(folder, "with_sigma", image=image, sigma=sigma)
    assert server.call(folder, "with_sigma", image=image * 1e4, sigma=np.full(1, 4000.0, "float32"))
    units = "those of the float images it was trained on, which span about 4000"
    with pytest.raises(ValueError, match=f"sigma must be at most 4000: its units are {units}.*4001"):
        server.call(folder, "posterior", image=image, sigma=np.full(1, 4001.0, "float32"))
    with pytest.raises(ValueError, match=f"pixels from -3.99999?e.07 to 4.00001?e.07: their units are {units}"):
        server.call(folder, "posterior", image=image * 1e6, sigma=sigma)


def test_a_grey_model_refuses_other_files(server, grey_folder):
    kinds = {"png": "a PNG file that is RGB", "jpeg": "a JPEG file that is RGB", "rgba": "RGB with alpha"}
    for name, sentence in (kinds | {"palette": "in palette colours", "cmyk": "CMYK"}).items():
        with pytest.raises(ValueError, match=f"must be grey.*{sentence}"):
            server.call(grey_folder, "encoded", image_bytes=strings(FILES[name]))
    grey = png_file(noisy_pixels(1, (9, 8), np.uint8))
    for bits in (1, 2, 4):
        few = grey[:24] + bytes([bits]) + grey[25:]
        with pytest.raises(ValueError, match=rf"8 or 16 bits per channel.*{bits} bit\(s\)"):
            server.call(grey_folder, "encoded", image_bytes=strings(few))
    assert server.call(grey_folder, "encoded", image_bytes=strings(grey, FILES["grey jpeg"]))


@pytest.mark.parametrize("count, accepted", [(2000, True), (100_001, False)])
def test_many_chunks_are_walked_over_up_to_a_limit(count, accepted, server, folder):
    """The walk takes seconds for the most it takes at all."""
    data = png_by_hand(noisy_pixels(3, (6, 5), np.uint8), before=chunk(b"tEXt") * count)
    if accepted:
        assert server.call(folder, "encoded", image_bytes=strings(data))
    else:
        with pytest.raises(ValueError, match="truncated or damaged"):
            server.call(folder, "encoded", image_bytes=strings(data))


def test_a_size_of_pixels_is_not_read_from_a_preview(server, folder):
    """A JPEG file may hold another, small one before its own header."""
    preview = FILES["jpeg"]
    app = b"\xff\xe1" + struct.pack(">H", len(preview) + 2) + preview
    data = FILES["jpeg wide"]
    with pytest.raises(ValueError, match="65500 rows and 65500 columns"):
        server.call(folder, "encoded", image_bytes=strings(data[:2] + app + data[2:]))
    with pytest.raises(ValueError, match="truncated"):
        server.call(folder, "encoded", image_bytes=strings(preview[:2] + app + preview[2:-2]))
