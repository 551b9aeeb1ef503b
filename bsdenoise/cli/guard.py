"""`bsdenoise guard`: a reader of requests before the REST port of a model server."""

import re
import signal

from bsdenoise import extras
from bsdenoise.config import GuardConfig

MIB = 2**20
IDLE_CONNECTIONS = 256  # beside those of the requests that are taken
GRACE_SECONDS = 30
URL = re.compile(r"https?://[^/?#@\s]+/?")


def run(config: GuardConfig) -> int:
    """Guard until SIGTERM or SIGINT, then finish what has been taken.

    Raises:
        ValueError: If a setting is out of range, or a package is missing.
        OSError: If the port cannot be had.
    """
    extras.check("bsdenoise guard")
    _check(config)

    from bsdenoise.server import guard, listening  # here, so that --help answers at once
    from bsdenoise.server.limits import Limits

    limits = Limits(
        max_body_bytes=config.max_body * MIB, concurrency=config.at_once, queue=config.queue, timeout=config.timeout
    )
    app = guard.make_app(guard.Upstream(config.server, config.at_once + guard.STATUS_THREADS), limits)
    bound = listening.bound(config.host, config.port)
    server = listening.http_server(
        app,
        proxy_headers=False,
        limit_concurrency=config.at_once + config.queue + IDLE_CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    bound.listen()  # from here on connections wait until the server accepts them
    address = listening.joined(config.host, bound.getsockname()[1])
    print(f"guarding {config.server} at http://{address}: {config.at_once} at once, {config.queue} waiting", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):  # which the server gives back after it has ended
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    with bound:
        server.run(sockets=[bound])
    return 0


def _check(config: GuardConfig) -> None:
    """Refuse a URL that names no server.

    Raises:
        ValueError: If it does not.
    """
    if not URL.fullmatch(config.server):
        raise ValueError(f"URL must read http://HOST:PORT, without a path. Received: {config.server!r}.")
