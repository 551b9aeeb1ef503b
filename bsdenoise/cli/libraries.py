"""Loading Keras and its backend without their start-up chatter; what to do where a library is missing."""

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

TENSORFLOW = "tensorflow"
BACKENDS = (TENSORFLOW, "jax", "torch", "numpy", "openvino")  # Keras' names, which are those of the packages
BACKEND_VARIABLE = "KERAS_BACKEND"
# Packages that are called otherwise than the modules in them; of the others, "_" becomes "-".
_PACKAGES = {
    "PIL": "pillow",
    "skimage": "scikit-image",
    "rapidjson": "python-rapidjson",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "tensorflow_serving": "tensorflow-serving-api",
    "google": "protobuf",
    "yaml": "PyYAML",
}


def package_of(module: str) -> str:
    """Return what the package of a module is called where it is installed from."""
    top = module.partition(".")[0]
    return _PACKAGES.get(top, top.replace("_", "-"))


def missing(module: str) -> str:
    """Say in a line that a module is not installed, and how it is."""
    package = package_of(module)
    return f"this needs the package {package}, which is not installed: pip install {package}"


def check_backend(command: str | None = None) -> None:
    """Refuse a Keras backend that does not exist, is not installed, or cannot do what is asked for.

    Args:
        command: A command that runs on TensorFlow alone; `None` for one that any backend can run.

    Raises:
        ValueError: If it is so; the message says where the backend was chosen.
    """
    name, origin = _backend()
    otherwise = f"set {BACKEND_VARIABLE}={TENSORFLOW}."
    if name not in BACKENDS:
        raise ValueError(f"{origin}: Keras has no such backend. Expected {', '.join(BACKENDS)}: {otherwise}")
    if command is not None and name != TENSORFLOW:
        raise ValueError(f"{origin}: `bsdenoise {command}` runs on TensorFlow alone: {otherwise}")
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"{origin}: {missing(name)}{'' if name == TENSORFLOW else f'. Or: {otherwise}'}")


def _backend() -> tuple[str, str]:
    """Return the backend that Keras will take, and the setting that says so."""
    name = os.environ.get(BACKEND_VARIABLE)
    if name:
        return name, f"{BACKEND_VARIABLE}={name}"
    path = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "keras.json"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        name = json.loads(path.read_text()).get("backend")
    return (name, f'"backend": "{name}" in {path}') if isinstance(name, str) and name else (TENSORFLOW, "Keras")


def load_keras(command: str | None = None) -> None:
    """Import Keras and its backend, and find the devices, so that all that they say at the start is said here.

    TensorFlow's libraries write several lines about oneDNN and absent GPU drivers to the terminal, whatever
    TF_CPP_MIN_LOG_LEVEL says. They are held back, and shown only if loading fails or BSDENOISE_DEBUG=1.

    Args:
        command: As for `check_backend`.

    Raises:
        ValueError: As `check_backend`.
    """
    check_backend(command)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # what heeds it: errors only
    with held_back_stderr():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()
            if os.environ.get("BSDENOISE_DEBUG") != "1":
                # Its advice on retracing is for whoever writes the code: images of another size are traced anew.
                tf.get_logger().setLevel("ERROR")


@contextlib.contextmanager
def graphs_of_gradients() -> Iterator[None]:
    """Enclose training.

    TensorFlow 2.21's remapper cannot fuse a leaky ReLU whose gradient is wanted: it gives up, and says so on stderr.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    from tensorflow import config

    config.optimizer.set_experimental_options({"remapping": False})
    try:
        yield
    finally:
        config.optimizer.set_experimental_options({"remapping": True})


@contextlib.contextmanager
def held_back_stderr() -> Iterator[None]:
    """Send what native code writes to stderr to a file, and copy that file to stderr after an exception."""
    if os.environ.get("BSDENOISE_DEBUG") == "1":
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except Exception:
            held_back.seek(0)
            os.write(terminal, held_back.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
