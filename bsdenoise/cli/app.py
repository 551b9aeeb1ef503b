"""`bsdenoise app`: a local web page that denoises the images dropped on it."""

import contextlib
import sys
import threading
import webbrowser
from typing import Any

from bsdenoise import extras, presets
from bsdenoise.cli import models
from bsdenoise.config import AppConfig

RGB, GREY = 3, 1
SIGNAL_SECONDS = 0.2  # between looks for a signal


def run(config: AppConfig) -> int:
    """Serve the page until Ctrl-C.

    Raises:
        ValueError: If a package is missing, there is no model, or a setting is out of range.
        OSError: If the address is taken or not one of this machine.
    """
    extras.check("bsdenoise app")
    if config.model is not None and config.server is not None:
        raise ValueError("--model and --server exclude each other.")
    with contextlib.ExitStack() as stack:
        _tell("loading the model" if config.server is None else "connecting")
        workshop, about = _workshop(config, stack)
        _tell("starting the page")

        from bsdenoise.app import server  # here, because it loads Gradio, which takes seconds

        url = stack.enter_context(server.running(workshop, about, config.host, config.port))
        print(f"{url}  (Ctrl-C ends it)", flush=True)
        if not config.no_browser:
            webbrowser.open(url)
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it, no failure
            never = threading.Event()
            while not never.wait(SIGNAL_SECONDS):  # without an end it may not notice a signal given to another thread
                pass
    return 0


def _tell(doing: str) -> None:
    """Say what is being done, to whoever waits at a terminal."""
    if sys.stderr.isatty():
        print(f"bsdenoise: {doing} …", file=sys.stderr, flush=True)


def _workshop(config: AppConfig, stack: contextlib.ExitStack) -> tuple[Any, str]:
    """Return what denoises, here or behind a server, and the sentence in which the page says so."""
    here = "Nothing leaves the machine that this page runs on."
    grey = None
    if config.server is not None:
        from bsdenoise import client

        denoiser = stack.enter_context(client.connect(config.server))
        _ = denoiser.channels  # asks the server, so that a wrong address is told at the start
        about = f"Model: {config.server}. Images are sent there and nowhere else."
    elif config.model is not None:
        denoiser, about = models.load_denoiser(config.model), f"Model: {config.model}. {here}"
    else:
        denoiser, grey = (models.load_preset(presets.DEFAULTS[channels]) for channels in (RGB, GREY))
        for_others = f"{presets.DEFAULTS[GREY]} for all others, channel by channel"
        about = f"Models: {presets.DEFAULTS[RGB]} for RGB images, {for_others}. {here}"

    from bsdenoise.app.denoising import Workshop

    return Workshop(denoiser, config.max_pixels, grey), about
