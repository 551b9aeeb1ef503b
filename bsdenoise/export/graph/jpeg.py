"""The structure of a JPEG file, read inside the graph: its segments up to the compressed pixels, and its end."""

import tensorflow as tf

from bsdenoise.export.graph.checks import Rule, checked, size_rules

START = b"\xff\xd8\xff"
# Second bytes of markers (ITU-T T.81, table B.1).
FRAMES = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
READ_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: the Huffman-coded ones
SCAN, END = 0xDA, 0xD9
WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xDA))
MARKER_BYTES = 4  # with the length that follows
FRAME_BYTES = 10  # marker, length, bits, height, width, components
# Largest number of segments before the pixels. Profiles and previews come in pieces of 64 kB: a quarter of a gigabyte.
MAX_SEGMENTS = 4096
BITS = 8
KINDS = (
    "of unknown colours",
    "grey",
    "of two channels",
    "RGB",
    "CMYK",
    "of more than four channels",
)  # by number of components


def check(data: tf.Tensor, place: tf.Tensor, channels: int, max_pixels: int) -> tf.Tensor:
    """Refuse a JPEG file that cannot be denoised, from its frame header and its end.

    Args:
        data: The file, string (), beginning with `START`.
        place: Its name for sentences, string ().
        channels: 1 for grey, 3 for RGB.
        max_pixels: Largest H·W.

    Returns:
        `True`.
    """
    frame, scan = _walk(data)
    incomplete = "{} is truncated or damaged: a JPEG file without the start or the end of its pixels"
    data = checked(data, Rule((frame > 0) & (scan > frame + FRAME_BYTES), incomplete, lambda: [place]))
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(data, frame, FRAME_BYTES), tf.uint8), tf.int64)
    code, bits, components = head[1], head[4], head[9]
    height, width = 256 * head[5] + head[6], 256 * head[7] + head[8]
    return checked(
        tf.constant(True),
        Rule(
            tf.reduce_any(code == READ_FRAMES),
            "{} must be a baseline or progressive JPEG file. Received: a lossless or arithmetic-coded one",
            lambda: [place],
        ),
        Rule(bits == BITS, "{} must have 8 bits per channel. Received: a JPEG file of {} bits", lambda: [place, bits]),
        Rule(
            components == channels,
            f"{{}} must be {KINDS[channels]}, as the images of this model are. Received: a JPEG file that is {{}}",
            lambda: [place, tf.gather(KINDS, tf.minimum(components, len(KINDS) - 1))],
        ),
        *size_rules(place, "JPEG", height, width, max_pixels),
        Rule(_has_end(data, scan), incomplete, lambda: [place]),
    )


def _walk(data):
    """Go from segment to segment up to the first scan.

    Returns:
        Positions of the frame header and of the scan header; 0 for what is not there.
    """
    length = tf.strings.length(data)

    def step(position, number, frame, scan):
        code = tf.cast(tf.io.decode_raw(tf.strings.substr(data, position, MARKER_BYTES), tf.uint8), tf.int32)
        marker, size = code[1], 256 * code[2] + code[3]
        is_fill = marker == 0xFF  # any number of them may stand before a marker
        is_wrong = (code[0] != 0xFF) | tf.reduce_any(marker == WITHOUT_LENGTH) | (~is_fill & (size < 2))
        scan = tf.where(~is_wrong & (marker == SCAN), position, scan)
        frame = tf.where(~is_wrong & (frame == 0) & tf.reduce_any(marker == FRAMES), position, frame)
        onward = position + tf.where(is_fill, 1, tf.minimum(2 + size, length - position))
        return tf.where(is_wrong, length, onward), number + 1, frame, scan

    def goes_on(position, number, frame, scan):
        return (scan == 0) & (number < MAX_SEGMENTS) & (length - position >= MARKER_BYTES)

    return tf.while_loop(goes_on, step, (2, 0, 0, 0), parallel_iterations=1)[2:]


def _has_end(data, scan):
    """Look for the end marker behind the start of the pixels, which never hold its code behind a byte of 255."""
    rest = tf.io.decode_raw(tf.strings.substr(data, scan, tf.strings.length(data)), tf.uint8)
    return tf.reduce_any((rest[:-1] == 0xFF) & (rest[1:] == END))
