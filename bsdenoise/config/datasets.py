"""What `bsdenoise datasets` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class DatasetsConfig:
    """Say whether folders hold the paper's test sets: all images, no others, and the right pixels.

    Images are known by their pixels; other names, folders or lossless formats do not matter. The exit code is 0 if
    every folder is a complete set, else 2. Without a folder: which sets are known, and where to get them.
    """

    #: Folders to look at (searched recursively); each is a set of its own.
    folders: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[DIR ...]")] = ()

    #: File for what was found as JSON, with name, size and checksum of every image.
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
