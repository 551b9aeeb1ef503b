"""`connect`: from a URL to a client."""

from collections.abc import Callable, Mapping
from pathlib import Path

from bsdenoise.client import address as addresses
from bsdenoise.client.client import Client
from bsdenoise.client.model import ServedModel
from bsdenoise.client.rest import RestTransport
from bsdenoise.client.retries import Patience
from bsdenoise.client.transport import Transport

TIMEOUT = 300.0  # seconds: an image of 64 megapixels takes minutes without an accelerator
RETRIES = 5  # with their pauses 5 s: a server that is started again by whoever watches it is back by then


def connect(
    url: str,
    *,
    timeout: float = TIMEOUT,
    retries: int = RETRIES,
    headers: Mapping[str, str] | None = None,
    ca_file: str | Path | None = None,
    max_message_bytes: int | None = None,
) -> Client:
    """Make a client for a served model. Nothing is sent before it is used.

    Args:
        url: `http(s)://HOST:PORT[/v1/models/NAME[/versions/V|/labels/L]]` for REST, or
            `grpc(s)://HOST:PORT[/NAME[/versions/V|/labels/L]]`, which is quicker for floats and large images and needs
            `tensorflow-serving-api`. NAME is `denoiser` by default.
        timeout: Seconds for each request, its repetitions included.
        retries: How often a request is sent again after its connection was refused or lost, or the server said that it
            has too much to do. Nothing else is sent again: it would fail again.
        headers: Sent with every request (gRPC: metadata), such as `{"authorization": "Bearer …"}`.
        ca_file: Certificates to trust instead of the system's, PEM, for `https` and `grpcs`.
        max_message_bytes: Largest request, for servers and proxies that take less than usual; larger images are sent in
            tiles. By default 100 MiB over REST, 2 GiB over gRPC.

    Returns:
        The client, also a context manager that closes its connections.

    Raises:
        ValueError: If the URL, `timeout` or `retries` does not fit, or gRPC is not installed.
        OSError: If `ca_file` cannot be read.

    Example:
        >>> with bsdenoise.client.connect("http://localhost:8501") as model:  # doctest: +SKIP
        ...     denoised = model.denoise(noisy, sigma=25 / 255)
    """
    address = addresses.parse(url)
    patience = Patience(timeout, retries)
    trusted = None if ca_file is None else Path(ca_file)
    if trusted is not None:
        trusted.open().close()  # whoever opens it later does not name it
    transport = _transport(address.protocol)(address, headers or {}, trusted, max_message_bytes)
    return Client(ServedModel(address, transport, patience))


def _transport(protocol: str) -> Callable[..., Transport]:
    if protocol == "http":
        return RestTransport
    try:
        from bsdenoise.client.rpc import RpcTransport  # here, because it loads TensorFlow
    except ImportError as error:
        raise ValueError(
            f"gRPC needs tensorflow-serving-api, which is not installed ({error}): install it, or use http://."
        ) from error
    return RpcTransport
