"""JSON to arrays and back: against a slow walk, value by value, that is written from the rules of TF-Serving."""

import base64
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import rapidjson
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bsdenoise.server import json_in, json_out
from bsdenoise.server.errors import ServingError

# Numbers of types.proto.
FLOAT, DOUBLE, INT32, UINT8, INT16, INT8, STRING, INT64, BOOL, HALF, UINT32, UINT64 = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    9,
    10,
    19,
    22,
    23,
)
INTEGERS = {
    INT32: ("int32", 32, True, np.int32),
    UINT8: ("uint8", 32, True, np.uint8),
    INT16: ("int16", 32, True, np.int16),
    INT8: ("int8", 32, True, np.int8),
    INT64: ("int64", 64, True, np.int64),
    UINT32: ("uint32", 32, False, np.uint32),
    UINT64: ("uint64", 64, False, np.uint64),
}


def signature(**dtypes):
    return SimpleNamespace(inputs={name: SimpleNamespace(dtype=dtype) for name, dtype in dtypes.items()})


def read(document, **dtypes):
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return json_in.arrays(json_in.parse(text), signature(**dtypes))


def refusal(document, **dtypes):
    with pytest.raises(ServingError) as caught:
        read(document, **dtypes)
    assert caught.value.http_status == 400
    return caught.value.message


class No(Exception):
    """The slow walk's refusal."""


def slow_shape(value):
    return [len(value)] + (slow_shape(value[0]) if value else []) if isinstance(value, list) else []


def slow_walk(value, level, shape, dtype, out):
    if not isinstance(value, list):
        if level != len(shape):
            raise No(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        out.append(slow_element(value, dtype))
        return
    if level >= len(shape):
        raise No(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise No(f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}")
    for item in value:
        slow_walk(item, level + 1, shape, dtype, out)


def slow_element(value, dtype):
    name = {FLOAT: "float", DOUBLE: "double", STRING: "string", BOOL: "bool"}.get(dtype) or INTEGERS[dtype][0]
    kind = {bool: str(value), int: "Number", float: "Number", str: "String", type(None): "Null"}[type(value)]
    wrong = No(f"JSON Value: {shown(value)} Type: {kind} is not of expected type: {name}")
    if dtype in (FLOAT, DOUBLE):
        if kind != "Number":
            raise wrong
        bits, top = (24, float(np.finfo("f4").max)) if dtype == FLOAT else (53, sys.float_info.max)
        if abs(value) > (2**bits - 1 if isinstance(value, int) else top) and abs(value) != float("inf"):
            raise No(f"Cannot convert JSON value: {shown(value)} to {name} without loss of precision.")
        return float(value)
    if dtype == STRING:
        if kind != "String":
            raise wrong
        return value.encode()
    if dtype == BOOL:
        if not isinstance(value, bool):
            raise wrong
        return value
    _, bits, is_signed, _ = INTEGERS[dtype]
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if is_signed else (0, 2**bits)
    if type(value) is not int or not low <= value < high:
        raise wrong
    return value


def shown(value):
    return rapidjson.dumps(value)


def slow_rows(rows, dtype):
    """Gives shape and elements of rows without names."""
    shapes, elements = [], []
    for index, row in enumerate(rows):
        out = []
        try:
            slow_walk(row, 0, slow_shape(row), dtype, out)
            if shapes and len(out) != len(elements[0]):
                raise No(f"Expecting tensor size: {len(elements[0])} but got: {len(out)}")
            if shapes and slow_shape(row) != shapes[0]:
                one, other = (str(shape).replace(" ", "") for shape in (shapes[0], slow_shape(row)))
                raise No(f"Expecting shape {one} but got: {other}")
        except No as error:
            raise No(
                f"Failed to process element: {index} of 'instances' list. Error: INVALID_ARGUMENT: {error}"
            ) from None
        shapes.append(slow_shape(row))
        elements.append(out)
    return [len(rows), *shapes[0]], [value for out in elements for value in out]


def stored(elements, dtype):
    """Keeps the lowest bits of integers, the nearest number of floats."""
    if dtype in INTEGERS:
        kind = INTEGERS[dtype][3]
        bits = np.iinfo(kind).bits
        return [value % 2**bits - (2**bits if value % 2**bits > np.iinfo(kind).max else 0) for value in elements]
    return [float(np.float32(value)) for value in elements] if dtype == FLOAT else elements


# RapidJSON reads longer fractions to a few units in the last of 53 binary places, here as in TF-Serving.
QUARTERS = st.integers(-4000, 4000).map(lambda number: number / 4)
ELEMENTS = st.one_of(
    st.integers(-4, 300),
    st.sampled_from([2**24 - 1, 2**24, -(2**24), 2**31 - 1, 2**31, -(2**31), 2**53, 2**63, 2**64 - 1, -1]),
    QUARTERS,
    st.sampled_from([1e39, -1e300, 0.5, float("inf")]),
    st.booleans(),
    st.none(),
    st.sampled_from(["", "a", "ü"]),
)


@st.composite
def nested(draw):
    """Nested lists of one form, of one kind of element, with up to two faults."""
    kind = draw(st.sampled_from([st.integers(0, 99), QUARTERS, st.booleans(), st.text("ab", max_size=2)]))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    value = np.array([draw(kind) for _ in range(int(np.prod(shape)))], object).reshape(shape).tolist()
    for _ in range(draw(st.integers(0, 2))):
        place = value
        while isinstance(place, list) and place:
            index = draw(st.integers(0, len(place) - 1))
            if not isinstance(place[index], list) or draw(st.booleans()):
                place[index] = draw(st.one_of(ELEMENTS, st.lists(ELEMENTS, max_size=2)))
                break
            place = place[index]
    return value


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE, INT32, UINT8, INT16, INT8, INT64, UINT32, UINT64, BOOL, STRING])
@settings(max_examples=30, deadline=None)
@given(value=nested())
def test_inputs_are_read_as_the_slow_walk_reads_them(value, dtype):
    elements = []
    try:
        slow_walk(value, 0, slow_shape(value), dtype, elements)
    except No as error:
        assert refusal({"inputs": value}, x=dtype) == str(error)
        return
    array = read({"inputs": value}, x=dtype)["x"]
    assert list(array.shape) == slow_shape(value)
    assert array.ravel().tolist() == stored(elements, dtype)


