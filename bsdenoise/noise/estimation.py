"""σ of white noise from noisy images alone: from their finest details, and from what a network leaves unexplained."""

import numpy as np
from keras import ops

from bsdenoise.likelihood.sure import MIN_PILE, MIN_PILE_SHARE
from bsdenoise.noise.spec import SIGMA_MEDIAN

# Daubechies wavelet of two vanishing moments, high-pass: these two taps applied to second differences, so that it is
# blind to constant and linear image content. In this form a constant gives an exact zero.
DB2_TAPS = ((3.0**0.5 - 1.0) / (4.0 * 2.0**0.5), (3.0**0.5 + 1.0) / (4.0 * 2.0**0.5))
DB2_LENGTH = 4
CLIPPED_REACH = 2.5  # standard deviations within which clipping tells: 0.6 % of the noise is beyond
MIN_CLEAR = 0.02  # share of the coefficients that must be left beyond that
MIN_WHOLE = 0.25  # share that must touch no lost pixel, to be good enough although some are within
BLOCK = 8  # side in pixels of blocks whose brightness is taken for constant
MOST_CLIPPED = 4.0  # what clipping can make of σ where some windows are left whole: 0.58 in black, less by chance
MIN_CLIPPED = 0.1  # least share of clipped and of other pixels in a block that says what σ is
WINITZKI = 0.147
SCORING_STEPS = 8  # from twice the true σ, five reach it to a percent
UNTRAINED_ERROR = 0.5  # of the least σ of the training; see `untrained_variance`
OUTLIER = 3.0  # standard deviations at which residuals are cut, so that hot pixels are not taken for noise
CUT_VARIANCE = 0.9950  # of N(0, 1) whose square is cut at OUTLIER²
MIN_VARIANCE = 1e-10  # as full scale is 1: keeps weights within float32


def estimate_sigma(image, counts=None):
    """Estimate the standard deviation of white noise in each image from its finest diagonal details.

    Median of the absolute diagonal coefficients of a db2 wavelet over the median of |N(0, 1)| (Donoho and
    Johnstone 1994), averaged over channels. Fine texture counts as noise, so it tends to be high: `refine_sigma`
    lowers it where a blind-spot network has seen the image.

    Pixels that lost their noise do not count, nor do coefficients that touch them: the least and the greatest value of
    a channel where many pixels have it, as noise is clipped there, and exact zeros, of which empty pixels are made. Nor
    does what is so near to a value where many pixels are clipped that only the noise of one sign is left. Where that
    leaves too little, as in dark images, σ is that of a clipped Gaussian with the share of clipped pixels and the mean
    that blocks have.

    Args:
        image: (B, H, W, C), any H and W ≥ 1; of fewer than four rows or columns, copies make up for the rest.
        counts: Which pixels hold measurements, bool (B, H, W, C); `None` for all.

    Returns:
        float32 (B,), in the units of the image; 0 where nothing varies.
    """
    image = _at_least(ops.cast(image, "float32"), DB2_LENGTH)
    counts = None if counts is None else _at_least(counts, DB2_LENGTH)
    low, high, at_low, at_high = _extremes(image, counts)
    lost = _without_noise(image, at_low, at_high, counts)
    magnitudes = ops.abs(_along_both(_db2_details, image))
    # Whatever can be computed together is: tracing takes as long as computing.
    sums = _along_both(_window_sums, ops.concatenate([ops.cast(lost, "float32"), image], axis=-1))
    number_lost, level = ops.split(sums, 2, axis=-1)
    is_whole = number_lost == 0.0
    all_of_them = _median(magnitudes, is_whole)
    reach = CLIPPED_REACH * all_of_them[:, None, None] / SIGMA_MEDIAN
    level = level / DB2_LENGTH**2
    is_clear = ops.logical_and(level - low >= reach * _any(at_low), high - level >= reach * _any(at_high))
    is_clear = ops.logical_and(is_whole, is_clear)
    share, share_of_whole = (ops.mean(ops.cast(mask, "float32"), axis=(1, 2)) for mask in (is_clear, is_whole))
    clear = _median(magnitudes, is_clear) / SIGMA_MEDIAN
    whole = all_of_them / SIGMA_MEDIAN
    usable = ops.ones_like(lost) if counts is None else counts
    above = ops.concatenate([image - low, high - image])
    is_usable = [ops.logical_and(usable, ops.logical_not(others)) for others in (at_high, at_low)]
    dark_and_bright = _clipped_sigma(above, ops.concatenate([at_low, at_high]), ops.concatenate(is_usable))
    clipped = ops.maximum(*ops.split(dark_and_bright, 2))
    # Scattered dead pixels look like clipped noise; but then the pixels between them tell another σ.
    is_other = ops.logical_and(whole > 0.0, clipped > MOST_CLIPPED * whole)
    is_whole_enough = ops.logical_or(share_of_whole >= MIN_WHOLE, ops.logical_or(clipped == 0.0, is_other))
    fallback = ops.where(is_whole_enough, whole, clipped)
    return ops.mean(ops.where(share >= MIN_CLEAR, clear, fallback), axis=-1)


