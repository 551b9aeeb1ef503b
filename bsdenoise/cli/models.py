"""Loading the model that a command was pointed at, or connecting to the server that has it."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from bsdenoise import loading
from bsdenoise.cli import libraries, terminal


def load_denoiser(model: str | Path) -> Any:
    """Load the `Denoiser` of a `.keras` file, a run folder or a preset, without start-up chatter.

    Raises:
        ValueError: If there is none, or it is not a denoiser; the message names the file.
    """
    loading.find(model)  # before the libraries, which take seconds
    with terminal.status("loading the model"):
        libraries.load_keras()
        return loading.load(model)


def load_preset(name: str) -> Any:
    """Load the `Denoiser` of a preset, whatever else has that name, without start-up chatter.

    Raises:
        ValueError: If there is none of that name, or its file is damaged.
    """
    with terminal.status("loading the model"):
        libraries.load_keras()
        from bsdenoise.denoiser import Denoiser

        return Denoiser.from_preset(name)


def connect(url: str) -> Any:
    """Connect to a served model, which has the face of a `Denoiser`, and ask what it is.

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
