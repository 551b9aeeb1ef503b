"""Mask images: which pixels of other images are to be ignored. What is not zero is ignored, as in `numpy.ma`."""

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from bsdenoise import images

LOSSY = (".jpg", ".jpeg")  # zeros that were compressed are none any more
NPY = ".npy"  # read as it is, for it may hold truth values
KEPT = 4  # masks in memory


class Masks:
    """The masks of a file or a folder.

    Args:
        source: A file, whose mask is for all images; one with several masks has one for each image of a stack. Or a
            folder, which holds masks under the names of the images; their suffixes may be others. An image that has
            none there is used whole.

    Raises:
        ValueError: If there is no such file or folder, nothing in it can be read, or it holds JPEGs.
    """

    def __init__(self, source: str | Path):
        self._source = Path(source)
        found = images.find(source)
        lossy = next((path for path in found if path.suffix.lower() in LOSSY), None)
        if lossy is not None:
            raise ValueError(f"{lossy}: a JPEG cannot be a mask, as it does not keep zeros. Expected PNG or TIFF.")
        self._is_for_all = not self._source.is_dir() or images.is_store(self._source)
        self._paths = {_stem(path.relative_to(images.base_of(source)).as_posix()): path for path in found}
        self._read = functools.lru_cache(maxsize=KEPT)(self._read_whole)

    def path(self, name: str) -> Path | None:
        """Return the file with the mask of an image; `None` if it has none.

        Args:
            name: Path of the image below the folder of all, as `Source.short_name` gives it.
        """
        return next(iter(self._paths.values())) if self._is_for_all else self._paths.get(_stem(_numbered(name)[0]))

    def of(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return the mask of one image, bool, (H, W, 1) or (H, W, C); `None` if it has none.

        Args:
            name: As for `path`; a number in brackets says which image of a stack.
            shape: (H, W) or (H, W, C) of the image.

        Raises:
            ValueError: If the mask cannot be read, or has another size.
        """
        path = self.path(name)
        return None if path is None else self._read(path, _numbered(name)[1], shape)

    def _read_whole(self, path: Path, index: int, shape: tuple[int, ...]) -> np.ndarray:
        with opened(path, index, shape) as window:
            return window(slice(0, shape[0]), slice(0, shape[1]))


@contextlib.contextmanager
def opened(path: Path, index: int, shape: tuple[int, ...]) -> Iterator[Callable[[slice, slice], np.ndarray]]:
    """Open the mask of one image.

    Args:
        path: File of the mask.
        index: Number of the image in its stack.
        shape: (H, W) or (H, W, C) of the image.

    Yields:
        Function from rows and columns to the mask there, bool, (h, w, 1) or (h, w, C).

    Raises:
        ValueError: As `Masks.of`.
    """
    channels = shape[2] if len(shape) > 2 else 1
    with contextlib.ExitStack() as stack:
        count, size, is_rgb, read = _found(path, stack, shape[:2])
        if size != shape[:2]:
            raise ValueError(
                f"{path}: a mask must have the size of its image, {shape[1]}×{shape[0]} pixels. "
                f"Received: {size[1]}×{size[0]}."
            )
        if index >= count > 1:
            raise ValueError(f"{path}: holds {count} masks, and there is an image {index}, counted from 0.")
        yield lambda rows, columns: _per_pixel(read(index % count, rows, columns), channels, is_rgb)


def _found(
    path: Path, stack: contextlib.ExitStack, sides: tuple[int, ...]
) -> tuple[int, tuple[int, ...], bool, Callable[[int, slice, slice], np.ndarray]]:
    """Return number and size of the masks in a file, whether they are RGB, and what reads a part of one."""
    if path.suffix.lower() == NPY:
        array = _loaded(path)
    else:
        try:
            file = stack.enter_context(images.opened(path))
        except ValueError as refusal:
            array = _labels(path, refusal)
        else:
            return len(file), file.shape[1:3] if len(file.shape) == 4 else file.shape[:2], file.is_rgb, file.read_window
    if array.ndim == 2 or (array.ndim == 3 and array.shape[:2] == sides):
        array = array[np.newaxis]
    return len(array), array.shape[1:3], False, lambda index, rows, columns: array[index][rows, columns]


def _loaded(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy file ({error}).") from error


def _labels(path: Path, refusal: ValueError) -> np.ndarray:
    """Read a mask of a kind that no image to denoise has, such as one bit per pixel, or labels of 32 bits.

    Raises:
        ValueError: The refusal of the file as an image, if it cannot be read that way either.
    """
    try:
        if path.suffix.lower() == ".png":
            with Image.open(path, formats=("PNG",)) as image:
                return np.asarray(image if image.mode in ("1", "P", "L", "I", "I;16") else image.convert("RGB"))
        return tifffile.imread(path)
    except Exception:  # of broken files, of every type
        raise refusal from None


def _per_pixel(pixels: np.ndarray, channels: int, is_rgb: bool) -> np.ndarray:
    """Return (h, w, C) if the mask has a channel for each of the image, else (h, w, 1), where any channel counts."""
    mask = (np.asarray(pixels) != 0).reshape(*pixels.shape[:2], -1)
    return mask if mask.shape[2] == channels and not is_rgb else mask.any(axis=2, keepdims=True)


def _numbered(name: str) -> tuple[str, int]:
    """Take the number of an image in a stack from its name."""
    match = re.fullmatch(r"(.*)\[(\d+)\]", name, re.DOTALL)
    return (match[1], int(match[2])) if match else (name, 0)


def _stem(name: str) -> str:
    """Return a relative path without its suffix."""
    return os.path.splitext(name)[0]
