"""How good is a model on a folder of clean images with Gaussian noise added, and does its own estimate agree?

For each image: PSNR of the MAP estimate, of the mean alone, and the PSNR that the model itself expects (SURE, no clean
image used), all unrounded; the PSNR of the image rounded to 8 bits, as the literature counts it; and squared error over
posterior variance, 1 if the model knows how sure it is. One noise draw: `default_rng((seed, index))` for the image at
`index` in name order, neither clipped nor rounded.

    python -m benchmarks.quality --model RUN --data kodak24 --sigma 25
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
    """Measures a model on a folder of clean images."""

    model: Path
    """A .keras file, or a run folder that holds denoiser.keras."""
    data: Path
    """Folder of clean 8-bit images."""
    sigma: float = 25.0
    """Noise standard deviation in grey levels of 8 bits."""
    seed: int = 0
    """Seed of the noise."""
    tile: int | None = None
    """Largest side of a tile; default: tiles above a megapixel only."""


def psnr(one: np.ndarray, two: np.ndarray, peak: float = 1.0) -> float:
    """Gives the PSNR over all pixels and channels, in dB."""
    return float(10 * np.log10(peak**2 / np.mean((one.astype("float64") - two) ** 2)))


def measure(denoiser, clean8: np.ndarray, sigma: float, rng: np.random.Generator, tile: int | None) -> dict[str, float]:
    """Adds noise to one clean uint8 image (H, W, C), denoises it, and compares."""
    clean = clean8.astype("float32") / 255
    noisy = clean + rng.normal(0.0, sigma, clean.shape).astype("float32")
    result = denoiser.posterior(noisy, sigma=sigma, tile=tile)
    rounded = np.clip(result.denoised * 255 + 0.5, 0, 255).astype("uint8")
    return {
        "noisy": psnr(noisy, clean),
        "map": psnr(result.denoised, clean),
        "mean": psnr(result.mean, clean),
        "sure": result.estimated_psnr,
        "map_8bit": psnr(rounded, clean8, 255.0),
        "calibration": float(np.mean((result.denoised - clean) ** 2) / np.mean(result.std.astype("float64") ** 2)),
    }


def run(config: Config) -> None:
    """Measures and prints."""
    from bsdenoise import images
    from bsdenoise.cli.models import load_denoiser

    denoiser = load_denoiser(config.model)
    rows = []
    print(f"{config.model} on {config.data.name}, sigma {config.sigma:g}, seed {config.seed}; {machine.describe()}")
    names = ("noisy", "map", "mean", "sure", "map_8bit", "calibration")
    print(f"{'image':24}" + "".join(f"{name:>12}" for name in names), flush=True)
    for index, file in enumerate(images.find(config.data)):
        clean = images.to_channels(images.read_array(file), denoiser.channels)
        rng = np.random.default_rng((config.seed, index))
        rows.append(measure(denoiser, clean, config.sigma / 255, rng, config.tile))
        print(f"{file.stem:24}" + "".join(f"{rows[-1][name]:12.3f}" for name in names), flush=True)
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    print(f"{'average':24}" + "".join(f"{means[name]:12.3f}" for name in names))
    worst = max(abs(row["sure"] - row["map"]) for row in rows)
    print(
        f"SURE against the truth: {means['sure'] - means['map']:+.3f} dB over the set, at most {worst:.3f} dB per image"
    )
    print(json.dumps({"machine": machine.describe(), "average": means, "worst_sure_error": worst}))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
