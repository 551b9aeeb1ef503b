"""What does it gain to adapt a model to the noisy image itself, and what does that cost?

    python -m benchmarks.adaptation KODAK SET14 --models rgb-gaussian25-small --steps 16 32 64 128

prints the table of benchmarks/adaptation.md: gain in dB over the model as it is, time over that of denoising the image
once, and how far the estimated PSNR is from the true one. An interrupted measurement goes on where it stopped.
"""

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from benchmarks import machine

LEVELS = 255.0


@dataclass(frozen=True)
class Config:
    """Measures adaptation."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR [DIR ...]")]
    """Folders of clean images."""
    models: tuple[str, ...] = ("rgb-gaussian25-small",)
    """Models to adapt."""
    steps: tuple[int, ...] = (64,)
    """Numbers of steps."""
    sigma: float = 25.0
    """Noise in grey levels, which the models are told."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network's body, for all that is timed."""
    limit: int | None = None
    """How many images of each folder are measured: evenly spread ones. Default: all."""
    seed: int = 0
    """Of the steps."""
    out: Path = Path("measured-adaptation")
    """Folder for what was measured of every image."""


def images(folder: Path, channels: int, limit: int | None) -> Iterator[tuple[str, np.ndarray]]:
    """Gives clean images, float32 (H, W, C), of a number of channels: grey ones of all, coloured ones of those."""
    from PIL import Image

    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if limit is not None and limit < len(paths):
        paths = [paths[index] for index in np.linspace(0, len(paths) - 1, limit).round().astype(int)]
    for path in paths:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32) / LEVELS
        yield path.stem, pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def measured(denoiser: Any, adapter: Any, clean: np.ndarray, config: Config, number: int) -> list[dict[str, float]]:
    """Measures an image: first the model as it is, then adapted by each number of steps."""
    from bsdenoise.evaluation.metrics import psnr

    sigma = config.sigma / LEVELS
    noisy = clean + sigma * np.random.default_rng(number).standard_normal(clean.shape, np.float32)
    denoiser.denoise(noisy, sigma=sigma)  # which compiles
    start = time.perf_counter()
    denoiser.denoise(noisy, sigma=sigma)
    plain = time.perf_counter() - start
    found = denoiser.posterior(noisy, sigma=sigma)
    rows = [{"steps": 0, "psnr": psnr(found.denoised, clean, 1.0), "estimate": found.estimated_psnr, "seconds": plain}]
    for steps in config.steps:
        start = time.perf_counter()
        adapted = adapter.adapted(denoiser.as_shown(noisy, sigma), steps=steps, seed=config.seed)
        seconds = time.perf_counter() - start + plain
        found = denoiser.with_adapted(adapted).posterior(noisy, sigma=sigma)
        rows.append(
            {
                "steps": steps,
                "psnr": psnr(found.denoised, clean, 1.0),
                "estimate": found.estimated_psnr,
                "seconds": seconds,
                "share": adapted.share,
            }
        )
    return rows


def run(config: Config) -> None:
    """Measures and prints the table."""
    import bsdenoise
    from bsdenoise.adaptation import Adapter

    config.out.mkdir(parents=True, exist_ok=True)
    print(machine.describe())
    print(
        f"sigma {config.sigma:g}, {config.precision}\n\n"
        "| model | images | steps | PSNR, dB | gain | least | greatest | left as it was | estimate − truth "
        "| time, in plain passes |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for name in config.models:
        denoiser = bsdenoise.load(name)
        if config.precision != "float32":
            denoiser = denoiser.in_precision(config.precision)
        adapter = Adapter(denoiser)
        # Compiles a step.
        adapter.adapted(denoiser.as_shown(np.full((160, 160, denoiser.channels), 0.5, "float32"), 0.1), steps=1)
        for folder in config.data:
            found = []
            for number, (stem, clean) in enumerate(images(folder, denoiser.channels, config.limit)):
                steps = "-".join(map(str, config.steps))
                key = f"{name}-{folder.name}-{stem}-{config.sigma:g}-{config.precision}-{steps}-{config.seed}.json"
                path = config.out / key
                if not path.exists():
                    rows = measured(denoiser, adapter, clean, config, number)
                    path.write_text(json.dumps([{key: float(value) for key, value in row.items()} for row in rows]))
                found.append(json.loads(path.read_text()))
            for line in table(name, folder.name, found):
                print(line, flush=True)


def table(model: str, name: str, found: list[list[dict[str, float]]]) -> Iterator[str]:
    """Gives a line for each number of steps."""
    for index, first in enumerate(found[0]):
        rows = [image[index] for image in found]
        gains = [row["psnr"] - image[0]["psnr"] for row, image in zip(rows, found, strict=True)]
        ratios = [row["seconds"] / image[0]["seconds"] for row, image in zip(rows, found, strict=True)]
        left = sum(row.get("share") == 0 for row in rows)
        estimate = np.nanmean([row["estimate"] - row["psnr"] for row in rows])
        yield (
            f"| {model} | {name} ({len(rows)}) | {first['steps']:g} | {np.mean([row['psnr'] for row in rows]):.2f} "
            f"| {np.mean(gains):+.3f} | {min(gains):+.3f} | {max(gains):+.3f} | {left} | {estimate:+.3f} "
            f"| {statistics.median(ratios):.1f} |"
        )


if __name__ == "__main__":
    run(tyro.cli(Config, description=__doc__))
