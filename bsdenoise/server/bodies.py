"""Bodies of HTTP requests as they arrive: bounded in size and time, unpacked on the way."""

import asyncio
import contextlib
import threading
import time
import zlib
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bsdenoise.server import json_out
from bsdenoise.server.json_text import Refusal

_GZIP = 16 + zlib.MAX_WBITS
IDLE_SECONDS = 10.0  # within which more of a body must come: whoever sends one holds a place meanwhile
LINGER_SECONDS = 10.0  # in which what is still sent after a refusal is thrown away, at most
LINGER_PAUSE_SECONDS = 1.0  # without a byte of it: then nothing is expected any more


class TooLargeError(Exception):
    """A body beyond the limit."""


class Parting(Response):
    """Answers a caller that may still be sending, and hangs up when it has sent all, or for too long.

    A connection that is closed with bytes unread is reset, and the answer may be lost with it.
    """

    def __init__(self, status: int, message: str):
        super().__init__(json_out.error(message), status, {"Connection": "close"}, media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        # No `asyncio.timeout`: `wait_for` can lose its cancellation on Python 3.11.
        end = time.monotonic() + LINGER_SECONDS
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < end:
                if not (await asyncio.wait_for(receive(), LINGER_PAUSE_SECONDS)).get("more_body"):
                    break
        await send({"type": "http.response.body", "body": b""})


async def read(request: Request, limit: int) -> bytes:
    """Read the body, and unpack it while it comes, so that a small one that unpacks to a huge one is cut off.

    Args:
        request: The request.
        limit: Most bytes that it may have, packed and unpacked.
    """
    if int(request.headers.get("content-length", 0)) > limit:
        raise TooLargeError
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "gzip"):
        raise Refusal(f"The body must be packed with gzip or not at all. Received: Content-Encoding: {packing}")
    unpack = zlib.decompressobj(_GZIP) if packing == "gzip" else None
    parts, size, received = [], 0, 0
    async for chunk in _arriving(request):
        received += len(chunk)
        try:
            part = unpack.decompress(chunk, limit - size + 1) if unpack else chunk
        except zlib.error as error:
            raise Refusal(f"The body is no gzip: {error}") from None
        parts.append(part)
        size += len(part)
        if max(size, received) > limit:
            raise TooLargeError
    if unpack and (not unpack.eof or unpack.unused_data):
        raise Refusal("The body is no gzip: " + ("something follows it" if unpack.eof else "it is cut off"))
    return b"".join(parts)


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    """Return a body as it comes; a `TimeoutError` if nothing more does.

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
        received = chunk.result()
        if received is None:
            return
        yield received


async def watch(request: Request, is_gone: threading.Event) -> None:
    """Notice when the caller hangs up.

    Args:
        request: The request, whose body has been read.
        is_gone: Set once the caller has hung up.
    """
    while not is_gone.is_set():
        if (await request.receive())["type"] == "http.disconnect":
            is_gone.set()