def clipped_pixels(image, counts=None):
    """Tell which pixels lost their noise, bool (B, H, W, C).

    The least and the greatest value of a channel where many pixels have it, exact zeros, and what was not measured.

    Args:
        image: (B, H, W, C).
        counts: Which pixels hold measurements, bool (B, H, W, C); `None` for all.
    """
    _, _, at_low, at_high = _extremes(image, counts)
    return _without_noise(image, at_low, at_high, counts)


def untrained_variance(variance, low):
    """Compute the variance that predictions have beside Σ_p where there is less noise than a network was trained for.

    In training, an error of the prediction far below σ changed nothing, so the network does not know of it: of an image
    with hardly any noise it claims to predict pixels better than it does. `UNTRAINED_ERROR` is a choice:
    `benchmarks/weak_noise.py` measures that with it hardly any photograph becomes worse, however little noise it has.

    Args:
        variance: σ², a tensor of any shape.
        low: Least σ of the training.

    Returns:
        A variance for each σ², 0 from `low` on.
    """
    return (UNTRAINED_ERROR * low) ** 2 * ops.maximum(1.0 - variance / low**2, 0.0)


def refine_sigma(squared_residual, prior_variance, sigma, low, counts=None):
    """Lower estimates of σ to what the predictions of a blind-spot network leave unexplained.

    What the network cannot predict of a pixel has the variance Σ_p + σ²: fine texture raises Σ_p, and noise alone
    σ². So σ² is that of greatest likelihood, each channel by itself, found by Fisher scoring,
    σ² ← Σ w (r² − Σ_p) / Σ w with w = (Σ_p + σ²)⁻². Squared residuals are cut at `OUTLIER`² times their variance, and
    Σ_p includes `untrained_variance`.

    Args:
        squared_residual: (x̃ − μ)², (B, H, W, C).
        prior_variance: Diagonal of Σ_p, (B, H, W, C).
        sigma: Where to start, such as what `estimate_sigma` gives, (B,), in the same units.
        low: Least σ that the network was trained for.
        counts: Which pixels count, (B, H, W, C); `None` for all.

    Returns:
        float32 (B,), at most `sigma`.
    """
    axes = (1, 2, 3)
    start = ops.reshape(ops.square(sigma), (-1, 1, 1, 1))
    counts = 1.0 if counts is None else ops.cast(counts, "float32")
    variance = start
    for _ in range(SCORING_STEPS):
        known = prior_variance + untrained_variance(variance, low)
        total = ops.maximum(known + variance, MIN_VARIANCE)
        weight = counts / ops.square(total)
        excess = ops.minimum(squared_residual, OUTLIER**2 * total) / CUT_VARIANCE - known
        sums = (ops.sum(weight * part, axis=axes, keepdims=True) for part in (excess, ops.ones_like(excess)))
        variance = ops.maximum(ops.divide_no_nan(*sums), 0.0)
    # Where no pixel counts, the estimate is left as it was.
    found = ops.where(ops.any(ops.ones_like(excess) * counts > 0.0, axis=axes, keepdims=True), variance, start)
    return ops.sqrt(ops.minimum(found, start))[:, 0, 0, 0]


def _at_least(image, length):
    """Repeat rows and columns of images with fewer."""
    for axis in (1, 2):
        size = ops.shape(image)[axis]
        is_known = isinstance(size, int)
        if not is_known or size < length:
            target = length if is_known else ops.maximum(size, length)
            image = ops.take(image, ops.arange(target) % size, axis=axis)
    return image


def _along_both(function, image):
    """Apply a function along H, then along W."""
    return ops.transpose(function(ops.transpose(function(image), (0, 2, 1, 3))), (0, 2, 1, 3))


def _db2_details(image):
    """Filter (B, H, W, C) along H with the db2 high-pass and keep every second row."""
    slopes = image[:, 1:] - image[:, :-1]
    curvatures = slopes[:, 1:] - slopes[:, :-1]
    end = ops.shape(curvatures)[1] // 2 * 2
    return DB2_TAPS[0] * curvatures[:, :end:2] + DB2_TAPS[1] * curvatures[:, 1:end:2]


