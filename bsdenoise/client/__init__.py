"""Clients of a served model, over REST or gRPC: arrays or files in, arrays or files out.

REST needs neither TensorFlow nor Keras; `requirements-client.txt` lists what it needs.
"""

from bsdenoise.client.client import Client, Outcome
from bsdenoise.client.connecting import connect
from bsdenoise.client.errors import ClientError, DeadlineError, NotFoundError, RefusedError, UnavailableError

__all__ = [
    "Client",
    "ClientError",
    "DeadlineError",
    "NotFoundError",
    "Outcome",
    "RefusedError",
    "UnavailableError",
    "connect",
]
