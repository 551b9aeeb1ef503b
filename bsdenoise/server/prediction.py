"""The one path of a prediction, whichever protocol it came by: find the model, wait for a turn, compute, count."""

import contextlib
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from bsdenoise.images.formats import jpeg, png
from bsdenoise.server.errors import ServingError
from bsdenoise.server.limits import Gate, Limits
from bsdenoise.server.metrics import Metrics
from bsdenoise.server.versions import Models

IMAGE_RANK = 4


@dataclass(frozen=True)
class Spec:
    """Which signature of which version of which model is asked.

    Attributes:
        name: The model's name.
        version: The version's number; `None` for the newest.
        label: The version's label instead.
        signature: The signature's name; "" for the default.
    """

    name: str
    version: int | None = None
    label: str | None = None
    signature: str = ""


@dataclass(frozen=True)
class House:
    """What a server consists of besides its protocols."""

    models: Models
    gate: Gate
    limits: Limits
    metrics: Metrics


@dataclass(frozen=True)
class Prediction:
    """An answer.

    Attributes:
        version: The version that gave it.
        signature: The signature's name.
        outputs: An array for each output.
    """

    version: int
    signature: str
    outputs: dict[str, np.ndarray]


def predict(
    house: House,
    spec: Spec,
    read_inputs: Callable,
    outputs: Sequence[str] = (),
    *,
    entrypoint: str,
    timeout: float | None = None,
    is_gone: Callable[[], bool] = lambda: False,
) -> Prediction:
    """Answer one request.

    Args:
        house: The server's parts.
        spec: Which signature is asked.
        read_inputs: Function from the signature's `SignatureDef` to the arrays that were sent.
        outputs: The outputs that are wanted; all if there are none.
        entrypoint: "REST" or "GRPC", for the metrics.
        timeout: Seconds until the caller's deadline, if there is one.
        is_gone: Says whether the caller has hung up.

    Raises:
        ServingError: If the request is refused.
    """
    start = time.monotonic()
    timeout = house.limits.timeout if timeout is None else min(timeout, house.limits.timeout)
    code = grpc.StatusCode.UNKNOWN
    try:
        with house.models.borrow(spec.name, spec.version, spec.label) as servable:
            signature, definition = servable.signature(spec.signature)
            inputs = read_inputs(definition)
            _check_pixels(inputs, house.limits.max_pixels)
            with house.gate.admitted(start + timeout - time.monotonic(), is_gone):
                began = time.monotonic()
                answer = servable.predict(signature, inputs, outputs, timeout=start + timeout - began)
                house.metrics.computed(spec.name, time.monotonic() - began)
            code = grpc.StatusCode.OK
            return Prediction(servable.version, signature, answer)
    except ServingError as error:
        code = error.code
        raise
    finally:
        house.metrics.answered(spec.name, code.name, entrypoint, time.monotonic() - start)


def _check_pixels(inputs, max_pixels) -> None:
    if max_pixels is None:
        return
    for name, array in inputs.items():
        if (number := _pixels(array)) > max_pixels:
            raise ServingError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{name} holds too many pixels: this server takes at most {max_pixels} per request. "
                f"Received: {number} in shape={list(array.shape)}",
            )


def _pixels(array) -> int:
    """Count the pixels of a batch of images, or of image files by their headers."""
    if array.dtype == object:
        return sum(_pixels_of_file(data) for data in array.flat)
    return math.prod(array.shape[:-1]) if array.ndim == IMAGE_RANK else 0


def _pixels_of_file(data: bytes) -> int:
    for codec in (png, jpeg):
        if data.startswith(codec.SIGNATURE):
            with contextlib.suppress(Exception):  # decoders answer hostile bytes with errors of every type
                return math.prod(codec.open_file(io.BytesIO(data)).shape[:2])
    return 0  # no image: the graph says so
