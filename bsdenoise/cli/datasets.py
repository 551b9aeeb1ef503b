"""`bsdenoise datasets`: folders in; whether they are the paper's test sets, and what is wrong with them, out."""

import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bsdenoise import atomic, images
from bsdenoise.cli import report
from bsdenoise.config import DatasetsConfig
from bsdenoise.data import tfds_preparation
from bsdenoise.evaluation import deviations, testsets

EXIT_NOT_COMPLETE = 2
TRAINING_SET, TRAINING_SPLIT = "imagenet2012", "validation"
TRAINING_SIDES = 256, 512  # least and most pixels of a side, Laine et al. 2019
NUM_TRAINING_IMAGES = 44_328  # of the validation images, those with such sides (Laine et al. 2019)
DEFAULT_DATA_DIR = "~/tensorflow_datasets"  # of tensorflow_datasets


def run(config: DatasetsConfig) -> int:
    """Print what is known, or what is in the folders.

    Returns:
        0, or 2 if a folder is no complete test set.

    Raises:
        ValueError: If the flags contradict each other.
        OSError: If the JSON cannot be written.
    """
    if config.json and not config.folders:
        raise ValueError("--json writes what is in folders. Name at least one.")
    if config.json and config.json.is_dir():
        raise ValueError(f"{config.json}: is a folder; --json names a file.")
    if not config.folders:
        print(_known())
        return 0
    facts, num_complete = [], 0
    for folder in config.folders:
        try:
            measured = testsets.measure(folder, say=_note)
        except (ValueError, OSError) as error:
            report(error, where=folder)
            continue
        finding = testsets.identify(measured)
        print("\n".join(_as_lines(folder, measured, finding)), flush=True)  # in the order of errors on stderr
        facts.append(_as_dict(folder, measured, finding))
        num_complete += finding is not None and finding.is_complete
    if config.json:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(config.json) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n")
    return 0 if num_complete == len(config.folders) else EXIT_NOT_COMPLETE


def _note(line: str) -> None:
    print(f"bsdenoise: note: {line}", file=sys.stderr, flush=True)


def _as_lines(folder: str, measured: testsets.Measured, finding: testsets.Finding | None) -> list[str]:
    """Say what a folder holds, one thing a line."""
    if finding is None:
        sizes = deviations.sizes_in_words(image.size for image in measured.images)
        count = len(measured.images) + len(measured.unreadable)
        what = f"{count} image{'s' * (count != 1)}" + (f", {sizes}" if sizes else "")
        unreadable = [f"  {name}: {reason}" for name, reason in measured.unreadable.items()]
        return [f"{folder}: no test set that is known: {what}", *unreadable]
    if finding.is_complete:
        return [f"{folder}: {finding.title}, complete: {len(measured.images)} images"]
    return [f"{folder}: {finding.title}, but not as in the paper:", *(f"  {line}" for line in finding.lines)]


def _as_dict(folder: str, measured: testsets.Measured, finding: testsets.Finding | None) -> dict[str, Any]:
    return {
        "name": images.base_of(folder).resolve().name,
        "testset": finding and finding.key,
        "complete": finding and finding.is_complete,
        "remarks": finding.lines if finding else [],
        "unreadable": measured.unreadable,
        "images": [dataclasses.asdict(image) for image in measured.images],
    }


def _known() -> str:
    """Describe the sets that are known, and where the paper's training set has to be."""
    sets = list(testsets.known_sets().values())
    header = ["key", "set", "images", "pixels", "channels", "draws in the paper"]
    cells = [
        [one.key, one.title, len(one.images), _sizes(one.images), _channels(one.images), one.draws] for one in sets
    ]
    align = ["left", "left", "right", "left", "left", "right"]
    least, most = TRAINING_SIDES
    spec = f"tfds:{TRAINING_SET}:{TRAINING_SPLIT}"
    return "\n".join(
        [
            tabulate(cells, header, colalign=align, disable_numparse=True),
            "",
            *(f"{one.key}: {one.about}\n  from: {one.source}\n  terms: {one.terms}" for one in sets),
            "",
            f"The paper's training set: {spec} --min-side {least} --max-side {most}, {NUM_TRAINING_IMAGES:,} images.",
            _where_training_set_is(),
        ]
    )


def _sizes(found: Sequence[testsets.SetImage]) -> str:
    return deviations.sizes_in_words(image.size for image in found)


def _channels(found: Sequence[testsets.SetImage]) -> str:
    """Say how many images are grey and how many are not."""
    kinds = Counter("grey" if image.channels == 1 else "RGB" for image in found).most_common()
    return kinds[0][0] if len(kinds) == 1 else ", ".join(f"{count} {kind}" for kind, count in kinds)


def _where_training_set_is() -> str:
    """Look for it where tensorflow_datasets will, without loading that."""
    variable = tfds_preparation.DATA_DIR_VARIABLE
    root = Path(os.environ.get(variable) or DEFAULT_DATA_DIR).expanduser()
    for path in sorted(root.glob(f"{TRAINING_SET}/*/dataset_info.json")):
        if _has_split(path):
            return f"It is prepared in {path.parent}."
    archive = root / "downloads" / "manual" / tfds_preparation.MANUAL_FILES[TRAINING_SET][TRAINING_SPLIT]
    if archive.is_file():
        return f"{archive} is there; the first training prepares it."
    return f"It is not there: place {archive.name} in {archive.parent} ({variable} chooses another folder than {root})."


def _has_split(path: Path) -> bool:
    """Whether the description of a prepared data set names the split."""
    try:
        splits = json.loads(path.read_text()).get("splits", [])
        return any(split.get("name") == TRAINING_SPLIT for split in splits)
    except (OSError, ValueError, AttributeError):
        return False  # broken: tensorflow_datasets will say how
