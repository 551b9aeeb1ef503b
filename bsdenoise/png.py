"""The chunks of a PNG file: what its header says, and the metadata that travel with the pixels.

A PNG is a signature and then chunks: length, type, data, checksum. The pixels are left to a codec; here the chunks
beside them are read and put back byte for byte, which keeps what no codec's interface offers.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that stay true when only the pixels change (PNG specification, section 11.3).
KEPT_CHUNKS = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt")
COLOUR_CHUNKS = (b"iCCP", b"sRGB", b"gAMA", b"cHRM")
METRES_PER_INCH = 0.0254
UNIT_METRE = 1
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


def read_header(data: bytes) -> Header:
    """Reads the header chunk.

    Raises:
        ValueError: If the bytes do not begin like a PNG file.
    """
    if len(data) < 33 or not data.startswith(SIGNATURE) or data[12:16] != b"IHDR":
        raise ValueError("it does not begin with a PNG header")
    width, height, bits, colour_type = struct.unpack(">IIBB", data[16:26])
    return Header(width, height, bits, _COLOUR_TYPES.get(colour_type, f"colour type {colour_type}"))


def chunks(data: bytes) -> Iterator[Chunk]:
    """Walks over the chunks up to the end chunk, leaving out those whose checksum is wrong.

    Raises:
        ValueError: If the file ends within a chunk.
    """
    position = len(SIGNATURE)
    while True:
        if position + 12 > len(data):
            raise ValueError("it ends before its end chunk")
        length, name = struct.unpack(">I4s", data[position : position + 8])
        end = position + 8 + length
        if end + 4 > len(data):
            raise ValueError("it ends within a chunk")
        body = data[position + 8 : end]
        if data[end : end + 4] == _checksum(name, body):
            yield Chunk(name, body)
        if name == b"IEND":
            return
        position = end + 4


def with_chunks(data: bytes, extra: tuple[Chunk, ...]) -> bytes:
    """Puts chunks into an encoded PNG, behind its header, where every kind of `KEPT_CHUNKS` may stand."""
    behind_header = len(SIGNATURE) + 8 + 13 + 4
    packed = b"".join(
        struct.pack(">I4s", len(chunk.data), chunk.name) + chunk.data + _checksum(chunk.name, chunk.data)
        for chunk in extra
    )
    return data[:behind_header] + packed + data[behind_header:]


def icc_profile(kept: tuple[Chunk, ...]) -> bytes | None:
    """Finds the ICC profile, unpacked; `None` where there is none or it is broken."""
    for chunk in kept:
        if chunk.name == b"iCCP":
            packed = chunk.data.partition(b"\0")[2][1:]  # behind the name comes the method, always 0
            try:
                return zlib.decompressobj().decompress(packed, MAX_PROFILE_BYTES)
            except zlib.error:
                return None
    return None


def exif(kept: tuple[Chunk, ...]) -> bytes | None:
    """Finds the EXIF block, beginning at its TIFF header."""
    return next((chunk.data for chunk in kept if chunk.name == b"eXIf"), None)


def dots_per_inch(kept: tuple[Chunk, ...]) -> tuple[float, float] | None:
    """Finds the resolution, (x, y) in dots per inch, where it is stated in a unit of length."""
    for chunk in kept:
        if chunk.name == b"pHYs" and len(chunk.data) == 9 and chunk.data[8] == UNIT_METRE:
            x, y = struct.unpack(">II", chunk.data[:8])
            return x * METRES_PER_INCH, y * METRES_PER_INCH
    return None


def metadata_chunks(
    profile: bytes | None, exif_block: bytes | None, dpi: tuple[float, float] | None
) -> tuple[Chunk, ...]:
    """Makes the chunks for metadata that come from another format; `None` leaves one out."""
    made = []
    if profile:
        made.append(Chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    if dpi:
        per_metre = [round(value / METRES_PER_INCH) for value in dpi]
        made.append(Chunk(b"pHYs", struct.pack(">IIB", *per_metre, UNIT_METRE)))
    if exif_block:
        made.append(Chunk(b"eXIf", exif_block))
    return tuple(made)


def _checksum(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
