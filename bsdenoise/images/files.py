"""Image files in and out, with their bit depth and metadata.

A format is one entry of `_FORMATS`: its suffixes, the bytes that its files begin with, and a module with three
functions. Files are told apart by their first bytes, so that a JPEG named `.png` is read all the same; what is written
follows the suffix. EXIF orientation is never applied to the pixels: it stays in the metadata, and a viewer turns the
denoised image as it turned the noisy one.
"""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from bsdenoise import atomic
from bsdenoise.images import missing
from bsdenoise.images.axes import NOT_USED
from bsdenoise.images.formats import jpeg, not_kept, npy, png, tiff, zarr_store, zarr_writing
from bsdenoise.images.formats.zarr_store import is_store
from bsdenoise.images.pixels import (
    ImageFile,
    Picture,
    full_scale,
)
from bsdenoise.images.precision import check_single_precision

_NUM_SIGNATURE_BYTES = 8


class _Codec(Protocol):
    """The module of a format."""

    def open_file(self, file: BinaryIO) -> ImageFile:
        """Read the headers; pixels follow on demand while the file is open."""

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        """Raise ValueError if the format cannot hold such an array."""

    def write(self, file: BinaryIO, array: np.ndarray, like: Picture | ImageFile) -> None:
        """Write an array with the metadata of `like`."""


@dataclasses.dataclass(frozen=True)
class _Format:
    name: str
    suffixes: tuple[str, ...]
    signatures: tuple[bytes, ...]
    codec: _Codec


_FORMATS = (
    _Format("PNG", (".png",), (png.SIGNATURE,), png),
    _Format("JPEG", (".jpg", ".jpeg"), (jpeg.SIGNATURE,), jpeg),
    _Format("NPY", (".npy",), (npy.SIGNATURE,), npy),
    _Format("TIFF", (".tif", ".tiff"), tiff.SIGNATURES, tiff),
)
SUFFIXES = (*(suffix for entry in _FORMATS for suffix in entry.suffixes), zarr_store.SUFFIX)


def read_array(path: str | Path, axes: str | None = None) -> np.ndarray:
    """Read only the pixels: (H, W), (H, W, C) or (N, H, W, C); uint8, uint16 or float32. Safe in threads.

    Args:
        path: The file, or the Zarr store.
        axes: Letters of its axes, as for `read`.

    Raises:
        ValueError: As `read`.
        OSError: If the file cannot be opened.
    """
    array = read(path, axes).array
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def read(path: str | Path, axes: str | None = None) -> Picture:
    """Read an image file, with all images of a stack.

    Args:
        path: PNG (8 or 16 bits), JPEG, TIFF, or `.npy` with (H, W), (H, W, C) or (N, H, W, C); what it is, its first
            bytes tell. Or a Zarr store.
        axes: Letters of the axes of `.npy` files and plain Zarr arrays, such as "TZYX"; `None` goes by names and shape.

    Returns:
        Pixels, format, metadata and notes.

    Raises:
        ValueError: If the file is broken, or of a kind that is not supported; the message names it.
        OSError: If the file cannot be opened.
    """
    with opened(path, axes) as file:
        return _picture(file, file.read_all())


def read_image(path: str | Path, index: int = 0, axes: str | None = None, no_data: float | None = None) -> Picture:
    """Read one image of a file, (H, W) or (H, W, C), at the cost of one image. Safe in threads.

    Args:
        path: As for `read`.
        index: Number of the image in a stack, from 0 up to `count(path)` − 1.
        axes: As for `read`.
        no_data: As for `opened`.

    Raises:
        ValueError: As `read`, or if there is no image of that number.
        OSError: If the file cannot be opened.
    """
    with opened(path, axes, no_data) as file:
        return _picture(file, file.read(index))


def count(path: str | Path, axes: str | None = None) -> int:
    """Count the images in a file, from its headers alone: 1, or the N of a stack.

    Args:
        path: The file, or the Zarr store.
        axes: Letters of its axes, as for `read`.

    Raises:
        ValueError: As `read`.
        OSError: If the file cannot be opened.
    """
    with opened(path, axes) as file:
        return len(file)


