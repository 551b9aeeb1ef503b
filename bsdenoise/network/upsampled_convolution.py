"""Convolution of maps that were upsampled to twice their size by repeating each pixel, without upsampling them.

A kernel sees every repeated pixel two times or once, depending on where it stands, and each time with another entry.
Added up beforehand, these entries make a kernel of one row and column more, that is applied as a transposed
convolution with a stride of two: 4 products for an output of a 3×3 kernel instead of 9.
"""

import numpy as np
from keras import ops

from bsdenoise.network import rotation


def convolve_upsampled(coarse, kernel, padding, quarter_turns: int, height, width):
    """Convolves upsampled maps that are first cropped to a size and padded with zeros.

    Args:
        coarse: Maps (B, ⌈H/2⌉, ⌈W/2⌉, D).
        kernel: (h, w, D, F), to be turned back by so many quarter turns.
        padding: A `geometry.Padding`: zeros around the cropped maps, after turning, that keep the size.
        quarter_turns: Quarter turns.
        height: H.
        width: W.

    Returns:
        Maps (B, H, W, F).
    """
    # Axes and sides are those of the convolution that this is the gradient of.
    transposed = rotation.map_taps(
        ops.transpose(kernel, (0, 1, 3, 2)), lambda taps: _smeared(np.rot90(taps, 2 - quarter_turns))
    )
    full = ops.conv_transpose(coarse, transposed, 2, padding="valid", data_format="channels_last")
    outputs = rotation.window(full, padding.bottom, padding.right, height, width)
    # Of an odd side, half a pixel of `coarse` is cropped; but `full` has been given all of it.
    if padding.bottom and not _is_even(height):
        given = _given_by_row(coarse, kernel, padding, quarter_turns, width)
        below = _least(padding.bottom, height)
        given = _if_odd(height, given[:, padding.bottom - below :])
        outputs = outputs - rotation.pad(given, rotation.Padding(height - below, 0, 0, 0))
    if padding.right and not _is_even(width):
        given = _given_by_column(coarse, kernel, padding, quarter_turns, height)
        beside = _least(padding.right, width)
        given = _if_odd(width, given[:, :, padding.right - beside :])
        outputs = outputs - rotation.pad(given, rotation.Padding(0, 0, 0, width - beside))
    return outputs


def _smeared(taps):
    """Add taps (h, w) to themselves moved by one row, by one column, and by both."""
    framed = np.pad(taps, 1)
    return framed[1:, 1:] + framed[:-1, 1:] + framed[1:, :-1] + framed[:-1, :-1]


def _is_even(size):
    """Tell whether a side is known to be even."""
    return isinstance(size, int) and size % 2 == 0


def _least(number, size):
    """Return the smaller one of a number and a side ≥ 1."""
    if number == 1:
        return 1
    return min(number, size) if isinstance(size, int) else ops.minimum(number, size)


def _if_odd(size, given):
    """Return what is given where a side is odd, else zeros: a condition in the graph would cost more than the sums."""
    return given if isinstance(size, int) else ops.where(size % 2 == 1, given, ops.zeros_like(given))


def _given_by_row(coarse, kernel, padding, quarter_turns, width):
    """Compute what the row below the crop has given to the last `padding.bottom` rows of the result.

    Args as for `convolve_upsampled`.
    """
    kernel = rotation.turn_kernel_back(kernel, quarter_turns)[padding.top + 1 :]
    row = ops.repeat(coarse[:, -1:], 2, axis=2)
    above, beside = padding.bottom - 1, kernel.shape[1] - 1
    row = rotation.pad(row, rotation.Padding(above, beside, above, beside))
    given = ops.conv(row, kernel, padding="valid", data_format="channels_last")
    return rotation.window(given, 0, padding.right, padding.bottom, width)


def _given_by_column(coarse, kernel, padding, quarter_turns, height):
    """Compute what the column to the right of the crop has given, where it is no part of the row below."""
    kernel = rotation.turn_kernel_back(kernel, quarter_turns)[:, padding.left + 1 :]
    column = ops.repeat(coarse[:, :, -1:], 2, axis=1)[:, :height]
    column = rotation.pad(
        column, rotation.Padding(kernel.shape[0] - 1, padding.right - 1, padding.bottom, padding.right - 1)
    )
    given = ops.conv(column, kernel, padding="valid", data_format="channels_last")
    return rotation.window(given, padding.bottom, 0, height, padding.right)
