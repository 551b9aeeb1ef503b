"""Image files → a numbered set of images."""

from pathlib import Path

import numpy as np
from PIL import Image

from bsdenoise import images
from bsdenoise.data import header_scan
from bsdenoise.data.index import SINGLE_IMAGE_SUFFIXES, FileIndex
from bsdenoise.images import Picture


class FileSource:
    """Image files; every image of a stack counts.

    Args:
        index: The files; one that cannot be counted is kept as one image, to be named when it is met.
        axes: Letters of the axes of `.npy` files and plain Zarr arrays, as for `images.read`.
        no_data: Value of pixels that hold no measurement, as for `images.opened`.
    """

    def __init__(self, index: FileIndex, axes: str | None = None, no_data: float | None = None):
        self.index = index
        self.axes = axes
        self.no_data = no_data
        counts = index.facts("count")
        unknown = np.flatnonzero(counts == 0)
        if len(unknown):
            header_scan.in_threads(self._open, unknown, "counting the images of", "files")
            index.save()
            counts = index.facts("count")
        # First image of each file; `None` if every image has a file of its own.
        self._starts = None if counts.max(initial=1) <= 1 else np.append(0, np.cumsum(np.maximum(counts, 1)))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.index) if self._starts is None else int(self._starts[-1])

    def place(self, index: int) -> tuple[int, int | None]:
        """Return the number of an image's file, and its number in that; `None` in files that hold one."""
        if self._starts is None:
            return index, None
        file = int(np.searchsorted(self._starts, index, "right")) - 1
        first, end = self._starts[file : file + 2]
        return file, None if end - first == 1 else int(index - first)

    def path(self, index: int) -> Path:
        """Return the path of an image's file."""
        return self.index.path(self.place(index)[0])

    def name(self, index: int) -> str:
        """Return the path, and the number in a stack."""
        return _numbered(str(self.path(index)), self.place(index)[1])

    def short_name(self, index: int) -> str:
        """Return the path below the source's base, and the number in a stack."""
        file, number = self.place(index)
        return _numbered(self.index.name(file), number)

    def read(self, index: int) -> Picture:
        """Decode one image."""
        path, number = self.path(index), self.place(index)[1]
        picture = images.read_image(path, number or 0, self.axes, self.no_data)
        if picture.array.ndim > 3:
            raise ValueError(f"{path}: expected one image. Received: shape={picture.array.shape}.")
        return picture

    def content(self, index: int) -> bytes | None:
        """Return the bytes of a file that holds one image; of others, and where axes must be told, `None`."""
        path, number = self.path(index), self.place(index)[1]
        needs_axes = self.axes is not None and path.suffix.lower() not in SINGLE_IMAGE_SUFFIXES
        return None if number is not None or needs_axes or images.is_store(path) else path.read_bytes()

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width; all images of a stack have one size, so each file is opened once."""
        file = self.place(index)[0]
        if not self.index.fact(file, "height"):
            height, width = _file_size(self.index.path(file), self.axes)
            self.index.learn(file, height=height, width=width)
        return self.index.fact(file, "height"), self.index.fact(file, "width")

    def known_sizes(self) -> np.ndarray:
        """Return (N, 2), height and width of all images, 0 where files would have to be opened."""
        sizes = np.stack([self.index.facts("height"), self.index.facts("width")], axis=-1)
        return sizes if self._starts is None else np.repeat(sizes, np.diff(self._starts), axis=0)

    def _open(self, file: int) -> None:
        """Count the images of a file."""
        with images.opened(self.index.path(file), self.axes) as opened:
            height, width = _size(opened)
            self.index.learn(file, count=len(opened), height=height, width=width)


def _file_size(path: Path, axes: str | None) -> tuple[int, int]:
    """Return height and width of the images in a file from its headers."""
    if path.suffix.lower() in SINGLE_IMAGE_SUFFIXES:
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:  # the first bytes only, not the file
                return image.height, image.width
        except Exception:  # Pillow's errors are of every type, and say less than those below
            pass
    with images.opened(path, axes) as file:
        return _size(file)


def _size(file: images.ImageFile) -> tuple[int, int]:
    """Return height and width of each image in a file."""
    height, width = file.shape[-3:-1] if len(file.shape) == 4 else file.shape[:2]
    return height, width


def _numbered(name: str, number: int | None) -> str:
    return name if number is None else f"{name}[{number}]"
