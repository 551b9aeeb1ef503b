"""What `bsdenoise evaluate` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bsdenoise.config.flags import Count, Switch


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure models and BM3D on clean images with noise added, or on real pairs of noisy and clean images.

    Noise is added in floating point, neither clipped nor rounded, and depends on the image and the number of the draw
    alone, so that every model sees the same. Results are rounded to the bits of the files before they are compared.
    """

    #: A .keras file, a run folder that holds denoiser.keras, or the name of a preset; repeat it to compare models.
    model: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction]

    #: What is measured beside the models, or alone: bm3d, which needs the package of that name, for non-commercial use
    #: only.
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()

    #: Folder that keeps results of BM3D, which takes up to a minute for a photograph. Default: one in the user's cache.
    bm3d_cache: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None

    #: Folders of clean images; each is a set of its own.
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR [DIR ...]")] = ()

    #: Noise to add: gaussian:25 (in the files' own units), gaussian:25/255 (a fraction of full scale), or a range like
    #: gaussian:5-50, from which each image and draw takes its own.
    noise: str | None = None

    #: How often noise is drawn for each image: one number, or one for each set.
    draws: Annotated[tuple[Count, ...], tyro.conf.arg(metavar="N [N ...]")] = (1,)

    #: Folder of noisy images, to be compared with --clean instead of --data.
    noisy: str | None = None

    #: Folder of clean images of the same names as those in --noisy.
    clean: str | None = None

    #: Axes of .npy files and of Zarr arrays without names, a letter each: Y rows, X columns, C channels or S colours;
    #: along others, such as T, Z and N, there is one image after the other. For example TZYX or NYXC. By default their
    #: shapes decide where little else can be meant, and the rest is refused.
    axes: Annotated[str | None, tyro.conf.arg(metavar="LETTERS")] = None

    #: Value of pixels that hold no measurement, in the files' own units, such as 0, -9999 or -3.4e38 (--no-data=-9999).
    #: Those of either image do not count. Default: what the files declare (GDAL_NODATA); nan for none.
    no_data: Annotated[str | None, tyro.conf.arg(metavar="V")] = None

    #: Noise level that is told, in the files' own units (25) or as a fraction of full scale (25/255). Default: the one
    #: that was added; for pairs the model's own.
    sigma: Annotated[str | None, tyro.conf.arg(metavar="S")] = None

    #: Do not tell the models the noise level: each takes its own, an estimate per image if it was trained on a range.
    own_sigma: Switch = False

    #: Take only every so many images: one number, or one for each set.
    every: Annotated[tuple[Count, ...], tyro.conf.arg(metavar="N [N ...]")] = (1,)

    #: Largest side of a tile in pixels. Default: large images in tiles.
    tile: Count | None = None

    #: Self-ensemble of the models: denoise as many copies of each image, mirrored and turned, and average them.
    tta: Literal[1, 2, 4, 8] = 1

    #: Folder for records.jsonl (one line per image, from which an interrupted evaluation goes on), results.json,
    #: table.md, table.csv, and from two contestants on table1.csv.
    out: Path | None = None

    #: File for the results as JSON.
    json: Path | None = None
