"""Which kind of noise an image has: the decision by which it is denoised, and which `inspect` tells.

In this order: noise that grows with the signal, noise that neighbouring pixels share, white noise. (Dark parts of
detectors' images are quiet, and so is noise that neighbours share; but that never passes for noise that grows.) What
else there is to say of an image that is taken for one of white noise changes nothing of how it is denoised: its details
may be texture alone, or too weak for noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bsdenoise.noise import correlated as shared_noise
from bsdenoise.noise import noise_floor
from bsdenoise.noise.anscombe import StabilizedNoise
from bsdenoise.noise.correlated import MIN_NEIGHBOURS, CorrelatedNoise, between_channels, estimate_correlated
from bsdenoise.noise.noise_floor import NoiseFloor

WHITE, SIGNAL_DEPENDENT, CORRELATED = "white", "signal-dependent", "correlated"
NONE, UNCLEAR = "none", "unclear"
PRESETS = StabilizedNoise(5 / 255, 50 / 255)  # by which `denoise` decides where no model is named
TAIL = 0.01  # share of the values at either end that is no part of their range: stars, hot pixels
LEVELS = 255  # steps of a range that rounds as 8 bits do
AT_ONCE = 2**20  # values of images whose noise is estimated together
LOOKED_AT = 512  # side in pixels of the part of an image whose noise is looked at for correlation


@dataclass(frozen=True)
class Decision:
    """What an image is taken for.

    Attributes:
        kind: `WHITE`, `SIGNAL_DEPENDENT` or `CORRELATED`.
        theta: Gain, σ and pedestal of each part, (B, 3), as they are if its noise is not correlated.
        shared: Noise of each part that neighbouring pixels share, if it is correlated.
        floors: Noise of the quiet parts of each part; `None` for one of less than 54 pixels on a side.
    """

    kind: str
    theta: np.ndarray
    shared: list[CorrelatedNoise] | None
    floors: list[NoiseFloor | None]


def decide(parts: np.ndarray, noise) -> Decision:
    """Decide how an image is denoised by a model for white noise of which nothing is told.

    Args:
        parts: What the model takes of it, float32 (B, H, W, C), full scale 1: all channels of a colour image, else each
            by itself.
        noise: The `StabilizedNoise` of the model.
    """
    floors = quiet_parts(parts)
    theta = estimated(parts, noise)
    shared = None
    if _grows(theta):
        kind = SIGNAL_DEPENDENT
    else:
        shared = _shared(parts, floors)
        kind = WHITE if shared is None else CORRELATED
    return Decision(kind, noise.found(theta), shared, floors)


def kinds(images: np.ndarray, noise) -> list[str]:
    """Return what each of several images (B, H, W, C) is taken for; args as for `decide`, which takes parts of one."""
    growing = estimated(images, noise)[:, 0] > 0
    return [
        SIGNAL_DEPENDENT if grows else WHITE if _shared(image, quiet_parts(image)) is None else CORRELATED
        for image, grows in zip(images[:, np.newaxis], growing, strict=True)
    ]


def quiet_parts(parts: Sequence[np.ndarray] | np.ndarray) -> list[NoiseFloor | None]:
    """Measure what is quiet in the middle of each part of an image, (B, H, W, C); `None` of those that are small."""
    return [noise_floor.measure(part, LOOKED_AT) for part in parts]


def known(floors: Sequence[NoiseFloor | None]) -> list[NoiseFloor]:
    """Leave out what could not be measured."""
    return [floor for floor in floors if floor is not None]


def looks_correlated(parts: np.ndarray, noise=None) -> bool:
    """Tell whether neighbouring pixels of an image share noise, from the middle of its parts.

    Args:
        parts: As for `decide`.
        noise: Likewise; `None` if noise that grows with the signal is not told apart.
    """
    shared = _shared(parts, quiet_parts(parts))
    return shared is not None and not (noise is not None and _grows(estimated(parts, noise)))


def _scale(parts: np.ndarray) -> float:
    """Return the range of intensities against which noise is weak or not: of 12-bit counts in a 16-bit file, theirs.

    It is at least 255 of the steps between the values, so that rounding never passes for noise.
    """
    rows, columns = (
        slice(start, start + LOOKED_AT) for start in (max(side - LOOKED_AT, 0) // 2 for side in parts[0].shape[:2])
    )
    pixels = np.concatenate([part[rows, columns].ravel() for part in parts])
    pixels = pixels[np.isfinite(pixels)]
    levels = np.unique(pixels)
    if len(levels) < 2:
        return 1.0
    low, high = np.quantile(pixels, (TAIL, 1 - TAIL))
    return float(min(max(high - low, LEVELS * np.diff(levels).min()), 1.0))


def estimated(parts: Sequence[np.ndarray] | np.ndarray, noise) -> np.ndarray:
    """Estimate gain, σ and pedestal of each part, (B, 3), as if nothing else could be the matter.

    Small ones together, as each call has its cost; of large ones each by itself, as an estimate takes many times the
    memory of its image.

    Args:
        parts: Images of one shape, float32 (B, H, W, C), full scale 1.
        noise: As for `decide`.
    """
    size = max(AT_ONCE // parts[0].size, 1)
    some = [np.stack(parts[start : start + size]) for start in range(0, len(parts), size)]  # type: ignore[arg-type]
    return np.concatenate([np.asarray(noise.estimate(batch), np.float64) for batch in some])


def _grows(theta: np.ndarray) -> bool:
    """Tell whether the noise of most parts grows with the signal."""
    return bool(2 * np.count_nonzero(theta[:, 0]) > len(theta))


def _shared(parts: np.ndarray, floors: Sequence[NoiseFloor | None]) -> list[CorrelatedNoise] | None:
    """Measure noise that neighbouring pixels share; `None` if they share little, or what varies is texture."""
    scale, measured = _scale(parts), known(floors)
    if not noise_floor.is_correlated(measured, scale, noise_floor.NOISE_OF_CHANNELS):
        return None
    between = float(np.mean([between_channels(part, LOOKED_AT) for part in parts]))
    if not noise_floor.is_correlated(measured, scale, noise_floor.limits(between)):
        return None
    found = correlated(parts)
    return found if found is not None and min(one.neighbours for one in found) >= MIN_NEIGHBOURS else None


def correlated(parts: Sequence[np.ndarray] | np.ndarray) -> list[CorrelatedNoise] | None:
    """Measure noise that neighbouring pixels may share.

    Args:
        parts: As for `decide`.

    Returns:
        That of each part; `None` if one of them has none that can be measured.
    """
    found = [estimate_correlated(part) for part in parts]
    measured = [one for one in found if one is not None]
    return measured if len(measured) == len(found) else None


def blind_spot(kind: str, correlation: np.ndarray | None) -> tuple[int, int]:
    """Choose the smallest blind spot, height and width in pixels, by which noise of a kind can be trained on.

    Args:
        kind: One of the kinds above.
        correlation: Of the noise of a pixel with that of those around it, as `CorrelatedNoise` has it; `None` if it is
            not known.
    """
    return (1, 1) if kind != CORRELATED or correlation is None else shared_noise.blind_spot(correlation)
