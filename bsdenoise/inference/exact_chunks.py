"""A blind-spot network in stages, for images whose maps in full resolution would need too much memory.

In each resolution the convolutions before a pooling and after an upsampling see a few pixels around only. So all maps
are computed from top to bottom, as many rows at a time as what follows asks for, in chunks with a halo of a few pixels;
and rows go once nothing that follows sees them. What is kept of coarse maps is a band as high as a chunk and as the
deepest level looks ahead, however high the image is. Yet the result is that of one pass, to rounding, hardly anything
is computed twice, and the maps at work fit into the processor's caches as well as those of a small image.
"""

import functools
from collections.abc import Callable

import numpy as np

# A module, not names of it: `import keras` in it may be what imports this one (see bsdenoise/__init__.py).
from bsdenoise import network as networks
from bsdenoise import progress
from bsdenoise.inference import rolling_maps

# Rows that stages reach to one side, in full resolution and in coarser ones. Two convolutions and a move by one row
# reach five, two convolutions or one and a move at most four; and windows begin at even rows.
HALO, COARSE_HALO = 6, 4
CONVOLUTIONS_REACH = 4  # in full resolution the blind spot is opened behind them, by a move of more rows if it is large
# An image halved so often is computed at once, to the deepest level and back, if it fits into a chunk. For images of a
# few chunks this is quicker, but it needs all rows of the maps above: further down these would be too many.
AT_ONCE = 2
# Shares of a level's multiplications, for whoever watches: those before its pooling, and those of all coarser levels.
# Of one turn these are 9 and 26 of 105 per pixel and width²; in full resolution, with the head, 36 and 104 of 428.
ENTERING, BELOW = 0.08, 0.25
LEAVING = 1 - ENTERING - BELOW


class Stages:
    """The network cut at each of its resolutions.

    Args:
        levels: The network, as `DenoisingNetwork.levels` cuts it.
        compile_fn: Makes a function of arrays, that gives arrays, out of one of tensors.
        finish: Function from a list of network outputs, images and noise parameters to a tuple of tensors (B, H, W, C).
        turns: By how many quarter turns the image is turned for each of the outputs.
    """

    def __init__(self, levels, compile_fn: Callable, finish: Callable, turns: tuple[int, ...]):
        branch, head, shift = levels
        self._depth = branch.depth
        reach = CONVOLUTIONS_REACH + shift
        self._last_halo = reach + reach % networks.POOLING_FACTOR

        def enter(image, level, quarter_turns):
            return branch.enter(image, level, quarter_turns)

        def leave_all(image, theta, *coarse):
            maps = [branch.leave(image, coarse[t], 0, t) for t in networks.TURNS]
            return finish(head(maps, turns), image, theta)

        @functools.cache
        def compiled(function, *place):
            return compile_fn(lambda *maps: function(*maps, *place))

        self._enter, self._below, self._leave = (
            functools.partial(compiled, function) for function in (enter, branch.below, branch.leave)
        )
        self._leave_all = compile_fn(leave_all)

    def compute(
        self,
        image: np.ndarray,
        theta: np.ndarray,
        chunk_pixels: int,
        kept: tuple[slice, slice] | None = None,
    ) -> list[np.ndarray]:
        """Compute what `finish` gives for one image.

        Args:
            image: (1, H, W, C).
            theta: Noise parameters, (1, P).
            chunk_pixels: Number of pixels that are computed at once in each resolution.
            kept: Rows and columns whose results are needed; all others may be anything. `None` for all.

        Whoever watches (`bsdenoise.progress`) hears of shares that add up to 1.
        """
        _, height, width, _ = image.shape
        pieces = rolling_maps.Cut(chunk_pixels, self._last_halo).pieces(height, width)
        pieces = [piece for piece in pieces if kept is None or all(map(_meet, piece.target, kept))]

        def pixels(rows: slice) -> np.ndarray:
            return image[:, rows]

        results: list[np.ndarray] = []
        with progress.part(1):  # all of it, even if some rows are not needed
            coarse = [self._from_below(pixels, (height, width), 0, turns, chunk_pixels) for turns in networks.TURNS]
            for piece in pieces:
                rows, columns = map(rolling_maps.halved, piece.window)
                for maps in coarse:
                    maps.forget(rows.start)
                # No name for the coarse maps: it would keep them while the next ones are computed.
                parts = self._leave_all(
                    image[:, *piece.window], theta, *(maps.rows(rows)[:, :, columns] for maps in coarse)
                )
                results = results or [np.empty((1, height, width, part.shape[-1]), part.dtype) for part in parts]
                for result, part in zip(results, parts, strict=True):
                    result[:, *piece.target] = part[:, *piece.inner]
                progress.advance(LEAVING / len(pieces))
        return results

    def _from_below(
        self, above: Callable, size: tuple[int, int], level: int, turns: int, chunk_pixels: int
    ) -> "rolling_maps.Maps":
        """Return what a level is given from the one below it.

        Args:
            above: Gives some rows of the level's own maps.
            size: Their height and width.
            level: How often they are halved.
            turns: The direction.
            chunk_pixels: As for `compute`.
        """
        share, share_below = (BELOW**halvings / len(networks.TURNS) for halvings in (level, level + 1))
        cut = rolling_maps.Cut(chunk_pixels, COARSE_HALO if level else HALO)
        maps = rolling_maps.halving(self._enter(level, turns), above, size, cut, ENTERING * share)
        level, cut = level + 1, rolling_maps.Cut(chunk_pixels, COARSE_HALO)
        if level <= AT_ONCE and maps.size[0] * maps.size[1] <= chunk_pixels:
            return rolling_maps.at_once(self._below(level, turns), maps, share_below)
        if level == self._depth:
            return rolling_maps.joined(self._below(level, turns), (maps,), cut, share_below)
        coarse = self._from_below(maps.rows, maps.size, level, turns, chunk_pixels)
        return rolling_maps.joined(self._leave(level, turns), (maps, coarse), cut, LEAVING * share_below)


def _meet(one: slice, other: slice) -> bool:
    """Tell whether two ranges have something in common."""
    return one.start < other.stop and other.start < one.stop