@pytest.mark.parametrize("dtype", [FLOAT, UINT8, STRING])
@settings(max_examples=40, deadline=None)
@given(value=nested(), more=st.lists(nested(), max_size=2), copies=st.integers(1, 3))
def test_instances_are_read_as_the_slow_walk_reads_them(value, more, copies, dtype):
    rows = [value] * copies + more
    try:
        shape, elements = slow_rows(rows, dtype)
    except No as error:
        assert refusal({"instances": rows}, x=dtype) == str(error)
        assert refusal({"instances": [{"x": row} for row in rows]}, x=dtype) == str(error).replace(
            " of 'instances'", " key: x of 'instances'"
        )
        return
    for document in ({"instances": rows}, {"instances": [{"x": row} for row in rows]}):
        array = read(document, x=dtype)["x"]
        assert list(array.shape) == shape
        assert array.ravel().tolist() == stored(elements, dtype)


@pytest.mark.parametrize(
    "document, dtypes, message",
    [
        ({"inputs": 1}, {"x": 1, "y": 1}, "inputs is a plain value/list, but expecting an object as multiple input"),
        ({"instances": [1]}, {"x": 1, "y": 1}, "instances is a plain list, but expecting list of objects as multiple"),
        ({"inputs": {"x": 1}}, {"x": 1, "y": 1}, "Missing named input: y in 'inputs' object."),
        ({"instances": [{"x": 1}, 2]}, {"x": 1}, "Expecting object but got list at item 1 of input list"),
        ({"instances": [2, {"x": 1}]}, {"x": 1}, "Expecting value/list but got object at item 1 of input list"),
        ({"instances": [{"x": 1}]}, {"x": 1, "y": 1}, "element: 0 of 'instances' list. JSON object: {"),
        ({"instances": [{"x": 1, "z": 1}]}, {"x": 1}, "INVALID_ARGUMENT: JSON object: does not have named input: z"),
        ({"inputs": []}, {}, "Failed to get input map for signature: DEFAULT"),
        ({"inputs": {"b64": "AA=="}}, {"x": FLOAT}, "Type: Object is not of expected type: float"),
        ({"inputs": {"x": {"b64": "", "c": 1}}}, {"x": STRING}, "} not formatted correctly for base64 data"),
        ({"inputs": [1], "instances": [1]}, {"x": 1}, "expecting only one of 'inputs' or 'instances' keys to exist "),
        ({"input": [1]}, {"x": 1}, "Missing 'inputs' or 'instances' key"),
        ({"instances": {"x": 1}}, {"x": 1}, "Expecting 'instances' to be an list/array"),
        ({"instances": []}, {"x": 1}, "No values in 'instances' array"),
    ],
)  # fmt: skip
def test_requests_of_the_wrong_form_are_refused(document, dtypes, message):
    assert message in refusal(document, **dtypes)


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "JSON Parse error: The document is empty"),
        (b" ", "JSON Parse error: The document is empty. at offset: 1"),
        (b'{"a": 1', "JSON Parse error: Missing a comma or '}' after an object member. at offset: 7"),
        (b'{"a": 1}x', "JSON Parse error: The document root must not be followed by other values. at offset: 8"),
        (b'["\xff"]', "JSON Parse error: Invalid encoding in string. at offset: 2"),
        (b"[1e999]", "JSON Parse error: Number too big to be stored in double. at offset: 1"),
        (b'{"inputs": %s}' % (b"9" * 5000), "JSON Parse error: Number too big to be stored in double. at offset: 11"),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b"[" * 100_000, "JSON Parse error: The document is nested too deeply."),
        (b'{"a":' * 100_000, "JSON Parse error: The document is nested too deeply."),
        (b'{"inputs": %s}' % (b"[" * 900 + b"]" * 900), "Lists must be nested less than 64 deep. Received: 900"),
        (b'{"instances": [%s]}' % (b"[" * 64 + b"]" * 64), "Lists must be nested less than 64 deep. Received: 64"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_text_that_is_no_request_is_refused(text, message):
    assert refusal(text, x=FLOAT) == message


def test_the_deepest_lists_make_the_largest_rank():
    assert read(b'{"instances": [%s1%s]}' % (b"[" * 63, b"]" * 63), x=FLOAT)["x"].shape == (1,) * 64


def test_a_type_that_json_has_no_numbers_for_is_refused():
    with pytest.raises(ServingError, match="Conversion of JSON Value: 1 to type: half") as caught:
        read({"inputs": [1]}, x=HALF)
    assert caught.value.http_status == 501


def test_a_signature_name_must_be_a_string():
    assert json_in.signature_name({"signature_name": "a"}) == "a"
    assert json_in.signature_name({}) == ""
    with pytest.raises(ServingError, match="'signature_name' key must be a string value"):
        json_in.signature_name({"signature_name": None})


@pytest.mark.parametrize(
    "document, message",
    [
        ({}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": 1}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
    ],
)
def test_examples_must_be_there(document, message):
    with pytest.raises(ServingError, match=message):
        json_in.check_examples(document, "classify")


def test_numbers_that_json_has_not_are_taken():
    array = read(b'\xef\xbb\xbf{"inputs": [NaN, Infinity, -Infinity, 1e-50, 123456789012345678901234567890]}', x=FLOAT)[
        "x"
    ]
    np.testing.assert_array_equal(array, np.float32([np.nan, np.inf, -np.inf, 0, 123456789012345678901234567890.0]))


@given(data=st.binary(max_size=40), spread=st.booleans(), padded=st.booleans())
def test_base64_is_decoded(data, spread, padded):
    text = base64.b64encode(data).decode()
    text = text if padded else text.rstrip("=")
    text = "\n".join(text) if spread else text
    for document in ({"instances": [{"b64": text}]}, {"inputs": {"x": [{"b64": text}]}}):
        assert read(document, x=STRING)["x"].tolist() == [data]


@pytest.mark.parametrize("text", ["***", "A", "AAAAA", "AA=", "AA===", "A===", "AA==AA", "AA-_", "ÄÄ=="])
def test_what_is_no_base64_is_refused(text):
    assert refusal({"inputs": [{"b64": text}]}, x=STRING) == "Unable to base64 decode"


def test_long_values_are_quoted_up_to_a_length():
    text = json_in.quoted({"inputs": [1.5] * 10_000})
    assert text.startswith('{\n    "inputs": [1.5, 1.5, ') and 256 <= len(text) < 262
    assert json_in.quoted({"a": {"b": []}, "c": None}) == '{\n    "a": {\n        "b": []\n    },\n    "c": null\n}'


def num_calls(function):
    """Counts the calls that Python's interpreter sees."""
    calls = []
    sys.setprofile(lambda frame, event, argument: calls.append(event))
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(calls)


@pytest.mark.parametrize("fault", [None, "x"], ids=["right", "wrong"])
def test_the_work_is_not_done_pixel_by_pixel(fault):
    image = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    document = {"instances": image.tolist()}
    document["instances"][0][-1][-1][-1] = fault or 0.5
    function = (lambda: refusal(document, x=FLOAT)) if fault else (lambda: read(document, x=FLOAT))
    assert num_calls(function) < image.size / 4
    for is_row_form in (True, False):
        assert num_calls(lambda is_row_form=is_row_form: json_out.predictions({"y": image}, is_row_form)) < 1000


NUMBERS = [np.float32, np.float64, np.uint8, np.int16, np.int32, np.int64, np.uint32, np.uint64, np.bool_]


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: np.dtype(dtype).name)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_numbers_survive_exactly(data, dtype):
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=4, max_side=3, min_dims=1)))
    rows = json.loads(json_out.predictions({"y": array}, True))
    columns = json.loads(json_out.predictions({"y": array}, False))
    for values in (rows["predictions"], columns["outputs"]):
        np.testing.assert_array_equal(np.array(values, dtype), array)
    both = {"a": array, "b": array[::-1]}
    rows = json.loads(json_out.predictions(both, True))["predictions"]
    columns = json.loads(json_out.predictions(both, False))["outputs"]
    for name, expected in both.items():
        np.testing.assert_array_equal(np.array([row[name] for row in rows], dtype), expected)
        np.testing.assert_array_equal(np.array(columns[name], dtype), expected)


