"""What is measured of one file: its images in the middle, channel by channel, and the decision how it is denoised."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bsdenoise import images
from bsdenoise.images import filled_files, masks, missing
from bsdenoise.inference import tiling
from bsdenoise.inspection import curves
from bsdenoise.inspection.fixed_pattern import Shared
from bsdenoise.inspection.levels import Values
from bsdenoise.inspection.outliers import Defects
from bsdenoise.inspection.records import Channel, Curve, Estimate, InspectedFile
from bsdenoise.noise import StabilizedNoise, estimate_sigma, verdicts
from bsdenoise.noise.correlated import LAGS, estimate_correlated
from bsdenoise.noise.noise_floor import NoiseFloor
from bsdenoise.noise.signal_dependent import in_units
from bsdenoise.pipeline import float_units
from bsdenoise.pipeline.denoising_model import parts_of
from bsdenoise.pipeline.float_units import Units

MEASURED_SIDE = 1024  # pixels of the middle, of which everything but the decision is measured
MEASURED_IMAGES = 4  # of a stack, whose noise is measured
SHARED_IMAGES = 16  # of a stack, among which patterns and defects of the detector are looked for
MOST_VALUES = 2**26  # of all these, which are kept in memory
PRESETS = StabilizedNoise(5 / 255, 50 / 255)  # by which `denoise` decides where no model is named
# Of what is taken for white noise. Less in the quiet parts than one step between levels, or than this share of the
# range, is none. Less there than this share of σ is no noise that is everywhere: texture, or noise and texture.
MIN_SHARE_OF_RANGE = 1 / 2000
QUIET_SHARE = 0.85  # of σ, in the quietest twentieth of the blocks of white noise
MIN_EVENNESS = 0.45  # astronauts and crowds without noise have 0.2 to 0.4
FLATTEST_SHARE = 0.95  # of σ, in the tenth of the blocks of white noise that `estimate_correlated` takes
PICTURE_SIDE = 512  # most pixels of a thumbnail
GREEN = 1  # the channel of a colour image that is looked at for patterns


@dataclass(frozen=True)
class Measured:
    """A file that was looked at, and what is needed to look at several together.

    Attributes:
        file: What was found.
        floors: Noise of the quiet parts of its first image, as fractions of its range.
        plane: Its first image, one channel, (H, W), with gaps filled.
        counts: Where that holds measurements, bool (H, W).
    """

    file: InspectedFile
    floors: list[NoiseFloor]
    plane: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class _Image:
    """The middle of one image: pixels as the file holds them, gaps filled; where they count; and as fractions."""

    pixels: np.ndarray
    counts: np.ndarray
    unit: np.ndarray


def measure(path: Path, axes: str | None = None, no_data: float | None = None, mask: Path | None = None) -> Measured:
    """Look at a file.

    Args:
        path: The file.
        axes: As for `images.opened`.
        no_data: Likewise.
        mask: File with its mask, if it has one.

    Raises:
        ValueError: If it cannot be read, or holds no measurement.
        OSError: If it cannot be opened.
    """
    with images.opened(path, axes, no_data) as file:
        with filled_files.filled(file, mask) as filled:
            units = float_units.of_floats(filled) if file.dtype.kind == "f" else Units()
        height, width = file.shape[-3:-1] if len(file.shape) > 2 else file.shape
        rows, columns = tiling.middle(height, width, tiling.MIDDLE)
        values = min(height, MEASURED_SIDE) * min(width, MEASURED_SIDE) * file.channels
        numbers = _spread(len(file), max(1, min(SHARED_IMAGES, MOST_VALUES // values)))
        measured = {int(numbers[place]) for place in _spread(len(numbers), MEASURED_IMAGES)}
        found: list[_Image] = []
        decisions: list[verdicts.Decision] = []
        rest = _Rest(file)
        for number in map(int, numbers):
            image = _read(file, number, rows, columns, units, mask)
            if image is None:
                continue
            if number in measured:
                parts = parts_of(image.unit, file.channels if file.is_rgb else 1)
                decisions.append(verdicts.decide(parts, PRESETS))
                found.append(_middle(image))
            rest.add(_middle(image))
        if not found:
            raise ValueError(f"{path}: {missing.NOTHING_MEASURED}.")
    offset, scale = (units.offset, units.scale) if file.dtype.kind == "f" else (0.0, file.full_scale)
    kinds = _kinds(decisions)
    part_of = [0 if file.is_rgb else channel for channel in range(file.channels)]
    looks = [_first_look(found, channel, offset, scale, kinds[part]) for channel, part in enumerate(part_of)]
    limit = None if file.dtype.kind == "f" else file.full_scale
    channels = [_described(rest, found, channel, one, limit, rows, columns) for channel, one in enumerate(looks)]
    for part, kind in enumerate(kinds):
        its_channels = [channel for channel, one in enumerate(part_of) if one == part]
        floors = [decision.floors[part] for decision in decisions]
        verdict = _verdict(kind, verdicts.known(floors), [channels[channel] for channel in its_channels], scale)
        for channel in its_channels:
            channels[channel] = replace(channels[channel], verdict=verdict)
    pattern = rest.shared.found(float(np.median([one.sigma.value for one in channels])))
    theta = np.median([decision.theta for decision in decisions], axis=0)
    record = InspectedFile(
        source=path,
        shape=file.shape,
        dtype=file.dtype.name,
        full_scale=1.0 if file.dtype.kind == "f" else file.full_scale,
        is_rgb=file.is_rgb,
        images=len(numbers),
        window=(rows.start, rows.stop, columns.start, columns.stop),
        ignored=float(np.mean([1.0 - image.counts.mean() for image in found])),
        verdict=_of_most(channels),
        theta=in_units(theta, offset, scale),
        channels=tuple(channels),
        pattern=pattern,
        notes=(*file.notes, *([] if units.line is None else [units.line])),
        picture=_picture(found[0]),
    )
    first = found[0]
    channel = GREEN if file.is_rgb else 0
    return Measured(record, verdicts.known(decisions[0].floors), first.pixels[..., channel], first.counts[..., channel])


def _spread(number: int, most: int) -> np.ndarray:
    """Return so many numbers from 0 to `number` − 1 at most, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).astype(int))


