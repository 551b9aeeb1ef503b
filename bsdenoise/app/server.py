"""Serving the page on this machine, and to nobody else unless asked to."""

import asyncio
import contextlib
import ipaddress
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from bsdenoise.app.denoising import Workshop

# Gradio reports its use to its makers, and looks for newer versions, unless told not to before it is imported.
SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
BYTES_PER_PIXEL = 64  # largest that a file may have: 8 channels of float64
MIN_FILE_BYTES = 2**20
POLL = 0.02  # seconds between looks whether the server has started
GRACE = 2  # seconds that open connections are given when the page ends; browsers hold theirs for ever
ANY_HOST = ("0.0.0.0", "::", "")


@contextlib.contextmanager
def running(workshop: Workshop, about: str, host: str, port: int) -> Iterator[str]:
    """Serve the page from a thread while the block runs; then stop it and remove its files.

    Args:
        workshop: What does the work.
        about: A sentence on which model denoises, and where.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Yields:
        The page's address.

    Raises:
        OSError: If the address cannot be listened on.
    """
    with _listening(host, port) as listener, _own_folder() as folder, ThreadPoolExecutor(1, "page") as thread:
        app = thread.submit(asyncio.run, _app(workshop, about, folder, host)).result()
        import uvicorn

        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=GRACE, ws="none"))
        ended = thread.submit(server.run, [listener])
        try:
            while not server.started:
                if wait([ended], POLL).done:
                    raise OSError("The page could not be started.") from ended.exception()
            yield _url(host, listener.getsockname()[1])
        finally:
            workshop.end()
            server.should_exit = True


async def _app(workshop: Workshop, about: str, folder: Path, host: str) -> Any:
    """Make the ASGI application; in an event loop, lest Gradio make some of its own that nobody closes."""
    import fastapi
    import gradio as gr

    from bsdenoise.app import page, style

    blocks = page.build(workshop, about, folder)
    app = fastapi.FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        show_error=False,
        max_file_size=max(MIN_FILE_BYTES, workshop.max_pixels * BYTES_PER_PIXEL),
        theme=style.theme(),
        css=style.CSS,
        js=style.SCRIPT,
    )
    for block in blocks.blocks.values():
        guarded = _uploads_only(block.async_move_resource_to_block_cache)
        setattr(block, "async_move_resource_to_block_cache", guarded)  # noqa: B010 (a method, says mypy)
    # Only of launched pages does Gradio check that the files named in a request are uploads (`_check_allowed`).
    blocks.has_launched = True
    app.add_middleware(_Local, hosts=_allowed_hosts(host))
    return app


def _uploads_only(move: Callable[..., Awaitable[str | None]]) -> Callable[..., Awaitable[str | None]]:
    """Keep Gradio from downloading what a request names by a URL instead of uploading it."""

    async def checked(path: Any) -> str | None:
        if str(path).lower().startswith(("http:", "https:")):
            raise ValueError("A file must be uploaded.")
        return await move(path)

    return checked


class _Local:
    """Refuses requests that would make this machine fetch from others, and pages of others that pose as this one.

    A foreign page can give its own name the address 127.0.0.1; its requests then come from the user's browser, but the
    Host header still tells that name.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: tuple[str, ...]):
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            from starlette.responses import PlainTextResponse

            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            authority = headers.get(b"host", "")
            host, origin = authority.rsplit(":", 1)[0].strip("[]"), headers.get(b"origin")
            is_foreign = origin is not None and origin.partition("://")[2] != authority
            if self.hosts and (host not in self.hosts or is_foreign):
                return await PlainTextResponse("This page is served under another name.", 400)(scope, receive, send)
            if any(marker in scope["path"] for marker in ("/file=http:", "/file=https:", "/proxy=")):
                return await PlainTextResponse("Not found.", 404)(scope, receive, send)
        return await self.app(scope, receive, send)


def _allowed_hosts(host: str) -> tuple[str, ...]:
    """Name under which a page on the loopback interface is called; none where others are to reach it."""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    return ("127.0.0.1", "localhost", "::1", host) if is_loopback else ()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Open the socket of the page."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise OSError(
            f"The page cannot listen on {host}, port {port}: {error.strerror or error}. --port 0 picks a free port."
        ) from error
    with listener:
        yield listener


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """Return uploads and results a folder of their own, which is removed in the end, and silences Gradio."""
    with tempfile.TemporaryDirectory(prefix="bsdenoise-app-", ignore_cleanup_errors=True) as folder:
        settings = {**SILENT, "GRADIO_TEMP_DIR": folder, "GRADIO_EXAMPLES_CACHE": os.path.join(folder, "examples")}
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _url(host: str, port: int) -> str:
    name = "127.0.0.1" if host in ANY_HOST else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
