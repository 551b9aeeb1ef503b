"""TIFF files: 8- and 16-bit integers and floats, grey, RGB or any number of channels, single images and stacks.

Axes other than rows, columns and channels (samples S, otherwise C) are one after the other: a file of axes TZCYX holds
T·Z images of C channels. What is written like a TIFF has its axes, arrangement of samples, byte order and descriptions.
"""

import functools
import math
import os
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from tifffile import TiffFile

from bsdenoise.formats import pixels, tiff_headers, tiff_tags, tiff_writing
from bsdenoise.formats.pixels import ImageFile, Picture
from bsdenoise.formats.tiff_layout import Layout

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian, classic and BigTIFF
NUM_KNOWN_LAYOUTS = 64  # files whose chain of pages is not followed anew for each image


def open_file(file: BinaryIO) -> ImageFile:
    """Reads the headers.

    Raises:
        ValueError: If it is broken, or of a kind that is not supported. (Other errors are tifffile's.)
    """
    layout = _layout(file)
    metadata = {**tiff_tags.common_metadata(layout.tags, layout.byteorder), "tiff": layout}
    dtype = layout.dtype if layout.palette is None else layout.palette.dtype
    return ImageFile("TIFF", layout.image_shape, dtype, _Reader(file, layout).read, metadata, layout.notes)


def check(shape: tuple[int, ...], dtype: Any) -> None:
    """Checks that an array can be written.

    Raises:
        ValueError: If not.
    """
    pixels.full_scale(dtype)


def write(file: BinaryIO, array: np.ndarray, like: Picture | ImageFile) -> None:
    """Writes an array; like a TIFF with all that this knows, like others with profile, resolution and orientation."""
    layout = like.metadata.get("tiff")
    metadata = dict(like.metadata)
    if not pixels.same_colours(array.shape, like.shape):
        metadata.pop("icc_profile", None)
    array = np.ascontiguousarray(array)
    if layout is not None and tiff_writing.can_write_like(array.shape, array.dtype, layout):
        tiff_writing.write_like(file, array, layout)
    else:
        tiff_writing.write_new(file, array, metadata, layout)


@dataclass
class _Reader:
    """Reads the images of an open file."""

    file: BinaryIO
    layout: Layout
    _tif: TiffFile | None = None
    _last: tuple[int, np.ndarray] | None = None

    def read(self, index: int) -> np.ndarray:
        """Reads one image, (H, W) or (H, W, C)."""
        layout = self.layout
        position = np.unravel_index(index, [layout.shape[axis] for axis in layout.outer]) if layout.outer else ()
        where = {axis: int(number) for axis, number in zip(layout.outer, position, strict=True)}
        split = layout.num_frame_axes
        channel = layout.channel
        if channel is None or channel >= split:
            image = self._from_frame(where)
        else:
            parts = (self._from_frame({**where, channel: number}) for number in range(layout.shape[channel]))
            image = np.stack(list(parts), axis=-1)
        image = self._colours(image)
        return image[..., np.newaxis] if image.ndim == 2 and layout.num_images > 1 else image

    def _from_frame(self, where: dict[int, int]) -> np.ndarray:
        """Cuts (H, W) or (H, W, S) out of a frame; `where` gives a position on every other axis."""
        layout = self.layout
        split = layout.num_frame_axes
        number = 0
        for axis in range(split):
            number = number * layout.shape[axis] + where[axis]
        if self._last is not None and self._last[0] == number:
            frame = self._last[1]
        else:
            frame = self._frame(number)
            if any(axis >= split for axis in layout.outer):  # more of its images are to come
                self._last = number, frame
        left = [axis for axis in range(split, len(layout.shape)) if axis not in where]
        part = frame[tuple(where.get(axis, slice(None)) for axis in range(split, len(layout.shape)))]
        names = [layout.axes.index("Y"), layout.axes.index("X"), *([layout.channel] if layout.channel in left else [])]
        return part.transpose([left.index(axis) for axis in names])

    def _frame(self, number: int) -> np.ndarray:
        """Reads the pages of a frame."""
        layout = self.layout
        per_frame = layout.num_pages // math.prod(layout.shape[: layout.num_frame_axes])
        shape = layout.shape[layout.num_frame_axes :]
        if layout.offsets is None:
            size = math.prod(shape) * layout.dtype.itemsize
            self.file.seek(layout.start + number * size)
            data = bytearray(self.file.read(size))
            stored = layout.dtype.newbyteorder(layout.byteorder)
            return np.frombuffer(data, stored).reshape(shape).astype(layout.dtype, copy=False)
        if self._tif is None:
            with tiff_headers.opened(self.file) as self._tif:
                pass  # closing it leaves the file open
        first = number * per_frame
        pages = [tiff_headers.read_page(self.file, self._tif, layout, first + i) for i in range(per_frame)]
        return (pages[0] if per_frame == 1 else np.stack(pages)).reshape(shape)

    def _colours(self, image: np.ndarray) -> np.ndarray:
        """Turns samples into grey or RGB."""
        layout = self.layout
        if layout.palette is not None:
            return pixels.palette_lookup(image, layout.palette)
        if layout.drops_alpha:
            image = image[..., 0] if layout.num_colours == 1 else image[..., : layout.num_colours]
        if layout.is_inverted:
            image = image.dtype.type(2**layout.bits - 1) - image
        return np.array(image, order="C", copy=self._last is not None or None)


@dataclass(frozen=True)
class _Stamped:
    """An open file, known by its place on the disk, its size and its time."""

    stamp: tuple[int, ...]
    file: BinaryIO = field(compare=False)


def _layout(file: BinaryIO) -> Layout:
    try:
        status = os.fstat(file.fileno())
    except OSError:  # bytes in memory: they have no place to be known by
        return tiff_headers.examine(file)
    return _known_layout(_Stamped((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns), file))


@functools.lru_cache(NUM_KNOWN_LAYOUTS)
def _known_layout(stamped: _Stamped) -> Layout:
    """Follows the chain of pages; training reads one image of a stack after the other, each time anew."""
    return tiff_headers.examine(stamped.file)
