"""What `bsdenoise presets` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class PresetsConfig:
    """List the models that come with the package: what they are for, how good and how quick they are.

    PSNRs are in dB at sigma 25, told to the model, by the paper's protocol; speed and sets are those of
    docs/presets.md. With names: all that is known of these.
    """

    #: Names of presets.
    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")] = ()

    #: File for the same as JSON.
    json: Path | None = None
