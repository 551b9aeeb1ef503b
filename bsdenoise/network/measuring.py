"""What a network looks at, found by trying it out: for networks of which nobody has said it.

Nothing is read off its layers. Pixels are changed, or the image is moved, and it is seen which outputs answer.
"""

import zlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

MAX_GRID = 64  # largest spacing of a pooling grid that is looked for: six poolings
# Sides of the square that is kept while all around it changes, in pixels, one after the other until its middle stays.
WINDOWS = (192, 448, 960)
MIDDLE = 2 * MAX_GRID  # side of what has to stay: an image moved by a whole grid still has all places on it in there
MAX_REACH = (WINDOWS[-1] - MIDDLE) // 2
# Changes as small as the image itself, and large ones, which are still seen where little of them comes through.
CHANGES = (1.0, 1e3)
# Largest rounding error of the same outputs at another place, as a share of the largest output.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 1e-2}
NUM_PROBES = 64  # pixels that are changed in search of one that its own output depends on
PROBE_SIDE = 64  # side of the image in which they lie: every place on the largest grid
PROBE_CHANGE = 9.0
PROBE_TOLERANCE = 1e-6  # share of the largest output that is no answer


class Measured:
    """Reach, grid and blindness of a network, measured when asked for and kept while the weights stay as they are.

    A plain object, which Keras does not take for a part of the network.

    Args:
        network: From (B, H, W, C) to (B, H, W, n), for any H and W.
        channels: How many channels are denoised; they come first.
    """

    def __init__(self, network: keras.Model, channels: int):
        self._network = network
        self._channels = channels
        self._found: dict[str, tuple[int, Any]] = {}

    def reach(self) -> int:
        """Return at least as many pixels as an output looks to each side, less than a grid more.

        Raises:
            ValueError: If it looks further than `MAX_REACH`.
        """
        return self._from_the_grid() + self.grid() - 1

    def grid(self) -> int:
        """Return the least number of pixels by which an image can be moved so that its outputs move with it.

        Raises:
            ValueError: If there is none up to `MAX_GRID`, or the network looks further than `MAX_REACH`.
        """
        return self._kept("grid", lambda: _grid(self._network, self._from_the_grid()))

    def is_blind(self) -> bool:
        """Tell whether the output at a pixel never depends on that pixel."""
        return self._kept("is_blind", lambda: _is_blind(self._network, self._channels))

    def _from_the_grid(self) -> int:
        """Return how far outputs look beyond a line of the grid."""
        return self._kept("reach", lambda: _reach_from_a_line(self._network))

    def _kept(self, name: str, measure: Callable[[], Any]) -> Any:
        weights = 0
        for weight in self._network.get_weights():
            weights = zlib.crc32(np.ascontiguousarray(weight).tobytes(), weights)
        if name not in self._found or self._found[name][0] != weights:
            self._found[name] = weights, measure()
        return self._found[name][1]


def _reach_from_a_line(network) -> int:
    """Measure how far into a square the outputs answer to what is around it.

    Everything around is changed at once, so that it does not matter if single pixels are lost in a maximum.
    """
    for window in WINDOWS:
        side = window + 2 * MAX_GRID
        inner = slice(MAX_GRID, MAX_GRID + window)
        rng = np.random.default_rng(0)
        image = rng.random((1, side, side, network.input_shape[-1]), np.float32)
        before = _outputs(network, image)[:, inner, inner]
        answers = np.zeros((window, window), bool)
        for change in CHANGES:
            changed = change * rng.standard_normal(image.shape, np.float32)
            changed[:, inner, inner] = image[:, inner, inner]
            answers |= (_outputs(network, changed)[:, inner, inner] != before).any(axis=(0, -1))
        from_the_edge = np.minimum(np.arange(window), np.arange(window)[::-1]) + 1
        depths = np.minimum(from_the_edge[:, np.newaxis], from_the_edge)
        reach = int(depths[answers].max(initial=0))
        if window - 2 * reach >= MIDDLE:
            return reach
    raise ValueError(
        f"Network {network.name!r} looks further than {MAX_REACH} pixels, as global pooling and attention do: it takes "
        "only images that are computed at once. A `bsdenoise.network.DenoisingNetwork` can say its own `reach`."
    )


def _grid(network, reach: int) -> int:
    """Find the pooling grid: by powers of two, which nearly all are, then by other numbers."""
    window = next(window for window in WINDOWS if window - 2 * reach >= MIDDLE)
    side = window + 2 * MAX_GRID
    image = np.random.default_rng(0).random((1, side + MAX_GRID, side + MAX_GRID, network.input_shape[-1]), np.float32)
    # What no border of the image reaches: nearer to it than a grid beyond the reach is nothing of that.
    inner = slice(MAX_GRID + reach, side - MAX_GRID - reach)
    unmoved = _outputs(network, image[:, :side, :side])[:, inner, inner]
    tolerance = max(TOLERANCES.get(dtype, max(TOLERANCES.values())) for dtype in _compute_dtypes(network))
    limit = tolerance * np.abs(unmoved).max()
    powers = [2**power for power in range(MAX_GRID.bit_length())]
    for step in (*powers, *sorted({*range(1, MAX_GRID + 1)} - {*powers})):
        axes = ((step, 0), (0, step))
        if all(_moves_along(network, image, side, inner, unmoved, *steps) <= limit for steps in axes):
            return step
    raise ValueError(
        f"Network {network.name!r} has no pooling grid of at most {MAX_GRID} pixels: moved images do not give moved "
        "outputs. It takes only images that are computed at once."
    )


def _moves_along(network, image, side, inner, unmoved, down, right) -> float:
    """Return the largest difference between the outputs of an image and those of the same moved up and to the left."""
    moved = _outputs(network, image[:, down : down + side, right : right + side])[:, inner, inner]
    height, width = unmoved.shape[1:3]
    return float(np.abs(unmoved[:, down:, right:] - moved[:, : height - down, : width - right]).max())


def _is_blind(network, channels: int) -> bool:
    """Change one pixel in each of many copies of an image, and see whether its own output answers."""
    rng = np.random.default_rng(0)
    images = rng.random((1, PROBE_SIDE, PROBE_SIDE, network.input_shape[-1]), np.float32).repeat(NUM_PROBES, axis=0)
    before = _outputs(network, images)
    copies = np.arange(NUM_PROBES)
    rows, columns = np.unravel_index(rng.choice(PROBE_SIDE**2, NUM_PROBES, replace=False), (PROBE_SIDE, PROBE_SIDE))
    images[copies, rows, columns, :channels] += rng.choice([-PROBE_CHANGE, PROBE_CHANGE], (NUM_PROBES, channels))
    answers = np.abs(_outputs(network, images) - before)[copies, rows, columns]
    return bool(answers.max() <= PROBE_TOLERANCE * np.abs(before).max())


def _outputs(network, images: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(network(images, training=False), "float32"))


def _compute_dtypes(network) -> set[str]:
    return {layer.compute_dtype for layer in network.all_layers()}
