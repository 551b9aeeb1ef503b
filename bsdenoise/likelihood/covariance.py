"""Algebra of one small covariance matrix per pixel, on whole maps at once.

A covariance S is kept as one of three classes with the same methods: `Diagonal`, `Unrolled` (full, up to
`MAX_UNROLLED` channels: a Python loop over channels, elementwise operations on whole maps) and `Dense` (full,
any number of channels: batched matrices). Unrolled algebra is many times quicker, and more accurate, than batched
inverses of millions of 3×3 matrices.

Triangular factors arrive packed along the last axis, row by row: (0,0), (1,0), (1,1), (2,0), …

A root of S is an R with S = R Rᵀ. What has to be inverted is always R Rᵀ + N with the noise's covariance N, and it is
factorised from R, not from S: squaring first would cost half of the digits, and S + N would then lose its least
eigenvalue, the noise's variance, as soon as it is below 1e-7 of the greatest one.

N is diagonal: its variances are (..., 1), the same for all channels, or (..., C).
"""

import numpy as np
from keras import ops

MAX_UNROLLED = 4
MAX_STD = 1e3  # entries of an inverted factor are bounded by it: a thousand times full scale
TINY = 1e-30  # a variance that counts as zero; its square root still divides in float32


def covariance_class(channels: int, diagonal: bool):
    """Choose the class that holds covariances of so many channels."""
    if diagonal:
        return Diagonal
    return Unrolled if channels <= MAX_UNROLLED else Dense


class Diagonal:
    """Diagonal covariances: `variances` (..., C)."""

    def __init__(self, variances):
        self.variances = variances

    @classmethod
    def from_inverse_factor(cls, factor):
        """Return S = A⁻² from the diagonal factor A (..., C) of S⁻¹ = A²."""
        return cls(ops.minimum(1.0 / ops.square(factor), MAX_STD**2))

    def plus_diagonal(self, variances):
        """Add `variances`, broadcastable to (..., C), to the diagonal."""
        return Diagonal(self.variances + variances)

    def clamp_diagonal(self, variances):
        """Raise the diagonal to `variances` at least."""
        return Diagonal(ops.maximum(self.variances, variances))

    def psd_root(self):
        """Return a root of S, or of a covariance close to it where S has negative eigenvalues."""
        return ops.sqrt(ops.maximum(self.variances, 0.0))

    def rounding(self):
        """Return a variance (..., 1) that float32 cannot tell from zero beside those of S."""
        return _rounding(self.variances)

    @staticmethod
    def root_from_factor(factor):
        """Return the root whose diagonal is `factor` (..., C)."""
        return factor

    @staticmethod
    def factorize(root, variances):
        """Factorise R Rᵀ + N; `variances` > 0 is broadcastable to (..., C)."""
        return _DiagonalFactor(ops.square(root) + variances)

    def matrix(self):
        """Return S as matrices (..., C, C)."""
        return self.variances[..., None] * _eye(self.variances)


class _DiagonalFactor:
    """S = diag(d)."""

    def __init__(self, pivots):
        self.pivots = pivots

    def log_det(self):
        """Return log |S|, (...)."""
        return ops.sum(ops.log(self.pivots), axis=-1)

    def mahalanobis_sq(self, residual):
        """Return rᵀ S⁻¹ r, (...), for residuals r (..., C)."""
        return ops.sum(ops.square(residual) / self.pivots, axis=-1)

    def solve(self, residual):
        """Return S⁻¹ r, (..., C)."""
        return residual / self.pivots

    def inverse_diagonal(self):
        """Return the diagonal of S⁻¹, (..., C)."""
        return 1.0 / self.pivots

    def inverse(self):
        """Return S⁻¹ as matrices (..., C, C)."""
        return Diagonal(1.0 / self.pivots).matrix()


