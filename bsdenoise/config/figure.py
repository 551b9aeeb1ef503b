"""What `bsdenoise figure` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bsdenoise.config.flags import Count, NonNegative, Switch


@dataclass(frozen=True)
class FigureConfig:
    """Draw what each method makes of the same part of an image, with PSNRs, side by side.

    From left to right: noisy, BM3D, L2, per-component, full, N2N, N2C, N2V, clean. The PSNR below each is of the whole
    image, not of the part that is shown, and the same that evaluate gives for that image, noise and draw; that of the
    part is in the JSON. Several images make several rows.
    """

    #: Clean images: files, folders or globs. Grey models get the luminance of colour images.
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]

    #: A .keras file, a run folder that holds denoiser.keras, or the name of a preset; repeat it for more. All are grey,
    #: or all are colour.
    model: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction]

    #: Noise to add: gaussian:25 (in the files' own units), gaussian:25/255 (a fraction of full scale), or a range like
    #: gaussian:5-50, from which each image and draw takes its own.
    noise: Annotated[str, tyro.conf.arg(metavar="SPEC")]

    #: The figure, a PNG or a PDF by its suffix. A file of that name is replaced.
    out: Path

    #: What is shown beside the models, or alone: bm3d, which needs the package of that name, for non-commercial use
    #: only.
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()

    #: Folder that keeps results of BM3D, which takes up to a minute for a photograph. Default: one in the user's cache,
    #: where evaluate keeps its own.
    bm3d_cache: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None

    #: The part to show as LEFT,TOP,WIDTH or LEFT,TOP,WIDTH,HEIGHT in pixels; one for all images, or one for each.
    #: Default: the square of 128 pixels of each clean image in which neighbouring pixels differ most.
    crop: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CROP [CROP ...]")] = ()

    #: Number of the noise draw, from 0.
    draw: Annotated[NonNegative, tyro.conf.arg(metavar="N")] = 0

    #: Enlarge the pictures by a whole number; pixels become squares. Labels keep a size that can be read.
    zoom: Annotated[Count, tyro.conf.arg(metavar="N")] = 2

    #: Most pictures side by side; the others follow below. Default: all.
    columns: Annotated[Count | None, tyro.conf.arg(metavar="N")] = None

    #: Models stay in the order of --model behind BM3D, instead of that of the paper.
    as_given: Switch = False

    #: Show the least value of the clean part black and its greatest white. Floats always are; integers else show their
    #: full scale.
    stretch: Switch = False

    #: Noise level that is told, in the files' own units (25) or as a fraction of full scale (25/255). Default: the one
    #: that was added.
    sigma: Annotated[str | None, tyro.conf.arg(metavar="S")] = None

    #: Do not tell the models the noise level: each takes its own, an estimate per image if it was trained on a range.
    own_sigma: Switch = False

    #: Largest side of a tile in pixels. Default: large images in tiles.
    tile: Annotated[Count | None, tyro.conf.arg(metavar="N")] = None

    #: File for all numbers as JSON.
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None

    #: Folder for the pictures alone, without labels, as IMAGE-METHOD.png.
    save_crops: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
