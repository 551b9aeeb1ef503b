"""What `bsdenoise export` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bsdenoise.config.flags import Count


@dataclass(frozen=True)
class ExportConfig:
    """Write a model as a TensorFlow SavedModel that holds the whole denoising step."""

    #: A .keras file, a run folder that holds denoiser.keras, or the name of a preset.
    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]

    #: Folder of versions. The model is written to its sub-folder of the version's number.
    out: Path

    #: Version number. By default one more than the highest that is there.
    version: Count | None = None

    #: Most pixels that one request may hold (batch × height × width), and each image file; the memory that a request
    #: takes grows with it.
    max_pixels: Count = 2**24

    #: Largest side in pixels of the tiles in which images above a megapixel are computed; smaller ones need less
    #: memory. Default: 1024.
    tile: Count | None = None

    #: Another blind spot for the network than it was trained with: odd numbers of pixels, height x width, such as 1,
    #: 3x3 or 5x1.
    blind_spot: Annotated[str | None, tyro.conf.arg(metavar="SIZE")] = None

    #: Self-ensemble: denoise as many copies of each image, mirrored and turned, and average them, as --tta of the
    #: command denoise does.
    tta: Literal[1, 2, 4, 8] = 1

    #: Sizes of images, HEIGHTxWIDTH such as 480x640, that a server tries before it serves the version, so that no user
    #: waits for the first calls; on GPUs name every size that is common.
    warm_up: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SIZE [SIZE ...]")] = ()

    #: Keep so many versions, those of the highest numbers and the new one, and remove older ones. Default: all.
    keep: Count | None = None
