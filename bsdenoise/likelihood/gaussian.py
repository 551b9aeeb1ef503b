"""The per-pixel Gaussian model: how network outputs are read, and what follows for white noise.

The network gives C numbers for μ and the entries of a triangular factor, either of the covariance of the clean
colour, Σ_p = L Lᵀ (factor "prior", after the follow-up, Laine, Karras, Lehtinen, Aila 2019), or of the
precision of the observed one, Σ_y⁻¹ = AᵀA (factor "precision", the paper's own).
"""

import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from bsdenoise.likelihood import covariance, sure
from bsdenoise.likelihood.prior import GaussianPrior

MAX_MEAN = 1e4  # bounds that no image comes near (full scale is 1); with them, no raw output overflows float32
MAX_PRIOR_FACTOR = 100.0
MAX_PRECISION_FACTOR = 1e4
MIN_PRECISION_DIAGONAL = 1e-2
INITIAL_STD = 0.1  # of the prediction when the raw outputs are zero: ten percent of full scale
CLAMPS = ("eigenvalue", "diagonal", "none")
FACTORS = ("prior", "precision")


@dataclass(frozen=True)
class GaussianLikelihood:
    """Reads network outputs as one Gaussian per pixel.

    Args:
        channels: Number C of image channels, ≥ 1.
        factor: "prior" or "precision": which triangular factor the network gives.
        diagonal: Whether the covariances are diagonal ("per-component" in the paper).
        clamp: How a prediction that claims less variance than the noise has is mended (it can occur with the
            precision factor only). "eigenvalue" makes Σ_p positive semi-definite, so that no eigenvalue of the
            gain exceeds 1; "diagonal" only raises the diagonal of Σ_p to 0, as in the paper; "none" does nothing.

    Raises:
        ValueError: If an argument is none of these.

    Example:
        >>> likelihood = GaussianLikelihood(channels=3)
        >>> outputs = keras.ops.zeros((1, 4, 5, likelihood.num_outputs))
        >>> tuple(likelihood.map_estimate(outputs, keras.ops.ones((1, 4, 5, 3)), sigma=0.1).shape)
        (1, 4, 5, 3)
    """

    channels: int
    factor: str = "prior"
    diagonal: bool = False
    clamp: str = "eigenvalue"

    def __post_init__(self):
        """Check the arguments."""
        if not isinstance(self.channels, int) or self.channels < 1:
            raise ValueError(f"`channels` must be a positive integer. Received: channels={self.channels!r}.")
        if self.factor not in FACTORS:
            raise ValueError(f"`factor` must be one of {FACTORS}. Received: factor={self.factor!r}.")
        if self.clamp not in CLAMPS:
            raise ValueError(f"`clamp` must be one of {CLAMPS}. Received: clamp={self.clamp!r}.")

    @property
    def num_outputs(self) -> int:
        """Number of network outputs per pixel: C for μ, and C or C(C+1)/2 for the factor."""
        triangle = self.channels if self._is_diagonal else self.channels * (self.channels + 1) // 2
        return self.channels + triangle

    def prior(self, outputs):
        """Read what the network predicts of the clean pixels, a `GaussianPrior`, from its outputs (B, H, W, n)."""
        return GaussianPrior(
            mean=ops.clip(ops.cast(outputs[..., : self.channels], "float32"), -MAX_MEAN, MAX_MEAN),
            factor=self._factor(outputs),
            is_precision=self.factor == "precision",
            is_diagonal=self._is_diagonal,
            clamp=self.clamp,
        )

    def nll(self, outputs, noisy, sigma):
        """Compute `GaussianPrior.nll` for white noise.

        Args:
            outputs: Network outputs (B, H, W, n).
            noisy: Observed image (B, H, W, C).
            sigma: Noise standard deviation: a number, one per image (B,), or a map (B, H, W).

        Returns:
            float32 (B, H, W).
        """
        return self.prior(outputs).nll(noisy, _variance(sigma))

    def map_estimate(self, outputs, noisy, sigma):
        """Compute the MAP estimate x̂ = x̃ − σ² Σ_y⁻¹ (x̃ − μ) (Laine et al. 2019, Eqs. 2-3).

        Args as for `nll`.

        Returns:
            float32 (B, H, W, C).
        """
        return self.prior(outputs).posterior(noisy, _variance(sigma)).denoised

    def moments(self, outputs, noisy, sigma):
        """Compute `GaussianPrior.posterior` for white noise; args as for `nll`."""
        return self.prior(outputs).posterior(noisy, _variance(sigma))

    def posterior_covariance(self, outputs, sigma):
        """Compute the posterior covariance σ²(I − G) for white noise, (B, H, W, C, C)."""
        return self.prior(outputs).posterior_covariance(_variance(sigma))

    @property
    def _is_diagonal(self):
        """Whether covariances are diagonal; those of one channel always are, so that "full" is the very same there."""
        return self.diagonal or self.channels == 1

    def _factor(self, outputs):
        """Read the triangular factor, packed, from raw outputs: bounded, with a diagonal away from zero.

        At raw outputs of zero both factors stand for independent channels with a standard deviation of
        `INITIAL_STD`: a prior factor that starts at zero would never leave it, the gradient of L Lᵀ being zero there.
        """
        raw = ops.cast(outputs[..., self.channels :], "float32")
        on_diagonal = np.zeros(raw.shape[-1], "float32")
        on_diagonal[range(self.channels) if self._is_diagonal else covariance.diagonal_indices(self.channels)] = 1.0
        on_diagonal = ops.convert_to_tensor(on_diagonal)
        if self.factor == "prior":
            return ops.clip(raw + INITIAL_STD * on_diagonal, -MAX_PRIOR_FACTOR, MAX_PRIOR_FACTOR)
        start = math.log(math.expm1(1.0 / INITIAL_STD))
        bounded = ops.clip(raw, -MAX_PRECISION_FACTOR, MAX_PRECISION_FACTOR)
        positive = ops.maximum(ops.softplus(bounded + start), MIN_PRECISION_DIAGONAL)
        return on_diagonal * positive + (1.0 - on_diagonal) * bounded