# Of float32's largest number the shortest text is a little beyond it, and refused as TF-Serving refuses it.
LOOSE = st.one_of(st.floats(-(2.0**127), 2.0**127, width=32), st.sampled_from([np.nan, np.inf, -np.inf]))


@settings(max_examples=50, deadline=None)
@given(array=hnp.arrays(np.float32, (2, 3), elements=LOOSE))
def test_what_is_written_is_read_again(array):
    text = json_out.predictions({"y": array}, True).replace(b"predictions", b"instances")
    np.testing.assert_array_equal(read(text, x=FLOAT)["x"], array)


def test_what_is_written_is_read_again_with_nan_and_infinity():
    array = np.float32([[np.nan, np.inf], [-np.inf, 0.1]])
    text = json_out.predictions({"y": array}, True).replace(b"predictions", b"instances")
    assert json.loads(text)["instances"][1] == [-np.inf, 0.1]
    np.testing.assert_array_equal(read(text, x=FLOAT)["x"], array)
    both = json.loads(json_out.predictions({"a": array[:, 0], "b": np.arange(2)}, True))["predictions"]
    assert np.isnan(both[0]["a"]) and both[1] == {"a": -np.inf, "b": 1}


@pytest.mark.parametrize("value, text", [(np.float32(0.1), b"0.1"), (np.float32(np.nan), b"NaN"), (np.int32(7), b"7")])
def test_a_tensor_without_axes_is_written_in_columns(value, text):
    assert json_out.predictions({"y": np.array(value)}, False) == b'{\n    "outputs": ' + text + b"\n}"
    with pytest.raises(ServingError, match="must have one batch size"):
        json_out.predictions({"y": np.array(value)}, True)


def test_bytes_are_base64_and_strings_are_not():
    array = np.array([b"\xff\0", "ü".encode()], object)
    assert json.loads(json_out.predictions({"y_bytes": array}, True))["predictions"] == [
        {"b64": "/wA="},
        {"b64": "w7w="},
    ]
    assert json.loads(json_out.predictions({"y": array[1:]}, False))["outputs"] == ["ü"]


def test_rows_need_one_batch_size():
    with pytest.raises(ServingError, match="must have one batch size"):
        json_out.predictions({"a": np.zeros(2), "b": np.zeros(3)}, True)


def test_halves_are_refused():
    with pytest.raises(ServingError, match="Failed to write JSON value for tensor type: half"):
        json_out.predictions({"y": np.zeros(2, np.float16)}, True)


@pytest.mark.parametrize("message", ['a "b" \\ \n', "\ud800", "ü\0"])
def test_any_error_can_be_written(message):
    assert list(json.loads(json_out.error(message))) == ["error"]
