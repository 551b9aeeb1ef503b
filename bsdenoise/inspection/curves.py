"""The noise curve in the units of a file, with the line through it and its standard errors."""

from collections.abc import Sequence

import numpy as np

from bsdenoise.inspection.records import Curve, Estimate
from bsdenoise.noise.signal_dependent import fit_line, noise_curve, sigma_and_pedestal

LEAST_WEIGHED = 0.2  # of the usual variance: no bin is surer than one of so much, as in `fit_line`
LEAST_BINS = 3  # for a standard error: a line has two numbers


def measure(unit: np.ndarray, counts: np.ndarray, offset: float, scale: float) -> Curve | None:
    """Measure the noise of one channel over its brightness.

    Args:
        unit: Images of the channel, float32 (B, H, W, 1), as (pixel − offset) / scale.
        counts: Which pixels hold measurements, bool (B, H, W, 1).
        offset: Pixel value that is 0 there.
        scale: Difference of pixel values that is 1 there.

    Returns:
        The curve of all images together; `None` if nothing is known of it.
    """
    level, variance, number = (np.asarray(part, np.float64).ravel() for part in noise_curve(unit, counts))
    known = number > 0
    if not known.any():
        return None
    return through(level[known] * scale + offset, variance[known] * scale**2, number[known], offset, scale)


def pooled(found: Sequence[Curve], scale: float) -> Curve | None:
    """Fit one line through the curves of several images; `None` if there are none.

    Args:
        found: The curves, in one unit.
        scale: A difference of pixel values that counts as large.
    """
    if not found:
        return None
    mean, variance, blocks = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("mean", "variance", "blocks")
    )
    return through(mean, variance, blocks, 0.0, scale)


def through(mean: np.ndarray, variance: np.ndarray, blocks: np.ndarray, offset: float, scale: float) -> Curve:
    """Fit a line to points of a noise curve.

    Args:
        mean: Brightnesses, (K,).
        variance: Variances there.
        blocks: Number of blocks that tell them.
        offset: Brightness from which the fit counts, for precision alone.
        scale: Difference of brightness in which it counts.
    """
    order = np.argsort(mean, kind="stable")
    mean, variance, blocks = mean[order], variance[order], blocks[order]
    points = ((mean - offset) / scale, variance / scale**2, blocks)
    gain, sigma, pedestal = np.asarray(fit_line(*(one[np.newaxis].astype(np.float32) for one in points)), np.float64)[0]
    gain, at_black = gain * scale, (sigma**2 - gain * pedestal) * scale**2 - gain * scale * offset
    return Curve(mean, variance, blocks, *_with_errors(mean, variance, blocks, gain, at_black))


def _with_errors(
    mean: np.ndarray, variance: np.ndarray, blocks: np.ndarray, gain: float, at_black: float
) -> tuple[Estimate, Estimate, Estimate]:
    """Return gain, σ and pedestal of variance = gain · mean + at_black, with errors by the scatter of the points."""
    line = gain * mean + at_black
    weight = blocks / np.maximum(line, max(LEAST_WEIGHED * np.average(line, weights=blocks), 1e-300)) ** 2
    middle = np.average(mean, weights=weight)
    spread = float(np.sum(weight * (mean - middle) ** 2))
    of_gain = of_black = None
    covariance = 0.0
    if len(mean) >= LEAST_BINS and spread > 0:
        scatter = float(np.sum(weight * (variance - line) ** 2)) / (len(mean) - 2)
        of_gain = scatter / spread
        of_black = scatter / float(weight.sum()) + middle**2 * of_gain
        covariance = -middle * of_gain
        if gain == 0:  # a level, of which nothing is taken back to black
            of_black = scatter / float(weight.sum())
    sigma, pedestal = sigma_and_pedestal(gain, at_black)
    if pedestal == 0:
        error = None if of_black is None or sigma == 0 else of_black**0.5 / (2 * sigma)
        return _estimate(gain, of_gain), Estimate(sigma, error), Estimate(0.0)
    of_pedestal = None
    if of_gain is not None and of_black is not None:
        of_pedestal = max(of_black + pedestal**2 * of_gain + 2 * pedestal * covariance, 0.0) / gain**2
    return _estimate(gain, of_gain), Estimate(0.0), _estimate(pedestal, of_pedestal)


def _estimate(value: float, variance: float | None) -> Estimate:
    return Estimate(float(value), None if variance is None else float(variance) ** 0.5)
