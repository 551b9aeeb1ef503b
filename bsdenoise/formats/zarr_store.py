"""Zarr stores, versions 2 and 3: an array of images, or the full resolution of an OME-Zarr group.

A plain array has the axes of a `.npy` file. Those of an OME-Zarr image have names: channels C, rows Y, columns X; along
the others (time T, depth Z) there is one image after the other.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bsdenoise.formats import npy
from bsdenoise.formats.pixels import ImageFile, Picture, full_scale

SUFFIX = ".zarr"
CHUNK = 1024  # side in pixels of the chunks of new stores


def open_store(path: Path) -> ImageFile:
    """Opens a store for its headers.

    Raises:
        ValueError: If it is broken, or holds no images. (Other errors are those of zarr.)
    """
    import zarr  # only here: most users never need it, and it takes a while

    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Group):
        array, axes = _full_resolution(node)
    else:
        array, axes = node, _plain_axes(node.shape)
    dtype = np.dtype(array.dtype)
    full_scale(dtype)
    if 0 in array.shape:
        raise ValueError(f"it is empty. Received: shape={array.shape}")
    outer = [axis for axis, name in enumerate(axes) if name not in "cyx"]
    inner = [axes.index(name) for name in "yxc" if name in axes]
    num_images = math.prod(array.shape[axis] for axis in outer)
    shape = tuple(array.shape[axis] for axis in inner)
    if outer:
        shape = (num_images, *shape, *(() if "c" in axes else (1,)))
    native = dtype.newbyteorder("=")

    def window(index: int, rows: slice, columns: slice) -> np.ndarray:
        place: list[Any] = [slice(None)] * len(axes)
        for axis, number in zip(outer, np.unravel_index(index, [array.shape[axis] for axis in outer]), strict=True):
            place[axis] = int(number)
        place[axes.index("y")], place[axes.index("x")] = rows, columns
        left = sorted(inner)
        part = np.asarray(array[tuple(place)]).transpose([left.index(axis) for axis in inner])
        part = np.ascontiguousarray(part, native)
        return part[..., np.newaxis] if outer and part.ndim == 2 else part

    def read(index: int) -> np.ndarray:
        return window(index, slice(None), slice(None))

    kept = {"axes": axes, "shape": array.shape, "chunks": array.chunks, "version": node.metadata.zarr_format}
    kept |= {"attributes": dict(node.attrs), "is_group": isinstance(node, zarr.Group)}
    return ImageFile("Zarr", shape, native, read, {"zarr": kept}, window=window)


def create(path: Path, shape: tuple[int, ...], dtype: Any, like: Picture | ImageFile) -> Callable[..., None]:
    """Makes a store, and gives the function that writes windows into it.

    Args:
        path: The folder, which must not exist.
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.
        like: What was read: a store of the same shape gives its axes, chunks and attributes.

    Returns:
        Function of the image's number, rows, columns, and pixels (h, w) or (h, w, C).
    """
    import zarr

    kept = like.metadata.get("zarr")
    if kept is None or like.shape != shape:
        chunks = (*([1] if len(shape) == 4 else []), *(min(side, CHUNK) for side in shape[-3:][:2]), *shape[2:][-1:])
        if len(shape) == 2:
            chunks = tuple(min(side, CHUNK) for side in shape)
        kept = {"axes": _plain_axes(shape), "shape": shape, "chunks": chunks, "version": 3, "is_group": False}
        kept["attributes"] = {}
    settings = {"shape": kept["shape"], "chunks": kept["chunks"], "dtype": np.dtype(dtype)}
    if kept["is_group"]:
        group = zarr.create_group(str(path), zarr_format=kept["version"], attributes=_one_level(kept["attributes"]))
        array = group.create_array("0", **settings)
    else:
        array = zarr.create_array(str(path), zarr_format=kept["version"], attributes=kept["attributes"], **settings)
    axes = kept["axes"]
    outer = [axis for axis, name in enumerate(axes) if name not in "cyx"]
    inner = [axes.index(name) for name in "yxc" if name in axes]

    def write_window(index: int, rows: slice, columns: slice, pixels: np.ndarray) -> None:
        place: list[Any] = [slice(None)] * len(axes)
        for axis, number in zip(outer, np.unravel_index(index, [array.shape[axis] for axis in outer]), strict=True):
            place[axis] = int(number)
        place[axes.index("y")], place[axes.index("x")] = rows, columns
        pixels = pixels[..., 0] if pixels.ndim > len(inner) else pixels
        array[tuple(place)] = pixels.transpose(np.argsort(inner))

    return write_window


def _plain_axes(shape: tuple[int, ...]) -> str:
    """Names the axes of an array without names, as those of a `.npy` file."""
    if len(shape) == 3:
        return "nyx" if npy.is_stack(shape) else "yxc"
    if len(shape) not in (2, 4):
        raise ValueError(f"the shape must be (H, W), (H, W, C), (N, H, W) or (N, H, W, C). Received: {shape}")
    return "yx" if len(shape) == 2 else "nyxc"


def _full_resolution(group: Any) -> tuple[Any, str]:
    """Finds the array of full resolution of an OME-Zarr group, and its axes."""
    images = group.attrs.get("ome", group.attrs).get("multiscales")
    if not images:
        raise ValueError("it is a group without the `multiscales` of OME-Zarr; name one of its arrays")
    axes = "".join(axis["name"] for axis in images[0]["axes"]).lower()
    array = group[images[0]["datasets"][0]["path"]]
    if len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes) or len(axes) != len(array.shape):
        raise ValueError(f"its axes {axes!r} are not those of images")
    return array, axes


def _one_level(attributes: dict[str, Any]) -> dict[str, Any]:
    """Gives the attributes of an OME-Zarr group for its full resolution alone, which is then named 0."""
    inner = attributes.get("ome", attributes)
    first = inner["multiscales"][0]
    image = {**first, "datasets": [{**first["datasets"][0], "path": "0"}]}
    inner = {**inner, "multiscales": [image]}
    return {**attributes, "ome": inner} if "ome" in attributes else inner
