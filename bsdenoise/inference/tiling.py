"""Overlapping tiles for images too large for one pass.

Tile origins lie on the pooling grid, so that every tile is pooled as the whole image would be, in all four
rotations; the margins, where a tile lacks context, are computed twice and dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bsdenoise.network import context as contexts

MAX_UNTILED_PIXELS = 2**20
TILE = 1024

MIDDLE = 2048  # side in pixels of the part of a huge image from which σ is estimated


@dataclass(frozen=True)
class Tile:
    """One tile of an image.

    Attributes:
        window: Rows and columns of the image to read.
        inner: Rows and columns of the tile's result to keep.
        target: Rows and columns of the image that they are.
    """

    window: tuple[slice, slice]
    inner: tuple[slice, slice]
    target: tuple[slice, slice]

    def for_mirroring(self, height: int, width: int, grid: int) -> "Tile":
        """Return the tile with ends from which on a mirror image is pooled as that of the whole image is.

        Less than a grid of its context goes; less than is needed where it has none.

        Args:
            height: Height of the image in pixels.
            width: Width of the image in pixels.
            grid: As for `plan`.
        """
        rows, columns = (
            slice(window.start, window.stop - min((window.stop - size) % grid, window.stop - window.start - inner.stop))
            for window, inner, size in zip(self.window, self.inner, (height, width), strict=True)
        )
        return Tile((rows, columns), self.inner, self.target)


def default_overlap(grid: int, size: int, context: int | None = None) -> int:
    """Return the context that tiles of a network need, but at most a quarter of a tile; a multiple of the grid.

    Where it is not known (`None`), as of a server's model, that is the reach of our networks, but at most 160 pixels.
    """
    context = contexts.of_grid(grid) if context is None else context
    return min(context, size // 4) // grid * grid


def choose(
    grid: int, tile: int | None = None, overlap: int | None = None, context: int | None = None
) -> tuple[int, int]:
    """Choose tile and overlap where they are not given, and check them.

    Args:
        grid: Spacing of the pooling grid, 2^depth of the network.
        tile: Largest side of a tile in pixels, a multiple of `grid`.
        overlap: Context in pixels on every inner side, a multiple of `grid`; by default `context`, but at most a
            quarter of a given tile.
        context: What the network needs, as for `default_overlap`.

    Raises:
        ValueError: If `tile` or `overlap` is off the grid, or `tile` leaves nothing between two overlaps.
    """
    size = -(-max(TILE, 4 * (context or 0)) // grid) * grid if tile is None else tile
    if overlap is None:
        overlap = default_overlap(grid, size, context)
    if size % grid or overlap % grid or overlap < 0 or size <= 2 * overlap:
        raise ValueError(
            f"`tile` and `overlap` must be multiples of {grid} with tile > 2 * overlap. "
            f"Received: tile={size}, overlap={overlap}."
        )
    return size, overlap


def padded_pixels(height: int, width: int, grid: int) -> int:
    """Count the pixels that the network computes for an image, each side filled up to the pooling grid."""
    return -(-height // grid) * grid * (-(-width // grid) * grid)


def fit(
    height: int,
    width: int,
    max_pixels: int,
    overlap: int,
    grid: int,
    extra_rows: int = 0,
    is_transposed: bool = False,
) -> tuple[int, int]:
    """Choose height and width of tiles, so that the least is computed twice.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        max_pixels: Number of pixels that a tile may have. It has more if less leave nothing between two overlaps.
        overlap: As for `plan`.
        grid: As for `plan`.
        extra_rows: Rows that count among the pixels of a tile beside its own.
        is_transposed: Whether a tile must also fit when its rows are columns.

    Returns:
        Multiples of `grid`.
    """
    least = 2 * overlap + grid
    rows, columns = (_tile_sides(size, overlap, grid) for size in (height, width))
    best = least, least
    fewest = None
    for rows_of_one, all_rows in rows:
        for columns_of_one, all_columns in columns:
            wide = max(rows_of_one, columns_of_one) if is_transposed else columns_of_one
            is_small = rows_of_one * columns_of_one + extra_rows * wide <= max_pixels
            if is_small and (fewest is None or all_rows * all_columns < fewest):
                best, fewest = (rows_of_one, columns_of_one), all_rows * all_columns
    return best


def _tile_sides(size: int, overlap: int, grid: int) -> list[tuple[int, int]]:
    """List the sides that tiles may have, with the pixels that are then computed along this side of the image."""
    least = 2 * overlap + grid
    sides = []
    for number in range(1, size // grid + 2):
        computed = size + (number - 1) * 2 * overlap
        side = -(-computed // (number * grid)) * grid
        sides.append((max(side, least), computed))
        if side <= least:
            break
    return sides


def plan(height: int, width: int, tile: int | tuple[int, int], overlap: int, grid: int) -> Iterator[Tile]:
    """Covers an image with tiles, each pixel kept exactly once.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        tile: Largest side of a tile in pixels, a multiple of `grid`; or its height and width.
        overlap: Context in pixels that each tile has on every inner side, a multiple of `grid`.
        grid: Spacing of the pooling grid, 2^depth of the network.

    Yields:
        The tiles, row by row.

    Raises:
        ValueError: If `tile` or `overlap` is off the grid, or `tile` leaves nothing between two overlaps.
    """
    sides = (tile, tile) if isinstance(tile, int) else tile
    for side in sides:
        choose(grid, side, overlap)
    for row_window, row_inner, row_target in _spans(height, sides[0], overlap):
        for column_window, column_inner, column_target in _spans(width, sides[1], overlap):
            yield Tile((row_window, column_window), (row_inner, column_inner), (row_target, column_target))


def _spans(size: int, tile: int, overlap: int) -> Iterator[tuple[slice, slice, slice]]:
    """Covers one side: pieces of at most `tile`, each with `overlap` pixels more than what it keeps."""
    start = 0
    while True:
        stop = min(start + tile, size)
        first = start + overlap if start else 0
        last = stop - overlap if stop < size else size
        yield slice(start, stop), slice(first - start, last - start), slice(first, last)
        if stop == size:
            return
        start += tile - 2 * overlap


def middle(height: int, width: int, size: int) -> tuple[slice, slice]:
    """Return the rows and columns of the middle of an image, at most so many."""
    starts = [max(side - size, 0) // 2 for side in (height, width)]
    rows, columns = (slice(start, min(start + size, side)) for start, side in zip(starts, (height, width), strict=True))
    return rows, columns
