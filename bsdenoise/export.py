"""The SavedModel that TF-Serving runs: the whole denoising step in one graph, pixels or image files in, the same out.

What the graph is made of besides the network (checks, image files, tiles) is in `bsdenoise.graph`; here are the
signatures, and how they are written. `keras.export.ExportArchive` does it: it finds the variables by itself, and
makes each function a signature whose tensors are named as the `TensorSpec`s and the dictionary of results say.
"""

import errno
import os
import secrets
import shutil
from pathlib import Path

import keras
import tensorflow as tf

from bsdenoise import likelihood, tiling
from bsdenoise.denoiser import Denoiser
from bsdenoise.graph import checks, files
from bsdenoise.graph.tiles import Tiles, compute

FILE_CHANNELS = (1, 3)  # what PNG and JPEG hold without an alpha channel
# 8192 × 8192. The largest camera sensors have 61 megapixels, and an RGB image of so many is 0.8 GB as float32: below
# the 2 GiB that a message to a server can have, and a few such requests fit into a server's memory.
DEFAULT_MAX_PIXELS = 2**26
MOST_PIXELS = 2**29  # at least as many are too large for TensorFlow's image decoders, and for a message to a server
# A batch of images far smaller than the network's grid is worked on as one with so many times the pixels at most.
MAX_PADDING = 4


def export_saved_model(
    denoiser: Denoiser,
    directory: str | Path,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    tile: int | None = None,
    overlap: int | None = None,
    untiled_pixels: int | None = None,
) -> Path:
    """Writes a denoiser as a TensorFlow SavedModel, whole or not at all.

    One graph serves all image and batch sizes. Its signatures, of which the `encoded` pair exists for grey and RGB:

    | signature | inputs | outputs |
    | --- | --- | --- |
    | `serving_default` | `image` float32 (B, H, W, C) | `denoised`, with the model's own σ |
    | `with_sigma` | `image`, `sigma` float32 (B,) | `denoised` |
    | `encoded` | `image_bytes` string (B,), PNG or JPEG | `denoised_bytes` string (B,), PNG with as many bits |
    | `encoded_with_sigma` | `image_bytes`, `sigma` | `denoised_bytes` |
    | `posterior` | `image`, `sigma` | `denoised`, `mean`, `std`, `estimated_psnr` (B,) |

    What cannot be denoised is refused before anything is computed, with an `InvalidArgumentError` of one sentence.
    Large images are computed one tile at a time, as `Denoiser.denoise` does it.

    Args:
        denoiser: The denoiser; its network must compute in float32.
        directory: The version folder to make, such as `export/1`. It may exist if it is empty.
        max_pixels: Largest B·H·W of `image`, and largest H·W of each image file, which is read from its header before
            it is decoded. Beside one tile, a request takes 50 to 100 bytes of memory per RGB pixel, with the default
            7 GB at most; `benchmarks/graph_memory.py` measures it.
        tile: Largest side of a tile in pixels, a multiple of the pooling grid; smaller ones need less memory.
        overlap: Context in pixels that a tile has on every inner side, as for `Denoiser.denoise`.
        untiled_pixels: Images, and batches of images, of at most as many pixels are computed in one pass. By default a
            megapixel, or one tile if `tile` is smaller.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something, the network does not compute in float32, Keras does not run on
            TensorFlow, or `max_pixels`, `tile`, `overlap` or `untiled_pixels` does not fit.
        OSError: If the folder cannot be written.

    Example:
        >>> folder = bsdenoise.export.export_saved_model(denoiser, "export/1")
        >>> served = tf.saved_model.load(folder).signatures["with_sigma"]
        >>> denoised = served(image=noisy, sigma=[25 / 255])["denoised"]
    """
    directory = Path(directory)
    _check_target(directory)
    _check_denoiser(denoiser)
    if not 1 <= max_pixels < MOST_PIXELS:
        raise ValueError(
            f"`max_pixels` must be at least 1 and less than {MOST_PIXELS}. Received: max_pixels={max_pixels}."
        )
    tiles = _tiles(denoiser.grid, tile, overlap, untiled_pixels)
    archive = keras.export.ExportArchive()
    for name, (function, specs) in _signatures(denoiser, max_pixels, tiles).items():
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


def _tiles(grid, tile, overlap, untiled_pixels):
    """Chooses what is not given, and checks what is."""
    size, overlap = tiling.choose(grid, tile, overlap)
    if untiled_pixels is None:
        untiled_pixels = tiling.MAX_UNTILED_PIXELS if tile is None else min(tiling.MAX_UNTILED_PIXELS, tile**2)
    if untiled_pixels < 0:
        raise ValueError(f"`untiled_pixels` must not be negative. Received: untiled_pixels={untiled_pixels}.")
    return Tiles(grid, size, overlap, untiled_pixels)