class Unrolled:
    """Full covariances as lower triangles: `rows[i][j]`, j ≤ i, are maps of shape (...)."""

    def __init__(self, rows):
        self.rows = rows

    @classmethod
    def from_inverse_factor(cls, packed):
        """Return S = A⁻¹ A⁻ᵀ from the packed Aᵀ, A being the upper triangular factor of S⁻¹ = Aᵀ A."""
        inverse = _invert_lower(_unpack(packed))  # A⁻ᵀ, lower triangular
        inverse = [[ops.clip(entry, -MAX_STD, MAX_STD) for entry in row] for row in inverse]
        size = len(inverse)
        columns = [[inverse[k][i] for k in range(i, size)] for i in range(size)]
        return cls([[_dot(columns[i], columns[j][i - j :]) for j in range(i + 1)] for i in range(size)])

    def plus_diagonal(self, variances):
        """Add `variances`, broadcastable to (..., C), to the diagonal."""
        return self._with_diagonal(lambda entry, variance: entry + variance, variances)

    def clamp_diagonal(self, variances):
        """Raise the diagonal to `variances` at least."""
        return self._with_diagonal(ops.maximum, variances)

    def _with_diagonal(self, change, variances):
        own = _per_channel(variances, len(self.rows))
        return Unrolled([[*row[:i], change(row[i], own[i])] for i, row in enumerate(self.rows)])

    def psd_root(self):
        """Return a lower triangular root of S, or of a covariance close to it where S has negative eigenvalues.

        The Cholesky algorithm, in which columns with a pivot ≤ 0 are zeroed, and every other entry is first brought
        into the range that the diagonal allows, |s_ij| ≤ √(s_ii s_jj). So no pivot turns negative later, and
        no variance ever grows (a tiny pivot beside a large entry would otherwise make a huge one).
        """
        size = len(self.rows)
        block = [list(row) for row in self.rows]
        root: list = [[None] * (i + 1) for i in range(size)]
        for j in range(size):
            scale = [ops.sqrt(ops.maximum(block[i][i], TINY)) for i in range(j, size)]
            positive = block[j][j] > TINY
            root[j][j] = ops.where(positive, scale[0], 0.0)
            for i in range(j + 1, size):
                entry = ops.clip(block[i][j] / scale[0], -scale[i - j], scale[i - j])
                root[i][j] = ops.where(positive, entry, 0.0)
                for k in range(j + 1, i + 1):
                    block[i][k] = block[i][k] - root[i][j] * root[k][j]
        return root

    def rounding(self):
        """Return a variance (..., 1) that float32 cannot tell from zero beside those of S."""
        return _rounding(ops.stack([row[-1] for row in self.rows], axis=-1))

    @staticmethod
    def root_from_factor(packed):
        """Return the lower triangular root from its packed entries."""
        return _unpack(packed)

    @staticmethod
    def factorize(root, variances):
        """Factorise R Rᵀ + N = L D Lᵀ, L unit lower triangular, D diagonal.

        Begins with N and adds the columns w of R one by one, last one first: each is a rank-one change,
        L D Lᵀ + w wᵀ (Gill, Golub, Murray, Saunders 1974, "Methods for modifying matrix factorizations", C2). Pivots
        are only ever added to, and the new entries of L are weighted means: nothing cancels.

        Args:
            root: Lower triangular R, as rows of maps (...).
            variances: > 0, broadcastable to (..., C).
        """
        size = len(root)
        lower: list = [[0.0] * i for i in range(size)]
        pivots = _per_channel(variances, size)
        for first in reversed(range(size)):
            column = {i: root[i][first] for i in range(first, size)}
            weight = 1.0
            for j in range(first, size):
                gained = weight * column[j]
                pivot = pivots[j] + gained * column[j]
                kept, gain = pivots[j] / pivot, gained / pivot
                for i in range(j + 1, size):
                    entry = lower[i][j]
                    lower[i][j] = kept * entry + gain * column[i]
                    column[i] = column[i] - column[j] * entry
                weight = weight * kept
                pivots[j] = pivot
        return _UnrolledFactor(lower, pivots)

    def matrix(self):
        """Return S as matrices (..., C, C)."""
        size = len(self.rows)
        full = [[self.rows[max(i, j)][min(i, j)] for j in range(size)] for i in range(size)]
        return ops.stack([ops.stack(row, axis=-1) for row in full], axis=-2)


