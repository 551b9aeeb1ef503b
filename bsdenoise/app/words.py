"""What the page says: facts, results and errors, as HTML with everything escaped that came from a file."""

import os
import sys
import textwrap
import traceback
from html import escape
from pathlib import Path

import numpy as np

from bsdenoise.app import views
from bsdenoise.app.denoising import Denoised, Facts

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
UNCERTAINTY_EXPLAINED = (
    "Standard deviation of what is still unknown, over σ of the noise. Dark: well known from the surroundings. "
    "White, 1: nothing was gained over the noisy pixel."
)
PSNR_OF_ROUNDED = "an approximation for 8-bit files, whose noise is rounded and clipped"
ORIGINS = {"given": "as given", "known": "the model's own", "estimated": "estimated from the image"}
NO_PSNR = "none where σ was estimated: it would be too high"


def sentence(error: Exception, path: Path | None = None) -> str:
    """Says in one sentence what went wrong; of a file only its name, not where it lies on this machine.

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
    """Makes plain text a paragraph."""
    return f"<p>{escape(text)}</p>"


def alert(message: str) -> str:
    """Draws an error, so that screen readers say it at once; nothing without one."""
    return f'<div class="bsd-alert" role="alert">{escape(message)}</div>' if message else ""


def about_method(name: str, has_posterior: bool) -> str:
    """Says what kind of model denoises, and what it cannot tell."""
    sentence = f"Method: {name}, {METHODS[name]}." if name in METHODS else f"Method: {name}."
    return sentence if has_posterior else f"{sentence} {ONLY_DENOISES}"


def about_sigma(facts: Facts | None, has_posterior: bool = True) -> str:
    """Explains what may be typed as σ."""
    if not has_posterior:
        return "This model does not use it."
    units = "In the file's own units, such as 25, or a fraction of full scale, 25/255."
    if facts is None:
        return f"{units} Empty: the model's own."
    if facts.own_sigma is None:
        return f"{units} Empty: estimated from the image."
    return f"{units} Empty: the model's own, {in_units(facts.own_sigma, facts.dtype)}."


def describe(facts: Facts) -> str:
    """Lists what a file's headers say."""
    return _table({"File": _file(facts), **_notes(facts)})


def describe_result(facts: Facts, result: Denoised, seconds: float, index: int) -> str:
    """Lists what is known of a denoised file and of the image shown."""
    rows = {"File": _file(facts), **_notes(facts)}
    if facts.count > 1:
        rows["Shown"] = f"image {index + 1} of {facts.count}"
    if result.origin is not None:
        rows["σ used"] = f"{_sigmas(result, facts)}, {ORIGINS[result.origin]}"
        rows["Estimated PSNR"] = _psnr(result, facts)
    if result.ratio is not None:
        rows["Uncertainty"] = f"{float(np.median(result.ratio)):.2f} σ at the median pixel"
    rows["Display"] = _display(facts, result)
    rows["Time"] = f"{seconds:.1f} s"
    return _table(rows)


def legend() -> str:
    """Draws the scale of the uncertainty map, with what its ends mean."""
    stops = ", ".join(f"rgb{tuple(colour)}" for colour in views.COLOURS)
    ticks = "".join(f"<span>{tick:g}</span>" for tick in (0, 0.25, 0.5, 0.75, 1))
    return (
        f'<div class="bsd-legend"><div class="bsd-scale" style="background: linear-gradient(to right, {stops})"></div>'
        f'<div class="bsd-ticks">{ticks}</div><p>{UNCERTAINTY_EXPLAINED}</p></div>'
    )


def in_units(sigma: float, dtype: np.dtype) -> str:
    """Writes σ in the units of a file."""
    if dtype.kind == "f":
        return f"{sigma:.4g}"
    return f"{sigma:.1f} {'grey levels' if dtype == np.uint8 else 'counts'}"


def _file(facts: Facts) -> str:
    height, width, channels = facts.size
    count = f"{facts.count} images of " if facts.count > 1 else ""
    bits = f"{8 * facts.dtype.itemsize}-bit floats" if facts.dtype.kind == "f" else f"{8 * facts.dtype.itemsize} bits"
    kind = CHANNEL_NAMES.get(channels, f"{channels} channels")
    return f"{facts.name} ({facts.format}): {count}{width} × {height} pixels, {kind}, {bits}"


def _notes(facts: Facts) -> dict[str, str]:
    return {"Note": "; ".join(facts.notes)} if facts.notes else {}


def _sigmas(result: Denoised, facts: Facts) -> str:
    low, high = (in_units(value, facts.dtype) for value in (min(result.sigmas), max(result.sigmas)))
    return low if low == high else f"{low} to {high}"


def _psnr(result: Denoised, facts: Facts) -> str:
    if result.estimated_psnr is None:
        return NO_PSNR
    return f"{result.estimated_psnr:.1f} dB" + (f", {PSNR_OF_ROUNDED}" if facts.dtype == np.uint8 else "")


def _display(facts: Facts, result: Denoised) -> str:
    height, width, channels = facts.size
    factor = views.scale_on_screen(height, width)
    parts = ["full size" if factor == 1 else f"shrunk to {100 * factor:.0f} % (the download is not)"]
    if channels not in CHANNEL_NAMES:
        parts.append("the mean of its channels")
    if facts.dtype != np.uint8:
        low, high = views.window(result.denoised)
        parts.append(f"black is {low:.4g}, white {high:.4g}")
    return ", ".join(parts)


def _table(rows: dict[str, str]) -> str:
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items())
    return f'<dl class="bsd-facts">{cells}</dl>'
