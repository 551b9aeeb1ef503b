"""The figure beside the table: the same part of an image as every method leaves it (Laine et al. 2019, Figure 2).

Its numbers are those of the table: an image, its noise, its rounding and its PSNR are the same as in `records`.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from bsdenoise import images
from bsdenoise.evaluation import strip, window
from bsdenoise.evaluation.cases import GREY, RGB, Item
from bsdenoise.evaluation.contestants import Contestant, Estimate
from bsdenoise.evaluation.metrics import psnr, rounded
from bsdenoise.evaluation.panels import CLEAN, LABELS, NOISY, Panel, Row, Subject
from bsdenoise.evaluation.records import Protocol, read_case, told_noise
from bsdenoise.evaluation.window import Window

WHITE_LEVEL = 255


def items_of(sources: Sequence[str], draw: int, say: Callable[[str], object] | None = None) -> list[Item]:
    """List the images that files, folders and globs name, in the order given, each called by its folder and its name.

    Args:
        sources: Files, folders or globs; each image of a stack counts.
        draw: Number of the noise draw, from 0.
        say: As for `images.find`.

    Raises:
        ValueError: If a source holds no image, an image is named twice, or the number is negative.
    """
    if draw < 0:
        raise ValueError(f"--draw counts from 0. Received: {draw}.")
    items = []
    for path in [path for source in sources for path in images.find(source, say)]:
        count = images.count(path)
        for index in range(count):
            name = path.name + (f"[{index}]" if count > 1 else "")
            items.append(Item(path.absolute().parent.name, name, path, index, draw=draw))
    paths = [(item.path.resolve(), item.index) for item in items]
    twice = next((path for path, index in paths if paths.count((path, index)) > 1), None)
    if twice:
        raise ValueError(f"{twice}: is named twice.")
    return items


def in_paper_order(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Sort contestants as the paper's figure does; those of one method stay in their order."""
    order = list(LABELS)
    return sorted(contestants, key=lambda one: order.index(one.method) if one.method in order else len(order))


def check_channels(contestants: Sequence[Contestant]) -> int:
    """Return the number of channels that all contestants take.

    Raises:
        ValueError: If they differ, or cannot be shown. The luminance of an image has another noise and another PSNR
            than its colours: side by side they would be taken for one comparison.
    """
    trained = [one for one in contestants if one.path is not None] or contestants
    counts = {one.channels for one in trained}
    if len(counts) > 1:
        listed = ", ".join(f"{one.name} ({one.channels})" for one in trained)
        raise ValueError(
            "One figure compares models for the same number of channels, grey or colour: the PSNR of luminance is not "
            f"that of colours. Received: {listed}. Make two figures."
        )
    (channels,) = counts
    if channels not in (GREY, RGB):
        raise ValueError(f"Only grey (1 channel) and RGB images (3) can be shown. Received: {channels} channels.")
    return channels


def read(items: Sequence[Item], windows: Sequence[Window], channels: int, protocol: Protocol) -> list[Subject]:
    """Read all images and add their noise, so that what cannot be shown is found before anything is denoised.

    Args:
        items: The images.
        windows: The part to show, one for all or one for each; none takes the most textured square of each.
        channels: Number of channels of the contestants.
        protocol: The conditions.

    Raises:
        ValueError: If an image is broken or has other channels, or the windows do not fit; the message names the file.
        OSError: If one cannot be opened.
    """
    if len(windows) not in (0, 1, len(items)):
        raise ValueError(f"--crop takes one crop, or one for each of {len(items)} images. Received: {len(windows)}.")
    subjects = []
    for index, item in enumerate(items):
        with _naming(item):
            case = read_case(item, channels, protocol)
            part = windows[index % len(windows)] if windows else window.most_textured(case.clean)
            part.of(case.clean)
            subjects.append(Subject(item, case, part))
    return subjects