def _read(
    file: images.ImageFile, number: int, rows: slice, columns: slice, units: Units, mask: Path | None
) -> _Image | None:
    """Read the middle of an image as `denoise` would show it to a preset; `None` if it holds no measurement."""
    pixels = file.read_window(number, rows, columns)
    with _mask(file, number, mask) as window:
        ignored = None if window is None else window(rows, columns)
    pixels = pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    gaps = missing.where(pixels, file.no_data, ignored)
    if gaps is not None and gaps.all():
        return None
    counts = np.ones(pixels.shape, bool) if gaps is None else ~gaps
    pixels = pixels if gaps is None else missing.filled(pixels, gaps)
    unit = units.to_model(pixels) if pixels.dtype.kind == "f" else images.to_unit(pixels, file.bits)
    return _Image(pixels, counts, unit.astype(np.float32, copy=False))


@contextlib.contextmanager
def _mask(file: images.ImageFile, number: int, mask: Path | None) -> Iterator[Callable | None]:
    if mask is None:
        yield None
        return
    with masks.opened(mask, number, file.shape[1:] if len(file.shape) == 4 else file.shape) as window:
        yield window


def _middle(image: _Image) -> _Image:
    height, width, _ = image.pixels.shape
    rows, columns = tiling.middle(height, width, MEASURED_SIDE)
    return _Image(*(part[rows, columns] for part in (image.pixels, image.counts, image.unit)))


class _Rest:
    """What all images of a stack tell together: their shared pattern, and planes in which to look for defects."""

    def __init__(self, file: images.ImageFile):
        self._channel = GREEN if file.is_rgb else 0
        self.shared = Shared()
        self.images: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, image: _Image) -> None:
        self.shared.add(image.pixels[..., self._channel], image.counts[..., self._channel])
        self.images.append((image.pixels, image.counts))


