"""Loading the model that a command was pointed at, or connecting to the server that has it."""

import contextlib
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

from bsdenoise.cli import libraries

MODEL_NAME = "denoiser.keras"  # in a run folder
MAX_REASON = 200  # characters


def find(path: Path) -> Path:
    """Gives the `.keras` file that is meant by a file or a run folder.

    Raises:
        ValueError: If there is none.
    """
    file = path / MODEL_NAME if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file}: no such model. Expected a .keras file, or a run folder with {MODEL_NAME}.")
    return file


def load_denoiser(path: Path) -> Any:
    """Loads the `Denoiser` of a `.keras` file, or of a run folder.

    Raises:
        ValueError: If there is none, or it is not a denoiser; the message names the file.
    """
    file = find(path)
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file}: not a .keras file.")
    libraries.load_keras()  # only now, so that a missing file is reported at once
    import keras

    from bsdenoise.denoiser import Denoiser

    try:
        model = keras.models.load_model(file, compile=False)
    except Exception as error:  # Keras answers a broken file with errors of every type
        # Keras nests its errors and quotes whole configurations; the innermost one, shortened, says what is wrong.
        reason = textwrap.shorten(str(error).rsplit("Exception encountered:")[-1], MAX_REASON)
        raise ValueError(f"{file}: cannot be read as a Keras model: {reason}") from error
    if not isinstance(model, Denoiser):
        raise ValueError(f"{file}: expected a bsdenoise Denoiser. Received a model of type {type(model).__name__}.")
    return model


def connect(url: str) -> Any:
    """Connects to a served model, which has the face of a `Denoiser`, and asks what it is.

    Raises:
        ValueError: If the URL is of another kind, or gRPC is asked for and not installed.
        ClientError: If there is no such model, or no answer; the message names the URL.
    """
    from bsdenoise import client

    # gRPC's messages come with TensorFlow, which chatters; REST does without.
    chatter = libraries.held_back_stderr() if url.lower().startswith("grpc") else contextlib.nullcontext()
    with chatter:
        model = client.connect(url)
    limits = model.description["limits"]  # now, so that it is said once and not for each file if nobody answers
    if limits["max_pixels"] < limits["tile"] ** 2:
        print(
            f"bsdenoise: note: {url} takes at most {limits['max_pixels']} pixels at once; larger images are sent in "
            f"tiles smaller than the model's own ({limits['tile']}x{limits['tile']}), which changes pixels near their "
            "seams",
            file=sys.stderr,
        )
    return model
