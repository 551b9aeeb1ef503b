"""Segments of JPEG files: what stands beside the pixels, read and put back byte for byte.

A JPEG begins with segments, each a marker, a length and data; the pixels follow the last of them. EXIF and ICC profiles
are left to the codec.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

EXIF, XMP, XMP_EXTENSION = b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP, ICC, PICTURES = b"Photoshop 3.0\0", b"ICC_PROFILE\0", b"MPF\0"
MOST_BYTES = 2**16 - 3  # of a segment's data: its length has 16 bits and counts itself
_IPTC = b"8BIM\x04\x04"  # how Photoshop's resources name the IPTC record
_APP0, _APP1, _APP2, _APP13, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_NUM_PICTURES = 0xB001  # tag of the number of pictures, of CIPA's Multi-Picture Format
_VIDEO = re.compile(rb"""(?:MotionPhoto|MicroVideo)\s*(?:=\s*["']1|>\s*1\s*<)""")


class Segment(NamedTuple):
    """One segment: its marker, without the 0xFF before it, and its data."""

    marker: int
    data: bytes


def segments(file: BinaryIO) -> Iterator[Segment]:
    """Walk over the segments before the pixels; a damaged file ends where it is damaged, which the codec will say."""
    file.seek(2)
    while True:
        byte = file.read(1)
        while byte and byte != b"\xff":
            byte = file.read(1)
        while byte == b"\xff":
            byte = file.read(1)
        if not byte or byte[0] in (_START_OF_SCAN, _END_OF_IMAGE):
            return
        if byte[0] == 0 or 0xD0 <= byte[0] <= 0xD8 or byte[0] == 1:  # markers without data
            continue
        size = file.read(2)
        if len(size) < 2 or (length := int.from_bytes(size, "big")) < 2:
            return
        data = file.read(length - 2)
        if len(data) < length - 2:
            return
        yield Segment(byte[0], data)


def is_kept(segment: Segment) -> bool:
    """Tell whether a segment stays true when only the pixels change: XMP, Photoshop's resources, comments."""
    starts = {_APP1: (XMP, XMP_EXTENSION), _APP13: (PHOTOSHOP,), _COMMENT: (b"",)}
    return segment.data.startswith(starts.get(segment.marker, ()))


def foreign(found: Sequence[Segment]) -> tuple[str, ...]:
    """Name the segments of applications that are not kept, such as thumbnails and seals of the noisy pixels."""
    # EXIF and profiles go through the codec; the others say how the noisy pixels were encoded.
    known = {_APP0: (b"JFIF\0",), _APP1: (EXIF,), _APP2: (ICC, PICTURES), _APP14: (b"Adobe",)}
    names = [
        f"APP{segment.marker - _APP0} ({_word(segment.data)})"
        for segment in found
        if _APP0 <= segment.marker <= _APP15
        and not is_kept(segment)
        and not segment.data.startswith(known.get(segment.marker, ()))
    ]
    return tuple(dict.fromkeys(names))


def metadata(kept: Sequence[Segment]) -> dict[str, Any]:
    """Collect what other formats know too: `xmp`, `photoshop`, `comments` and whether there is `more_xmp`."""
    packets = [segment.data.removeprefix(XMP) for segment in kept if segment.data.startswith(XMP)]
    resources = [segment.data.removeprefix(PHOTOSHOP) for segment in kept if segment.data.startswith(PHOTOSHOP)]
    return {
        "xmp": packets[0] if packets else None,
        "more_xmp": len(packets) > 1 or any(segment.data.startswith(XMP_EXTENSION) for segment in kept),
        "photoshop": b"".join(resources),
        "comments": tuple(segment.data for segment in kept if segment.marker == _COMMENT),
    }


def made_from(known: dict[str, Any]) -> tuple[Segment, ...]:
    """Make segments of metadata that come from another format; an XMP packet too large for one is left out."""
    made = []
    if fits_xmp(known):
        made.append(Segment(_APP1, XMP + known["xmp"]))
    resources = known.get("photoshop") or b""
    if known.get("iptc") and _IPTC not in resources:
        record = known["iptc"]
        resources += _IPTC + b"\0\0" + struct.pack(">I", len(record)) + record + b"\0" * (len(record) % 2)
    room = MOST_BYTES - len(PHOTOSHOP)
    made += [Segment(_APP13, PHOTOSHOP + resources[start : start + room]) for start in range(0, len(resources), room)]
    made += [Segment(_COMMENT, text[:MOST_BYTES]) for text in known.get("comments") or ()]
    return tuple(made)


def fits_xmp(known: dict[str, Any]) -> bool:
    """Tell whether there is an XMP packet that one segment can hold."""
    return 0 < len(known.get("xmp") or b"") <= MOST_BYTES - len(XMP)


def with_segments(data: bytes, extra: Sequence[Segment]) -> bytes:
    """Put segments into an encoded JPEG, behind those of applications at its beginning.

    Args:
        data: The encoded file.
        extra: The segments, in their order.
    """
    position = 2
    while data[position] == 0xFF and _APP0 <= data[position + 1] <= _APP15:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    packed = b"".join(
        struct.pack(">BBH", 0xFF, segment.marker, len(segment.data) + 2) + segment.data for segment in extra
    )
    return data[:position] + packed + data[position:]


def further(found: Sequence[Segment]) -> tuple[str, ...]:
    """Say in words what else a file holds: other pictures, or a video behind them."""
    notes = []
    number = max([_num_pictures(segment.data[len(PICTURES) :]) for segment in found if _is_index(segment)], default=1)
    if number > 1:
        are = "picture of its file is" if number == 2 else "pictures of its file are"
        notes.append(f"{number - 1} further {are} left out, such as another view or a gain map")
    if any(_VIDEO.search(segment.data) for segment in found if segment.data.startswith(XMP)):
        notes.append("the video of its file is left out")
    return tuple(notes)


def _is_index(segment: Segment) -> bool:
    return segment.marker == _APP2 and segment.data.startswith(PICTURES)


def _num_pictures(index: bytes) -> int:
    """Read the number of pictures out of an index, which is built like a TIFF file; 1 if it is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(index[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(f"{order}I", index, 4)
        (count,) = struct.unpack_from(f"{order}H", index, offset)
        for entry in range(count):
            code, _, _, value = struct.unpack_from(f"{order}HHII", index, offset + 2 + 12 * entry)
            if code == _NUM_PICTURES:
                return int(value)
    except struct.error:
        pass
    return 1


def _word(data: bytes) -> str:
    """Return the word that data begins with; "unknown" if it is none."""
    found = re.match(rb"[ -~]{2,}", data[:24])
    return found[0].decode().strip() if found else "unknown"