@dataclass(frozen=True)
class _Look:
    """What is measured of the noise of a channel."""

    sigma: Estimate
    curve: Curve | None
    correlation: np.ndarray | None


def _first_look(found: list[_Image], channel: int, offset: float, scale: float, kind: str) -> _Look:
    """Measure the noise of one channel.

    Texture only ever raises estimates of σ. So of white noise the least of three is taken.
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
    return _Look(Estimate(sigma, None if kind == verdicts.CORRELATED else _error(sigma, curve)), curve, correlation)


def _error(sigma: float, curve: Curve | None) -> float | None:
    """Return the standard error of σ by the scatter of the noise curve about its line."""
    if curve is None or len(curve.mean) < curves.LEAST_BINS or sigma == 0:
        return None
    line = np.maximum(curve.line(curve.mean), 1e-300)
    relative = np.sqrt(np.mean(np.square(curve.variance / line - 1.0)))
    return float(0.5 * sigma * min(relative, 1.0) / len(line) ** 0.5)


def _described(
    rest: _Rest, found: list[_Image], channel: int, look: _Look, full_scale: float | None, rows: slice, columns: slice
) -> Channel:
    """Describe the values of one channel, and its defects."""
    pixels = np.concatenate([image.pixels[..., channel][image.counts[..., channel]] for image in found])
    if not pixels.size:
        pixels = found[0].pixels[..., channel].ravel()
    values = Values(pixels, full_scale)
    levels = values.described(look.sigma.value)
    span = float(values.values[-1]) - float(values.values[0])
    defects = Defects(look.sigma.value, look.curve, levels.step or span * MIN_SHARE_OF_RANGE or 1.0)
    for plane, counts in rest.images:
        defects.add(plane[..., channel], counts[..., channel])
    inner = tiling.middle(rows.stop - rows.start, columns.stop - columns.start, MEASURED_SIDE)
    corner = [outer.start + one.start for outer, one in zip((rows, columns), inner, strict=True)]
    return Channel(
        verdict=verdicts.UNCLEAR,  # until all is known
        sigma=look.sigma,
        curve=look.curve,
        correlation=look.correlation,
        clipping=values.clipping(),
        levels=levels,
        outliers=defects.found(corner),
        histogram=values.histogram(),
    )


def _kinds(decisions: list[verdicts.Decision]) -> list[str]:
    """Return what each part of a file is denoised as: most of its images, or all where the first is correlated."""
    if decisions[0].kind == verdicts.CORRELATED:
        return [verdicts.CORRELATED] * len(decisions[0].theta)
    grows = np.mean([decision.theta[:, 0] > 0 for decision in decisions], axis=0) > 0.5
    return [verdicts.SIGNAL_DEPENDENT if one else verdicts.WHITE for one in grows]


def _verdict(kind: str, floors: list[NoiseFloor], channels: list[Channel], scale: float) -> str:
    """Return the kind of noise that channels are denoised for, or that there is none, or that there is no telling."""
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


def _of_most(channels: list[Channel]) -> str:
    """Return the verdict of most channels; of as many, the one that asks for more than white noise does."""
    order = (verdicts.CORRELATED, verdicts.SIGNAL_DEPENDENT, verdicts.WHITE, verdicts.UNCLEAR, verdicts.NONE)
    counts = Counter(channel.verdict for channel in channels)
    return max(order, key=lambda verdict: counts[verdict])


def _picture(image: _Image) -> np.ndarray:
    """Return a thumbnail, (H, W, C), between the 0.5th and the 99.5th percentile as fractions."""
    stride = -(-max(image.pixels.shape[:2]) // PICTURE_SIDE)
    small = image.unit[::stride, ::stride].astype(np.float64)
    low, high = np.percentile(small, (0.5, 99.5))
    return np.clip((small - low) / max(high - low, 1e-12), 0.0, 1.0).astype(np.float32)
