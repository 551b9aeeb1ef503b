"""Self-ensemble: an image is denoised as it is, mirrored and turned, and the results are averaged.

The average is still linear in a pixel's own value: x̂ = x̃ − mean over the copies of Gₖ (x̃ − μₖ). So its posterior
variance, with the mean gain, is the mean of the variances, and Stein's estimate of the error stays exact.

Where a network has four branches that are the same one turned, a turned image has the same branches in another order:
they are computed once for the image and once for its mirror image, and the layers behind them for each copy. That is
what the copies themselves would give where no map is padded, because the sides are multiples of the pooling grid.
Elsewhere maps are padded at the bottom and on the right of the image or of its mirror image, and not of the copy.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bsdenoise.network import blindness

SIZES = (1, 2, 4, 8)
UNTURNED = (0,)


class Change(NamedTuple):
    """How a copy is made of an image: in this order.

    Attributes:
        transposed: Whether rows become columns.
        upside_down: Whether it is flipped upside down.
        mirrored: Whether it is mirrored left to right.
    """

    transposed: bool
    upside_down: bool
    mirrored: bool

    def of(self, images):
        """Change images (B, H, W, C)."""
        return self._flipped(images.swapaxes(1, 2) if self.transposed else images)

    def undone(self, images):
        """Undo it."""
        images = self._flipped(images)
        return images.swapaxes(1, 2) if self.transposed else images

    def _flipped(self, images):
        return images[:, :: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]

    def of_window(self, window: tuple[slice, slice], size: tuple[int, int]) -> tuple[slice, slice]:
        """Return where rows and columns of an image are in a copy of some height and width."""
        rows, columns = reversed(window) if self.transposed else window
        height, width = size
        return (
            slice(height - rows.stop, height - rows.start) if self.upside_down else rows,
            slice(width - columns.stop, width - columns.start) if self.mirrored else columns,
        )


AS_IT_IS, MIRRORED, OVER_A_DIAGONAL = Change(False, False, False), Change(False, False, True), Change(True, True, True)
# The first so many make an ensemble, where each goes through the whole network.
_CHANGES = (
    AS_IT_IS,
    MIRRORED,
    Change(False, True, False),
    Change(False, True, True),
    Change(True, False, False),
    OVER_A_DIAGONAL,
    Change(True, False, True),
    Change(True, True, False),
)
_TURNS = {1: UNTURNED, 2: UNTURNED, 4: (0, 2), 8: (0, 1, 2, 3)}  # where branches are shared


class Copies(NamedTuple):
    """The copies of an ensemble: each of the changes, each turned in several ways.

    Attributes:
        changes: How images are changed before the network sees them.
        turns: By how many quarter turns each of these is turned besides, behind the branches.
    """

    changes: tuple[Change, ...]
    turns: tuple[int, ...] = UNTURNED

    @classmethod
    def of(cls, size: int, network) -> "Copies":
        """Return an ensemble of some size for a `DenoisingNetwork`.

        Where branches are shared, the mirror image is one over the diagonal from the lower left if the blind spot is a
        square. For two and four copies it is better than one from left to right, by up to 0.01 dB
        (`benchmarks/README.md`): its branches stand in another order too, and its maps are padded on the other sides.
        """
        if network.levels() is None:
            return cls.one_by_one(size)
        turns = _TURNS[size]
        both = AS_IT_IS, OVER_A_DIAGONAL if _is_square(network.blind_spot) else MIRRORED
        return cls(both[: size // len(turns)], turns)

    @classmethod
    def one_by_one(cls, size: int) -> "Copies":
        """Return an ensemble whose copies go through the whole network, each by itself."""
        return cls(_CHANGES[:size])

    @property
    def are_mirrored(self) -> bool:
        """Whether the network sees another image than the one there is."""
        return len(self.changes) > 1


def check(size: int, blind_spot: tuple[int, int] | None = None) -> None:
    """Check a number of copies.

    Args:
        size: The number.
        blind_spot: Height and width of the network's blind spot; `None` if it has none.

    Raises:
        ValueError: If there is no ensemble of that size; or one of its copies is transposed and the blind spot is not
            square: noise that pixels of one column share would lie in a row, where the blind spot does not hide it.
    """
    if size not in SIZES:
        raise ValueError(f"`tta` must be one of {SIZES}, the number of copies to average. Received: tta={size!r}.")
    if blind_spot is not None and not _is_square(blind_spot) and any(one.transposed for one in _CHANGES[:size]):
        most = next(number for number, change in enumerate(_CHANGES) if change.transposed)
        raise ValueError(
            f"`tta` must be at most {most} for a blind spot that is no square, as more copies are "
            f"transposed. Received: tta={size} and a blind spot of {blindness.in_words(blind_spot)}."
        )


def _is_square(blind_spot):
    return blind_spot is None or blind_spot[0] == blind_spot[1]


def average(
    compute: Callable[[np.ndarray, Change], Sequence[np.ndarray]], images: np.ndarray, changes: Sequence[Change]
) -> list[np.ndarray]:
    """Average what a function makes of images that are changed in several ways.

    Args:
        compute: From the changed images (B, H, W, C) and the change to arrays that lie as they do.
        images: (B, H, W, C).
        changes: The changes.

    Returns:
        The means, float32.
    """
    sums: list[np.ndarray] = []
    for change in changes:
        found = [change.undone(np.asarray(array)) for array in compute(np.ascontiguousarray(change.of(images)), change)]
        if len(changes) == 1:
            return [array.astype("float32", copy=False) for array in found]
        sums = sums or [np.zeros(array.shape, "float32") for array in found]
        for total, array in zip(sums, found, strict=True):
            total += array
    return [total / np.float32(len(changes)) for total in sums]
