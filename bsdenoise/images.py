"""Image files in and out, with their bit depth and metadata; which files a source names.

A format is one entry of `_FORMATS`: its suffixes, the bytes that its files begin with, and a module with three
functions. Files are told apart by their first bytes, so that a JPEG named `.png` is read all the same; what is written
follows the suffix. EXIF orientation is never applied to the pixels: it stays in the metadata, and a viewer turns the
denoised image as it turned the noisy one.
"""

import contextlib
import dataclasses
import glob
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from bsdenoise import files, ignored
from bsdenoise.formats import jpeg, not_kept, npy, ome_zarr, png, tiff, zarr_store, zarr_writing
from bsdenoise.formats.axes import NOT_USED
from bsdenoise.formats.axes import check as check_axes
from bsdenoise.formats.pixels import (
    ImageFile,
    Picture,
    check_channels,
    from_unit,
    full_scale,
    measured_unit,
    parts_for,
    to_channels,
    to_unit,
)
from bsdenoise.formats.zarr_store import has_metadata, is_store

__all__ = [
    "SUFFIXES",
    "ImageFile",
    "Picture",
    "base_of",
    "check_axes",
    "check_channels",
    "check_writable",
    "count",
    "decode",
    "find",
    "from_unit",
    "full_scale",
    "has_metadata",
    "is_store",
    "is_supported",
    "not_kept_in",
    "list_folder",
    "measured_unit",
    "opened",
    "parts_for",
    "read",
    "read_array",
    "read_image",
    "store_root",
    "to_channels",
    "to_unit",
    "walk",
    "write",
    "writing",
]
PREPARED_INDEX = "bsdenoise-index.npz"  # in folders that `bsdenoise prepare` wrote; `data.shards` says what is in it
_NUM_SIGNATURE_BYTES = 8


class _Codec(Protocol):
    """The module of a format."""

    def open_file(self, file: BinaryIO) -> ImageFile:
        """Reads the headers; pixels follow on demand while the file is open."""

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        """Raises ValueError if the format cannot hold such an array."""

    def write(self, file: BinaryIO, array: np.ndarray, like: Picture | ImageFile) -> None:
        """Writes an array with the metadata of `like`."""


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


def find(source: str | Path) -> list[Path]:
    """Lists the image files that a file name, a folder (searched recursively) or a glob names.

    Hidden files and folders below a folder are skipped, and so are files of other kinds in a folder or a glob.

    Args:
        source: File, folder, or glob such as "scans/**/*.png".

    Returns:
        The files, sorted; at least one.

    Raises:
        ValueError: If nothing is there, or nothing of a supported kind.
    """
    path = Path(source)
    if not str(source):
        raise ValueError("The name of a file, a folder or a glob is empty.")  # else it would mean the current folder
    if is_store(path):
        return _images_of_store(path)
    if (path / PREPARED_INDEX).is_file():
        raise ValueError(
            f"{path}: holds images that `bsdenoise prepare` packed for training. Expected image files, such as those "
            "that they were made of."
        )
    if path.is_dir():
        found = [Path(parent, name) for parent, _, names in walk(path) for name in names]
        found = [image for file in found for image in (_images_of_store(file) if is_store(file) else [file])]
    elif path.exists():
        if not is_supported(path):
            raise ValueError(f"{path}: not an image file that can be read. Expected one of {_suffix_list()}.")
        return [path]
    elif glob.has_magic(str(source)):
        found = _match(str(source))
    else:
        raise ValueError(f"{source}: no such file or folder.")
    found = sorted(file for file in found if is_supported(file) or is_store(file))
    if not found:
        raise ValueError(f"{source}: no image found there. Expected files ending in one of {_suffix_list()}.")
    return found


def base_of(source: str | Path) -> Path:
    """Gives the folder below which the files of a source stand: itself, its folder, or a glob up to its wildcards."""
    path = Path(source)
    if path.is_file() or is_store(path):
        return path.parent
    if path.is_dir():
        return path
    plain = 0
    while plain < len(path.parts) - 1 and not glob.has_magic(path.parts[plain]):
        plain += 1
    return Path(*path.parts[:plain])


def is_supported(path: str | Path) -> bool:
    """Tells from its suffix, in either case, whether a file is of a supported kind."""
    return Path(path).suffix.lower() in SUFFIXES


def store_root(path: Path) -> Path | None:
    """Find the store that an image, or an array of one, is in: itself or a folder above; `None` for a file.

    A folder above belongs to it that has a store's name, or that is a store by its files and so are all between.
    """
    if not is_store(path):
        return None
    whole = Path(os.path.abspath(path))
    named = [parent for parent in (whole, *whole.parents) if _has_store_name(parent)]
    root = named[-1] if named else whole
    while not named and is_store(root.parent):
        root = root.parent
    depth = len(whole.parts) - len(root.parts)
    if depth >= len(path.parts) or ".." in path.parts:
        return root
    return path.parents[depth - 1] if depth else path  # as it was written


def _images_of_store(path: Path) -> list[Path]:
    """List the images of a store: itself, or those of a plate or a layout of several."""
    try:
        names = ome_zarr.image_names(path)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):  # to be named when it is opened
        names = []
    return [path / name for name in names] if len(names) > 1 else [path]


def _match(pattern: str) -> list[Path]:
    """List the files and stores that a glob names; of what is in a store only images, and those if it names no more."""
    names = list(map(Path, glob.iglob(pattern, recursive=True)))
    stores = {name for name in names if is_store(name) and (_has_store_name(name) or ome_zarr.has_images(name))}
    outer = [name for name in stores if stores.isdisjoint(name.parents)]
    known: dict[Path, bool] = {}  # a folder may be above a million files

    def is_inside(path: Path) -> bool:
        return any(
            known[above] if above in known else known.setdefault(above, is_store(above)) for above in path.parents
        )

    found = [name for name in names if name not in stores and name.is_file() and not is_inside(name)]
    return [*found, *(image for store in outer for image in _images_of_store(store))]


