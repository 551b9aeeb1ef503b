"""Maps of an image from top to bottom: rows are computed as they are asked for, and go once nothing needs them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# A module, not names of it: `import keras` in it may be what imports this one (see bsdenoise/__init__.py).
from bsdenoise import network as networks
from bsdenoise import progress
from bsdenoise.inference import tiling


@dataclass(frozen=True)
class Cut:
    """How maps are cut into chunks.

    Attributes:
        pixels: Number of pixels that a chunk may have.
        halo: Pixels that it has around what is kept of its result, an even number.
    """

    pixels: int
    halo: int

    def pieces(self, height: int, width: int) -> list[tiling.Tile]:
        """Return the chunks, row by row."""
        chunk = tiling.fit(height, width, self.pixels, self.halo, networks.POOLING_FACTOR)
        return list(tiling.plan(height, width, chunk, self.halo, networks.POOLING_FACTOR))

    def around(self, rows: slice, height: int) -> slice:
        """Return rows with their halo; it starts at an even row, and stops at one or at the end."""
        start, stop = max(rows.start - self.halo, 0), rows.stop + self.halo
        return slice(start - start % networks.POOLING_FACTOR, min(stop + stop % networks.POOLING_FACTOR, height))


class Maps:
    """Maps of one resolution, (1, H, W, C), whose rows are computed from top to bottom as they are asked for.

    Args:
        size: H and W.
        compute: Gives some rows; it is asked for none twice.
        share: What all rows are worth, for whoever watches.
        is_at_once: Whether all rows are computed together.
    """

    def __init__(
        self, size: tuple[int, int], compute: Callable[[slice], np.ndarray], share: float, is_at_once: bool = False
    ):
        self.size = size
        self._compute = compute
        self._share = share
        self._is_at_once = is_at_once
        self._first = 0
        self._kept: np.ndarray | None = None

    def rows(self, asked: slice) -> np.ndarray:
        """Return rows, of which none was forgotten; where the first ones begin, the maps are taken to begin."""
        wanted = slice(0, self.size[0]) if self._is_at_once else asked
        if self._kept is None:
            self._first = wanted.start
        stop = self._first + (0 if self._kept is None else self._kept.shape[1])
        if wanted.stop > stop:
            found = self._compute(slice(stop, wanted.stop))
            self._kept = found if self._kept is None else np.concatenate([self._kept, found], axis=1)
            progress.advance(self._share * (wanted.stop - stop) / self.size[0])
        assert self._kept is not None
        return self._kept[:, _within(slice(self._first, stop), asked)]

    def forget(self, before: int) -> None:
        """Let rows go that nothing will ask for any more."""
        if self._kept is not None and before > self._first:
            self._kept = self._kept[:, before - self._first :].copy()  # a view would keep them
            self._first = before


def halving(function: Callable, above: Callable, size: tuple[int, int], cut: Cut, share: float) -> Maps:
    """Apply a function that gives maps of half the size.

    Args:
        function: From maps (1, H, W, C) to (1, ⌈H/2⌉, ⌈W/2⌉, D).
        above: Gives some rows of the maps that it is applied to.
        size: Their height and width.
        cut: Into chunks.
        share: As for `Maps`.
    """

    def compute(rows: slice) -> np.ndarray:
        doubled = slice(rows.start * networks.POOLING_FACTOR, rows.stop * networks.POOLING_FACTOR)
        window = cut.around(doubled, size[0])
        return _in_chunks(function, cut, (above(window),), halved)[:, _within(halved(window), rows)]

    height, width = (-(-side // networks.POOLING_FACTOR) for side in size)
    return Maps((height, width), compute, share)


def joined(function: Callable, maps: tuple[Maps, ...], cut: Cut, share: float) -> Maps:
    """Apply a function that gives maps of the same size as the first ones; nothing else needs these any more.

    Args:
        function: From maps (1, H, W, C), and where there are others (1, ⌈H/2⌉, ⌈W/2⌉, D), to (1, H, W, E).
        maps: What it is applied to.
        cut: Into chunks.
        share: As for `Maps`.
    """
    first, *coarse = maps

    def compute(rows: slice) -> np.ndarray:
        window = cut.around(rows, first.size[0])
        # The coarse ones first: they come from rows of the others that lie further up.
        parts = [others.rows(halved(window)) for others in coarse]
        found = _in_chunks(function, cut, (first.rows(window), *parts), lambda side: side)
        following = cut.around(slice(rows.stop, rows.stop), first.size[0])
        first.forget(following.start)
        for others in coarse:
            others.forget(halved(following).start)
        return found[:, _within(window, rows)]

    return Maps(first.size, compute, share)


def at_once(function: Callable, maps: Maps, share: float) -> Maps:
    """Apply a function, as `joined`, to whole maps."""

    def compute(rows: slice) -> np.ndarray:
        found = function(maps.rows(rows))
        maps.forget(rows.stop)
        return found

    return Maps(maps.size, compute, share, is_at_once=True)


def halved(side: slice) -> slice:
    """Return rows or columns in half the resolution; starts are even, and so are stops before the end."""
    return slice(side.start // networks.POOLING_FACTOR, -(-side.stop // networks.POOLING_FACTOR))


def _in_chunks(
    function: Callable, cut: Cut, maps: tuple[np.ndarray, ...], place: Callable[[slice], slice]
) -> np.ndarray:
    """Apply a function chunk by chunk.

    Args:
        function: From parts of maps to one array.
        cut: Into chunks.
        maps: (1, H, W, C), and others of half the resolution.
        place: From rows or columns of the first maps to those of the result.
    """
    first, *coarse = maps
    _, height, width, _ = first.shape
    result: np.ndarray | None = None
    for piece in cut.pieces(height, width):
        part = function(first[:, *piece.window], *(others[:, *map(halved, piece.window)] for others in coarse))
        if result is None:
            sides = [place(slice(0, side)).stop for side in (height, width)]
            result = np.empty((1, *sides, part.shape[-1]), part.dtype)
        result[:, *map(place, piece.target)] = part[:, *map(place, piece.inner)]
    assert result is not None
    return result


def _within(window: slice, rows: slice) -> slice:
    """Return rows as they are counted in a window that holds them."""
    return slice(rows.start - window.start, rows.stop - window.start)
