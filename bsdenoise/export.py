"""The SavedModel that TF-Serving runs: the whole denoising step in one graph, pixels or image files in, the same out.

A model server calls the graph without looking at shapes or values first, so the graph itself must. The shape of
each input is pinned by its very first op: a wrong rank that reaches a convolution can end the server's process. What
an input holds is checked next, and every later op waits for these checks.

`keras.export.ExportArchive` writes it: it finds the variables by itself, and makes each function a signature whose
tensors are named as the `TensorSpec`s and the dictionary of results say.
"""

import errno
import os
import secrets
import shutil
from pathlib import Path

import keras
import tensorflow as tf

from bsdenoise import likelihood
from bsdenoise.denoiser import Denoiser

FILE_CHANNELS = (1, 3)  # what PNG and JPEG hold without an alpha channel
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER_BYTES = 33  # signature and IHDR chunk (PNG specification, sections 5.2 and 11.2.2)
PNG_BITS_BYTE = 24  # bit depth; the colour type follows
PNG_COLOUR_TYPES = {1: 0, 3: 2}  # grey and truecolour, by number of channels
JPEG_START = b"\xff\xd8\xff"
UINT8_MAX = 255.0
UINT16_MAX = 65535.0


def export_saved_model(denoiser: Denoiser, directory: str | Path) -> Path:
    """Writes a denoiser as a TensorFlow SavedModel, whole or not at all.

    One graph serves all image and batch sizes. Its signatures, of which the `encoded` pair exists for grey and RGB:

    | signature | inputs | outputs |
    | --- | --- | --- |
    | `serving_default` | `image` float32 (B, H, W, C) | `denoised`, with the model's own σ |
    | `with_sigma` | `image`, `sigma` float32 (B,) | `denoised` |
    | `encoded` | `image_bytes` string (B,), PNG or JPEG | `denoised_bytes` string (B,), PNG with as many bits |
    | `encoded_with_sigma` | `image_bytes`, `sigma` | `denoised_bytes` |
    | `posterior` | `image`, `sigma` | `denoised`, `mean`, `std`, `estimated_psnr` (B,) |

    Args:
        denoiser: The denoiser; its network must compute in float32.
        directory: The version folder to make, such as `export/1`. It may exist if it is empty.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something, the network does not compute in float32, or Keras does not run on
            TensorFlow.
        OSError: If the folder cannot be written.

    Example:
        >>> folder = bsdenoise.export.export_saved_model(denoiser, "export/1")
        >>> served = tf.saved_model.load(folder).signatures["with_sigma"]
        >>> denoised = served(image=noisy, sigma=[25 / 255])["denoised"]
    """
    directory = Path(directory)
    _check_target(directory)
    _check_denoiser(denoiser)
    archive = keras.export.ExportArchive()
    for name, (function, specs) in _signatures(denoiser).items():
        archive.add_endpoint(name, function, specs)
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, to be renamed; its name is no number, so a server that watches the folder passes over it.
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.tmp")
    try:
        archive.write_out(temporary, verbose=False)
        _check_target(directory)
        os.rename(temporary, directory)
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, "cannot be written: no space left on device", str(directory)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already if it was renamed
    return directory


def next_version(folder: str | Path) -> int:
    """Gives the number after the highest version in a model's folder of versions; 1 where there is none."""
    folder = Path(folder)
    versions = [int(path.name) for path in folder.iterdir() if _is_version(path)] if folder.is_dir() else []
    return max(versions, default=0) + 1


def signature_names(channels: int) -> tuple[str, ...]:
    """Names the signatures of a model for images with that many channels."""
    encoded = ("encoded", "encoded_with_sigma") if channels in FILE_CHANNELS else ()
    return ("serving_default", "with_sigma", *encoded, "posterior")


def _is_version(path):
    return path.is_dir() and path.name.isascii() and path.name.isdigit()


def _check_target(directory):
    """Refuses a folder that holds something: a served version never changes."""
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise ValueError(f"{directory}: exists already; export to a new version folder.")


