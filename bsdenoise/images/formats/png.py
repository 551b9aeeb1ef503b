"""PNG files: 8 and 16 bits, grey and RGB; alpha and palettes are taken away, with a note.

A PNG is a signature and then chunks: length, type, data, checksum. The pixels are left to a codec; the chunks beside
them are read and put back byte for byte, which keeps what no codec's interface offers.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import imagecodecs
import numpy as np

from bsdenoise.images import pixels
from bsdenoise.images.pixels import ImageFile, Picture

SPARE_BYTES = 2**16  # for headers, and what compression adds to what it cannot compress
SIGNATURE = b"\x89PNG\r\n\x1a\n"
NUM_HEADER_BYTES = 33  # signature and header chunk
# Chunks that stay true when only the pixels change (PNG specification, section 11.3).
KEPT_CHUNKS = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt")
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEYWORD = b"XML:com.adobe.xmp"
COMMENT_KEYWORD = b"Comment"
MAX_TEXT_BYTES = 2**26  # of an unpacked text
COLOUR_CHUNKS = (b"iCCP", b"sRGB", b"gAMA", b"cHRM")
METRES_PER_INCH = 0.0254
UNIT_METRE = 1
MAX_PIXELS = 2**28  # a header can claim terabytes; 2²⁸ is 16384×16384
MAX_PROFILE_BYTES = 2**26  # of an unpacked ICC profile: far above any real one, far below a memory's size

_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


class Header(NamedTuple):
    """What the first chunk says: size in pixels, bits per sample, and the kind of colour in words."""

    width: int
    height: int
    bits: int
    kind: str


class Chunk(NamedTuple):
    """One chunk: its four-letter type and its data."""

    name: bytes
    data: bytes


def open_file(file: BinaryIO) -> ImageFile:
    """Read header and chunks.

    Raises:
        ValueError: If it is broken, or of a kind that is not supported.
    """
    header = read_header(file.read(NUM_HEADER_BYTES))
    _check_kind(header)
    found = list(chunks(file))
    names = {chunk.name for chunk in found}
    if b"acTL" in names:
        raise ValueError("animations are not supported")
    notes, is_grey = [], "grey" in header.kind
    if header.kind == "palette":
        palette, note = pixels.simplified_palette(_palette(found))
        notes.append(note)
        is_grey = palette.ndim == 1
    if "alpha" in header.kind:
        notes.append(pixels.ALPHA_DROPPED)
    if b"tRNS" in names:
        notes.append(pixels.TRANSPARENT_COLOUR_DROPPED)
    shape = (header.height, header.width) if is_grey else (header.height, header.width, 3)
    dtype = np.dtype(np.uint16 if header.bits == 16 else np.uint8)

    def decode(_: int) -> np.ndarray:
        # Not Pillow: it reduces 16-bit RGB to 8 bits without a word.
        file.seek(0)
        array = imagecodecs.png_decode(file.read())
        if array.ndim == len(shape) and array.shape[2:] == shape[2:]:
            return array
        return np.ascontiguousarray(array[..., 0] if len(shape) == 2 else array[..., :3])  # alpha comes last

    kept = tuple(chunk for chunk in found if chunk.name in KEPT_CHUNKS)
    metadata: dict[str, Any] = {"icc_profile": icc_profile(kept), "exif": exif(kept), "xmp": xmp(kept)}
    metadata |= {"dpi": dots_per_inch(kept), "comments": comments(kept), "chunks": kept}
    known = {key: value for key, value in metadata.items() if value}
    return ImageFile("PNG", shape, dtype, decode, known, tuple(notes))


def check(shape: tuple[int, ...], dtype: Any) -> None:
    """Check that an array can be written.

    Args:
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.

    Raises:
        ValueError: If not.
    """
    pixels.check_grey_or_rgb(shape, dtype, (np.uint8, np.uint16), "PNG")


def write(file: BinaryIO, array: np.ndarray, like: Picture | ImageFile) -> None:
    """Encode an array, with the metadata of `like`.

    Args:
        file: Open for writing.
        array: (H, W) or (H, W, C), uint8 or uint16.
        like: Whose metadata it gets.
    """
    known = like.metadata
    if like.format == "PNG":
        kept = known.get("chunks", ())
    else:
        kept = metadata_chunks(known)
    if not pixels.same_colours(array.shape, like.shape):
        kept = tuple(chunk for chunk in kept if chunk.name not in COLOUR_CHUNKS)
    file.write(with_chunks(encode(array), kept))


def encode(array: np.ndarray, level: int | None = None) -> bytes:
    """Encode an array, (H, W), (H, W, 1) or (H, W, 3), of 8 or 16 bits.

    Args:
        array: The pixels.
        level: Of the compression, 0 to 9; `None` for the library's own.
    """
    array = pixels.without_single_channel(array)
    # By itself the encoder takes no account of the byte before each row: noise in narrow images would not fit.
    room = array.nbytes + 2 * array.shape[0] + SPARE_BYTES
    return bytes(imagecodecs.png_encode(array, level=level, out=room))


def read_header(data: bytes) -> Header:
    """Read the header chunk.

    Raises:
        ValueError: If the bytes do not begin like a PNG file.
    """
    if len(data) < NUM_HEADER_BYTES or not data.startswith(SIGNATURE) or data[12:16] != b"IHDR":
        raise ValueError("it does not begin with a PNG header")
    width, height, bits, colour_type = struct.unpack(">IIBB", data[16:26])
    return Header(width, height, bits, _COLOUR_TYPES.get(colour_type, f"colour type {colour_type}"))


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Walk over the chunks up to the end chunk, leaving out those of the pixels, and those whose checksum is wrong.

    Raises:
        ValueError: If the file ends within a chunk.
    """
    size = file.seek(0, io.SEEK_END)
    position = len(SIGNATURE)
    while True:
        if position + 12 > size:
            raise ValueError("it ends before its end chunk")
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        position += 12 + length
        if position > size:
            raise ValueError("it ends within a chunk")
        if name != b"IDAT":
            body = file.read(length)
            if file.read(4) == _checksum(name, body):
                yield Chunk(name, body)
        if name == b"IEND":
            return


