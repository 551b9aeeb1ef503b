"""`bsdenoise evaluate`: models and images in, tables out."""

import dataclasses
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bsdenoise import atomic, extras, loading
from bsdenoise.cli import libraries, models, report, terminal
from bsdenoise.config import EvaluateConfig
from bsdenoise.images import missing

if TYPE_CHECKING:  # these load Keras, which is announced first
    from bsdenoise.evaluation.cases import Item
    from bsdenoise.evaluation.contestants import Contestant
    from bsdenoise.evaluation.records import Record
    from bsdenoise.evaluation.table import Difference, Row
    from bsdenoise.evaluation.table1 import Table1
    from bsdenoise.evaluation.testsets import Finding

EXIT_SOME_FAILED = 2
SECONDS_BETWEEN_LINES = 30  # where there is no terminal for a progress bar
_PACKAGES = ("bsdenoise", "tensorflow", "keras", "numpy", "pillow", "scikit-image")
_BM3D_PACKAGES = ("bm3d", "bm4d")


@dataclasses.dataclass(frozen=True)
class Results:
    """What an evaluation found.

    Attributes:
        contestants: What was measured.
        sets: What the package knows of each set, by its name; `None` where it knows nothing.
        images: One record for each contestant, image and noise draw.
        num_failed: How many could not be measured.
        rows: Means of each contestant on each set.
        differences: How much better each contestant is than the first.
        table1: The same as the paper's Table 1 has it; `None` for a single contestant.
    """

    contestants: "Sequence[Contestant]"
    sets: "Mapping[str, Finding | None]"
    images: "Sequence[Record]"
    num_failed: int
    rows: "Sequence[Row]"
    differences: "Sequence[Difference]"
    table1: "Table1 | None"

    @property
    def protocols(self) -> list[str]:
        """Say of each contestant, in a line, what it had to learn from."""
        lines = []
        for contestant in self.contestants:
            name, method = contestant.name, contestant.method
            lines.append(f"{name if name == method else f'{name} ({method})'}: {contestant.protocol}")
        return lines


def run(config: EvaluateConfig) -> int:
    """Measure, print the tables and write the files.

    Returns:
        0, or 2 if an image could not be measured.

    Raises:
        ValueError: If a package is missing, the flags contradict each other, or nothing could be measured.
        OSError: If a result cannot be written.
    """
    extras.check("bsdenoise evaluate")
    _check(config)
    with terminal.status("loading the libraries"):
        libraries.load_keras()  # before whatever imports it
    _check_names_and_levels(config)
    items = _list_items(config)
    sets = _recognise(config)
    contestants = _open(config, items)
    images, num_failed, first_problem = _measure(config, contestants, items)
    if not images:
        raise ValueError(f"No image could be measured; the first is {first_problem}")
    results = _summarise(config, contestants, sets, images, num_failed)
    _print(results)
    _write(config, results)
    return EXIT_SOME_FAILED if num_failed else 0


def _check(config: EvaluateConfig) -> None:
    """Look at the flags before anything is loaded."""
    if bool(config.data) == bool(config.noisy or config.clean) or bool(config.noisy) != bool(config.clean):
        raise ValueError("Expected either --data with --noise, or --noisy with --clean.")
    if bool(config.data) != bool(config.noise):
        raise ValueError("--noise says which noise is added to --data; --noisy and --clean go without it.")
    if config.sigma and config.own_sigma:
        raise ValueError("--sigma and --own-sigma exclude each other.")
    if config.methods and (config.own_sigma or (config.noisy and not config.sigma)):
        raise ValueError("BM3D must be told the noise level: give --sigma, or leave --methods away.")
    if config.bm3d_cache and not config.methods:
        raise ValueError("--bm3d-cache is for --methods bm3d.")
    if config.json and config.json.is_dir():
        raise ValueError(f"{config.json}: is a folder; --json names a file.")
    if config.out and config.out.exists() and not config.out.is_dir():
        raise ValueError(f"{config.out}: is a file; --out names a folder.")
    for path in config.model:
        loading.find(path)


