"""From arrays to JSON, as TensorFlow-Serving answers: `predictions` row by row, or `outputs` as whole batches."""

import base64
import math
import re
from typing import Any

import grpc
import numpy as np
import orjson

from bsdenoise.server.errors import ServingError

BYTES_SUFFIX = "_bytes"  # outputs whose names end so are sent in base64
_NUMBERS = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")


def predictions(outputs: dict[str, np.ndarray], is_row_form: bool) -> bytes:
    """Write an answer. A single output goes without its name. Floats are written so that nothing is lost.

    Args:
        outputs: An array for each output.
        is_row_form: Whether one element is written per image.

    Raises:
        ServingError: If an output has a type that JSON is not written for, or the batches of the row form differ.
    """
    columns = {name: _column(name, array) for name, array in sorted(outputs.items())}
    if not is_row_form:
        return b'{\n    "outputs": ' + _dumped(_only(columns)) + b"\n}"
    sizes = {name: array.shape[0] if array.ndim else None for name, array in outputs.items()}
    if None in sizes.values() or len(set(sizes.values())) > 1:
        raise ServingError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Tensors of the row form must have one batch size. Received: {sizes}. Ask with 'inputs' instead.",
        )
    if len(columns) == 1:
        return b'{\n    "predictions": ' + _dumped(_only(columns)) + b"\n}"
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return b'{\n    "predictions": ' + _dumped(rows) + b"\n}"


def error(message: str) -> bytes:
    """Write an error."""
    return b'{\n    "error": ' + orjson.dumps(message.encode(errors="replace").decode(errors="replace")) + b"\n}"


def _only(columns: dict) -> Any:
    return next(iter(columns.values())) if len(columns) == 1 else columns


def _column(name: str, array: np.ndarray) -> Any:
    """Return what stands for an array: itself, or lists of strings."""
    if array.dtype.kind in "OSU":
        write = _base64 if name.endswith(BYTES_SUFFIX) else _string
        return _mapped(write, array.tolist())
    if array.dtype.name not in _NUMBERS:
        kind = {"float16": "half"}.get(array.dtype.name, array.dtype.name)
        raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"Failed to write JSON value for tensor type: {kind}")
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _mapped(function, value: Any) -> Any:
    return [_mapped(function, item) for item in value] if isinstance(value, list) else function(value)


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _string(value: bytes) -> str:
    return value.decode(errors="replace")


def _dumped(value: Any) -> bytes:
    if isinstance(value, dict):
        items = (orjson.dumps(name) + b": " + _dumped(item) for name, item in value.items())
        return b"{" + b", ".join(items) + b"}"
    if isinstance(value, list):
        return b"[" + b", ".join(map(_dumped, value)) + b"]"
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind == "f" and not np.isfinite(value).all():
        return _with_nan(text, np.ravel(value))
    return text


def _with_nan(text: bytes, values: np.ndarray) -> bytes:
    """Put in NaN and infinities, which JSON proper has none of: TensorFlow-Serving writes them, orjson says null."""
    words = (
        b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity" for value in _not_finite(values)
    )
    return re.sub(b"null", lambda _: next(words), text)


def _not_finite(values: np.ndarray) -> list[float]:
    return values[~np.isfinite(values)].tolist()
