"""The structure of a PNG file, read inside the graph: its header, and whether all chunks are there.

Text and profiles cannot swell: the decoder unpacks a few megabytes of them at most. Pixels can, so the compressed
data are compared with what the header needs.
"""

import tensorflow as tf

from bsdenoise.export.graph.checks import Rule, checked, size_rules

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The file begins with the signature and the header chunk: length, type, 13 bytes, checksum (PNG specification, 11.2.2).
HEADER_START = b"\0\0\0\x0dIHDR"
HEADER_BYTES = 33
SIZE_BYTE, BITS_BYTE = 16, 24
CHUNK_BYTES = 12  # of a chunk without data
COLOUR_TYPES = {1: 0, 3: 2}  # grey and truecolour, by number of channels
KINDS = (
    "grey",
    "of unknown colours",
    "RGB",
    "in palette colours",
    "grey with alpha",
    "of unknown colours",
    "RGB with alpha",
)
MAX_SIDE = 1_000_000  # libpng's own limit
# Largest number of chunks that are walked over, some seconds of work: 800 MB in pieces of 8 kB, as libpng writes them.
MAX_CHUNKS = 100_000
# Data that the compressed pixels may have beyond twice what they unpack to: deflate needs a thousandth more at worst.
SPARE_BYTES = 2**16
ANCILLARY_BIT = 1 << 29  # in the chunk type as a number: lower case in its first letter


def check(data: tf.Tensor, place: tf.Tensor, channels: int, max_pixels: int) -> tf.Tensor:
    """Refuse a PNG file that cannot be denoised, from its header and its chunks.

    Args:
        data: The file, string (), beginning with the signature.
        place: Its name for sentences, string ().
        channels: 1 for grey, 3 for RGB.
        max_pixels: Largest H·W.

    Returns:
        `True`.
    """
    data = checked(
        data,
        Rule(
            tf.strings.length(data) >= HEADER_BYTES, "{} is truncated: a PNG file ends in its header", lambda: [place]
        ),
        Rule(
            tf.strings.substr(data, len(SIGNATURE), len(HEADER_START)) == HEADER_START,
            "{} is damaged: a PNG file does not begin with its header",
            lambda: [place],
        ),
    )
    details = tf.io.decode_raw(tf.strings.substr(data, BITS_BYTE, 5), tf.uint8)
    bits, colour, compression, filtering, interlaced = (details[index] for index in range(5))
    width, height = tf.unstack(_big_endian(data, SIZE_BYTE, 2), 2)
    expected, number = KINDS[COLOUR_TYPES[channels]], tf.cast(colour, tf.int32)
    data = checked(
        data,
        Rule(
            colour == COLOUR_TYPES[channels],
            f"{{}} must be {expected} without alpha channel, as the images of this model are. "
            "Received: a PNG file that is {}",
            lambda: [place, tf.gather(KINDS, tf.where(number < len(KINDS), number, 1))],
        ),
        Rule(
            (bits == 8) | (bits == 16),
            "{} must have 8 or 16 bits per channel. Received: a PNG file of {} bit(s)",
            lambda: [place, tf.cast(bits, tf.int32)],
        ),
        Rule(
            (compression == 0) & (filtering == 0) & (interlaced <= 1),
            "{} is damaged: a PNG file whose header names an unknown method",
            lambda: [place],
        ),
        *size_rules(place, "PNG", height, width, max_pixels),
        Rule(
            tf.maximum(height, width) <= MAX_SIDE,
            f"{{}} must be at most {MAX_SIDE} pixels high and wide. Received: a PNG file of {{}} rows and {{}} columns",
            lambda: [place, height, width],
        ),
    )
    has_end, is_plain, has_unknown, pixel_bytes = _walk(data)
    row_bytes = (width * channels * tf.cast(bits // 8, tf.int64)) + 1
    unpacked = row_bytes * height * (1 + tf.cast(interlaced, tf.int64))  # more and shorter rows: at most twice
    return checked(
        tf.constant(True),
        Rule(has_end & (pixel_bytes > 0), "{} is truncated or damaged: a PNG file without its end", lambda: [place]),
        Rule(is_plain, "{} must be without transparent colour and animation", lambda: [place]),
        Rule(~has_unknown, "{} must have no chunks that the PNG standard does not know", lambda: [place]),
        Rule(
            pixel_bytes <= 2 * unpacked + SPARE_BYTES,
            "{} must not hold more data than its pixels need. Received: {} bytes for {} row(s) and {} column(s)",
            lambda: [place, pixel_bytes, height, width],
        ),
    )


def is_16_bit(data: tf.Tensor) -> tf.Tensor:
    """Say whether a checked file has 16 bits per channel."""
    return tf.strings.substr(data, BITS_BYTE, 1) == b"\x10"


def _walk(data):
    """Go from chunk to chunk.

    Returns:
        Whether the end chunk was reached, whether the image is opaque and alone, whether there is a critical chunk of
        unknown type, and how many bytes of compressed pixels there are.
    """
    length = tf.strings.length(data)
    header, pixels, end = _type(b"IHDR"), _type(b"IDAT"), _type(b"IEND")

    def step(position, number, has_end, is_plain, has_unknown, pixel_bytes):
        head = tf.io.decode_raw(tf.strings.substr(data, position, 8), tf.int32, little_endian=False)
        size, kind = head[0], head[1]
        fits = (size >= 0) & (size <= length - position - CHUNK_BYTES)
        is_critical = tf.bitwise.bitwise_and(kind, ANCILLARY_BIT) == 0
        is_known = (kind == pixels) | (kind == header) | (kind == end) | (kind == _type(b"PLTE"))
        return (
            tf.where(fits, position + CHUNK_BYTES + size, length),
            number + 1,
            fits & (kind == end),
            is_plain & (kind != _type(b"tRNS")) & (kind != _type(b"acTL")),
            has_unknown | (is_critical & ~is_known),
            pixel_bytes + tf.where(fits & (kind == pixels), tf.cast(size, tf.int64), 0),
        )

    def goes_on(position, number, has_end, *_):
        return ~has_end & (number < MAX_CHUNKS) & (length - position >= CHUNK_BYTES)

    start = (len(SIGNATURE), 0, False, True, False, tf.constant(0, tf.int64))
    return tf.while_loop(goes_on, step, start, parallel_iterations=1)[2:]


def _type(name):
    """Return a chunk type as the number that its four letters make."""
    return int.from_bytes(name, "big")


def _big_endian(data, position, number):
    """Read unsigned numbers of four bytes as int64."""
    numbers = tf.io.decode_raw(tf.strings.substr(data, position, 4 * number), tf.int32, little_endian=False)
    return tf.cast(tf.bitcast(numbers, tf.uint32), tf.int64)
