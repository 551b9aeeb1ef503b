"""What `bsdenoise guard` can be told."""

from dataclasses import dataclass
from typing import Annotated

import tyro
from annotated_types import Ge, Le

from bsdenoise.config.flags import Port


@dataclass(frozen=True)
class GuardConfig:
    """Stand before the REST port of a model server, for callers who are not trusted.

    Every request is read here within limits and written anew, because certain bodies end TF-Serving's own reader of
    JSON, and the server with it. Predictions, status and metadata pass; metrics do not. It needs no TensorFlow. SIGTERM
    or Ctrl-C ends it. TLS and passwords are the business of a proxy before it (serving/nginx.conf in the repository).
    """

    #: The model server: http://HOST:PORT.
    server: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]

    #: Address to listen on.
    host: str = "127.0.0.1"

    #: Port to listen on; 0 picks a free one.
    port: Port = 8080

    #: Predictions that are sent on at once: as many as the server computes over REST, which it says at its start.
    at_once: Annotated[int, Ge(1), Le(1024)] = 1

    #: Predictions that may wait for that; more are refused at once.
    queue: Annotated[int, Ge(0), Le(10_000)] = 64

    #: Seconds that a prediction may take, the wait included: a little less than the server's own limit.
    timeout: Annotated[float, Ge(1), Le(86400)] = 115.0

    #: Largest body in MiB, unpacked.
    max_body: Annotated[int, Ge(1), Le(2048)] = 100
