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
    # Of an odd side, half a pixel of `coarse` is cropped; but `full` has been given all of it.
    if padding.bottom:
        full = _if(height % 2 == 1, _without_row, full, coarse, kernel, padding, quarter_turns, height)
    if padding.right:
        full = _if(width % 2 == 1, _without_column, full, coarse, kernel, padding, quarter_turns, height, width)
    return rotation.window(full, padding.bottom, padding.right, height, width)


def _smeared(taps):
    """Add taps (h, w) to themselves moved by one row, by one column, and by both."""
    framed = np.pad(taps, 1)
    return framed[1:, 1:] + framed[:-1, 1:] + framed[1:, :-1] + framed[:-1, :-1]


def _if(condition, change, maps, *arguments):
    """Change maps on a condition, which is known when the size is."""
    if isinstance(condition, bool):
        return change(maps, *arguments) if condition else maps
    return ops.cond(condition, lambda: change(maps, *arguments), lambda: maps)


def _without_row(full, coarse, kernel, padding, quarter_turns, height):
    """Take away what the row below the crop has given.

    Args as for `convolve_upsampled`; `full` begins `padding.bottom` rows and `padding.right` columns before its result.
    """
    kernel = rotation.turn_kernel_back(kernel, quarter_turns)[padding.top + 1 :]
    row = ops.repeat(coarse[:, -1:], 2, axis=2)
    above, beside = padding.bottom - 1, kernel.shape[1] - 1
    row = rotation.pad(row, rotation.Padding(above, beside, above, beside))
    given = ops.conv(row, kernel, padding="valid", data_format="channels_last")
    return ops.concatenate([full[:, :height], full[:, height : height + padding.bottom] - given], axis=1)


def _without_column(full, coarse, kernel, padding, quarter_turns, height, width):
    """Take away what the column to the right of the crop has given, where it is no part of the row below."""
    kernel = rotation.turn_kernel_back(kernel, quarter_turns)[:, padding.left + 1 :]
    column = ops.repeat(coarse[:, :, -1:], 2, axis=1)[:, :height]
    column = rotation.pad(
        column, rotation.Padding(kernel.shape[0] - 1, padding.right - 1, padding.bottom, padding.right - 1)
    )
    given = ops.conv(column, kernel, padding="valid", data_format="channels_last")
    rows = height + padding.bottom
    return ops.concatenate([full[:, :rows, :width], full[:, :rows, width : width + padding.right] - given], axis=2)
