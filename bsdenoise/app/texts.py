"""What the page says: facts, results and errors, as HTML with everything escaped that came from a file."""

import math
import os
import sys
import textwrap
import traceback
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from bsdenoise.app import orientation, units, views
from bsdenoise.app.facts import Denoised, Facts
from bsdenoise.app.steps import DENOISING, LEARNING, READING, WAITING, WRITING, Step
from bsdenoise.likelihood.posterior import WITHHELD

# What the methods are, for somebody who has a model of one; of others the name must do.
METHODS = {
    "full": "trained on noisy images only; a Gaussian for each pixel's colour, joined with the noisy pixel",
    "per_component": "trained on noisy images only; a Gaussian for each channel by itself, joined with the noisy pixel",
    "l2": "trained on noisy images only; each pixel is predicted from its surroundings, and itself ignored",
    "n2n": "Noise2Noise, trained on pairs of noisy images of the same scene",
    "n2c": "supervised, trained on noisy images and their clean counterparts",
    "n2v": "Noise2Void, trained on noisy images only, some of whose pixels were masked",
}
ONLY_DENOISES = "It only denoises: it uses no σ, and tells neither the uncertainty nor an estimated PSNR."
MAX_SENTENCE = 400  # characters; native libraries add pages of advice to their errors
CHANNEL_NAMES = {1: "grey", 3: "RGB"}
FALSE_COLOURS = {2: ("magenta", "green"), 3: ("red", "green", "blue")}  # the names of `views.FALSE_COLOURS`
UNCERTAINTY_EXPLAINED = (
    "Standard deviation of what is still unknown, over σ of the noise. Dark: well known from the surroundings. "
    "White, 1: nothing was gained over the noisy pixel."
)
ABOUT_LEARNING = (
    "The model goes on training on the noisy image itself. Most where a pattern repeats itself; it takes much longer."
)
PSNR_OF_ROUNDED = "an approximation, because 8-bit files round and clip their noise"
ORIGINS = {"given": "as given", "known": "the model's own", "estimated": "estimated from the image"}
NO_PSNR = "withheld, because σ was estimated: texture mistaken for noise would make it too high"
STEPS = {
    WAITING: "Waiting for another image",
    READING: "Reading the pixels",
    LEARNING: "Learning from the image",
    WRITING: "Writing the file",
}
RESCALED = "intensities are rescaled for it, so that σ is used as it is"
ROUNDING = 1e-4  # by which σ may differ from an end of that range, relatively
MAX_LISTED = 8  # values that are listed one by one
MINUTE = 60


