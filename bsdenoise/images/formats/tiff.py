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

from bsdenoise.images import pixels
from bsdenoise.images.formats import tiff_headers, tiff_tags, tiff_writing
from bsdenoise.images.formats.tiff_layout import Layout
from bsdenoise.images.pixels import ImageFile, Picture

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian, classic and BigTIFF
NUM_KNOWN_LAYOUTS = 64  # files whose chain of pages is not followed anew for each image


def open_file(file: BinaryIO) -> ImageFile:
    """Read the headers.

    Raises:
        ValueError: If it is broken, or of a kind that is not supported. (Other errors are tifffile's.)
    """
    layout = _layout(file)
    metadata = {**tiff_tags.common_metadata(layout.tags, layout.byteorder), "tiff": layout}
    dtype = layout.dtype if layout.palette is None else layout.palette.dtype
    reader = _Reader(file, layout)
    window = None if layout.offsets is None and not _is_on_disk(file) else reader.read_window
    no_data, notes = tiff_tags.no_data(layout.tags, layout.dtype)
    if no_data is not None and layout.is_inverted:
        no_data = 2.0**layout.bits - 1 - no_data
    return ImageFile(
        "TIFF",
        layout.image_shape,
        dtype,
        reader.read,
        metadata,
        (*layout.notes, *notes),
        window,
        bits=layout.significant_bits,
        independent_channels=layout.independent_channels,
        no_data=None if layout.palette is not None else no_data,
    )


def check(shape: tuple[int, ...], dtype: Any) -> None:
    """Check that an array can be written.

    Args:
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.

    Raises:
        ValueError: If not.
    """
    pixels.full_scale(dtype)


def write(file: BinaryIO, array: np.ndarray, like: Picture | ImageFile) -> None:
    """Write an array; like a TIFF with all that this knows, like others with profile, resolution and orientation.

    Args:
        file: Open for writing.
        array: (H, W), (H, W, C) or (N, H, W, C).
        like: Whose axes, arrangement and metadata it gets, as far as they fit.
    """
    layout = like.metadata.get("tiff")
    metadata = dict(like.metadata)
    if not pixels.same_colours(array.shape, like.shape):
        metadata.pop("icc_profile", None)
    array = np.ascontiguousarray(array)
    if layout is not None and tiff_writing.can_write_like(array.shape, array.dtype, layout):
        tiff_writing.write_like(file, array, layout)
    else:
        tiff_writing.write_new(file, array, metadata, layout, tiff_writing.are_independent(array.shape, like))


@dataclass
class _Reader:
    """Reads the images of an open file."""

    file: BinaryIO
    layout: Layout
    _tif: TiffFile | None = None
    _last: tuple[int, np.ndarray] | None = None
    _whole: tuple[int, np.ndarray] | None = None
    _array: Any = None

    def read(self, index: int) -> np.ndarray:
        """Read one image, (H, W) or (H, W, C)."""
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

    def read_window(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """Read rows and columns of one image, (h, w) or (h, w, C): from bare pixels, or from tiles and strips."""
        layout = self.layout
        if layout.offsets is not None and self._segments() is None:
            if self._whole is None or self._whole[0] != index:
                self._whole = index, self.read(index)
            return self._whole[1][rows, columns]
        position = np.unravel_index(index, [layout.shape[axis] for axis in layout.outer]) if layout.outer else ()
        where: dict[int, Any] = {axis: int(number) for axis, number in zip(layout.outer, position, strict=True)}
        inner = [layout.axes.index("Y"), layout.axes.index("X"), *([] if layout.channel is None else [layout.channel])]
        where |= {inner[0]: rows, inner[1]: columns}
        place = tuple(where.get(axis, slice(None)) for axis in range(len(layout.axes)))
        if layout.offsets is None:
            stored = layout.dtype.newbyteorder(layout.byteorder)
            # Mapped anew each time, so that what was read does not stay in memory.
            part = np.array(np.memmap(self.file, stored, "r", layout.start, layout.shape)[place], layout.dtype)
        else:
            with tiff_headers.silence():
                part = np.asarray(self._segments()[place], layout.dtype)
        kept = sorted(inner)
        image = self._colours(part.transpose([kept.index(axis) for axis in inner]))
        return image[..., np.newaxis] if image.ndim == 2 and layout.num_images > 1 else image

    def _segments(self) -> Any:
        """Return the series as an array whose chunks are tiles or strips; `None` if a page is in one piece."""
        if self._array is None:
            import zarr  # only here: it takes a while

            with tiff_headers.opened(self.file) as tif:
                (series,) = [series for series in tif.series if not series.keyframe.is_reduced][:1]
                page = series.keyframe
                if len(page.dataoffsets) <= (page.samplesperpixel if self.layout.is_planar else 1):
                    return None
                self._array = zarr.open_array(series.aszarr(level=0), mode="r")
        return self._array

    def _from_frame(self, where: dict[int, int]) -> np.ndarray:
        """Cut (H, W) or (H, W, S) out of a frame; `where` gives a position on every other axis."""
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
        """Read the pages of a frame."""
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
        """Turn samples into grey or RGB."""
        layout = self.layout
        if layout.palette is not None:
            return pixels.palette_lookup(image, layout.palette)
        if layout.drops_alpha:
            image = image[..., 0] if layout.num_colours == 1 else image[..., : layout.num_colours]
        if layout.significant_bits and image.max(initial=0) >= 2**layout.bits:
            raise ValueError(
                f"it says that its pixels have {layout.bits} significant bits, and one is {image.max()}: correct the "
                "SignificantBits of its OME description"
            )
        if layout.is_inverted:
            image = image.dtype.type(2**layout.bits - 1) - image
        return np.array(image, order="C", copy=self._last is not None or None)


@dataclass(frozen=True)
class _Stamped:
    """An open file, known by its place on the disk, its size and its time."""

    stamp: tuple[int, ...]
    file: BinaryIO = field(compare=False)


def _is_on_disk(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except OSError:  # bytes in memory
        return False
    return True


def _layout(file: BinaryIO) -> Layout:
    try:
        status = os.fstat(file.fileno())
    except OSError:  # bytes in memory: they have no place to be known by
        return tiff_headers.examine(file)
    return _known_layout(_Stamped((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns), file))


@functools.lru_cache(NUM_KNOWN_LAYOUTS)
def _known_layout(stamped: _Stamped) -> Layout:
    """Follow the chain of pages; training reads one image of a stack after the other, each time anew."""
    return tiff_headers.examine(stamped.file)
