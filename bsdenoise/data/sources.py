"""SOURCE → a numbered set of images: files, stacks, arrays, tensorflow_datasets; and which of them to use.

Nothing here decodes an image before it is asked for.
"""

import concurrent.futures
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from bsdenoise import images
from bsdenoise.data import tfds_source
from bsdenoise.formats import npy
from bsdenoise.images import Picture

MAX_REPORTS = 30  # images that are left out with a line each
SINGLE_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")  # never opened to be counted, and to less than `images` for sizes
HEADER_THREADS = 8  # reading headers mostly waits for the disk
MANY_IMAGES = 2000  # headers of which take long enough to say so where there is no progress bar
BAR_DELAY = 1.0  # seconds before a progress bar shows


class Source(Protocol):
    """A numbered set of images."""

    def __len__(self) -> int:
        """Number of images."""

    def name(self, index: int) -> str:
        """Names an image, for messages."""

    def read(self, index: int) -> Picture:
        """Reads (H, W) or (H, W, C), uint8, uint16 or float; raises ValueError or OSError for a broken one."""

    def size(self, index: int) -> tuple[int, int]:
        """Gives height and width, from headers where possible; raises as `read`."""


@dataclass(frozen=True)
class FileSource:
    """Image files; every image of a stack counts.

    Attributes:
        places: Path and number in the file of each image; the number is `None` in files that hold one.
    """

    places: list[tuple[Path, int | None]]
    _sizes: dict[Path, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def open(cls, paths: list[Path]) -> "FileSource":
        """Counts the images in files; one that cannot be counted is kept as one image, to be named when it is met."""
        places: list[tuple[Path, int | None]] = []
        for path in tqdm(paths, desc="counting images", unit="file", delay=BAR_DELAY, disable=None, leave=False):
            number = 1
            if path.suffix.lower() not in SINGLE_IMAGE_SUFFIXES:
                try:
                    number = images.count(path)
                except (ValueError, OSError):
                    pass
            places += [(path, None)] if number == 1 else [(path, index) for index in range(number)]
        return cls(places)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def name(self, index: int) -> str:
        """Gives the path, and the number in a stack."""
        path, number = self.places[index]
        return str(path) if number is None else f"{path}[{number}]"

    def read(self, index: int) -> Picture:
        """Decodes one image."""
        path, number = self.places[index]
        picture = images.read_image(path, number or 0)
        if picture.array.ndim > 3:
            raise ValueError(f"{path}: expected one image. Received: shape={picture.array.shape}.")
        return picture

    def size(self, index: int) -> tuple[int, int]:
        """Gives height and width; all images of a stack have one size, so each file is opened once."""
        path = self.places[index][0]
        if path not in self._sizes:
            self._sizes[path] = _file_size(path)
        return self._sizes[path]


@dataclass(frozen=True)
class ArraySource:
    """Images of one `.npy` file, (N, H, W), (N, H, W, C) or a single (H, W), (H, W, C); read as they are needed."""

    path: Path
    array: np.ndarray

    @classmethod
    def open(cls, path: Path) -> "ArraySource":
        """Maps the file into memory."""
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path}: not a readable .npy file ({error}).") from error
        array = array if npy.is_stack(array.shape) else array[np.newaxis]
        if array.ndim not in (3, 4) or array.size == 0:
            raise ValueError(f"{path}: expected images (N, H, W) or (N, H, W, C). Received: shape={array.shape}.")
        try:
            images.full_scale(array.dtype)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return cls(path, array)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.array)

    def name(self, index: int) -> str:
        """Gives the path and the number."""
        return f"{self.path}[{index}]"

    def read(self, index: int) -> Picture:
        """Reads one image."""
        array = np.array(self.array[index])
        return Picture(array.astype(array.dtype.newbyteorder("="), copy=False), "NPY")

    def size(self, index: int) -> tuple[int, int]:
        """Gives height and width, the same for all."""
        return self.array.shape[1], self.array.shape[2]


@dataclass(frozen=True)
class Selection:
    """Some of the images of a source, renumbered."""

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        """Number of images that are used."""
        return len(self.indices)

    def name(self, index: int) -> str:
        """Gives the name that the source has for it."""
        return self.source.name(int(self.indices[index]))

    def read(self, index: int) -> Picture:
        """Reads one image."""
        return self.source.read(int(self.indices[index]))

    def size(self, index: int) -> tuple[int, int]:
        """Gives height and width."""
        return self.source.size(int(self.indices[index]))


