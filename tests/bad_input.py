"""Every bad input to the exported graph, and the table of what the user sees: `python tests/bad_input.py` writes it.

`test_graph_bad_input.py` checks that docs/bad-input.md agrees with what the graph says.
"""

import base64
import os
import re
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from exported import Server, make_denoiser, noisy_pixels, pillow_file, png_file, strings

from bsdenoise.export import export_saved_model
from bsdenoise.noise import GaussianNoise

TABLE = Path(__file__).parent.parent / "docs" / "bad-input.md"
BEGIN, END = "<!-- The table of the graph: begin -->\n", "<!-- The table of the graph: end -->\n"
MAX_PIXELS = 100_000
IMAGE = ("serving_default", "with_sigma", "posterior", "own_sigma")
SIGMA = ("with_sigma", "posterior", "encoded_with_sigma")
FILE = ("encoded", "encoded_with_sigma")
FORMAT = ("describe",)
PNG_START = b"\x89PNG\r\n\x1a\n"
SIZE = (9, 8)


class Case(NamedTuple):
    """What is sent, to which signatures, and whether the sentence is this project's own or TensorFlow's."""

    sent: str
    signatures: tuple[str, ...]
    value: object
    is_ours: bool = True


def export_model(folder):
    """Writes the model that the table is about: for RGB images, σ of 25 grey levels, at most `MAX_PIXELS`."""
    denoiser = make_denoiser(3, GaussianNoise(25 / 255, 25 / 255), depth=2)
    return export_saved_model(denoiser, Path(folder) / "1", max_pixels=MAX_PIXELS)


def inputs(case, signature):
    """Gives the inputs of a signature, all in order but the one that the case is about."""
    if case.signatures is FORMAT:
        return {"format": case.value}
    if case.signatures is SIGMA:
        good = strings(*2 * [FILES["png"]]) if signature in FILE else np.full((2, 5, 7, 3), 0.5, "float32")
        return {"image_bytes" if signature in FILE else "image": good, "sigma": np.asarray(case.value, "float32")}
    named = {"image_bytes" if case.signatures is FILE else "image": case.value}
    if signature in SIGMA:
        number = case.value.shape[0] if case.value.ndim else 1
        named["sigma"] = np.full(number, 0.1, "float32")
    return named


def sentence(error):
    """Gives what the user sees, without the names that TensorFlow gives to parts of the graph."""
    text = re.fullmatch(r"InvalidArgumentError: (.*?)(\n\t \[\[.*)?", str(error), re.DOTALL)[1]
    return re.sub(r"(tensor|node) \S+ ", r"\1 … ", text)


def words(seen):
    """Gives the sentence alone, where it is the graph's own, and `None` where it is TensorFlow's."""
    own = re.fullmatch(r"assertion failed: \[(.*)\]", seen, re.DOTALL)
    return own and own[1]


# Files


def chunk(name, data=b""):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width, height, bits=8, colour=2, methods=(0, 0, 0)):
    return PNG_START + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, *methods))


