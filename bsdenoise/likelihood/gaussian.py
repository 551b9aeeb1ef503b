"""The per-pixel Gaussian model: likelihood, MAP estimate, posterior, and quality without a clean image.

Symbols, all per pixel with C channels, in the units of the image:

* x̃ (`noisy`) is the observed colour, μ (`mean`) the predicted one, r = x̃ − μ;
* Σ_p (`prior_cov`) is the covariance of the clean colour given the surroundings, Σ_y = Σ_p + σ²I (`noisy_cov`) that
  of the observed one;
* G = σ² Σ_y⁻¹ is the gain: the denoised colour is x̂ = x̃ − G r (Laine et al. 2019, Eqs. 2-3, rewritten without an
  inverse of Σ_p), and its posterior covariance is σ²(I − G).

The network gives C numbers for μ and the entries of a triangular factor, either of the covariance of the clean
colour, Σ_p = L Lᵀ (factor "prior", after the follow-up, Laine, Karras, Lehtinen, Aila 2019), or of the
precision of the observed one, Σ_y⁻¹ = AᵀA (factor "precision", the paper's own).
"""

import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from bsdenoise.likelihood import covariance, sure

DETERMINANT_EPSILON = 1e-8  # Laine et al. 2019, Eq. 1
MAX_MEAN = 1e4  # bounds that no image comes near (full scale is 1); with them, no raw output overflows float32
MAX_PRIOR_FACTOR = 100.0
MAX_PRECISION_FACTOR = 1e4
MIN_PRECISION_DIAGONAL = 1e-2
INITIAL_STD = 0.1  # of the prediction when the raw outputs are zero: ten percent of full scale
CLAMPS = ("eigenvalue", "diagonal", "none")
FACTORS = ("prior", "precision")
MIN_SIGMA = 1e-6  # as full scale is 1: less noise than any camera has; keeps σ → 0 defined


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
        """Checks the arguments."""
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

    def mean(self, outputs):
        """Gives μ, (B, H, W, C), from network outputs (B, H, W, n)."""
        return ops.clip(ops.cast(outputs[..., : self.channels], "float32"), -MAX_MEAN, MAX_MEAN)

    def prior_variance(self, outputs):
        """Gives the diagonal of Σ_p, (B, H, W, C), or `None` where it cannot be told from the noise's share of Σ_y."""
        if self.factor == "precision":
            return None
        squares = ops.square(self._factor(outputs))
        if self._is_diagonal:
            return squares
        rows, _ = np.tril_indices(self.channels)  # row by row, as factors are packed
        return ops.matmul(squares, ops.convert_to_tensor((rows[:, None] == np.arange(self.channels)).astype("float32")))

    def nll(self, outputs, noisy, sigma):
        """Computes the negative log-likelihood of each observed pixel, up to the constant C/2 · log 2π.

        ½ rᵀ Σ_y⁻¹ r + ½ log|Σ_y|; for the precision factor in the form of Laine et al. 2019, Eq. 1,
        ½‖A r‖² − log|A|, with log|A| ≥ log ε, which does not depend on σ.

        Args:
            outputs: Network outputs (B, H, W, n).
            noisy: Observed image (B, H, W, C).
            sigma: Noise standard deviation: a number, one per image (B,), or a map (B, H, W).

        Returns:
            float32 (B, H, W).
        """
        residual = ops.cast(noisy, "float32") - self.mean(outputs)
        if self.factor == "precision":
            factor = self._factor(outputs)
            if self._is_diagonal:
                whitened, diagonal = factor * residual, factor
            else:
                whitened = covariance.triangular_product(factor, residual)
                diagonal = ops.take(factor, covariance.diagonal_indices(self.channels), axis=-1)
            log_det = ops.sum(ops.log(diagonal), axis=-1)
            log_det = ops.maximum(log_det, math.log(DETERMINANT_EPSILON))
            return 0.5 * ops.sum(ops.square(whitened), axis=-1) - log_det
        factorized = self._factorized_noisy_cov(outputs, self._noise_variance(sigma))
        return 0.5 * (factorized.mahalanobis_sq(residual) + factorized.log_det())

    def map_estimate(self, outputs, noisy, sigma):
        """Computes the MAP estimate x̂ = x̃ − σ² Σ_y⁻¹ (x̃ − μ) (Laine et al. 2019, Eqs. 2-3).

        Args as for `nll`.

        Returns:
            float32 (B, H, W, C).
        """
        noisy = ops.cast(noisy, "float32")
        noise_variance = self._noise_variance(sigma)
        step = self._factorized_noisy_cov(outputs, noise_variance).solve(noisy - self.mean(outputs))
        return noisy - noise_variance[..., None] * step

    def moments(self, outputs, noisy, sigma, added_variance=None):
        """Computes x̂, μ and the diagonal of the posterior covariance σ²(I − G).

        Args:
            outputs: As for `nll`, like the two that follow.
            noisy: Likewise.
            sigma: Likewise.
            added_variance: What the prediction is worse than it claims, added to the diagonal of Σ_p, (B,). A
                precision factor gives Σ_y itself, to which nothing is added.

        Returns:
            Three float32 tensors (B, H, W, C): denoised, mean, variance. Without the eigenvalue clamp, a
            variance may come out negative.
        """
        noisy, mean = ops.cast(noisy, "float32"), self.mean(outputs)
        noise_variance = self._noise_variance(sigma)
        if added_variance is None or self.factor == "precision":
            factorized = self._factorized_noisy_cov(outputs, noise_variance)
        else:
            factorized = self._factorized_noisy_cov(outputs, noise_variance + added_variance[..., None, None])
        noise_variance = noise_variance[..., None]
        denoised = noisy - noise_variance * factorized.solve(noisy - mean)
        variance = noise_variance * (1.0 - noise_variance * factorized.inverse_diagonal())
        return denoised, mean, variance

    def posterior_covariance(self, outputs, sigma):
        """Computes the posterior covariance σ²(I − G), (B, H, W, C, C)."""
        noise_variance = self._noise_variance(sigma)[..., None, None]
        inverse = self._factorized_noisy_cov(outputs, noise_variance[..., 0, 0]).inverse()
        return noise_variance * (ops.eye(self.channels, dtype="float32") - noise_variance * inverse)

    @property
    def _is_diagonal(self):
        """Whether covariances are diagonal; those of one channel always are, so that "full" is the very same there."""
        return self.diagonal or self.channels == 1

    @property
    def _covariance_class(self):
        return covariance.covariance_class(self.channels, self._is_diagonal)

    def _factor(self, outputs):
        """Reads the triangular factor, packed, from raw outputs: bounded, with a diagonal away from zero.

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

    def _factorized_noisy_cov(self, outputs, noise_variance):
        """Factorises Σ_y, after the clamp."""
        cls, factor = self._covariance_class, self._factor(outputs)
        if self.factor == "prior":
            return cls.factorize(cls.root_from_factor(factor), noise_variance)
        noisy_cov = cls.from_inverse_factor(factor)
        if self.clamp == "eigenvalue":
            prior_cov = noisy_cov.plus_diagonal(-noise_variance)
            return cls.factorize(prior_cov.psd_root(), noise_variance)
        if self.clamp == "diagonal":
            noisy_cov = noisy_cov.clamp_diagonal(noise_variance)
        return cls.factorize(noisy_cov.psd_root(), noisy_cov.rounding())

    def _noise_variance(self, sigma):
        """Gives σ² as float32, () for one number, (B, 1, 1) for one per image, (B, H, W) for a map."""
        sigma = ops.convert_to_tensor(sigma, "float32")
        if len(sigma.shape) == 1:
            sigma = sigma[:, None, None]
        elif len(sigma.shape) not in (0, 3):
            raise ValueError(f"`sigma` must be a number, (B,) or (B, H, W). Received: shape={tuple(sigma.shape)}.")
        return ops.square(ops.maximum(sigma, MIN_SIGMA))


def map_estimate(outputs, noisy, sigma, factor="prior", diagonal=False, clamp="eigenvalue"):
    """Joins a blind-spot prediction with the observed pixels (Laine et al. 2019, Eqs. 2-3).

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
    """Estimates the mean squared error of x̂ = x̃ − G(x̃ − μ) without a clean image (Stein's unbiased risk estimate).

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
