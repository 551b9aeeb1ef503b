"""What does tiling cost in accuracy, for how much overlap?

Denoises one image whole and in tiles, and compares: largest difference in grey levels of 8 bits, and PSNR lost.

    python -m benchmarks.tiles --model RUN --image photo.png
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks import machine


@dataclass(frozen=True)
class Config:
    """Measures the error that tiles make."""

    model: Path
    """A .keras file, or a run folder that holds denoiser.keras."""
    image: Path
    """A clean 8-bit image."""
    sigma: float = 25.0
    """Noise standard deviation in grey levels."""
    tile: int = 512
    """Largest side of a tile in pixels."""
    overlaps: tuple[int, ...] = (0, 32, 64, 96, 128, 160)
    """Overlaps to try, in pixels."""


def run(config: Config) -> None:
    """Measures and prints."""
    from bsdenoise import images
    from bsdenoise.cli.models import load_denoiser
    from bsdenoise.evaluation.metrics import psnr

    denoiser = load_denoiser(config.model)
    clean = images.to_unit(images.to_channels(images.read_array(config.image), denoiser.channels))
    noise = np.random.default_rng(0).normal(0.0, config.sigma / 255, clean.shape)
    noisy = clean + noise.astype("float32")
    whole = denoiser.denoise(noisy, sigma=config.sigma / 255, tile=1 << 20)
    height, width = clean.shape[:2]
    print(f"{config.model} on {config.image.name}, {width}×{height}, tiles of {config.tile}; {machine.describe()}")
    print(f"{'overlap':>8}{'largest difference, grey levels':>34}{'PSNR lost, dB':>16}")
    results = []
    for overlap in config.overlaps:
        tiled = denoiser.denoise(noisy, sigma=config.sigma / 255, tile=config.tile, overlap=overlap)
        largest = float(np.abs(tiled - whole).max() * 255)
        lost = psnr(whole, clean) - psnr(tiled, clean)
        results.append({"overlap": overlap, "largest": largest, "psnr_lost": lost})
        print(f"{overlap:8}{largest:34.4f}{lost:16.5f}", flush=True)
    print(json.dumps({"machine": machine.describe(), "tile": config.tile, "results": results}))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
