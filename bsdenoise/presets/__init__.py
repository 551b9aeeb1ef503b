"""The shipped models: their weights and what is known of them.

`index.json` says of each what it is, how it was trained and what it measured; its weights are in half precision in an
`.npz` file beside, one array for each weight by the weight's name, which is read without pickle and only if
its checksum is right. `benchmarks/pack_preset.py` writes both.
"""

import functools
import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bsdenoise import atomic

FOLDER = Path(__file__).parent
INDEX = "index.json"
SUFFIX = ".npz"
LEVELS = 255.0  # noise levels of the index are grey levels of 8 bits
# What denoises where no model is named, by the number of channels that it takes.
DEFAULTS = {3: "rgb-gaussian5-50", 1: "grey-gaussian5-50"}


@dataclass(frozen=True)
class Preset:
    """What is known of a shipped model.

    Attributes:
        name: CHANNELS-NOISE, with "-small" behind it for a compact network.
        sha256: Checksum of the file of its weights.
        channels: Number of channels of its images: 1 or 3.
        width: Maps of each encoder convolution.
        depth: How often the resolution is halved.
        parameters: Number of weights.
        noise: Least and greatest σ that it was trained for, in grey levels of 8 bits.
        factor: Which triangular factor the network gives, "prior" or "precision".
        data: What images it was trained on, in words.
        provenance: How it was trained, as `Denoiser.provenance`.
        measured: What was measured, as `benchmarks/presets.py` writes it: PSNRs by test set, and speed.
        folder: Where the file is.
    """

    name: str
    sha256: str
    channels: int
    width: int
    depth: int
    parameters: int
    noise: tuple[float, float]
    factor: str
    data: str
    provenance: dict[str, Any]
    measured: dict[str, Any] = field(default_factory=dict)
    folder: Path = FOLDER

    @property
    def path(self) -> Path:
        """The file of its weights."""
        return self.folder / f"{self.name}{SUFFIX}"

    @property
    def sigmas(self) -> tuple[float, float]:
        """Least and greatest σ as fractions of full scale."""
        low, high = self.noise
        return low / LEVELS, high / LEVELS

    def read_weights(self) -> dict[str, np.ndarray]:
        """Read the weights, float32, by their names.

        Raises:
            ValueError: If the file is missing or is not the one that the index means.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read ({error.strerror}); install the package anew.") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ValueError(f"{self.path}: damaged, its checksum is not that of preset {self.name}; install anew.")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name].astype(np.float32) for name in arrays.files}


def names() -> tuple[str, ...]:
    """Name all presets, in the order of the index."""
    return tuple(_index())


def is_name(text: str) -> bool:
    """Tell whether a preset has that name."""
    return text in _index()


def get(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        ValueError: If there is none.
    """
    if name not in _index():
        raise ValueError(f"There is no preset of that name; there are {', '.join(names())}. Received: {name!r}.")
    return _index()[name]


def check_channels(provenance: dict[str, Any] | None, num_channels: int, independent: bool) -> None:
    """Refuse independent channels where the model is a shipped one for RGB: each would show in the others.

    A model that somebody trained further may know such channels.

    Args:
        provenance: Of the model, as `Denoiser.provenance`.
        num_channels: Of the image.
        independent: Whether its channels are no colours.

    Raises:
        ValueError: If it is one.
    """
    name = (provenance or {}).get("preset")
    if not independent or name not in names() or get(name).channels == 1:
        return
    grey = name.replace("rgb-", "grey-", 1)
    raise ValueError(
        f"its {num_channels} channels are independent, no RGB, which preset {name} is for: use "
        f"{grey if is_name(grey) else DEFAULTS[1]}, which takes each channel by itself."
    )


def read_index(folder: Path) -> dict[str, Preset]:
    """Read the index of a folder; an empty one if there is none."""
    file = folder / INDEX
    rows = json.loads(file.read_text()) if file.exists() else {}
    return {name: Preset(name, folder=folder, **{**row, "noise": tuple(row["noise"])}) for name, row in rows.items()}


def write_index(folder: Path, presets: dict[str, Preset]) -> None:
    """Write the index of a folder."""
    rows = {
        name: {key: value for key, value in vars(preset).items() if key not in ("name", "folder")}
        for name, preset in presets.items()
    }
    with atomic.replacing(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n")


def stages(provenance: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the trainings behind a model, the last one first: each began with the weights of the next."""
    found = []
    while provenance is not None:
        found.append(provenance)
        provenance = provenance.get("started_from")
    return found


def pixels_seen(provenance: dict[str, Any] | None) -> int:
    """Count the pixels that all trainings behind a model were shown."""
    return sum((stage.get("crops") or 0) * (stage.get("crop") or 0) ** 2 for stage in stages(provenance))


@functools.cache
def _index() -> dict[str, Preset]:
    return read_index(FOLDER)
