"""What was found in one figure: image, noise curve, correlation of neighbours, histogram, and what images share."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from bsdenoise.inspection import words
from bsdenoise.inspection.records import Channel, Curve, InspectedFile, Inspection, Pattern

SIZE, DPI = (9.6, 6.6), 125  # inches, and pixels in an inch: 1200×825, the width of a notebook
SHOWN_LAG = 3  # pixels to each side whose correlation is written into the map
MOST_CURVES = 12  # of other files, drawn faintly
MOST_PLACES = 200  # defects that are marked
COLOURS = ("tab:red", "tab:green", "tab:blue")
GREY, ACCENT = "0.25", "tab:orange"


def save(found: Inspection, path: Path) -> None:
    """Draw the first file that could be read, with the curves of all; no display is needed.

    Args:
        found: What was found, with at least one file.
        path: The PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    files = found.readable
    file = files[0]
    pattern = _pattern(found)
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    columns = 3 if pattern is not None else 2
    parts: Any = figure.subfigures(2, 1)
    top, bottom = parts
    left, right = top.subplots(1, 2, width_ratios=(1.0, 1.7))
    _image(left, file)
    _curves(right, found)
    axes = bottom.subplots(1, columns, width_ratios=(1.0, 1.7) if columns == 2 else (1.0, 1.2, 1.0))
    _correlation(axes[0], found)
    _histogram(axes[1], file)
    if pattern is not None:
        _shared(axes[2], pattern, file)
    figure.suptitle("\n".join(textwrap.wrap(_title(found), 95)), fontsize=11, fontweight="bold")
    figure.savefig(path, format="png")


def _title(found: Inspection) -> str:
    files = found.readable
    if len(files) == 1:
        return f"{files[0].source.name}: {words.of_file(files[0])}"
    return words.of_all(found).splitlines()[0].strip()


def _pattern(found: Inspection) -> Pattern | None:
    """Return what the images of the file that is shown share, or else the files if they share anything."""
    own = found.readable[0].pattern
    if own is not None and own.images > 1:
        return own
    shared = None if found.collection is None else found.collection.pattern
    return shared if shared is not None and shared.is_found else None


def _image(axes: Any, file: InspectedFile) -> None:
    """Draw the thumbnail; independent channels as the first of them."""
    if file.picture is not None:
        picture = file.picture if file.is_rgb else file.picture[..., 0]
        top, bottom, left, right = file.window
        axes.imshow(picture, cmap="gray", extent=(left, right, bottom, top), interpolation="nearest", vmin=0, vmax=1)
    name = file.source.name if len(file.source.name) <= 40 else f"{file.source.name[:37]}…"
    axes.set_title(f"{name}\n(contrast stretched)", fontsize=9)
    axes.set_xlabel("column (pixels)", fontsize=8)
    axes.set_ylabel("row (pixels)", fontsize=8)
    axes.tick_params(labelsize=7)


