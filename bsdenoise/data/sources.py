"""SOURCE → a numbered set of images: files, stacks, arrays, shards, tensorflow_datasets; and which of them to use.

Nothing here decodes an image before it is asked for.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from bsdenoise import images
from bsdenoise.data import header_scan, shards, tfds_source
from bsdenoise.data import index as file_index
from bsdenoise.data.faults import Reports
from bsdenoise.data.file_source import FileSource
from bsdenoise.data.shards import ShardSource
from bsdenoise.images import Picture
from bsdenoise.images import axes as array_axes
from bsdenoise.images.axes import Layout


class Source(Protocol):
    """A numbered set of images."""

    def __len__(self) -> int:
        """Number of images."""

    def name(self, index: int) -> str:
        """Name an image, for messages."""

    def short_name(self, index: int) -> str:
        """Name an image by what is the same wherever the source is."""

    def read(self, index: int) -> Picture:
        """Read (H, W) or (H, W, C), uint8, uint16 or float; raise ValueError or OSError for a broken one."""

    def content(self, index: int) -> bytes | None:
        """Return the bytes of the image file that holds this image alone, not decoded; `None` if there is none."""

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width, from headers where possible; raise as `read`."""


@dataclass(frozen=True)
class ArraySource:
    """Images of one `.npy` file, (N, H, W), (N, H, W, C) or a single (H, W), (H, W, C); read as they are needed."""

    path: Path
    array: np.ndarray
    layout: Layout
    axes: str | None = None
    no_data: float | None = None

    @classmethod
    def open(cls, path: Path, axes: str | None = None, no_data: float | None = None) -> "ArraySource":
        """Map the file into memory; `axes` as for `images.read`, `no_data` as for `images.opened`.

        Args:
            path: The `.npy` file.
            axes: Letters of its axes, as for `images.read`.
            no_data: As for `images.opened`.
        """
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path}: not a readable .npy file ({error}).") from error
        try:
            images.full_scale(array.dtype)
            return cls(path, array, array_axes.of_array(array.shape, axes), axes)
        except ValueError as error:
            raise ValueError(f"{path}: {str(error).rstrip('.')}.") from error

    def __len__(self) -> int:
        """Number of images."""
        shape = self.layout.images_shape
        return shape[0] if len(shape) == 4 else 1

    def name(self, index: int) -> str:
        """Return the path and the number."""
        return f"{self.path}[{index}]"

    def short_name(self, index: int) -> str:
        """Return the file's name without its folder, and the number."""
        return f"{self.path.name}[{index}]"

    def content(self, index: int) -> None:
        """No image has a file of its own."""

    def read(self, index: int) -> Picture:
        """Read one image."""
        part = self.layout.to_image(self.array[self.layout.place(index, slice(None), slice(None))])
        array = np.array(part, part.dtype.newbyteorder("="), order="C", subok=False)
        notes, independent = self.layout.notes, self.layout.independent
        return Picture(array, "NPY", notes=notes, independent_channels=independent, no_data=self.no_data)

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width, the same for all."""
        return self.array.shape[self.layout.rows], self.array.shape[self.layout.columns]


@dataclass(frozen=True)
class Selection:
    """Some of the images of a source, renumbered."""

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        """Number of images that are used."""
        return len(self.indices)

    def name(self, index: int) -> str:
        """Return the name that the source has for it."""
        return self.source.name(int(self.indices[index]))

    def short_name(self, index: int) -> str:
        """Return the name that the source has for it wherever it is."""
        return self.source.short_name(int(self.indices[index]))

    def read(self, index: int) -> Picture:
        """Read one image."""
        return self.source.read(int(self.indices[index]))

    def content(self, index: int) -> bytes | None:
        """Return the bytes of a file that holds this image alone."""
        return self.source.content(int(self.indices[index]))

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width."""
        return self.source.size(int(self.indices[index]))


def check_partners(source: Source, targets: Source) -> None:
    """Check that two sets hold the same images by their numbers: as many, and files under the same names.

    Args:
        source: The images.
        targets: What they are compared with.

    Raises:
        ValueError: If not.
    """
    if len(source) != len(targets):
        raise ValueError(
            f"--targets must hold as many images as SOURCE. Received: {len(targets)} targets for {len(source)} images."
        )
    if isinstance(source, ArraySource) and isinstance(targets, ArraySource):
        _check_other(source.path, targets.path)
    if isinstance(source, ShardSource) and isinstance(targets, ShardSource):
        _check_other(source.folder, targets.folder)
    if not (has_file_names(source) and has_file_names(targets)):
        return
    if isinstance(source, FileSource) and isinstance(targets, FileSource):
        for index in range(len(source)):
            _check_other(source.path(index), targets.path(index))
    for index in range(len(source)):
        if _stem(source.short_name(index)) != _stem(targets.short_name(index)):
            raise ValueError(
                "--targets must hold the images of SOURCE under the same names. "
                f"Received: {targets.name(index)} for {source.name(index)}."
            )


