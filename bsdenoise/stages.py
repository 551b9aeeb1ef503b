"""A blind-spot network in stages, for images whose maps in full resolution would need too much memory.

Three quarters of the work and nearly all of the memory are in the highest resolution, where the convolutions before
the first pooling and after the last upsampling see a few pixels around only. These are computed in chunks, each with
a halo of a few pixels; what lies between is computed at half the resolution, one direction after the other. So the
result is that of one pass, to rounding, while hardly anything is computed twice.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np

# A module, not names of it: `import keras` in it may be what imports this one (see bsdenoise/__init__.py).
from bsdenoise import network as networks
from bsdenoise import tiling

NUM_DIRECTIONS = 4
# Rows that the stages in full resolution reach to one side. Two convolutions and a move by one row reach five, and
# windows begin at even rows.
HALO = 6


class Stages:
    """The network cut at half its resolution.

    Args:
        network: A network that `blind_spot_network` built.
        compile_fn: Makes a function of arrays, that gives arrays, out of one of tensors.
        normalize: Function from images to what the network is given, on tensors.
        finish: Function from network outputs, images and σ to a tuple of tensors (B, H, W, C).
    """

    def __init__(self, network, compile_fn: Callable, normalize: Callable, finish: Callable):
        branch, head = networks.Branch.of(network), _head(network)
        turns = range(NUM_DIRECTIONS)
        self._enter = [compile_fn(lambda image, t=t: branch.enter(normalize(image), t)) for t in turns]
        self._descend = [compile_fn(lambda maps, t=t: branch.descend(maps, t)) for t in turns]

        def finish_chunk(image, sigma, *coarse):
            normalized = normalize(image)
            return finish(head([branch.finish(normalized, coarse[t], t) for t in turns]), image, sigma)

        self._finish = compile_fn(finish_chunk)

    def compute(
        self, image: np.ndarray, sigma: np.ndarray, chunk_pixels: int, kept: tuple[slice, slice] | None = None
    ) -> Sequence[np.ndarray]:
        """Computes what `finish` gives for one image.

        Args:
            image: (1, H, W, C).
            sigma: (1,).
            chunk_pixels: Number of pixels that are computed at once in full resolution.
            kept: Rows and columns whose results are needed; all others may be anything. `None` for all.
        """
        height, width = image.shape[1:3]
        chunk = tiling.fit(height, width, chunk_pixels, HALO, networks.POOLING_FACTOR)
        pieces = list(tiling.plan(height, width, chunk, HALO, networks.POOLING_FACTOR))
        directions = zip(self._enter, self._descend, strict=True)
        coarse = [self._coarse_maps(image, pieces, *functions) for functions in directions]
        results: list[np.ndarray] = []
        for piece in pieces:
            if kept is not None and not all(map(_meet, piece.target, kept)):
                continue
            parts = self._finish(image[:, *piece.window], sigma, *(maps[:, *_halved(piece.window)] for maps in coarse))
            results = results or [np.empty((1, height, width, part.shape[-1]), part.dtype) for part in parts]
            for result, part in zip(results, parts, strict=True):
                result[:, *piece.target] = part[:, *piece.inner]
        return results

    @staticmethod
    def _coarse_maps(image, pieces, enter, descend):
        """Computes the maps of one direction in half the resolution."""
        sides = [-(-side // networks.POOLING_FACTOR) for side in image.shape[1:3]]
        maps = None
        for piece in pieces:
            part = enter(image[:, *piece.window])
            if maps is None:
                maps = np.empty((1, *sides, part.shape[-1]), part.dtype)
            maps[:, *_halved(piece.target)] = part[:, *_halved(piece.inner)]
        return descend(maps)


def _head(network):
    """Gives the function from the maps of the branches to the network's outputs."""
    names = [layer.name for layer in network.layers]
    layers = network.layers[names.index(networks.BLIND_SPOT) :]

    def head(maps):
        for layer in layers:
            maps = layer(maps)
        return maps

    return head


def _meet(one: slice, other: slice) -> bool:
    """Tells whether two ranges have something in common."""
    return one.start < other.stop and other.start < one.stop


def _halved(window: tuple[slice, slice]) -> tuple[slice, ...]:
    """Gives rows and columns in half the resolution; starts are even, and so are stops before the end."""
    return tuple(
        slice(side.start // networks.POOLING_FACTOR, -(-side.stop // networks.POOLING_FACTOR)) for side in window
    )


def can_be_cut(network) -> bool:
    """Tells whether a network is one that `Stages` knows."""
    return isinstance(network, keras.Model) and networks.BLIND_SPOT in [layer.name for layer in network.layers]
