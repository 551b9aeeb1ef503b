"""What is sent at once: groups of images of a batch, or overlapping tiles of images that are too large."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bsdenoise.inference import tiling


@dataclass(frozen=True)
class Part:
    """What one request is about.

    Attributes:
        images: Which images of the batch.
        tile: Which pixels of them, and what is kept of the answer.
        is_tile: Whether they are less than the whole.
    """

    images: slice
    tile: tiling.Tile
    is_tile: bool


def plan(shape: tuple[int, ...], most_pixels: int, grid: int, tile: int, overlap: int) -> list[Part]:
    """Cut a batch into requests.

    Images are sent whole wherever they fit; the graph then cuts them as it needs. The tiles of those that do not fit
    are the graph's own, so that nothing changes but who joins them; they are smaller only if one of those would not
    fit either.

    Args:
        shape: (B, H, W, C).
        most_pixels: Most pixels, B·H·W, of a request.
        grid: Spacing of the network's pooling grid in pixels.
        tile: Largest side of a tile in pixels.
        overlap: Context in pixels on every inner side of a tile.

    Raises:
        ValueError: If a request cannot hold even one cell of the grid.
    """
    batch, height, width = shape[:3]
    if height * width <= most_pixels:
        sides = (slice(0, height), slice(0, width))
        whole = tiling.Tile(sides, sides, sides)
        # The network fills each side up to its grid, and a server counts that too.
        group = max(1, most_pixels // tiling.padded_pixels(height, width, grid))
        return [Part(slice(start, min(start + group, batch)), whole, False) for start in range(0, batch, group)]
    if min(tile, height) * min(tile, width) > most_pixels:
        tile = math.isqrt(most_pixels) // grid * grid
        if not tile:
            raise ValueError(
                f"The image is too large to be sent at once, and at most {most_pixels} pixels per request are too few "
                f"for tiles on a grid of {grid}: export the model with a larger max_pixels. "
                f"Received: {height} × {width} pixels."
            )
        overlap = min(overlap, tiling.choose(grid, tile)[1])
    return list(_tiles(batch, list(tiling.plan(height, width, tile, overlap, grid))))


def centre(height: int, width: int, most_pixels: int) -> tuple[slice, slice]:
    """Return the rows and columns of the largest part in the middle of an image with its proportions that fits.

    Args:
        height: Rows of the image.
        width: Its columns.
        most_pixels: How many pixels may be taken.
    """
    if height * width <= most_pixels:
        return slice(0, height), slice(0, width)
    shrunk = math.sqrt(most_pixels / (height * width))
    rows = max(1, min(int(height * shrunk), most_pixels))
    columns = max(1, min(width, most_pixels // rows))
    rows = max(1, min(height, most_pixels // columns))
    top, left = (height - rows) // 2, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def _tiles(batch: int, pieces: list[tiling.Tile]) -> Iterator[Part]:
    for index in range(batch):
        for piece in pieces:
            yield Part(slice(index, index + 1), piece, True)
