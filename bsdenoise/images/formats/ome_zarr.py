"""OME-Zarr, versions 0.1 to 0.5: which images a store holds, the axes of one, and what a written one says of itself.

What is written is as the specification of 0.4 (in Zarr 2) or 0.5 (in Zarr 3) wants it. Images of 0.1 to 0.3 are read,
and written as 0.4: the same Zarr format, and all that they said.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bsdenoise.images import axes as array_axes
from bsdenoise.images.axes import Layout
from bsdenoise.images.formats.zarr_pyramid import block
from bsdenoise.images.pixels import NUM_COLOURS

# Of which each folder of a store has one: Zarr version 3, and arrays, groups and attributes of version 2.
METADATA_FILES = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
LAYOUT = "bioformats2raw.layout"
VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")
WITHOUT_TRANSFORMATIONS = ("0.1", "0.2", "0.3")
WRITTEN_FOR_OLD = "0.4"
FIRST_AXES = ("t", "c", "z", "y", "x")  # all images of 0.1 and 0.2 have these
_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"))
DEEPEST = 4  # groups above an array that may be its image: plate, row, well, image


@dataclasses.dataclass(frozen=True)
class Multiscale:
    """One image of several resolutions.

    Attributes:
        version: Version of OME-Zarr.
        axes: Its axes, as 0.4 and 0.5 describe them.
        paths: Names of its arrays, full resolution first.
        attributes: All attributes of its group.
    """

    version: str
    axes: tuple[dict[str, Any], ...]
    paths: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of the axes."""
        return tuple(axis["name"] for axis in self.axes)

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """Find the images in the array of full resolution.

        Its channels are independent, as OME-Zarr knows no colours, unless they are called red, green and blue.

        Raises:
            ValueError: If the axes are not those of images.
        """
        names = [_role(axis) for axis in self.axes]
        spatial = [number for number, axis in enumerate(self.axes) if axis.get("type") == "space"]
        if not {"y", "x"} <= set(names) and len(spatial) > 1:  # the specification orders them z, y, x
            names[spatial[-2]], names[spatial[-1]] = "y", "x"
        if len(set(names)) != len(names) or not {"y", "x"} <= set(names) or len(names) != len(shape):
            raise ValueError(f"its axes {''.join(self.names)!r} are not those of images of the shape {shape}")
        layout = array_axes.of_names(names, shape)
        independent = layout.channels is not None and not self._has_colours(shape[layout.channels])
        return dataclasses.replace(layout, names=self.names, independent=independent, notes=())

    def _has_colours(self, channels: int) -> bool:
        described = _inner(self.attributes).get("omero", {}).get("channels", [])
        labels = tuple(str(channel.get("label", "")).strip().lower() for channel in described)
        return channels == NUM_COLOURS and labels in _COLOURS

    def written(self, shapes: list[tuple[int, ...]]) -> dict[str, Any]:
        """Return the attributes of a group that holds the same, with so many levels of such shapes."""
        inner = _inner(self.attributes)
        first = inner["multiscales"][0]
        version = WRITTEN_FOR_OLD if self.version in WITHOUT_TRANSFORMATIONS else self.version
        datasets = []
        scale = [1.0] * len(self.axes)
        for dataset, above, shape in zip(first["datasets"], [shapes[0], *shapes], shapes, strict=False):
            scale = [so_far * block(*sides) for so_far, *sides in zip(scale, above, shape, strict=True)]
            datasets.append({"coordinateTransformations": [{"type": "scale", "scale": scale}], **dataset})
        image = {**first, "axes": list(self.axes), "datasets": datasets}
        if "version" in image:
            image["version"] = version
        if len(shapes) > 1 and "type" in image:  # how lower levels are made; it was how those of the input were made
            image["type"] = "mean"
            image.pop("metadata", None)
        inner = {**inner, "multiscales": [image]}
        return {**self.attributes, "ome": inner} if "ome" in self.attributes else inner


