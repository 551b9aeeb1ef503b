"""NumPy's `.npy` files, (H, W), (H, W, C), (N, H, W), (N, H, W, C) or of axes with names, read image by image."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bsdenoise.images import axes as array_axes
from bsdenoise.images.axes import Layout
from bsdenoise.images.pixels import ImageFile, Picture, full_scale

SIGNATURE = b"\x93NUMPY"
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_file(file: BinaryIO, axes: str | None = None) -> ImageFile:
    """Read the header.

    Args:
        file: The file.
        axes: Letters of its axes, as for `axes.of_array`.

    Raises:
        ValueError: If it is broken, or the array is not of images.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADER_READERS:
        raise ValueError(f"version {version} of the .npy format is not supported")
    shape, is_fortran, dtype = _HEADER_READERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not unpickled")
    layout = array_axes.of_array(shape, axes)
    full_scale(dtype)
    start = file.tell()
    size = math.prod(shape) * dtype.itemsize
    if file.seek(0, io.SEEK_END) < start + size:
        raise ValueError(f"it ends early: {size} bytes of pixels were expected")
    native = dtype.newbyteorder("=")

    def array() -> np.ndarray:
        # Mapped anew each time, so that what was read does not stay in memory.
        order: Any = "F" if is_fortran else "C"
        if isinstance(file, io.BytesIO):
            return np.ndarray(shape, dtype, file.getbuffer(), start, order=order)
        mapped: Any = file
        return np.memmap(mapped, dtype, "r", start, shape, order)

    def window(index: int, rows: slice, columns: slice) -> np.ndarray:
        part = np.asarray(array()[layout.place(index, rows, columns)])
        return np.array(layout.to_image(part), native, order="C", subok=False)

    def read(index: int) -> np.ndarray:
        return window(index, slice(None), slice(None))

    return ImageFile(
        "NPY",
        layout.images_shape,
        native,
        read,
        {"layout": layout},
        layout.notes,
        window,
        independent_channels=layout.independent,
    )


def check(shape: tuple[int, ...], dtype: Any) -> None:
    """Take every array.

    Args:
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.
    """


def write(file: BinaryIO, array: np.ndarray, like: Picture | ImageFile) -> None:
    """Write an array, with the axes of the array that it was made of.

    Args:
        file: Open for writing.
        array: (H, W), (H, W, C) or (N, H, W, C).
        like: What was read; its axes are kept if the images have its shape.
    """
    layout = kept_layout(like, array.shape)
    if layout is not None:
        images, array = array, np.empty(layout.shape, array.dtype)
        for index in range(len(images) if images.ndim == 4 else 1):
            image = images[index] if images.ndim == 4 else images
            array[layout.place(index, slice(None), slice(None))] = layout.from_image(image)
    np.save(file, array, allow_pickle=False)


def create(path: Path, shape: tuple[int, ...], dtype: Any, like: Picture | ImageFile) -> Callable[..., None]:
    """Make a file of zeros, and return the function that writes windows into it.

    Args:
        path: The file.
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.
        like: As for `write`.

    Returns:
        Function of the image's number, rows, columns, and pixels (h, w) or (h, w, C).
    """
    layout = kept_layout(like, shape)
    stored = shape if layout is None else layout.shape
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=stored)
    offset = array.offset
    del array

    def write_window(index: int, rows: slice, columns: slice, pixels: np.ndarray) -> None:
        # Mapped anew each time, so that what is written does not stay in memory.
        array = np.memmap(path, dtype, "r+", offset, stored)
        if layout is None:
            (array[index] if len(shape) == 4 else array)[rows, columns] = pixels
        else:
            array[layout.place(index, rows, columns)] = layout.from_image(pixels)

    return write_window


def kept_layout(like: Picture | ImageFile, shape: tuple[int, ...]) -> Layout | None:
    """Return the layout of the array that was read, if images of this shape can have it too.

    Args:
        like: What was read.
        shape: Shape of the images that are written.
    """
    layout = like.metadata.get("layout")
    return layout if isinstance(layout, Layout) and layout.images_shape == shape else None
