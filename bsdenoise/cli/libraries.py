"""Loading Keras and its backend without their start-up chatter."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def load_keras() -> None:
    """Imports Keras and its backend, and finds the devices, so that all that they say at the start is said here.

    TensorFlow's libraries write several lines about oneDNN and absent GPU drivers to the terminal, whatever
    TF_CPP_MIN_LOG_LEVEL says. They are held back, and shown only if loading fails or BSDENOISE_DEBUG=1.
    """
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
def held_back_stderr() -> Iterator[None]:
    """Sends what native code writes to stderr to a file, and copies that file to stderr after an exception."""
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
