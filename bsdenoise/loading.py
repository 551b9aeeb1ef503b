"""Denoisers that were saved: a `.keras` file, a run folder, or a preset by its name.

Keras is imported late, so that a missing file is reported at once.
"""

import re
import textwrap
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from bsdenoise import presets

MODEL_NAME = "denoiser.keras"  # in a run folder
MAX_REASON = 200  # characters
_UNKNOWN_CLASS = re.compile("Could not locate class '([^']+)'")  # in Keras' words


def find(model: str | Path) -> Path:
    """Return the file that is meant by a file, a run folder, or the name of a preset.

    What exists under that name wins over a preset.

    Raises:
        ValueError: If there is none.
    """
    path = Path(model)
    if not path.exists() and presets.is_name(str(model)):
        return presets.get(str(model)).path
    file = path / MODEL_NAME if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"{file}: no such model. Expected a .keras file, a run folder with {MODEL_NAME}, or the name of a preset "
            "(bsdenoise presets lists them)."
        )
    return file


def load(model: str | Path) -> Any:
    """Load the `Denoiser` that is meant by a file, a run folder, or the name of a preset.

    Raises:
        ValueError: If there is none, or it is not a denoiser; the message names the file.
    """
    file = find(model)
    is_preset = file.parent == presets.FOLDER and presets.is_name(file.stem)
    if not is_preset and not zipfile.is_zipfile(file):
        raise ValueError(f"{file}: not a .keras file.")

    import keras  # noqa: F401 (registers this package's classes)

    from bsdenoise.denoiser import Denoiser
    from bsdenoise.network import ENTRY_POINTS

    if is_preset:
        return Denoiser.from_preset(file.stem)
    try:
        denoiser = _loaded(file)
    except Exception as error:  # Keras answers a broken file with errors of every type
        unknown = _UNKNOWN_CLASS.search(str(error))
        if unknown:
            raise ValueError(
                f"{file}: its class {unknown[1]} is not known here: import the module that defines it before the model "
                f"is loaded, or have it found by an entry point of the group {ENTRY_POINTS} (docs/networks.md)."
            ) from error
        # Keras nests its errors and quotes whole configurations; the innermost one, shortened, says what is wrong.
        reason = textwrap.shorten(str(error).rsplit("Exception encountered:")[-1], MAX_REASON)
        raise ValueError(f"{file}: cannot be read as a Keras model: {reason}") from error
    if not isinstance(denoiser, Denoiser):
        raise ValueError(f"{file}: expected a bsdenoise Denoiser. Received a model of type {type(denoiser).__name__}.")
    return denoiser


def _loaded(file: Path) -> Any:
    """Load a `.keras` file; where it holds a class that Keras does not know, after those of the entry points."""
    import keras

    from bsdenoise import methods, network

    try:
        return keras.models.load_model(file, compile=False)
    except TypeError:
        # A method's module may define the method's network.
        groups = (network.ENTRY_POINTS, methods.ENTRY_POINTS)
        points = [point for group in groups for point in metadata.entry_points(group=group)]
        if not points:
            raise
        for point in points:
            point.load()
        return keras.models.load_model(file, compile=False)