def decode(data: bytes, name: str, no_data: float | None = None) -> Picture:
    """Read the bytes of an image file.

    Args:
        data: The file's content.
        name: What error messages call it.
        no_data: As for `opened`.

    Raises:
        ValueError: As `read`.
    """
    file = _open(io.BytesIO(data), name, no_data=no_data)
    return _picture(file, file.read_all())


@contextlib.contextmanager
def opened(path: str | Path, axes: str | None = None, no_data: float | None = None) -> Iterator[ImageFile]:
    """Open an image file for its headers, and for its images one at a time.

    Pixels may be NaN, which stands for no measurement; infinite ones are refused unless they are its no-data value.

    Args:
        path: As for `read`.
        axes: As for `read`.
        no_data: Value of pixels that hold no measurement, in the file's own units, whatever it declares; NaN if there
            is no such value. `None` takes what the file declares.

    Yields:
        Shape, type, metadata and notes, with `read(index)` for the pixels of one image.

    Raises:
        ValueError: As `read`; so does `read(index)`.
        OSError: If the file cannot be opened.
    """
    if is_store(Path(path)):
        with _naming(path, "Zarr"):
            store = zarr_store.open_store(Path(path), axes)
        yield _checked(store, path, no_data)
        return
    with open(path, "rb") as file:
        yield _open(file, path, axes, no_data)


def check_writable(path: str | Path, shape: tuple[int, ...], dtype: Any) -> None:
    """Check, before there are any pixels, that an array can be written.

    Args:
        path: The file; its suffix chooses the format.
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.

    Raises:
        ValueError: If the suffix is unknown, or the format cannot hold such an array.
    """
    path = Path(path)
    if path.suffix.lower() == zarr_store.SUFFIX:
        full_scale(dtype)
        return
    try:
        _format_for(path).codec.check(shape, dtype)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def not_kept_in(path: str | Path, like: Picture | ImageFile) -> tuple[str, ...]:
    """Say in words what of a file cannot be kept in one that is written like it.

    Args:
        path: The file to write; its suffix chooses the format.
        like: The file that was read.

    Raises:
        ValueError: If the suffix is unknown.
    """
    path = Path(path)
    name = "Zarr" if path.suffix.lower() == zarr_store.SUFFIX else _format_for(path).name
    return not_kept.not_kept(like, name, path)