def _has_store_name(path: Path) -> bool:
    return path.suffix.lower() == zarr_store.SUFFIX


def read_array(path: str | Path, axes: str | None = None) -> np.ndarray:
    """Reads only the pixels: (H, W), (H, W, C) or (N, H, W, C); uint8, uint16 or float32. Safe in threads.

    Raises:
        ValueError: As `read`.
        OSError: If the file cannot be opened.
    """
    array = read(path, axes).array
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def read(path: str | Path, axes: str | None = None) -> Picture:
    """Reads an image file, with all images of a stack.

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
    """Reads one image of a file, (H, W) or (H, W, C), at the cost of one image. Safe in threads.

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
    """Counts the images in a file, from its headers alone: 1, or the N of a stack.

    Raises:
        ValueError: As `read`.
        OSError: If the file cannot be opened.
    """
    with opened(path, axes) as file:
        return len(file)


def decode(data: bytes, name: str, no_data: float | None = None) -> Picture:
    """Reads the bytes of an image file.

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
    """Opens an image file for its headers, and for its images one at a time.

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
    """Checks, before there are any pixels, that an array can be written.

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
    """Writes an image file whole or not at all, in the format of its suffix and the bit depth of the array.

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
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
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
    """Writes an image file in windows; it stands at its place, whole, once the block has ended well.

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
        with files.replacing_folder(path) as folder:
            with zarr_writing.writing(folder, shape, dtype, like) as write_window:
                yield Target(write_window)
    elif suffix in _suffixes_of(npy):
        with files.replacing(path) as temporary:
            yield Target(npy.create(temporary, shape, dtype, like))
    elif suffix in _suffixes_of(tiff):
        with files.beside(path, ".npy") as temporary:
            yield Target(npy.create(temporary, shape, dtype, Picture(np.empty(0), "")))
            write(path, np.load(temporary, mmap_mode="r"), like)
    else:
        array = np.empty(shape, dtype)

        def write_window(index: int, rows: slice, columns: slice, pixels: np.ndarray) -> None:
            (array[index] if array.ndim == 4 else array)[rows, columns] = pixels

        yield Target(write_window)
        write(path, array, like)


def _suffixes_of(codec: Any) -> tuple[str, ...]:
    """Gives the suffixes of the files that a codec is for."""
    return next(entry.suffixes for entry in _FORMATS if entry.codec is codec)


def _format_for(path: Path) -> _Format:
    """Finds the format by the suffix."""
    entry = next((entry for entry in _FORMATS if path.suffix.lower() in entry.suffixes), None)
    if entry is None:
        raise ValueError(f"unknown kind of image file. Expected one of {_suffix_list()}.")
    return entry


def _open(file: BinaryIO, name: str | Path, axes: str | None = None, no_data: float | None = None) -> ImageFile:
    """Reads the headers of a file; errors name it, those of reading its pixels later as well."""
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
    """Lets reading pixels refuse what cannot be used, by errors that name the file."""
    if no_data is not None:
        found = dataclasses.replace(found, no_data=no_data)

    def check_pixels(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind == "f" and np.isinf(array).any():
            gaps = ignored.where(array, found.no_data)
            if gaps is None or np.isinf(array[~gaps]).any():
                raise ValueError("it holds infinite values")
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
    """Turns every error into one that names the file."""
    try:
        yield
    except Exception as error:  # decoders answer hostile bytes with errors of every type
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(f"{name}: cannot be read as {kind}: {reason}.") from error


def _picture(file: ImageFile, array: np.ndarray) -> Picture:
    kept = {name: getattr(file, name) for name in ("bits", "independent_channels", "no_data")}
    return Picture(array, file.format, file.metadata, file.notes, **kept)


def list_folder(folder: str) -> tuple[list[str], list[str]]:
    """Lists what is directly in a folder, without looking at any file.

    Returns:
        Names of the sub-folders to be searched; names of the image files and Zarr stores. Both are sorted, and hidden
        ones are left out.

    Raises:
        OSError: If the folder cannot be listed.
    """
    folders, names = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if _is_folder(entry) and not name.lower().endswith(zarr_store.SUFFIX):
                folders.append(name)
            elif name.lower().endswith(SUFFIXES):
                names.append(name)
    return sorted(folders), sorted(names)


def walk(
    folder: str | Path, lister: Callable[[str], tuple[list[str], Any]] = list_folder
) -> Iterator[tuple[str, list[str], Any]]:
    """Lists a folder and all below, each once however many links lead there.

    Args:
        folder: Where to begin.
        lister: Lists one folder as `list_folder` does; what it gives beside the sub-folders is passed on.

    Yields:
        Path of a folder, names of the sub-folders that will follow, and the rest of what `lister` gives.

    Raises:
        OSError: If a folder cannot be listed.
    """
    seen = {os.path.realpath(folder)}  # links may lead in a circle
    rest = [str(folder)]
    while rest:
        parent = rest.pop()
        names, content = lister(parent)
        new = []
        for name in names:
            target = os.path.realpath(os.path.join(parent, name))
            if target not in seen:
                seen.add(target)
                new.append(name)
        yield parent, new, content
        rest += [os.path.join(parent, name) for name in reversed(new)]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle: no folder, as `os.walk` has it
        return False


def _suffix_list() -> str:
    return ", ".join(SUFFIXES)