def _curves(axes: Any, found: Inspection) -> None:
    """Draw variance over brightness with the fitted line."""
    file = found.readable[0]
    for other in found.readable[1 : 1 + MOST_CURVES]:
        if other.units == file.units:
            for channel in other.channels:
                if channel.curve is not None:
                    axes.plot(channel.curve.mean, channel.curve.variance, color="0.8", lw=0.8, zorder=1)
    curves: list[Curve] = []
    for number, channel in enumerate(file.channels):
        if channel.curve is None:
            continue
        curves.append(channel.curve)
        colour = COLOURS[number] if file.is_rgb else f"C{number % 10}"
        label = words.channel_name(file, number) if len(file.channels) > 1 else "flat parts"
        axes.plot(channel.curve.mean, channel.curve.variance, "o", ms=4, color=colour, label=label, zorder=3)
        where = np.linspace(channel.curve.mean.min(), channel.curve.mean.max(), 200)
        axes.plot(where, channel.curve.line(where), "-", lw=1.2, color=colour, alpha=0.8, zorder=2)
    if not curves:
        axes.text(0.5, 0.5, "no flat parts to measure", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    variance = np.concatenate([curve.variance for curve in curves])
    mean = np.concatenate([curve.mean for curve in curves])
    if words.spans_much(mean, variance):
        axes.set(xscale="log", yscale="log")
    else:
        axes.set_ylim(0, 1.15 * float(variance.max()) or 1.0)
    line = words.line_of(file)
    axes.set_title(f"Noise over brightness{': ' if line else ''}{line}", fontsize=9)
    axes.set_xlabel(f"mean ({words.unit(file)})", fontsize=8)
    axes.set_ylabel(f"variance ({words.unit(file)} squared)", fontsize=8)
    axes.tick_params(labelsize=7, which="both")
    axes.grid(alpha=0.3)
    if len(found.readable) > 1:
        axes.plot([], [], color="0.8", lw=0.8, label="other files")
    axes.legend(fontsize=7)


def _correlation(axes: Any, found: Inspection) -> None:
    """Draw the map of correlations with their values."""
    file = found.readable[0]
    maps = [channel.correlation for channel in file.channels if channel.correlation is not None]
    whole = found.collection.correlation if found.collection is not None and len(found.readable) > 1 else None
    axes.set_title("Correlation of the noise of neighbours" + (", all files" if whole is not None else ""), fontsize=9)
    if whole is None and not maps:
        axes.text(0.5, 0.5, "no noise in flat parts", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    found_map = np.mean(maps, axis=0) if whole is None else whole
    middle = len(found_map) // 2
    near = slice(middle - SHOWN_LAG, middle + SHOWN_LAG + 1)
    shown = found_map[near, near]
    reach = SHOWN_LAG + 0.5
    axes.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1, extent=(-reach, reach, reach, -reach))
    for (row, column), value in np.ndenumerate(shown):
        text = f"{value:.2f}".replace("-0.00", "0.00")
        colour = "white" if abs(value) > 0.6 else "black"
        axes.text(column - SHOWN_LAG, row - SHOWN_LAG, text, ha="center", va="center", fontsize=6, color=colour)
    axes.set_xlabel("columns away (pixels)", fontsize=8)
    axes.set_ylabel("rows away (pixels)", fontsize=8)
    axes.tick_params(labelsize=7)


def _histogram(axes: Any, file: InspectedFile) -> None:
    """Draw the histograms of the channels, with the values at which pixels are clipped."""
    for number, channel in enumerate(file.channels):
        counts, edges = channel.histogram
        colour = COLOURS[number] if file.is_rgb else (GREY if len(file.channels) == 1 else f"C{number % 10}")
        axes.stairs(counts / max(counts.sum(), 1), edges, color=colour, fill=len(file.channels) == 1, lw=0.8, alpha=0.8)
    axes.set_yscale("log")
    ends = [channel.clipping for channel in file.channels]
    low = [one for one in ends if one.is_clipped_low]
    high = [one for one in ends if one.is_saturated]
    if low:
        share = max(one.at_least for one in low)
        axes.axvline(low[0].least, color=ACCENT, lw=1.5, label=f"{100 * share:.2g} % clipped")
    if high:
        share = max(one.at_greatest for one in high)
        axes.axvline(high[0].greatest, color=ACCENT, lw=1.5, ls="--", label=f"{100 * share:.2g} % saturated")
    if low or high:
        axes.legend(fontsize=7)
    axes.set_title(f"Histogram{_levels(file.channels[0])}", fontsize=9)
    axes.set_xlabel(f"pixel value ({words.unit(file)})", fontsize=8)
    axes.set_ylabel("share of pixels", fontsize=8)
    axes.tick_params(labelsize=7, which="both")


def _levels(channel: Channel) -> str:
    levels = channel.levels
    if levels.step is None or levels.sigma_in_steps is None:
        return ""
    return f": {levels.distinct} levels, {levels.step:.3g} apart"


def _shared(axes: Any, pattern: Pattern, file: InspectedFile) -> None:
    """Draw what images share, and mark pixels that are hot or dead in most of them."""
    if pattern.picture is not None:
        limit = float(np.percentile(np.abs(pattern.picture), 99.5)) or 1.0
        height, width = pattern.picture.shape
        top, bottom, left, right = file.window
        top, left = top + (bottom - top - height) // 2, left + (right - left - width) // 2
        extent = (left, left + width, top + height, top)
        shown = axes.imshow(pattern.picture, cmap="gray", vmin=-limit, vmax=limit, extent=extent)
        bar = axes.figure.colorbar(shown, ax=axes, shrink=0.8)
        bar.ax.tick_params(labelsize=6)
        bar.set_label(words.unit(file), fontsize=7)
    places = np.concatenate([channel.outliers.places for channel in file.channels])[:MOST_PLACES]
    if len(places) and file.count > 1:
        axes.plot(places[:, 1], places[:, 0], "o", ms=5, mfc="none", mec=ACCENT, mew=0.8)
    what = f"pattern of sigma {pattern.sigma:.3g}" if pattern.sigma else "no pattern of pixels"
    number = f"{len(places)} hot or dead place{'s' * (len(places) != 1)}" if file.count > 1 else ""
    text = ", ".join(filter(None, [what, number]))
    axes.set_title(f"Shared by {pattern.images} images:\n{text}", fontsize=9)
    axes.set_xlabel("column (pixels)", fontsize=8)
    axes.tick_params(labelsize=7)
