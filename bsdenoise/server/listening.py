"""The port that a server listens on."""

import socket


def bound(host: str, port: int) -> socket.socket:
    """Binds a port without listening yet.

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
    """Writes HOST:PORT, as it stands in URLs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
