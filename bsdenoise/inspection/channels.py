"""What is measured of one channel of a file: its noise, its values, its defects; and which kind of noise that is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bsdenoise.inspection import curves
from bsdenoise.inspection.levels import Values
from bsdenoise.inspection.outliers import Defects
from bsdenoise.inspection.records import Channel, Curve, Estimate
from bsdenoise.noise import estimate_sigma, verdicts
from bsdenoise.noise.correlated import LAGS, estimate_correlated
from bsdenoise.noise.noise_floor import NoiseFloor

# Of what is taken for white noise. Less in the quiet parts than one step between levels, or than this share of the
# range, is none. Less there than this share of σ is no noise that is everywhere: texture, or noise and texture.
MIN_SHARE_OF_RANGE = 1 / 2000
QUIET_SHARE = 0.85  # of σ, in the quietest twentieth of the blocks of white noise
MIN_EVENNESS = 0.45  # astronauts and crowds without noise have 0.2 to 0.4
FLATTEST_SHARE = 0.95  # of σ, in the tenth of the blocks of white noise that `estimate_correlated` takes


@dataclass(frozen=True)
class Image:
    """What is looked at of one image.

    Attributes:
        pixels: As the file holds them, gaps filled, (H, W, C).
        counts: Where they hold measurements, bool (H, W, C).
        unit: As a model is given them, float32 (H, W, C).
    """

    pixels: np.ndarray
    counts: np.ndarray
    unit: np.ndarray


@dataclass(frozen=True)
class Look:
    """What is measured of the noise of a channel."""

    sigma: Estimate
    curve: Curve | None
    correlation: np.ndarray | None


def look(found: Sequence[Image], channel: int, offset: float, scale: float, kind: str) -> Look:
    """Measure the noise of one channel.

    Texture only ever raises estimates of σ. So of white noise the least of three is taken.

    Args:
        found: Images.
        channel: Number of the channel.
        offset: Pixel value that is 0 as a model is given it.
        scale: Difference of pixel values that is 1.
        kind: What the channel is denoised as.
    """
    unit = np.stack([image.unit[..., channel : channel + 1] for image in found])
    counts = np.stack([image.counts[..., channel : channel + 1] for image in found])
    curve = curves.measure(unit, counts, offset, scale)
    maps = [estimate_correlated(np.where(where, image, np.nan)) for image, where in zip(unit, counts, strict=True)]
    known = [one.autocovariance[..., 0] for one in maps if one is not None]
    autocovariance = np.mean(known, axis=0) if known else None
    flattest = None if autocovariance is None else float(max(autocovariance[LAGS, LAGS], 0.0)) ** 0.5 * scale
    on_curve = None if curve is None else float(np.sqrt(np.median(curve.variance)))
    finest = float(np.median(np.asarray(estimate_sigma(unit, counts)))) * scale
    if kind == verdicts.CORRELATED and flattest is not None:
        sigma = flattest
    elif kind == verdicts.SIGNAL_DEPENDENT and on_curve is not None:
        sigma = on_curve
    else:
        in_full = None if flattest is None else flattest / FLATTEST_SHARE
        sigma = min(one for one in (finest, on_curve, in_full) if one is not None)
    correlation = None
    if autocovariance is not None and autocovariance[LAGS, LAGS] > 0:
        correlation = autocovariance / autocovariance[LAGS, LAGS]
    return Look(Estimate(sigma, None if kind == verdicts.CORRELATED else _error(sigma, curve)), curve, correlation)


def _error(sigma: float, curve: Curve | None) -> float | None:
    """Return the standard error of σ by the scatter of the noise curve about its line."""
    if curve is None or len(curve.mean) < curves.LEAST_BINS or sigma == 0:
        return None
    line = np.maximum(curve.line(curve.mean), 1e-300)
    relative = np.sqrt(np.mean(np.square(curve.variance / line - 1.0)))
    return float(0.5 * sigma * min(relative, 1.0) / len(line) ** 0.5)


def described(
    everything: Sequence[Image],
    found: Sequence[Image],
    channel: int,
    noise: Look,
    full_scale: float | None,
    corner: Sequence[int],
) -> Channel:
    """Describe the values of one channel, and its defects.

    Args:
        everything: Images in which defects are looked for.
        found: Images whose noise was measured.
        channel: Number of the channel.
        noise: What was measured of its noise.
        full_scale: Value of a fully lit pixel; `None` for floats, which have none.
        corner: Row and column at which the images begin in the file.
    """
    pixels = np.concatenate([image.pixels[..., channel][image.counts[..., channel]] for image in found])
    if not pixels.size:
        pixels = found[0].pixels[..., channel].ravel()
    values = Values(pixels, full_scale)
    levels = values.described(noise.sigma.value)
    span = float(values.values[-1]) - float(values.values[0])
    defects = Defects(noise.sigma.value, noise.curve, levels.step or span * MIN_SHARE_OF_RANGE or 1.0)
    for image in everything:
        defects.add(image.pixels[..., channel], image.counts[..., channel])
    return Channel(
        verdict=verdicts.UNCLEAR,  # until all is known
        sigma=noise.sigma,
        curve=noise.curve,
        correlation=noise.correlation,
        clipping=values.clipping(),
        levels=levels,
        outliers=defects.found(corner),
        histogram=values.histogram(),
    )


def kinds(decisions: Sequence[verdicts.Decision]) -> list[str]:
    """Return what each part of a file is denoised as: most of its images, or all where the first is correlated."""
    if decisions[0].kind == verdicts.CORRELATED:
        return [verdicts.CORRELATED] * len(decisions[0].theta)
    grows = np.mean([decision.theta[:, 0] > 0 for decision in decisions], axis=0) > 0.5
    return [verdicts.SIGNAL_DEPENDENT if one else verdicts.WHITE for one in grows]


def verdict(kind: str, floors: Sequence[NoiseFloor], channels: Sequence[Channel], scale: float) -> str:
    """Return the kind of noise that channels are denoised for, or that there is none, or that there is no telling.

    Args:
        kind: What they are denoised as.
        floors: Noise of the quiet parts of their images, in units of `scale`.
        channels: The channels.
        scale: As for `look`.
    """
    if kind != verdicts.WHITE:
        return kind
    if all(channel.levels.distinct == 1 for channel in channels):
        return verdicts.NONE
    if not floors:
        return verdicts.UNCLEAR
    quiet = float(np.median([floor.quiet for floor in floors])) * scale
    spans = [channel.clipping.greatest - channel.clipping.least for channel in channels]
    steps = [channel.levels.step for channel in channels if channel.levels.step is not None]
    if quiet < max([max(spans) * MIN_SHARE_OF_RANGE, *steps]):
        return verdicts.NONE
    sigma = float(np.median([channel.sigma.value for channel in channels]))
    return verdicts.UNCLEAR if quiet < MIN_EVENNESS * QUIET_SHARE * sigma else verdicts.WHITE


def of_most(channels: Sequence[Channel]) -> str:
    """Return the verdict of most channels; of as many, the one that asks for more than white noise does."""
    order = (verdicts.CORRELATED, verdicts.SIGNAL_DEPENDENT, verdicts.WHITE, verdicts.UNCLEAR, verdicts.NONE)
    counts = Counter(channel.verdict for channel in channels)
    return max(order, key=lambda verdict: counts[verdict])
