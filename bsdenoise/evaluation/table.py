"""From records to tables: means over images and draws, how sure they are, and differences between models."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats
from tabulate import tabulate

from bsdenoise.evaluation.records import Record
from bsdenoise.likelihood.posterior import WITHHELD

AVERAGE = "average"
WITHHELD_CELL = "–"
CONFIDENCE = 0.95
# Averaged over draws and images, each only where it is defined: SSIM not for tiny images, others not for all methods.
MEASURES = ("psnr_noisy", "psnr", "psnr_unrounded", "psnr_mean", "ssim", "sure_psnr", "calibration")
COLUMNS = {
    "model": "model",
    "dataset": "set",
    "images": "images",
    "draws": "draws",
    "psnr_noisy": "noisy",
    "psnr": "PSNR",
    "psnr_ci_images": "± images",
    "psnr_ci_draws": "± draws",
    "psnr_unrounded": "unrounded",
    "sure_psnr": "SURE-PSNR",
    "ssim": "SSIM",
}
FORMATS = {"psnr_ci_draws": ".3f", "ssim": ".4f"}
DIFFERENCE_COLUMNS = {
    "model": "model",
    "than": "compared with",
    "dataset": "set",
    "images": "images",
    "psnr": "PSNR, difference",
    "psnr_ci_images": "± images",
}


@dataclass(frozen=True)
class Row:
    """One model on one set, or its unweighted average over the sets.

    PSNRs in dB. The mean is over images; an image's own value is its mean over the draws.

    Attributes:
        model: Name of the model.
        dataset: Name of the set, or "average".
        sets: Number of sets: 1, or of an average how many it is over.
        images: Number of images.
        draws: Number of noise draws of each image, the least if it differs.
        channels: Number of channels compared; `None` if it differs.
        sigma: Standard deviation of the noise that was added, as in `Record`; `None` for real pairs or if it differs.
        psnr_noisy: Mean PSNR of the noisy images.
        psnr: Mean PSNR of the rounded results.
        psnr_ci_images: Half width of the 95 % confidence interval of `psnr` for other images of the same kind
            (Student's t); `None` for one image.
        psnr_ci_draws: The same for other noise on the same images; `None` for one draw.
        psnr_unrounded: Mean PSNR without rounding.
        psnr_mean: Mean PSNR of the prediction from the surroundings alone; `None` for methods that have none.
        ssim: Mean structural similarity; `None` if no image is large enough.
        sure_psnr: Mean PSNR that the model itself expected; `None` where it estimated σ, for methods that cannot, and
            where it is withheld for any of the images: the mean over the others would be of other images.
        sure_withheld: Number of images and draws for which it is withheld.
        calibration: Mean of squared error over posterior variance; `None` for methods without a posterior.
        seconds_per_megapixel: Time of all over size of all.
    """

    model: str
    dataset: str
    sets: int
    images: int
    draws: int
    channels: int | None
    sigma: float | None
    psnr_noisy: float
    psnr: float
    psnr_ci_images: float | None
    psnr_ci_draws: float | None
    psnr_unrounded: float
    psnr_mean: float | None
    ssim: float | None
    sure_psnr: float | None
    sure_withheld: int
    calibration: float | None
    seconds_per_megapixel: float


@dataclass(frozen=True)
class Difference:
    """How much better a model is than another one on the same images and noise.

    Attributes:
        model: Name of the model.
        than: Name of the other one.
        dataset: Name of the set.
        images: Number of images that both were measured on.
        psnr: Mean difference of `psnr`, in dB.
        psnr_ci_images: Half width of its 95 % confidence interval over images (paired); `None` for one image.
    """

    model: str
    than: str
    dataset: str
    images: int
    psnr: float
    psnr_ci_images: float | None


def summarise(records: Iterable[Record]) -> list[Row]:
    """Make one row for each model and set, and for a model on several sets their average behind them."""
    groups: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        groups[record.model][record.dataset].append(record)
    rows = []
    for model, sets in groups.items():
        own = [_row(model, name, members) for name, members in sets.items()]
        rows += own + ([_average(own)] if len(own) > 1 else [])
    return rows


def differences(records: Sequence[Record]) -> list[Difference]:
    """Compare every model with the first one, set by set.

    Only what was measured on the same image, draw and number of channels is: the luminance of an image has another
    noise and another PSNR than its colours.
    """
    groups: dict[str, dict[str, dict[tuple, float]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        groups[record.model][record.dataset][record.image, record.draw, record.channels] = record.psnr
    (first, reference), *others = groups.items()
    result = []
    for model, sets in others:
        for name, psnrs in sets.items():
            shared = sorted(psnrs.keys() & reference[name].keys())
            by_image = defaultdict(list)
            for key in shared:
                by_image[key[0]].append(psnrs[key] - reference[name][key])
            if by_image:
                gains = [float(np.mean(values)) for values in by_image.values()]
                result.append(
                    Difference(model, first, name, len(gains), float(np.mean(gains)), confidence_half_width(gains))
                )
    return result


def confidence_half_width(values: Sequence[float]) -> float | None:
    """Return half the 95 % confidence interval of a mean (Student's t); `None` for less than two values."""
    if len(values) < 2:
        return None
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)
    return float(quantile * np.std(values, ddof=1) / math.sqrt(len(values)))


def as_text(rows: Sequence[Row] | Sequence[Difference], style: str = "simple") -> str:
    """Render rows for people.

    Args:
        rows: Rows of one kind.
        style: Of `tabulate`: "simple" for a terminal, "github" for Markdown.
    """
    columns = COLUMNS if isinstance(rows[0], Row) else DIFFERENCE_COLUMNS
    signed = columns is DIFFERENCE_COLUMNS
    cells = [[_cell(name, row, signed) for name in columns] for row in rows]
    texts = ("model", "than", "dataset")
    align = ["left" if name in texts else "right" for name in columns]
    return tabulate(cells, list(columns.values()), tablefmt=style, colalign=align, disable_numparse=True)


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Say in words what a table of rows leaves out."""
    withheld = [row for row in rows if row.sure_withheld and row.dataset != AVERAGE]
    where = ", ".join(f"{row.model} on {row.dataset} ({row.sure_withheld} measured)" for row in withheld)
    return [f"{WITHHELD_CELL} {COLUMNS['sure_psnr']} is withheld: {where}: {WITHHELD}"] if withheld else []


def as_csv(rows: Sequence[Row]) -> str:
    """Render rows for programs: all attributes, not rounded."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _row(model: str, dataset: str, records: list[Record]) -> Row:
    by_image: dict[str, list[Record]] = defaultdict(list)
    by_draw: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_image[record.image].append(record)
        by_draw[record.draw].append(record)
    of_images: dict[str, list[Any]] = {
        name: [_mean(members, name) for members in by_image.values()] for name in MEASURES
    }
    means: dict[str, Any] = {name: _mean_of(values) for name, values in of_images.items()}
    withheld = sum(record.sure_withheld for record in records)
    if withheld:
        means["sure_psnr"] = None
    # Draws can be compared only if each has all images.
    whole: list[Any] = [_mean(members, "psnr") for members in by_draw.values() if len(members) == len(by_image)]
    megapixels = sum(record.height * record.width for record in records) / 1e6
    return Row(
        model=model,
        dataset=dataset,
        sets=1,
        images=len(by_image),
        draws=min(len(members) for members in by_image.values()),
        channels=_common([record.channels for record in records]),
        sigma=_common([record.sigma for record in records]),
        psnr_ci_images=confidence_half_width(of_images["psnr"]),
        psnr_ci_draws=confidence_half_width(whole),
        seconds_per_megapixel=sum(record.seconds for record in records) / megapixels,
        sure_withheld=withheld,
        **means,
    )


def _average(rows: list[Row]) -> Row:
    """Average sets, each counted once; sets are independent, so half widths add as squares do."""

    def half_width(name: str) -> float | None:
        widths = [getattr(row, name) for row in rows]
        return None if None in widths else math.sqrt(sum(width**2 for width in widths)) / len(widths)

    means: dict[str, Any] = {
        name: _mean_of([getattr(row, name) for row in rows]) for name in (*MEASURES, "seconds_per_megapixel")
    }
    withheld = sum(row.sure_withheld for row in rows)
    if withheld:
        means["sure_psnr"] = None
    return Row(
        model=rows[0].model,
        dataset=AVERAGE,
        sets=len(rows),
        images=sum(row.images for row in rows),
        draws=min(row.draws for row in rows),
        channels=_common([row.channels for row in rows]),
        sigma=_common([row.sigma for row in rows]),
        psnr_ci_images=half_width("psnr_ci_images"),
        psnr_ci_draws=half_width("psnr_ci_draws"),
        sure_withheld=withheld,
        **means,
    )


def _common(values: Sequence[Any]) -> Any:
    """Return the value that all share; `None` if they do not."""
    return values[0] if len(set(values)) == 1 else None


def _mean(records: Sequence[Record], name: str) -> float | None:
    return _mean_of([getattr(record, name) for record in records])


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _cell(name: str, row: Any, signed: bool) -> str:
    if name == "sure_psnr" and row.sure_withheld:
        return WITHHELD_CELL
    value = getattr(row, name)
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    sign = "+" if signed and name == "psnr" else ""
    return format(value, sign + FORMATS.get(name, ".3f" if signed else ".2f"))
