"""Denoises an array through a model server over gRPC.

pip install grpcio tensorflow-serving-api numpy
python denoise_grpc.py 127.0.0.1:8500 noisy.npy denoised.npy [--sigma 0.098]

The array is (H, W, C) or (B, H, W, C), float32, in the units that the model was trained with: fractions of full scale
for models of photographs.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # the messages below come with TensorFlow

import grpc
import numpy as np
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

TIMEOUT_SECONDS = 300
# gRPC takes 4 MiB where nothing is said: less than one float32 image of a megapixel.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def to_proto(array) -> tensor_pb2.TensorProto:
    """Packs numbers as a float32 tensor."""
    array = np.ascontiguousarray(array, "<f4")
    shape = tensor_shape_pb2.TensorShapeProto(dim=[{"size": side} for side in array.shape])
    return tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shape, tensor_content=array.tobytes())


def from_proto(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Unpacks a float32 tensor, in either of the forms in which servers send it."""
    shape = [dimension.size for dimension in proto.tensor_shape.dim]
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, "<f4").reshape(shape)
    return np.array(proto.float_val, np.float32).reshape(shape)


def denoise(address: str, images: np.ndarray, sigma: float | None = None, model: str = "denoiser") -> np.ndarray:
    """Sends a batch of images and gets it denoised.

    Args:
        address: HOST:PORT.
        images: (B, H, W, C).
        sigma: Standard deviation of the noise in the units of the pixels; without, the model's own.
        model: The model's name.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "serving_default" if sigma is None else "with_sigma"
    request.inputs["image"].CopyFrom(to_proto(images))
    if sigma is not None:
        request.inputs["sigma"].CopyFrom(to_proto(np.full(len(images), sigma)))
    with grpc.insecure_channel(address, OPTIONS) as channel:  # grpc.secure_channel where the server has TLS
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return from_proto(stub.Predict(request, timeout=TIMEOUT_SECONDS).outputs["denoised"])


def main() -> int:
    """Reads the command line, denoises, and says what went wrong."""
    parser = argparse.ArgumentParser(description="Denoises a .npy array through a model server over gRPC.")
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("array", type=Path, help=".npy file, (H, W, C) or (B, H, W, C)")
    parser.add_argument("result", type=Path, help=".npy file")
    parser.add_argument("--sigma", type=float, help="in the units of the pixels")
    parser.add_argument("--model", default="denoiser")
    args = parser.parse_args()
    array = np.load(args.array)
    try:
        denoised = denoise(args.address, array if array.ndim == 4 else array[None], args.sigma, args.model)
    except grpc.RpcError as error:
        print(f"{args.address}: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    np.save(args.result, denoised if array.ndim == 4 else denoised[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
