"""One loaded version of a model, run as TensorFlow-Serving runs it.

Signatures go through the C++ entry of a TF 1 session, which looks neither at shapes nor at values: what the graph
refuses is refused in the graph's own words, and what it lets through is seen here too.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.python.client import pywrap_tf_session
from tensorflow_serving.apis import prediction_log_pb2

from bsdenoise.server import tensors, xla
from bsdenoise.server.errors import ServingError

WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_WARM_UP = 1000  # records, as TensorFlow-Serving has it
DEFAULT_SIGNATURE = "serving_default"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Servable:
    """One version of a model in memory.

    Args:
        name: The model's name.
        version: The version's number.
        folder: The folder of the SavedModel.

    Attributes:
        signature_defs: The `SignatureDef` of each signature, by its name.
        warm_up_seconds: How long its warm-up requests took.

    Raises:
        ServingError: If the folder cannot be loaded, or the model refuses one of its warm-up requests.
    """

    def __init__(self, name: str, version: int, folder: Path):
        self.name = name
        self.version = version
        self._handles: dict = {}
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default(), _quiet():
                meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
            self.signature_defs = dict(meta_graph.signature_def)
            self._needs_xla = xla.signatures_that_need_it(meta_graph)
            start = time.monotonic()
            self._warm_up(folder)
            self.warm_up_seconds = time.monotonic() - start
        except ServingError:
            self.close()
            raise
        except tf.errors.OpError as error:
            self.close()
            raise _serving_error(error) from error
        except Exception as error:  # a broken file gives errors of every type
            self.close()
            raise ServingError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}") from error

    def signature(self, name: str) -> tuple[str, Any]:
        """Return the name and the `SignatureDef` that are meant by a name, of which "" is the default's.

        Raises:
            ServingError: If there is none.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signature_defs:
            raise ServingError(
                grpc.StatusCode.INVALID_ARGUMENT, f'Serving signature name: "{name}" not found in signature def'
            )
        return name, self.signature_defs[name]

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Run a signature. It may be called from many threads at once.

        Args:
            signature: Its name, "" for the default.
            inputs: An array for each of its inputs; strings as object arrays of bytes.
            outputs: The outputs that are wanted; all if there are none.
            timeout: Seconds that it may take; `None` for no limit.

        Returns:
            An array for each output; strings as object arrays of bytes.

        Raises:
            ServingError: If the signature is not there, its inputs or outputs are others, or the graph refuses them.
        """
        signature, definition = self.signature(signature)
        _check_names(definition, inputs, outputs)
        if place := self._needs_xla.get(signature):
            raise ServingError(grpc.StatusCode.INTERNAL, f"XLA compilation disabled\n\t [[{place}]]")
        names = list(outputs) or sorted(definition.outputs)
        feeds = {self._handle(definition.inputs[key].name): inputs[key] for key in sorted(inputs)}
        fetches = [self._handle(definition.outputs[key].name) for key in names]
        try:
            return dict(zip(names, self._run(feeds, fetches, timeout), strict=True))
        except tf.errors.OpError as error:
            raise _serving_error(error) from error

    def close(self) -> None:
        """Free the model's memory; nothing may be running."""
        self._handles.clear()
        self._session.close()

    def _handle(self, tensor: str):
        """Return what the session calls a tensor of the graph."""
        if tensor not in self._handles:
            self._handles[tensor] = self._session.graph.get_tensor_by_name(tensor)._as_tf_output()
        return self._handles[tensor]

    def _run(self, feeds, fetches, timeout):
        """Run the session by its C++ entry: `Session.run` would compare shapes first, in words of its own."""
        milliseconds = 0 if timeout is None else max(1, int(1000 * timeout))
        options = tf.compat.v1.RunOptions(timeout_in_ms=milliseconds).SerializeToString()
        buffer = pywrap_tf_session.TF_NewBufferFromString(options)
        try:
            return pywrap_tf_session.TF_SessionRun_wrapper(self._session._session, buffer, feeds, fetches, [], None)
        finally:
            pywrap_tf_session.TF_DeleteBuffer(buffer)

    def _warm_up(self, folder: Path) -> None:
        """Send the version the requests that came with it. A file that is none is passed over, as TF-Serving does."""
        path = folder / WARM_UP
        if not path.is_file():
            return
        records = []
        try:
            records.extend(tf.data.TFRecordDataset(str(path)).take(MAX_WARM_UP + 1).as_numpy_iterator())
        except tf.errors.DataLossError:
            logging.getLogger(__name__).warning("%s: holds no warm-up requests", path)
        if len(records) > MAX_WARM_UP:
            raise _invalid(f"Number of warmup records exceeds the maximum ({MAX_WARM_UP})")
        for record in records:
            try:
                log = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError as error:
                raise _invalid(f"Failed to parse warmup record in {path}") from error
            request = log.predict_log.request
            self.predict(request.model_spec.signature_name, tensors.to_arrays(request.inputs))


def _check_names(definition, inputs, outputs) -> None:
    """Refuse inputs and outputs that the signature does not have."""
    expected, sent = set(definition.inputs), set(inputs)
    if len(sent) != len(expected):
        extra, missing = sent - expected, expected - sent
        raise _invalid(
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_braces(sent)}) != "
            f"len({_braces(expected)}). Sent extra: {_braces(extra)}. Missing but required: {_braces(missing)}."
        )
    for name in sorted(sent - expected):
        raise _invalid(
            f"input tensor alias not found in signature: {name}. Inputs expected to be in the set {_braces(expected)}."
        )
    for position, name in enumerate(outputs):
        if name not in definition.outputs:
            raise _invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{_braces(definition.outputs)}."
            )
        if name in outputs[:position]:
            raise _invalid(f"duplicate output tensor alias: {name}")


def _invalid(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def _braces(names) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _serving_error(error: tf.errors.OpError) -> ServingError:
    return ServingError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message)


class _quiet:
    """Holds TensorFlow's advice about its own old names back; they are what a model server runs."""

    def __enter__(self):
        self._level = tf.get_logger().level
        tf.get_logger().setLevel("ERROR")

    def __exit__(self, *_):
        tf.get_logger().setLevel(self._level)
