"""One loaded version of a model, run as TensorFlow-Serving runs it.

Signatures go through the C++ entry of a TF 1 session, which looks neither at shapes nor at values: what the graph
refuses is refused in the graph's own words, and what it lets through is seen here too.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import prediction_log_pb2

from bsdenoise.server import xla
from bsdenoise.server.errors import ServingError

WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"
DEFAULT_SIGNATURE = "serving_default"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Servable:
    """One version of a model in memory.

    Args:
        name: The model's name.
        version: The version's number.
        folder: The folder of the SavedModel.
        timeout: Seconds that one prediction may take; `None` for no limit.

    Attributes:
        signature_defs: The `SignatureDef` of each signature, by its name.

    Raises:
        ServingError: If the folder cannot be loaded, or the model refuses one of its warm-up requests.
    """

    def __init__(self, name: str, version: int, folder: Path, timeout: float | None = None):
        self.name = name
        self.version = version
        self._timeout = timeout
        self._callables: dict = {}
        self._lock = threading.Lock()
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default(), _quiet():
                meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
            self.signature_defs = dict(meta_graph.signature_def)
            self._needs_xla = xla.signatures_that_need_it(meta_graph)
            self._warm_up(folder)
        except ServingError:
            self.close()
            raise
        except tf.errors.OpError as error:
            self.close()
            raise _serving_error(error) from error
        except Exception as error:  # a broken file gives errors of every type
            self.close()
            raise ServingError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}") from error

    def signature(self, name: str) -> tuple[str, object]:
        """Gives the name and the `SignatureDef` that are meant by a name, of which "" is the default's.

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
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Runs a signature. It may be called from many threads at once.

        Args:
            signature: Its name, "" for the default.
            inputs: An array for each of its inputs; strings as object arrays of bytes.
            outputs: The outputs that are wanted; all if there are none.

        Returns:
            An array for each output; strings as object arrays of bytes.

        Raises:
            ServingError: If the signature is not there, its inputs or outputs are others, or the graph refuses them.
        """
        signature, definition = self.signature(signature)
        _check_names(definition, inputs, outputs)
        for key, array in inputs.items():
            _check_type(key, array, definition.inputs[key])
        if place := self._needs_xla.get(signature):
            raise ServingError(grpc.StatusCode.INTERNAL, f"XLA compilation disabled\n\t [[{place}]]")
        names, wanted, call = self._callable(signature, definition, tuple(outputs))
        try:
            return dict(zip(wanted, call(*(inputs[key] for key in names)), strict=True))
        except tf.errors.OpError as error:
            raise _serving_error(error) from error

    def close(self) -> None:
        """Frees the model's memory; nothing may be running."""
        self._callables.clear()
        self._session.close()

    def _callable(self, signature, definition, outputs):
        """Gives input names, output names and a function from arrays to arrays."""
        key = (signature, outputs)
        with self._lock:
            if key not in self._callables:
                names = sorted(definition.inputs)
                wanted = list(outputs) or sorted(definition.outputs)
                options = config_pb2.CallableOptions()
                options.feed.extend(definition.inputs[name].name for name in names)
                options.fetch.extend(definition.outputs[name].name for name in wanted)
                if self._timeout:
                    options.run_options.timeout_in_ms = int(1000 * self._timeout)
                self._callables[key] = names, wanted, self._session._make_callable_from_options(options)
            return self._callables[key]

    def _warm_up(self, folder: Path) -> None:
        """Sends the version the requests that came with it. A file that is none is passed over, as TF-Serving does."""
        path = folder / WARM_UP
        if not path.is_file():
            return
        records = []
        try:
            records.extend(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        except tf.errors.DataLossError:
            logging.getLogger(__name__).warning("%s: holds no warm-up requests", path)
        for record in records:
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            self.predict(request.model_spec.signature_name, inputs)


def _check_names(definition, inputs, outputs) -> None:
    """Refuses inputs and outputs that the signature does not have."""
    expected, sent = set(definition.inputs), set(inputs)
    if sent != expected:
        extra, missing = sent - expected, expected - sent
        raise ServingError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_braces(sent)}) != "
            f"len({_braces(expected)}). Sent extra: {_braces(extra)}. Missing but required: {_braces(missing)}.",
        )
    for name in outputs:
        if name not in definition.outputs:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"output tensor alias not found in signature: {name}")


def _check_type(name, array, info) -> None:
    """Refuses an array of another type than the signature's."""
    expected = tf.as_dtype(info.dtype)
    received = tf.string if array.dtype.kind in "OSU" else tf.as_dtype(array.dtype)
    if received != expected:
        raise ServingError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Expects arg[0] to be {expected.name} but {received.name} is provided: input {name!r}",
        )


def _braces(names) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _serving_error(error: tf.errors.OpError) -> ServingError:
    code = _CODES.get(error.error_code, grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServingError(code, "Timed out")
    return ServingError(code, error.message)


class _quiet:
    """Holds TensorFlow's advice about its own old names back; they are what a model server runs."""

    def __enter__(self):
        self._level = tf.get_logger().level
        tf.get_logger().setLevel("ERROR")

    def __exit__(self, *_):
        tf.get_logger().setLevel(self._level)