def png_by_hand(pixels, before=b"", after=b"", idats=1):
    """A PNG file of 8-bit RGB pixels, with other chunks around its own."""
    height, width, _ = pixels.shape
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    step = -(-len(packed) // idats)
    parts = b"".join(chunk(b"IDAT", packed[start : start + step]) for start in range(0, len(packed), step))
    return png_header(width, height) + before + parts + after + chunk(b"IEND")


def interlaced_png(pixels):
    """A PNG file in Adam7's seven passes (PNG specification, section 8.2)."""
    height, width, _ = pixels.shape
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = (pixels[top::down, left::right] for top, left, down, right in passes)
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    return png_header(width, height, methods=(0, 0, 1)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def frame(jpeg):
    """Finds the frame header of a baseline or progressive JPEG file."""
    return max(jpeg.find(b"\xff\xc0\0\x11"), jpeg.find(b"\xff\xc2\0\x11"))


def patched(data, position, new):
    return data[:position] + new + data[position + len(new) :]


def _files():
    rgb, grey = noisy_pixels(3, SIZE, np.uint8), noisy_pixels(1, SIZE, np.uint8)
    png, jpeg = png_file(rgb), pillow_file(rgb, "JPEG")
    plain = png_by_hand(rgb)
    sof = frame(jpeg)
    spread = bytearray(plain)
    spread[-20] ^= 0xFF
    return {
        "png": png,
        "jpeg": jpeg,
        "rgba": png_file(np.dstack([rgb, grey])),
        "grey png": png_file(grey),
        "grey jpeg": pillow_file(grey, "JPEG"),
        "palette": pillow_file(rgb, "PNG", "P"),
        "one bit": png_header(8, 1, 1, 2) + chunk(b"IDAT", zlib.compress(b"\0\0\0\0")) + chunk(b"IEND"),
        "tRNS": png_by_hand(rgb, before=chunk(b"tRNS", bytes(6))),
        "animated": png_by_hand(rgb, before=chunk(b"acTL", struct.pack(">II", 1, 0))),
        "unknown chunk": png_by_hand(rgb, before=chunk(b"CgBI", bytes(4))),
        "no pixels": png_header(8, 9) + chunk(b"IEND"),
        "stuffed": png_header(1, 1) + chunk(b"IDAT", bytes(70_000)) + chunk(b"IEND"),
        "header checksum": patched(plain, 29, bytes(4)),
        "pixel checksum": bytes(spread),
        "few pixels": png_header(8, 9) + chunk(b"IDAT", zlib.compress(bytes(50))) + chunk(b"IEND"),
        "method": png_header(8, 9, methods=(1, 0, 0)) + plain[33:],
        "wide": png_header(60_000, 60_000) + plain[33:],
        "widest": png_header(2**32 - 1, 2**32 - 1) + plain[33:],
        "no width": png_header(0, 9) + plain[33:],
        "cmyk": pillow_file(rgb, "JPEG", "CMYK"),
        "12 bits": patched(jpeg, sof + 4, b"\x0c"),
        "lossless": patched(jpeg, sof + 1, b"\xc3"),
        "arithmetic": patched(jpeg, sof + 1, b"\xc9"),
        "jpeg wide": patched(jpeg, sof + 5, b"\xff\xdc\xff\xdc"),
        "no height": patched(jpeg, sof + 5, b"\0\0"),
        "jpeg damaged": patched(jpeg, jpeg.find(b"\xff\xda") + 16, b"\xff\x90" * 20),
        "gif": pillow_file(rgb, "GIF"),
        "bmp": pillow_file(rgb, "BMP"),
        "webp": pillow_file(rgb, "WEBP"),
        "tiff": pillow_file(rgb, "TIFF"),
        "heic": bytes(4) + b"ftypheic" + bytes(20),
    }


FILES = _files()


def _images():
    """Images, each with what is wrong with it."""
    fine = np.full((2, 5, 7, 3), 0.5, "float32")

    def spoiled(value):
        image = fine.copy()
        image[1, 4, 6, 2] = value
        return image

    shapes = [(), (3,), (5, 7), (5, 7, 3), (1, 1, 5, 7, 3), (1, 5, 7, 1), (1, 5, 7, 4), (1, 5, 7, 0)]
    for shape in shapes:
        yield Case(f"image of shape {list(shape)}", IMAGE, np.zeros(shape, "float32"), is_ours=False)
    for shape in [(0, 5, 7, 3), (2, 0, 7, 3), (2, 5, 0, 3)]:
        yield Case(f"image of shape {list(shape)}", IMAGE, np.zeros(shape, "float32"))
    for value in (np.nan, np.inf, -np.inf):
        yield Case(f"one pixel is {value}", IMAGE, spoiled(value))
    yield Case("one pixel is 1e30", IMAGE, spoiled(1e30))
    yield Case("one pixel is -16.5", IMAGE, spoiled(-16.5))
    yield Case("pixels from 0 to 255", IMAGE, np.linspace(0, 255, 210, dtype="float32").reshape(2, 5, 7, 3))
    yield Case("a larger image than `max_pixels`", IMAGE, np.zeros((1, 317, 317, 3), "float32"))
    yield Case("a larger batch than `max_pixels`", IMAGE, np.zeros((11, 100, 100, 3), "float32"))
    yield Case("70000 images of one pixel", IMAGE, np.zeros((70_000, 1, 1, 3), "float32"))


def _sigmas():
    """σ for two images, each with what is wrong with it."""
    yield Case("sigma = 0.1, without a list", SIGMA, 0.1, is_ours=False)
    yield Case("sigma = [[0.1], [0.1]]", SIGMA, [[0.1], [0.1]], is_ours=False)
    for value in (
        [0.1],
        [0.1, 0.1, 0.1],
        [0.1, np.nan],
        [np.inf, 0.1],
        [0.1, 0.0],
        [-0.1, 0.1],
        [0.1, 1e-40],
        [0.1, 25.0],
    ):
        text = str(value).replace("nan", "NaN")
        yield Case(f"sigma = {text}" + (" for two images" if len(value) != 2 else ""), SIGMA, value)


def _file_cases():
    """Files, each with what is wrong with it."""
    png, jpeg = FILES["png"], FILES["jpeg"]
    for title, files in {"no list": np.array(png, object), "a list of lists": np.array([[png]], object)}.items():
        yield Case(f"image_bytes is {title}", FILE, files, is_ours=False)
    yield Case("no file", FILE, strings())
    named = {
        "an empty file": b"",
        "text": b"hello",
        "text in front of a PNG file": b"hello\n" + png,
        "a PNG file in base64 that is not marked as such": base64.b64encode(png),
        "a data URL": b"data:image/png;base64," + base64.b64encode(png),
        "a GIF file": FILES["gif"],
        "a BMP file": FILES["bmp"],
        "a WebP file": FILES["webp"],
        "a TIFF file": FILES["tiff"],
        "a HEIC photograph": FILES["heic"],
        "a PNG file's first 8 bytes": png[:8],
        "half of a PNG file": png[: len(png) // 2],
        "a PNG file without its last byte": png[:-1],
        "a PNG file without pixels": FILES["no pixels"],
        "a grey PNG file": FILES["grey png"],
        "a PNG file with alpha channel": FILES["rgba"],
        "a PNG file with palette": FILES["palette"],
        "a PNG file of 1 bit": FILES["one bit"],
        "a PNG file with a transparent colour": FILES["tRNS"],
        "an animated PNG file": FILES["animated"],
        "a PNG file with an unknown critical chunk": FILES["unknown chunk"],
        "a PNG file that is 0 pixels wide": FILES["no width"],
        "a PNG header of 60000×60000 pixels": FILES["wide"],
        "a PNG header of 2³²−1 × 2³²−1 pixels": FILES["widest"],
        "a PNG header with an unknown method": FILES["method"],
        "70 kB of data for one pixel": FILES["stuffed"],
        "half of a JPEG file": jpeg[: len(jpeg) // 2],
        "a JPEG file without its last byte": jpeg[:-1],
        "a grey JPEG file": FILES["grey jpeg"],
        "a CMYK JPEG file": FILES["cmyk"],
        "a JPEG file of 12 bits": FILES["12 bits"],
        "a lossless JPEG file": FILES["lossless"],
        "an arithmetic-coded JPEG file": FILES["arithmetic"],
        "a JPEG header of 65500×65500 pixels": FILES["jpeg wide"],
        "a JPEG header without height": FILES["no height"],
    }
    for title, data in named.items():
        yield Case(title, FILE, strings(data))
    yield Case("a good file and a broken one", FILE, strings(png, png[:-1]))
    damaged = {
        "a PNG header with a wrong checksum": FILES["header checksum"],
        "PNG pixels with a wrong checksum": FILES["pixel checksum"],
        "a PNG file with too few pixels": FILES["few pixels"],
        "a JPEG file with damaged pixels": FILES["jpeg damaged"],
    }
    for title, data in damaged.items():
        yield Case(title, FILE, strings(data), is_ours=False)


def _formats():
    """What a description is asked for as."""
    yield Case("format is no list", FORMAT, np.array(b"json", object), is_ours=False)
    yield Case("format = [json, yaml]", FORMAT, strings(b"json", b"yaml"))


CASES = (*_images(), *_sigmas(), *_file_cases(), *_formats())


def table_rows():
    """Asks the graph, and gives a row of the table for each case."""
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        model = export_model(folder)
        for case in CASES:
            yield row(case, ask(server, model, case, case.signatures[0]))


def ask(server, model, case, signature):
    """Gives what the user sees."""
    try:
        server.call(model, signature, **inputs(case, signature))
    except ValueError as error:
        return sentence(error)
    raise AssertionError(f"{case.sent}: was not refused by {signature}.")


def row(case, seen):
    """Gives the line of the table."""
    names = ", ".join(f"`{name}`" for name in case.signatures)
    return f"| {names} | {case.sent} | {words(seen) or seen} |\n"


def main():
    """Writes the rows between the two marks; the rest of the file is written by hand."""
    before, rest = TABLE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    head = "| signature | what is sent | what the user sees |\n| --- | --- | --- |\n"
    TABLE.write_text(before + BEGIN + head + "".join(table_rows()) + END + after)


if __name__ == "__main__":
    sys.exit(main())