def _check_denoiser(denoiser):
    """Refuses what would not give float32 computed by TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "A SavedModel is written by Keras on TensorFlow: set KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()}."
        )
    for layer in _layers(denoiser.network):
        if layer.dtype_policy.compute_dtype != "float32":
            raise ValueError(
                "An exported model computes in float32. Build the network again with dtype='float32' and give it the "
                f"weights by `set_weights`. Received: layer {layer.name!r} with {layer.dtype_policy.name}."
            )


def _layers(model):
    """Gives all layers, those of nested models too."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _signatures(denoiser):
    """Gives the function and the input specs of each signature."""
    channels = denoiser.channels
    image = tf.TensorSpec((None, None, None, channels), tf.float32, "image")
    image_bytes = tf.TensorSpec((None,), tf.string, "image_bytes")
    sigma = tf.TensorSpec((None,), tf.float32, "sigma")
    # One function that all signatures call, so that the network stands in the file once.
    moments = tf.function(denoiser.moments, input_signature=(image, sigma), autograph=False)

    def denoise(image, sigma=None):
        denoised = moments(image, denoiser.own_sigma(image) if sigma is None else sigma)[0]
        return tf.ensure_shape(denoised, (None, None, None, channels))

    def serving_default(image):
        return {"denoised": denoise(_checked_image(image, channels))}

    def with_sigma(image, sigma):
        image = _checked_image(image, channels)
        return {"denoised": denoise(image, _checked_sigma(sigma, tf.shape(image)[0], denoiser.scale))}

    def posterior(image, sigma):
        image = _checked_image(image, channels)
        sigma = _checked_sigma(sigma, tf.shape(image)[0], denoiser.scale)
        denoised, mean, variance = moments(image, sigma)
        scale = denoiser.scale  # the estimated PSNR is relative to full scale
        whole = likelihood.posterior(denoised / scale, image / scale, mean / scale, variance / scale**2, sigma / scale)
        return {
            "denoised": denoised,
            "mean": mean,
            "std": whole.std * scale,
            "estimated_psnr": whole.estimated_psnr,
        }

    def denoise_file(data, sigma=None):
        image, full_scale = _decode(data, channels)
        denoised = denoise(image[None], None if sigma is None else sigma[None])
        return _encode_png(denoised[0], full_scale)

    def encoded(image_bytes):
        return {"denoised_bytes": _one_by_one(denoise_file, _checked_bytes(image_bytes))}

    def encoded_with_sigma(image_bytes, sigma):
        image_bytes = _checked_bytes(image_bytes)
        sigma = _checked_sigma(sigma, tf.size(image_bytes), denoiser.scale)
        return {"denoised_bytes": _one_by_one(lambda pair: denoise_file(*pair), (image_bytes, sigma))}

    table = {
        "serving_default": (serving_default, [image]),
        "with_sigma": (with_sigma, [image, sigma]),
        "encoded": (encoded, [image_bytes]),
        "encoded_with_sigma": (encoded_with_sigma, [image_bytes, sigma]),
        "posterior": (posterior, [image, sigma]),
    }
    return {name: table[name] for name in signature_names(channels)}


def _checked_image(image, channels):
    """Pins the shape (B, H, W, C), and refuses images that are empty or hold NaN or infinite values."""
    image = tf.ensure_shape(image, (None, None, None, channels))
    checks = [
        _check(tf.size(image) > 0, "image is empty: batch, height and width must be at least 1"),
        _check(tf.reduce_all(tf.math.is_finite(image)), "image holds NaN or infinite values"),
    ]
    return _after(checks, image)


def _checked_bytes(image_bytes):
    """Pins the shape (B,)."""
    image_bytes = tf.ensure_shape(image_bytes, (None,))
    return _after([_check(tf.size(image_bytes) > 0, "image_bytes is empty: send at least one image")], image_bytes)


