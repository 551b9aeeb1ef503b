"""The port that a server listens on, and the server of HTTP behind it."""

import socket
from collections.abc import Callable
from typing import Any

import uvicorn


def bound(host: str, port: int) -> socket.socket:
    """Bind a port without listening yet.

    Args:
        host: Address or name of this machine.
        port: The port; 0 picks a free one.

    Raises:
        OSError: If it is taken, or the address is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"{host}: is no address to listen on: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OSError(f"{joined(host, port)}: cannot be listened on: {error.strerror}") from error
    return listener


def joined(host: str, port: int) -> str:
    """Write HOST:PORT, as it stands in URLs.

    Args:
        host: Address or name; an IPv6 address gets brackets.
        port: The port.
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def http_server(app: Callable, **settings: Any) -> uvicorn.Server:
    """Make a server of HTTP for sockets that are bound already, which neither logs nor names itself.

    Args:
        app: What answers.
        settings: Further ones of `uvicorn.Config`.
    """
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        **settings,
    )
    return uvicorn.Server(config)
