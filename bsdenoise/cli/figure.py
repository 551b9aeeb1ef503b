"""`bsdenoise figure`: models and images in, a strip of pictures with PSNRs out."""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin
from tabulate import tabulate
from tqdm import tqdm

import bsdenoise
from bsdenoise import atomic, extras, loading
from bsdenoise.cli import libraries, models, terminal
from bsdenoise.config import FigureConfig
from bsdenoise.evaluation import strip, window
from bsdenoise.images import results
from bsdenoise.noise import registry
from bsdenoise.noise.spec import read_level

if TYPE_CHECKING:  # these load Keras, which is announced first
    from bsdenoise.evaluation.cases import Item
    from bsdenoise.evaluation.contestants import Contestant
    from bsdenoise.evaluation.panels import Row

PDF_DPI = 300  # what printers ask of pictures
SUFFIXES = (".png", ".pdf")


def run(config: FigureConfig) -> None:
    """Denoise, print the numbers and write the files.

    Raises:
        ValueError: If a package is missing, the flags contradict each other, or an image, a model or a crop does not
            fit.
        OSError: If a file cannot be read or written.
    """
    extras.check("bsdenoise figure")
    windows = [window.parse(text) for text in config.crop]
    _check(config)
    with terminal.status("loading the libraries"):
        libraries.load_keras()  # before whatever imports it
    from bsdenoise.evaluation import figure, records

    protocol = records.Protocol(config.noise, config.sigma, config.own_sigma, config.tile)
    items = figure.items_of(config.images, config.draw, _note)
    _check_outputs([path for path in (config.out, config.json) if path], items)
    contestants = _open(config, items)
    subjects = figure.read(items, windows, figure.check_channels(contestants), protocol)
    _make_folders([path for path in (config.out.parent, config.json and config.json.parent, config.save_crops) if path])
    with tqdm(total=len(contestants) * len(items), unit="image", file=sys.stderr, disable=None) as bar:
        rows = figure.measure(contestants, subjects, protocol, config.stretch, bar.update)
    for note in dict.fromkeys(note for row in rows for note in row.notes):
        _note(note)
    print(_as_text(rows))
    _write(config, contestants, rows)


def _note(line: str) -> None:
    print(f"bsdenoise: note: {line}", file=sys.stderr)


def _check(config: FigureConfig) -> None:
    """Look at the flags before anything is loaded."""
    if not config.images:
        raise ValueError(
            "Expected at least one image file, folder or glob. They stand before --methods and --crop, which take all "
            "that follows."
        )
    if config.out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{config.out}: --out names a file that ends in {' or '.join(SUFFIXES)}.")
    if config.sigma and config.own_sigma:
        raise ValueError("--sigma and --own-sigma exclude each other.")
    if config.methods and config.own_sigma:
        raise ValueError("BM3D must be told the noise level: leave --own-sigma or --methods away.")
    if config.bm3d_cache and not config.methods:
        raise ValueError("--bm3d-cache is for --methods bm3d.")
    if config.save_crops and config.save_crops.exists() and not config.save_crops.is_dir():
        raise ValueError(f"{config.save_crops}: is a file; --save-crops names a folder.")
    # Whether the noise is too strong, each file's type tells.
    registry.read(config.noise, 1.0)
    if config.sigma:
        read_level(config.sigma)
    for path in config.model:
        loading.find(path)


def _check_outputs(outputs: Sequence[Path], items: "Sequence[Item]") -> None:
    """Refuse outputs that are folders, that replace an image or each other, or that have no place to stand."""
    inputs = {os.path.realpath(path) for item in items for path in item.paths}
    if len({os.path.realpath(path) for path in outputs}) < len(outputs):
        raise ValueError(f"Two outputs have the same name. Received: {' '.join(map(str, outputs))}.")
    for path in outputs:
        if path.is_dir():
            raise ValueError(f"{path}: is a folder; a file of that name would be written.")
        if os.path.realpath(path) in inputs:
            raise ValueError(f"{path}: would replace one of the images that are shown.")
        place = next(parent for parent in path.absolute().parents if parent.exists())
        if not (place.is_dir() and os.access(place, os.W_OK)):
            raise ValueError(f"{path}: cannot be written, because {place} is no folder that can be written to.")


