"""One tensor from JSON: nested lists of numbers, strings or base64 objects.

Lists are flattened one level after the other, each with a few calls that run in C over the whole level. Only when
something does not fit is the place searched, by halving, so that the error is the one that TensorFlow-Serving's walk
through the values comes upon first.
"""

import binascii
import re
from collections.abc import Callable
from itertools import chain
from typing import Any

import grpc
import numpy as np
import tensorflow as tf

from bsdenoise.server.json_text import Refusal, quoted

MAX_RANK = 64  # of a NumPy array
_KINDS = {str: "String", dict: "Object", list: "Array", type(None): "Null", int: "Number", float: "Number"}
_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
# What integers are read as before they are stored: the small ones wrap, as TensorFlow-Serving has it.
_READ_AS: dict[tf.DType, Any] = {
    tf.int8: np.int32,
    tf.int16: np.int32,
    tf.int32: np.int32,
    tf.uint8: np.int32,
    tf.int64: np.int64,
    tf.uint32: np.uint32,
    tf.uint64: np.uint64,
}
_FLOATS = (tf.float32, tf.float64)


def array(value: Any, dtype: tf.DType) -> np.ndarray:
    """Make an array of nested lists; of strings, an object array of bytes.

    Args:
        value: What JSON holds: nested lists, or one element.
        dtype: Type of the signature's input.

    Raises:
        Refusal: If values are of another type, or the lists of different lengths.
    """
    shape = shape_of(value)
    flat = flattened([value], shape, dtype)
    if flat is None:
        raise _fault(value, 0, shape, dtype)
    return flat.reshape(shape)


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape that the first items of nested lists have.

    Raises:
        Refusal: If they are nested too deeply for a tensor and its batch.
    """
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    if len(shape) >= MAX_RANK:
        raise Refusal(f"Lists must be nested less than {MAX_RANK} deep. Received: {len(shape)}")
    return tuple(shape)


def flattened(values: list, shape: tuple[int, ...], dtype: tf.DType) -> np.ndarray | None:
    """Return the elements of values that all have one shape, one after the other; `None` if something does not fit.

    Args:
        values: The values, nested lists each.
        shape: The shape that each of them should have.
        dtype: Type of the signature's input.
    """
    for size in shape:
        if set(map(type, values)) != {list} or set(map(len, values)) != {size}:
            return None
        values = list(chain.from_iterable(values))
    types = set(map(type, values))
    if dtype == tf.string:
        return _strings(values)
    if dtype == tf.bool:
        return np.array(values, bool) if types <= {bool} else None
    if dtype in _READ_AS:
        return _integers(values, dtype) if types <= {int} else None
    if dtype in _FLOATS:
        return _floats(values, dtype.as_numpy_dtype, int in types) if types <= {int, float} else None
    return None


def first_bad(values: list, is_good: Callable[[list], bool]) -> int:
    """Return the index of the first value that is not good, of values of which one is not.

    Args:
        values: The values.
        is_good: Tells whether all of some values are good.
    """
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_good(values[low:middle]) else (low, middle)
    return low


def is_base64(value: Any) -> bool:
    """Say whether a JSON value stands for bytes: {"b64": "…"}."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _fault(value: Any, level: int, shape: tuple[int, ...], dtype: tf.DType) -> Refusal:
    """Tell what is wrong with a value that does not fit, in TensorFlow-Serving's words."""
    if not isinstance(value, list):
        if level != len(shape):
            return Refusal(
                f"JSON Value: {quoted(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        return _element_fault(value, dtype)
    if level >= len(shape):
        return Refusal(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        return Refusal(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    index = first_bad(value, lambda part: flattened(part, shape[level + 1 :], dtype) is not None)
    return _fault(value[index], level + 1, shape, dtype)


def _element_fault(value: Any, dtype: tf.DType) -> Refusal:
    name = dtype.name.replace("float16", "half").replace("float32", "float").replace("float64", "double")
    if isinstance(value, dict) and dtype == tf.string:
        if is_base64(value):
            return Refusal("Unable to base64 decode")
        return Refusal(f"JSON Value: {quoted(value)} not formatted correctly for base64 data")
    if dtype in _FLOATS and type(value) in (int, float):
        return Refusal(f"Cannot convert JSON value: {quoted(value)} to {name} without loss of precision.")
    if not isinstance(value, dict) and dtype not in (tf.string, tf.bool, *_READ_AS, *_FLOATS):
        message = f"Conversion of JSON Value: {quoted(value)} to type: {name}"
        return Refusal(message, grpc.StatusCode.UNIMPLEMENTED)
    kind = str(value) if isinstance(value, bool) else _KINDS[type(value)]
    return Refusal(f"JSON Value: {quoted(value)} Type: {kind} is not of expected type: {name}")


def _integers(values: list, dtype: tf.DType) -> np.ndarray | None:
    read_as = _READ_AS[dtype]
    limits = np.iinfo(read_as)
    if values and not (limits.min <= min(values) and max(values) <= limits.max):
        return None
    return np.fromiter(values, read_as, len(values)).astype(dtype.as_numpy_dtype)


def _floats(values: list, dtype: type, has_integers: bool) -> np.ndarray | None:
    """Take NaN and infinity, but no number beyond the type's range and no integer that it might round."""
    limits = np.finfo(dtype)
    largest_integer = 2 ** (limits.nmant + 1) - 1
    wide = np.fromiter(values, np.float64, len(values))
    largest = np.max(np.abs(wide), initial=0, where=np.isfinite(wide))
    if largest > limits.max:
        return None
    if has_integers and largest > largest_integer:
        if any(isinstance(value, int) and abs(value) > largest_integer for value in values):
            return None
    return wide.astype(dtype)


def _strings(values: list) -> np.ndarray | None:
    result = np.empty(len(values), object)
    for index, value in enumerate(values):
        if isinstance(value, str):
            result[index] = value.encode()
        elif not is_base64(value) or (data := _decoded(value["b64"])) is None:
            return None
        else:
            result[index] = data
    return result


def _decoded(text: str) -> bytes | None:
    """Decode base64; white space is passed over, and all of the padding may be left away. `None` if it is none."""
    if any(space in text for space in " \n\r\t\v\f"):
        text = "".join(text.split())
    digits = text.rstrip("=")
    missing = -len(digits) % 4
    if missing == 3 or len(text) - len(digits) not in (0, missing) or not _BASE64.fullmatch(digits):
        return None
    return binascii.a2b_base64(digits + "=" * missing)
