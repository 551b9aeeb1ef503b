"""The signatures of the exported graph: functions of tensors, from checked inputs to named outputs."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from bsdenoise.export.graph import checks, ensemble, files
from bsdenoise.export.graph.tiles import compute as compute_tiles
from bsdenoise.export.graph.tiles import is_untiled
from bsdenoise.inference import self_ensemble, tiling
from bsdenoise.likelihood import sure
from bsdenoise.likelihood.posterior import SERVED_WITHHELD
from bsdenoise.noise.base import SIGMA

FILE_CHANNELS = (1, 3)  # what PNG and JPEG hold without an alpha channel
# A batch of images far smaller than the network's grid is worked on as one with so many times the pixels at most.
MAX_PADDING = 4
NOISE = "noise"  # input of models whose noise is more than a σ
DESCRIPTION_FORMAT = "json"  # what `describe` can be asked for


def signature_names(
    channels: int, fractional: bool = True, posterior: bool = True, noise: str = SIGMA, stabilized: bool = False
) -> tuple[str, ...]:
    """Name the signatures of a model.

    Args:
        channels: Channels of its images.
        fractional: Whether its pixels are fractions of full scale; the pixels of image files mean nothing to others.
        posterior: Whether it has a posterior; without one it does not use the noise.
        noise: How the noise is told: as "sigma", or as "noise", all its parameters.
        stabilized: Whether it takes noise that grows with the signal too, of which all parameters are told.
    """
    encoded = ("encoded",) if fractional and channels in FILE_CHANNELS else ()
    if not posterior:
        return ("serving_default", *encoded, "describe")
    encoded_with_noise = tuple(f"{name}_with_{noise}" for name in encoded)
    names = ("serving_default", f"with_{noise}", *encoded, *encoded_with_noise, "posterior", f"own_{noise}", "describe")
    if not stabilized:
        return names
    return *names, f"with_{NOISE}", *(f"{name}_with_{NOISE}" for name in encoded), f"own_{NOISE}"


def names_of(denoiser) -> tuple[str, ...]:
    """Name the signatures of a denoiser."""
    its = denoiser.channels, denoiser.fractional, denoiser.has_posterior
    return signature_names(*its, noise_input(denoiser), denoiser.can_be_stabilized)


def noise_input(denoiser) -> str:
    """Return the name of the input that holds the noise of images, (B,) of σ, else (B, P)."""
    return SIGMA if denoiser.noise.takes_sigma else NOISE


def signatures(denoiser, max_pixels, tiles, description, tta):
    """Return the function and the input specs of each signature, by its name.

    Args:
        denoiser: The denoiser.
        max_pixels: Largest B·H·W of `image`, and largest H·W of each image file.
        tiles: How large images are cut.
        description: What `describe` answers, JSON text.
        tta: How many copies are averaged, as for `Denoiser.denoise`.
    """
    channels, offset, scale, grid = denoiser.channels, denoiser.offset, denoiser.scale, denoiser.grid
    model, told = denoiser.noise, noise_input(denoiser)
    # What estimates noise by itself: where the model can, noise that grows with the signal too.
    estimating = denoiser.stabilized() if denoiser.can_be_stabilized else denoiser
    image = tf.TensorSpec((None, None, None, channels), tf.float32, "image")
    image_bytes = tf.TensorSpec((None,), tf.string, "image_bytes")
    theta = tf.TensorSpec((None, model.size), tf.float32, NOISE)
    noise = tf.TensorSpec((None,), tf.float32, SIGMA) if told == SIGMA else theta
    all_noise = tf.TensorSpec((None, estimating.noise.size), tf.float32, NOISE)

    def shared(function, *specs):
        return tf.function(function, input_signature=specs, autograph=False)

    # Functions that all signatures call, so that they, and the network above all, stand in the file once.
    network = shared(denoiser.network, image)
    copies = self_ensemble.Copies.of(tta, denoiser.described_network())

    def of_copy(shown, theta):
        if copies.turns == self_ensemble.UNTURNED:
            return denoiser.finished(network(shown), shown, theta)
        return denoiser.shown_moments(shown, theta, copies.turns)

    of_one = shared(of_copy, image, theta)
    compute = functools.partial(compute_tiles, are_mirrored=copies.are_mirrored)
    finished = shared(
        lambda shown, theta: ensemble.average(lambda copy: of_one(copy, theta), shown, copies.changes), image, theta
    )

    @functools.cache
    def steps(some):
        """Return what finds the noise of images as a denoiser knows it, and what denoises them with it."""
        its_theta = tf.TensorSpec((None, some.noise.size), tf.float32, NOISE)

        def solve(noisy, first):
            return some.solved_theta(noisy, network=network, first=first)

        return _Steps(
            shared(some.noise.fit, image, its_theta),
            shared(lambda noisy: _by_itself(some.first_theta, some.noise.size, noisy), image),
            shared(lambda noisy, first: _by_itself(solve, some.noise.size, noisy, first), image, its_theta),
            shared(functools.partial(denoise, some=some), image, its_theta),
        )

    def refine(shown, theta, is_first):
        """Find the noise in the same pass of the network where what is given is a first estimate."""
        outputs = network(shown)
        theta = tf.where(is_first, estimating.refined(outputs, shown, theta), theta)
        return estimating.finished(outputs, shown, theta)

    refined = shared(
        refine, image, tf.TensorSpec((None, estimating.noise.shown_size), tf.float32, NOISE), tf.TensorSpec((), tf.bool)
    )

    def check_image(image):
        image = checks.image(image, channels, denoiser.intensities, denoiser.units, max_pixels)
        return checks.padding(image, grid, max(MAX_PADDING * max_pixels, tiling.MAX_UNTILED_PIXELS))

    checked_image = shared(check_image, image)
    checked_files = shared(lambda data: files.checked_files(data, channels, max_pixels), image_bytes)

    def check_sigma(sigma, batch):
        """Return θ, (B, 1), in the units of the network."""
        theta = checks.sigma(sigma, batch, scale, denoiser.units)[:, tf.newaxis]
        return model.rescaled(theta, offset, scale, keras.ops)

    def check_noise(noise, batch):
        """Return θ, (B, P), in the units of the network."""
        theta = checks.theta(noise, batch, estimating.noise.parameters, offset, scale)
        return estimating.noise.rescaled(theta, offset, scale, keras.ops)

    number = tf.TensorSpec((), tf.int32)
    checked_sigma, checked_noise = shared(check_sigma, noise, number), shared(check_noise, all_noise, number)

    def as_shown(noisy, theta, fit, some):
        return (noisy, theta) if fit is None else (fit.applied(noisy), some.fitted_theta(theta, fit))

    def first_alone(some, shown, theta, denoised, *rest):
        return [denoised], []

    def denoise(image, theta=None, some=estimating):
        """Denoise images with the noise that is told, (B, P) as `some` denoiser knows it, or that is found."""
        noisy = denoiser.normalized(image)
        fit = None

        def moments(shown, theta):
            return finished(shown, theta[:, : model.size])

        if not denoiser.has_posterior:
            theta = tf.zeros((tf.shape(image)[0], model.size))
        elif theta is not None:
            fit = steps(some).fitted(noisy, theta)
        elif not denoiser.estimates_noise:
            theta = denoiser.first_theta(noisy)
        elif tta > 1:
            theta = steps(some).solved_theta(noisy, steps(some).first_theta(noisy))
            fit = steps(some).fitted(noisy, theta)
        else:
            first = steps(some).first_theta(noisy)
            fit = steps(some).fitted(noisy, first)
            # Of what is computed tile by tile the noise is refined before, as one tile knows too little.
            is_first = is_untiled(tf.shape(noisy), tiles)
            theta = tf.cond(is_first, lambda: first, lambda: steps(some).solved_theta(noisy, first))
            moments = functools.partial(refined, is_first=is_first)
        shown, theta = as_shown(noisy, theta, fit, some)
        (denoised,), _ = compute(moments, first_alone, shown, theta, tiles, pictures=1, means=0)
        denoised = denoised if fit is None else fit.undone([denoised])[0]
        return tf.ensure_shape(denoiser.in_units([denoised])[0], image.shape)

    with_own_noise = shared(denoise, image)

    def serving_default(image):
        return {"denoised": with_own_noise(checked_image(image))}

    def with_sigma(image, sigma):
        image = checked_image(image)
        return {"denoised": steps(denoiser).with_told_noise(image, checked_sigma(sigma, tf.shape(image)[0]))}

    def with_noise(image, noise):
        image = checked_image(image)
        return {"denoised": steps(estimating).with_told_noise(image, checked_noise(noise, tf.shape(image)[0]))}

    def posterior(image, noise):
        image = checked_image(image)
        check = checked_sigma if told == SIGMA else checked_noise
        theta = check(noise, tf.shape(image)[0])
        noisy = denoiser.normalized(image)
        fit = steps(denoiser).fitted(noisy, theta)
        shown, shown_theta = as_shown(noisy, theta, fit, denoiser)
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
        psnr = psnr if model.has_risk_estimate else tf.fill(tf.shape(psnr), SERVED_WITHHELD)
        pictures = pictures if fit is None else fit.undone(pictures)
        named = zip(("denoised", "mean", "std"), denoiser.in_units(pictures), strict=True)
        return {name: tf.ensure_shape(picture, image.shape) for name, picture in named} | {
            "estimated_psnr": tf.ensure_shape(psnr, (None,))
        }

    def denoise_file(data, theta=None, some=estimating):
        image, full_scale = files.decode(data, channels)
        if theta is None:
            denoised = with_own_noise(image[None])
        else:
            denoised = steps(some).with_told_noise(image[None], theta[None])
        return files.encode_png(denoised[0], full_scale)

    def encoded(image_bytes):
        return {"denoised_bytes": _one_by_one(denoise_file, checked_files(image_bytes))}

    def encoded_with(image_bytes, noise, spec, check, some):
        # Pinned first: the checks of the files need no noise.
        noise = tf.ensure_shape(noise, spec.shape)
        image_bytes = checked_files(image_bytes)
        theta = check(noise, tf.size(image_bytes))
        done = _one_by_one(lambda pair: denoise_file(pair[0], pair[1], some), (image_bytes, theta))
        return {"denoised_bytes": done}

    def encoded_with_sigma(image_bytes, sigma):
        return encoded_with(image_bytes, sigma, noise, checked_sigma, denoiser)

    def encoded_with_noise(image_bytes, noise):
        return encoded_with(image_bytes, noise, all_noise, checked_noise, estimating)

    def own(image, some):
        noisy = denoiser.normalized(checked_image(image))
        if denoiser.estimates_noise:
            theta = steps(some).solved_theta(noisy, steps(some).first_theta(noisy))
        else:
            theta = denoiser.first_theta(noisy)
        return some.noise.restored(theta, offset, scale, keras.ops)

    def own_sigma(image):
        return {SIGMA: tf.ensure_shape(own(image, denoiser)[:, 0], (None,))}

    def own_noise(image):
        return {NOISE: tf.ensure_shape(own(image, estimating), all_noise.shape)}

    def describe(format):
        format = checks.words(format, "format", (DESCRIPTION_FORMAT,))
        return {"description": tf.fill(tf.shape(format), description)}

    table = {
        "serving_default": (serving_default, [image]),
        "with_sigma": (with_sigma, [image, noise]),
        "with_noise": (with_noise, [image, all_noise]),
        "encoded": (encoded, [image_bytes]),
        "encoded_with_sigma": (encoded_with_sigma, [image_bytes, noise]),
        "encoded_with_noise": (encoded_with_noise, [image_bytes, all_noise]),
        "posterior": (posterior, [image, noise]),
        "own_sigma": (own_sigma, [image]),
        "own_noise": (own_noise, [image]),
        "describe": (describe, [tf.TensorSpec((None,), tf.string, "format")]),
    }
    return {name: table[name] for name in names_of(denoiser)}


class _Steps(NamedTuple):
    """Functions of normalised images (B, H, W, C).

    Attributes:
        fitted: From images and noise parameters to how they are shown, a `bsdenoise.noise.intensity_fit.Fit`.
        first_theta: To the noise of each image before the network has seen it, (B, P).
        solved_theta: From images and that to what the network finds, (B, P).
        with_told_noise: From images in the units of the model and noise parameters to denoised images.
    """

    fitted: Callable
    first_theta: Callable
    solved_theta: Callable
    with_told_noise: Callable


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
