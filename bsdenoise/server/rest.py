"""REST as TensorFlow-Serving speaks it: status, metadata, predictions, metrics."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import re
import threading
import time
import zlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import grpc
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bsdenoise.server import json_in, json_out, metrics
from bsdenoise.server.errors import ServingError
from bsdenoise.server.limits import FULL
from bsdenoise.server.prediction import House, Spec, predict

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# TensorFlow-Serving's own patterns.
_API = re.compile(r"/v1/.*", re.IGNORECASE)
_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>predict|classify|regress)", re.IGNORECASE)
_STATUS = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?", re.IGNORECASE)
_MAX_VERSION = 2**63 - 1
_NOT_FOUND = "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
_TASKS = {"classify": "classification", "regress": "regression"}
_GZIP = 16 + zlib.MAX_WBITS
_LOGGER = logging.getLogger(__name__)
IDLE_SECONDS = 10.0  # within which more of a body must come: whoever sends one holds a place meanwhile
LINGER_SECONDS = 10.0  # in which what is still sent after a refusal is thrown away, at most
LINGER_PAUSE_SECONDS = 1.0  # without a byte of it: then nothing is expected any more
CLIENT_CLOSED = 499  # nobody reads it; nginx' number for a client that hung up


class _TooLargeError(Exception):
    """A body beyond the limit."""


def make_app(house: House) -> Starlette:
    """Makes the ASGI application of a server.

    Args:
        house: The server's parts.
    """
    return Starlette(routes=[Route("/{path:path}", _Rest(house).answer, methods=METHODS)])


class _Rest:
    """Answers requests; what takes long runs in threads, so that status and metrics stay quick."""

    def __init__(self, house: House):
        self._house = house
        self._most = house.limits.concurrency + house.limits.queue
        self._threads = ThreadPoolExecutor(self._most, thread_name_prefix="rest")
        # A parsed document takes ten times its text's memory; Python parses one at a time anyway.
        self._reading = threading.Semaphore(house.limits.concurrency)
        self._taken = 0  # touched by the event loop's thread alone

    async def answer(self, request: Request) -> Response:
        """Answers a request, whatever it is."""
        path = request.scope["raw_path"].decode("latin-1")
        try:
            return await self._answer(request, path)
        except ServingError as error:
            status, message = error.http_status, error.message
        except _TooLargeError:
            limit = self._house.limits.max_body_bytes
            return _Refusal(413, f"The body is too large: this server takes at most {limit} bytes, unpacked.")
        except TimeoutError:
            seconds = self._house.limits.timeout
            message = f"The body did not arrive within {seconds:g} seconds, or paused for {IDLE_SECONDS:g}."
            return _Refusal(408, message)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED)
        except Exception as error:  # a fault of the server: its caller hears so, and the log has one line
            line = " ".join(str(error).split())
            _LOGGER.error("%s %s: %s: %s", request.method, path, type(error).__name__, line)
            _LOGGER.debug("where it came from", exc_info=True)
            status, message = 500, f"The server failed: {type(error).__name__}"
        return _json(json_out.error(message), status)

    async def _answer(self, request: Request, path: str) -> Response:
        if request.method == "GET" and path == metrics.PATH:
            return Response(self._house.metrics.text(), media_type="text/plain")
        if not _API.fullmatch(path):
            return Response(_NOT_FOUND, 404, {"Connection": "close", "Content-Type": "text/html"})
        if request.method == "OPTIONS":
            return Response(status_code=400, media_type="text/html; charset=ISO-8859-1")
        if request.method == "POST" and (match := _PREDICT.fullmatch(path)):
            return await self._predict(request, match)
        if request.method == "GET" and (match := _STATUS.fullmatch(path)):
            if not match["name"]:
                raise _invalid("Missing model name in request.")
            return _json(self._metadata(match) if match["metadata"] else self._status(match))
        raise _invalid(f"Malformed request: {request.method} {path}")

    async def _predict(self, request: Request, match: re.Match) -> Response:
        if self._taken >= self._most:
            raise ServingError(grpc.StatusCode.UNAVAILABLE, FULL)
        self._taken += 1
        try:
            async with asyncio.timeout(self._house.limits.timeout):
                body = await _body(request, self._house.limits.max_body_bytes)
            is_gone = threading.Event()
            watch = asyncio.create_task(_watch(request, is_gone))
            try:
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(self._threads, self._compute, body, match, is_gone)
            finally:
                watch.cancel()
            return _json(answer)
        finally:
            self._taken -= 1

    def _compute(self, body: bytes, match: re.Match, is_gone: threading.Event) -> bytes:
        """Does all of a prediction, from the text to the text."""
        spec, method = _spec(match), match["method"].lower()
        start = time.monotonic()
        with contextlib.ExitStack() as reading:
            reading.enter_context(self._reading)
            try:
                document = json_in.parse(body)
                spec = dataclasses.replace(spec, signature=json_in.signature_name(document))
                if method in _TASKS:
                    self._refuse(document, spec, method)
            except ServingError as error:  # what gets further is counted there
                self._house.metrics.answered(spec.name, error.code.name, "REST", time.monotonic() - start, method)
                raise
            del body
            is_row_form = "instances" in document

            def read_inputs(definition):
                inputs = json_in.arrays(document, definition)
                document.clear()
                reading.close()
                return inputs

            answer = predict(self._house, spec, read_inputs, entrypoint="REST", is_gone=is_gone.is_set)
        return json_out.predictions(answer.outputs, is_row_form)

    def _refuse(self, document: dict, spec: Spec, method: str) -> None:
        """Answers what no denoiser can do, as TensorFlow-Serving answers it."""
        json_in.check_examples(document, method)
        with self._house.models.borrow(spec.name, spec.version, spec.label) as servable:
            definition = servable.signature(spec.signature)[1]
        raise _invalid(f"No {_TASKS[method]} inputs found in SignatureDef: goo.gle/debugproto  \n{definition}")

    def _status(self, match: re.Match) -> bytes:
        spec = _spec(match)
        versions = [
            {
                "version": str(status.version),
                "state": status.state,
                "status": {"error_code": status.code, "error_message": status.message},
            }
            for status in self._house.models.status(spec.name, spec.version, spec.label)
        ]
        return json.dumps({"model_version_status": versions}, indent=1).encode() + b"\n"

    def _metadata(self, match: re.Match) -> bytes:
        spec = _spec(match)
        with self._house.models.borrow(spec.name, spec.version, spec.label) as servable:
            definitions = {
                name: json_format.MessageToDict(
                    definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )
                for name, definition in sorted(servable.signature_defs.items())
            }
            model = {"name": servable.name, "version": str(servable.version), "signature_name": ""}
        content = {"model_spec": model, "metadata": {"signature_def": {"signature_def": definitions}}}
        return json.dumps(content, indent=1).encode() + b"\n"


def _spec(match: re.Match) -> Spec:
    version, label = match["version"], match["label"]
    if version is not None and int(version) > _MAX_VERSION:
        raise _invalid(f"Failed to convert version: {version} to numeric.")
    return Spec(unquote(match["name"]), version and int(version), label and unquote(label))


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


class _Refusal(Response):
    """Answers a caller that may still be sending, and hangs up when it has sent all, or for too long.

    A connection that is closed with bytes unread is reset, and the answer may be lost with it.
    """

    def __init__(self, status: int, message: str):
        super().__init__(json_out.error(message), status, {"Connection": "close"}, media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        end = (
            time.monotonic() + LINGER_SECONDS
        )  # no `asyncio.timeout`: `wait_for` can lose its cancellation on Python 3.11
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < end:
                if not (await asyncio.wait_for(receive(), LINGER_PAUSE_SECONDS)).get("more_body"):
                    break
        await send({"type": "http.response.body", "body": b""})


async def _body(request: Request, limit: int) -> bytes:
    """Reads the body, and unpacks it while it comes, so that a small one that unpacks to a huge one is cut off."""
    if int(request.headers.get("content-length", 0)) > limit:
        raise _TooLargeError
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "gzip"):
        raise _invalid(f"The body must be packed with gzip or not at all. Received: Content-Encoding: {packing}")
    unpack = zlib.decompressobj(_GZIP) if packing == "gzip" else None
    parts, size, received = [], 0, 0
    async for chunk in _arriving(request):
        received += len(chunk)
        try:
            part = unpack.decompress(chunk, limit - size + 1) if unpack else chunk
        except zlib.error as error:
            raise _invalid(f"The body is no gzip: {error}") from None
        parts.append(part)
        size += len(part)
        if max(size, received) > limit:
            raise _TooLargeError
    if unpack and (not unpack.eof or unpack.unused_data):
        raise _invalid("The body is no gzip: " + ("something follows it" if unpack.eof else "it is cut off"))
    return b"".join(parts)


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    """Gives a body as it comes; a `TimeoutError` if nothing more does.

    What has come while the event loop was held up by the parsing of other requests is taken, however long that was.
    """
    stream = request.stream()

    async def following() -> bytes | None:
        return await anext(stream, None)

    while True:
        chunk = asyncio.ensure_future(following())
        try:
            # Unlike `asyncio.timeout`, it looks once more at what is there when its time is up.
            await asyncio.wait([chunk], timeout=IDLE_SECONDS)
            if not chunk.done():
                raise TimeoutError
        finally:
            chunk.cancel()
        if chunk.result() is None:
            return
        yield chunk.result()


def _invalid(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


async def _watch(request: Request, is_gone: threading.Event) -> None:
    """Notices when the caller hangs up."""
    while not is_gone.is_set():
        if (await request.receive())["type"] == "http.disconnect":
            is_gone.set()
