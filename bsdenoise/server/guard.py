"""A guard before the REST port of a model server, for callers who are not trusted.

TensorFlow-Serving's own reader of JSON is not made for hostile text: a published weakness lets certain bodies end its
process. So every body is read here first, within limits of size, depth and form, and what goes on is written anew from
what was understood: the server sees no byte of the caller's. It needs neither TensorFlow nor a model.
"""

import asyncio
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import numpy as np
import rapidjson
import urllib3
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from bsdenoise.server import bodies, json_out, json_text
from bsdenoise.server.errors import ServingError
from bsdenoise.server.json_text import Refusal
from bsdenoise.server.limits import Gate, Limits

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# What passes: predictions, status and metadata of one model. Metrics and all else stay inside.
_MODEL = r"/v1/models/[A-Za-z0-9_.-]{1,128}(?:/versions/[0-9]{1,18}|/labels/[A-Za-z0-9_.-]{1,128})?"
_PREDICT = re.compile(rf"{_MODEL}:predict")
_STATUS = re.compile(rf"{_MODEL}(?:/metadata)?")
KEYS = ("signature_name", "instances", "inputs")
MAX_DEPTH = 12  # an image in an object in the list of instances has 6
MAX_NAME = 256  # characters of a key or of the signature's name
# A text that is cut off ends with the body, and nothing is tried twice: the time is proportional to the length.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
CLIENT_CLOSED = 499  # nobody reads it
STATUS_SECONDS = 10.0
STATUS_THREADS = 2  # as many as the server has to spare: REST_SPARE_THREADS


@dataclass(frozen=True)
class Answer:
    """What the server behind answered."""

    status: int
    content: bytes
    media_type: str


class Upstream:
    """The model server behind the guard.

    Args:
        url: http://HOST:PORT.
        connections: How many are kept open.
    """

    def __init__(self, url: str, connections: int):
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(maxsize=connections, retries=False)

    def ask(self, method: str, path: str, body: bytes | None, timeout: float) -> Answer:
        """Send a request on.

        Args:
            method: GET or POST.
            path: Path below the server's address, with what is asked for.
            body: JSON to send; `None` for none.
            timeout: Seconds that the answer may take.

        Raises:
            ServingError: If no answer comes.
        """
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            answer = self._pool.request(
                method, self._url + path, body=body, headers=headers, timeout=timeout, redirect=False
            )
        except urllib3.exceptions.ReadTimeoutError:
            raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out") from None
        except urllib3.exceptions.HTTPError:
            raise ServingError(grpc.StatusCode.UNAVAILABLE, "The model server does not answer") from None
        return Answer(answer.status, answer.data, answer.headers.get("Content-Type", "application/json"))


def make_app(upstream: Upstream, limits: Limits) -> Starlette:
    """Make the ASGI application.

    Args:
        upstream: The server behind.
        limits: `max_body_bytes`, `timeout`, and how many predictions are sent on at once (`concurrency`) and may wait
            (`queue`).
    """
    return Starlette(routes=[Route("/{path:path}", _Guard(upstream, limits).answer, methods=METHODS)])


class _Guard:
    def __init__(self, upstream: Upstream, limits: Limits):
        self._upstream = upstream
        self._limits = limits
        self._gate = Gate(limits)
        self._most = limits.concurrency + limits.queue
        self._threads = ThreadPoolExecutor(self._most, thread_name_prefix="guard")
        self._status_threads = ThreadPoolExecutor(STATUS_THREADS, thread_name_prefix="status")
        # A parsed document takes ten times its text's memory; Python parses one at a time anyway.
        self._reading = threading.Semaphore(1)
        self._taken = 0  # touched by the event loop's thread alone

    async def answer(self, request: Request) -> Response:
        """Answer a request, whatever it is."""
        path = request.scope["raw_path"].decode("latin-1")
        try:
            if request.method == "POST" and _PREDICT.fullmatch(path):
                return await self._predict(request, path)
            if request.method == "GET" and _STATUS.fullmatch(path):
                loop = asyncio.get_running_loop()
                ask = self._upstream.ask
                return _response(
                    await loop.run_in_executor(self._status_threads, ask, "GET", path, None, STATUS_SECONDS)
                )
            return bodies.Parting(404, "Only :predict, the status and the metadata of a model are served here.")
        except ServingError as error:
            return Response(json_out.error(error.message), error.http_status, media_type="application/json")
        except bodies.TooLargeError:
            limit = self._limits.max_body_bytes
            return bodies.Parting(413, f"The body is too large: at most {limit} bytes are taken, unpacked.")
        except TimeoutError:
            return bodies.Parting(408, "The body did not arrive in time.")
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED)

    async def _predict(self, request: Request, path: str) -> Response:
        if self._taken >= self._most:
            raise ServingError(grpc.StatusCode.UNAVAILABLE, "Too many requests wait: try again later")
        self._taken += 1
        try:
            end = time.monotonic() + self._limits.timeout
            async with asyncio.timeout(self._limits.timeout):
                body = await bodies.read(request, self._limits.max_body_bytes)
            is_gone = threading.Event()
            watch = asyncio.create_task(bodies.watch(request, is_gone))
            try:
                loop = asyncio.get_running_loop()
                return _response(await loop.run_in_executor(self._threads, self._send_on, path, body, end, is_gone))
            finally:
                watch.cancel()
        finally:
            self._taken -= 1

    def _send_on(self, path: str, body: bytes, end: float, is_gone: threading.Event) -> Answer:
        with self._reading:
            body = rewritten(body)
        with self._gate.admitted(end - time.monotonic(), is_gone.is_set):
            return self._upstream.ask("POST", path, body, max(0.001, end - time.monotonic()))


def rewritten(body: bytes) -> bytes:
    """Read a request to predict, and write it anew.

    Raises:
        Refusal: If it is no JSON of a moderate depth, or something else than a request.
    """
    if (depth := deepest(body)) > MAX_DEPTH:
        raise Refusal(f"JSON must be nested at most {MAX_DEPTH} deep. Received: {depth}")
    document = json_text.parse(body)
    _check_form(document)
    # RapidJSON's own way of writing numbers loses digits; this is Python's.
    return rapidjson.dumps(document, number_mode=rapidjson.NM_NAN, ensure_ascii=True).encode()


def deepest(body: bytes) -> int:
    """Count how deeply brackets are nested, without parsing: no text can be too deep for this."""
    brackets = np.frombuffer(_STRINGS.sub(b"", body).translate(None, _NOT_BRACKETS), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    return int(np.max(np.cumsum(steps, dtype=np.int64), initial=0))


def _check_form(document: dict) -> None:
    """Refuse what no request has: further keys, names that are none, both forms of inputs."""
    for key in document:
        if key not in KEYS:
            raise Refusal(f"A request holds {', '.join(KEYS[:-1])} or {KEYS[-1]}. Received: {key[:MAX_NAME]!r}")
    name = document.get("signature_name", "")
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise Refusal("signature_name must be a short text.")
    if ("instances" in document) == ("inputs" in document):
        raise Refusal("A request holds either instances or inputs.")
    if "instances" in document and not isinstance(document["instances"], list):
        raise Refusal("instances must be a list.")
    rows = document["instances"] if "instances" in document else [document["inputs"]]
    for row in rows:
        if isinstance(row, dict):
            _check_names(row)


def _check_names(row: dict) -> None:
    if any(not key or len(key) > MAX_NAME for key in row):
        raise Refusal(f"Names of inputs must have 1 to {MAX_NAME} characters.")


def _response(answer: Answer) -> Response:
    return Response(answer.content, answer.status, {"Content-Type": answer.media_type})
