"""TensorFlow-Serving's REST API: tensors as JSON numbers, image files as base64."""

import base64
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import urllib3
from urllib3 import exceptions

from bsdenoise.client.address import Address
from bsdenoise.client.errors import ClientError, DeadlineError, NotFoundError, RefusedError, UnavailableError

MAX_MESSAGE_BYTES = 100 * 2**20  # what TensorFlow-Serving unpacks of a compressed request, and what ours takes
# IEEE 754: a float32 takes up to 9 significant digits to survive; with sign, point, comma and brackets 16 characters.
BYTES_PER_VALUE = 16
CONNECT_SECONDS = 10.0  # within which a server that is there at all accepts a connection
SLOWEST_BYTES_PER_SECOND = 2**17  # of an upload that is waited for: a megabit per second
READ_BYTES = 2**20
CONNECTIONS = 32  # kept open; more are made where more requests are in flight, and closed after
_ERRORS = {
    400: RefusedError,
    404: NotFoundError,
    413: RefusedError,
    429: UnavailableError,
    502: UnavailableError,
    503: UnavailableError,
    504: DeadlineError,
}
TIMED_OUT = "Timed out"  # in TensorFlow's words, "waiting for notification"
TIME_LIMIT = (
    "the server's time limit for a request has passed; it can be raised (bsdenoise serve --timeout, "
    "TF-Serving --rest_api_timeout_in_ms)"
)
MAX_QUOTED = 500  # characters of an answer that is not the API's


class RestTransport:
    """Speaks to one model on one server.

    Args:
        address: The model.
        headers: Sent with every request, such as `authorization`.
        ca_file: Certificates to trust for `https`, PEM; by default those of the system.
        max_message_bytes: Largest request; `None` for 100 MiB.
    """

    sends_files = True

    def __init__(
        self,
        address: Address,
        headers: Mapping[str, str],
        ca_file: Path | None,
        max_message_bytes: int | None,
    ):
        self._address = address
        self._max_bytes = MAX_MESSAGE_BYTES if max_message_bytes is None else max_message_bytes
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS,
            headers={"user-agent": "bsdenoise", **headers},
            ca_certs=str(ca_file) if ca_file else None,
            cert_reqs="CERT_REQUIRED",
            # Without it, the end of a request waits for the server's receipt of its beginning.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )

    def most_values(self, pictures: int) -> int:
        """Say how many pixel values a request can have; how many pictures it is answered by does not matter."""
        return self._max_bytes // BYTES_PER_VALUE

    def most_file_bytes(self) -> int:
        """Say how large an image file can be, before base64 makes four bytes of three."""
        return self._max_bytes * 3 // 4

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray], seconds: float) -> dict[str, np.ndarray]:
        """Call a signature once.

        Args:
            signature: Its name.
            inputs: Arrays by name; files and words are arrays of objects (bytes).
            seconds: Time that is left.

        Returns:
            The outputs; the name of a single one is "" because the API does not tell.

        Raises:
            ClientError: If there is no answer, or an error.
        """
        columns = {name: _to_json(array) for name, array in inputs.items()}
        body = orjson.dumps({"signature_name": signature, "inputs": columns}, option=orjson.OPT_SERIALIZE_NUMPY)
        outputs = self._ask("POST", ":predict", body, seconds).get("outputs")
        named = outputs if isinstance(outputs, dict) and "b64" not in outputs else {"": outputs}
        return {name: _from_json(value) for name, value in named.items()}

    def states(self, seconds: float) -> list[str]:
        """Return the states of the model's versions, such as "AVAILABLE".

        Raises:
            ClientError: As `predict`.
        """
        return [entry.get("state", "") for entry in self._ask("GET", "", None, seconds)["model_version_status"]]

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._pool.clear()

    def _ask(self, method: str, verb: str, body: bytes | None, seconds: float) -> dict[str, Any]:
        """Send one request and read the JSON object of its answer."""
        where, end = str(self._address), time.monotonic() + seconds
        url = f"{self._address.server}{self._address.path}{verb}"
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                timeout=urllib3.Timeout(connect=min(_sending_seconds(body), seconds), read=seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                text = self._read(response, end)
            except BaseException:
                response.close()  # what is left in the connection belongs to nobody
                raise
            response.release_conn()
        except (exceptions.NewConnectionError, exceptions.ConnectTimeoutError) as error:
            reason = str(error).rpartition(": ")[-1]
            raise UnavailableError(f"{where}: the server cannot be reached: {reason}") from error
        except exceptions.ReadTimeoutError as error:
            raise DeadlineError(f"{where}: no answer within {seconds:.3g} s") from error
        except exceptions.SSLError as error:
            raise ClientError(f"{where}: no secure connection: {error}") from error
        except exceptions.ProtocolError as error:
            raise UnavailableError(f"{where}: the connection was lost: {_innermost(error)}") from error
        except exceptions.HTTPError as error:
            raise ClientError(f"{where}: {_innermost(error)}") from error
        return self._checked(response.status, text)

    def _read(self, response: urllib3.BaseHTTPResponse, end: float) -> bytes:
        """Read the whole answer; a server that trickles is not waited for beyond the end."""
        chunks = []
        while chunk := response.read1(READ_BYTES):  # what is there; `stream` would wait for so many bytes
            chunks.append(chunk)
            if time.monotonic() > end:
                raise DeadlineError(f"{self._address}: the answer took too long")
        return b"".join(chunks)

    def _checked(self, status: int, text: bytes) -> dict[str, Any]:
        """Return the object of a good answer, and raise what a bad one says."""
        where = str(self._address)
        try:
            answer = orjson.loads(text)
        except ValueError:
            answer = None
        if status == 200 and isinstance(answer, dict):
            return answer
        if isinstance(answer, dict) and "error" in answer:
            said = sentence(str(answer["error"]))
        else:
            start = " ".join(text[:MAX_QUOTED].decode(errors="replace").split())
            said = f"not the answer of a model server: status {status}, {start or 'empty'}"
        raise _ERRORS.get(status, ClientError)(f"{where}: {said}")


def _sending_seconds(body: bytes | None) -> float:
    """Return the time for connecting, within which urllib3 also sends the whole body."""
    return CONNECT_SECONDS + len(body or b"") / SLOWEST_BYTES_PER_SECOND


def sentence(text: str) -> str:
    """Take away what TensorFlow puts around the sentence of a check in the graph; put its own time-out into words."""
    first = text.split("\n\t [[")[0].strip()
    if first.startswith(TIMED_OUT):
        return TIME_LIMIT
    match = re.fullmatch(r"assertion failed: \[(.*)\]", first, re.DOTALL)
    return " ".join((match[1] if match else first).split())


def _to_json(array: np.ndarray) -> Any:
    """Prepare an array: files and words as base64 objects, numbers as they are for `orjson`, which loses nothing."""
    if array.dtype == object:
        return [{"b64": base64.b64encode(item).decode()} for item in array]
    return np.ascontiguousarray(array)


def _from_json(value: Any) -> np.ndarray:
    """Read the array of an output; files and words become bytes."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict):
        items = [base64.b64decode(item["b64"]) for item in value]
    elif isinstance(first, str):
        items = [item.encode() for item in value]
    else:
        return np.asarray(value, np.float32)
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _innermost(error: BaseException) -> str:
    """Say what an error that wraps another one is about."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    text = str(error) or type(error).__name__
    if not text.isprintable():  # what came is no HTTP, and nothing for a terminal
        return "the answer is not HTTP; is this the port for REST?"
    return text