def _checked_sigma(sigma, batch, scale):
    """Pins the shape (B,), and refuses what is no standard deviation."""
    sigma = tf.ensure_shape(sigma, (None,))
    is_positive = tf.reduce_all(tf.math.is_finite(sigma) & (sigma > 0.0))
    checks = [
        _check(tf.size(sigma) == batch, "sigma must hold one number per image. Received:", sigma),
        _check(is_positive, "sigma must be positive and finite. Received:", sigma),
    ]
    if scale == 1.0:
        sentence = "sigma is a fraction of full scale: 25 grey levels is 0.098. Received:"
        # NaN is not greater than 1: it gets the sentence above.
        checks.append(_check(~tf.reduce_any(sigma > 1.0), sentence, sigma))
    return _after(checks, sigma)


def _check(condition, sentence, *values):
    return tf.debugging.Assert(condition, [sentence, *values])


def _after(checks, tensor):
    """Gives the tensor once the checks have passed, so that nothing is computed from one that fails."""
    with tf.control_dependencies(checks):
        return tf.identity(tensor)


def _one_by_one(function, elements):
    """Applies a function to each image file in turn: sizes differ, and the memory is that of one image."""
    return tf.map_fn(function, elements, parallel_iterations=1, fn_output_signature=tf.TensorSpec((), tf.string))


def _decode(data, channels):
    """Decodes a PNG or JPEG file of 8 or 16 bits.

    EXIF orientation is not applied, as everywhere in this package.

    Returns:
        float32 image (H, W, C) in [0, 1], and the pixel value that became 1.
    """
    is_png = (tf.strings.substr(data, 0, len(PNG_SIGNATURE)) == PNG_SIGNATURE) & (
        tf.strings.length(data) >= PNG_HEADER_BYTES
    )
    is_jpeg = tf.strings.substr(data, 0, len(JPEG_START)) == JPEG_START
    known = _check(is_png | is_jpeg, "image_bytes must hold PNG or JPEG files: an element holds neither")
    data = _after([known], data)
    pixels, full_scale = tf.cond(is_png, lambda: _decode_png(data, channels), lambda: _decode_jpeg(data, channels))
    pixels = tf.ensure_shape(pixels, (None, None, channels))
    return pixels / full_scale, full_scale


def _decode_png(data, channels):
    """Gives float32 pixel values and the greatest one of the file's bit depth.

    `tf.io.decode_image` does not tell 16 bits from 8, so the header is read here.
    """
    header = tf.io.decode_raw(tf.strings.substr(data, PNG_BITS_BYTE, 2), tf.uint8)
    bits, colour_type = header[0], header[1]
    checks = [
        _check((bits == 8) | (bits == 16), "image_bytes: PNG files must have 8 or 16 bits. Received:", bits),
        _check(colour_type == PNG_COLOUR_TYPES[channels], f"image_bytes: {_expected_kind(channels, 'PNG')}"),
    ]
    data = _after(checks, data)

    def pixels(dtype):
        return tf.cast(tf.io.decode_png(data, dtype=dtype), tf.float32)

    return tf.cond(
        bits == 16,
        lambda: (pixels(tf.uint16), tf.constant(UINT16_MAX)),
        lambda: (pixels(tf.uint8), tf.constant(UINT8_MAX)),
    )


def _decode_jpeg(data, channels):
    """Gives float32 pixel values and 255."""
    components = tf.io.extract_jpeg_shape(data)[2]
    data = _after([_check(components == channels, f"image_bytes: {_expected_kind(channels, 'JPEG')}")], data)
    # TensorFlow's default decoding differs from other decoders by up to 21 grey levels.
    pixels = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE")
    return tf.cast(pixels, tf.float32), tf.constant(UINT8_MAX)


def _expected_kind(channels, name):
    kind = "grey" if channels == 1 else "RGB"
    return f"this model takes {kind} images without alpha channel; a {name} file is of another kind"


def _encode_png(image, full_scale):
    """Rounds an image in [0, 1] to the bits that the file had, as `bsdenoise.images.from_unit` does, and encodes it."""
    values = tf.clip_by_value(tf.floor(image * full_scale + 0.5), 0.0, full_scale)
    return tf.cond(
        full_scale > UINT8_MAX,
        lambda: tf.io.encode_png(tf.cast(values, tf.uint16)),
        lambda: tf.io.encode_png(tf.cast(values, tf.uint8)),
    )
