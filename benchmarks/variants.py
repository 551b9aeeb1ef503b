"""What do bfloat16 and the self-ensemble change in quality, and what do they cost?

Denoises the same noisy images with one model in several ways, by turns, and compares PSNRs image by image.

    python -m benchmarks.variants --model RUN --data KODAK
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks import machine


@dataclass(frozen=True)
class Config:
    """Compares precisions and sizes of the self-ensemble."""

    model: Path
    """A .keras file, or a run folder that holds denoiser.keras."""
    data: str
    """Folder of clean images."""
    noise: str = "gaussian:25"
    """Noise to add."""
    every: int = 1
    """Take only every so many images."""
    tta: tuple[int, ...] = (2, 4, 8)
    """Numbers of copies to try."""


def run(config: Config) -> None:
    """Measures and prints."""
    from bsdenoise.cli.models import load_denoiser
    from bsdenoise.evaluation import cases
    from bsdenoise.evaluation.metrics import psnr
    from bsdenoise.evaluation.table import confidence_half_width

    denoiser = load_denoiser(config.model)
    half = denoiser.in_precision("bfloat16")
    ways = {"float32": (denoiser, 1), "bfloat16": (half, 1)}
    ways |= {f"float32, {size} copies": (denoiser, size) for size in config.tta}
    psnrs: dict[str, list[float]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for item in cases.clean_items([config.data], every=(config.every,)):
        case = cases.read_clean(item, denoiser.channels, config.noise)
        for way, (model, size) in ways.items():
            start = time.perf_counter()
            denoised = model.denoise(case.noisy, sigma=case.sigma, tta=size)
            seconds[way].append(time.perf_counter() - start)
            psnrs[way].append(psnr(denoised, case.clean, case.peak))
    print(f"{config.model} on {config.data}, {config.noise}; {machine.describe()}")
    result: dict = {"machine": machine.describe(), "images": len(psnrs["float32"])}
    for way in ways:
        gain = np.subtract(psnrs[way], psnrs["float32"])
        row = {"psnr": np.mean(psnrs[way]), "gain": gain.mean(), "seconds": np.median(seconds[way])}
        print(
            f"{way:20}{row['psnr']:8.3f} dB, {row['gain']:+.4f} ± {confidence_half_width(list(gain)):.4f} dB, "
            f"{row['seconds']:.2f} s (median over images)"
        )
        result[way] = row
    print(json.dumps(result))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