def _make_folders(folders: Sequence[Path]) -> None:
    """Make the folders of the outputs before the work, lest it be lost."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{folder}: cannot be made: {error.strerror}.") from error


def _open(config: FigureConfig, items: "Sequence[Item]") -> "list[Contestant]":
    """Load what is compared, from left to right."""
    from bsdenoise.evaluation import cases, contestants, figure

    contestants.check_names(config.model, config.methods)
    channels = cases.RGB if config.model else cases.usual_channels(items)
    found = contestants.open_contestants(
        config.model, config.methods, config.bm3d_cache, models.load_denoiser, channels
    )
    if config.as_given:
        return sorted(found, key=lambda one: one.path is not None)
    return figure.in_paper_order(found)


def _as_text(rows: "Sequence[Row]") -> str:
    """Render the PSNRs for people."""
    names = [" ".join(panel.caption[:-1]) for panel in rows[0].panels[:-1]]  # the clean image has none
    cells = [
        [row.subject.item.name, str(row.subject.window), *(f"{panel.psnr:.2f}" for panel in row.panels[:-1])]
        for row in rows
    ]
    align = ["left", "left", *["right"] * len(names)]
    header = ["PSNR, dB, whole image", "crop", *names]
    return tabulate(cells, header, colalign=align, disable_numparse=True)


def _write(config: FigureConfig, contestants: "Sequence[Contestant]", rows: "Sequence[Row]") -> None:
    """Write the figure, the JSON and the crops, each whole or not at all."""
    from bsdenoise.evaluation import figure

    facts = _facts(config, contestants, rows)
    crops = _crop_paths(config.save_crops, rows) if config.save_crops else {}
    _check_outputs([*crops], [row.subject.item for row in rows])
    drawn = figure.draw(rows, config.zoom, config.columns)
    lists = results.Lists()  # lest a figure is taken for an image
    for path in (config.out, *crops):
        lists.add(path)
    with atomic.replacing(config.out) as temporary:
        _save(drawn, temporary, facts)
    if config.json:
        with atomic.replacing(config.json) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n")
    for path, pixels in crops.items():
        picture = strip.enlarged(pixels, config.zoom)
        with atomic.replacing(path) as temporary:
            Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(temporary, "PNG")
    print(f"{config.out}: {drawn.width}×{drawn.height} pixels", file=sys.stderr)


def _facts(config: FigureConfig, contestants: "Sequence[Contestant]", rows: "Sequence[Row]") -> dict[str, Any]:
    from bsdenoise.evaluation.panels import ABOUT_PSNR

    told = ("noise", "draw", "sigma", "own_sigma", "tile", "zoom", "stretch")
    return {
        "bsdenoise": bsdenoise.__version__,
        "about": ABOUT_PSNR,
        "protocol": {name: getattr(config, name) for name in told},
        "crop": "given" if config.crop else "most textured square of the clean image",
        "contestants": [
            {
                "name": contestant.name,
                "method": contestant.method,
                "path": contestant.path and str(contestant.path),
                "digest": contestant.digest(),
                "protocol": contestant.protocol,
                "training": contestant.training,
            }
            for contestant in contestants
        ],
        "rows": [row.facts() for row in rows],
    }


def _save(drawn: Image.Image, path: Path, facts: dict[str, Any]) -> None:
    """Write the figure with its facts in the file's own metadata."""
    software = f"bsdenoise {bsdenoise.__version__}"
    if path.suffix.lower() == ".pdf":
        # Pillow makes lossy JPEG of RGB, whose traces would be taken for the methods', and lossless JPEG 2000 of RGBA.
        drawn.convert("RGBA").save(
            path, "PDF", resolution=PDF_DPI, creator=software, subject=facts["about"], keywords=json.dumps(facts)
        )
        return
    texts = PngImagePlugin.PngInfo()
    for key, value in {"Software": software, "Description": facts["about"], "Comment": json.dumps(facts)}.items():
        texts.add_text(key, value)
    drawn.save(path, "PNG", pnginfo=texts)


def _crop_paths(folder: Path, rows: "Sequence[Row]") -> "dict[Path, Any]":
    """Name the pixels of every picture IMAGE-METHOD.png; what has the same name gets numbers or the model's name."""
    stems = [Path(row.subject.item.name).stem + _number(row.subject.item.index) for row in rows]
    paths = {}
    for number, (row, stem) in enumerate(zip(rows, stems, strict=True), 1):
        image = stem if stems.count(stem) == 1 else f"{number}-{stem}"
        for panel in row.panels:
            method = panel.method or panel.label
            what = method if panel.is_alone else re.sub(r"[^\w.-]+", "_", f"{method}-{panel.name}")
            paths[folder / f"{image}-{what}.png"] = panel.pixels
    return paths


def _number(index: int) -> str:
    return f"-{index}" if index else ""
