"""Where a model is served: the URL of a server and the name of a model, read once and written in one way."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

DEFAULT_MODEL = "denoiser"
_EXPECTED = (
    "A server's URL reads http(s)://HOST:PORT[/v1/models/NAME[/versions/V|/labels/L]] or "
    "grpc(s)://HOST:PORT[/NAME[/versions/V|/labels/L]]. Received: {url!r}."
)
_WHICH = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?/?"
_MODEL = r"(?P<name>[^/:]+)" + _WHICH
_PATHS = {
    # A proxy may have put the API below a path of its own.
    "http": re.compile(rf"(?:(?P<prefix>(?:/[^/]+)*)/v1/models/{_MODEL}|/?)"),
    "grpc": re.compile(rf"(?:/{_MODEL}|/?)"),
}
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """A model on a server.

    Attributes:
        protocol: "http" or "grpc".
        secure: Whether TLS is spoken.
        host: Name or number, an IPv6 one in brackets.
        port: TCP port.
        name: The model's name.
        version: Its version; `None` for the newest, or the one that `label` names.
        label: A label of a version, such as "canary".
        prefix: What stands in the path before `/v1`.
    """

    protocol: str
    secure: bool
    host: str
    port: int
    name: str = DEFAULT_MODEL
    version: int | None = None
    label: str | None = None
    prefix: str = ""

    @property
    def server(self) -> str:
        """URL of the server alone."""
        return f"{self.protocol}{'s' if self.secure else ''}://{self.host}:{self.port}"

    @property
    def path(self) -> str:
        """Path of the model below the server, as REST has it; of gRPC the same without `/v1/models`."""
        which = f"/versions/{self.version}" if self.version is not None else ""
        which = f"/labels/{quote(self.label, safe='')}" if self.label is not None else which
        above = f"{self.prefix}/v1/models" if self.protocol == "http" else ""
        return f"{above}/{quote(self.name, safe='')}{which}"

    def __str__(self) -> str:
        return f"{self.server}{self.path}"


def parse(url: str) -> Address:
    """Read a URL.

    Raises:
        ValueError: If it is of another kind; passwords in it are refused too, as every error would show them.
    """
    try:
        parts = parse_url(url)
    except LocationParseError:
        raise ValueError(_EXPECTED.format(url=url)) from None
    scheme = parts.scheme or ""
    protocol = scheme.removesuffix("s")
    if parts.auth is not None:
        raise ValueError("A server's URL must not hold a user or a password: send them in `headers`.")
    port = parts.port or _DEFAULT_PORTS.get(scheme)
    match = _PATHS[protocol].fullmatch(parts.path or "") if protocol in _PATHS else None
    if not match or not parts.host or not port or parts.query is not None or parts.fragment is not None:
        raise ValueError(_EXPECTED.format(url=url))
    found = match.groupdict()
    return Address(
        protocol=protocol,
        secure=scheme.endswith("s"),
        host=parts.host,
        port=port,
        name=unquote(found["name"] or DEFAULT_MODEL),
        version=int(found["version"]) if found["version"] else None,
        label=unquote(found["label"]) if found["label"] else None,
        prefix=found.get("prefix") or "",
    )
