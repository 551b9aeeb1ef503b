"""What do bfloat16 and the self-ensemble change in quality, and what do they cost?

Denoises the same noisy images with one model in several ways, by turns, and compares PSNRs image by image. Copies share
branches where the network has some; "one by one" each goes through the whole network. Times are medians over the
images, which should be of one size; those of the processor say more where other programs run.

    python -m benchmarks.variants --model rgb-gaussian25 --data KODAK
"""

import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from benchmarks import machine
from bsdenoise.inference import self_ensemble


@dataclass(frozen=True)
class Config:
    """Compares precisions and sizes of the self-ensemble."""

    model: Path
    """A .keras file, a run folder that holds denoiser.keras, or the name of a preset."""
    data: str
    """Folder of clean images."""
    noise: str = "gaussian:25"
    """Noise to add."""
    every: int = 1
    """Take only every so many images."""
    tta: tuple[int, ...] = (2, 4, 8)
    """Numbers of copies to try."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """That of the network where copies are averaged."""
    one_by_one: bool = True
    """Whether copies that share nothing are tried too."""


def one_by_one(denoiser, noisy, sigma, size) -> np.ndarray:
    """Denoises an image (H, W, C) as the mean over copies, each by itself."""
    changes = self_ensemble.Copies.one_by_one(size).changes

    def compute(images, _):
        return [denoiser.denoise(images, sigma=sigma)]

    return self_ensemble.average(compute, noisy[np.newaxis], changes)[0][0]


def ways(config: Config, denoiser) -> dict[str, Callable]:
    """Gives functions from a noisy image and its σ to a denoised one, by what they are called."""
    models = {precision: denoiser.in_precision(precision) for precision in ("float32", "bfloat16")}
    found = {precision: model.denoise for precision, model in models.items()}
    model = models[config.precision]
    for size in config.tta:
        found[f"{size} copies"] = functools.partial(model.denoise, tta=size)
        if config.one_by_one:
            found[f"{size} copies, one by one"] = functools.partial(one_by_one, model, size=size)
    return found


def run(config: Config) -> None:
    """Measures and prints."""
    from bsdenoise.cli.models import load_denoiser
    from bsdenoise.evaluation import cases
    from bsdenoise.evaluation.metrics import psnr
    from bsdenoise.evaluation.table import confidence_half_width

    denoiser = load_denoiser(config.model)
    functions = ways(config, denoiser)
    psnrs: dict[str, list[float]] = {way: [] for way in functions}
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in functions}
    for number, item in enumerate(cases.clean_items([config.data], every=(config.every,))):
        case = cases.read_clean(item, denoiser.channels, config.noise)
        for way, function in functions.items():
            if number == 0:
                function(case.noisy, sigma=case.sigma)  # compiled from here on
            before = time.perf_counter(), time.process_time()
            denoised = function(case.noisy, sigma=case.sigma)
            seconds[way].append((time.perf_counter() - before[0], time.process_time() - before[1]))
            psnrs[way].append(psnr(denoised, case.clean, case.peak))
    print(f"{config.model} on {config.data}, {config.noise}, {config.precision}; {machine.describe()}")
    result: dict = {"machine": machine.describe(), "images": len(psnrs["float32"])}
    base = np.median(seconds[config.precision], axis=0)
    for way in functions:
        gain = np.subtract(psnrs[way], psnrs[config.precision])
        clock, processor = np.median(seconds[way], axis=0)
        print(
            f"{way:22}{np.mean(psnrs[way]):8.3f} dB, {gain.mean():+.4f} ± {confidence_half_width(list(gain)):.4f} dB; "
            f"{clock:.2f} s, {clock / base[0]:.2f} times one copy; of processors {processor:.2f} s, "
            f"{processor / base[1]:.2f} times"
        )
        result[way] = {
            "psnr": np.mean(psnrs[way]),
            "gain": gain.mean(),
            "seconds": clock,
            "processor_seconds": processor,
        }
    for size in config.tta if config.one_by_one else ():
        own, other = (np.median(seconds[f"{size} copies{how}"], axis=0) for how in ("", ", one by one"))
        shares = own / other
        print(f"{size} copies against one by one: {shares[0]:.3f} of the time, {shares[1]:.3f} of that of processors")
    print(json.dumps(result))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
