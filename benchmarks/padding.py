"""Where should zeros go when sides are no multiple of 2^depth: around the image, or at each pooling?

The package pads maps by one row or column wherever a pooling meets an odd side, where the bottom and the right of the
image are in each rotated branch, so that all branches share one pooling grid. The alternative pads the image once, at
the bottom and on the right, and crops the result. Both are run here with the same weights: crops for training are
multiples of 2^depth, for which the two do not differ. PSNR is that of the whole image, and that of a frame along its
four sides.

    python -m benchmarks.padding --model RUN --data bsd300 --noise gaussian:25
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks import machine
from bsdenoise.network.layers import CropLike, PadToMultiple


@dataclass(frozen=True)
class Config:
    """Compares two ways to pad."""

    model: Path
    """A .keras file, or a run folder that holds denoiser.keras."""
    data: str
    """Folder of clean images."""
    noise: str = "gaussian:25"
    """Noise to add."""
    every: int = 1
    """Take only every so many images."""
    frame: int = 16
    """Width in pixels of the frame that is measured by itself."""


def padded_around_the_image(denoiser) -> Callable[[np.ndarray], np.ndarray]:
    """Gives the function that pads an image, calls the network, and crops."""
    pad, crop = PadToMultiple(denoiser.grid), CropLike()
    return lambda image: crop((denoiser.network(pad(image)), image))


def run(config: Config) -> None:
    """Measures and prints."""
    from bsdenoise.cli.models import load_denoiser
    from bsdenoise.evaluation import cases
    from bsdenoise.evaluation.metrics import psnr
    from bsdenoise.evaluation.table import confidence_half_width

    denoiser = load_denoiser(config.model)
    networks = {"image": padded_around_the_image(denoiser), "pooling": denoiser.network}
    results = {(way, part): [] for way in networks for part in ("whole", "frame")}
    for item in cases.clean_items([config.data], every=(config.every,)):
        case = cases.read_clean(item, denoiser.channels, config.noise)
        frame = np.ones(case.clean.shape, bool)
        frame[config.frame : -config.frame, config.frame : -config.frame] = False
        for way, network in networks.items():
            outputs = network(case.noisy[None])
            sigma = np.full(1, case.sigma, "float32")
            denoised = np.asarray(denoiser.estimator.map_estimate(outputs, case.noisy[None], sigma))[0]
            results[way, "whole"].append(psnr(denoised, case.clean, case.peak))
            results[way, "frame"].append(psnr(denoised[frame], case.clean[frame], case.peak))
    print(f"{config.model} on {config.data}, {config.noise}; {machine.describe()}")
    summary = {}
    for part in ("whole", "frame"):
        image, pooling = (np.array(results[way, part]) for way in ("image", "pooling"))
        gain = confidence_half_width(list(pooling - image))
        print(
            f"{part}: padded around the image {image.mean():.3f} dB, at each pooling {pooling.mean():.3f} dB, "
            f"difference {np.mean(pooling - image):+.4f} ± {gain:.4f} dB over {len(image)} images"
        )
        summary[part] = {"image": image.mean(), "pooling": pooling.mean(), "half_width": gain}
    print(json.dumps({"machine": machine.describe(), **summary}))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
