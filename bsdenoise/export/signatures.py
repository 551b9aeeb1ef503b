"""The signatures of the exported graph: functions of tensors, from checked inputs to named outputs."""

import functools

import keras
import tensorflow as tf

from bsdenoise.export.graph import checks, files
from bsdenoise.export.graph.tiles import compute, is_untiled
from bsdenoise.inference import tiling
from bsdenoise.likelihood import sure
from bsdenoise.likelihood.posterior import SERVED_WITHHELD

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
    channels, scale, grid = denoiser.channels, denoiser.scale, denoiser.grid
    image = tf.TensorSpec((None, None, None, channels), tf.float32, "image")
    image_bytes = tf.TensorSpec((None,), tf.string, "image_bytes")
    sigma = tf.TensorSpec((None,), tf.float32, "sigma")

    def shared(function, *specs):
        return tf.function(function, input_signature=specs, autograph=False)

    # Functions that all signatures call, so that they, and the network above all, stand in the file once.
    network = shared(denoiser.network, image)
    finished = shared(lambda shown, sigma: denoiser.finished(network(shown), shown, sigma), image, sigma)
    fitted = shared(denoiser.fitted, image, sigma)
    first_sigma = shared(lambda noisy: _by_itself(denoiser.first_sigma, noisy), image)
    solved_sigma = shared(
        lambda noisy: _by_itself(functools.partial(denoiser.solved_sigma, network=network), noisy), image
    )

    def refine(shown, sigma, is_first):
        """Finds σ in the same pass of the network where what is given is a first estimate."""
        outputs = network(shown)
        sigma = tf.where(is_first, denoiser.refined(outputs, shown, sigma), sigma)
        return denoiser.finished(outputs, shown, sigma)

    refined = shared(refine, image, sigma, tf.TensorSpec((), tf.bool))

    def checked_image(image):
        image = checks.image(image, channels, denoiser.intensities, denoiser.units, max_pixels)
        return checks.padding(image, grid, max(MAX_PADDING * max_pixels, tiling.MAX_UNTILED_PIXELS))

    def checked_sigma(sigma, batch):
        return checks.sigma(sigma, batch, scale, denoiser.units)

    def first_alone(some, shown, sigma, denoised, *rest):
        return [denoised], []

    def denoise(image, sigma=None):
        noisy = denoiser.normalized(image)
        moments, fit = finished, None
        if not denoiser.has_posterior:
            sigma = tf.zeros((tf.shape(image)[0],))
        elif sigma is not None:
            sigma = sigma / scale
            fit = fitted(noisy, sigma)
        elif not denoiser.estimates_sigma:
            sigma = denoiser.first_sigma(noisy)
        else:
            first = first_sigma(noisy)
            fit = fitted(noisy, first)
            # Of what is computed tile by tile σ is refined before, as one tile knows too little.
            is_first = is_untiled(tf.shape(noisy), tiles)
            sigma = tf.cond(is_first, lambda: first, lambda: solved_sigma(noisy))
            moments = functools.partial(refined, is_first=is_first)
        shown, sigma = (noisy, sigma) if fit is None else (fit.applied(noisy), sigma * fit.gain)
        (denoised,), _ = compute(moments, first_alone, shown, sigma, tiles, pictures=1, means=0)
        denoised = denoised if fit is None else fit.undone([denoised])[0]
        return tf.ensure_shape(denoiser.in_units([denoised])[0], image.shape)

    def serving_default(image):
        return {"denoised": denoise(checked_image(image))}

    def with_sigma(image, sigma):
        image = checked_image(image)
        return {"denoised": denoise(image, checked_sigma(sigma, tf.shape(image)[0]))}

    def posterior(image, sigma):
        image = checked_image(image)
        sigma = checked_sigma(sigma, tf.shape(image)[0]) / scale
        noisy = denoiser.normalized(image)
        fit = fitted(noisy, sigma)
        shown, shown_sigma = fit.applied(noisy), sigma * fit.gain
        limits = sure.clip_limits(keras.ops, shown)

        def joined(some, part, sigma, denoised, mean, variance):
            its_limits = [limit[some] for limit in limits]
            means = sure.means(keras.ops, denoised, part, mean, variance**0.5, sigma, its_limits)
            return [denoised, mean, variance], [*means]

        pictures, means = compute(finished, joined, shown, shown_sigma, tiles, pictures=3, means=3)
        share, error, square = means
        number = tf.cast(tf.reduce_prod(tf.shape(image)[1:]), tf.float32)
        psnr = sure.psnr(keras.ops, share, error / fit.gain**2, square / fit.gain**4, sigma, number)
        psnr = tf.where(tf.math.is_nan(psnr), SERVED_WITHHELD, tf.maximum(psnr, 0.0))
        named = zip(("denoised", "mean", "std"), denoiser.in_units(fit.undone(pictures)), strict=True)
        return {name: tf.ensure_shape(picture, image.shape) for name, picture in named} | {
            "estimated_psnr": tf.ensure_shape(psnr, (None,))
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
        noisy = denoiser.normalized(checked_image(image))
        sigma = solved_sigma(noisy) if denoiser.estimates_sigma else denoiser.first_sigma(noisy)
        return {"sigma": tf.ensure_shape(sigma * scale, (None,))}

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


def _by_itself(function, noisy):
    """Computes σ of each image, (B,), one after the other: an estimate takes several times the memory of its image."""
    return tf.map_fn(
        lambda number: function(noisy[number : number + 1])[0],
        tf.range(tf.shape(noisy)[0]),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec((), tf.float32),
    )


def _one_by_one(function, elements):
    """Applies a function to each image file in turn: sizes differ, and the memory is that of one image."""
    return tf.map_fn(function, elements, parallel_iterations=1, fn_output_signature=tf.TensorSpec((), tf.string))
