"""What was found in plain words."""

import os
from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from bsdenoise.inspection.records import Channel, Collection, Estimate, InspectedFile, Inspection, Pattern
from bsdenoise.noise import verdicts

LEAST_SIDE = 54  # pixels of images whose quiet parts can be measured
MIN_DEFECTS = 3  # hot or dead pixels in an image, below which they may be anything
FEW_STEPS = 0.5  # steps between levels that σ should have at least: below, rounding hides the noise
MIN_USED = 0.9  # share of the levels that occur, below which a histogram looks like a comb
NONE_FOUND = "–"
LOGARITHMIC = 30.0  # ratio of the greatest to the least number, above which axes are logarithmic
_TITLES = {
    verdicts.WHITE: "white noise",
    verdicts.SIGNAL_DEPENDENT: "noise that grows with the signal, as that of a detector",
    verdicts.CORRELATED: "noise that neighbouring pixels share, as after demosaicing, averaging or JPEG",
    verdicts.NONE: "no noise found",
    verdicts.UNCLEAR: "cannot tell",
}


def as_text(found: Inspection) -> str:
    """Say all that was found: of one file line by line, of several in a table, then all together."""
    files = found.readable
    if not files or found.collection is None:
        return ""
    paragraphs = [_block(files[0])] if len(files) == 1 else [_table(files), of_all(found)]
    paragraphs.append(_commands(found))
    return "\n\n".join(paragraphs)


def sentence(verdict: str, sigma: Estimate | None, line: Sequence[Estimate | None], neighbours: float | None) -> str:
    """Say what noise it is.

    Args:
        verdict: One of `bsdenoise.noise.verdicts`.
        sigma: Its standard deviation.
        line: Gain, σ at black and pedestal.
        neighbours: Correlation of direct neighbours.
    """
    title = _TITLES[verdict]
    strength = "" if sigma is None else f"sigma {_number(sigma)}"
    if verdict == verdicts.SIGNAL_DEPENDENT and line and line[0] is not None:
        names = ("gain", "sigma", "pedestal")
        told = [f"{name} {_number(one)}" for name, one in zip(names, line, strict=True) if one is not None]
        return f"{title}: {', '.join(told)}"
    if verdict == verdicts.CORRELATED:
        how_much = [] if neighbours is None else [f"correlation {neighbours:.2f}"]
        return f"{title}: {', '.join([*how_much, *filter(None, [strength])])}"
    if verdict == verdicts.UNCLEAR:
        return f"{title}: fine texture alone, or white noise{f' of at most {strength}' if strength else ''}"
    if verdict == verdicts.NONE:
        return f"{title}: at most {strength}, which may be texture or rounding" if sigma and sigma.value else title
    return f"{title}: {strength}" if strength else title


def of_file(file: InspectedFile) -> str:
    """Say what noise a file has."""
    place = next((place for place, one in enumerate(file.channels) if one.verdict == file.verdict), 0)
    line: list[Estimate | None] = []
    if file.verdict == verdicts.SIGNAL_DEPENDENT:
        curve = file.channels[place].curve
        known = [] if curve is None else [curve.gain, curve.sigma, curve.pedestal]
        errors = [one.error if one.value > 0 else None for one in known] or [None] * 3
        theta = file.theta[0 if file.is_rgb else place]
        line = [Estimate(float(value), error) for value, error in zip(theta, errors, strict=True)]
    if file.verdict == verdicts.UNCLEAR and min(file.shape[-3:-1] if len(file.shape) > 2 else file.shape) < LEAST_SIDE:
        return f"{_TITLES[verdicts.UNCLEAR]}: it is too small, less than {LEAST_SIDE} pixels on a side"
    return sentence(file.verdict, _sigma(file), line, _neighbours(file))


def line_of(file: InspectedFile) -> str:
    """Write the line through the noise curve of a file's first channel, if its noise grows with the signal."""
    curve = next((one.curve for one in file.channels if one.curve is not None), None)
    if curve is None or file.verdict != verdicts.SIGNAL_DEPENDENT:
        return ""
    read_noise = f" + {curve.sigma.value:.3g}²" if curve.sigma.value else ""
    return f"variance = {curve.gain.value:.4g} · (mean − {curve.pedestal.value:.4g}){read_noise}"


