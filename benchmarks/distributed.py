"""Do several workers train what one does, and how much faster?

Equality: the same small training by one, two and three worker processes on this machine; losses of every step and
final weights side by side. Efficiency, as far as the cores of one machine go: one worker on one core against two
workers on one core each, with the same crops per worker, alternating. What becomes of broken trainings is shown by
`benchmarks.faults`, what to expect of many GPUs by `benchmarks.scaling_model`.

    python -m benchmarks.distributed PHOTOS
"""

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from benchmarks import cluster, faults, machine

EARLY = 30  # steps before rounding errors have grown, as they do in any training


@dataclass(frozen=True)
class Config:
    """Compares one, two and three workers."""

    source: Annotated[str, tyro.conf.Positional]
    """Photographs to time trainings on."""
    rounds: int = 3
    """How often each of the timed trainings is run."""
    steps: int = 40
    """Steps of a timed training; the first half is not timed."""
    batch: int = 4
    """Crops per worker and step."""
    crop: int = 128
    """Side of the crops in pixels."""
    width: int = 24
    """Maps per encoder convolution."""
    depth: int = 4
    """How often the resolution is halved."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Arithmetic of the network's body."""


def equality(folder: Path) -> list[dict]:
    """Trains with one, two and three workers, and compares with one."""
    scene = faults.Scene.set_up(folder, "full")
    runs = {workers: scene.undisturbed(workers) for workers in (1, 2, 3)}
    losses = {workers: np.array([line["loss"] for line in cluster.logged(run)]) for workers, run in runs.items()}
    return [
        {
            "workers": workers,
            "early_loss_difference": float(np.abs(losses[workers] - losses[1])[:EARLY].max()),
            "loss_difference": float(np.abs(losses[workers] - losses[1]).max()),
            "weight_difference": faults.largest_difference(run, runs[1]),
            "error": cluster.logged(run, "validation")[-1]["error"],
        }
        for workers, run in runs.items()
    ]


def images_per_second(config: Config, folder: Path, workers: int) -> float:
    """Times a training on one core per worker: the median of what its log says of the second half."""
    flags = {
        **{"out": folder, "noise": "gaussian:25", "corrupt": "fresh", "batch": config.batch * workers},
        **{"images": config.steps * config.batch * workers, "crop": config.crop, "width": config.width},
        **{"depth": config.depth, "precision": config.precision, "log-every": 1, "validate-every": 10**6},
        **{"validation-images": 1, "validation-crop": 16},
    }
    arguments = [config.source, *(word for key, value in flags.items() for word in (f"--{key}", str(value)))]
    faults.end(cluster.start(workers, arguments, cores=lambda index: {index}), 0)
    return statistics.median(line["images_per_second"] for line in cluster.logged(folder)[config.steps // 2 :])


def main() -> None:
    """Prints both tables, and all as JSON."""
    config = tyro.cli(Config, description=__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = equality(folder)
        print(
            f"| workers | largest loss difference, first {EARLY} steps | all {faults.STEPS} steps | weights | error |"
        )
        print("| --- | --- | --- | --- | --- |")
        for row in rows:
            print(
                f"| {row['workers']} | {row['early_loss_difference']:.1e} | {row['loss_difference']:.1e} | "
                f"{row['weight_difference']:.1e} | {row['error']:.3e} |",
                flush=True,
            )
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for number in range(config.rounds):
            for workers, measured in speeds.items():
                measured.append(images_per_second(config, folder / f"{workers} {number}", workers))
    one, two = (statistics.median(measured) for measured in speeds.values())
    print(f"\none worker, one core: {one:.2f} crops/s; two workers: {two:.2f}; efficiency {two / one / 2:.2f}")
    print(json.dumps({"equality": rows, "crops_per_second": speeds, "machine": machine.describe()}))


if __name__ == "__main__":
    main()
