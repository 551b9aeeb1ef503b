"""The signatures of the exported graph: functions of tensors, from checked inputs to named outputs."""

import functools

import keras
import tensorflow as tf

from bsdenoise.export.graph import checks, files
from bsdenoise.export.graph.tiles import compute, is_untiled
from bsdenoise.inference import tiling
from bsdenoise.likelihood import sure
from bsdenoise.likelihood.posterior import SERVED_WITHHELD
from bsdenoise.noise.base import SIGMA

FILE_CHANNELS = (1, 3)  # what PNG and JPEG hold without an alpha channel
# A batch of images far smaller than the network's grid is worked on as one with so many times the pixels at most.
MAX_PADDING = 4
NOISE = "noise"  # input of models whose noise is more than a σ
DESCRIPTION_FORMAT = "json"  # what `describe` can be asked for


def signature_names(
    channels: int, fractional: bool = True, posterior: bool = True, noise: str = SIGMA
) -> tuple[str, ...]:
    """Name the signatures of a model.

    Args:
        channels: Channels of its images.
        fractional: Whether its pixels are fractions of full scale; the pixels of image files mean nothing to others.
        posterior: Whether it has a posterior; without one it does not use the noise.
        noise: How the noise is told: as "sigma", or as "noise", all its parameters.
    """
    encoded = ("encoded",) if fractional and channels in FILE_CHANNELS else ()
    if not posterior:
        return ("serving_default", *encoded, "describe")
    encoded_with_noise = tuple(f"{name}_with_{noise}" for name in encoded)
    return ("serving_default", f"with_{noise}", *encoded, *encoded_with_noise, "posterior", f"own_{noise}", "describe")


def noise_input(denoiser) -> str:
    """Return the name of the input that holds the noise of images, (B,) of σ, else (B, P)."""
    return SIGMA if denoiser.noise.takes_sigma else NOISE


