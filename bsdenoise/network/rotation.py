"""Sides, windows and quarter turns of feature maps (B, H, W, C), written with `keras.ops` only."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from keras import ops


class Padding(NamedTuple):
    """Numbers of zeros, or of anything else, that belong to the sides of an image."""

    top: int
    right: int
    bottom: int
    left: int

    def turned_back(self, quarter_turns: int) -> "Padding":
        """Return the padding of an image that becomes this one when the image is turned counter-clockwise.

        Turned by one quarter, as `numpy.rot90` does it, an image has its right side on top.
        """
        turns = quarter_turns % 4
        return Padding(*self[4 - turns :], *self[: 4 - turns])


def pad(maps, padding: Padding):
    """Pad with zeros."""
    return ops.pad(maps, ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right), (0, 0)))


def window(maps, top, left, height, width):
    """Cut a window out of maps; sizes may be known or not.

    Unlike that of `maps[:, a:b, c:d]`, the gradient of this is quick in TensorFlow: a padding.
    """
    if isinstance(height, int) and isinstance(width, int) and tuple(maps.shape[1:3]) == (height, width):
        return maps
    return ops.slice(maps, (0, top, left, 0), (ops.shape(maps)[0], height, width, maps.shape[-1]))


def shift(maps, quarter_turns: int = 0, rows: int = 1):
    """Move maps down by some rows, as seen after so many quarter turns; zeros come in at the top."""
    padding = Padding(rows, 0, 0, 0).turned_back(quarter_turns)
    height, width = ops.shape(maps)[1:3]
    return window(pad(maps, padding), padding.bottom, padding.right, height, width)


def turn_kernel_back(kernel, quarter_turns: int):
    """Turn a kernel (h, w, …), so that it does to an image what it does to the image turned counter-clockwise."""
    return map_taps(kernel, lambda taps: np.rot90(taps, -quarter_turns)) if quarter_turns % 4 else kernel


def map_taps(kernel, function: Callable[[np.ndarray], np.ndarray]):
    """Apply a linear function of the taps to a kernel, by one product of matrices.

    Kernels are prepared anew for every batch, and small images leave little else to do: turning, flipping and adding
    one after the other took ten times as long.

    Args:
        kernel: (h, w, …).
        function: From an array (h, w) to an array (h', w').

    Returns:
        (h', w', …).
    """
    height, width, *rest = kernel.shape
    units = np.eye(height * width).reshape(-1, height, width)
    images = [function(unit) for unit in units]
    matrix = ops.convert_to_tensor(np.stack([image.ravel() for image in images], axis=-1), kernel.dtype)
    taps = ops.matmul(matrix, ops.reshape(kernel, (height * width, -1)))
    return ops.reshape(taps, (*images[0].shape, *rest))
