"""PNG and JPEG files inside the graph: told apart, looked through before anything is decoded, decoded, encoded.

TensorFlow's decoders believe a file's header and allocate what it claims, and their errors speak of themselves. So
the structure of each file is read here first. What the checks do not find (damage within the compressed pixels) is
still refused by the decoder, in its own words.

EXIF orientation is not applied, as everywhere in this package.
"""

import tensorflow as tf

from bsdenoise.export.graph import jpeg, png
from bsdenoise.export.graph.checks import Rule, after, checked

UINT8_MAX = 255.0
UINT16_MAX = 65535.0
# How files that are often sent by mistake begin: position, bytes, name.
OTHER_KINDS = (
    (0, b"GIF8", "a GIF file"),
    (0, b"BM", "a BMP file"),
    (8, b"WEBP", "a WebP file"),
    (0, b"II*\0", "a TIFF file"),
    (0, b"MM\0*", "a TIFF file"),
    (0, b"II+\0", "a TIFF file"),
    (0, b"MM\0+", "a TIFF file"),
    (4, b"ftyp", "a HEIC, AVIF or MP4 file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"\x93NUMPY", "an .npy file"),
    (0, b"iVBORw0KGgo", "base64 text, which must stand under the key b64 in JSON"),
    (0, b"/9j/", "base64 text, which must stand under the key b64 in JSON"),
    (0, b"data:", "a data URL: send what it encodes"),
)


def checked_files(image_bytes: tf.Tensor, channels: int, max_pixels: int) -> tf.Tensor:
    """Pins the shape (B,), and refuses files that cannot be denoised, all before the first one is.

    Args:
        image_bytes: The input as it came.
        channels: 1 for grey, 3 for RGB.
        max_pixels: Largest H·W of each image.
    """
    image_bytes = tf.ensure_shape(image_bytes, (None,))
    some = Rule(tf.size(image_bytes) > 0, "image_bytes is empty: send at least one image")
    image_bytes = checked(image_bytes, some)

    def check(numbered):
        index, data = numbered
        place = tf.strings.format("image_bytes[{}]", index)
        is_png, is_jpeg = _starts_with(data, png.SIGNATURE), _starts_with(data, jpeg.START)
        data = checked(
            data,
            Rule(tf.strings.length(data) > 0, "{} is empty. Expected a PNG or JPEG file", lambda: [place]),
            Rule(
                is_png | is_jpeg,
                "{} must be a PNG or JPEG file. Received: {}",
                lambda: [place, _kind(data)],
            ),
        )
        return tf.cond(
            is_png,
            lambda: png.check(data, place, channels, max_pixels),
            lambda: jpeg.check(data, place, channels, max_pixels),
        )

    numbered = (tf.range(tf.size(image_bytes)), image_bytes)
    passed = tf.map_fn(check, numbered, parallel_iterations=1, fn_output_signature=tf.TensorSpec((), tf.bool))
    return after([passed], image_bytes)


def decode(data: tf.Tensor, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a file that was checked.

    Returns:
        float32 image (H, W, C) in [0, 1], and the pixel value that became 1.
    """
    pixels, full_scale = tf.cond(
        _starts_with(data, png.SIGNATURE), lambda: _decode_png(data), lambda: _decode_jpeg(data)
    )
    return tf.ensure_shape(pixels, (None, None, channels)) / full_scale, full_scale


def encode_png(image: tf.Tensor, full_scale: tf.Tensor) -> tf.Tensor:
    """Round an image in [0, 1] to the bits that the file had, as `bsdenoise.images.from_unit` does, and encode it."""
    values = tf.clip_by_value(tf.floor(image * full_scale + 0.5), 0.0, full_scale)
    return tf.cond(
        full_scale > UINT8_MAX,
        lambda: tf.io.encode_png(tf.cast(values, tf.uint16)),
        lambda: tf.io.encode_png(tf.cast(values, tf.uint8)),
    )


def _decode_png(data):
    """Return float32 pixel values and the greatest one of the file's bit depth; `tf.io.decode_image` does not tell."""

    def pixels(dtype):
        return tf.cast(tf.io.decode_png(data, dtype=dtype), tf.float32)

    return tf.cond(
        png.is_16_bit(data),
        lambda: (pixels(tf.uint16), tf.constant(UINT16_MAX)),
        lambda: (pixels(tf.uint8), tf.constant(UINT8_MAX)),
    )


def _decode_jpeg(data):
    """Return float32 pixel values and 255."""
    # TensorFlow's default decoding differs from other decoders by up to 21 grey levels.
    pixels = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE")
    return tf.cast(pixels, tf.float32), tf.constant(UINT8_MAX)


def _starts_with(data, start, position=0):
    """Say whether a file has these bytes at a position; one that ends before has not."""
    length = len(start)
    is_long = tf.strings.length(data) >= position + length
    return tf.strings.substr(data, tf.where(is_long, position, 0), length) == start


def _kind(data):
    """Say in words what a file is that is neither PNG nor JPEG."""
    kind = tf.constant("another kind of file")
    for position, start, name in OTHER_KINDS:
        kind = tf.where(_starts_with(data, start, position), name, kind)
    return kind
