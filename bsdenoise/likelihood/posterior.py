"""What denoising tells of the clean image, as a plain record: computed here or by a server, it is the same."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bsdenoise.likelihood import sure

# Why there is no estimated PSNR, in the words that users get to see.
WITHHELD = (
    "the noise of the image is not what was declared or estimated: sigma is too large, much of the noise is clipped, "
    "it depends on the brightness, or it is of a kind for which there is no estimate"
)
# What an exported graph gives instead of NaN, which JSON does not know.
SERVED_WITHHELD = -1.0


@dataclass(frozen=True)
class Posterior:
    """What is known of the clean image after seeing the noisy one.

    `Denoiser.posterior` gives it for one image as well: maps (H, W, C) or (H, W), and numbers for `estimated_psnr` and
    `sigma`.

    Attributes:
        denoised: MAP estimate and posterior mean x̂, (B, H, W, C).
        mean: Prediction μ from the surroundings alone, (B, H, W, C).
        std: Posterior standard deviation of each channel, (B, H, W, C).
        estimated_psnr: PSNR of `denoised` in dB for a peak of 1, estimated without a clean image, (B,). NaN where it
            is withheld, because it would not be right: `WITHHELD` says why in words.
        sigma: Noise standard deviation that was used, (B,), in the units of the image; 0 where none was found. `None`
            of noise that has other parameters.
        noise: Noise parameters θ that were used, (B, P), in the units of the image.
    """

    denoised: Any
    mean: Any
    std: Any
    estimated_psnr: Any
    sigma: Any = None
    noise: Any = None

    def of_one(self) -> "Posterior":
        """Return what is told of one image: numbers instead of arrays of one, maps as they are."""
        sigma = None if self.sigma is None else float(self.sigma[0])
        return replace(self, estimated_psnr=float(self.estimated_psnr[0]), sigma=sigma, noise=self.noise[0])


def estimate_psnr(
    denoised: np.ndarray,
    noisy: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    noise_variance: np.ndarray,
    counts: np.ndarray | None = None,
    terms: np.ndarray | None = None,
    least_share: np.ndarray | float = sure.MIN_SHARE_OF_NOISE,
) -> np.ndarray:
    """Estimate the PSNR of whole images without clean ones, as `bsdenoise.likelihood.sure` does.

    Args:
        denoised: (B, H, W, C), like all images here in units whose peak is 1.
        noisy: (B, H, W, C).
        mean: (B, H, W, C).
        std: (B, H, W, C).
        noise_variance: Variance of the noise, (B, 1, 1, 1), or one for each channel or pixel.
        counts: Which pixels hold measurements, bool (B, H, W, C); `None` for all.
        terms: As for `sure.means`, (B, H, W, C).
        least_share: As for `sure.psnr`, a number or one per image, (B,).

    Returns:
        float32 (B,), in dB; NaN where it is withheld.
    """
    # Of each image alone, so that the float64 copies are those of one.
    found = []
    for index in range(len(noisy)):
        one = slice(index, index + 1)
        counted = None if counts is None else counts[one]
        if counted is not None and not counted.any():
            found.append(np.full(1, np.nan))
            continue
        limits = sure.clip_limits(np, noisy[one], counted)
        its_denoised, its_noisy, its_mean, its_std, its_noise = (
            array[one].astype(np.float64) for array in (denoised, noisy, mean, std, noise_variance)
        )
        term = None if terms is None else terms[one]
        its = (its_denoised, its_noisy, its_mean, its_std, its_noise)
        share, first, second = sure.means(np, *its, limits, counted, term)
        its_variance = its_noise.mean(axis=(1, 2, 3))
        least = np.broadcast_to(least_share, len(noisy))[one]
        found.append(sure.psnr(np, share, first, second, its_variance, noisy[one].size, least))
    return np.concatenate(found).astype(np.float32)
