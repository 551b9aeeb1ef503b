"""REST as TensorFlow-Serving speaks it: status, metadata, predictions, metrics."""

import asyncio
import json
import re
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from bsdenoise.server import json_in, json_out, metrics
from bsdenoise.server.errors import ServingError
from bsdenoise.server.limits import FULL
from bsdenoise.server.prediction import House, Spec, predict

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(_MODEL + r":(?P<method>predict|classify|regress)", re.IGNORECASE)
_STATUS = re.compile(_MODEL + r"(?P<metadata>/metadata)?", re.IGNORECASE)
_NOT_FOUND = "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
_TASKS = {"classify": "classification", "regress": "regression"}
_GZIP = 16 + zlib.MAX_WBITS
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
        self._taken = 0  # touched by the event loop's thread alone

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        try:
            if request.method == "OPTIONS":
                return Response(status_code=400, media_type="text/html; charset=ISO-8859-1")
            if request.method == "GET" and path == metrics.PATH:
                return Response(self._house.metrics.text(), media_type="text/plain")
            if not path.startswith("/v1/models"):
                return Response(_NOT_FOUND, 404, {"Connection": "close", "Content-Type": "text/html"})
            if request.method == "POST" and (match := _PREDICT.fullmatch(path)):
                return await self._predict(request, match)
            if request.method == "GET" and path.rstrip("/") == "/v1/models":
                raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "Missing model name in request.")
            if request.method == "GET" and (match := _STATUS.fullmatch(path)):
                return _json(self._metadata(match) if match["metadata"] else self._status(match))
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"Malformed request: {request.method} {path}")
        except ServingError as error:
            return _json(json_out.error(error.message), error.http_status)
        except _TooLargeError:
            limit = self._house.limits.max_body_bytes
            message = f"The body is too large: this server takes at most {limit} bytes, unpacked."
            return _json(json_out.error(message), 413, {"Connection": "close"})
        except TimeoutError:
            seconds = self._house.limits.timeout
            message = f"The body did not arrive within {seconds:g} seconds."
            return _json(json_out.error(message), 408, {"Connection": "close"})
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED)

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
        spec = _spec(match)
        if match["method"].lower() in _TASKS:
            with self._house.models.borrow(spec.name, spec.version, spec.label) as servable:
                definition = servable.signature("")[1]
            task = _TASKS[match["method"].lower()]
            raise ServingError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"No {task} inputs found in SignatureDef: goo.gle/debugproto  \n{definition}",
            )
        with self._house.models.borrow(spec.name, spec.version, spec.label):
            document = json_in.parse(body)  # an unknown model is said first
        del body
        spec = Spec(spec.name, spec.version, spec.label, json_in.signature_name(document))
        is_row_form = json_in.is_row_form(document)
        answer = predict(
            self._house,
            spec,
            lambda definition: json_in.arrays(document, definition),
            entrypoint="REST",
            is_gone=is_gone.is_set,
        )
        return json_out.predictions(answer.outputs, is_row_form)

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
    version = match["version"]
    return Spec(match["name"], None if version is None else int(version), match["label"])


def _json(content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(content, status, headers, media_type="application/json")


async def _body(request: Request, limit: int) -> bytes:
    """Reads the body, and unpacks it while it comes, so that a small one that unpacks to a huge one is cut off."""
    gzipped = request.headers.get("content-encoding", "").lower() == "gzip"
    unpack = zlib.decompressobj(_GZIP) if gzipped else None
    parts, size = [], 0
    async for chunk in request.stream():
        try:
            part = unpack.decompress(chunk, limit - size + 1) if unpack else chunk
        except zlib.error as error:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"The body is no gzip: {error}") from None
        parts.append(part)
        size += len(part)
        if size > limit or (unpack and unpack.unconsumed_tail):
            raise _TooLargeError
    if unpack and not unpack.eof:
        raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "The body is no gzip: it is cut off")
    return b"".join(parts)


async def _watch(request: Request, is_gone: threading.Event) -> None:
    """Notices when the caller hangs up."""
    while not is_gone.is_set():
        if (await request.receive())["type"] == "http.disconnect":
            is_gone.set()
