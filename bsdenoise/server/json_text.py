"""The text of a request: JSON to Python's values, and back to the words that quote them.

It knows nothing of tensors, and needs no TensorFlow.
"""

import contextlib
import gc
import re
from collections.abc import Iterator
from typing import Any

import grpc
import rapidjson

from bsdenoise.server.errors import ServingError

QUOTED = 256  # characters of JSON that errors quote, up to the end of a token
INDENTATION = 4
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# RapidJSON's own numbers, as TensorFlow-Serving has them (float64 to a few units in the last place, which float32 does
# not see): twice as fast as Python's, and an integer of thousands of digits is refused like any number too large.
NUMBERS = rapidjson.NM_NATIVE | rapidjson.NM_NAN


class Refusal(ServingError):
    """A request that says something else than the signature takes."""

    def __init__(self, message: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT):
        super().__init__(code, message)


def parse(body: bytes) -> dict:
    """Read the text of a request.

    Raises:
        Refusal: If it is no JSON object.
    """
    if not body:
        raise Refusal("JSON Parse error: The document is empty")
    try:
        with _without_garbage_collection():
            document = rapidjson.loads(body.removeprefix(BYTE_ORDER_MARK), number_mode=NUMBERS)
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


def quoted(value: Any) -> str:
    """Write the beginning of a JSON value as TensorFlow-Serving quotes it: objects indented, lists on one line."""
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


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Hold the search for cycles off: JSON makes none, and beside TensorFlow's objects it takes most of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
