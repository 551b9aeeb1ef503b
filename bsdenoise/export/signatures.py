"""The signatures of the exported graph: functions of tensors, from checked inputs to named outputs."""

import tensorflow as tf

from bsdenoise import likelihood, tiling
from bsdenoise.graph import checks, files
from bsdenoise.graph.tiles import compute

FILE_CHANNELS = (1, 3)  # what PNG and JPEG hold without an alpha channel
# A batch of images far smaller than the network's grid is worked on as one with so many times the pixels at most.
MAX_PADDING = 4
DESCRIPTION_FORMAT = "json"  # what `describe` can be asked for


def signature_names(channels: int, fractional: bool = True, posterior: bool = True) -> tuple[str, ...]:
    """Names the signatures of a model.

    Args:
        channels: Channels of its images.
        fractional: Whether its pixels are fractions of full scale; the pixels of image files mean nothing to others.
        posterior: Whether it has a posterior; without one it does not use σ.
    """
    encoded = ("encoded",) if fractional and channels in FILE_CHANNELS else ()
    if not posterior:
        return ("serving_default", *encoded, "describe")
    encoded_with_sigma = tuple(f"{name}_with_sigma" for name in encoded)
    return ("serving_default", "with_sigma", *encoded, *encoded_with_sigma, "posterior", "own_sigma", "describe")


def signatures(denoiser, max_pixels, tiles, description):
    """Gives the function and the input specs of each signature, by its name.

    Args:
        denoiser: The denoiser.
        max_pixels: Largest B·H·W of `image`, and largest H·W of each image file.
        tiles: How large images are cut.
        description: What `describe` answers, JSON text.
    """
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

    def first_alone(image, sigma, denoised, *rest):
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

    def own_sigma(image):
        return {"sigma": tf.ensure_shape(_own_sigma(denoiser, checked_image(image)), (None,))}

    def describe(format):
        format = checks.words(format, "format", (DESCRIPTION_FORMAT,))
        return {"description": tf.fill(tf.shape(format), description)}

    table = {
        "serving_default": (serving_default, [image]),
        "with_sigma": (with_sigma, [image, sigma]),
        "encoded": (encoded, [image_bytes]),
        "encoded_with_sigma": (encoded_with_sigma, [image_bytes, sigma]),
        "posterior": (posterior, [image, sigma]),
        "own_sigma": (own_sigma, [image]),
        "describe": (describe, [tf.TensorSpec((None,), tf.string, "format")]),
    }
    names = signature_names(channels, denoiser.fractional, denoiser.has_posterior)
    return {name: table[name] for name in names}


def _own_sigma(denoiser, image):
    """Gives the model's own σ of each image, (B,): an estimate takes several times the memory of what it looks at."""
    if not denoiser.has_posterior:  # nobody looks at it
        return tf.zeros((tf.shape(image)[0],))
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
