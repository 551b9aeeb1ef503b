"""Zarr stores, written as what was read: the same files describe them, and every chunk or shard is written once.

Windows come in any size and order. They are collected in a file of bare pixels, for as many images as one chunk or
shard goes through, and leave it chunk by chunk or shard by shard: none is read back, and memory stays bounded.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bsdenoise.images import axes as array_axes
from bsdenoise.images.axes import Layout
from bsdenoise.images.formats import npy, zarr_pyramid
from bsdenoise.images.formats.zarr_store import NAMES_OF_DIMENSIONS, Level, Store
from bsdenoise.images.pixels import ImageFile, Picture

CHUNK = 1024  # side in pixels of the chunks of new stores
COLLECTED = ".collected"  # inside of the store while it is written
_SLASHES = {"name": "default", "configuration": {"separator": "/"}}


@contextlib.contextmanager
def writing(
    path: Path, shape: tuple[int, ...], dtype: Any, like: Picture | ImageFile
) -> Iterator[Callable[[int, slice, slice, np.ndarray], None]]:
    """Make a store, and complete it once the block has ended well.

    Args:
        path: The folder, which must not exist.
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.
        like: What was read: a store of the same shape gives all that it has beside the pixels.

    Yields:
        Function of the image's number, rows, columns, and pixels (h, w) or (h, w, C).
    """
    import zarr

    dtype = np.dtype(dtype)
    store, layout = like.metadata.get("zarr"), like.metadata.get("zarr_layout")
    if not isinstance(store, Store) or not isinstance(layout, Layout) or like.shape != shape:
        store = None
        layout = npy.kept_layout(like, shape) or array_axes.of_images(shape, like.independent_channels)
        arrays = [_new(path, layout, dtype)]
    else:
        names = [level.path for level in store.levels]
        _describe(path, store, layout, dtype)
        arrays = [zarr.open_array(str(path / name), mode="r+") for name in names]
    collected = _Collected(arrays[0], layout, path / COLLECTED)
    yield collected.write_window
    collected.flush()
    collected.remove()
    for above, lower in itertools.pairwise(arrays):
        zarr_pyramid.fill(lower, above)
    if store is not None and store.is_consolidated:
        _consolidate(path, store.version)


class _Collected:
    """Pixels on their way into an array, for the images that one chunk or shard goes through.

    Args:
        array: The Zarr array.
        layout: Where its images are.
        path: File for the pixels.
    """

    def __init__(self, array: Any, layout: Layout, path: Path):
        self._array, self._layout, self._path = array, layout, path
        self._unit = array.shards or array.chunks
        self._slab: tuple[slice, ...] | None = None
        self._done: set[tuple[int, ...]] = set()

    def write_window(self, index: int, rows: slice, columns: slice, pixels: np.ndarray) -> None:
        """Take pixels, (h, w) or (h, w, C), of image number `index`."""
        self._begin(self._slab_of(index))
        place = list(self._layout.place(index, rows, columns))
        for axis in self._layout.outer:
            place[axis] %= self._unit[axis]  # a number
        self._pixels()[tuple(place)] = self._layout.from_image(pixels)

    def flush(self) -> None:
        """Write what is collected into the array."""
        if self._slab is None:
            return
        for region, place in self._regions():
            self._array[place] = np.array(self._pixels()[region], subok=False)
        self._done.add(tuple(part.start for part in self._slab))
        self._slab = None

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    def _slab_of(self, index: int) -> tuple[slice, ...]:
        """Return the part of the array that is collected together with an image."""
        slab = [slice(0, side) for side in self._array.shape]
        for axis, number in zip(self._layout.outer, self._layout.numbers(index), strict=True):
            unit = self._unit[axis]
            start = number // unit * unit
            slab[axis] = slice(start, min(start + unit, self._array.shape[axis]))
        return tuple(slab)

    def _begin(self, slab: tuple[slice, ...]) -> None:
        """Make room for the pixels of a part of the array, once what was collected is written."""
        if slab == self._slab:
            return
        self.flush()
        self._slab = slab
        self._pixels("w+")
        if tuple(part.start for part in slab) in self._done:  # its images do not come one after the other
            for region, place in self._regions():
                self._pixels()[region] = self._array[place]

    def _regions(self) -> Iterator[tuple[zarr_pyramid.Region, zarr_pyramid.Region]]:
        """Divide what is collected by whole chunks or shards; where each part is in the file, and in the array."""
        assert self._slab is not None
        starts = [part.start for part in self._slab]
        for region in zarr_pyramid.regions([part.stop - part.start for part in self._slab], self._unit):
            place = (slice(at + part.start, at + part.stop) for at, part in zip(starts, region, strict=True))
            yield region, tuple(place)

    def _pixels(self, mode: Any = "r+") -> np.ndarray:
        """Map the file, anew each time, so that what is written does not stay in memory."""
        assert self._slab is not None
        shape = tuple(part.stop - part.start for part in self._slab)
        return np.memmap(self._path, np.dtype(self._array.dtype).newbyteorder("="), mode, 0, shape)


def _new(path: Path, layout: Layout, dtype: np.dtype) -> Any:
    """Make an array of Zarr 3 in chunks of one image."""
    import zarr

    chunks = [1] * len(layout.shape)
    for axis in (layout.rows, layout.columns):
        chunks[axis] = min(layout.shape[axis], CHUNK)
    if layout.channels is not None:
        chunks[layout.channels] = layout.shape[layout.channels]
    names = layout.names if layout.is_named else None
    return zarr.create_array(
        str(path), shape=layout.shape, chunks=tuple(chunks), dtype=dtype, dimension_names=names, zarr_format=3
    )


def _describe(path: Path, store: Store, layout: Layout, dtype: np.dtype) -> None:
    """Write the files that describe a store like another one."""
    if store.image is not None:
        attributes = store.image.written([level.shape for level in store.levels])
        _write_group(path, store.version, attributes)
        for level in store.levels:
            for parent in list(PurePosixPath(level.path).parents)[:-1]:
                _write_group(path / parent, store.version, {})
    for level in store.levels:
        folder = path / level.path
        folder.mkdir(parents=True, exist_ok=True)
        described = _of_type(level, store.version, dtype)
        if store.version == 3:
            if store.image is not None:
                described |= {"dimension_names": list(layout.names), "chunk_key_encoding": _SLASHES}
            elif layout.is_named and not any(described.get("dimension_names") or ()):
                described["dimension_names"] = list(layout.names)
            _write_json(folder / "zarr.json", described)
            continue
        if store.image is not None:
            described["dimension_separator"] = "/"
        attributes = dict(level.attributes or {})
        if store.image is None and layout.is_named:
            attributes.setdefault(NAMES_OF_DIMENSIONS, list(layout.names))
        _write_json(folder / ".zarray", described)
        if attributes:
            _write_json(folder / ".zattrs", attributes)


def _of_type(level: Level, version: int, dtype: np.dtype) -> dict[str, Any]:
    """Describe an array of another type of pixels; of the same type as it was, with all its codecs."""
    described, zero = dict(level.metadata), np.zeros((), dtype).item()
    if version == 2:
        if np.dtype(described["dtype"]).newbyteorder("=") == dtype:
            return described
        return {**described, "dtype": dtype.newbyteorder("<").str, "fill_value": zero, "filters": None}
    if described["data_type"] == dtype.name:
        return described
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd", "configuration": {"level": 0}}]
    for codec in described["codecs"]:
        if codec["name"] == "sharding_indexed":
            codecs = [{**codec, "configuration": {**codec["configuration"], "codecs": codecs}}]
    return {**described, "data_type": dtype.name, "fill_value": zero, "codecs": codecs}


def _write_group(path: Path, version: int, attributes: dict[str, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if version == 3:
        _write_json(path / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
        return
    _write_json(path / ".zgroup", {"zarr_format": 2})
    _write_json(path / ".zattrs", attributes)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2))


def _consolidate(path: Path, version: Any) -> None:
    """Repeat the metadata of all arrays in one file, as the input had it."""
    import warnings

    import zarr

    with warnings.catch_warnings():  # of Zarr 3, whose specification does not have it yet
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(path), zarr_format=version)