def sentence(error: Exception, path: Path | None = None) -> str:
    """Say in one sentence what went wrong; of a file only its name, not where it lies on this machine.

    The page's owner sees a bug, an error that was not written for users, on stderr as well.
    """
    if os.environ.get("BSDENOISE_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, FileNotFoundError):
        return "The file is no longer here, files are kept for an hour: please drop it again."
    message = " ".join(str(error).split())
    if path is not None:
        message = message.replace(str(path), path.name)
    is_ours = isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("bsdenoise.")
    if not is_ours or not message:
        message = ": ".join(filter(None, (type(error).__name__, message)))
        print(f"bsdenoise: error: {message} (BSDENOISE_DEBUG=1 shows where)", file=sys.stderr)
    return textwrap.shorten(message, MAX_SENTENCE, placeholder=" …")


def paragraph(text: str) -> str:
    """Make plain text a paragraph."""
    return f"<p>{escape(text)}</p>"


def alert(message: str) -> str:
    """Draw an error, so that screen readers say it at once; nothing without one."""
    return f'<div class="bsd-alert" role="alert">{escape(message)}</div>' if message else ""


def about_method(name: str, has_posterior: bool) -> str:
    """Say what kind of model denoises, and what it cannot tell."""
    sentence = f"Method: {name}, {METHODS[name]}." if name in METHODS else f"Method: {name}."
    return sentence if has_posterior else f"{sentence} {ONLY_DENOISES}"


def about_sigma(facts: Facts | None, has_posterior: bool = True) -> str:
    """Explain what may be typed as σ."""
    if not has_posterior:
        return "This model does not use it."
    if facts is None:
        return "In the units of the file, such as 25, or as a fraction of full scale, 25/255. Empty: the model's own."
    declared = units.declared(facts)
    if facts.own_sigma is None:
        return f"{declared} Empty: estimated from the image."
    return f"{declared} Empty: the model's own, {units.in_units(facts.own_sigma, facts)}."


def describe(facts: Facts) -> str:
    """List what a file's headers say."""
    return _table({"File": _file(facts), **_notes(facts), **_channels(facts), **_trained(facts)})


def describe_result(facts: Facts, result: Denoised, seconds: float, index: int) -> str:
    """List what is known of a denoised file and of the image shown."""
    rows = {"File": _file(facts), **_notes(facts), **_channels(facts)}
    if facts.count > 1:
        rows["Shown"] = f"image {index + 1} of {facts.count}"
    if result.ignored_share:
        rows["No data"] = f"{100 * result.ignored_share:.3g} % of the pixels, which are left as they are"
    if result.origin is not None:
        rows["σ used"] = _sigma(result, facts)
        rows |= _trained(facts, result.sigmas)
        rows["Estimated PSNR"] = _psnr(result, facts)
    if result.noise is not None:
        rows["Noise used"] = result.noise
        rows["Estimated PSNR"] = _psnr(result, facts)
    if result.learnt is not None:
        rows["Learnt from the image"] = result.learnt
    if result.ratio is not None:
        rows["Uncertainty"] = _uncertainty(result.ratio, result.sigmas)
    rows["Display"] = _display(facts, result)
    rows["Time"] = f"{seconds:.1f} s"
    return _table(rows)


def progress(step: Step) -> str:
    """Say what is being done, and how long it will still take."""
    if step.doing != DENOISING:
        return STEPS[step.doing]
    what = f"Denoising image {step.image} of {step.count}" if step.count > 1 else "Denoising"
    return what if step.seconds_left is None else f"{what}: about {_duration(step.seconds_left)} left"


def legend() -> str:
    """Draw the scale of the uncertainty map, with what its ends mean."""
    stops = ", ".join(f"rgb{tuple(colour)}" for colour in views.COLOURS)
    ticks = "".join(f"<span>{tick:g}</span>" for tick in (0, 0.25, 0.5, 0.75, 1))
    return (
        f'<div class="bsd-legend"><div class="bsd-scale" style="background: linear-gradient(to right, {stops})"></div>'
        f'<div class="bsd-ticks">{ticks}</div><p>{UNCERTAINTY_EXPLAINED}</p></div>'
    )


def _file(facts: Facts) -> str:
    height, width, channels = facts.size
    count = f"{facts.count} images of " if facts.count > 1 else ""
    bits = f"{facts.bits or 8 * facts.dtype.itemsize}"
    depth = f"{bits}-bit floats" if facts.dtype.kind == "f" else f"{bits} bits"
    kind = CHANNEL_NAMES[channels] if facts.is_picture else f"{channels} channels"
    return f"{facts.name} ({facts.format}): {count}{width} × {height} pixels, {kind}, {depth}"


def _notes(facts: Facts) -> dict[str, str]:
    return {"Note": "; ".join(facts.notes)} if facts.notes else {}


def _channels(facts: Facts) -> dict[str, str]:
    """Say how channels are denoised, where that is not plain."""
    if facts.one_by_one:
        return {"Channels": "each denoised by itself"}
    return {} if facts.is_picture else {"Channels": "all denoised together, as the model was trained"}


def _trained(facts: Facts, sigmas: tuple[float, ...] = ()) -> dict[str, str]:
    if facts.trained is None:
        return {}
    low, high = facts.trained
    is_outside = any(0 < sigma < low * (1 - ROUNDING) or sigma > high * (1 + ROUNDING) for sigma in sigmas)
    return {"Model trained for σ": units.span(facts.trained, facts) + (f"; {RESCALED}" if is_outside else "")}


def _sigma(result: Denoised, facts: Facts) -> str:
    """Say which σ was used: as it was declared, and in the units of the file."""
    found = units.span(result.sigmas, facts)
    if result.given is not None and "/" in result.given:
        found = f"{result.given.strip()} of full scale ({found})"
    origin = ORIGINS[str(result.origin)]
    if len(result.sigmas) > 1 and result.origin == "estimated":
        each = ", ".join(units.number(value, facts) for value in result.sigmas)
        return f"{each} {units.unit(facts)}, {origin} for each channel" if len(result.sigmas) <= MAX_LISTED else found
    return f"{found}, {origin}"


def _psnr(result: Denoised, facts: Facts) -> str:
    if result.estimated_psnr is None:
        return NO_PSNR
    if not math.isfinite(result.estimated_psnr):
        return f"withheld, because {WITHHELD}"
    peak = facts.full_scale if facts.peak is None else facts.peak
    error = peak * 10 ** (-result.estimated_psnr / 20)
    told = f"{result.estimated_psnr:.1f} dB for a peak of {peak:.6g}: an RMS error of {units.in_units(error, facts)}"
    return told + (f"; {PSNR_OF_ROUNDED}" if facts.dtype == np.uint8 else "")


def _uncertainty(ratio: np.ndarray, sigmas: Sequence[float]) -> str:
    if np.isnan(ratio).all():
        return "none, because nothing was measured"
    if max(sigmas, default=1) == 0:
        return "none, because no noise was found"
    return f"{float(np.nanmedian(ratio)):.2f} {'σ' if sigmas else 'times the noise'} at the median pixel"


def _display(facts: Facts, result: Denoised) -> str:
    height, width, channels = facts.size
    factor = views.scale_on_screen(height, width)
    parts = ["full size" if factor == 1 else f"shrunk to {100 * factor:.0f} % (the download is not)"]
    if facts.orientation in orientation.WORDS:
        turned = orientation.WORDS[facts.orientation]
        parts.append(f"{turned}, as the file's orientation tag says (the download keeps its pixels and its tag)")
    windows = views.windows(result.denoised, facts.is_picture, facts.no_data)
    if not facts.is_picture:
        return ", ".join([*parts, _false_colours(windows, facts)])
    if facts.dtype != np.uint8:
        parts.append(f"black is {_window(windows[0], facts, ', white is ')}")
    return ", ".join(parts)


def _false_colours(windows: views.Windows, facts: Facts) -> str:
    """Say how channels that are no colours are drawn."""
    if len(windows) not in FALSE_COLOURS:
        return "the mean of the channels, each from its own black to its own white"
    drawn = (
        f"channel {number} in {colour} ({_window(window, facts, ' to ')})"
        for number, (colour, window) in enumerate(zip(FALSE_COLOURS[len(windows)], windows, strict=True), start=1)
    )
    return f"false colours: {', '.join(drawn)}"


def _window(window: tuple[float, float], facts: Facts, between: str) -> str:
    """Write the intensities of black and white."""
    return between.join(f"{value:.4g}" if facts.dtype.kind == "f" else f"{value:.0f}" for value in window)


def _duration(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / MINUTE)} min"


def _table(rows: dict[str, str]) -> str:
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items())
    return f'<dl class="bsd-facts">{cells}</dl>'
