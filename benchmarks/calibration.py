"""Are the uncertainties and the estimated PSNR right where noise grows with the signal?

    python -m benchmarks.calibration KODAK --models grey-gaussian5-50-small rgb-gaussian5-50-small

draws noise on clean photographs and denoises them by the generalised Anscombe transform, with the noise
told and with the noise estimated. Calibrated means that the squared error is the posterior variance on average, and
that the estimated PSNR is the true one. An estimate that is withheld is left out of the means and counted.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from benchmarks import machine
from benchmarks.adaptation import LEVELS, images


@dataclass(frozen=True)
class Config:
    """Measures calibration."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder of clean photographs."""
    models: tuple[str, ...] = ("grey-gaussian5-50-small", "rgb-gaussian5-50-small")
    """Models for white noise of a range."""
    noise: tuple[str, ...] = (
        "gaussian:25",
        "poisson:30",
        "poisson-gaussian:gain=2,sigma=3,pedestal=0",
        "poisson-gaussian:gain=8,sigma=6,pedestal=5",
    )
    """Noise SPECs, in grey levels."""
    limit: int | None = None
    """How many photographs are measured: evenly spread ones. Default: all."""


def run(config: Config) -> None:
    """Measures and prints the table."""
    import bsdenoise
    from bsdenoise import noise as noise_models
    from bsdenoise.evaluation.metrics import psnr

    print(machine.describe())
    print(
        "\n| model | noise | told | images | PSNR, dB | squared error over variance | least to greatest of an image "
        "| estimated − true PSNR, mean | largest of an image | withheld |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for name in config.models:
        denoiser = bsdenoise.load(name).stabilized()
        for spec in config.noise:
            known = noise_models.parse(spec, LEVELS)
            theta = dict(zip((one.name for one in known.parameters), known.least, strict=True))
            told = [theta.get(parameter.name, 0.0) for parameter in denoiser.noise.parameters]
            for noise, word in ((told, "yes"), (None, "no")):
                rows = []
                for number, (_, clean) in enumerate(images(config.data, denoiser.channels, config.limit)):
                    rng = np.random.default_rng(number)
                    noisy = known.corrupt(clean, np.array(known.least, np.float32), rng).astype("float32")
                    found = denoiser.posterior(noisy, noise=noise)
                    error = np.mean((found.denoised - clean) ** 2, dtype=np.float64)
                    ratio = error / np.mean(found.std**2, dtype=np.float64)
                    rows.append((psnr(found.denoised, clean, 1.0), ratio, found.estimated_psnr))
                psnrs, ratios, estimates = (np.array(column, np.float64) for column in zip(*rows, strict=True))
                withheld = np.isnan(estimates)
                off = (estimates - psnrs)[~withheld]
                print(
                    f"| {name} | {spec} | {word} | {len(rows)} | {psnrs.mean():.2f} | {statistics.median(ratios):.3f} "
                    f"| {ratios.min():.2f} to {ratios.max():.2f} | {np.mean(off) if len(off) else np.nan:+.3f} "
                    f"| {max(map(abs, off), default=np.nan):.2f} | {withheld.sum()} |",
                    flush=True,
                )


if __name__ == "__main__":
    run(tyro.cli(Config, description=__doc__))
