import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from bsdenoise.server import tensors
from bsdenoise.server.errors import ServingError

ARRAYS = {
    "float32": np.array([[1.5, -2.0], [np.inf, 0.1]], "float32"),
    "float64": np.array([0.1, 1e300]),
    "float16": np.array([0.1, 65504], "float16"),
    "bfloat16": np.array([0.1, 3.0], tf.bfloat16.as_numpy_dtype),
    "uint8": np.arange(256, dtype="uint8").reshape(2, 2, 64),
    "int8": np.array([-128, 127], "int8"),
    "int16": np.array([-(2**15), 7], "int16"),
    "uint16": np.array([2**16 - 1, 7], "uint16"),
    "int32": np.array([-(2**31), 7], "int32"),
    "uint32": np.array([2**32 - 1, 7], "uint32"),
    "int64": np.array([-(2**63), 7], "int64"),
    "uint64": np.array([2**64 - 1, 7], "uint64"),
    "bool": np.array([True, False]),
    "string": np.array([[b"a", b""], [b"\x00\xff", b"long" * 99]], object),
    "scalar": np.array(3.0, "float32"),
    "empty": np.zeros((2, 0, 3), "float32"),
}


def proto(dtype="DT_FLOAT", shape=(), **kwargs):
    message = tensor_pb2.TensorProto(dtype=dtype, **kwargs)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


def read(message):
    return tensors.to_arrays({"image": message})["image"]


@pytest.mark.parametrize("name", ARRAYS)
def test_what_tensorflow_packs_is_unpacked(name):
    array = read(tf.make_tensor_proto(ARRAYS[name]))
    assert array.dtype == ARRAYS[name].dtype
    assert array.shape == ARRAYS[name].shape
    np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_packed_is_unpacked_by_tensorflow(name):
    array = tf.make_ndarray(tensors.to_proto(ARRAYS[name]))
    assert array.dtype == ARRAYS[name].dtype
    np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("name", [name for name in ARRAYS if name not in ("string", "empty")])
def test_values_may_come_one_by_one(name):
    """As other languages' clients send them; TensorFlow's own C++ conversion says what they mean."""
    packed = tf.make_tensor_proto(ARRAYS[name])
    kind = ARRAYS[name].dtype.kind
    separate = tensor_pb2.TensorProto(dtype=packed.dtype, tensor_shape=packed.tensor_shape)
    flat = ARRAYS[name].ravel()
    if name in ("float16", "bfloat16"):
        separate.half_val.extend(flat.view("uint16").tolist())
    else:
        field = {"float64": "double_val", "int64": "int64_val", "uint32": "uint32_val", "uint64": "uint64_val"}.get(
            name, {"f": "float_val", "b": "bool_val"}.get(kind, "int_val")
        )
        getattr(separate, field).extend(flat.tolist())
    np.testing.assert_array_equal(read(separate), ARRAYS[name])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (proto(shape=(2, 2), float_val=[0.5]), [[0.5, 0.5], [0.5, 0.5]]),
        (proto(shape=(3,), float_val=[1, 2]), [1, 2, 2]),
        (proto(shape=(2,)), [0, 0]),
        (proto("DT_STRING", (3,), string_val=[b"a", b"b"]), [b"a", b"b", b"b"]),
        (proto("DT_STRING", (2,)), [b"", b""]),
        (proto("DT_HALF", (2,), half_val=[0x3C00]), [1.0, 1.0]),
    ],
    ids=["constant", "last value", "no value", "strings", "no string", "half"],
)
def test_the_last_value_is_repeated(message, expected):
    assert read(message).tolist() == expected
    assert tf.make_ndarray(message).tolist() == expected or not message.string_val


@pytest.mark.parametrize(
    "message",
    [
        proto(shape=(2, 2), tensor_content=b"\0" * 12),
        proto(shape=(2, 2), tensor_content=b"\0" * 20),
        proto(shape=(2, 2), float_val=[1.0] * 5),
        proto(shape=(-1, 2), float_val=[1.0] * 2),
        proto(shape=(-1, -1), float_val=[1.0]),
        proto(shape=(2**20, 2**20, 3), float_val=[1.0]),
        proto(shape=(2**62, 2**62), tensor_content=b"\0" * 4),
        proto(shape=(2**31,)),
        proto("DT_STRING", (2**40,), string_val=[b"a"]),
        proto("DT_STRING", (1,), tensor_content=b"abc"),
        proto(shape=(1,) * 255, float_val=[1.0]),
        proto("DT_INVALID"),
        proto("DT_RESOURCE", (1,)),
        proto("DT_VARIANT"),
        proto("DT_FLOAT_REF", (1,)),
        tensor_pb2.TensorProto(dtype=99, float_val=[1.0]),
        proto(float_val=[1.0], tensor_shape={"unknown_rank": True}),
    ],
    ids=[
        "too few bytes",
        "too many bytes",
        "too many values",
        "negative size",
        "negative sizes",
        "terabytes claimed, one value",
        "overflowing shape",
        "gigabytes claimed, no value",
        "strings claimed",
        "strings as bytes",
        "rank 255",
        "no type",
        "resource",
        "variant",
        "reference",
        "unknown type",
        "unknown rank",
    ],
)
def test_what_is_not_well_formed_is_refused(message):
    with pytest.raises(ServingError, match="^tensor parsing error: image$") as caught:
        read(message)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("dtype", "sent", "expected"),
    [("DT_UINT8", [1, 300, -1], [1, 44, 255]), ("DT_INT8", [-129, 0, 5], [127, 0, 5])],
    ids=["uint8", "int8"],
)
def test_small_integers_wrap_as_in_the_real_server(dtype, sent, expected):
    assert read(proto(dtype, (3,), int_val=sent)).tolist() == expected