def signatures(denoiser, max_pixels, tiles, description):
    """Return the function and the input specs of each signature, by its name.

    Args:
        denoiser: The denoiser.
        max_pixels: Largest B·H·W of `image`, and largest H·W of each image file.
        tiles: How large images are cut.
        description: What `describe` answers, JSON text.
    """
    channels, offset, scale, grid = denoiser.channels, denoiser.offset, denoiser.scale, denoiser.grid
    model, told = denoiser.noise, noise_input(denoiser)
    image = tf.TensorSpec((None, None, None, channels), tf.float32, "image")
    image_bytes = tf.TensorSpec((None,), tf.string, "image_bytes")
    theta = tf.TensorSpec((None, model.size), tf.float32, NOISE)
    noise = tf.TensorSpec((None,), tf.float32, SIGMA) if told == SIGMA else theta

    def shared(function, *specs):
        return tf.function(function, input_signature=specs, autograph=False)

    # Functions that all signatures call, so that they, and the network above all, stand in the file once.
    network = shared(denoiser.network, image)
    finished = shared(lambda shown, theta: denoiser.finished(network(shown), shown, theta), image, theta)
    fitted = shared(model.fit, image, theta)
    first_theta = shared(lambda noisy: _by_itself(denoiser.first_theta, model.size, noisy), image)
    solved_theta = shared(lambda noisy, first: _by_itself(solve, model.size, noisy, first), image, theta)

    def solve(noisy, first):
        return denoiser.solved_theta(noisy, network=network, first=first)

    def refine(shown, theta, is_first):
        """Find the noise in the same pass of the network where what is given is a first estimate."""
        outputs = network(shown)
        theta = tf.where(is_first, denoiser.refined(outputs, shown, theta), theta)
        return denoiser.finished(outputs, shown, theta)

    refined = shared(refine, image, theta, tf.TensorSpec((), tf.bool))

    def check_image(image):
        image = checks.image(image, channels, denoiser.intensities, denoiser.units, max_pixels)
        return checks.padding(image, grid, max(MAX_PADDING * max_pixels, tiling.MAX_UNTILED_PIXELS))

    checked_image = shared(check_image, image)
    checked_files = shared(lambda data: files.checked_files(data, channels, max_pixels), image_bytes)

    def check_noise(noise, batch):
        """Return θ, (B, P), in the units of the network."""
        if told == SIGMA:
            theta = checks.sigma(noise, batch, scale, denoiser.units)[:, tf.newaxis]
        else:
            theta = checks.theta(noise, batch, model.parameters, offset, scale)
        return model.rescaled(theta, offset, scale, keras.ops)

    checked_noise = shared(check_noise, noise, tf.TensorSpec((), tf.int32))

    def as_shown(noisy, theta, fit):
        return (noisy, theta) if fit is None else (fit.applied(noisy), denoiser.fitted_theta(theta, fit))

    def first_alone(some, shown, theta, denoised, *rest):
        return [denoised], []

    def denoise(image, theta=None):
        noisy = denoiser.normalized(image)
        moments, fit = finished, None
        if not denoiser.has_posterior:
            theta = tf.zeros((tf.shape(image)[0], model.size))
        elif theta is not None:
            fit = fitted(noisy, theta)
        elif not denoiser.estimates_noise:
            theta = denoiser.first_theta(noisy)
        else:
            first = first_theta(noisy)
            fit = fitted(noisy, first)
            # Of what is computed tile by tile the noise is refined before, as one tile knows too little.
            is_first = is_untiled(tf.shape(noisy), tiles)
            theta = tf.cond(is_first, lambda: first, lambda: solved_theta(noisy, first))
            moments = functools.partial(refined, is_first=is_first)
        shown, theta = as_shown(noisy, theta, fit)
        (denoised,), _ = compute(moments, first_alone, shown, theta, tiles, pictures=1, means=0)
        denoised = denoised if fit is None else fit.undone([denoised])[0]
        return tf.ensure_shape(denoiser.in_units([denoised])[0], image.shape)

    with_own_noise, with_told_noise = shared(denoise, image), shared(denoise, image, theta)

    def serving_default(image):
        return {"denoised": with_own_noise(checked_image(image))}

    def with_noise(image, noise):
        image = checked_image(image)
        return {"denoised": with_told_noise(image, checked_noise(noise, tf.shape(image)[0]))}

    def posterior(image, noise):
        image = checked_image(image)
        theta = checked_noise(noise, tf.shape(image)[0])
        noisy = denoiser.normalized(image)
        fit = fitted(noisy, theta)
        shown, shown_theta = as_shown(noisy, theta, fit)
        limits = sure.clip_limits(keras.ops, shown)

        def joined(some, part, theta, denoised, mean, variance):
            its_limits = [limit[some] for limit in limits]
            noise_variance = model.variance(mean, theta, keras.ops)
            means = sure.means(keras.ops, denoised, part, mean, variance**0.5, noise_variance, its_limits)
            its_noise = keras.ops.mean(noise_variance, axis=(1, 2, 3))
            return [denoised, mean, variance], [*means, its_noise]

        pictures, means = compute(finished, joined, shown, shown_theta, tiles, pictures=3, means=4)
        share, error, square, noise_variance = means
        gain = tf.ones(()) if fit is None else fit.gain
        number = tf.cast(tf.reduce_prod(tf.shape(image)[1:]), tf.float32)
        psnr = sure.psnr(keras.ops, share, error / gain**2, square / gain**4, noise_variance / gain**2, number)
        psnr = tf.where(tf.math.is_nan(psnr), SERVED_WITHHELD, tf.maximum(psnr, 0.0))
        pictures = pictures if fit is None else fit.undone(pictures)
        named = zip(("denoised", "mean", "std"), denoiser.in_units(pictures), strict=True)
        return {name: tf.ensure_shape(picture, image.shape) for name, picture in named} | {
            "estimated_psnr": tf.ensure_shape(psnr, (None,))
        }

    def denoise_file(data, theta=None):
        image, full_scale = files.decode(data, channels)
        denoised = with_own_noise(image[None]) if theta is None else with_told_noise(image[None], theta[None])
        return files.encode_png(denoised[0], full_scale)

    def encoded(image_bytes):
        return {"denoised_bytes": _one_by_one(denoise_file, checked_files(image_bytes))}

    def encoded_with_noise(image_bytes, noise):
        # Pinned first: the checks of the files need no noise.
        noise = tf.ensure_shape(noise, (None,) if told == SIGMA else (None, model.size))
        image_bytes = checked_files(image_bytes)
        theta = checked_noise(noise, tf.size(image_bytes))
        return {"denoised_bytes": _one_by_one(lambda pair: denoise_file(*pair), (image_bytes, theta))}

    def own_noise(image):
        noisy = denoiser.normalized(checked_image(image))
        theta = solved_theta(noisy, first_theta(noisy)) if denoiser.estimates_noise else denoiser.first_theta(noisy)
        theta = model.restored(theta, offset, scale, keras.ops)
        return {told: tf.ensure_shape(theta[:, 0] if told == SIGMA else theta, noise.shape)}

    def describe(format):
        format = checks.words(format, "format", (DESCRIPTION_FORMAT,))
        return {"description": tf.fill(tf.shape(format), description)}

    table = {
        "serving_default": (serving_default, [image]),
        f"with_{told}": (with_noise, [image, noise]),
        "encoded": (encoded, [image_bytes]),
        f"encoded_with_{told}": (encoded_with_noise, [image_bytes, noise]),
        "posterior": (posterior, [image, noise]),
        f"own_{told}": (own_noise, [image]),
        "describe": (describe, [tf.TensorSpec((None,), tf.string, "format")]),
    }
    names = signature_names(channels, denoiser.fractional, denoiser.has_posterior, told)
    return {name: table[name] for name in names}


def _by_itself(function, size, *batches):
    """Compute θ of each image, (B, P), one after the other: an estimate takes several times the memory of its image.

    Args:
        function: From images, and what else belongs to each, to their noise parameters.
        size: P.
        *batches: The images (B, H, W, C) and what else.
    """
    return tf.map_fn(
        lambda number: function(*(batch[number : number + 1] for batch in batches))[0],
        tf.range(tf.shape(batches[0])[0]),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec((size,), tf.float32),
    )


def _one_by_one(function, elements):
    """Apply a function to each image file in turn: sizes differ, and the memory is that of one image."""
    return tf.map_fn(function, elements, parallel_iterations=1, fn_output_signature=tf.TensorSpec((), tf.string))
