"""`bsdenoise evaluate`: models and images in, tables out."""

import dataclasses
import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bsdenoise import files
from bsdenoise.cli import libraries, models, report
from bsdenoise.config import EvaluateConfig

EXIT_SOME_FAILED = 2
HUGE_SCALE = 1e30  # no σ is too large for it
_PACKAGES = ("bsdenoise", "tensorflow", "keras", "numpy", "pillow", "scikit-image")


def run(config: EvaluateConfig) -> int:
    """Measures, prints the tables and writes the files.

    Returns:
        0, or 2 if an image could not be measured.

    Raises:
        ValueError: If the flags contradict each other, or nothing could be measured.
    """
    _check(config)
    libraries.load_keras()  # before whatever imports it

    from bsdenoise.evaluation import cases

    _check_levels(config)
    if config.data:
        items = cases.clean_items(config.data, config.draws, config.every)
    else:
        items = cases.paired_items(str(config.noisy), str(config.clean), config.every)
    denoisers = {path: models.load_denoiser(path) for path in config.model}

    from bsdenoise.evaluation import records, table

    names = _names(config.model)
    under_test = [records.Model(names[path], models.find(path), denoiser) for path, denoiser in denoisers.items()]
    protocol = records.Protocol(config.noise, config.sigma, config.own_sigma, config.tile)
    num_failed = 0
    bar = tqdm(total=len(under_test) * len(items), unit="image", file=sys.stderr, disable=None)

    def failed(item: cases.Item, error: Exception) -> None:
        nonlocal num_failed
        num_failed += 1
        bar.clear()
        report(error, where=item.path)
        bar.update()

    def note(line: str) -> None:
        bar.clear()
        print(f"bsdenoise: note: {line}", file=sys.stderr)

    found = []
    store = records.Store(config.out / "records.jsonl" if config.out else None)
    with bar:
        for record in records.measure_all(under_test, items, protocol, store, failed, note):
            found.append(record)
            bar.set_postfix(psnr=f"{record.psnr:.2f}", refresh=False)
            bar.update()
    if not found:
        raise ValueError("No image could be measured.")
    rows = table.summarise(found)
    gains = table.differences(found)
    print(table.as_text(rows))
    if gains:
        print("\n" + table.as_text(gains))
    if num_failed:
        print(f"{num_failed} of {len(under_test) * len(items)} could not be measured and do not count", file=sys.stderr)
    _write(config, under_test, found, rows, gains, num_failed)
    return EXIT_SOME_FAILED if num_failed else 0


def _check(config: EvaluateConfig) -> None:
    """Looks at the flags before anything is loaded."""
    if not config.model:
        raise ValueError("Expected at least one --model.")
    if bool(config.data) == bool(config.noisy or config.clean) or bool(config.noisy) != bool(config.clean):
        raise ValueError("Expected either --data with --noise, or --noisy with --clean.")
    if bool(config.data) != bool(config.noise):
        raise ValueError("--noise says which noise is added to --data; --noisy and --clean go without it.")
    if config.sigma and config.own_sigma:
        raise ValueError("--sigma and --own-sigma exclude each other.")
    if len(set(config.model)) != len(config.model):
        raise ValueError("A --model is given twice.")
    if config.json and config.json.is_dir():
        raise ValueError(f"{config.json}: is a folder; --json names a file.")
    if config.out and config.out.exists() and not config.out.is_dir():
        raise ValueError(f"{config.out}: is a file; --out names a folder.")
    for path in config.model:
        models.find(path)


def _check_levels(config: EvaluateConfig) -> None:
    """Refuses noise that cannot be read; whether it is too strong, each file's type tells."""
    from bsdenoise.noise import parse, parse_level

    if config.noise:
        parse(config.noise, HUGE_SCALE)
    if config.sigma:
        parse_level(config.sigma, HUGE_SCALE)


def _names(paths: tuple[Path, ...]) -> dict[Path, str]:
    """Names models by the last part of their paths; by the whole path where that is not enough."""
    short = {path: path.stem if path.suffix == ".keras" else path.resolve().name for path in paths}
    unique = len(set(short.values())) == len(short)
    return short if unique else {path: str(path) for path in paths}


def _write(config: EvaluateConfig, under_test: list, found: list, rows: list, gains: list, num_failed: int) -> None:
    """Writes results.json, table.md and table.csv, each whole or not at all."""
    from bsdenoise.evaluation import table

    results = {
        "protocol": {
            "data": config.data,
            "noise": config.noise,
            "noisy": config.noisy,
            "clean": config.clean,
            "sigma": config.sigma,
            "own_sigma": config.own_sigma,
            "every": config.every,
            "tile": config.tile,
        },
        "models": [
            {"name": model.name, "path": str(model.path), "sha256": model.digest(), "channels": model.denoiser.channels}
            for model in under_test
        ],
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
        "failed": num_failed,
        "summary": [dataclasses.asdict(row) for row in rows],
        "differences": [dataclasses.asdict(gain) for gain in gains],
        "images": [dataclasses.asdict(record) for record in found],
    }
    text = json.dumps(results, indent=1) + "\n"
    outputs: dict[Path, Any] = {}
    if config.json:
        outputs[config.json] = text
    if config.out:
        markdown = "\n\n".join(table.as_text(part, "github") for part in (rows, gains) if part) + "\n"
        outputs[config.out / "results.json"] = text
        outputs[config.out / "table.md"] = markdown
        outputs[config.out / "table.csv"] = table.as_csv(rows)
    for path, content in outputs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            temporary.write_text(content)
