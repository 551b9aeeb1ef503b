"""How fast does each method learn? Validation PSNR of training runs against the number of crops that were seen.

All runs must have been validated on the same images: same photographs, same `--validation-images`, as those of
`benchmarks.table1` are. The PSNR is the true one, of the mean squared error over the held-out images, with the first
fixed noise copy of each; so all methods see the same pixels.

    python -m benchmarks.learning_curves RUN [RUN ...]
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tabulate import tabulate

from benchmarks import machine


@dataclass(frozen=True)
class Config:
    """Prints the validation PSNR of training runs side by side."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of trainings with --corrupt."""
    value: str = "psnr"
    """Which number of the log: psnr, psnr_mean, sure_psnr, measured_psnr, held_out_psnr, error or loss."""


def curve(run: Path, value: str) -> dict[int, float]:
    """Reads a number of every validation of a run, by the number of crops seen until then.

    Raises:
        ValueError: If the folder has no log with such a number.
    """
    try:
        flags = json.loads((run / "config.json").read_text())["config"]
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{run}: not a run folder with config.json and log.jsonl ({error}).") from error
    found = {line["step"] * flags["batch"]: round(line[value], 6) for line in lines if line.get(value) is not None}
    if not found:
        raise ValueError(f"{run}: its log has no {value}.")
    return found


def run(config: Config) -> None:
    """Reads and prints."""
    if not config.runs:
        raise ValueError("Expected at least one run folder.")
    curves = {run.resolve().name: curve(run, config.value) for run in config.runs}
    crops = sorted(set().union(*curves.values()))
    rows = [[number, *(values.get(number) for values in curves.values())] for number in crops]
    print(tabulate(rows, ["crops", *curves], tablefmt="github", floatfmt=".2f", missingval=""))
    print("\n" + json.dumps({"value": config.value, "curves": curves, "machine": machine.describe()}))


if __name__ == "__main__":
    run(tyro.cli(Config))
