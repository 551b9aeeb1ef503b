"""The local server: the models' versions and both protocols, started and stopped together."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from starlette.responses import Response

from bsdenoise.server import json_out, listening, versions
from bsdenoise.server.errors import ServingError
from bsdenoise.server.grpc_api import GrpcServer
from bsdenoise.server.limits import Arrivals, Gate, Limits
from bsdenoise.server.metrics import Metrics
from bsdenoise.server.prediction import House
from bsdenoise.server.rest import make_app
from bsdenoise.server.servable import Servable
from bsdenoise.server.versions import Models, ModelSettings

LOOPBACK = "127.0.0.1"
GRACE_SECONDS = 30.0
CLOSING_SECONDS = 5.0  # for connections without a request
_START_SECONDS = 30.0
_LOGGER = logging.getLogger(__name__)
_BACKLOG = 2048  # connections that wait to be accepted; uvicorn's own number


class LocalServer:
    """Serves models over REST and gRPC as TensorFlow-Serving does, for development and tests.

    The ports open once each model has a version that serves. It can be used in a `with` statement.

    Args:
        models: Folders of versions by the models' names, or settings.
        host: The address to listen on.
        grpc_port: The port for gRPC; 0 picks a free one.
        rest_port: The port for REST and metrics; 0 picks a free one.
        limits: What it takes on.
        poll_seconds: How often the folders are looked at.
        retry_seconds: How long after a failed load it is tried again.
        report: Called with one line whenever a version comes, goes or fails.

    Attributes:
        grpc_address: HOST:PORT for gRPC, once it has started.
        rest_url: http://HOST:PORT for REST, once it has started.
        models: The versions that it holds.
        limits: What it takes on.

    Example:
        >>> with LocalServer({"denoiser": "models/denoiser"}) as server:  # doctest: +SKIP
        ...     print(server.rest_url, server.grpc_address)
    """

    def __init__(
        self,
        models: Mapping[str, str | Path] | Sequence[ModelSettings],
        *,
        host: str = LOOPBACK,
        grpc_port: int = 0,
        rest_port: int = 0,
        limits: Limits | None = None,
        poll_seconds: float = versions.POLL_SECONDS,
        retry_seconds: float = versions.RETRY_SECONDS,
        report: Callable[[str], None] = _LOGGER.info,
    ):
        if isinstance(models, Mapping):
            models = [ModelSettings(name, Path(folder)) for name, folder in models.items()]
        self.limits = limits or Limits()
        self.grpc_address = self.rest_url = ""
        self._host, self._grpc_port, self._rest_port = host, grpc_port, rest_port
        self._gate = Gate(self.limits)
        self._arrivals = Arrivals()
        self._metrics = Metrics(lambda: (self._gate.waiting, self._gate.computing))
        self._report = report
        self._grpc: GrpcServer | None = None
        self._rest: _RestServer | None = None
        self.models = Models(
            models, self._load, poll_seconds=poll_seconds, retry_seconds=retry_seconds, report=self._on_change
        )

    @property
    def in_flight(self) -> int:
        """How many predictions have arrived and are not answered yet."""
        return self._arrivals.number

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return self._gate.waiting

    def start(self) -> None:
        """Load the models, then open the ports.

        Raises:
            ServingError: If a model has no version that can be loaded.
            OSError: If a port cannot be had.
        """
        rest_socket = listening.bound(self._host, self._rest_port)  # before the load, which may take long
        try:
            listening.bound(self._host, self._grpc_port).close()
            self.models.start()
            house = House(self.models, self._gate, self.limits, self._metrics)
            self._grpc = GrpcServer(house, listening.joined(self._host, self._grpc_port), self._arrivals)
            self._rest = _RestServer(_counted(make_app(house), self._arrivals), rest_socket)
            self._grpc.start()
            self._rest.start()
        except BaseException:
            rest_socket.close()
            self.stop(0.0)
            raise
        self.grpc_address = listening.joined(self._host, self._grpc.port)
        self.rest_url = f"http://{listening.joined(self._host, rest_socket.getsockname()[1])}"
        self._on_change()

    def stop(self, grace: float = GRACE_SECONDS) -> bool:
        """Take no new requests, and wait for those that it has taken.

        Args:
            grace: Seconds that they may take.

        Returns:
            Whether all have ended. If not, the models stay in memory, because they are in use.
        """
        end = time.monotonic() + grace
        if self._grpc:
            self._grpc.announce_stop()
        is_idle = self._arrivals.close(grace)  # whoever comes meanwhile is told that the server is stopping
        is_idle &= self._gate.close(max(0.0, end - time.monotonic()))  # what is computed for nobody any more
        if self._grpc:
            self._grpc.stop()
        if self._rest:
            is_idle &= self._rest.stop(CLOSING_SECONDS)
        self._grpc = self._rest = None
        if is_idle:
            self.models.close()
        return is_idle

    def __enter__(self) -> "LocalServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _load(self, name: str, version: int, folder: Path) -> Servable:
        is_loaded, start = False, time.monotonic()
        try:
            servable = Servable(name, version, folder)
            is_loaded = True
        finally:
            self._metrics.loaded(str(folder), is_loaded, time.monotonic() - start)
        self._metrics.warmed_up(str(folder), "OK", servable.warm_up_seconds)
        return servable

    def _on_change(self, line: str = "") -> None:
        """Tell the health service and whoever listens what has changed."""
        if self._grpc:
            self._grpc.serves(all(self.models.is_available(name) for name in self.models.names))
        if line:
            self._report(line)


class _RestServer:
    """uvicorn in a thread of its own, on a socket that is bound already."""

    def __init__(self, app: Callable, bound: socket.socket):
        self._socket = bound
        self._server = listening.http_server(app, backlog=_BACKLOG)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [bound]}, name="rest-loop", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        end = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise OSError("REST could not be started")
            time.sleep(0.005)

    def stop(self, timeout: float) -> bool:
        """Close the port, wait until all is answered, and say whether it is; give the rest up."""
        self._server.should_exit = True
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._server.force_exit = True
            return False
        self._socket.close()
        return True


def _counted(app: Callable, arrivals: Arrivals) -> Callable:
    """Wrap an ASGI application so that its predictions are counted, and refused while the server stops."""

    async def answer(scope, receive, send) -> None:
        if scope["method"] != "POST":
            await app(scope, receive, send)
            return
        try:
            arrivals.enter()
        except ServingError as error:
            content = json_out.error(error.message)
            response = Response(content, error.http_status, {"Connection": "close"}, media_type="application/json")
            await response(scope, receive, send)
            return
        try:
            await app(scope, receive, send)
        finally:
            arrivals.leave()

    return answer
