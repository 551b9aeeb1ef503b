"""Warm-up requests: what TF-Serving asks a new version before it serves it, so that no user waits for first calls.

The first call of a signature builds its executor, and on a GPU the first image of each size makes cuDNN choose its
kernels. A server reads the requests from `assets.extra/tf_serving_warmup_requests` and does not load a version that
refuses one of them; so each of them is tried on the new version before that is published.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from bsdenoise import progress

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_REQUESTS = 1000  # TF-Serving refuses more
MOST_SIGNATURES = 9  # that take images


def parse_size(text: str) -> tuple[int, int]:
    """Read a size such as 480x640, height first.

    Raises:
        ValueError: If it cannot be read, or a side is 0.
    """
    match = re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", text.strip(), re.ASCII)
    if not match or 0 in (sides := (int(match[1]), int(match[2]))):
        raise ValueError(f"A size for warm-up reads HEIGHTxWIDTH, such as 480x640. Received: {text!r}.")
    return sides


def check_sizes(sizes: Sequence[tuple[int, int]], max_pixels: int) -> None:
    """Refuse sizes that the model would refuse.

    Raises:
        ValueError: If one is empty or larger than `max_pixels`, or there are too many.
    """
    for height, width in sizes:
        if min(height, width) < 1 or height * width > max_pixels:
            raise ValueError(
                f"A size for warm-up must have 1 to {max_pixels} pixels, the model's limit. Received: {height}x{width}."
            )
    if len(sizes) + MOST_SIGNATURES > MAX_REQUESTS:
        raise ValueError(f"A model server takes at most {MAX_REQUESTS} warm-up requests. Received: {len(sizes)} sizes.")


def write(folder: Path, sizes: Sequence[tuple[int, int]], description: dict, call: Callable) -> int:
    """Write the requests into a SavedModel's folder, and try each of them.

    Every image signature is called with the smallest size, which is what building its executor takes; all further
    sizes go through one signature, because all share the network. Whoever watches (`bsdenoise.progress`) hears of
    shares that add up to 1.

    Args:
        folder: The folder of the SavedModel.
        sizes: Heights and widths in pixels.
        description: What `describe` gave for the model.
        call: Function from a signature's name and its inputs to its outputs, which raises a `ValueError`.

    Returns:
        The number of requests.

    Raises:
        ValueError: If the model refuses one of them.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    path = folder / FILE
    path.parent.mkdir()
    requests = list(_requests(sizes, description))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            try:
                call(signature, {name: tf.make_ndarray(proto) for name, proto in inputs.items()})
            except ValueError as error:
                raise ValueError(f"The model refuses its own warm-up request for {signature}: {error}") from error
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.model_spec.name = description["name"]
            log.predict_log.request.model_spec.signature_name = signature
            for name, proto in inputs.items():
                log.predict_log.request.inputs[name].CopyFrom(proto)
            writer.write(log.SerializeToString(deterministic=True))
            progress.advance(1 / len(requests))
    return len(requests)


def first_requests(size: tuple[int, int], description: dict) -> Iterator[tuple[str, dict[str, tensor_pb2.TensorProto]]]:
    """Return one request for each signature that takes images, by the signature's name.

    Args:
        size: Height and width of the image in pixels.
        description: What `describe` gave for the model.
    """
    image = {"image": _image(size, description)}
    for name in description["signatures"]:
        if name != "describe":
            inputs = _file(size, description) if name.startswith("encoded") else image
            yield name, inputs | _noise(name, description)


def _requests(sizes, description) -> Iterator[tuple[str, dict[str, tensor_pb2.TensorProto]]]:
    """Return signatures and inputs, the smallest size first."""
    smallest, *others = sorted(set(sizes), key=np.prod)
    yield from first_requests(smallest, description)
    told = next((name for name in description["signatures"] if name.startswith("with_")), None)
    for size in others:
        image = {"image": _image(size, description)}
        # No time is lost to an estimate.
        yield ("serving_default", image) if told is None else (told, image | _noise(told, description))


def _image(size, description) -> tensor_pb2.TensorProto:
    """Make a grey image. One value stands for all: 20 bytes whatever the size."""
    pixels = description["pixels"]
    proto = tensor_pb2.TensorProto(
        dtype=tf.float32.as_datatype_enum, float_val=[pixels["offset"] + pixels["scale"] / 2]
    )
    for side in (1, *size, description["channels"]):
        proto.tensor_shape.dim.add(size=side)
    return proto


def _file(size, description) -> dict[str, tensor_pb2.TensorProto]:
    """Make a grey PNG file."""
    grey = tf.io.encode_png(tf.fill((*size, description["channels"]), tf.constant(128, tf.uint8)))
    return {"image_bytes": tf.make_tensor_proto([grey.numpy()])}


def _noise(signature: str, description) -> dict[str, tensor_pb2.TensorProto]:
    """Return the least noise of the training as a signature takes it of one image; nothing if it takes none."""
    if "with_" not in signature and signature != "posterior":
        return {}
    is_sigma = "with_sigma" in description["signatures"] and not signature.endswith("with_noise")
    kind = "noise" if is_sigma or description.get("stabilized") is None else "stabilized"
    least = [parameter["low"] for parameter in description[kind]["parameters"]]
    if is_sigma:
        return {"sigma": tf.make_tensor_proto(least, tf.float32)}
    return {"noise": tf.make_tensor_proto([least], tf.float32)}
