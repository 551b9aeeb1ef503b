"""The per-pixel covariances against NumPy in float64, from one channel to sixteen."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bsdenoise.likelihood import covariance

CHANNELS = [1, 2, 3, 4, 5, 16]
NUM_PIXELS = 50

KINDS = [(channels, diagonal) for channels in CHANNELS for diagonal in (False, True)]
every_kind = pytest.mark.parametrize(
    "channels, diagonal",
    KINDS,
    ids=[f"{channels}-{'diagonal' if diagonal else 'full'}" for channels, diagonal in KINDS],
)


def random_packed(channels, diagonal, seed=0, num_pixels=NUM_PIXELS):
    """Packed triangles with a diagonal in [0.5, 1.5], and the same as matrices."""
    rng = np.random.default_rng(seed)
    size = reference.num_outputs(channels, diagonal) - channels
    packed = 0.5 * rng.standard_normal((num_pixels, size)) / np.sqrt(channels)
    on_diagonal = np.arange(channels) if diagonal else np.cumsum(np.arange(1, channels + 1)) - 1
    packed[:, on_diagonal] = rng.uniform(0.5, 1.5, (num_pixels, channels))
    packed = packed.astype("float32")
    return packed, reference.lower_triangles(packed.astype(float), channels, diagonal)


def product(matrices):
    return matrices @ matrices.transpose(0, 2, 1)


def as_matrices(root, channels, diagonal):
    """The roots of the three classes as NumPy matrices."""
    if diagonal:
        return np.asarray(root, float)[:, :, None] * np.eye(channels)
    if channels > covariance.MAX_UNROLLED:
        return np.asarray(root, float)
    result = np.zeros((len(root[-1][-1]), channels, channels))
    for i, row in enumerate(root):
        for j, entry in enumerate(row):
            result[:, i, j] = entry
    return result


def from_matrices(matrices):
    """An `Unrolled` or a `Dense` of any symmetric matrices (N, C, C)."""
    channels = matrices.shape[-1]
    matrices = matrices.astype("float32")
    if channels > covariance.MAX_UNROLLED:
        return covariance.Dense(tf.constant(matrices))
    return covariance.Unrolled([[tf.constant(matrices[:, i, j]) for j in range(i + 1)] for i in range(channels)])


# --- shapes and packing --------------------------------------------------------------------------------------------


@every_kind
def test_covariance_class(channels, diagonal):
    expected = covariance.Diagonal if diagonal else covariance.Unrolled if channels <= 4 else covariance.Dense
    assert covariance.covariance_class(channels, diagonal) is expected


@settings(deadline=None)
@given(st.integers(1, 300))
def test_triangle_size(size):
    assert covariance.triangle_size(size * (size + 1) // 2) == size


@pytest.mark.parametrize("channels", CHANNELS)
def test_diagonal_indices(channels):
    rows, columns = np.tril_indices(channels)
    assert covariance.diagonal_indices(channels) == np.flatnonzero(rows == columns).tolist()


@pytest.mark.parametrize("channels", CHANNELS)
def test_triangular_product(channels):
    packed, lower = random_packed(channels, False)
    vectors = np.random.default_rng(1).standard_normal((NUM_PIXELS, channels)).astype("float32")
    expected = np.einsum("nji,nj->ni", lower, vectors)
    np.testing.assert_allclose(
        covariance.triangular_product(tf.constant(packed), vectors), expected, rtol=1e-5, atol=1e-5
    )


# --- algebra -------------------------------------------------------------------------------------------------------


@every_kind
def test_root_from_factor(channels, diagonal):
    packed, lower = random_packed(channels, diagonal)
    cls = covariance.covariance_class(channels, diagonal)
    root = cls.root_from_factor(tf.constant(packed))
    np.testing.assert_allclose(as_matrices(root, channels, diagonal), lower, rtol=1e-7)


@every_kind
@pytest.mark.parametrize("kind", ["one", "per-pixel", "per-channel"])
def test_factorized(channels, diagonal, kind):
    """Everything that a factorised R Rᵀ + N can do."""
    packed, lower = random_packed(channels, diagonal)
    cls = covariance.covariance_class(channels, diagonal)
    variances = np.linspace(0.1, 2.0, NUM_PIXELS * channels).reshape(NUM_PIXELS, channels)
    variances = {"one": np.full((1, 1), 0.3), "per-pixel": variances[:, :1], "per-channel": variances}[kind]
    factorized = cls.factorize(cls.root_from_factor(tf.constant(packed)), tf.constant(variances, "float32"))
    cov = product(lower) + np.broadcast_to(variances, (NUM_PIXELS, channels))[:, :, None] * np.eye(channels)
    inverse = np.linalg.inv(cov)
    residual = np.random.default_rng(1).standard_normal((NUM_PIXELS, channels)).astype("float32")
    close = {"rtol": 2e-4, "atol": 2e-5 if diagonal or channels <= 4 else 1e-3}  # the rounding that Cholesky is given
    np.testing.assert_allclose(factorized.log_det(), np.linalg.slogdet(cov)[1], **close)
    np.testing.assert_allclose(
        factorized.mahalanobis_sq(residual), np.einsum("ni,nij,nj->n", residual, inverse, residual), **close
    )
    np.testing.assert_allclose(factorized.solve(residual), np.einsum("nij,nj->ni", inverse, residual), **close)
    np.testing.assert_allclose(factorized.inverse_diagonal(), np.diagonal(inverse, axis1=1, axis2=2), **close)
    np.testing.assert_allclose(factorized.inverse(), inverse, **close)


@every_kind
def test_from_inverse_factor(channels, diagonal):
    packed, lower = random_packed(channels, diagonal)
    cov = covariance.covariance_class(channels, diagonal).from_inverse_factor(tf.constant(packed))
    np.testing.assert_allclose(cov.matrix(), np.linalg.inv(product(lower)), rtol=1e-4, atol=1e-4)


@every_kind
@pytest.mark.parametrize("is_per_channel", [False, True], ids=["per-pixel", "per-channel"])
def test_diagonal_operations(channels, diagonal, is_per_channel):
    packed, _ = random_packed(channels, diagonal)
    cov = covariance.covariance_class(channels, diagonal).from_inverse_factor(tf.constant(packed))
    matrices, eye = np.asarray(cov.matrix()), np.eye(channels, dtype="float32")
    variances = np.linspace(0.1, 3.0, NUM_PIXELS * channels, dtype="float32").reshape(NUM_PIXELS, channels)
    variances = variances if is_per_channel else variances[:, :1]
    added = cov.plus_diagonal(tf.constant(variances)).matrix()
    np.testing.assert_allclose(added, matrices + variances[:, :, None] * eye, rtol=1e-6)
    raised = cov.clamp_diagonal(tf.constant(variances)).matrix()
    np.testing.assert_array_equal(raised, np.where(eye == 1, np.maximum(matrices, variances[:, :, None]), matrices))
    assert (np.asarray(raised) != matrices).any()


@every_kind
def test_rounding_is_small_but_seen_by_float32(channels, diagonal):
    packed, _ = random_packed(channels, diagonal)
    cov = covariance.covariance_class(channels, diagonal).from_inverse_factor(tf.constant(packed))
    greatest = np.diagonal(np.asarray(cov.matrix()), axis1=1, axis2=2).max(axis=-1)
    ratio = np.asarray(cov.rounding())[:, 0] / greatest
    assert (ratio > np.finfo("float32").eps).all() and (ratio < 1e-4).all()


# --- what float32 makes hard ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("sigma", [1e-4, 1e-3, 0.02])
def test_least_eigenvalue_is_the_variance(channels, sigma):
    """S of rank one and a variance that S + N in float32 would not even show.

    Found with the plain LDLᵀ of the sum: for random outputs gain eigenvalues of 24 at σ = 25/255, and of 1e10 at 1e-3.
    """
    direction = np.random.default_rng(0).uniform(-1.0, 1.0, (NUM_PIXELS, channels)).astype("float32")
    root = [
        [tf.constant(direction[:, i] if j == 0 else 0.0 * direction[:, i]) for j in range(i + 1)]
        for i in range(channels)
    ]
    inverse = covariance.Unrolled.factorize(root, tf.constant([[sigma**2]], "float32")).inverse()
    eigenvalues = np.linalg.eigvalsh(sigma**2 * np.asarray(inverse, float))
    np.testing.assert_allclose(eigenvalues[:, 1:], 1.0, rtol=1e-4 + 1e-7 / sigma)
    expected = sigma**2 / (sigma**2 + np.sum(direction.astype(float) ** 2, axis=-1))
    np.testing.assert_allclose(eigenvalues[:, 0], expected, rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("channels", [5, 16, 64])
@pytest.mark.parametrize("sigma", [1e-6, 1e-3])
@pytest.mark.parametrize("rank", [1, 2])
def test_cholesky_of_many_channels_does_not_fail(channels, sigma, rank):
    """TensorFlow's Cholesky raises where float32's rounding makes an eigenvalue negative."""
    root = np.zeros((200, channels, channels), "float32")
    root[:, :, :rank] = np.random.default_rng(0).uniform(-100.0, 100.0, (200, channels, rank))
    factorized = covariance.Dense.factorize(tf.constant(root), tf.constant([[sigma**2]], "float32"))
    gain = sigma**2 * np.asarray(factorized.inverse(), float)
    assert np.linalg.eigvalsh(gain).max() <= 1.0 + 1e-4


# --- the nearest thing to a covariance -----------------------------------------------------------------------------


@pytest.mark.parametrize("channels", CHANNELS)
def test_root_of_a_covariance_gives_it_back(channels):
    cov = product(random_packed(channels, False)[1])
    root = as_matrices(from_matrices(cov).psd_root(), channels, False)
    np.testing.assert_allclose(product(root), cov, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_root_of_an_indefinite_matrix_is_finite_and_adds_no_variance(channels):
    random = np.random.default_rng(0).standard_normal((400, channels, channels))
    symmetric = random + random.transpose(0, 2, 1)
    assert np.mean(np.linalg.eigvalsh(symmetric)[:, 0] < 0.0) > 0.5
    root = as_matrices(from_matrices(symmetric).psd_root(), channels, False)
    projected = product(root)
    assert np.isfinite(projected).all()
    if channels <= covariance.MAX_UNROLLED:
        variances = np.diagonal(symmetric, axis1=1, axis2=2)
        assert (np.diagonal(projected, axis1=1, axis2=2) <= np.maximum(variances, 0.0) + 1e-5).all()
    else:
        values, vectors = np.linalg.eigh(symmetric)
        nearest = (vectors * np.maximum(values, 0.0)[:, None]) @ vectors.transpose(0, 2, 1)
        np.testing.assert_allclose(projected, nearest, atol=1e-4)


@pytest.mark.parametrize(
    "matrix, expected",
    [
        ([[0.05, 0.8], [0.8, 0.6]], [[0.05, 0.03**0.5], [0.03**0.5, 0.6]]),  # the entry as great as it may be
        ([[-0.1, 0.8], [0.8, 0.6]], [[0.0, 0.0], [0.0, 0.6]]),
        ([[0.6, 0.8], [0.8, -0.1]], [[0.6, 0.0], [0.0, 0.0]]),
        ([[1.0, -0.5], [-0.5, 2.0]], [[1.0, -0.5], [-0.5, 2.0]]),
        ([[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]),
    ],
    ids=["too-correlated", "first-negative", "last-negative", "covariance", "zero"],
)
def test_psd_root_by_hand(matrix, expected):
    root = as_matrices(from_matrices(np.array([matrix])).psd_root(), 2, False)
    np.testing.assert_allclose(product(root)[0], expected, atol=1e-6)


def test_psd_root_of_diagonal():
    root = covariance.Diagonal(tf.constant([[0.25, -1.0, 0.0]])).psd_root()
    np.testing.assert_array_equal(root, [[0.5, 0.0, 0.0]])
