"""How good and how quick are the shipped models? Measures them from the files that are shipped, and fills their index.

    python -m benchmarks.presets --data KODAK BSD300 SET14 BSD68 --draws 10 3 20 4 --out measured

prints the table of docs/presets.md. An interrupted measurement goes on where it stopped.
"""

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from benchmarks import machine
from bsdenoise import presets

SIGMA = 25  # grey levels
SPEED_SIZE = (512, 768)  # of a Kodak image
SPEED_REPEATS = 5
CHECK_SIZE = 192  # side of the part of a photograph that tests measure again
BM3D = "bm3d"


@dataclass(frozen=True)
class Config:
    """Measures presets."""

    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR [DIR ...]")] = ()
    """Folders of the paper's test sets; each preset is measured on those of its number of channels."""
    draws: tuple[int, ...] = (1,)
    """How often noise is drawn for each image: one number, or one for each set."""
    names: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]")] = ()
    """Presets to measure. Default: all."""
    bm3d: bool = False
    """Measure BM3D on the same noise, too (one draw of each image)."""
    speed: bool = False
    """Time them; let nothing else run meanwhile."""
    out: Path = Path("measured-presets")
    """Folder for what was measured of every image."""


def check_psnr(denoiser: Any) -> float:
    """Gives the PSNR in dB at σ = 25 on the middle of a photograph of scikit-image, with noise that is always the same.

    This is the part of the table that everybody can measure again.
    """
    from skimage import data

    from bsdenoise.evaluation.metrics import psnr

    photo = data.astronaut() if denoiser.channels == 3 else data.camera()[..., np.newaxis]
    top, left = ((side - CHECK_SIZE) // 2 for side in photo.shape[:2])
    clean = photo[top : top + CHECK_SIZE, left : left + CHECK_SIZE].astype(np.float32) / presets.LEVELS
    noise = np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    return psnr(denoiser.denoise(clean + SIGMA / presets.LEVELS * noise, sigma=SIGMA / presets.LEVELS), clean, 1.0)


def seconds_per_megapixel(denoiser: Any) -> float:
    """Gives the median time of denoising a photograph in float32."""
    noisy = np.random.default_rng(0).random((*SPEED_SIZE, denoiser.channels), np.float32)
    denoiser.denoise(noisy, sigma=SIGMA / presets.LEVELS)
    times = []
    for _ in range(SPEED_REPEATS):
        start = time.perf_counter()
        denoiser.denoise(noisy, sigma=SIGMA / presets.LEVELS)
        times.append(time.perf_counter() - start)
    return statistics.median(times) / (SPEED_SIZE[0] * SPEED_SIZE[1] / 1e6)


def run(config: Config) -> None:
    """Measures, fills the index and prints the table."""
    from bsdenoise import Denoiser
    from bsdenoise.cli.presets import table

    index = presets.read_index(presets.FOLDER)
    names = config.names or tuple(index)
    measured: dict[str, dict[str, Any]] = {name: dict(presets.get(name).measured) for name in names}
    for name in names:
        denoiser = Denoiser.from_preset(name)
        measured[name]["check_psnr"] = round(float(check_psnr(denoiser)), 4)
        if config.speed:
            measured[name]["seconds_per_megapixel"] = round(seconds_per_megapixel(denoiser), 2)
            measured[name]["machine"] = machine.describe()
    for channels in sorted({presets.get(name).channels for name in names}):
        alike = [name for name in names if presets.get(name).channels == channels]
        for name, key, facts in _psnrs(config, alike, channels):
            measured[name].setdefault("psnr", {})[key] = facts
    for name in names:
        index[name] = dataclasses.replace(index[name], measured=measured[name])
    presets.write_index(presets.FOLDER, index)
    print(table([index[name] for name in names], "github"))
    print(json.dumps({"machine": machine.describe(), **measured}))


def _psnrs(config: Config, names: Iterable[str], channels: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Evaluates presets of equal channels; gives name, test set, and what was measured there."""
    sets = dict(_sets(config, channels))
    if not sets:
        return
    out = config.out / str(channels)
    results = _evaluate(out, sets, [f"--model={presets.get(name).path}" for name in names])
    bm3d = _evaluate(out / BM3D, dict.fromkeys(sets, 1), [f"--methods={BM3D}"]) if config.bm3d else {}
    for (name, key), row in results.items():
        facts = {"psnr": round(row["psnr"], 3), "sigma": SIGMA, "draws": row["draws"]}
        if (BM3D, key) in bm3d:
            facts |= {"bm3d": round(bm3d[BM3D, key]["psnr"], 3), "bm3d_draws": bm3d[BM3D, key]["draws"]}
        yield name, key, facts


def _sets(config: Config, channels: int) -> Iterator[tuple[Path, int]]:
    """Gives the folders that hold complete test sets of so many channels, each with its number of draws."""
    from bsdenoise.evaluation import references, testsets

    draws = config.draws * len(config.data) if len(config.draws) == 1 else config.draws
    if len(draws) != len(config.data):
        raise ValueError(f"--draws takes one number, or one for each of {len(config.data)} --data.")
    for folder, count in zip(config.data, draws, strict=True):
        finding = testsets.recognise(str(folder))
        if finding is None or not finding.is_complete:
            raise ValueError(f"{folder}: not a complete test set of the paper (bsdenoise datasets says what is wrong).")
        if references.SETS[finding.key].channels == channels:
            yield folder, count


def _evaluate(out: Path, sets: dict[Path, int], contestants: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Runs `bsdenoise evaluate`; gives its rows by contestant and test set."""
    from bsdenoise import cli

    arguments = [*contestants, "--data", *map(str, sets), "--draws", *map(str, sets.values())]
    noise = f"--noise=gaussian:{SIGMA}"
    if cli.main(["evaluate", noise, *arguments, f"--out={out}"]):
        raise ValueError("Not all images could be measured.")
    results = json.loads((out / "results.json").read_text())
    keys = {one["name"]: one["testset"] for one in results["sets"]}
    rows = [row for row in results["summary"] if row["dataset"] in keys]
    return {(row["model"], keys[row["dataset"]]): row for row in rows}


def main() -> int:
    """Runs the command line."""
    try:
        run(tyro.cli(Config, description=__doc__))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