def check_partners(source: Source, targets: Source) -> None:
    """Checks that two sets hold the same images by their numbers: as many, and files under the same names.

    Raises:
        ValueError: If not.
    """
    if len(source) != len(targets):
        raise ValueError(
            f"--targets must hold as many images as SOURCE. Received: {len(targets)} targets for {len(source)} images."
        )
    if isinstance(source, ArraySource) and isinstance(targets, ArraySource):
        _check_other_file(source.path, targets.path)
    if not (isinstance(source, FileSource) and isinstance(targets, FileSource)):
        return
    for place, target in zip(source.places, targets.places, strict=True):
        _check_other_file(place[0], target[0])
        if (place[0].stem, place[1]) != (target[0].stem, target[1]):
            raise ValueError(
                f"--targets must hold the images of SOURCE under the same names. Received: {target[0]} for {place[0]}."
            )


def _check_other_file(path: Path, target: Path) -> None:
    """Refuses an image as its own target: what would be learnt is to return it."""
    if path.resolve() == target.resolve():
        raise ValueError(f"--targets must be other images than those of SOURCE. Received: {path} for both.")


def open_source(source: str) -> Source:
    """Opens what SOURCE names: a folder (searched recursively), a glob, an image file or stack, `.npy`, or `tfds:`.

    Raises:
        ValueError: If nothing is there, or no image.
    """
    if source.startswith(tfds_source.PREFIX):
        return tfds_source.open_tfds(source)
    path = Path(source)
    if path.is_file() and path.suffix.lower() == ".npy":
        return ArraySource.open(path)
    return FileSource.open(images.find(source))


def select(
    source: Source,
    min_side: int | None = None,
    max_side: int | None = None,
    report: Callable[[str], None] = warnings.warn,
) -> Source:
    """Keeps the images whose sides are both within limits, as the paper does with 256 to 512 pixels.

    Headers of all images are read, once; no image is decoded for it where the header tells.

    Args:
        source: The images.
        min_side: Least height and width in pixels; `None` for no limit.
        max_side: Greatest height and width in pixels; `None` for no limit.
        report: Called with one line for each image whose size cannot be read; it is not kept.

    Returns:
        The source itself if there is no limit, else the images that are kept, in their order.

    Raises:
        ValueError: If no image is kept.
    """
    if min_side is None and max_side is None:
        return source
    low, high = min_side or 1, np.inf if max_side is None else max_side
    kept, failed = [], 0
    for index, result in enumerate(_sizes(source)):
        if isinstance(result, Exception):
            failed += 1
            if failed <= MAX_REPORTS:
                name = source.name(index)
                report(f"left out {name}: {str(result).removeprefix(f'{name}: ')}")
        elif low <= min(result) and max(result) <= high:
            kept.append(index)
    if not kept:
        wanted = " and ".join(
            f"{'at least' if name == '--min-side' else 'at most'} {value} ({name})"
            for name, value in (("--min-side", min_side), ("--max-side", max_side))
            if value is not None
        )
        raise ValueError(f"None of the {len(source)} images has sides of {wanted} pixels.")
    return Selection(source, np.array(kept))


def _file_size(path: Path) -> tuple[int, int]:
    """Gives height and width of the images in a file from its headers."""
    if path.suffix.lower() in SINGLE_IMAGE_SUFFIXES:
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:  # the first bytes only, not the file
                return image.height, image.width
        except Exception:  # Pillow's errors are of every type, and say less than those below
            pass
    with images.opened(path) as file:
        height, width = file.shape[-3:-1] if len(file.shape) == 4 else file.shape[:2]
        return height, width


def _sizes(source: Source) -> list[tuple[int, int] | Exception]:
    """Gives the size of each image, or the error that came instead."""

    def size(index: int) -> tuple[int, int] | Exception:
        try:
            return source.size(index)
        except (ValueError, OSError) as error:
            return error

    bar = tqdm(total=len(source), desc="reading sizes", unit="img", delay=BAR_DELAY, disable=None, leave=False)
    if bar.disable and len(source) >= MANY_IMAGES:
        tqdm.write(f"reading the sizes of {len(source)} images …")
    pool = concurrent.futures.ThreadPoolExecutor(HEADER_THREADS)
    results = []
    try:
        # Pillow warns of odd headers; around all threads, as the filters belong to the whole process.
        with bar, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for result in pool.map(size, range(len(source))):
                results.append(result)
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the rest
    return results