def with_chunks(data: bytes, extra: tuple[Chunk, ...]) -> bytes:
    """Put chunks into an encoded PNG, behind its header, where every kind of `KEPT_CHUNKS` may stand.

    Args:
        data: The encoded file.
        extra: Kinds and contents of the chunks, in their order.
    """
    packed = b"".join(
        struct.pack(">I4s", len(chunk.data), chunk.name) + chunk.data + _checksum(chunk.name, chunk.data)
        for chunk in extra
    )
    return data[:NUM_HEADER_BYTES] + packed + data[NUM_HEADER_BYTES:]


def icc_profile(kept: tuple[Chunk, ...]) -> bytes | None:
    """Find the ICC profile, unpacked; `None` where there is none or it is broken."""
    for chunk in kept:
        if chunk.name == b"iCCP":
            packed = chunk.data.partition(b"\0")[2][1:]  # behind the name comes the method, always 0
            try:
                return zlib.decompressobj().decompress(packed, MAX_PROFILE_BYTES)
            except zlib.error:
                return None
    return None


def exif(kept: tuple[Chunk, ...]) -> bytes | None:
    """Find the EXIF block, beginning at its TIFF header."""
    return next((chunk.data for chunk in kept if chunk.name == b"eXIf"), None)


def dots_per_inch(kept: tuple[Chunk, ...]) -> tuple[float, float] | None:
    """Find the resolution, (x, y) in dots per inch, where it is stated in a unit of length."""
    for chunk in kept:
        if chunk.name == b"pHYs" and len(chunk.data) == 9 and chunk.data[8] == UNIT_METRE:
            x, y = struct.unpack(">II", chunk.data[:8])
            return x * METRES_PER_INCH, y * METRES_PER_INCH
    return None


def xmp(kept: tuple[Chunk, ...]) -> bytes | None:
    """Find the XMP packet; `None` where there is none or it is broken."""
    for chunk in kept:
        keyword, _, rest = chunk.data.partition(b"\0")
        if chunk.name == b"iTXt" and keyword == XMP_KEYWORD and len(rest) > 2:
            text = rest[2:].split(b"\0", 2)[-1]  # behind the language and the translated keyword
            try:
                return zlib.decompressobj().decompress(text, MAX_TEXT_BYTES) if rest[0] else text
            except zlib.error:
                return None
    return None


def comments(kept: tuple[Chunk, ...]) -> tuple[bytes, ...]:
    """Find the plain texts that are called comments."""
    texts = (chunk.data.partition(b"\0") for chunk in kept if chunk.name == b"tEXt")
    return tuple(text for keyword, _, text in texts if keyword == COMMENT_KEYWORD)


def num_other_texts(kept: tuple[Chunk, ...]) -> int:
    """Count the texts that are neither the XMP packet nor comments."""
    num_texts = sum(chunk.name in TEXT_CHUNKS for chunk in kept)
    return num_texts - len(comments(kept)) - (xmp(kept) is not None)


def metadata_chunks(known: dict[str, Any]) -> tuple[Chunk, ...]:
    """Make the chunks for metadata that come from another format."""
    made = []
    if known.get("icc_profile"):
        made.append(Chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(known["icc_profile"])))
    if known.get("dpi"):
        per_metre = [round(value / METRES_PER_INCH) for value in known["dpi"]]
        made.append(Chunk(b"pHYs", struct.pack(">IIB", *per_metre, UNIT_METRE)))
    if known.get("exif"):
        made.append(Chunk(b"eXIf", known["exif"]))
    if known.get("xmp"):
        made.append(Chunk(b"iTXt", XMP_KEYWORD + b"\0" * 5 + known["xmp"]))
    for comment in known.get("comments") or ():
        text = comment.replace(b"\0", b" ").strip()  # which ends a text in a PNG
        is_latin = all(byte < 0x80 for byte in text) or not _is_utf8(text)
        start = b"\0" if is_latin else b"\0" * 5
        made.append(Chunk(b"tEXt" if is_latin else b"iTXt", COMMENT_KEYWORD + start + text))
    return tuple(made)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_kind(header: Header) -> None:
    """Refuse what holds no measured noise, and what would not fit into memory."""
    if header.bits == 1:
        raise ValueError("1 bit per pixel tells nothing of how noisy a pixel was: there is no noise level to remove")
    if header.bits < 8 and header.kind == "grey":
        raise ValueError(
            f"{header.bits}-bit grey images are not supported: rounding to {2**header.bits} greys is no noise to model"
        )
    if header.kind not in _COLOUR_TYPES.values() or (header.bits not in (8, 16) and header.kind != "palette"):
        raise ValueError(f"{header.bits}-bit {header.kind} images are not supported, only 8 and 16 bits, grey or RGB")
    if header.width * header.height > MAX_PIXELS:
        raise ValueError(f"{header.width}×{header.height} pixels are more than the limit of {MAX_PIXELS}")


def _palette(found: list[Chunk]) -> np.ndarray:
    """Find the palette, uint8 (number of colours, 3)."""
    packed = next((chunk.data for chunk in found if chunk.name == b"PLTE"), b"")
    if not packed or len(packed) % 3:
        raise ValueError("its palette is missing or broken")
    return np.frombuffer(packed, np.uint8).reshape(-1, 3)


def _checksum(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
