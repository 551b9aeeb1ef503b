"""TensorProtos to arrays and back. What a caller only claims is never allocated."""

import math
from collections.abc import Mapping

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2

from bsdenoise.server.errors import ServingError

MAX_RANK = 254  # TensorFlow's own bound
# A constant may be sent as its shape and one value. What that may grow to in memory:
MAX_REPEATED_BYTES = 100 * 2**20
# The field of a TensorProto that holds the values of a type, where they are not packed as bytes.
_FIELDS = {
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


def to_arrays(protos: Mapping[str, tensor_pb2.TensorProto]) -> dict[str, np.ndarray]:
    """Unpack the inputs of a request.

    Args:
        protos: A TensorProto for each input.

    Returns:
        An array for each; strings as object arrays of bytes.

    Raises:
        ServingError: If one of them is not well formed.
    """
    arrays = {}
    for name, proto in protos.items():
        try:
            arrays[name] = _to_array(proto)
        except (ValueError, TypeError, OverflowError) as error:
            message = f"tensor parsing error: {name}"  # all that TensorFlow-Serving says
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, message) from error
    return arrays


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Pack an array as a TensorProto."""
    shape = tensor_shape_pb2.TensorShapeProto(
        dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in array.shape]
    )
    if array.dtype.kind == "O":
        return tensor_pb2.TensorProto(dtype=tf.string.as_datatype_enum, tensor_shape=shape, string_val=array.ravel())
    return tensor_pb2.TensorProto(
        dtype=tf.as_dtype(array.dtype).as_datatype_enum, tensor_shape=shape, tensor_content=array.tobytes()
    )


def _to_array(proto: tensor_pb2.TensorProto) -> np.ndarray:
    dtype = tf.as_dtype(proto.dtype)
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if dtype not in _FIELDS or proto.tensor_shape.unknown_rank or len(shape) > MAX_RANK or min(shape, default=0) < 0:
        raise ValueError("not the type or the shape of a value")
    size = math.prod(shape)
    if proto.tensor_content:
        if dtype == tf.string:
            raise ValueError("strings as packed bytes")
        if len(proto.tensor_content) != size * dtype.size:
            raise ValueError("not as many bytes as the shape needs")
        return np.frombuffer(proto.tensor_content, dtype.as_numpy_dtype).reshape(shape)
    values = getattr(proto, _FIELDS[dtype])
    if len(values) > size:
        raise ValueError("more values than the shape holds")
    if len(values) < size and size * max(1, dtype.size) > MAX_REPEATED_BYTES:
        raise ValueError("a shape too large to repeat a value for")
    if dtype == tf.string:
        return _strings(values, size).reshape(shape)
    return _numbers(values, dtype, size).reshape(shape)


def _strings(values, size) -> np.ndarray:
    array = np.empty(size, object)
    array[:] = values[-1] if len(values) else b""  # the last one stands for all that follow
    array[: len(values)] = values
    return array


def _numbers(values, dtype, size) -> np.ndarray:
    if _FIELDS[dtype] == "half_val":  # their bits
        sent = np.array(values, np.uint16).view(dtype.as_numpy_dtype)
    else:
        sent = np.array(values, dtype.as_numpy_dtype)
    if len(sent) == size:
        return sent
    array = np.empty(size, dtype.as_numpy_dtype)
    array[: len(sent)] = sent
    array[len(sent) :] = sent[-1] if len(sent) else 0
    return array