def _variance(sigma):
    """Return σ² as (1, 1, 1, 1) for one number, (B, 1, 1, 1) for one per image, (B, H, W, 1) for a map."""
    sigma = ops.convert_to_tensor(sigma, "float32")
    if len(sigma.shape) not in (0, 1, 3):
        raise ValueError(f"`sigma` must be a number, (B,) or (B, H, W). Received: shape={tuple(sigma.shape)}.")
    return ops.square(sigma[..., None] if len(sigma.shape) == 3 else ops.reshape(sigma, (-1, 1, 1, 1)))


def map_estimate(outputs, noisy, sigma, factor="prior", diagonal=False, clamp="eigenvalue"):
    """Join a blind-spot prediction with the observed pixels (Laine et al. 2019, Eqs. 2-3).

    Args:
        outputs: Network outputs (B, H, W, n).
        noisy: Observed image (B, H, W, C).
        sigma: Noise standard deviation in the units of the image: a number, or one per image (B,).
        factor: As for `GaussianLikelihood`, like the two that follow.
        diagonal: Whether covariances are diagonal.
        clamp: How a prediction with less variance than the noise is mended.

    Returns:
        The denoised image, float32 (B, H, W, C).
    """
    likelihood = GaussianLikelihood(noisy.shape[-1], factor, diagonal, clamp)
    return likelihood.map_estimate(outputs, noisy, sigma)


def stein_mse(denoised, noisy, sigma, variance=None):
    """Estimate the mean squared error of x̂ = x̃ − G(x̃ − μ) without a clean image (Stein's unbiased risk estimate).

    mean‖x̂ − x̃‖²/C − σ² + 2σ² · mean tr(I − G)/C. It is exact in expectation, with no Monte Carlo term, because
    neither μ nor G at a pixel depends on that pixel's noise. It supposes noise that is independent, unclipped and
    unquantised, and the gain that was really applied, after any clamp.

    Args:
        denoised: x̂, (B, H, W, C).
        noisy: x̃, (B, H, W, C).
        sigma: Noise standard deviation, a number or (B,).
        variance: Diagonal of σ²(I − G), (B, H, W, C), as from `GaussianLikelihood.moments`; `None` for a blind
            estimate that is not joined with the observed pixel (G = I).

    Returns:
        float32 (B,); may be ≤ 0 on small images.
    """
    axes = (1, 2, 3)
    moved = ops.mean(ops.square(denoised - noisy), axis=axes)
    mse = moved - ops.square(ops.convert_to_tensor(sigma, "float32"))
    return mse if variance is None else mse + 2.0 * ops.mean(variance, axis=axes)


def psnr_from_mse(mse):
    """Return the PSNR in dB for a peak of 1; NaN for errors too near to zero, or below, to be believed."""
    decibels = -10.0 / math.log(10.0) * ops.log(ops.maximum(mse, sure.MIN_ERROR))
    return ops.where(ops.convert_to_tensor(mse) > sure.MIN_ERROR, decibels, math.nan)
