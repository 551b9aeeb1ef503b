"""What `inspect` finds, in the units of the files, and the JSON document that it makes of it."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 1  # of the JSON document; a field may be added without another number
DIGITS = 6  # significant ones in the document


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error.

    Attributes:
        value: The number.
        error: Its standard error; `None` if there is too little to tell it from.
    """

    value: float
    error: float | None = None


@dataclass(frozen=True)
class Curve:
    """Variance of noise over brightness, and the line gain · (brightness − pedestal) + σ² through it.

    Attributes:
        mean: Brightness of each bin, (K,), increasing.
        variance: Variance of the noise there.
        blocks: Number of flat blocks that tell it.
        gain: Slope.
        sigma: Standard deviation at black; 0 where the line meets zero above black.
        pedestal: Where the line meets zero, if that is above black; else the value that stands for black.
    """

    mean: np.ndarray
    variance: np.ndarray
    blocks: np.ndarray
    gain: Estimate
    sigma: Estimate
    pedestal: Estimate

    def line(self, mean: np.ndarray) -> np.ndarray:
        """Compute the variance of the line at brightnesses."""
        return self.gain.value * np.maximum(mean - self.pedestal.value, 0.0) + self.sigma.value**2


@dataclass(frozen=True)
class Clipping:
    """Pixels at the ends of the range.

    Attributes:
        least: Least value.
        greatest: Greatest value.
        at_least: Share of pixels that have the least value.
        at_greatest: Share of pixels that have the greatest value.
        is_clipped_low: Whether so many have the least value that it is a limit.
        is_saturated: Whether so many have the greatest value that it is a limit.
    """

    least: float
    greatest: float
    at_least: float
    at_greatest: float
    is_clipped_low: bool
    is_saturated: bool


@dataclass(frozen=True)
class Levels:
    """The values that pixels have.

    Attributes:
        distinct: Number of different values.
        step: Difference of neighbouring values; `None` of floats that have no common step.
        share_used: Share of the levels, a step apart, between the 1st and the 99th percentile that occur.
        sigma_in_steps: Standard deviation of the noise in steps; `None` without a step.
        effective_bits: How many bits the range holds beyond the noise: log2 of range / (√12 σ); `None` if constant.
    """

    distinct: int
    step: float | None
    share_used: float | None
    sigma_in_steps: float | None
    effective_bits: float | None


@dataclass(frozen=True)
class Outliers:
    """Single pixels far beyond all their neighbours.

    Attributes:
        hot: How many are brighter, mean over the images that were looked at.
        dead: How many are darker.
        share: Share of pixels that are either.
        places: Rows and columns of those that are so in most images of a stack or a collection, (N, 2).
    """

    hot: float
    dead: float
    share: float
    places: np.ndarray


@dataclass(frozen=True)
class Channel:
    """What was measured of one channel of a file.

    Attributes:
        verdict: As of a file. All channels of a colour image have the same.
        sigma: Standard deviation of the noise, as if it were the same everywhere; that of correlated noise in full.
        curve: Noise over brightness; `None` if the image is too small.
        correlation: Correlation of a pixel's noise with that of pixels around it, (17, 17), the pixel itself in the
            middle; `None` if there is no flat part or no noise.
        clipping: Pixels at the ends of the range.
        levels: The values that pixels have.
        outliers: Hot and dead pixels.
        histogram: Counts, and edges of their bins.
    """

    verdict: str
    sigma: Estimate
    curve: Curve | None
    correlation: np.ndarray | None
    clipping: Clipping
    levels: Levels
    outliers: Outliers
    histogram: tuple[np.ndarray, np.ndarray]

    def lag(self, rows: int, columns: int) -> float | None:
        """Return the correlation with the pixel so many rows and columns away."""
        if self.correlation is None:
            return None
        middle = len(self.correlation) // 2
        return float(self.correlation[middle + rows, middle + columns])


@dataclass(frozen=True)
class Pattern:
    """What images of one shape share, beside what they show.

    Attributes:
        images: How many images tell it.
        correlation: Correlation of what odd and even images have in common, in their flat parts; 0 without a pattern.
        sigma: Standard deviation of the pattern of pixels.
        rows: Standard deviation of the pattern of whole rows.
        columns: Standard deviation of the pattern of whole columns.
        is_found: Whether there is one, of pixels, rows or columns.
        picture: The pattern, (H, W), of the first channel; `None` if it was not kept.
    """

    images: int
    correlation: float
    sigma: float
    rows: float
    columns: float
    is_found: bool
    picture: np.ndarray | None = None


