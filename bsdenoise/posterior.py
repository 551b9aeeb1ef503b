"""What denoising tells of the clean image, as a plain record: computed here or by a server, it is the same."""

from dataclasses import dataclass
from typing import Any

MIN_ESTIMATED_MSE = 1e-10  # an estimate may fall below zero on small images: 100 dB at most


@dataclass(frozen=True)
class Posterior:
    """What is known of the clean image after seeing the noisy one.

    `Denoiser.posterior` gives it for one image as well: maps (H, W, C) or (H, W), and a number for `estimated_psnr`.

    Attributes:
        denoised: MAP estimate and posterior mean x̂, (B, H, W, C).
        mean: Prediction μ from the surroundings alone, (B, H, W, C).
        std: Posterior standard deviation of each channel, (B, H, W, C).
        estimated_psnr: PSNR of `denoised` in dB for a peak of 1, estimated without a clean image, (B,).
    """

    denoised: Any
    mean: Any
    std: Any
    estimated_psnr: Any