def _check_names_and_levels(config: EvaluateConfig) -> None:
    """Refuse unknown methods and noise that cannot be read; whether it is too strong, each file's type tells."""
    from bsdenoise.evaluation import contestants
    from bsdenoise.noise import read, read_level

    contestants.check_names(config.model, config.methods)
    if config.noise:
        declared = read(config.noise, 1.0)
        declared.rescaled(0.0, declared.reach).made()
    if config.sigma:
        read_level(config.sigma)


def _list_items(config: EvaluateConfig) -> "list[Item]":
    from bsdenoise.evaluation import cases

    if config.data:
        items = cases.clean_items(config.data, config.draws, config.every, config.axes, say=_note)
    else:
        items = cases.paired_items(str(config.noisy), str(config.clean), config.every, config.axes, say=_note)
    no_data = missing.parse_no_data(config.no_data)
    return [dataclasses.replace(item, no_data=no_data) for item in items]


def _recognise(config: EvaluateConfig) -> "dict[str, Finding | None]":
    """Return what the package knows of the sets, by their names, and say what is wrong with those that it knows."""
    from bsdenoise.evaluation import cases, testsets

    names = cases.set_names(config.data)
    found = {name: testsets.recognise(folder) for name, folder in zip(names, config.data, strict=True)}
    for name, finding in found.items():
        if finding is not None and not finding.is_complete:
            for line in finding.lines:
                _note(f"{name}: {line}")
    return found


def _open(config: EvaluateConfig, items: "list[Item]") -> "list[Contestant]":
    """Load what is measured."""
    from bsdenoise.evaluation import cases, contestants

    channels = cases.RGB if config.model else cases.usual_channels(items)
    return contestants.open_contestants(
        config.model, config.methods, config.bm3d_cache, models.load_denoiser, channels, config.tta
    )


def _measure(
    config: EvaluateConfig, contestants: "list[Contestant]", items: "list[Item]"
) -> "tuple[list[Record], int, str]":
    """Return the records, how many are missing, and why the first is; say which are, and how far it is."""
    from bsdenoise.data.faults import Faults
    from bsdenoise.evaluation import records

    protocol = records.Protocol(config.noise, config.sigma, config.own_sigma, config.tile)
    store = records.Store(config.out / "records.jsonl" if config.out else None)
    bar = tqdm(total=len(contestants) * len(items), unit="image", file=sys.stderr, disable=None)
    num_failed = 0
    faults = Faults()  # what is wrong with a file is so for every contestant and image in it

    def failed(item: "Item", error: Exception) -> None:
        nonlocal num_failed
        num_failed += 1
        bar.clear()
        if faults.new(f"{item.path}[{item.index}]", error):
            report(error, where=item.path)
        bar.update()

    def note(line: str) -> None:
        bar.clear()
        _note(line)

    found, last_line = [], time.monotonic()
    with bar:
        for record in records.measure_all(contestants, items, protocol, store, failed, note):
            found.append(record)
            if bar.disable and time.monotonic() - last_line > SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                _note(f"{len(found) + num_failed} of {bar.total} measured; {record.model} is at work")
            bar.set_postfix_str(f"{record.model}: {record.psnr:.2f} dB", refresh=False)
            bar.update()
    return found, num_failed, faults.first


def _summarise(
    config: EvaluateConfig,
    contestants: "list[Contestant]",
    sets: "dict[str, Finding | None]",
    images: "list[Record]",
    num_failed: int,
) -> Results:
    from bsdenoise.evaluation import table, table1

    rows = table.summarise(images)
    by_method = {contestant.name: contestant.method for contestant in contestants}
    known = {name: finding.key for name, finding in sets.items() if finding is not None}
    return Results(
        contestants,
        sets,
        images,
        num_failed,
        rows,
        table.differences(images),
        _table1(config, table1.make(rows, by_method, known, config.noise), sets) if len(contestants) > 1 else None,
    )


