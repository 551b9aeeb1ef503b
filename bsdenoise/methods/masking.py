"""Masked pixels for Noise2Void (Krull, Buchholz, Jug 2019): which ones, and what they are replaced by.

A network that sees a pixel would learn to return it. So a few pixels of each crop are replaced by others from their
neighbourhood, and only there is the output compared with the noisy image: to be right, the network must
predict a pixel from its surroundings.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Masking:
    """How pixels are masked.

    Args:
        fraction: Fraction of pixels that are masked, in (0, 1]. One pixel is chosen in each square of 1 / `fraction`
            pixels (stratified sampling), so that masked pixels do not cluster.
        radius: Half side of the square neighbourhood in pixels, ≥ 1: 5 means 11×11.
        center: Whether a pixel may be replaced by itself.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> noisy = np.random.default_rng(0).uniform(size=(64, 64, 3))
        >>> masked, mask = Masking().mask(noisy, np.random.default_rng(1))
        >>> int(mask.sum())
        64
    """

    fraction: float = 1 / 64
    radius: int = 5
    center: bool = False

    def __post_init__(self):
        """Check the arguments."""
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(f"The fraction of masked pixels must be in (0, 1]. Received: fraction={self.fraction}.")
        if self.radius < 1:
            raise ValueError(f"The radius of the neighbourhood must be at least 1. Received: radius={self.radius}.")

    def mask(self, noisy: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Replace some pixels of an image, all channels of a pixel together.

        Args:
            noisy: (H, W, C), any H and W.
            rng: Chooses pixels and replacements.

        Returns:
            The image with replaced pixels, (H, W, C), and the mask, (H, W, 1), 1 where one was replaced, of the
            same type.
        """
        rows, columns = self._choose(noisy.shape[:2], rng)
        from_rows, from_columns = self._neighbours(rows, columns, noisy.shape[:2], rng)
        masked, mask = noisy.copy(), np.zeros((*noisy.shape[:2], 1), noisy.dtype)
        masked[rows, columns] = noisy[from_rows, from_columns]  # from the untouched image
        mask[rows, columns] = 1.0
        return masked, mask

    def _choose(self, size: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Choose one pixel in each box of a grid; boxes that reach out of the image may lose theirs."""
        side = math.sqrt(1.0 / self.fraction)
        edges = [np.arange(0.0, length, side) for length in size]
        corners = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, 2)
        chosen = np.floor(corners + rng.uniform(0.0, side, corners.shape)).astype(int)
        chosen = chosen[((chosen >= 0) & (chosen < size)).all(axis=1)]
        if not len(chosen):  # an image smaller than a box
            chosen = rng.integers(0, size, (1, 2))
        rows, columns = np.unique(chosen, axis=0).T  # boxes whose sides are no integers may share a pixel
        return rows, columns

    def _neighbours(self, rows, columns, size, rng):
        """Draw a replacement for each pixel, uniformly from the part of its neighbourhood inside the image."""
        chosen = np.stack([rows, columns])
        sides = np.array(size)[:, None]
        low, high = np.maximum(chosen - self.radius, 0), np.minimum(chosen + self.radius, sides - 1)
        widths = high - low + 1
        count = widths.prod(axis=0)
        own = (rows - low[0]) * widths[1] + columns - low[1]
        if self.center:
            drawn = rng.integers(0, count)
        else:
            drawn = rng.integers(0, np.maximum(count - 1, 1))
            drawn = np.minimum(drawn + (drawn >= own), count - 1)  # skips the pixel itself, unless it is alone
        return low[0] + drawn // widths[1], low[1] + drawn % widths[1]
