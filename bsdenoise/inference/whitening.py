"""Correlated noise, for a model that knows white noise: what it lacks to be white is added before, with both signs.

The noise that was added is still there in part afterwards. With opposite signs it cancels, up to what the denoiser does
not do linearly: so images are denoised in pairs, and the results are averaged.
"""

from collections.abc import Sequence

import numpy as np

from bsdenoise.noise.correlated import LEAST_SIDE, CorrelatedNoise

COPIES = 2  # by default; each further pair takes as long again, for little
SIDE = 1024  # in pixels of fields of noise, which then repeat: further than a network looks


def check(copies: int) -> None:
    """Check a number of copies.

    Raises:
        ValueError: If they are no pairs.
    """
    if not isinstance(copies, int) or copies < 2 or copies % 2:
        raise ValueError(f"`copies` must be 2, 4, 6, …: they come in pairs. Received: copies={copies!r}.")


class Whitening:
    """Images with noise added that makes theirs white, in several copies.

    Args:
        found: The noise of each image.
        size: Height and width of the images.
        copies: How many copies of each, an even number.
    """

    def __init__(self, found: Sequence[CorrelatedNoise], size: tuple[int, int], copies: int):
        check(copies)
        side = min(max(1 << (max(size) - 1).bit_length(), LEAST_SIDE), SIDE)
        # Copy by copy, all images in each. The same draws for the same image, whenever it comes.
        self._fields = [
            np.stack([one.complement(side, np.random.default_rng([pair, index])) for index, one in enumerate(found)])
            for pair in range(copies // 2)
        ]
        self._side = side
        self._sigmas = [noise.white_sigma for noise in found]
        self.copies = copies

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviation of the white noise of all copies, (copies · B,)."""
        return np.tile(self._sigmas, self.copies)

    def applied(self, images: np.ndarray, top: int, left: int) -> np.ndarray:
        """Return all copies of a part of the images.

        Args:
            images: (B, h, w, C), float32.
            top: Row of the whole at which the part begins.
            left: Column likewise.

        Returns:
            (copies · B, h, w, C).
        """
        rows = (np.arange(images.shape[1]) + top) % self._side
        columns = (np.arange(images.shape[2]) + left) % self._side
        added = [field[:, rows[:, None], columns] for field in self._fields]
        return np.concatenate([images + sign * one for one in added for sign in (1, -1)])

    def averaged(self, maps: np.ndarray) -> np.ndarray:
        """Average over copies: (copies · B, h, w, C) to (B, h, w, C)."""
        return maps.reshape(self.copies, -1, *maps.shape[1:]).mean(axis=0)
