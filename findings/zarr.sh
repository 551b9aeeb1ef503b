#!/bin/sh
# OME-Zarr 0.5 and xarray's open_zarr: dimension names do not make a pyramid a data set.
#
# Versions: xarray 2026.9.0 and 2025.1.2, zarr 3.1.6 and 3.0.8, Python 3.11.
#
# The usual guess: OME-Zarr 0.5 demands `dimension_names` for the array of every level, the names of the axes, and that
# is what xarray needs to open Zarr 3; so `xarray.open_zarr(image)` opens a valid image, as it does a group of one level.
#
# What happens: all levels stand in one group and have the same names by the specification, but not the same sizes. For
# xarray a name has one size in a group: "conflicting sizes for dimension 'y'". The image is valid, and both packages do
# what they say; together they cannot open a pyramid. It takes drop_variables with the paths of the lower levels (from
# `multiscales`), or a single array: xarray.DataArray(zarr.open_array(...)).
#
# Ends with 0 as long as it is so, else with 1.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/pyramid.py" <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import xarray
import zarr

print("xarray", version("xarray"), "zarr", version("zarr"))


def image(path, sides):
    """A valid OME-Zarr 0.5 image, of one level for each side."""
    datasets = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": [2.0**level] * 2}]}
        for level in range(len(sides))
    ]
    axes = [{"name": name, "type": "space"} for name in "yx"]
    attributes = {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}}
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    for level, side in enumerate(sides):
        array = group.create_array(str(level), shape=(side, side), chunks=(32, 32), dtype="uint8", dimension_names=["y", "x"])
        array[...] = np.full((side, side), 9, "uint8")


def opened(path, **options):
    try:
        with xarray.open_zarr(path, consolidated=False, chunks=None, **options) as found:
            return sorted(found.variables), dict(found.sizes)
    except ValueError as error:
        return f"ValueError: {error}"


one, three = sys.argv[1] + "/one.zarr", sys.argv[1] + "/three.zarr"
image(one, [64])
image(three, [64, 32, 16])
results = [opened(one), opened(three), opened(three, drop_variables=["1", "2"])]
for what, result in zip(("one level", "three levels", "three levels, the lower ones dropped"), results):
    print(f"{what}: {result}")
is_so = (
    results[0] == results[2] == (["0"], {"y": 64, "x": 64})
    and isinstance(results[1], str)
    and "conflicting sizes for dimension" in results[1]
)
sys.exit(0 if is_so else 1)
PYTHON
for versions in "xarray==2026.9.0 zarr==3.1.6" "xarray==2025.1.2 zarr==3.0.8"; do
    rm -rf "$work/venv" "$work/data"
    mkdir "$work/data"
    python3 -m venv "$work/venv"
    # shellcheck disable=SC2086  # two words
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check $versions
    "$work/venv/bin/python" "$work/pyramid.py" "$work/data"
done
