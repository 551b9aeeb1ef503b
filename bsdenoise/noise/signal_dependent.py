"""Noise that grows with the signal, from noisy images alone: the variance of flat parts over their brightness."""

import numpy as np
from keras import ops

from bsdenoise.likelihood.sure import MIN_SIGMA
from bsdenoise.noise.estimation import clipped_pixels

BLOCK = 8  # side in pixels of what has one brightness and one variance
DETAIL_GAIN = 36.0  # second differences along both axes of white noise of variance 1 have this variance
# Blocks of one brightness: those with the least noise are the flattest. This quantile of the mean squared details of
# blocks of white noise is this share of their expectation; measured on 250,000 blocks.
FLAT_QUANTILE, FLAT_SHARE = 0.25, 0.769
# Distances in rows and columns of the pixels of the finest details, and of those on every second pixel of a row, of a
# column.
STRIDES = ((1, 1), (1, 2), (2, 1))
BINS = 16  # of brightness, with equal numbers of blocks
# Variance of details on every second pixel of a row over that of a column, or the other way round, that is taken for
# shared noise, and the largest that is believed. Scanning microscopes have 1.03 to 1.08, photographs with white noise
# 0.97 to 1.04.
MIN_SHARED, MAX_SHARED = 1.04, 1.1
LEAST_BLOCKS = 2**11  # of an image: fewer do not tell some percent
# Relative variance of what a bin of n blocks tells of white noise, times n: from how the details are correlated, for
# the quantile of a normal distribution.
BIN_VARIANCE = 0.37
CAUTION = 1.0  # standard errors by which a line with a pedestal is taken for less steep than it is fitted
ROUNDS = 4  # of weighting each bin by what the fit before says of its variance


def estimate_poisson_gaussian(image, counts=None):
    """Estimate gain, read noise and pedestal of each image, variance = gain · (mean − pedestal) + σ².

    A line through the points of `noise_curve` (Foi, Trimeche, Katkovnik, Egiazarian 2008 fit the same one). Its
    pedestal is taken for a little lower: where dark parts are few, to count on less noise there than there is costs far
    more than to count on more.

    Args:
        image: (B, H, W, C), H and W ≥ 1. All channels are taken to have the same noise.
        counts: Which pixels hold measurements, bool (B, H, W, C); `None` for all.

    Returns:
        float32 (B, 3): gain, σ and pedestal, in the units of the image. Without blocks to tell, as of images of less
        than twelve pixels on a side, the noise is the least that is computed with.
    """
    return fit_lines(*noise_curve(image, counts))[1]


