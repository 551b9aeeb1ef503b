"""What was exported is loaded and asked before it is published: a server must never meet a version that fails."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from bsdenoise.export import warm_up

SIZE = (9, 7)  # of the image that is tried: no side is a multiple of anything
PLACES = ("denoised", "mean", "std")  # outputs of the shape of the image
Call = Callable[[str, Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class TrialError(ValueError):
    """What was written cannot be loaded, or does not answer as it should."""


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Call]:
    """Load a SavedModel, and return a function from a signature's name and its inputs to its outputs.

    Raises:
        TrialError: If it cannot be loaded, or a call fails.
    """
    with _told(""):
        signatures = tf.saved_model.load(str(folder)).signatures

    def call(signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with _told(f"{signature}: "):
            outputs = signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
            return {name: output.numpy() for name, output in outputs.items()}

    with _unoptimised():
        yield call


def check(call: Call, description: dict, text: str) -> None:
    """Call every signature once with a small image.

    Args:
        call: What `opened` gives.
        description: What `describe` gave for the model.
        text: What the signature `describe` must answer.

    Raises:
        TrialError: If one of them fails, or answers with something else than finite numbers of the image's shape.
    """
    requests = [
        (signature, {name: tf.make_ndarray(proto) for name, proto in protos.items()})
        for signature, protos in warm_up.first_requests(SIZE, description)
    ]
    # At once, because each first call prepares its graph on one core, for seconds.
    with ThreadPoolExecutor(len(requests)) as threads:
        answers = list(threads.map(lambda request: call(*request), requests))
    for (signature, inputs), outputs in zip(requests, answers, strict=True):
        for name, output in outputs.items():
            _look(signature, name, output, inputs)
    (answer,) = call("describe", {"format": np.array([b"json"], object)})["description"]
    if answer.decode() != text:
        raise TrialError("describe: answers with another text than was exported")


def _look(signature: str, name: str, output: np.ndarray, inputs: Mapping[str, np.ndarray]) -> None:
    """Refuse an output that cannot be right."""
    if output.dtype == object:
        fault = "" if all(output) else "is empty"
    elif name in PLACES and output.shape != inputs["image"].shape:
        fault = f"has the shape {list(output.shape)}"
    else:
        fault = "" if np.isfinite(output).all() else "is not finite"
    if fault:
        raise TrialError(f"{signature}: its output {name!r} {fault}")


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """Turn whatever a damaged file leads to into one kind of error."""
    try:
        yield
    except Exception as error:  # errors of every type
        raise TrialError(f"{where}{' '.join(str(error).split()) or type(error).__name__}") from error


@contextlib.contextmanager
def _unoptimised() -> Iterator[None]:
    """Let graphs run as they are: to optimise them takes most of the time, for one small image each."""
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False} | before)