def spans_much(mean: np.ndarray, variance: np.ndarray) -> bool:
    """Tell whether a noise curve is drawn on logarithmic axes.

    Both or none: a straight line stays one on both, not on one of them.

    Args:
        mean: All brightnesses that are drawn.
        variance: All variances.
    """
    return all(values.min() > 0 and values.max() > LOGARITHMIC * values.min() for values in (mean, variance))


def unit(file: InspectedFile) -> str:
    """Name the unit of a file's pixels."""
    return "units of the file" if file.units[0] == "float" else "grey levels"


def remarks(file: InspectedFile, is_in_table: bool = False) -> list[str]:
    """Say what else there is to know of a file, a line each.

    Args:
        file: The file.
        is_in_table: Whether its clipped, hot and dead pixels are told in a table.
    """
    lines = []
    height, width = file.shape[-3:-1] if len(file.shape) > 2 else file.shape
    top, bottom, left, right = file.window
    if file.images < file.count:
        lines.append(f"looked at {file.images} of {file.count} images")
    if (bottom - top, right - left) != (height, width):
        lines.append(f"looked at the middle, {right - left}×{bottom - top} of {width}×{height} pixels")
    if file.ignored:
        lines.append(f"{100 * file.ignored:.3g} % of its pixels hold no measurement")
    if all(channel.levels.distinct == 1 for channel in file.channels):
        lines.append("all of its pixels are equal")
    lines += [] if is_in_table else _clipping(file.channels)
    lines += [] if is_in_table and not _lasting(file.channels) else _defects(file.channels)
    lines += [] if file.pattern is None else _pattern(file.pattern, "its images")
    lines += _levels(file)
    return [*lines, *file.notes]


def _block(file: InspectedFile) -> str:
    """Say of one file all that was measured."""
    rows = [("noise", of_file(file))]
    several = len(file.channels) > 1
    for number, channel in enumerate(file.channels):
        name = channel_name(file, number) if several else ""
        if several:
            rows.append((name, _channel(channel, not file.is_rgb)))
        elif file.verdict == verdicts.SIGNAL_DEPENDENT:
            rows.append(("on average", f"sigma {_number(channel.sigma)}"))
        if not several and channel.correlation is not None:
            rows.append(("neighbours", _correlation(channel)))
        if not several:
            rows.append(("levels", _levels_in_words(channel)))
    rows += [("", line) for line in remarks(file)]
    width = max(len(name) for name, _ in rows)
    return "\n".join([f"{file.source}", *(f"  {name:<{width}}  {text}" for name, text in rows)])


def _channel(channel: Channel, has_own: bool) -> str:
    """Say of one channel of several what was measured, with its verdict if it `has_own`."""
    parts = [f"sigma {_number(channel.sigma)}"]
    if has_own:
        parts.insert(0, channel.verdict)
    if channel.correlation is not None:
        parts.append(f"neighbours {channel.lag(0, 1):.2f}, {channel.lag(1, 0):.2f}")
    return "; ".join([*parts, _levels_in_words(channel)])


def _correlation(channel: Channel) -> str:
    return f"correlation {channel.lag(0, 1):.2f} along rows, {channel.lag(1, 0):.2f} along columns"


def _levels_in_words(channel: Channel) -> str:
    levels, ends = channel.levels, channel.clipping
    text = f"{levels.distinct} from {ends.least:.6g} to {ends.greatest:.6g}"
    if levels.step is not None and levels.sigma_in_steps is not None:
        text += f", {levels.step:.4g} apart; sigma is {levels.sigma_in_steps:.2g} of these steps"
    return text if levels.effective_bits is None else f"{text}; {max(levels.effective_bits, 0):.1f} effective bits"


