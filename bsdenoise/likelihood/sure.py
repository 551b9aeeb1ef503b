"""Stein's unbiased risk estimate: the error of denoised images without clean ones, and when it can be believed.

x̂ = x̃ − G (x̃ − μ) misses the clean pixel by (x̂ − x̃)² − N + 2 (I − G) N on average, N being the variance of the noise,
because neither μ nor G knows anything of the pixel's own noise. That supposes independent, unclipped noise of the
variance that was told. Where the noise is clipped, its variance is less: the estimate turns too small or negative, as
it does for noise that is less than was told. So pixels near a value at which many are clipped do not count, and an
estimate that is not clearly positive is withheld.

The functions work on NumPy arrays and on Keras tensors: `xp` is `numpy` or `keras.ops`, whichever the arrays are of.
"""

import math

# Noise is taken for clipped at a value that at least so many pixels have, and this share of all.
MIN_PILE, MIN_PILE_SHARE = 8, 1e-3
CLIPPED_REACH = 3.0  # standard deviations within which clipping tells: 0.1 % of the noise is beyond
MIN_COUNTED = 0.05  # share of the pixels that an estimate for the whole image may be made of
CERTAINTY = 3.0  # standard errors by which an estimate must be above zero
# Of the noise variance: a σ that is wrong by half a percent makes the estimate wrong by as much.
MIN_SHARE_OF_NOISE = 0.01
MIN_SIGMA = 1e-6  # as full scale is 1: less noise than any camera has; keeps σ → 0 defined
MIN_ERROR = 1e-9  # for a peak of 1, 90 dB: no image is known so well
_DECIBELS = -10.0 / math.log(10.0)


def clip_limits(xp, noisy, counts=None):
    """Find the values at which the noise of images is clipped.

    Args:
        xp: `numpy` or `keras.ops`.
        noisy: Images (B, H, W, C).
        counts: Which pixels hold measurements, bool (B, H, W, C); `None` for all.

    Returns:
        Lower and upper limit of each channel, (B, 1, 1, C); −∞ and ∞ where nothing is clipped.
    """
    limits = []
    for sign, extreme in ((-1.0, xp.min), (1.0, xp.max)):
        among = noisy if counts is None else xp.where(counts, noisy, -sign * math.inf)
        limit = extreme(among, axis=(1, 2), keepdims=True)
        has_it = xp.where(xp.equal(among, limit), 1.0, 0.0)
        number, share = (reduce(has_it, axis=(1, 2), keepdims=True) for reduce in (xp.sum, xp.mean))
        is_limit = xp.logical_and(number >= MIN_PILE, share >= MIN_PILE_SHARE)
        limits.append(xp.where(is_limit, limit, sign * math.inf))
    return tuple(limits)


def terms(denoised, noisy, variance, noise_variance):
    """Compute Stein's unbiased estimate of each pixel's squared error, (B, H, W, C).

    Args:
        denoised: x̂, (B, H, W, C).
        noisy: x̃.
        variance: Posterior variance (I − G) N; 0 if x̂ is not joined with the observed pixel.
        noise_variance: Variance of the noise, broadcastable to (B, H, W, C).
    """
    return (denoised - noisy) ** 2 - noise_variance + 2.0 * variance


def means(xp, denoised, noisy, mean, std, noise_variance, limits, counts=None, term=None):
    """Compute the means over each image, or a part of it, of which `squared_error` and `psnr` are made.

    Args:
        xp: `numpy` or `keras.ops`.
        denoised: x̂, (B, H, W, C), like all images here in units whose peak is 1.
        noisy: x̃.
        mean: μ; x̂ again if that is not joined with the observed pixel.
        std: Posterior standard deviation; 0 if x̂ is not joined with the observed pixel.
        noise_variance: Variance of the noise, broadcastable to (B, H, W, C).
        limits: As from `clip_limits`.
        counts: As for `clip_limits`.
        term: Another unbiased estimate of the squared error of each pixel, (B, H, W, C), for noise that is none at the
            lower limit; `None` for Stein's.

    Returns:
        Three numbers per image, (B,): the share of pixels that count, and the means over all pixels of Stein's term
        and of its square, with 0 for pixels that do not count.
    """
    reach = CLIPPED_REACH * noise_variance**0.5
    is_clear = mean + reach <= limits[1]
    if term is None:
        is_clear = xp.logical_and(is_clear, mean - reach >= limits[0])
        term = terms(denoised, noisy, xp.square(std), noise_variance)
    is_clear = is_clear if counts is None else xp.logical_and(is_clear, counts)
    weight = xp.where(is_clear, 1.0, 0.0)
    term = xp.where(is_clear, term, 0.0)
    return tuple(xp.mean(part, axis=(1, 2, 3)) for part in (weight, term, xp.square(term)))


def squared_error(xp, share, first):
    """Estimate the mean squared error of the pixels that count, (B,); it may be negative, and is NaN if none do.

    Args:
        xp: `numpy` or `keras.ops`.
        share: As from `means`.
        first: Likewise.
    """
    return xp.where(share > 0.0, first / xp.maximum(share, 1e-12), math.nan)


def psnr(xp, share, first, second, noise_variance, number, least_share=MIN_SHARE_OF_NOISE):
    """Estimate the PSNR in dB for a peak of 1, (B,); NaN where the estimate cannot be believed.

    It is withheld where too few pixels count, and where the squared error is not clearly above zero.

    Args:
        xp: `numpy` or `keras.ops`.
        share: As from `means`.
        first: Likewise.
        second: Likewise.
        noise_variance: Mean variance of the noise, (B,).
        number: Number of pixel values in an image, H·W·C.
        least_share: Of the variance of the noise, which an error must exceed to be believed.
    """
    divisor = xp.maximum(share, 1e-12)
    error = first / divisor
    spread = xp.sqrt(xp.maximum(second / divisor - xp.square(error), 0.0) / xp.maximum(divisor * number, 1.0))
    least = xp.maximum(xp.maximum(CERTAINTY * spread, least_share * noise_variance), MIN_ERROR)
    is_trusted = xp.logical_and(share >= MIN_COUNTED, error > least)
    return xp.where(is_trusted, _DECIBELS * xp.log(xp.maximum(error, MIN_ERROR)), math.nan)