def write(path: str | Path, array: np.ndarray, like: Picture | ImageFile | None = None) -> None:
    """Write an image file whole or not at all, in the format of its suffix and the bit depth of the array.

    Args:
        path: The file; what stood there before is replaced only once the new file is complete.
        array: (H, W), (H, W, C) or (N, H, W, C); PNG takes uint8 and uint16, JPEG uint8, both 1 or 3 channels; TIFF
            takes these and floats of any number of channels and images; `.npy` takes all.
        like: Its ICC profile, resolution, EXIF, XMP and comments go into the file as far as the format holds them (what
            does not, `not_kept_in` tells); other texts only from PNG to PNG; from TIFF to TIFF the axes, the
            arrangement of the samples, the compression and the descriptions.

    Raises:
        ValueError: If the suffix is unknown, or the format cannot hold the array.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    check_writable(path, array.shape, array.dtype)
    if path.suffix.lower() == zarr_store.SUFFIX:
        with writing(path, array.shape, array.dtype, like) as target:
            for index in range(len(array) if array.ndim == 4 else 1):
                whole = array[index] if array.ndim == 4 else array
                target.write_window(index, slice(0, whole.shape[0]), slice(0, whole.shape[1]), whole)
        return
    entry = _format_for(path)
    with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            entry.codec.write(file, array, like or Picture(array, entry.name))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Target:
    """An image file that is being written.

    Attributes:
        write_window: Writes pixels, (h, w) or (h, w, C), to rows and columns of an image: its number, two slices, and
            the pixels.
    """

    write_window: Callable[[int, slice, slice, np.ndarray], None]


@contextlib.contextmanager
def writing(
    path: str | Path, shape: tuple[int, ...], dtype: Any, like: Picture | ImageFile | None = None
) -> Iterator[Target]:
    """Write an image file in windows; it stands at its place, whole, once the block has ended well.

    Zarr stores and `.npy` files are written in place; for a TIFF the pixels are first collected in a file beside it;
    PNG and JPEG are collected in memory.

    Args:
        path: As for `write`.
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.
        like: As for `write`.

    Yields:
        The target; every pixel must be written.

    Raises:
        ValueError: As `write`.
        OSError: As `write`.
    """
    path = Path(path)
    check_writable(path, shape, dtype)
    like = like or Picture(np.empty(shape, dtype), "")
    suffix = path.suffix.lower()
    if suffix == zarr_store.SUFFIX:
        with atomic.replacing_folder(path) as folder:
            with zarr_writing.writing(folder, shape, dtype, like) as write_window:
                yield Target(write_window)
    elif suffix in _suffixes_of(npy):
        with atomic.replacing(path) as temporary:
            yield Target(npy.create(temporary, shape, dtype, like))
    elif suffix in _suffixes_of(tiff):
        with atomic.beside(path, ".npy") as temporary:
            yield Target(npy.create(temporary, shape, dtype, Picture(np.empty(0), "")))
            write(path, np.load(temporary, mmap_mode="r"), like)
    else:
        array = np.empty(shape, dtype)

        def write_window(index: int, rows: slice, columns: slice, pixels: np.ndarray) -> None:
            (array[index] if array.ndim == 4 else array)[rows, columns] = pixels

        yield Target(write_window)
        write(path, array, like)


def _suffixes_of(codec: Any) -> tuple[str, ...]:
    """Return the suffixes of the files that a codec is for."""
    return next(entry.suffixes for entry in _FORMATS if entry.codec is codec)


def _format_for(path: Path) -> _Format:
    """Find the format by the suffix."""
    entry = next((entry for entry in _FORMATS if path.suffix.lower() in entry.suffixes), None)
    if entry is None:
        raise ValueError(f"unknown kind of image file. Expected one of {suffix_list()}.")
    return entry


def _open(file: BinaryIO, name: str | Path, axes: str | None = None, no_data: float | None = None) -> ImageFile:
    """Read the headers of a file; errors name it, those of reading its pixels later as well."""
    start = file.read(_NUM_SIGNATURE_BYTES)
    entry = next((entry for entry in _FORMATS if start.startswith(entry.signatures)), None)
    if entry is None:
        what = "its content is no image of a known kind" if start else "it is empty"
        raise ValueError(f"{name}: cannot be read: {what}.")
    file.seek(0)
    with _naming(name, entry.name):
        if entry.codec is npy:
            found = npy.open_file(file, axes)
        else:
            found = entry.codec.open_file(file)
            if axes is not None:
                found = dataclasses.replace(found, notes=(*found.notes, NOT_USED))

    return _checked(found, name, no_data)


def _checked(found: ImageFile, name: str | Path, no_data: float | None) -> ImageFile:
    """Let reading pixels refuse what cannot be used, by errors that name the file."""
    if no_data is not None:
        found = dataclasses.replace(found, no_data=no_data)

    def check_pixels(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "f":
            return array
        gaps = missing.where(array, found.no_data)
        if np.isinf(array if gaps is None else array[~gaps]).any():
            raise ValueError("it holds infinite values")
        check_single_precision(missing.with_nan(array, gaps))
        return array

    def check_index(index: int) -> None:
        if not 0 <= index < len(found):
            raise ValueError(f"there is no image {index}, it holds {len(found)}, counted from 0")

    def read(index: int) -> np.ndarray:
        with _naming(name, found.format):
            check_index(index)
            return check_pixels(found.read(index))

    def window(index: int, rows: slice, columns: slice) -> np.ndarray:
        assert found.window is not None
        with _naming(name, found.format):
            check_index(index)
            return check_pixels(found.window(index, rows, columns))

    return dataclasses.replace(found, read=read, window=None if found.window is None else window)


@contextlib.contextmanager
def _naming(name: str | Path, kind: str) -> Iterator[None]:
    """Turn every error into one that names the file."""
    try:
        yield
    except Exception as error:  # decoders answer hostile bytes with errors of every type
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(f"{name}: cannot be read as {kind}: {reason}.") from error


def _picture(file: ImageFile, array: np.ndarray) -> Picture:
    kept = {name: getattr(file, name) for name in ("bits", "independent_channels", "no_data")}
    return Picture(array, file.format, file.metadata, file.notes, **kept)


def suffix_list() -> str:
    """Name the suffixes of the files that can be read."""
    return ", ".join(SUFFIXES)
