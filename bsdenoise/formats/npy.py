"""NumPy's `.npy` files, (H, W), (H, W, C), (N, H, W) or (N, H, W, C), read image by image."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bsdenoise.formats.pixels import ImageFile, Picture, full_scale

# Of an array with three axes the last one is that of the channels if it has at most so many; else it is a stack of
# one-channel images. Cameras and microscopes have fewer channels, and nobody denoises images of 16 columns.
MOST_CHANNELS = 16
SIGNATURE = b"\x93NUMPY"
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def is_stack(shape: tuple[int, ...]) -> bool:
    """Tells whether an array holds several images by its shape: (N, H, W, C), or (N, H, W) with many columns."""
    return len(shape) == 4 or (len(shape) == 3 and shape[-1] > MOST_CHANNELS)


def open_file(file: BinaryIO) -> ImageFile:
    """Reads the header.

    Raises:
        ValueError: If it is broken, or the array is not of images.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADER_READERS:
        raise ValueError(f"version {version} of the .npy format is not supported")
    shape, is_fortran, dtype = _HEADER_READERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not unpickled")
    if len(shape) not in (2, 3, 4) or 0 in shape:
        expected = "(H, W), (H, W, C), (N, H, W) or (N, H, W, C), nothing empty"
        raise ValueError(f"the shape must be {expected}. Received: {shape}")
    full_scale(dtype)
    start = file.tell()
    size = math.prod(shape) * dtype.itemsize
    if file.seek(0, io.SEEK_END) < start + size:
        raise ValueError(f"it ends early: {size} bytes of pixels were expected")
    native = dtype.newbyteorder("=")
    stored = shape
    if len(shape) == 3 and is_stack(shape):
        shape = (*shape, 1)
    image_shape = shape[1:] if len(shape) == 4 else shape
    image_size = math.prod(image_shape) * dtype.itemsize

    def decode(index: int) -> np.ndarray:
        if is_fortran:  # axes are stored the other way round: an image is not in one piece
            file.seek(0)
            array = np.load(file, allow_pickle=False).reshape(shape)
            return np.ascontiguousarray(array[index] if array.ndim == 4 else array, native)
        file.seek(start + index * image_size)
        return np.frombuffer(bytearray(file.read(image_size)), dtype).reshape(image_shape).astype(native, copy=False)

    def decode_window(index: int, rows: slice, columns: slice) -> np.ndarray:
        row_size = image_size // image_shape[0]
        file.seek(start + index * image_size + rows.start * row_size)
        band = np.frombuffer(file.read((rows.stop - rows.start) * row_size), dtype)
        return band.reshape(-1, *image_shape[1:])[:, columns].astype(native)

    return ImageFile(
        "NPY", shape, native, decode, {"npy_axes": len(stored)}, window=None if is_fortran else decode_window
    )


def check(shape: tuple[int, ...], dtype: Any) -> None:
    """Takes every array."""


def write(file: BinaryIO, array: np.ndarray, like: Picture | ImageFile) -> None:
    """Writes an array, with as many axes as that of the file that it was made of."""
    if like.metadata.get("npy_axes") == 3 and array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    np.save(file, array, allow_pickle=False)


def create(path: Path, shape: tuple[int, ...], dtype: Any, like: Picture | ImageFile) -> Callable[..., None]:
    """Makes a file of zeros, and gives the function that writes windows into it.

    Args:
        path: The file.
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.
        like: As for `write`.

    Returns:
        Function of the image's number, rows, columns, and pixels (h, w) or (h, w, C).
    """
    is_flat = like.metadata.get("npy_axes") == 3 and len(shape) == 4 and shape[-1] == 1
    stored = shape[:-1] if is_flat else shape
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=stored)
    offset = array.offset
    del array

    def write_window(index: int, rows: slice, columns: slice, pixels: np.ndarray) -> None:
        # Mapped anew each time, so that what is written does not stay in memory.
        array = np.memmap(path, dtype, "r+", offset, stored).reshape(shape)
        (array[index] if len(shape) == 4 else array)[rows, columns] = pixels

    return write_window
