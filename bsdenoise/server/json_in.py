"""From JSON to arrays, by TensorFlow-Serving's rules and with its words for what breaks them.

A request names a signature and holds either `instances` (the row form: one element per image) or `inputs` (the column
form: whole batches). Nested lists are gone through level by level with tools that run in C, so that images of
megapixels take fractions of a second.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import grpc
import numpy as np
import rapidjson
import tensorflow as tf

from bsdenoise.server.errors import ServingError

QUOTED = 256  # characters of JSON that errors quote, up to the end of a token
INDENTATION = 4
_KINDS = {str: "String", dict: "Object", list: "Array", type(None): "Null", int: "Number", float: "Number"}


class Refusal(ServingError):
    """A request that says something else than the signature takes."""

    def __init__(self, message: str):
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, message)


def parse(body: bytes) -> dict:
    """Reads the text of a request.

    Raises:
        Refusal: If it is no JSON object.
    """
    if not body:
        raise Refusal("JSON Parse error: The document is empty")
    try:
        document = rapidjson.loads(body)
    except RecursionError:
        raise Refusal("JSON Parse error: The document is nested too deeply.") from None
    except UnicodeDecodeError as error:
        raise Refusal(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    except rapidjson.JSONDecodeError as error:
        match = re.fullmatch(r"Parse error at offset (\d+): (.*)", str(error))
        raise Refusal(f"JSON Parse error: {match[2]} at offset: {match[1]}" if match else str(error)) from None
    if not isinstance(document, dict):
        raise Refusal(f"JSON Value: {quoted(document)} Is not object")
    return document


def signature_name(document: dict) -> str:
    """Gives the name of the signature that is asked; "" for the default.

    Raises:
        Refusal: If it is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise Refusal(
            f"JSON Value: {quoted(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def is_row_form(document: dict) -> bool:
    """Says whether the request holds `instances`, so that the answer is to hold `predictions`.

    Raises:
        Refusal: If it holds both kinds of inputs, or none.
    """
    if "instances" in document and "inputs" in document:
        raise Refusal(
            f"JSON Value: {quoted(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if "instances" not in document and "inputs" not in document:
        raise Refusal("Missing 'inputs' or 'instances' key")
    return "instances" in document


def arrays(document: dict, definition: Any) -> dict[str, np.ndarray]:
    """Gives an array for each input of a signature.

    Args:
        document: The request.
        definition: The `SignatureDef`.

    Raises:
        Refusal: If inputs are missing, or values are of another type or form.
    """
    dtypes = {name: tf.as_dtype(info.dtype) for name, info in definition.inputs.items()}
    if is_row_form(document):
        return _from_rows(document, dtypes)
    return _from_columns(document["inputs"], dtypes)


def _from_columns(value: Any, dtypes: dict) -> dict[str, np.ndarray]:
    if not isinstance(value, dict) or _is_base64(value):
        if len(dtypes) != 1:
            raise Refusal(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        (name,) = dtypes
        return {name: _array(value, dtypes[name])}
    for name in dtypes:
        if name not in value:
            raise Refusal(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(value[name], dtype) for name, dtype in dtypes.items()}


def _from_rows(document: dict, dtypes: dict) -> dict[str, np.ndarray]:
    rows = document["instances"]
    if not isinstance(rows, list):
        raise Refusal(f"JSON Value: {quoted(document)} Expecting 'instances' to be an list/array")
    if not rows:
        raise Refusal(f"JSON Value: {quoted(document)} No values in 'instances' array")
    if not _is_named(rows[0]):
        if len(dtypes) != 1:
            raise Refusal(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                "tensorinfo_map"
            )
        (name,) = dtypes
        return {name: _stacked(rows, dtypes[name], "")}
    for index, row in enumerate(rows):
        if not _is_named(row):
            raise Refusal(f"Failed to process element: {index} of 'instances' list. JSON object: is not object")
        for key in row:
            if key not in dtypes:
                raise _failed(index, key, f"JSON object: does not have named input: {key}")
        if len(row) != len(dtypes):
            missing = ",".join(sorted(set(dtypes) - set(row)))
            raise Refusal(
                f"Failed to process element: {index} of 'instances' list. JSON object: does not have named input: "
                f"{missing}"
            )
    return {name: _stacked([row[name] for row in rows], dtype, name) for name, dtype in dtypes.items()}


def _stacked(rows: list, dtype: tf.DType, key: str) -> np.ndarray:
    """Makes one array of elements of one shape; the first is the measure of the others."""
    try:
        return _array(rows, dtype)
    except Refusal:
        pass  # which element it is, is found now
    shape = None
    for index, row in enumerate(rows):
        try:
            array = _array(row, dtype)
        except Refusal as error:
            raise _failed(index, key, error.message) from None
        if shape is None:
            shape = array.shape
        elif array.size != np.prod(shape, dtype=int):
            expected = np.prod(shape, dtype=int)
            raise _failed(index, key, f"Expecting tensor size: {expected} but got: {array.size}")
        elif array.shape != shape:
            raise _failed(index, key, f"Expecting tensor shape: {list(shape)} but got: {list(array.shape)}")
    raise AssertionError("all elements are in order")


def _failed(index: int, key: str, reason: str) -> Refusal:
    where = f"{index} key: {key}" if key else f"{index}"
    return Refusal(f"Failed to process element: {where} of 'instances' list. Error: INVALID_ARGUMENT: {reason}")


def _array(value: Any, dtype: tf.DType) -> np.ndarray:
    """Makes an array of nested lists."""
    shape: list[int] = []
    flat: list = [value]
    while flat and isinstance(flat[0], list):
        level = len(shape)
        if set(map(type, flat)) != {list}:
            other = next(item for item in flat if not isinstance(item, list))
            raise Refusal(f"JSON Value: {quoted(other)} Encountered a value at level: {level} where lists are expected")
        size = len(flat[0])
        if set(map(len, flat)) != {size}:
            other = next(len(item) for item in flat if len(item) != size)
            raise Refusal(f"Encountered list at unexpected size: {other} at level: {level} expected size: {size}")
        shape.append(size)
        flat = list(chain.from_iterable(flat))
    if dtype == tf.string:
        array = np.empty(len(flat), object)
        array[:] = [_bytes(item) for item in flat]
    else:
        _check_types(flat, dtype)
        array = _numbers(flat, dtype.as_numpy_dtype)
    return array.reshape(shape)


def _check_types(flat: list, dtype: tf.DType) -> None:
    """Refuses what is not of the type; integers are taken for floats, nothing is taken for bools or integers."""
    allowed = {bool} if dtype == tf.bool else {int, float} if dtype.is_floating else {int}
    if not set(map(type, flat)) <= allowed:
        other = next(item for item in flat if type(item) not in allowed)
        kind = str(other) if isinstance(other, bool) else _KINDS[type(other)]
        name = dtype.name.replace("float32", "float").replace("float64", "double")
        raise Refusal(f"JSON Value: {quoted(other)} Type: {kind} is not of expected type: {name}")


def _numbers(flat: list, dtype: type) -> np.ndarray:
    """Makes numbers of a type; integers beyond its range wrap, as in C."""
    if np.issubdtype(dtype, np.integer):
        try:
            return np.array(flat, np.int64).astype(dtype)
        except OverflowError:
            raise Refusal("JSON Value: a number is beyond 64 bits") from None
    with np.errstate(over="ignore"):
        try:
            return np.array(flat, dtype)
        except OverflowError:
            raise Refusal("JSON Value: a number is beyond the range of floats") from None


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if _is_base64(value):
        try:
            text = "".join(value["b64"].split())
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise Refusal("Unable to base64 decode") from None
    kind = str(value) if isinstance(value, bool) else _KINDS[type(value)]
    raise Refusal(f"JSON Value: {quoted(value)} Type: {kind} is not of expected type: string")


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def quoted(value: Any) -> str:
    """Writes the beginning of a JSON value as TensorFlow-Serving quotes it: objects indented, lists on one line."""
    text, length = [], 0
    for token in _tokens(value, 0):
        text.append(token)
        length += len(token)
        if length >= QUOTED:
            break
    return "".join(text)


def _tokens(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for number, (key, item) in enumerate(value.items()):
            yield ("," if number else "{") + "\n" + " " * INDENTATION * (depth + 1)
            yield rapidjson.dumps(key) + ": "
            yield from _tokens(item, depth + 1)
        yield "\n" + " " * INDENTATION * depth + "}"
    elif isinstance(value, list):
        yield "["
        for number, item in enumerate(value):
            if number:
                yield ", "
            yield from _tokens(item, depth)
        yield "]"
    elif isinstance(value, str):
        yield rapidjson.dumps(value[:QUOTED])
    else:
        yield rapidjson.dumps(value)
