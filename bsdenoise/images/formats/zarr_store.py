"""Zarr stores, versions 2 and 3: an array of images, or an OME-Zarr image, of which the full resolution is read.

A plain array has the axes that its dimensions are named by, or those of a `.npy` file. Those of an OME-Zarr image have
names always. `zarr_writing` writes what was read here with all that it had.
"""

import base64
import contextlib
import dataclasses
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from bsdenoise.images import axes as array_axes
from bsdenoise.images.axes import Layout
from bsdenoise.images.formats import ome_zarr
from bsdenoise.images.formats.ome_zarr import METADATA_FILES, Multiscale
from bsdenoise.images.pixels import ImageFile, full_scale

SUFFIX = ".zarr"
NAMES_OF_DIMENSIONS = "_ARRAY_DIMENSIONS"  # attribute by which xarray names the axes of Zarr 2
MOST_NAMES = 4  # in a message


@dataclasses.dataclass(frozen=True)
class Level:
    """An array of a store, as its files describe it.

    Attributes:
        path: Its path below the image; "" if it is the image.
        metadata: Content of `zarr.json`, or of `.zarray`.
        attributes: Content of `.zattrs`; `None` in Zarr 3.
    """

    path: str
    metadata: dict[str, Any]
    attributes: dict[str, Any] | None
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Store:
    """What a store holds beside the pixels.

    Attributes:
        version: Version of Zarr, 2 or 3.
        levels: Full resolution first; alone in a plain array.
        image: What OME-Zarr says; `None` of a plain array.
        is_consolidated: Whether one file repeats the metadata of all.
    """

    version: int
    levels: tuple[Level, ...]
    image: Multiscale | None = None
    is_consolidated: bool = False


def is_store(path: Path) -> bool:
    """Tell whether a folder is a Zarr store, or a group or array inside of one: by its name or its files."""
    return path.is_dir() and (path.suffix.lower() == SUFFIX or has_metadata(path))


def has_metadata(path: Path) -> bool:
    """Tell whether a folder holds the files that make it a Zarr array or group."""
    return any((path / name).is_file() for name in METADATA_FILES)


def open_store(path: Path, axes: str | None = None) -> ImageFile:
    """Open a store for its headers.

    Args:
        path: An array, an OME-Zarr image, or a store that holds one such image.
        axes: Letters of the axes of a plain array, as for `axes.of_array`.

    Raises:
        ValueError: If it is broken, or holds no images or several. (Other errors are those of zarr.)
    """
    import zarr  # only here: most users never need it, and it takes a while

    inner = ome_zarr.image_names(path)
    if len(inner) > 1:
        shown = ", ".join(inner[:MOST_NAMES]) + (", …" if len(inner) > MOST_NAMES else "")
        raise ValueError(f"it holds {len(inner)} images; name one of them, such as {path / inner[0]} ({shown})")
    notes = [f"of the store its image {inner[0]} is taken, and nothing else"] if inner else []
    path = path / inner[0] if inner else path
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Group):
        array, layout, store, more = _open_image(node, path)
        notes += [*more, *([array_axes.NOT_USED] if axes else [])]
    else:
        array, layout = node, _plain_layout(node, path, axes)
        notes += layout.notes
        store = Store(node.metadata.zarr_format, (_level(path, "", node.shape),))
    return _file(array, layout, store, tuple(notes))


def _file(array: Any, layout: Layout, store: Store, notes: tuple[str, ...]) -> ImageFile:
    """Describe an array of images."""
    dtype = np.dtype(array.dtype)
    full_scale(dtype)
    if 0 in array.shape:
        raise ValueError(f"it is empty. Received: shape={array.shape}")
    native = dtype.newbyteorder("=")

    def window(index: int, rows: slice, columns: slice) -> np.ndarray:
        part = np.asarray(array[layout.place(index, rows, columns)])
        return np.ascontiguousarray(layout.to_image(part), native)

    def read(index: int) -> np.ndarray:
        return window(index, slice(None), slice(None))

    metadata = {"zarr": store, "zarr_layout": layout} | ({"layout": layout} if store.image is None else {})
    return ImageFile(
        "Zarr",
        layout.images_shape,
        native,
        read,
        metadata,
        notes,
        window,
        independent_channels=layout.independent,
        no_data=_no_data(dict(array.attrs)),
    )