@dataclass(frozen=True)
class InspectedFile:
    """What was found of one file.

    Attributes:
        source: The file.
        error: Why it could not be looked at; `None` if it was. Then nothing else is known.
        shape: Shape of its pixels, (H, W), (H, W, C) or (N, H, W, C).
        dtype: Name of the type of its pixels.
        full_scale: Value of a fully lit pixel.
        is_rgb: Whether its channels are taken together.
        images: How many of its images were looked at.
        window: Rows and columns that were looked at, (top, bottom, left, right).
        ignored: Share of the values that hold no measurement.
        verdict: One of `bsdenoise.noise.verdicts`: "white", "signal-dependent", "correlated", "none" or "unclear"; of
            independent channels that of most of them.
        theta: Gain, σ and pedestal by which the file would be denoised, (P, 3): of all channels together, or of each.
        channels: What was measured of each channel.
        pattern: What the images of a stack share.
        notes: What users should know, a line each.
        picture: The first image, (H, W, C), as fractions of its range.
    """

    source: Path
    error: BaseException | None = None
    shape: tuple[int, ...] = ()
    dtype: str = ""
    full_scale: float = 1.0
    is_rgb: bool = False
    images: int = 0
    window: tuple[int, int, int, int] = (0, 0, 0, 0)
    ignored: float = 0.0
    verdict: str = "unclear"
    theta: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    channels: tuple[Channel, ...] = ()
    pattern: Pattern | None = None
    notes: tuple[str, ...] = ()
    picture: np.ndarray | None = None

    @property
    def count(self) -> int:
        """Number of images in the file."""
        return self.shape[0] if len(self.shape) == 4 else 1

    @property
    def units(self) -> tuple[str, float]:
        """What its numbers are numbers of; files can be taken together where this is equal."""
        return ("float" if self.dtype.startswith("float") else "integer"), self.full_scale


@dataclass(frozen=True)
class Collection:
    """What was found of all files together.

    Attributes:
        verdict: As of a file.
        verdicts: How many files have each verdict.
        have_one_unit: Whether all numbers have the same unit; else there are none of all files together.
        sigma: Median of the files' standard deviations, and the standard error of that.
        gain: Of the line through the curves of all files; `None` with several units.
        pedestal: Likewise.
        at_black: σ of that line.
        correlation: Mean over files and channels, (17, 17).
        pattern: What files of one shape share.
    """

    verdict: str
    verdicts: dict[str, int]
    have_one_unit: bool
    sigma: Estimate | None = None
    gain: Estimate | None = None
    at_black: Estimate | None = None
    pedestal: Estimate | None = None
    correlation: np.ndarray | None = None
    pattern: Pattern | None = None


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        inputs: What was named.
        files: The files that were looked at, in their order; also those that could not be read.
        available: How many files there are.
        collection: Of all that could be read; `None` if none could.
        commands: Command lines that fit, by "denoise" and "train"; `None` where there is none, with the reason in
            "advice".
        notes: What users should know of all of them, a line each.
    """

    inputs: tuple[str, ...]
    files: tuple[InspectedFile, ...]
    available: int
    collection: Collection | None
    commands: dict[str, str | None]
    notes: tuple[str, ...] = ()

    @property
    def readable(self) -> tuple[InspectedFile, ...]:
        """The files that could be looked at."""
        return tuple(file for file in self.files if file.error is None)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document: dicts, lists, texts, numbers in the files' own units, and `None`."""
        from bsdenoise import __version__

        return {
            "bsdenoise": __version__,
            "schema": SCHEMA,
            "inputs": [*self.inputs],
            "looked_at": {"files": len(self.files), "of": self.available},
            "collection": _plain(self.collection) if self.collection else None,
            "commands": dict(self.commands),
            "notes": [*self.notes],
            "files": [_file(file) for file in self.files],
        }


def _file(file: InspectedFile) -> dict[str, Any]:
    if file.error is not None:
        return {"file": str(file.source), "error": " ".join(str(file.error).split())}
    top, bottom, left, right = file.window
    return {
        "file": str(file.source),
        "error": None,
        "shape": [*file.shape],
        "dtype": file.dtype,
        "full_scale": _plain(file.full_scale),
        "rgb": file.is_rgb,
        "looked_at": {"images": file.images, "of": file.count, "rows": [top, bottom], "columns": [left, right]},
        "ignored": _plain(file.ignored),
        "verdict": file.verdict,
        "denoised_as": [
            dict(zip(("gain", "sigma", "pedestal"), map(_plain, theta), strict=True)) for theta in file.theta
        ],
        "channels": [_channel(channel) for channel in file.channels],
        "pattern": _plain(file.pattern) if file.pattern else None,
        "notes": [*file.notes],
    }


def _channel(channel: Channel) -> dict[str, Any]:
    found = {
        name: _plain(getattr(channel, name)) for name in ("verdict", "sigma", "curve", "clipping", "levels", "outliers")
    }
    return found | {"correlation": _correlation(channel.correlation)}


def _correlation(found: np.ndarray | None) -> dict[str, Any] | None:
    if found is None:
        return None
    middle = len(found) // 2
    return {
        "next_in_row": _plain(found[middle, middle + 1]),
        "next_in_column": _plain(found[middle + 1, middle]),
        "diagonal": _plain((found[middle + 1, middle + 1] + found[middle + 1, middle - 1]) / 2),
        "map": _plain(found),
    }


def _plain(value: Any) -> Any:
    """Turn a record into JSON values: rounded numbers, `None` for what is not finite; pictures are left out."""
    if isinstance(value, Collection):
        rest = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        return {name: _plain(one) for name, one in rest.items() if name != "correlation"} | {
            "correlation": _correlation(value.correlation)
        }
    if dataclasses.is_dataclass(value):
        fields = (one.name for one in dataclasses.fields(value) if one.name != "picture")
        return {name: _plain(getattr(value, name)) for name in fields}
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(one) for one in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
