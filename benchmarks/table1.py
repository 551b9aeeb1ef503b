r"""The paper's Table 1 with compact networks: trains every method alike, measures all of them and BM3D, prints tables.

Networks, photographs, number of crops and all settings are equal (the recipes `compact/…`). What was trained or
measured already is not done again, so an interrupted run goes on.

    python -m benchmarks.table1 --photos PHOTOS --colour-sets KODAK BSD300 SET14 --every 1 4 1 --grey-sets BSD68 \
        --out table1
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

METHODS = ("full", "per_component", "l2", "n2n", "n2c", "n2v")


@dataclass(frozen=True)
class Config:
    """Reproduces Table 1 in small."""

    photos: Path
    """Folder of clean photographs to train on."""
    out: Path
    """Folder for the runs and the results."""
    colour_sets: tuple[str, ...] = ()
    """Folders of clean colour images."""
    grey_sets: tuple[str, ...] = ()
    """Folders of clean grey images."""
    every: tuple[int, ...] = (1,)
    """Take only every so many images: one number, or one for each colour set. Grey sets are taken whole."""
    methods: tuple[str, ...] = METHODS
    """Methods to train."""
    corrupt: str = "fresh"
    """Noise in training: fresh at each visit, or fixed for ever."""
    images: int | None = None
    """Number of crops of each training; by default that of the recipes."""
    bm3d: bool = True
    """Measure BM3D as well (its package is for non-commercial use)."""


def bsdenoise(*arguments: object) -> None:
    """Runs a command of the package, and ends with its exit code if it fails."""
    command = [sys.executable, "-m", "bsdenoise.cli", *map(str, arguments)]
    print("\n$ bsdenoise", *arguments, flush=True)
    code = subprocess.run(command, check=False).returncode
    if code:
        raise SystemExit(code)


def train(config: Config, name: str, recipe: str) -> Path:
    """Trains one recipe, unless that was done."""
    out = config.out / name
    flags = ["--corrupt", config.corrupt] + ([] if config.images is None else ["--images", config.images])
    bsdenoise("train", config.photos, "--config", recipe, "--out", out, *flags)
    return out


def run(config: Config) -> None:
    """Trains and measures."""
    suffix = "" if config.corrupt == "fresh" else f"-{config.corrupt}"
    for kind, sets, every in (
        ("colour", config.colour_sets, config.every),
        ("grey", config.grey_sets, (1,)),
    ):
        if not sets:
            continue
        runs = [train(config, f"{method}-{kind}{suffix}", f"compact/{method}-{kind}") for method in config.methods]
        models = [argument for folder in runs for argument in ("--model", folder)]
        flags = ["--every", *every, *(["--methods", "bm3d"] if config.bm3d else [])]
        out = config.out / f"{kind}{suffix}"
        bsdenoise("evaluate", *models, "--data", *sets, "--noise", "gaussian:25", *flags, "--out", out)
        print()
        subprocess.run([sys.executable, "-m", "benchmarks.learning_curves", *map(str, runs)], check=True)


if __name__ == "__main__":
    run(tyro.cli(Config))