def has_file_names(source: Source) -> bool:
    """Tell whether images are named by files of one image or stack each, so that partners can be told by name."""
    if isinstance(source, Selection):
        return has_file_names(source.source)
    return isinstance(source, FileSource) or (isinstance(source, ShardSource) and source.has_file_names)


def _stem(name: str) -> tuple[str, str]:
    """Return what the names of partners share: that of the file without folder and suffix, and the number in it."""
    stem, suffix = os.path.splitext(os.path.basename(name))
    return stem, suffix[suffix.find("[") :] if suffix.endswith("]") else ""


def _check_other(path: Path, target: Path) -> None:
    """Refuse an image as its own target: what would be learnt is to return it."""
    if path.resolve() == target.resolve():
        raise ValueError(f"--targets must be other images than those of SOURCE. Received: {path} for both.")


def open_source(
    source: str,
    axes: str | None = None,
    no_data: float | None = None,
    say: Callable[[str], object] | None = None,
) -> Source:
    """Open what SOURCE names: a folder (searched recursively, or prepared), a glob, an image file or stack, `tfds:`.

    Args:
        source: What SOURCE may be.
        axes: Letters of the axes of `.npy` files and plain Zarr arrays, as for `images.read`.
        no_data: Value of pixels that hold no measurement, as for `images.opened`.
        say: As for `images.find`.

    Raises:
        ValueError: If nothing is there, or no image, or of what was prepared a part is missing; or `axes` are no axes
            of images, or given for what was prepared.
        OSError: If a folder cannot be listed.
    """
    images.check_axes(axes)
    if axes and (source.startswith(tfds_source.PREFIX) or (source and shards.is_prepared(Path(source)))):
        raise ValueError(
            f"{array_axes.FLAG} names the axes of .npy files and Zarr arrays; {source} holds images. Leave it away."
        )
    if source.startswith(tfds_source.PREFIX):
        return tfds_source.open_tfds(source, no_data)
    path = Path(source)
    if path.is_file() and path.suffix.lower() == ".npy":
        return ArraySource.open(path, axes, no_data)
    if source and shards.is_prepared(path):
        return ShardSource.open(path, no_data)
    if source and path.is_dir() and not images.is_store(path):
        index = file_index.of_folder(path, axes)
        index.save()
        if len(index):
            for line in index.left_out.notes(source):
                if say is not None:
                    say(line)
            return FileSource(index, axes, no_data)
        shards.check_finished(path)
    return FileSource(file_index.of_files(images.find(source, say), images.base_of(source)), axes, no_data)


def select(
    source: Source,
    min_side: int | None = None,
    max_side: int | None = None,
    report: Callable[[str], None] = warnings.warn,
) -> Source:
    """Keep the images whose sides are both within limits, as the paper does with 256 to 512 pixels.

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
    sizes, failures = _sizes(source)
    reports = Reports(report)
    for index, error in sorted(failures.items()):
        reports.left_out(source.name(index), error)
    is_kept = (sizes.min(axis=1) >= (min_side or 1)) & (sizes.max(axis=1) <= (np.inf if max_side is None else max_side))
    is_kept[list(failures)] = False
    kept = np.flatnonzero(is_kept)
    if len(failures) == len(source):
        raise ValueError(f"None of the images could be read; the first is {reports.first}")
    if not len(kept):
        wanted = " and ".join(
            f"{'at least' if name == '--min-side' else 'at most'} {value} ({name})"
            for name, value in (("--min-side", min_side), ("--max-side", max_side))
            if value is not None
        )
        raise ValueError(f"None of the {len(source)} images has sides of {wanted} pixels.")
    return Selection(source, kept)


def _sizes(source: Source) -> tuple[np.ndarray, dict[int, Exception]]:
    """Return height and width of each image, (N, 2), and by its number the error that came instead."""
    if isinstance(source, (FileSource, ShardSource)):
        sizes = source.known_sizes()
    else:
        sizes = np.zeros((len(source), 2), np.int32)
    unknown = np.flatnonzero(sizes[:, 0] == 0)

    def measure(index: int) -> None:
        sizes[index] = source.size(index)

    try:
        failures = header_scan.in_threads(measure, unknown, "reading the sizes of", "images")
    finally:  # after Ctrl-C too: so far it need not be done again
        if isinstance(source, FileSource):
            source.index.save()
    return sizes, failures
