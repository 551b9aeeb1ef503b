"""What a network predicts of the clean pixels, a Gaussian each, and what follows from it with the observed ones.

Symbols, all per pixel with C channels, in the units of the image:

* x̃ (`noisy`) is the observed colour, μ (`mean`) the predicted one, r = x̃ − μ;
* N is the covariance of the noise, diagonal; its variances are `noise_variance`, σ² in every channel for white noise;
* Σ_p (`prior_cov`) is the covariance of the clean colour given the surroundings, Σ_y = Σ_p + N (`noisy_cov`) that
  of the observed one;
* G = N Σ_y⁻¹ is the gain: the denoised colour is x̂ = x̃ − G r (Laine et al. 2019, Eqs. 2-3, rewritten without an
  inverse of Σ_p), and its posterior covariance is (I − G) N.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from bsdenoise.likelihood import covariance
from bsdenoise.likelihood.sure import MIN_SIGMA

DETERMINANT_EPSILON = 1e-8  # Laine et al. 2019, Eq. 1


class Moments(NamedTuple):
    """What is known of the clean pixels, (B, H, W, C) each.

    Attributes:
        denoised: Posterior mean x̂.
        mean: Prediction μ from the surroundings alone; `None` of a point estimate.
        variance: Diagonal of the posterior covariance; `None` of a point estimate.
    """

    denoised: Any
    mean: Any = None
    variance: Any = None


@dataclass(frozen=True)
class GaussianPrior:
    """A Gaussian per pixel for the clean colour, before the pixel itself is seen.

    Args:
        mean: μ, (B, H, W, C).
        factor: Triangular factor, packed along the last axis: L of Σ_p = L Lᵀ, or A of Σ_y⁻¹ = AᵀA.
        is_precision: Whether it is A. Σ_p then follows from N only, and may have to be mended.
        is_diagonal: Whether the covariances are diagonal.
        clamp: How it is mended, as for `GaussianLikelihood`.
    """

    xp = ops  # for noise models, which do not know what their arrays are of
    mean: Any
    factor: Any
    is_precision: bool = False
    is_diagonal: bool = False
    clamp: str = "eigenvalue"

    @property
    def channels(self) -> int:
        """Number C of channels."""
        return self.mean.shape[-1]

    @property
    def variance(self):
        """Diagonal of Σ_p, (B, H, W, C); `None` where it cannot be told from the noise's share of Σ_y."""
        if self.is_precision:
            return None
        squares = ops.square(self.factor)
        if self.is_diagonal:
            return squares
        rows, _ = np.tril_indices(self.channels)  # row by row, as factors are packed
        return ops.matmul(squares, ops.convert_to_tensor((rows[:, None] == np.arange(self.channels)).astype("float32")))

    def nll(self, noisy, noise_variance):
        """Compute the negative log-likelihood of each observed pixel, up to the constant C/2 · log 2π.

        ½ rᵀ Σ_y⁻¹ r + ½ log|Σ_y|; for the precision factor in the form of Laine et al. 2019, Eq. 1,
        ½‖A r‖² − log|A|, with log|A| ≥ log ε, which does not depend on the noise.

        Args:
            noisy: Observed image (B, H, W, C).
            noise_variance: Variance of the noise, broadcastable to (B, H, W, C).

        Returns:
            float32 (B, H, W).
        """
        residual = ops.cast(noisy, "float32") - self.mean
        if self.is_precision:
            if self.is_diagonal:
                whitened, diagonal = self.factor * residual, self.factor
            else:
                whitened = covariance.triangular_product(self.factor, residual)
                diagonal = ops.take(self.factor, covariance.diagonal_indices(self.channels), axis=-1)
            log_det = ops.sum(ops.log(diagonal), axis=-1)
            log_det = ops.maximum(log_det, math.log(DETERMINANT_EPSILON))
            return 0.5 * ops.sum(ops.square(whitened), axis=-1) - log_det
        factorized = self._factorized(_floored(noise_variance))
        return 0.5 * (factorized.mahalanobis_sq(residual) + factorized.log_det())

    def posterior(self, noisy, noise_variance, added_variance=None):
        """Compute x̂ = x̃ − G (x̃ − μ), μ and the diagonal of the posterior covariance (I − G) N.

        Args:
            noisy: Observed image (B, H, W, C).
            noise_variance: Variance of the noise, broadcastable to (B, H, W, C).
            added_variance: What the prediction is worse than it claims, added to the diagonal of Σ_p, broadcastable to
                (B, H, W, C). A precision factor gives Σ_y itself, to which nothing is added.

        Returns:
            `Moments` in float32. Without the eigenvalue clamp, a variance may come out negative.
        """
        noisy, noise_variance = ops.cast(noisy, "float32"), _floored(noise_variance)
        factorized = self._factorized(noise_variance, added_variance)
        denoised = noisy - noise_variance * factorized.solve(noisy - self.mean)
        variance = noise_variance * (1.0 - noise_variance * factorized.inverse_diagonal())
        return Moments(denoised, self.mean, variance)

    def posterior_covariance(self, noise_variance):
        """Compute the posterior covariance (I − G) N, (B, H, W, C, C).

        Args:
            noise_variance: Variance of the noise, broadcastable to (B, H, W, C).
        """
        noise_variance = _floored(noise_variance)
        rows = noise_variance[..., None]
        inverse = self._factorized(noise_variance).inverse()
        return rows * (ops.eye(self.channels, dtype="float32") - inverse * ops.swapaxes(rows, -1, -2))

    def _factorized(self, noise_variance, added_variance=None):
        """Factorise Σ_y, after the clamp."""
        cls = covariance.covariance_class(self.channels, self.is_diagonal)
        if not self.is_precision:
            total = noise_variance if added_variance is None else noise_variance + added_variance
            return cls.factorize(cls.root_from_factor(self.factor), total)
        noisy_cov = cls.from_inverse_factor(self.factor)
        if self.clamp == "eigenvalue":
            prior_cov = noisy_cov.plus_diagonal(-noise_variance)
            return cls.factorize(prior_cov.psd_root(), noise_variance)
        if self.clamp == "diagonal":
            noisy_cov = noisy_cov.clamp_diagonal(noise_variance)
        return cls.factorize(noisy_cov.psd_root(), noisy_cov.rounding())


def _floored(noise_variance):
    """Raise variances to the least that is computed with."""
    return ops.maximum(ops.cast(noise_variance, "float32"), MIN_SIGMA**2)
