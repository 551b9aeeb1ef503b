"""What `bsdenoise inspect` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bsdenoise.config.flags import Count, Switch


@dataclass(frozen=True)
class InspectConfig:
    """Say what noise images have, from the noisy images alone.

    White, growing with the signal, or shared by neighbouring pixels, as denoise takes it; how strong, with standard
    errors; clipping, hot pixels, patterns of the detector, and steps between levels; and the commands that fit. All
    numbers are in the files' own units. A bad file is named and does not stop the others; the exit code is then 2.
    """

    #: Image files, folders (searched recursively), or quoted globs such as "scans/**/*.png"; of a Zarr store also an
    #: image in it, such as scan.zarr/0.
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT [INPUT ...]")]

    #: Most files that are looked at, spread evenly over all that there are.
    sample: Annotated[Count, tyro.conf.arg(metavar="N")] = 24

    #: Axes of .npy files and of Zarr arrays without names, a letter each, as for denoise, such as TZYX or NYXC.
    axes: Annotated[str | None, tyro.conf.arg(metavar="LETTERS")] = None

    #: Value of pixels that hold no measurement, in the files' own units (--no-data=-9999). Default: what the files
    #: declare; nan for none.
    no_data: Annotated[str | None, tyro.conf.arg(metavar="V")] = None

    #: Mask images: pixels where a mask is not zero (white) are ignored. One file for all inputs, or a folder with masks
    #: under their names.
    mask: Annotated[str | None, tyro.conf.arg(metavar="FILE|DIR")] = None

    #: Print one JSON document instead of text. docs/inspect.md describes it.
    json: Switch = False

    #: Also draw what was found to a PNG: image, noise curve, correlation of neighbours, histogram, and the pattern that
    #: images share. Of several files the first that could be read is shown, with the curves of all.
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None

    #: Replace the file of --plot if it exists.
    overwrite: Switch = False