def _no_data(attributes: dict[str, Any]) -> float | None:
    """Return the value by which the attributes say, in the CF conventions' words, that a pixel holds nothing."""
    for name in ("_FillValue", "missing_value"):
        value = attributes.get(name)
        if isinstance(value, str):  # as xarray writes floats into JSON
            with contextlib.suppress(ValueError, struct.error):
                (value,) = struct.unpack("<d", base64.b64decode(value, validate=True))
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    return None


def _plain_layout(array: Any, path: Path, axes: str | None) -> Layout:
    """Find the images in an array that is no group: by what is said, its names, those of its image, or its shape."""
    if axes is not None:
        return array_axes.of_array(array.shape, axes)
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get(NAMES_OF_DIMENSIONS)
    image = ome_zarr.image_of_array(path)
    if image is not None:
        return image.layout(array.shape)
    if array_axes.are_of_images(names, array.shape):
        return array_axes.of_names(names, array.shape)
    return array_axes.of_array(array.shape)


def _open_image(group: Any, path: Path) -> tuple[Any, Layout, Store, list[str]]:
    """Open an OME-Zarr image: its full resolution, its axes, all that is written again, and notes."""
    import zarr

    image = ome_zarr.multiscale(dict(group.attrs))
    if image is None:
        names = [name for name, _ in sorted(group.arrays())]
        shown = f": {', '.join(names[:MOST_NAMES])}{', …' if len(names) > MOST_NAMES else ''}" if names else ""
        raise ValueError(f"it is a group without the `multiscales` of OME-Zarr; name one of its arrays{shown}")
    array = group.get(image.paths[0])
    if not isinstance(array, zarr.Array):
        raise ValueError(f"its array {image.paths[0]} is missing")
    layout = image.layout(array.shape)
    levels = [_level(path, image.paths[0], array.shape)]
    left_out: list[str] = []
    for name in image.paths[1:]:
        lower = group.get(name)
        above = levels[-1].shape
        fits = isinstance(lower, zarr.Array) and lower.dtype == array.dtype and len(lower.shape) == len(above)
        if left_out or not fits or any(not 0 < side <= whole for side, whole in zip(lower.shape, above, strict=True)):
            left_out.append(name)
            continue
        levels.append(_level(path, name, lower.shape))
    notes = []
    if left_out:
        notes.append(f"its levels {', '.join(left_out)} are left out, as they do not fit those above")
    labels = ome_zarr.label_names(path)
    if labels:
        notes.append(f"its labels ({', '.join(labels)}) are left out")
    inner = image.attributes.get("ome", image.attributes)
    if len(inner["multiscales"]) > 1:
        notes.append("of its multiscales the first is taken")
    if image.version in ome_zarr.WITHOUT_TRANSFORMATIONS:
        notes.append(f"OME-Zarr {image.version}, which is written as {ome_zarr.WRITTEN_FOR_OLD}")
    consolidated = group.metadata.consolidated_metadata is not None
    return array, layout, Store(group.metadata.zarr_format, tuple(levels), image, consolidated), notes


def _level(path: Path, name: str, shape: tuple[int, ...]) -> Level:
    """Read the files that describe an array."""
    folder = path / name
    if (folder / "zarr.json").is_file():
        return Level(name, json.loads((folder / "zarr.json").read_bytes()), None, shape)
    attributes = folder / ".zattrs"
    found = json.loads(attributes.read_bytes()) if attributes.is_file() else {}
    return Level(name, json.loads((folder / ".zarray").read_bytes()), found, shape)
