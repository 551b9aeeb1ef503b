"""`bsdenoise serve`: exported models over REST and gRPC, for development and tests."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bsdenoise import extras
from bsdenoise.cli import libraries, terminal
from bsdenoise.config import ServeConfig

if TYPE_CHECKING:
    from bsdenoise.server.limits import Limits
    from bsdenoise.server.versions import ModelSettings

MIB = 2**20
SIGNAL_SECONDS = 0.2  # between looks for a signal
NOTHING_TO_SERVE = "Expected either a folder of versions or --models-config, to say what is served."
STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: ServeConfig) -> int:
    """Serve until SIGTERM or SIGINT, then finish what has been taken.

    Raises:
        ValueError: If there is nothing that can be served, a setting is out of range, or a package is missing.
        OSError: If a port cannot be had.
    """
    _check(config)

    from bsdenoise.server import real  # here, because it loads gRPC

    binary = None if config.implementation == "local" else real.find()
    if binary is None and config.implementation == real.BINARY:
        raise ValueError(f"--implementation {real.BINARY}: it is not on the PATH. Expected it there, or `local`.")
    if binary is None:
        extras.check("bsdenoise serve")
    models, limits = _models(config), _limits(config)
    if binary is not None:
        real.replace_process(
            binary,
            models,
            host=config.host,
            grpc_port=config.grpc_port,
            rest_port=config.rest_port,
            limits=limits,
            poll_seconds=config.poll,
            retry_seconds=config.retry,
        )
    return _serve(config, models, limits)


def _serve(config: ServeConfig, models: Sequence["ModelSettings"], limits: "Limits") -> int:
    """Run the local server in this process."""
    stop = _StopSignals()
    with terminal.status("loading TensorFlow"):
        libraries.load_keras("serve")

    from bsdenoise.server.errors import ServingError  # here, because they load TensorFlow
    from bsdenoise.server.run import LocalServer

    is_ready = threading.Event()

    def report(line: str) -> None:
        if is_ready.is_set():  # until then the ready line or the error says it
            print(f"bsdenoise: {line}", file=sys.stderr, flush=True)

    server = LocalServer(
        models,
        host=config.host,
        grpc_port=config.grpc_port,
        rest_port=config.rest_port,
        limits=limits,
        poll_seconds=config.poll,
        retry_seconds=config.retry,
        report=report,
    )
    names = ", ".join(model.name for model in models)
    try:
        with terminal.status(f"loading {names} and answering warm-up requests"):
            server.start()
    except ServingError as error:
        raise ValueError(str(error)) from error
    for model in models:
        newest = next(state.version for state in server.models.status(model.name) if state.state == "AVAILABLE")
        print(
            f"ready: {model.name} version {newest} at {server.rest_url}/v1/models/{model.name} "
            f"and grpc://{server.grpc_address}/{model.name}",
            flush=True,
        )
    is_ready.set()
    stop.wait()
    print("bsdenoise: stopping", file=sys.stderr, flush=True)
    if not server.stop(config.grace):
        print(f"bsdenoise: not all requests ended within {config.grace:g} seconds", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(0)  # Python would wait for the threads that compute them
    return 0


class _StopSignals:
    """Waits for SIGTERM or SIGINT; a second one ends the process at once."""

    def __init__(self) -> None:
        self._first = threading.Event()
        for number in STOPPING_SIGNALS:
            signal.signal(number, self._on_signal)

    def wait(self) -> None:
        """Return after the first signal."""
        # Python runs handlers in the main thread, which nothing wakes if the system gives the signal to another one.
        while not self._first.wait(SIGNAL_SECONDS):
            pass

    def _on_signal(self, number: int, _: object) -> None:
        if self._first.is_set():
            os._exit(128 + number)  # what shells report for a process that a signal ended
        self._first.set()


def _models(config: ServeConfig) -> Sequence["ModelSettings"]:
    from bsdenoise.server import model_config

    if config.models_config is not None:
        return model_config.from_file(config.models_config)
    if config.folder is None:
        raise ValueError(NOTHING_TO_SERVE)
    return [model_config.from_folder(config.folder, config.name, model_config.parse_labels(config.labels))]


def _limits(config: ServeConfig) -> "Limits":
    from bsdenoise.server import limits

    return limits.Limits(
        max_body_bytes=config.max_body * MIB,
        max_message_bytes=min(config.max_message * MIB, limits.MAX_MESSAGE_BYTES),
        max_pixels=config.max_pixels,
        concurrency=config.concurrency or limits.default_concurrency(),
        queue=config.queue,
        timeout=config.timeout,
    )


def _check(config: ServeConfig) -> None:
    """Refuse settings that do not go together.

    Raises:
        ValueError: If some do not.
    """
    if (config.folder is None) == (config.models_config is None):
        raise ValueError(NOTHING_TO_SERVE)
    if config.models_config is not None and (config.labels or config.name != "denoiser"):
        raise ValueError("--name and --labels are for a folder of versions; --models-config has its own.")
    if config.grpc_port == config.rest_port != 0:
        raise ValueError(f"--grpc-port and --rest-port must differ. Received: {config.grpc_port} for both.")