class _UnrolledFactor:
    """S = L D Lᵀ, with `lower[i][j]`, j < i, below the unit diagonal of L, and `pivots[i]` of D."""

    def __init__(self, lower, pivots):
        self.lower = lower
        self.pivots = pivots

    def _forward(self, vector):
        """Solve L z = v for a list of maps."""
        result: list = []
        for row, value in zip(self.lower, vector, strict=True):
            result.append(value - _dot(row, result))
        return result

    def log_det(self):
        """Return log |S|, (...)."""
        return sum(ops.log(pivot) for pivot in self.pivots)

    def mahalanobis_sq(self, residual):
        """Return rᵀ S⁻¹ r, (...), for residuals r (..., C)."""
        whitened = self._forward(_entries(residual))
        return sum(ops.square(z) / pivot for z, pivot in zip(whitened, self.pivots, strict=True))

    def solve(self, residual):
        """Return S⁻¹ r, (..., C)."""
        result = [z / d for z, d in zip(self._forward(_entries(residual)), self.pivots, strict=True)]
        size = len(result)
        for i in reversed(range(size)):
            result[i] = result[i] - _dot([self.lower[k][i] for k in range(i + 1, size)], result[i + 1 :])
        return ops.stack(result, axis=-1)

    def inverse_diagonal(self):
        """Return the diagonal of S⁻¹, (..., C)."""
        inverse = self._inverse_lower()
        size = len(self.pivots)
        entries = [sum(ops.square(inverse[k][i]) / self.pivots[k] for k in range(i, size)) for i in range(size)]
        return ops.stack(entries, axis=-1)

    def inverse(self):
        """Return S⁻¹ as matrices (..., C, C)."""
        inverse = self._inverse_lower()
        size = len(self.pivots)

        def entry(i, j):
            return sum(inverse[k][i] * inverse[k][j] / self.pivots[k] for k in range(max(i, j), size))

        return Unrolled([[entry(i, j) for j in range(i + 1)] for i in range(size)]).matrix()

    def _inverse_lower(self):
        """Return L⁻¹ with its unit diagonal."""
        one = ops.ones_like(self.pivots[0])
        return _invert_lower([[*row, one] for row in self.lower])


class Dense:
    """Full covariances as batched matrices: `entries` (..., C, C)."""

    def __init__(self, entries):
        self.entries = entries

    @classmethod
    def from_inverse_factor(cls, packed):
        """Return S = A⁻¹ A⁻ᵀ from the packed Aᵀ, A being the upper triangular factor of S⁻¹ = Aᵀ A."""
        factor = _unpack_dense(packed)
        inverse = ops.nan_to_num(_solve_lower(factor, _eye_like(factor)), nan=0.0)
        inverse = ops.clip(inverse, -MAX_STD, MAX_STD)
        return cls(ops.matmul(ops.swapaxes(inverse, -1, -2), inverse))

    def plus_diagonal(self, variances):
        """Add `variances`, broadcastable to (..., C), to the diagonal."""
        return Dense(self.entries + variances[..., None] * _eye(self.entries))

    def clamp_diagonal(self, variances):
        """Raise the diagonal to `variances` at least."""
        eye = _eye(self.entries)
        raised = ops.maximum(self.entries, variances[..., None])
        return Dense(self.entries * (1.0 - eye) + raised * eye)

    def psd_root(self):
        """Return a root of S, or of the nearest covariance where S has negative eigenvalues, by eigendecomposition."""
        values, vectors = ops.eigh(self.entries)
        return vectors * ops.sqrt(ops.maximum(values, 0.0))[..., None, :]

    def rounding(self):
        """Return a variance (..., 1) that float32 cannot tell from zero beside those of S."""
        return _rounding(ops.diagonal(self.entries, axis1=-2, axis2=-1))

    @staticmethod
    def root_from_factor(packed):
        """Return the lower triangular root from its packed entries."""
        return _unpack_dense(packed)

    @staticmethod
    def factorize(root, variances):
        """Factorise R Rᵀ + N = K Kᵀ by Cholesky.

        Rounding is added to the variances: Cholesky needs it to succeed, and it keeps those of N (R Rᵀ + N)⁻¹ at 1 or
        below.
        """
        product = Dense(ops.matmul(root, ops.swapaxes(root, -1, -2)))
        return _DenseFactor(ops.cholesky(product.plus_diagonal(variances + product.rounding()).entries))

    def matrix(self):
        """Return S as matrices (..., C, C)."""
        return self.entries


