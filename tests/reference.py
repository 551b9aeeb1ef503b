"""Slow twins of the mathematics in NumPy and float64. They share no code and no constants with the package."""

import numpy as np

# --- layers --------------------------------------------------------------------------------------------------------


def same_conv2d(image, kernel):
    """A zero-padded "same" convolution (cross-correlation) of (H, W, C) with (h, w, C, F), by loops over pixels."""
    height, width, _ = image.shape
    kernel_height, kernel_width, _, filters = kernel.shape
    result = np.zeros((height, width, filters))
    for row in range(height):
        for column in range(width):
            for i in range(kernel_height):
                for j in range(kernel_width):
                    y, x = row + i - kernel_height // 2, column + j - kernel_width // 2
                    if 0 <= y < height and 0 <= x < width:
                        result[row, column] += image[y, x] @ kernel[i, j]
    return result


def shift_conv2d(images, kernel, bias):
    """⌊h/2⌋ zero rows on top, the "same" convolution, ⌊h/2⌋ rows off the bottom."""
    images, kernel = np.asarray(images, float), np.asarray(kernel, float)
    rows = kernel.shape[0] // 2
    padded = np.concatenate([np.zeros((len(images), rows, *images.shape[2:])), images], axis=1)
    return np.stack([same_conv2d(image, kernel)[: image.shape[0] - rows] for image in padded]) + bias


def shift_downsample(images, pooling):
    """One zero row on top, the bottom row off, 2×2 pooling; odd last rows and columns are dropped."""
    images = np.asarray(images, float)
    batch, height, width, channels = images.shape
    shifted = np.zeros_like(images)
    shifted[:, 1:] = images[:, :-1]
    result = np.zeros((batch, height // 2, width // 2, channels))
    for row in range(height // 2):
        for column in range(width // 2):
            window = shifted[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(batch, 4, channels)
            result[:, row, column] = window.max(axis=1) if pooling == "max" else window.mean(axis=1)
    return result


# --- the Gaussian of one pixel, for N pixels: means (N, C), matrices (N, C, C) ---------------------------------------


def num_outputs(channels, diagonal):
    return channels + (channels if diagonal else channels * (channels + 1) // 2)


def lower_triangles(packed, channels, diagonal):
    """Unpacks (N, C) diagonals, or (N, C(C+1)/2) triangles row by row, to lower triangular matrices."""
    result = np.zeros((len(packed), channels, channels))
    rows, columns = np.diag_indices(channels) if diagonal else np.tril_indices(channels)
    result[:, rows, columns] = packed
    return result


def read_outputs(outputs, channels, factor, diagonal=False):
    """Network outputs (N, n) to μ, and to L with Σ_p = L Lᵀ or the upper triangular A with Σ_y⁻¹ = AᵀA."""
    outputs = np.asarray(outputs, float)
    triangles = lower_triangles(outputs[:, channels:], channels, diagonal)
    on_diagonal = np.eye(channels, dtype=bool)
    if factor == "prior":
        matrices = np.where(on_diagonal, triangles + 0.1, triangles)
    else:
        positive = np.logaddexp(0.0, triangles + np.log(np.expm1(10.0)))
        matrices = np.where(on_diagonal, np.maximum(positive, 0.01), triangles).transpose(0, 2, 1)
    return outputs[:, :channels], matrices


def write_outputs(mean, matrix, factor):
    """The inverse of `read_outputs`: network outputs (N, n) for means (N, C) and one L or A, (C, C)."""
    channels = len(matrix)
    lower = matrix.astype(float) if factor == "prior" else matrix.T.astype(float)
    diagonal = np.diag(lower)
    raw = diagonal - 0.1 if factor == "prior" else np.log(np.expm1(diagonal)) - np.log(np.expm1(10.0))
    lower = lower - np.diag(diagonal) + np.diag(raw)
    packed = lower[np.tril_indices(channels)]
    return np.concatenate([mean, np.broadcast_to(packed, (len(mean), len(packed)))], axis=1)


def precision_factor(cov):
    """The upper triangular A with cov⁻¹ = AᵀA and a positive diagonal."""
    return np.linalg.cholesky(np.linalg.inv(cov)).T


def covariances(outputs, channels, factor, sigma, diagonal=False):
    """μ, Σ_p and Σ_y, with no clamp."""
    mean, matrices = read_outputs(outputs, channels, factor, diagonal)
    noise = np.square(np.broadcast_to(sigma, len(mean)))[:, None, None] * np.eye(channels)
    if factor == "prior":
        prior_cov = matrices @ matrices.transpose(0, 2, 1)
        return mean, prior_cov, prior_cov + noise
    noisy_cov = np.linalg.inv(matrices.transpose(0, 2, 1) @ matrices)
    return mean, noisy_cov - noise, noisy_cov


def paper_nll(outputs, noisy, channels, diagonal=False):
    """Laine et al. 2019, Eq. 1, with the determinant clamped at 1e-8."""
    mean, matrices = read_outputs(outputs, channels, "precision", diagonal)
    whitened = np.einsum("nij,nj->ni", matrices, noisy - mean)
    determinant = np.maximum(np.prod(np.diagonal(matrices, axis1=1, axis2=2), axis=1), 1e-8)
    return 0.5 * np.sum(whitened**2, axis=1) - np.log(determinant)


def explicit_map(mean, prior_cov, noisy, sigma):
    """Laine et al. 2019, Eqs. 2-3, as they stand: (Σ_p⁻¹ + σ⁻²I)⁻¹ (Σ_p⁻¹ μ + σ⁻² x̃)."""
    precision = np.square(1.0 / np.broadcast_to(sigma, len(mean)))
    inverse = np.linalg.inv(prior_cov)
    weighted = np.einsum("nij,nj->ni", inverse, mean) + precision[:, None] * noisy
    return np.einsum("nij,nj->ni", explicit_posterior_cov(prior_cov, sigma), weighted)


def explicit_posterior_cov(prior_cov, sigma):
    """(Σ_p⁻¹ + σ⁻²I)⁻¹."""
    precision = np.square(1.0 / np.broadcast_to(sigma, len(prior_cov)))
    return np.linalg.inv(np.linalg.inv(prior_cov) + precision[:, None, None] * np.eye(prior_cov.shape[-1]))


def gains(posterior_cov, sigma):
    """The gains G that a posterior covariance σ²(I − G) stands for."""
    posterior_cov = np.asarray(posterior_cov, float)
    return np.eye(posterior_cov.shape[-1]) - posterior_cov / sigma**2


def stein_mse(denoised, noisy, sigma, variance):
    """Stein's estimate of the squared error of each pixel, averaged over its channels; arrays (..., C)."""
    denoised, noisy, variance = (np.asarray(array, float) for array in (denoised, noisy, variance))
    return np.mean((denoised - noisy) ** 2 + 2.0 * variance, axis=-1) - sigma**2


def estimated_psnr(denoised, noisy, std, sigma):
    """The PSNR in dB that is estimated for an image with unclipped noise, peak 1; NaN where it is withheld."""
    terms = ((denoised - noisy) ** 2 + 2.0 * std**2 - sigma**2).ravel()
    error = terms.mean()
    certain = 3.0 * terms.std() / np.sqrt(terms.size)
    return np.nan if error <= max(certain, 0.01 * sigma**2, 1e-9) else -10.0 * np.log10(error)