def measure(
    contestants: Sequence[Contestant],
    subjects: Sequence[Subject],
    protocol: Protocol,
    stretch: bool = False,
    done: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Denoise every image with every contestant.

    Args:
        contestants: From left to right.
        subjects: The images, as `read` gives them.
        protocol: The conditions.
        stretch: Whether the clean part's least and greatest values are shown black and white. Floats always are.
        done: Called after each image and contestant.

    Raises:
        ValueError: If an image is not in a contestant's units, or it must be told a σ and is not.
    """
    for contestant in contestants:
        for subject in subjects:
            with _naming(subject.item):
                contestant.check(subject.case)
    estimates: list[list[Estimate]] = []
    for contestant in contestants:
        estimates.append([])
        for estimate in _estimates(contestant, subjects, protocol):
            estimates[-1].append(estimate)
            done()
    by_subject = zip(subjects, zip(*estimates, strict=True), strict=True)
    return [_row(subject, contestants, of_subject, stretch) for subject, of_subject in by_subject]


def draw(rows: Sequence[Row], zoom: int = 1, columns: int | None = None) -> Image.Image:
    """Draw the figure: a row for each image, named where there are several; below each picture label and PSNR.

    Args:
        rows: As `measure` gives them.
        zoom: As for `strip.draw`.
        columns: As for `strip.draw`.
    """
    return strip.draw(
        [
            strip.Row(
                row.subject.item.name if len(rows) > 1 else "",
                [strip.Picture(panel.pixels, panel.caption) for panel in row.panels],
            )
            for row in rows
        ],
        zoom,
        columns,
    )


def _estimates(contestant: Contestant, subjects: Sequence[Subject], protocol: Protocol) -> Iterator[Estimate]:
    """Denoise images, as many at the same time as the contestant can, in their order."""

    def estimate(subject: Subject) -> Estimate:
        case = subject.case
        with _naming(subject.item):
            return contestant.estimate(case.noisy, told_noise(case, protocol), protocol.tile, subject.item.label)

    if contestant.workers == 1:
        yield from map(estimate, subjects)
        return
    with ThreadPoolExecutor(contestant.workers) as pool:
        try:
            yield from pool.map(estimate, subjects)
        except BaseException:  # Ctrl-C, or one of them failed: do not wait for the others
            pool.shutdown(wait=False, cancel_futures=True)
            contestant.stop()
            raise


def _row(subject: Subject, contestants: Sequence[Contestant], estimates: Sequence[Estimate], stretch: bool) -> Row:
    """Put the noisy image before what the contestants made of it, and the clean one behind."""
    case, shown = subject.case, _shown(subject, stretch)
    methods = [contestant.method for contestant in contestants]
    panels = [_panel(subject, shown, NOISY, case.noisy, is_rounded=False)]
    for contestant, estimate in zip(contestants, estimates, strict=True):
        panel = _panel(subject, shown, LABELS.get(contestant.method, contestant.method), estimate.denoised)
        is_alone = methods.count(contestant.method) == 1
        panels.append(
            dataclasses.replace(
                panel,
                name=contestant.name,
                method=contestant.method,
                is_alone=is_alone,
                sigma_used=estimate.sigma,
            )
        )
    panels.append(dataclasses.replace(_panel(subject, shown, CLEAN, case.clean), psnr=None, psnr_crop=None))
    notes = [f"{subject.item.path}: {note}" for note in case.notes]
    notes += [note for estimate in estimates for note in estimate.notes]
    return Row(subject, shown, tuple(panels), tuple(notes))


def _panel(
    subject: Subject, shown: tuple[float, float], label: str, image: np.ndarray, is_rounded: bool = True
) -> Panel:
    """Compare an image with the clean one, all of it and the part that is shown."""
    case = subject.case
    final, clean = (rounded(part, case.levels) if is_rounded else part for part in (image, case.clean))
    black, white = shown
    part = (subject.window.of(image).astype(np.float64) - black) / (white - black)
    return Panel(
        label,
        psnr(final, clean, case.peak),
        psnr(subject.window.of(final), subject.window.of(clean), case.peak),
        (rounded(part, WHITE_LEVEL) * WHITE_LEVEL).round().astype(np.uint8),
    )


def _shown(subject: Subject, stretch: bool) -> tuple[float, float]:
    """Return the intensities that are shown black and white."""
    if subject.case.levels is not None and not stretch:
        return 0.0, 1.0
    part = subject.window.of(subject.case.clean)
    black, white = float(part.min()), float(part.max())
    return black, white if white > black else black + 1.0


@contextlib.contextmanager
def _naming(item: Item) -> Iterator[None]:
    """Put the file's name before errors that do not have it."""
    try:
        yield
    except ValueError as error:
        if str(item.path) in str(error):
            raise
        raise ValueError(f"{item.path}: {error}") from error
