"""TensorFlow-Serving's gRPC API: tensors as they are. It needs `tensorflow-serving-api`, and with that TensorFlow."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from bsdenoise.client.address import Address
from bsdenoise.client.errors import ClientError, DeadlineError, NotFoundError, RefusedError, UnavailableError
from bsdenoise.client.rest import sentence

MAX_MESSAGE_BYTES = 2**31 - 1  # of a protocol buffer
SPARE_BYTES = 2**16  # for all in a message that is not pixels
BYTES_PER_VALUE = 4
# The channel itself waits between attempts to connect, a second and more: too long beside our own pauses.
RECONNECT_MILLISECONDS = (100, 2000)
_ERRORS = {
    grpc.StatusCode.INVALID_ARGUMENT: RefusedError,
    grpc.StatusCode.OUT_OF_RANGE: RefusedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: UnavailableError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}
DEADLINE_PASSED = "deadline exceeded"  # in gRPC's own words
TOO_LARGE = "larger than max"  # in gRPC's own words, whose code is that of a busy server


class RpcTransport:
    """Speaks to one model on one server.

    Args:
        address: The model.
        headers: Metadata sent with every request, such as `authorization`.
        ca_file: Certificates to trust for `grpcs`, PEM; by default gRPC's own.
        max_message_bytes: Largest request, and largest answer; `None` for 2 GiB.
    """

    sends_files = False

    def __init__(
        self,
        address: Address,
        headers: Mapping[str, str],
        ca_file: Path | None,
        max_message_bytes: int | None,
    ):
        self._address = address
        self._metadata = [(name.lower(), value) for name, value in headers.items()]
        self._max_bytes = MAX_MESSAGE_BYTES if max_message_bytes is None else max_message_bytes
        target, (first, longest) = f"{address.host}:{address.port}", RECONNECT_MILLISECONDS
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", 0),  # the client has its own
            ("grpc.initial_reconnect_backoff_ms", first),
            ("grpc.min_reconnect_backoff_ms", first),
            ("grpc.max_reconnect_backoff_ms", longest),
        ]
        if address.secure:
            trusted = grpc.ssl_channel_credentials(Path(ca_file).read_bytes() if ca_file else None)
            self._channel = grpc.secure_channel(target, trusted, options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(self._channel).Predict
        self._status = model_service_pb2_grpc.ModelServiceStub(self._channel).GetModelStatus

    def most_values(self, pictures: int) -> int:
        """Say how many pixel values a request can have that is answered by so many pictures."""
        return (self._max_bytes - SPARE_BYTES) // (BYTES_PER_VALUE * pictures)

    def most_file_bytes(self) -> int:
        """Say how large an image file can be."""
        return self._max_bytes - SPARE_BYTES

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray], seconds: float) -> dict[str, np.ndarray]:
        """Call a signature once.

        Args:
            signature: Its name.
            inputs: Arrays by name; files and words are arrays of objects (bytes).
            seconds: Time that is left.

        Returns:
            The outputs by name.

        Raises:
            ClientError: If there is no answer, or an error.
        """
        request = predict_pb2.PredictRequest(model_spec=self._model())
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        answer = self._call(self._predict, request, seconds)
        return {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}

    def states(self, seconds: float) -> list[str]:
        """Return the states of the model's versions, such as "AVAILABLE".

        Raises:
            ClientError: As `predict`.
        """
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._model())
        found = self._call(self._status, request, seconds).model_version_status
        return [get_model_status_pb2.ModelVersionStatus.State.Name(entry.state) for entry in found]

    def close(self) -> None:
        """Close the connection; requests in flight end with an error."""
        self._channel.close()

    def _model(self) -> Any:
        spec = predict_pb2.PredictRequest().model_spec
        spec.name = self._address.name
        if self._address.label is not None:
            spec.version_label = self._address.label
        elif self._address.version is not None:
            spec.version.value = self._address.version
        return spec

    def _call(self, method: Callable[..., Any], request: Any, seconds: float) -> Any:
        try:
            return method(request, timeout=max(seconds, 0.0), metadata=self._metadata)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            kind = _ERRORS.get(code, ClientError)
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE in details:
                kind = RefusedError
            said = sentence(details) or code.name.replace("_", " ")
            if DEADLINE_PASSED in said.lower():
                said = f"no answer within {seconds:.3g} s"
            elif code is grpc.StatusCode.UNAVAILABLE and "onnect" in said:
                said = f"the server cannot be reached: {said.rpartition('last error: ')[-1]}"
            elif kind is ClientError:
                said = f"{said} ({code.name})"
            raise kind(f"{self._address}: {said}") from error