def noise_curve(image, counts=None, is_whole=True):
    """Measure the variance of the noise of each image over its brightness.

    The image is cut into blocks. Of those of one brightness, a low quantile of the variance of the finest details is
    that of flat ones. Blocks with pixels that lost their noise, being clipped or empty, do not count.

    Detectors that scan, as those of confocal microscopes, let neighbours of one row share a little of their noise. It
    then has less of the finest details; on every second pixel of a row it has all of them. Texture, which is stronger
    there too, is told apart by every second pixel of a column.

    Args:
        image: As for `estimate_poisson_gaussian`.
        counts: Likewise.
        is_whole: Whether these are all pixels; neighbours of every second pixel share no noise worth a look.

    Returns:
        Brightness, variance, and number of blocks of each bin, float32 (B, K), K at most 16. Where the number is 0,
        nothing is known.
    """
    image = _at_least(ops.cast(image, "float32"))
    lost = ops.cast(clipped_pixels(image, None if counts is None else _at_least(counts)), "float32")
    if not is_whole:
        return _flattest(image, lost, STRIDES[:1])[0]
    curve, (_, along_rows, known), (_, along_columns, _) = _flattest(image, lost, STRIDES)
    level, variance, number = curve
    ratios = ops.where(known > 0.0, ops.divide_no_nan(along_rows, along_columns), 1.0)
    shared = ops.take(ops.sort(ratios, axis=-1), ops.shape(ratios)[1] // 2, axis=-1)
    shared = ops.maximum(shared, ops.divide_no_nan(ops.ones_like(shared), shared))
    is_sure = ops.logical_and(shared >= MIN_SHARED, ops.sum(known, axis=-1) >= LEAST_BLOCKS)
    shared = ops.where(is_sure, ops.minimum(shared, MAX_SHARED), 1.0)
    return level, variance * shared[:, None], number


def _flattest(image, lost, strides):
    """Measure the variance of the details of flat blocks of each brightness.

    Args:
        image: (B, H, W, C).
        lost: 1 for pixels that lost their noise, else 0, (B, H, W, C).
        strides: Distances in rows and in columns of the three pixels of a detail, for each kind of them.

    Returns:
        For each kind brightness, variance, and number of blocks of each bin, (B, K).
    """
    margin = max(map(max, strides))
    inside = slice(margin, -margin)
    squares, touched = [], []
    for down, across in strides:
        details = _curvatures(ops.transpose(_curvatures(image, down), (0, 2, 1, 3)), across)
        details = ops.transpose(details, (0, 2, 1, 3))
        rows, columns = (slice(margin - stride, stride - margin or None) for stride in (down, across))
        squares.append(ops.square(details[:, rows, columns]) / DETAIL_GAIN)
        # A detail sees the pixels around its own.
        around = (2 * down + 1, 2 * across + 1)
        lost_around = ops.max_pool(lost, around, 1, padding="same", data_format="channels_last")
        touched.append(lost_around[:, inside, inside])
    # All at once, as to call an operation takes longer than what it does to a small image.
    pixels = ops.concatenate([image[:, inside, inside], *squares, *touched])
    blocks = _flat(_blocks(pixels))
    parts = 1 + 2 * len(strides)
    mean = ops.split(blocks, parts)[0]
    order = ops.concatenate([ops.argsort(mean, axis=-1)] * parts)
    mean, *others = ops.split(_in_bins(ops.take_along_axis(blocks, order, axis=-1)), parts)
    variance, lost = (ops.stack(some) for some in (others[: len(strides)], others[len(strides) :]))
    is_whole = lost == 0.0
    number = ops.sum(ops.cast(is_whole, "float32"), axis=-1)
    level = ops.sum(ops.where(is_whole, mean, 0.0), axis=-1) / ops.maximum(number, 1.0)
    ordered = ops.sort(ops.where(is_whole, variance, float("inf")), axis=-1)
    place = ops.cast(FLAT_QUANTILE * ops.maximum(number - 1.0, 0.0), "int32")[..., None]
    flat = ops.take_along_axis(ordered, place, axis=-1)[..., 0] / FLAT_SHARE
    flat = ops.where(number > 0.0, flat, 0.0)
    return [(level[kind], flat[kind], number[kind]) for kind in range(len(strides))]


def fit_line(level, variance, number):
    """Fit gain, σ and pedestal to noise curves; a line that falls is taken for level.

    A line does not tell σ and pedestal apart: where it is above zero at black, the rest is σ and the pedestal 0; else
    the pedestal is where it meets zero, and σ is 0.

    Args:
        level: Brightnesses, (B, K).
        variance: Variances there, (B, K).
        number: Of blocks that tell them, (B, K).

    Returns:
        float32 (B, 3).
    """
    return fit_lines(level, variance, number)[0]


def fit_lines(level, variance, number):
    """Fit gain, σ and pedestal as `fit_line` does, and once more with caution.

    Args as for `fit_line`.

    Returns:
        What `fit_line` gives, and the line whose slope is less by `CAUTION` standard errors, around the middle of the
        points, where that lowers a pedestal.
    """
    expected = ops.maximum(variance, MIN_SIGMA**2)
    for _ in range(ROUNDS):
        weight = number / ops.square(expected)
        weight = weight / ops.maximum(ops.sum(weight, axis=-1, keepdims=True), 1e-30)
        middle = ops.sum(weight * level, axis=-1, keepdims=True)
        height = ops.sum(weight * variance, axis=-1, keepdims=True)
        spread = ops.sum(weight * ops.square(level - middle), axis=-1, keepdims=True)
        slope = ops.sum(weight * (level - middle) * (variance - height), axis=-1, keepdims=True)
        gain = ops.maximum(ops.divide_no_nan(slope, spread), 0.0)
        # No bin is surer than a fifth of the usual one: a line through the darkest alone says nothing of the others.
        expected = ops.maximum(height + gain * (level - middle), 0.2 * height + MIN_SIGMA**2)
    information = ops.sum(number / ops.square(expected) * ops.square(level - middle), axis=-1, keepdims=True)
    error = ops.sqrt(ops.divide_no_nan(BIN_VARIANCE, information))
    without_pedestal = ops.divide_no_nan(height, middle)
    cautious = ops.minimum(gain, ops.maximum(gain - CAUTION * error, without_pedestal))
    return _theta(gain, middle, height), _theta(cautious, middle, height)


def _theta(gain, middle, height):
    """Return gain, σ and pedestal, (B, 3), of lines of some slope through a point, (B, 1)."""
    at_black = height - gain * middle
    sigma = ops.sqrt(ops.maximum(at_black, 0.0))
    pedestal = ops.divide_no_nan(ops.maximum(-at_black, 0.0), gain)
    sigma = ops.where(gain > 0.0, sigma, ops.maximum(sigma, MIN_SIGMA))
    return ops.concatenate([gain, sigma, pedestal], axis=-1)


def sigma_and_pedestal(gain, at_black):
    """Return σ and pedestal of a line, of which one is 0: they are two names for where it is at black."""
    if at_black >= 0 or gain == 0:
        return float(max(at_black, 0.0) ** 0.5), 0.0
    return 0.0, float(-at_black / gain)


def in_units(theta, offset, scale):
    """Return gain, σ and pedestal, an array (P, 3), of (pixel − offset) / scale as those of pixels."""
    found = np.array(theta, np.float64) * scale
    for row in found:
        if row[0] > 0:
            row[1:] = sigma_and_pedestal(row[0], row[1] ** 2 - row[0] * (row[2] + offset))
    return found


def _at_least(image):
    """Repeat rows and columns of images that have too few for a block."""
    least = BLOCK + 4
    for axis in (1, 2):
        size = ops.shape(image)[axis]
        if not isinstance(size, int) or size < least:
            target = least if isinstance(size, int) else ops.maximum(size, least)
            image = ops.take(image, ops.arange(target) % size, axis=axis)
    return image


def _curvatures(image, stride):
    """Compute second differences along H, of pixels so many rows apart."""
    slopes = image[:, stride:] - image[:, :-stride]
    return slopes[:, stride:] - slopes[:, :-stride]


def _blocks(image):
    return ops.average_pool(image, BLOCK, BLOCK, padding="valid", data_format="channels_last")


def _flat(blocks):
    shape = ops.shape(blocks)
    return ops.reshape(blocks, (shape[0], shape[1] * shape[2] * shape[3]))


def _in_bins(values):
    """Cut sorted values (B, N) into (B, K, N / K), without the least ones if K does not divide N."""
    shape = ops.shape(values)
    size = ops.maximum(shape[1] // BINS, 1) if not isinstance(shape[1], int) else max(shape[1] // BINS, 1)
    bins = shape[1] // size if not isinstance(shape[1], int) else min(BINS, shape[1] // size)
    bins = ops.minimum(bins, BINS) if not isinstance(bins, int) else bins
    return ops.reshape(values[:, shape[1] - bins * size :], (shape[0], bins, size))
