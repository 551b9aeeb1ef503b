"""From JSON to arrays, by TensorFlow-Serving's rules and with its words for what breaks them.

A request names a signature and holds either `instances` (the row form: one element per image) or `inputs` (the column
form: whole batches).
"""

from typing import Any

import numpy as np
import tensorflow as tf

from bsdenoise.server.json_tensor import array, first_bad, flattened, is_base64, shape_of
from bsdenoise.server.json_text import Refusal, parse, quoted

__all__ = ["arrays", "check_examples", "is_row_form", "parse", "signature_name"]


def signature_name(document: dict) -> str:
    """Return the name of the signature that is asked; "" for the default.

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
    """Say whether the request holds `instances`, so that the answer is to hold `predictions`.

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
    """Return an array for each input of a signature.

    Args:
        document: The request.
        definition: The `SignatureDef`.

    Raises:
        Refusal: If inputs are missing, or values are of another type or form.
    """
    dtypes = {name: tf.as_dtype(info.dtype) for name, info in definition.inputs.items()}
    if not dtypes:
        raise Refusal(f"Failed to get input map for signature: {signature_name(document) or 'DEFAULT'}")
    if is_row_form(document):
        return _from_rows(document, dtypes)
    return _from_columns(document["inputs"], dtypes)


def check_examples(document: dict, method: str) -> None:
    """Look whether a request to classify or to regress holds examples.

    Args:
        document: The request.
        method: "classify" or "regress".

    Raises:
        Refusal: If it does not.
    """
    if "examples" not in document:
        raise Refusal(
            f"JSON Value: {quoted(document)} When method is {method}, key 'examples' is expected and was not found"
        )
    if not isinstance(document["examples"], list):
        raise Refusal(f"JSON Value: {quoted(document)} Expecting 'examples' value to be an list/array")
    if not document["examples"]:
        raise Refusal(f"JSON Value: {quoted(document)} 'examples' value is an empty array")


def _from_columns(value: Any, dtypes: dict) -> dict[str, np.ndarray]:
    if not _is_named(value):
        if len(dtypes) != 1:
            raise Refusal(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        (name,) = dtypes
        return {name: array(value, dtypes[name])}
    for name in dtypes:
        if name not in value:
            raise Refusal(f"Missing named input: {name} in 'inputs' object.")
    return {name: array(value[name], dtype) for name, dtype in dtypes.items()}


def _from_rows(document: dict, dtypes: dict) -> dict[str, np.ndarray]:
    """Stack elements of one shape; the first is the measure of the others."""
    rows = document["instances"]
    if not isinstance(rows, list):
        raise Refusal(f"JSON Value: {quoted(document)} Expecting 'instances' to be an list/array")
    if not rows:
        raise Refusal(f"JSON Value: {quoted(document)} No values in 'instances' array")
    if not _is_named(rows[0]) and len(dtypes) != 1:
        raise Refusal(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if _is_named(rows[0]):
        shapes = {name: shape_of(rows[0][name]) for name in dtypes if name in rows[0]}
        stack, fault = _stacked_objects, _object_fault
    else:
        shapes = {name: shape_of(rows[0]) for name in dtypes}
        stack, fault = _stacked_values, _value_fault
    columns = stack(rows, dtypes, shapes)
    if columns is None:
        index = first_bad(rows, lambda part: stack(part, dtypes, shapes) is not None)
        raise Refusal(fault(rows[index], index, dtypes, shapes))
    return {name: column.reshape(len(rows), *shapes[name]) for name, column in columns.items()}


def _stacked_values(rows: list, dtypes: dict, shapes: dict) -> dict[str, np.ndarray] | None:
    """Return the elements of all rows for the only input; `None` if one does not fit."""
    ((name, dtype),) = dtypes.items()
    if any(map(_is_named, rows)):
        return None
    column = flattened(rows, shapes[name], dtype)
    return None if column is None else {name: column}


def _stacked_objects(rows: list, dtypes: dict, shapes: dict) -> dict[str, np.ndarray] | None:
    """Return the elements of all rows for each input; `None` if one does not fit."""
    if not all(_is_named(row) and row.keys() == dtypes.keys() for row in rows):
        return None
    columns = {}
    for name, dtype in dtypes.items():
        column = flattened([row[name] for row in rows], shapes[name], dtype)
        if column is None:
            return None
        columns[name] = column
    return columns


def _value_fault(row: Any, index: int, dtypes: dict, shapes: dict) -> str:
    if _is_named(row):
        return f"Expecting value/list but got object at item {index} of input list"
    ((name, dtype),) = dtypes.items()
    return f"Failed to process element: {index} of 'instances' list. Error: {_item_fault(row, dtype, shapes[name])}"


def _object_fault(row: Any, index: int, dtypes: dict, shapes: dict) -> str:
    if not _is_named(row):
        return f"Expecting object but got list at item {index} of input list"
    for key, value in row.items():
        where = f"Failed to process element: {index} key: {key} of 'instances' list. Error: "
        if key not in dtypes:
            return f"{where}INVALID_ARGUMENT: JSON object: does not have named input: {key}"
        if fault := _item_fault(value, dtypes[key], shapes.get(key, ())):
            return where + fault
    return (
        f"Failed to process element: {index} of 'instances' list. JSON object: {quoted(row)} keys must be equal to: "
        + ",".join(sorted(dtypes))
    )


def _item_fault(value: Any, dtype: tf.DType, shape: tuple[int, ...]) -> str | None:
    """Say what is wrong with an element of a row, which should have a shape; `None` for nothing."""
    try:
        item = array(value, dtype)
    except Refusal as error:
        return f"{error.code.name}: {error.message}"
    size = np.prod(shape, dtype=np.int64)
    if item.size != size:
        return f"INVALID_ARGUMENT: Expecting tensor size: {size} but got: {item.size}"
    if item.shape != shape:
        return f"INVALID_ARGUMENT: Expecting shape {_listed(shape)} but got: {_listed(item.shape)}"
    return None


def _listed(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)