class _DenseFactor:
    """S = K Kᵀ, with `lower` = K (..., C, C)."""

    def __init__(self, lower):
        self.lower = lower

    def log_det(self):
        """Return log |S|, (...)."""
        return 2.0 * ops.sum(ops.log(ops.diagonal(self.lower, axis1=-2, axis2=-1)), axis=-1)

    def mahalanobis_sq(self, residual):
        """Return rᵀ S⁻¹ r, (...), for residuals r (..., C)."""
        return ops.sum(ops.square(_solve_lower(self.lower, residual[..., None])[..., 0]), axis=-1)

    def solve(self, residual):
        """Return S⁻¹ r, (..., C)."""
        return ops.matmul(self.inverse(), residual[..., None])[..., 0]

    def inverse_diagonal(self):
        """Return the diagonal of S⁻¹, (..., C)."""
        return ops.sum(ops.square(_solve_lower(self.lower, _eye_like(self.lower))), axis=-2)

    def inverse(self):
        """Return S⁻¹ as matrices (..., C, C)."""
        inverse = _solve_lower(self.lower, _eye_like(self.lower))
        return ops.matmul(ops.swapaxes(inverse, -1, -2), inverse)


def triangle_size(packed_size: int) -> int:
    """Return C for a packed triangle of C(C+1)/2 entries."""
    return int((np.sqrt(8 * packed_size + 1) - 1) / 2)


def triangular_product(packed, vector):
    """Return A v, (..., C), for the packed Aᵀ (so that A is upper triangular) and vectors v (..., C)."""
    size = triangle_size(packed.shape[-1])
    if size > MAX_UNROLLED:
        return ops.matmul(ops.swapaxes(_unpack_dense(packed), -1, -2), vector[..., None])[..., 0]
    rows, values = _unpack(packed), _entries(vector)
    entries = [_dot([rows[k][i] for k in range(i, size)], values[i:]) for i in range(size)]
    return ops.stack(entries, axis=-1)


def diagonal_indices(channels: int) -> list[int]:
    """Return the places of the diagonal in a packed triangle."""
    return [i * (i + 3) // 2 for i in range(channels)]


def _rounding(variances):
    """Return a variance (..., 1) that float32 cannot tell from zero beside `variances` (..., C)."""
    size = variances.shape[-1]
    return 4.0 * size * np.finfo("float32").eps * ops.max(variances, axis=-1, keepdims=True) + TINY


def _per_channel(variances, channels: int) -> list:
    """Split variances (..., 1) or (..., C) into those of each channel, (...)."""
    if variances.shape[-1] == 1:
        return [variances[..., 0]] * channels
    return _entries(variances)


def _entries(vector) -> list:
    """Split (..., C) into C maps."""
    return [vector[..., i] for i in range(vector.shape[-1])]


def _unpack(packed) -> list[list]:
    """Split a packed triangle into rows of maps."""
    entries = iter(_entries(packed))
    return [[next(entries) for _ in range(i + 1)] for i in range(triangle_size(packed.shape[-1]))]


def _dot(left, right):
    """Sum the products of two lists of maps; 0 for empty ones."""
    return sum((a * b for a, b in zip(left, right, strict=False)), 0.0)


def _invert_lower(rows) -> list[list]:
    """Invert a lower triangular matrix given as rows of maps."""
    inverse: list = [[None] * (i + 1) for i in range(len(rows))]
    for i, row in enumerate(rows):
        inverse[i][i] = 1.0 / row[i]
        for j in range(i):
            inverse[i][j] = -inverse[i][i] * _dot(row[j:i], [inverse[k][j] for k in range(j, i)])
    return inverse


def _unpack_dense(packed):
    """Spread a packed triangle over lower triangular matrices (..., C, C), by a product with zeros and ones."""
    size = triangle_size(packed.shape[-1])
    places = np.zeros((packed.shape[-1], size * size), "float32")
    for index, (i, j) in enumerate(zip(*np.tril_indices(size), strict=True)):
        places[index, i * size + j] = 1.0
    flat = ops.matmul(packed, places)
    return ops.reshape(flat, (*ops.shape(packed)[:-1], size, size))


def _eye(maps):
    return ops.eye(maps.shape[-1], dtype="float32")


def _eye_like(matrices):
    return ops.zeros_like(matrices) + _eye(matrices)


def _solve_lower(lower, right):
    return ops.solve_triangular(lower, right, lower=True)