def multiscale(attributes: Mapping[str, Any]) -> Multiscale | None:
    """Read the attributes of a group; `None` if it is no image.

    Raises:
        ValueError: If it is of another version, a label image, or broken.
    """
    inner = _inner(attributes)
    images = inner.get("multiscales")
    if not images:
        return None
    if "image-label" in inner:
        raise ValueError("it is an image of labels, which have no noise")
    try:
        first = images[0]
        axes = first.get("axes")
        version = _version(inner.get("version", first.get("version")), axes)
        paths = tuple(check_inner(str(dataset["path"])) for dataset in first["datasets"])
        described = tuple({"name": axis} if isinstance(axis, str) else dict(axis) for axis in axes or FIRST_AXES)
        if version in WITHOUT_TRANSFORMATIONS:
            described = tuple(_typed(axis) for axis in described)
        if not paths or not all(isinstance(axis["name"], str) for axis in described):
            raise KeyError
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError("its `multiscales` are not as OME-Zarr has them") from error
    return Multiscale(version, described, paths, dict(attributes))


def image_names(path: Path) -> list[str]:
    """List the images of a plate, a well, or what bioformats2raw wrote, by their paths below it; [] of all else.

    Raises:
        ValueError: If a path leads out of the store.
    """
    attributes = _inner(read_attributes(path))
    if "multiscales" in attributes:
        return []
    if "plate" in attributes:
        wells = [check_inner(well["path"]) for well in attributes["plate"].get("wells", [])]
        return [f"{well}/{name}" for well in wells for name in image_names(path / well)]
    if "well" in attributes:
        return [check_inner(str(image["path"])) for image in attributes["well"].get("images", [])]
    if LAYOUT in attributes:
        series = _inner(read_attributes(path / "OME")).get("series")
        if series is None:
            numbers = sorted(int(one.name) for one in path.iterdir() if one.name.isdecimal() and one.is_dir())
            series = [str(number) for number in numbers]
        return [check_inner(str(name)) for name in series]
    return []


def has_images(path: Path) -> bool:
    """Tell whether a folder of a store is an array, an image, or holds images; OME-XML and labels are none."""
    if (path / ".zarray").is_file():
        return True
    try:
        described = json.loads((path / "zarr.json").read_bytes())
    except (OSError, ValueError):
        described = {}
    if isinstance(described, dict) and described.get("node_type") == "array":
        return True
    return not {"multiscales", "plate", "well", LAYOUT}.isdisjoint(_inner(read_attributes(path)))


def image_of_array(path: Path) -> Multiscale | None:
    """Find the image that an array is a resolution of, in one of the groups above it; `None` if there is none."""
    path = Path(path).absolute()
    for parent in path.parents[:DEEPEST]:
        attributes = read_attributes(parent)
        try:
            image = multiscale(attributes) if attributes else None
        except ValueError:  # of a version that is not known, and nothing is said of its axes then
            return None
        if image is not None:
            return image if path.relative_to(parent).as_posix() in image.paths else None
    return None


def label_names(path: Path) -> list[str]:
    """List the label images of an image."""
    return [str(name) for name in _inner(read_attributes(path / "labels")).get("labels", [])]


def read_attributes(path: Path) -> dict[str, Any]:
    """Read the attributes of a group or array of either version; {} where there are none, or nothing readable."""
    for name in ("zarr.json", ".zattrs"):
        try:
            content = json.loads((path / name).read_bytes())
            found = content.get("attributes", {}) if name == "zarr.json" else content
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def check_inner(name: str) -> str:
    """Refuse a path that leads out of the store which names it.

    Raises:
        ValueError: If it does.
    """
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in name:
        raise ValueError(f"it names {name!r}, which is no path inside of it")
    return name


def _inner(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return OME's part of the attributes, which has a key of its own from 0.5 on."""
    inner = attributes.get("ome", attributes)
    return dict(inner) if isinstance(inner, Mapping) else {}


def _version(found: Any, axes: Any) -> str:
    """Check the version of an image; where none is said, it is told by the axes."""
    if found is None:
        found = "0.2" if axes is None else "0.3" if isinstance(axes[0], str) else "0.4"
    version = re.match(r"\d+\.\d+", str(found))
    if version is None or version[0] not in VERSIONS:
        known = f"{VERSIONS[0]} to {VERSIONS[-1]}"
        raise ValueError(f"OME-Zarr {found} is not known; convert it to one of {known}, or name one of its arrays")
    return version[0]


def _typed(axis: Mapping[str, Any]) -> dict[str, Any]:
    kind = _TYPES.get(axis["name"])
    return {**axis, "type": kind} if kind else dict(axis)


def _role(axis: Mapping[str, Any]) -> str:
    """Return the letter by which an axis is known here."""
    name = str(axis["name"]).lower()
    return "c" if axis.get("type") == "channel" else name
