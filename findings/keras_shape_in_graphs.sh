#!/bin/sh
# Keras 3.15.1 on TensorFlow 2.21.0.
#
# Usual guess: in a graph for images of any size, `keras.ops.shape(x)[1]` costs what `tf.shape(x)[1]` does: a node for the
# shape, and one that takes the height.
#
# Seen: it takes every side that is not known, whichever is asked for, each by a node and three constants: 13 nodes for
# the height of images of any number, height and width, instead of 5. They are never used, and stay: a SavedModel holds
# them, and whoever loads it reads them. Of functions that ask for sizes all over, that is a large part; so ask once and
# hand the size on.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1
cd "$folder"
KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - 2>/dev/null <<'PROGRAM'
import collections

import keras
import tensorflow as tf

IMAGES = tf.TensorSpec((None, None, None, 3), tf.float32)


def nodes(function, folder):
    """Numbers of nodes of a function in a SavedModel by what they do, without those of its input and output."""
    module = tf.Module()
    module.function = tf.function(function, input_signature=[IMAGES])
    tf.saved_model.save(module, folder)
    (loaded,) = tf.saved_model.load(folder).function.concrete_functions
    kinds = [node.type for node in loaded.graph.get_operations()]
    return collections.Counter(kind for kind in kinds if kind not in ("Placeholder", "Identity", "NoOp"))


plain = nodes(lambda images: tf.shape(images)[1], "plain")
with_keras = nodes(lambda images: keras.ops.shape(images)[1], "with_keras")
for name, found in (("tf.shape", plain), ("keras.ops.shape", with_keras)):
    print(f"{name}(images)[1]: {sum(found.values())} nodes, {dict(found)}")
as_seen = plain["StridedSlice"] == 1 and with_keras["StridedSlice"] == 3 and sum(with_keras.values()) == 13
raise SystemExit(0 if as_seen else 1)
PROGRAM