def _window_sums(image):
    """Sum (B, H, W, C) along H over the four rows that a coefficient of `_db2_details` is made of."""
    pairs = image[:, 1:] + image[:, :-1]
    end = (ops.shape(image)[1] - 2) // 2 * 2
    return pairs[:, :end:2] + pairs[:, 2 : end + 2 : 2]


def _median(magnitudes, mask):
    """Compute the median over H and W where the mask holds, (B, C); 0 where it holds nowhere."""
    shape = ops.shape(magnitudes)
    count = shape[1] * shape[2]
    flat = ops.reshape(ops.transpose(ops.where(mask, magnitudes, -1.0), (0, 3, 1, 2)), (shape[0], shape[3], count))
    ordered = ops.sort(flat, axis=-1)
    left_out = ops.sum(ops.cast(ordered < 0.0, "int32"), axis=-1, keepdims=True)
    places = [ops.minimum((left_out + count - 1) // 2, count - 1), ops.minimum((left_out + count) // 2, count - 1)]
    middle = ops.take_along_axis(ordered, ops.concatenate(places, axis=-1), axis=-1)
    return ops.maximum(ops.mean(middle, axis=-1), 0.0)


def _extremes(image, counts):
    """Return least and greatest value of each channel, and where many pixels have them."""
    low, high = (_extreme(image, counts, sign) for sign in (-1.0, 1.0))
    return low, high, _if_piled(ops.equal(image, low)), _if_piled(ops.equal(image, high))


def _without_noise(image, at_low, at_high, counts):
    lost = ops.logical_or(ops.logical_or(at_low, at_high), ops.equal(image, 0.0))
    return lost if counts is None else ops.logical_or(lost, ops.logical_not(counts))


def _extreme(image, counts, sign):
    """Return the least (sign −1) or the greatest (1) value of each channel, (B, 1, 1, C)."""
    signed = sign * image
    signed = signed if counts is None else ops.where(counts, signed, -np.inf)
    return sign * ops.max(signed, axis=(1, 2), keepdims=True)


def _if_piled(at_extreme):
    """Keep of a mask (B, H, W, C) the channels where so many pixels have the extreme value that it is a limit."""
    number = ops.sum(ops.cast(at_extreme, "float32"), axis=(1, 2), keepdims=True)
    share = ops.mean(ops.cast(at_extreme, "float32"), axis=(1, 2), keepdims=True)
    return ops.logical_and(at_extreme, ops.logical_and(number >= MIN_PILE, share >= MIN_PILE_SHARE))


def _any(mask):
    """Tell, as 0 or 1, where a channel has pixels of a mask, (B, 1, 1, C)."""
    return ops.cast(ops.any(mask, axis=(1, 2), keepdims=True), "float32")


def _clipped_sigma(above, is_clipped, usable):
    """Estimate σ where noise is clipped at 0, (B, C), from blocks of nearly constant brightness; 0 if there are none.

    Only blocks all of whose pixels are usable count: those with the other extreme as well hold edges, not noise.

    With the share Φ(−t) of clipped pixels, t = m/σ, the mean of the others and them is σ (t Φ(t) + φ(t)).
    """
    pooled = [_block_means(ops.cast(part, "float32")) for part in (is_clipped, above)]
    share, mean = (ops.clip(pooled[0], MIN_CLIPPED, 1.0 - MIN_CLIPPED), pooled[1])
    t = 2.0**0.5 * _erfinv(1.0 - 2.0 * share)
    density = ops.exp(-0.5 * ops.square(t)) / (2.0 * np.pi) ** 0.5
    is_good = ops.logical_and(pooled[0] > MIN_CLIPPED, pooled[0] < 1.0 - MIN_CLIPPED)
    is_good = ops.logical_and(is_good, _block_means(ops.cast(usable, "float32")) == 1.0)
    return _median(mean / (t * (1.0 - share) + density), is_good)


def _erfinv(x):
    """Compute the inverse of the error function to 0.4 % (Winitzki 2008), in operations that all runtimes know."""
    logarithm = ops.log(1.0 - ops.square(x))
    half = 2.0 / (np.pi * WINITZKI) + logarithm / 2.0
    return ops.sign(x) * ops.sqrt(ops.sqrt(ops.square(half) - logarithm / WINITZKI) - half)


def _block_means(image):
    """Average blocks of `BLOCK`² pixels, those at the lower and right borders of fewer."""
    return ops.average_pool(image, BLOCK, BLOCK, padding="same", data_format="channels_last")