def _signatures(denoiser, max_pixels, tiles):
    """Gives the function and the input specs of each signature."""
    channels, scale = denoiser.channels, denoiser.scale
    image = tf.TensorSpec((None, None, None, channels), tf.float32, "image")
    image_bytes = tf.TensorSpec((None,), tf.string, "image_bytes")
    sigma = tf.TensorSpec((None,), tf.float32, "sigma")
    # One function that all signatures call, so that the network stands in the file once.
    moments = tf.function(denoiser.moments, input_signature=(image, sigma), autograph=False)

    def checked_image(image):
        image = checks.image(image, channels, denoiser.intensities, denoiser.units, max_pixels)
        return checks.padding(image, denoiser.grid, max(MAX_PADDING * max_pixels, tiling.MAX_UNTILED_PIXELS))

    def checked_sigma(sigma, batch):
        return checks.sigma(sigma, batch, scale, denoiser.units)

    def first_alone(image, sigma, denoised, mean, variance):
        return [denoised], []

    def denoise(image, sigma=None):
        sigma = _own_sigma(denoiser, image) if sigma is None else sigma
        (denoised,), _ = compute(moments, first_alone, image, sigma, tiles, pictures=1, means=0)
        return tf.ensure_shape(denoised, image.shape)

    def serving_default(image):
        return {"denoised": denoise(checked_image(image))}

    def with_sigma(image, sigma):
        image = checked_image(image)
        return {"denoised": denoise(image, checked_sigma(sigma, tf.shape(image)[0]))}

    def joined(image, sigma, denoised, mean, variance):
        # The estimated error is relative to full scale.
        error = likelihood.stein_mse(denoised / scale, image / scale, sigma / scale, variance / scale**2)
        return [denoised, mean, tf.sqrt(tf.maximum(variance, 0.0))], [error]

    def posterior(image, sigma):
        image = checked_image(image)
        sigma = checked_sigma(sigma, tf.shape(image)[0])
        pictures, (error,) = compute(moments, joined, image, sigma, tiles, pictures=3, means=1)
        named = zip(("denoised", "mean", "std"), pictures, strict=True)
        return {name: tf.ensure_shape(picture, image.shape) for name, picture in named} | {
            "estimated_psnr": tf.ensure_shape(likelihood.psnr_from_mse(error), (None,))
        }

    def denoise_file(data, sigma=None):
        image, full_scale = files.decode(data, channels)
        denoised = denoise(image[None], None if sigma is None else sigma[None])
        return files.encode_png(denoised[0], full_scale)

    def encoded(image_bytes):
        return {"denoised_bytes": _one_by_one(denoise_file, files.checked_files(image_bytes, channels, max_pixels))}

    def encoded_with_sigma(image_bytes, sigma):
        # Pinned first: the checks of the files need no σ.
        sigma = tf.ensure_shape(sigma, (None,))
        image_bytes = files.checked_files(image_bytes, channels, max_pixels)
        sigma = checked_sigma(sigma, tf.size(image_bytes))
        return {"denoised_bytes": _one_by_one(lambda pair: denoise_file(*pair), (image_bytes, sigma))}

    table = {
        "serving_default": (serving_default, [image]),
        "with_sigma": (with_sigma, [image, sigma]),
        "encoded": (encoded, [image_bytes]),
        "encoded_with_sigma": (encoded_with_sigma, [image_bytes, sigma]),
        "posterior": (posterior, [image, sigma]),
    }
    return {name: table[name] for name in signature_names(channels)}


def _own_sigma(denoiser, image):
    """Gives the model's own σ of each image, (B,): an estimate takes several times the memory of what it looks at."""
    if denoiser.noise.is_known:
        return denoiser.own_sigma(image)
    one = tf.TensorSpec((), tf.float32)
    numbers = tf.range(tf.shape(image)[0])
    return tf.map_fn(
        lambda number: denoiser.own_sigma(image[number : number + 1])[0],
        numbers,
        parallel_iterations=1,
        fn_output_signature=one,
    )


def _one_by_one(function, elements):
    """Applies a function to each image file in turn: sizes differ, and the memory is that of one image."""
    return tf.map_fn(function, elements, parallel_iterations=1, fn_output_signature=tf.TensorSpec((), tf.string))