def _table(files: Sequence[InspectedFile]) -> str:
    """Say what was found of several files in a table, and below it what else there is to know."""
    names = _short_names(files)
    cells = []
    for name, file in zip(names, files, strict=True):
        rows = [None] if file.is_rgb or len(file.channels) == 1 else range(len(file.channels))
        for number in rows:
            channels = file.channels if number is None else (file.channels[number],)
            label = name if number is None else f"{name}, {channel_name(file, number)}"
            cells.append([label, channels[0].verdict, *_numbers(file, channels, number or 0)])
    header = ["file", "noise", "sigma", "gain", "pedestal", "neighbours", "clipped", "hot, dead", "bits"]
    align = ["left", "left", *["right"] * 7]
    lines = [tabulate(cells, header, colalign=align, disable_numparse=True)]
    said: dict[str, list[str]] = {}
    for name, file in zip(names, files, strict=True):
        for line in remarks(file, is_in_table=True):
            said.setdefault(line, []).append(name)
    for line, its_files in said.items():
        who = its_files[0] if len(its_files) == 1 else f"{its_files[0]} and {len(its_files) - 1} more"
        lines.append(f"{who}: {line}")
    return "\n".join(lines)


def _numbers(file: InspectedFile, channels: Sequence[Channel], place: int) -> list[str]:
    sigma = float(np.sqrt(np.mean([channel.sigma.value**2 for channel in channels])))
    gain = pedestal = NONE_FOUND
    if channels[0].verdict == verdicts.SIGNAL_DEPENDENT and file.theta[place, 0] > 0:
        gain, pedestal = (f"{file.theta[place, column]:.3g}" for column in (0, 2))
    known = [channel for channel in channels if channel.correlation is not None]
    neighbours = NONE_FOUND
    if known and channels[0].verdict != verdicts.NONE:
        neighbours = f"{np.mean([(one.lag(0, 1) or 0) / 2 + (one.lag(1, 0) or 0) / 2 for one in known]):.2f}"
    ends = [channel.clipping for channel in channels]
    lost = max(one.is_clipped_low * one.at_least + one.is_saturated * one.at_greatest for one in ends)
    hot, dead = (sum(getattr(channel.outliers, kind) for channel in channels) for kind in ("hot", "dead"))
    bits = [channel.levels.effective_bits for channel in channels if channel.levels.effective_bits is not None]
    return [
        f"{sigma:.3g}",
        gain,
        pedestal,
        neighbours,
        f"{100 * lost:.2g} %" if lost else NONE_FOUND,
        f"{hot:.3g}, {dead:.3g}" if hot or dead else NONE_FOUND,
        f"{max(float(np.mean(bits)), 0):.1f}" if bits else NONE_FOUND,
    ]


def of_collection(collection: Collection) -> str:
    """Say what noise several images have together."""
    neighbours = None
    if collection.correlation is not None:
        middle = len(collection.correlation) // 2
        neighbours = float(collection.correlation[middle, middle + 1] + collection.correlation[middle + 1, middle]) / 2
    line = [collection.gain, collection.at_black, collection.pedestal]
    return sentence(collection.verdict, collection.sigma, line, neighbours)


def of_all(found: Inspection) -> str:
    """Say what noise all files have together; the first line says it in short."""
    collection = found.collection
    assert collection is not None
    lines = [f"All {len(found.readable)} files: {of_collection(collection)}"]
    if len(collection.verdicts) > 1:
        counts = sorted(collection.verdicts.items(), key=lambda one: -one[1])
        lines.append(f"  by themselves: {', '.join(f'{count} {verdict}' for verdict, count in counts)}")
    if not collection.have_one_unit:
        lines.append("  their bit depths differ, so there are no numbers of all of them")
    lines += [f"  {line}" for line in ([] if collection.pattern is None else _pattern(collection.pattern, "the files"))]
    return "\n".join([*lines, *(f"  {note}" for note in found.notes)])


def _commands(found: Inspection) -> str:
    rows = [(name, text) for name, text in found.commands.items() if text]
    return "\n".join(f"{name + ':':<9}{text}" for name, text in rows)


def _clipping(channels: Sequence[Channel]) -> list[str]:
    lines = []
    for share, limit, is_it, words in (
        ("at_least", "least", "is_clipped_low", "lie at its least value, {:.6g}: their noise is cut off"),
        ("at_greatest", "greatest", "is_saturated", "lie at its greatest value, {:.6g}: they are saturated"),
    ):
        ends = [channel.clipping for channel in channels if getattr(channel.clipping, is_it)]
        if ends:
            worst = max(ends, key=lambda one: getattr(one, share))
            lines.append(f"{100 * getattr(worst, share):.2g} % of its pixels {words.format(getattr(worst, limit))}")
    return lines


