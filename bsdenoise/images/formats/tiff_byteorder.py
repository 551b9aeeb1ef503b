"""Tags of a TIFF file in the other byte order: their values are kept as bytes, which follow that of the file."""

import struct

import numpy as np

# Bytes of the numbers that a value of each type consists of; a fraction (5, 10) is two of four bytes.
NUMBER_SIZES = {3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 5: 4, 10: 4, 12: 8, 16: 8, 17: 8, 18: 8}
IMAGEJ_COUNTS, IMAGEJ_METADATA = 50838, 50839
# What ImageJ's own block may hold that is made of larger numbers: texts in UTF-16, and doubles.
_IMAGEJ_SIZES = {b"info": 2, b"labl": 2, b"prop": 2, b"rang": 8}
_MAGIC = b"IJIJ"

Tag = tuple[int, int, int, bytes, bool]


def swapped(tags: tuple[Tag, ...], byteorder: str) -> tuple[Tag, ...]:
    """Convert tags to the other byte order.

    Args:
        tags: (code, type, count, bytes, only on the first page) each.
        byteorder: "<" or ">", the one that they have.

    Returns:
        The same tags, but for a block of ImageJ's that is damaged.
    """
    values = {code: data for code, _, _, data, _ in tags}
    block = None
    if IMAGEJ_METADATA in values:
        block = _swapped_imagej(values[IMAGEJ_METADATA], values.get(IMAGEJ_COUNTS, b""), byteorder)
    if block is None:
        tags = tuple(tag for tag in tags if tag[0] not in (IMAGEJ_COUNTS, IMAGEJ_METADATA))

    def convert(code: int, kind: int, data: bytes) -> bytes:
        if code == IMAGEJ_METADATA:
            assert block is not None
            return block
        return _swapped(data, NUMBER_SIZES.get(kind, 1))

    return tuple((code, kind, count, convert(code, kind, data), first) for code, kind, count, data, first in tags)


def _swapped_imagej(data: bytes, counts: bytes, byteorder: str) -> bytes | None:
    """Convert ImageJ's block: its magic, kinds of entries and how many there are of each, and then the entries.

    Args:
        data: The block.
        counts: Bytes of the header and of each entry, as the file holds them.
        byteorder: "<" or ">", that of the block.

    Returns:
        The block in the other order; `None` if it is damaged.
    """
    magic, other = (_MAGIC, ">") if byteorder == "<" else (_MAGIC[::-1], "<")
    sizes = struct.unpack(f"{byteorder}{len(counts) // 4}I", counts[: len(counts) // 4 * 4])
    if not sizes or sum(sizes) > len(data) or sizes[0] < 4 or (sizes[0] - 4) % 8:
        return None
    header, body, position, number = [magic], [], sizes[0], 1
    for kind, count in struct.iter_unpack(f"{byteorder}4sI", data[4 : sizes[0]]):
        header.append(struct.pack(f"{other}4sI", kind[::-1], count))
        size = _IMAGEJ_SIZES.get(kind if byteorder == ">" else kind[::-1], 1)
        if number + count > len(sizes):
            return None
        for length in sizes[number : number + count]:
            body.append(_swapped(data[position : position + length], size))
            position += length
        number += count
    return b"".join([*header, *body, data[position:]])


def _swapped(data: bytes, size: int) -> bytes:
    """Swap the bytes of numbers of so many; what is no whole number of them stays as it is."""
    return data if size == 1 or len(data) % size else np.frombuffer(data, f"u{size}").byteswap().tobytes()
