"""A blind-spot network in stages, for images whose maps in full resolution would need too much memory.

In each resolution the convolutions before a pooling and after an upsampling see a few pixels around only. These are
computed in chunks, each with a halo of a few pixels, and so are those of half the resolution between them, until a
resolution fits into one chunk: one direction after the other, down to there and back. So the result is that of one
pass, to rounding, while hardly anything is computed twice, and the maps at work fit into the processor's caches as
well as those of a small image.
"""

import functools
from collections.abc import Callable

import numpy as np

# A module, not names of it: `import keras` in it may be what imports this one (see bsdenoise/__init__.py).
from bsdenoise import network as networks
from bsdenoise import progress
from bsdenoise.inference import tiling

# Rows that the stages of one resolution reach to one side. Two convolutions and a move by one row reach five, and
# windows begin at even rows.
HALO = 6
# Shares of a level's multiplications, for whoever watches: those before its pooling, and those of all coarser levels.
# Of one turn these are 9 and 26 of 105 per pixel and width²; in full resolution, with the head, 36 and 104 of 428.
ENTERING, BELOW = 0.08, 0.25
LEAVING = 1 - ENTERING - BELOW


class Stages:
    """The network cut at each of its resolutions.

    Args:
        levels: The network, as `DenoisingNetwork.levels` cuts it.
        compile_fn: Makes a function of arrays, that gives arrays, out of one of tensors.
        finish: Function from network outputs, images and σ to a tuple of tensors (B, H, W, C).
    """

    def __init__(self, levels, compile_fn: Callable, finish: Callable):
        branch, head = levels
        self._depth = branch.depth

        def enter(image, level, turns):
            return branch.enter(image, level, turns)

        def leave_all(image, sigma, *coarse):
            return finish(head([branch.leave(image, coarse[t], 0, t) for t in networks.TURNS]), image, sigma)

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
        sigma: np.ndarray,
        chunk_pixels: int,
        kept: tuple[slice, slice] | None = None,
    ) -> list[np.ndarray]:
        """Computes what `finish` gives for one image.

        Args:
            image: (1, H, W, C).
            sigma: (1,).
            chunk_pixels: Number of pixels that are computed at once in each resolution.
            kept: Rows and columns whose results are needed; all others may be anything. `None` for all.

        Whoever watches (`bsdenoise.progress`) hears of shares that add up to 1.
        """
        chunks = Chunks(image, chunk_pixels)
        coarse = []
        for turns in networks.TURNS:
            with progress.part((ENTERING + BELOW) / len(networks.TURNS), of=ENTERING + BELOW):
                coarse.append(self._from_below(chunks, 0, turns))
        with progress.part(LEAVING):
            return chunks.collect(lambda pixels, *maps: self._leave_all(pixels, sigma, *maps), coarse, kept)

    def _from_below(self, chunks: "Chunks", level: int, turns: int) -> np.ndarray:
        """Computes what a level is given from the one below it."""
        with progress.part(ENTERING):
            maps = chunks.collect_halved(self._enter(level, turns))
        with progress.part(BELOW):
            if level + 1 == self._depth or maps.shape[1] * maps.shape[2] <= chunks.max_pixels:
                return self._below(level + 1, turns)(maps)
            chunks = Chunks(maps, chunks.max_pixels)
            coarse = self._from_below(chunks, level + 1, turns)
            with progress.part(LEAVING):
                return chunks.collect(lambda *parts: [self._leave(level + 1, turns)(*parts)], [coarse])[0]


class Chunks:
    """Maps of one resolution, (1, H, W, C), cut into chunks.

    Args:
        maps: The maps.
        max_pixels: Number of pixels that a chunk may have.
    """

    def __init__(self, maps: np.ndarray, max_pixels: int):
        self.max_pixels = max_pixels
        self._maps = maps
        _, height, width, _ = maps.shape
        chunk = tiling.fit(height, width, max_pixels, HALO, networks.POOLING_FACTOR)
        self._pieces = list(tiling.plan(height, width, chunk, HALO, networks.POOLING_FACTOR))

    def collect(
        self, function: Callable, coarse: list[np.ndarray], kept: tuple[slice, slice] | None = None
    ) -> list[np.ndarray]:
        """Applies a function chunk by chunk.

        Args:
            function: From maps, and coarse ones, to several of the same height and width as the first.
            coarse: Maps in half the resolution.
            kept: Rows and columns that are needed; `None` for all.
        """
        results: list[np.ndarray] = []
        pieces = [piece for piece in self._pieces if kept is None or all(map(_meet, piece.target, kept))]
        for piece in pieces:
            parts = function(self._maps[:, *piece.window], *(maps[:, *_halved(piece.window)] for maps in coarse))
            results = results or [np.empty((*self._maps.shape[:3], part.shape[-1]), part.dtype) for part in parts]
            for result, part in zip(results, parts, strict=True):
                result[:, *piece.target] = part[:, *piece.inner]
            progress.advance(1 / len(pieces))
        return results

    def collect_halved(self, function: Callable) -> np.ndarray:
        """Applies a function from maps to some of half their resolution chunk by chunk."""
        sides = [-(-side // networks.POOLING_FACTOR) for side in self._maps.shape[1:3]]
        result = np.empty(0)
        for piece in self._pieces:
            part = function(self._maps[:, *piece.window])
            if not result.size:
                result = np.empty((1, *sides, part.shape[-1]), part.dtype)
            result[:, *_halved(piece.target)] = part[:, *_halved(piece.inner)]
            progress.advance(1 / len(self._pieces))
        return result


def _meet(one: slice, other: slice) -> bool:
    """Tells whether two ranges have something in common."""
    return one.start < other.stop and other.start < one.stop


def _halved(window: tuple[slice, slice]) -> tuple[slice, ...]:
    """Gives rows and columns in half the resolution; starts are even, and so are stops before the end."""
    return tuple(
        slice(side.start // networks.POOLING_FACTOR, -(-side.stop // networks.POOLING_FACTOR)) for side in window
    )