def _table1(config: EvaluateConfig, made: "Table1", sets: "dict[str, Finding | None]") -> "Table1":
    """Add to the notes of a table why its rows may not be compared with the published ones."""
    remarks = [f"{name}: {line}" for name, finding in sets.items() if finding for line in finding.lines]
    is_beside_published = any(line.source is not None for line in made.lines)
    if is_beside_published and (config.sigma or config.own_sigma):
        told = f"told a sigma of {config.sigma}" if config.sigma else "not told sigma"
        remarks.append(f"measured models were {told}, the published methods the one that was added")
    return dataclasses.replace(made, notes=(*made.notes, *remarks))


def _print(results: Results) -> None:
    """Print the tables, what every contestant had to learn from, and how much is missing."""
    from bsdenoise.evaluation import table, table1

    parts = [] if results.table1 is None else [table1.as_text(results.table1)]
    parts += [table.as_text(part) for part in (results.rows, results.differences) if part]
    print("\n\n".join([*parts, "\n".join([*results.protocols, *table.footnotes(results.rows)])]))
    if results.num_failed:
        total = len(results.images) + results.num_failed
        print(f"{results.num_failed} of {total} measurements failed and do not count", file=sys.stderr)


def _write(config: EvaluateConfig, results: Results) -> None:
    """Write results.json, table.md, table.csv and table1.csv, each whole or not at all."""
    from bsdenoise.evaluation import table, table1

    text = json.dumps(_as_json(config, results), indent=1) + "\n"
    outputs: dict[Path, str] = {}
    if config.json:
        outputs[config.json] = text
    if config.out:
        outputs[config.out / "results.json"] = text
        outputs[config.out / "table.md"] = _as_markdown(results)
        outputs[config.out / "table.csv"] = table.as_csv(results.rows)
        if results.table1 is not None:
            outputs[config.out / "table1.csv"] = table1.as_csv(results.table1)
    for path, content in outputs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as temporary:
            temporary.write_text(content)


def _as_markdown(results: Results) -> str:
    from bsdenoise.evaluation import table, table1

    parts = [] if results.table1 is None else [table1.as_markdown(results.table1)]
    parts += [table.as_text(part, "github") for part in (results.rows, results.differences) if part]
    lines = [*results.protocols, *table.footnotes(results.rows)]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in lines)]) + "\n"


def _as_json(config: EvaluateConfig, results: Results) -> dict[str, Any]:
    from bsdenoise.evaluation import table1

    packages = _PACKAGES + (_BM3D_PACKAGES if config.methods else ())
    told = ("data", "noise", "noisy", "clean", "sigma", "own_sigma", "every", "tile", "tta")
    return {
        "protocol": {name: getattr(config, name) for name in told},
        "sets": [
            {
                "name": name,
                "testset": finding and finding.key,
                "complete": finding and finding.is_complete,
                "remarks": finding.lines if finding else [],
                "images": len({image.image for image in results.images if image.dataset == name}),
            }
            for name, finding in results.sets.items()
        ],
        "contestants": [
            {
                "name": contestant.name,
                "method": contestant.method,
                "path": contestant.path and str(contestant.path),
                "digest": contestant.digest(),
                "channels": contestant.channels,
                "protocol": contestant.protocol,
                "training": contestant.training,
            }
            for contestant in results.contestants
        ],
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
        "failed": results.num_failed,
        "table1": results.table1 and table1.as_dict(results.table1),
        "summary": [dataclasses.asdict(row) for row in results.rows],
        "differences": [dataclasses.asdict(gain) for gain in results.differences],
        "images": [dataclasses.asdict(record) for record in results.images],
    }


def _note(line: str) -> None:
    print(f"bsdenoise: note: {line}", file=sys.stderr)
