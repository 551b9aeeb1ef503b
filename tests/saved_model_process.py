"""Runs SavedModels as a model server does: a process of its own that cannot import bsdenoise.

Started by `exported.py`. Reads pickled requests (route, folder, signature, inputs) from stdin and writes pickled
answers to stdout: ("ok", outputs) or ("error", type of the error, message). Route "peak" asks for memory instead.
"""

import os
import pickle
import resource
import sys

sys.modules["bsdenoise"] = None  # from here on, importing it fails
ANSWERS = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # nothing else may write into the answers

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.protobuf import config_pb2  # noqa: E402


class Loaded:
    """One SavedModel, loaded both ways when first needed."""

    def __init__(self, folder):
        self.folder = folder
        self.signatures = self.tf1_session = None
        self.callables = {}

    def tf2(self, signature, inputs):
        """Calls a signature of `tf.saved_model.load`."""
        if self.signatures is None:
            self.loaded = tf.saved_model.load(self.folder)
            self.signatures = self.loaded.signatures
        outputs = self.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    def session(self, signature, inputs):
        """Calls a TF 1 session's C++ entry, as a server does: nothing is checked in Python, as `Session.run` would."""
        if signature not in self.callables:
            self.callables[signature] = self._callable(signature, tuple(inputs))
        names, outputs, call = self.callables[signature]
        return dict(zip(outputs, call(*(inputs[name] for name in names)), strict=True))

    def _callable(self, signature, names):
        if self.tf1_session is None:
            self.tf1_session = tf.compat.v1.Session(graph=tf.Graph())
            with self.tf1_session.graph.as_default():
                self.meta_graph = tf.compat.v1.saved_model.load(self.tf1_session, ["serve"], self.folder)
        definition = self.meta_graph.signature_def[signature]
        options = config_pb2.CallableOptions()
        options.feed.extend(definition.inputs[name].name for name in names)
        options.fetch.extend(info.name for info in definition.outputs.values())
        return names, list(definition.outputs), self.tf1_session._make_callable_from_options(options)


def main():
    """Answers requests until stdin ends."""
    loaded = {}
    while True:
        try:
            route, folder, signature, inputs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if route == "peak":
            pickle.dump(("ok", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), ANSWERS)
            ANSWERS.flush()
            continue
        try:
            model = loaded.setdefault(folder, Loaded(folder))
            outputs = getattr(model, route)(signature, inputs)
            answer = ("ok", {name: np.asarray(value) for name, value in outputs.items()})
        except Exception as error:
            answer = ("error", type(error).__name__, str(error))
        pickle.dump(answer, ANSWERS)
        ANSWERS.flush()


if __name__ == "__main__":
    main()
