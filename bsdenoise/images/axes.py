"""Axes of arrays: rows, columns and channels of images, and along all others one image after the other.

An axis is named by a letter as microscopy has it: Y rows, X columns, C channels, S the samples of a colour (red, green,
blue); others, such as T time, Z depth or N, number the images. Arrays without names are taken by their shapes only
where little else can be meant, and never without a note where something else can.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bsdenoise.images.pixels import NUM_COLOURS

# Of an array without names the last axis is that of the channels if it has at most so many. Cameras and microscopes
# have fewer channels, and nobody denoises images of 16 columns.
MOST_CHANNELS = 16
FLAG = "--axes"
NOT_USED = f"{FLAG} is not used: such a file says by itself what its axes are"
EXAMPLE = f"{FLAG} TZYX"
ROWS, COLUMNS, CHANNELS, SAMPLES = "y", "x", "c", "s"
# Names of axes as other software writes them.
_LETTERS = {
    **dict.fromkeys(("y", "row", "rows", "lat", "latitude"), ROWS),
    **dict.fromkeys(("x", "col", "cols", "column", "columns", "lon", "longitude"), COLUMNS),
    **dict.fromkeys(("c", "ch", "channel", "channels", "band", "bands"), CHANNELS),
    **dict.fromkeys(("s", "sample", "samples", "rgb"), SAMPLES),
}
_GUESSED = {2: (ROWS, COLUMNS), 3: (ROWS, COLUMNS, CHANNELS), 4: ("n", ROWS, COLUMNS, CHANNELS)}


@dataclass(frozen=True)
class Layout:
    """Where the images of an array are.

    Attributes:
        shape: Shape of the array.
        names: One for each axis, as files hold them.
        rows: Number of the axis of the rows.
        columns: Number of the axis of the columns.
        channels: Number of the axis of the channels; `None` if there is none.
        independent: Whether the channels are measurements of their own rather than colours.
        is_named: Whether names or users say so; else it was the shape.
        notes: What was assumed, in words.
    """

    shape: tuple[int, ...]
    names: tuple[str, ...]
    rows: int
    columns: int
    channels: int | None = None
    independent: bool = False
    is_named: bool = True
    notes: tuple[str, ...] = ()

    @cached_property
    def outer(self) -> tuple[int, ...]:
        """The axes along which there is one image after the other."""
        inner = (self.rows, self.columns, self.channels)
        return tuple(axis for axis in range(len(self.shape)) if axis not in inner)

    @property
    def images_shape(self) -> tuple[int, ...]:
        """The shape as images have it: (H, W), (H, W, C) or (N, H, W, C)."""
        shape = tuple(self.shape[axis] for axis in self._inner)
        if not self.outer:
            return shape
        number = math.prod(self.shape[axis] for axis in self.outer)
        return (number, *shape, *(() if self.channels is not None else (1,)))

    def numbers(self, index: int) -> tuple[int, ...]:
        """Return where image number `index` is along each of the outer axes."""
        return tuple(int(number) for number in np.unravel_index(index, [self.shape[axis] for axis in self.outer]))

    def place(self, index: int, rows: slice, columns: slice) -> tuple[int | slice, ...]:
        """Return what to index the array by for rows and columns of image number `index`, with all its channels.

        Args:
            index: Number of the image, from 0.
            rows: Its rows.
            columns: Its columns.
        """
        place: list[Any] = [slice(None)] * len(self.shape)
        for axis, number in zip(self.outer, self.numbers(index), strict=True):
            place[axis] = number
        place[self.rows], place[self.columns] = rows, columns
        return tuple(place)

    def to_image(self, part: np.ndarray) -> np.ndarray:
        """Convert what stands at a `place` to (h, w), (h, w, C), or of a stack without channels (h, w, 1)."""
        left = sorted(self._inner)
        part = part.transpose([left.index(axis) for axis in self._inner])
        return part[..., np.newaxis] if self.outer and self.channels is None else part

    def from_image(self, pixels: np.ndarray) -> np.ndarray:
        """Undo `to_image`."""
        pixels = pixels[..., 0] if pixels.ndim > len(self._inner) else pixels
        return pixels.transpose(np.argsort(self._inner))

    @cached_property
    def _inner(self) -> tuple[int, ...]:
        """The axes of an image, in the order in which images have them."""
        return (self.rows, self.columns, *(() if self.channels is None else (self.channels,)))


def check_axes(axes: str | None) -> None:
    """Refuse letters that cannot be those of images.

    Raises:
        ValueError: If Y or X is missing, a letter is there twice, or both C and S.
    """
    if axes is None:
        return
    letters = axes.lower()
    is_right = letters.isascii() and letters.isalpha() and len(set(letters)) == len(letters)
    if not is_right or not {ROWS, COLUMNS} <= set(letters) or {CHANNELS, SAMPLES} <= set(letters):
        raise ValueError(
            f"{FLAG} must name every axis by a letter of its own: Y rows, X columns, C channels or S colours, others "
            f"such as T, Z or N for one image after the other; for example TZYX or NYXC. Received: {axes!r}."
        )


def of_array(shape: tuple[int, ...], axes: str | None = None) -> Layout:
    """Find the images in an array whose axes have no names.

    Args:
        shape: Shape of the array.
        axes: Letters of its axes, in either case; `None` takes (H, W), (H, W, C) with at most 16 channels, (N, H, W),
            and (N, H, W, C) with at most 16 channels.

    Raises:
        ValueError: If it is empty, has other axes than `axes`, or may be anything.
    """
    if 0 in shape:
        raise ValueError(f"the shape must be that of images, nothing empty. Received: {shape}")
    if axes is not None:
        check_axes(axes)
        if len(axes) != len(shape):
            raise ValueError(f"{FLAG} {axes} names {len(axes)} axes, and it has {len(shape)}: {shape}")
        return of_names(tuple(axes.lower()), shape)
    if not 2 <= len(shape) <= 4:
        fewer = "the shape must be (H, W), (H, W, C), (N, H, W) or (N, H, W, C)"
        advice = f", or its axes be named, such as by {FLAG} TCZYX" if len(shape) > 4 else ""
        raise ValueError(f"{fewer}{advice}. Received: {shape}")
    has_channels = len(shape) > 2 and shape[-1] <= MOST_CHANNELS
    if len(shape) == 3 and not has_channels:
        may_be_colours = shape[0] == NUM_COLOURS
        note = f"taken as {shape[0]} images of one channel; {FLAG} SYX says that they are one image's colours"
        return Layout(shape, ("n", ROWS, COLUMNS), 1, 2, is_named=False, notes=(note,) if may_be_colours else ())
    if len(shape) == 4 and not has_channels:
        raise ValueError(
            f"its four axes {shape} may be anything: name them, such as by {EXAMPLE} (time, depth, rows, columns) or "
            f"{FLAG} NYXC (images, rows, columns, channels)"
        )
    first = len(shape) - 3
    notes: tuple[str, ...] = ()
    if len(shape) == 4 or (len(shape) > 2 and shape[-1] not in (1, NUM_COLOURS)):
        number = f"{shape[0]} image{'s' * (shape[0] > 1)} of " if len(shape) == 4 else ""
        letters = ", ".join(_GUESSED[len(shape)]).upper()
        size = f"{shape[-3]} rows, {shape[-2]} columns and {shape[-1]} channel{'s' * (shape[-1] > 1)}"
        notes = (f"taken as {letters}: {number}{size}; {FLAG} says otherwise",)
    if len(shape) == 2:
        return Layout(shape, _GUESSED[2], 0, 1, is_named=False)
    names = _GUESSED[len(shape)]
    return Layout(shape, names, first, first + 1, first + 2, is_named=False, notes=notes)


def of_names(names: Sequence[str | None], shape: tuple[int, ...]) -> Layout:
    """Find the images in an array whose axes have names.

    Three channels are colours where they are called samples, or where they are the last axis, as in arrays without
    names; else channels are independent.

    Args:
        names: Letters, or words such as "row" and "channel"; `None` for an axis without a name.
        shape: Shape of the array.

    Raises:
        ValueError: If they do not name the rows and columns of images, each once.
    """
    letters = [_LETTERS.get((name or "").lower(), "") for name in names]
    channels = [axis for axis, letter in enumerate(letters) if letter in (CHANNELS, SAMPLES)]
    if letters.count(ROWS) != 1 or letters.count(COLUMNS) != 1 or len(channels) > 1 or len(names) != len(shape):
        shown = ", ".join(str(name) for name in names)
        raise ValueError(f"its axes ({shown}) are not those of images, with rows y, columns x and perhaps channels c")
    channel = channels[0] if channels else None
    independent = False
    notes: tuple[str, ...] = ()
    if channel is not None and letters[channel] == CHANNELS:
        independent = channel != len(shape) - 1 or (names[channel] or "").lower().startswith("band")
        if independent and shape[channel] == NUM_COLOURS:
            notes = (
                f"its {NUM_COLOURS} channels are taken one by one; {FLAG} with S for C says that they are colours",
            )
    kept = tuple(name or f"dim_{axis}" for axis, name in enumerate(names))
    rows, columns = letters.index(ROWS), letters.index(COLUMNS)
    return Layout(shape, kept, rows, columns, channel, independent, notes=notes)


def are_of_images(names: Sequence[str | None] | None, shape: tuple[int, ...]) -> bool:
    """Tell whether names say where rows and columns are; else an array counts as one without names.

    Args:
        names: A name for each axis, or `None` for one without; `None` for no names at all.
        shape: Shape of the array.
    """
    try:
        return names is not None and bool(of_names(names, shape))
    except ValueError:
        return False


def of_images(shape: tuple[int, ...], independent: bool = False) -> Layout:
    """Lay out an array for images, (H, W), (H, W, C) or (N, H, W, C), as `of_names` finds them again.

    Args:
        shape: Shape of the images.
        independent: Whether the channels are no colours; then they stand before the rows.
    """
    names = _GUESSED[len(shape)]
    if independent and len(shape) > 2:
        outer = names[: len(shape) - 3]
        shape = (*shape[:-3], shape[-1], *shape[-3:-1])
        return of_names((*outer, CHANNELS, ROWS, COLUMNS), shape)
    return of_names(names, shape)
