"""Which part of an image a figure shows."""

import re
from typing import NamedTuple

import numpy as np

SIDE = 128  # pixels of the square that is chosen automatically; six of them side by side fill a page at zoom 1
STEP = 32  # of the grid of squares to choose from


class Window(NamedTuple):
    """A part of an image, in pixels from its left upper corner."""

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return ",".join(map(str, self))

    def of(self, image: np.ndarray) -> np.ndarray:
        """Cut it out of an image (H, W, C).

        Raises:
            ValueError: If it is not inside.
        """
        height, width = image.shape[:2]
        if self.left + self.width > width or self.top + self.height > height:
            raise ValueError(
                f"the crop LEFT,TOP,WIDTH,HEIGHT is outside of the image, which is {width}×{height} pixels. "
                f"Received: {self}."
            )
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def parse(text: str) -> Window:
    """Read LEFT,TOP,WIDTH or LEFT,TOP,WIDTH,HEIGHT.

    Raises:
        ValueError: If it cannot be read.
    """
    match = re.fullmatch(r"(\d+),(\d+),(\d+)(?:,(\d+))?", text.replace(" ", ""), re.ASCII)
    left, top, width, height = (int(number or 0) for number in match.groups()) if match else (0, 0, 0, 0)
    if width == 0 or (match and match[4] and height == 0):
        raise ValueError(
            "A crop reads LEFT,TOP,WIDTH or LEFT,TOP,WIDTH,HEIGHT in pixels, its sides at least 1, as 320,96,128. "
            f"Received: {text!r}."
        )
    return Window(left, top, width, height or width)


def most_textured(clean: np.ndarray) -> Window:
    """Choose the square where neighbouring pixels differ most, which is where methods do.

    Squares have a side of 128 pixels, less where the image has less, and stand on a grid of 32. The measure is the mean
    absolute difference between horizontal and vertical neighbours: unlike the variance, one edge does not win it.

    Args:
        clean: (H, W, C).

    Returns:
        The first of the best squares, from left to right and then from top to bottom.
    """
    height, width = clean.shape[:2]
    side = min(SIDE, height, width)
    grey = clean.mean(axis=-1, dtype=np.float64)
    best, best_texture = Window(0, 0, side, side), -1.0
    for top in range(0, height - side + 1, STEP):
        for left in range(0, width - side + 1, STEP):
            window = Window(left, top, side, side)
            part = window.of(grey)
            texture = float(np.abs(np.diff(part, axis=0)).sum() + np.abs(np.diff(part, axis=1)).sum())
            if texture > best_texture:
                best, best_texture = window, texture
    return best
