"""What `bsdenoise prepare` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bsdenoise.config.flags import Count


@dataclass(frozen=True)
class PrepareConfig:
    """Pack training images into a few large files, which `bsdenoise train` reads quicker than a million small ones.

    Image files go in byte for byte, images of stacks as their pixels, so that training sees the same as before. What
    cannot be read is named and left out. Then: bsdenoise train DIR …
    """

    #: Images, as for train: a folder (searched recursively), a quoted glob, an image file or TIFF stack, an .npy file,
    #: or tfds:NAME[/CONFIG]:SPLIT.
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]

    #: Folder for the packed images, empty or not there yet.
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]

    #: Value of pixels that hold no measurement, in the files' own units, such as 0, -9999 or -3.4e38 (--no-data=-9999).
    #: Default: what the files declare (GDAL_NODATA); nan for none. NaN in float files never is a measurement.
    no_data: Annotated[str | None, tyro.conf.arg(metavar="V")] = None

    #: Axes of .npy files and of Zarr arrays without names, a letter each: Y rows, X columns, C channels or S colours;
    #: along others, such as T, Z and N, there is one image after the other. For example TZYX or NYXC. By default their
    #: shapes decide where little else can be meant, and the rest is refused.
    axes: Annotated[str | None, tyro.conf.arg(metavar="LETTERS")] = None

    #: Pack only images of which both sides have at least so many pixels.
    min_side: Count | None = None

    #: Pack only images of which both sides have at most so many pixels.
    max_side: Count | None = None

    #: Size of the files: a number with MB or GB.
    shard_size: Annotated[str, tyro.conf.arg(metavar="SIZE")] = "512MB"
