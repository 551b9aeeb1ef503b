"""OME-Zarr images for tests, written by zarr alone, with all that the specification lets them have."""

import numpy as np
import zarr

TYPES = {"t": "time", "c": "channel"}
UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}


def axes_of(names):
    """Axes as 0.4 and 0.5 have them."""
    return [
        {"name": name, "type": TYPES.get(name, "space"), **({"unit": UNITS[name]} if name in UNITS else {})}
        for name in names
    ]


def pixels_of(shape, dtype="uint16", seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random(shape) if np.dtype(dtype).kind == "f" else rng.integers(0, 256, shape)).astype(dtype)


def attributes_of(names, version, paths=("0",), labels=None, **more):
    """Attributes of a group that is an image."""
    datasets = [{"path": path} for path in paths]
    image = {"name": "an image", "datasets": datasets}
    if version in ("0.4", "0.5"):
        for level, dataset in enumerate(datasets):
            scale = [0.25 * 2**level if name in "yx" else 1.5 for name in names]
            shift = [0.125 * level] * len(names)
            dataset["coordinateTransformations"] = [
                {"type": "scale", "scale": scale},
                {"type": "translation", "translation": shift},
            ]
        image["axes"] = axes_of(names)
        image["coordinateTransformations"] = [{"type": "scale", "scale": [2.0] * len(names)}]
    elif version == "0.3":
        image["axes"] = list(names)
    inner = {"multiscales": [image], **more}
    if labels:
        window = {"min": 0, "max": 65535, "start": 0, "end": 60000}
        inner["omero"] = {"channels": [{"label": label, "color": "00FF00", "window": window} for label in labels]}
    if version == "0.5":
        return {"ome": {"version": version, **inner}, "lab": {"room": 7}}
    image["version"] = version
    return {**inner, "lab": {"room": 7}}


def save_ome(path, pixels, names, version="0.5", paths=("0",), chunks=None, shards=None, group=None, **more):
    """Writes an image, each level every second pixel of the one above; `more` goes to `attributes_of`."""
    attributes = attributes_of(names, version, paths, **more)
    if group is None:
        group = zarr.create_group(str(path), zarr_format=3 if version == "0.5" else 2, attributes=attributes)
    else:
        group = group.create_group(path, attributes=attributes)
    chunks = chunks or (1,) * (len(names) - 2) + (16, 16)
    settings = {"chunks": chunks, "fill_value": 7, "attributes": {"note": "kept"}}
    if version == "0.5":
        settings |= {"dimension_names": list(names), "shards": shards}
    else:
        separator = "." if version == "0.1" else "/"
        settings["chunk_key_encoding"] = {"name": "v2", "separator": separator}
    for name in paths:
        level = group.create_array(name, shape=pixels.shape, dtype=pixels.dtype, **settings)
        level[...] = pixels
        pixels = pixels[..., ::2, ::2]
    return group