def _defects(channels: Sequence[Channel]) -> list[str]:
    hot, dead = (sum(getattr(channel.outliers, kind) for channel in channels) for kind in ("hot", "dead"))
    lasting = _lasting(channels)
    if hot + dead < MIN_DEFECTS and not lasting:
        return []
    share = 100 * float(np.mean([channel.outliers.share for channel in channels]))
    text = f"{hot:.3g} hot and {dead:.3g} dead pixels in an image ({share:.2g} %)"
    return [f"{text}; {lasting} place{'s have' if lasting > 1 else ' has'} one in most images" if lasting else text]


def _lasting(channels: Sequence[Channel]) -> int:
    """Count places that are hot or dead in most images."""
    return sum(len(channel.outliers.places) for channel in channels)


def _pattern(pattern: Pattern, whose: str) -> list[str]:
    if not pattern.is_found:
        return []
    kinds_of_it = (
        ("pixel to pixel", pattern.sigma),
        ("row to row", pattern.rows),
        ("column to column", pattern.columns),
    )
    parts = [f"sigma {value:.3g} from {name}" for name, value in kinds_of_it if value]
    if pattern.images == 1:
        return [f"a pattern of lines: {', '.join(parts)}"]
    scene = ", or a scene that stays" if pattern.sigma else ""
    return [f"a pattern that {whose} share{scene}: {', '.join(parts)}"]


def _levels(file: InspectedFile) -> list[str]:
    lines = []
    steps = [channel.levels.step for channel in file.channels if channel.levels.step is not None]
    if file.units[0] == "integer" and steps and min(steps) > 1 and file.channels[0].levels.distinct > 2:
        lines.append(f"its levels are {min(steps):.0f} apart: those between do not occur")
    used = [channel.levels.share_used for channel in file.channels if channel.levels.share_used is not None]
    if used and min(used) < MIN_USED:
        lines.append(f"only {100 * min(used):.0f} % of the levels within its range occur, as after stretching contrast")
    few = [one.levels.sigma_in_steps for one in file.channels if one.levels.sigma_in_steps is not None]
    if few and min(few) < FEW_STEPS and any(channel.levels.distinct > 1 for channel in file.channels):
        lines.append(f"sigma is only {min(few):.2g} steps between levels: rounding hides the noise")
    return lines


def _sigma(file: InspectedFile) -> Estimate | None:
    """Return σ of all channels together."""
    if len(file.channels) == 1:
        return file.channels[0].sigma
    errors = [channel.sigma.error for channel in file.channels if channel.sigma.error is not None]
    value = float(np.sqrt(np.mean([channel.sigma.value**2 for channel in file.channels])))
    return Estimate(value, float(np.mean(errors)) if errors else None)


def _neighbours(file: InspectedFile) -> float | None:
    found = [
        (channel.lag(0, 1) or 0.0) / 2 + (channel.lag(1, 0) or 0.0) / 2
        for channel in file.channels
        if channel.correlation is not None
    ]
    return float(np.mean(found)) if found else None


def _short_names(files: Sequence[InspectedFile]) -> list[str]:
    """Name files below the folder that all are in."""
    paths = [os.path.abspath(file.source) for file in files]
    base = os.path.dirname(paths[0]) if len(paths) == 1 else os.path.commonpath(paths)
    return [os.path.relpath(path, base) for path in paths]


def channel_name(file: InspectedFile, number: int) -> str:
    """Name a channel: by its colour, or by its number from 0."""
    return ("red", "green", "blue")[number] if file.is_rgb else f"channel {number}"


def _number(estimate: Estimate) -> str:
    """Write a number, with its standard error to two digits if that says anything."""
    if not estimate.error or estimate.value == 0:
        return f"{estimate.value:.3g}"
    error = f"{estimate.error:.0f}" if estimate.error >= 9.5 else f"{estimate.error:.1g}"
    return f"{estimate.value:.{max(3, len(str(int(abs(estimate.value)))))}g} ± {error}"
