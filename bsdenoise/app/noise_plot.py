"""The noise of an image as the page shows it: a sentence, and its variance over brightness as a drawing (SVG)."""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

import numpy as np

from bsdenoise.inspection import words
from bsdenoise.inspection.records import Curve, InspectedFile

WIDTH, HEIGHT = 420, 250  # units of the drawing, which is as wide as its column
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 26, 46  # margins, for the names of axes and their ticks
MOST_TICKS = 5
LINE_POINTS = 60
HEADROOM = 1.05  # of the variances over what is drawn
# Of red, green and blue, as light as dark and bright pages need; others are drawn like the text.
COLOURS = ("#dc2626", "#16a34a", "#2563eb")
TEXT = "currentColor"

Scale = Callable[[float], float]


def looking() -> str:
    """Say that the noise is looked at."""
    return '<p class="bsd-noise">Looking at the noise …</p>'


def drawn(file: InspectedFile) -> str:
    """Say what noise a file has, and draw variance over mean with the fitted line.

    Args:
        file: What `inspect` found of it.

    Returns:
        HTML. A file without flat parts has no drawing.
    """
    told = words.of_file(file)
    verdict = f"<p>{escape(told[0].upper() + told[1:])}</p>"
    curves = {number: one.curve for number, one in enumerate(file.channels) if one.curve is not None}
    return f'<div class="bsd-noise">{verdict}{_drawing(file, curves) if curves else ""}</div>'


def _drawing(file: InspectedFile, curves: dict[int, Curve]) -> str:
    mean, variance = (np.concatenate([getattr(one, name) for one in curves.values()]) for name in ("mean", "variance"))
    is_log = words.spans_much(mean, variance)
    across, columns = _axis(float(mean.min()), float(mean.max()), LEFT, WIDTH - RIGHT, is_log)
    least = float(variance.min()) if is_log else 0.0
    lines = max(float(one.line(one.mean).max()) for one in curves.values())
    up, rows = _axis(least, HEADROOM * max(float(variance.max()), lines), HEIGHT - BOTTOM, TOP, is_log)
    parts = [*_frame(across, columns, up, rows, words.unit(file))]
    for number, curve in curves.items():
        colour = COLOURS[number] if file.is_rgb else TEXT
        parts += _curve(curve, across, up, colour, is_log)
    line = words.line_of(file)
    parts.append(_text(WIDTH / 2, TOP - 10, line, "middle"))
    label = escape(f"Variance of the noise over brightness. {line}".strip(), quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _curve(curve: Curve, across: Scale, up: Scale, colour: str, is_log: bool) -> Iterable[str]:
    """Draw the points of a noise curve, and the line through them."""
    ends = float(curve.mean.min()), float(curve.mean.max())
    where = np.geomspace(*ends, LINE_POINTS) if is_log else np.linspace(*ends, LINE_POINTS)
    height = np.maximum(curve.line(where), float(curve.variance.min()) if is_log else 0.0)
    points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in zip(where, height, strict=True))
    yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5" opacity="0.7"/>'
    for x, y in zip(curve.mean, curve.variance, strict=True):
        yield f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>'


def _frame(across: Scale, columns: Sequence[float], up: Scale, rows: Sequence[float], unit: str) -> Iterable[str]:
    """Draw the axes, their ticks and their names."""
    bottom = HEIGHT - BOTTOM
    yield f'<path d="M{LEFT},{TOP}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="{TEXT}" opacity="0.6"/>'
    for value in columns:
        yield f'<path d="M{across(value):.1f},{bottom}v4" stroke="{TEXT}" opacity="0.6"/>'
        yield _text(across(value), bottom + 16, f"{value:.4g}", "middle")
    for value in rows:
        yield f'<path d="M{LEFT},{up(value):.1f}H{WIDTH - RIGHT}" stroke="{TEXT}" opacity="0.15"/>'
        yield _text(LEFT - 6, up(value) + 4, f"{value:.4g}", "end")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, f"mean ({unit})", "middle")
    middle = (TOP + bottom) / 2
    yield _text(12, middle, f"variance ({unit} squared)", "middle", f' transform="rotate(-90 12 {middle:.1f})"')


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _axis(low: float, high: float, first: float, last: float, is_log: bool) -> tuple[Scale, list[float]]:
    """Return what places values between two ends of the drawing, and the values that have ticks."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    if is_log:
        start, span = math.log10(low), math.log10(high / low)
        decades = range(math.ceil(start), math.floor(math.log10(high)) + 1)
        factors = (1,) if len(decades) > 2 else (1, 2, 5)
        values = [factor * 10.0**decade for decade in range(decades.start - 1, decades.stop + 1) for factor in factors]
        return lambda value: first + (last - first) * (math.log10(max(value, 1e-300)) - start) / span, [
            value for value in values if low <= value <= high
        ]
    step = 10.0 ** math.floor(math.log10((high - low) / MOST_TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= MOST_TICKS)
    values = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return lambda value: first + (last - first) * (value - low) / (high - low), values
