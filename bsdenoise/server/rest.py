"""REST as TensorFlow-Serving speaks it: status, metadata, predictions, metrics."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import grpc
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from bsdenoise.server import bodies, json_in, json_out, metrics
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
_LOGGER = logging.getLogger(__name__)
CLIENT_CLOSED = 499  # nobody reads it; nginx' number for a client that hung up


def make_app(house: House) -> Starlette:
    """Make the ASGI application of a server.

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
        """Answer a request, whatever it is."""
        path = request.scope["raw_path"].decode("latin-1")
        try:
            return await self._answer(request, path)
        except ServingError as error:
            status, message = error.http_status, error.message
        except bodies.TooLargeError:
            limit = self._house.limits.max_body_bytes
            return bodies.Parting(413, f"The body is too large: this server takes at most {limit} bytes, unpacked.")
        except TimeoutError:
            seconds = self._house.limits.timeout
            message = f"The body did not arrive within {seconds:g} seconds, or paused for {bodies.IDLE_SECONDS:g}."
            return bodies.Parting(408, message)
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
                body = await bodies.read(request, self._house.limits.max_body_bytes)
            is_gone = threading.Event()
            watch = asyncio.create_task(bodies.watch(request, is_gone))
            try:
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(self._threads, self._compute, body, match, is_gone)
            finally:
                watch.cancel()
            return _json(answer)
        finally:
            self._taken -= 1

    def _compute(self, body: bytes, match: re.Match, is_gone: threading.Event) -> bytes:
        """Do all of a prediction, from the text to the text."""
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
        """Answer what no denoiser can do, as TensorFlow-Serving answers it."""
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


def _invalid(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)
