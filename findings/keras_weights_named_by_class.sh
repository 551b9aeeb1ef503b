#!/bin/sh
# Keras 3.15.1 on JAX 0.10.2 (the same on TensorFlow), NumPy 2.4.6, h5py 3.14.0.
#
# Usual guess: in weights files, a layer's weights stand under the name that the layer was given, or the attribute that
# holds it. Renaming a class changes neither. And saving reads weights alone.
#
# Seen: they stand under the class, in snake case: a functional model in the attribute `network`, with a layer named
# "first", gives layers/functional/layers/dense. The same model as an instance of a subclass of `keras.Model` finds none
# of its weights in that file, though names, shapes and attributes are the same. And every property of the model is
# evaluated while its file is written: one that computes something does so then.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 numpy==2.4.6 h5py==3.14.0 jax==0.10.2 jaxlib==0.10.2
cd "$folder"
KERAS_BACKEND=jax "$folder/venv/bin/python" - <<'PROGRAM'
import h5py
import keras
import numpy as np


class Renamed(keras.Model):
    pass


class Outer(keras.Model):
    evaluated = 0

    def __init__(self, kind):
        super().__init__()
        image = keras.Input((3,))
        self.network = kind(image, keras.layers.Dense(2, name="first")(image), name="body")

    def call(self, x):
        return self.network(x)

    @property
    def costly(self):
        Outer.evaluated += 1
        return Outer.evaluated


outer, other = Outer(keras.Model), Outer(Renamed)
for model in (outer, other):
    model(np.zeros((1, 3), "float32"))
outer.save_weights("a.weights.h5")
evaluated = Outer.evaluated
places = []
with h5py.File("a.weights.h5") as file:
    file.visit(places.append)
place = next(name for name in places if name.endswith("vars/0"))
print(f"weights stand at {place}; the property was evaluated {evaluated} time(s) while they were saved")
try:
    other.load_weights("a.weights.h5")
    found = "loaded"
except ValueError as error:
    found = str(error).splitlines()[0]
print(f"into the same model of another class: {found}")
as_seen = place == "layers/functional/layers/dense/vars/0" and evaluated > 0 and "could not be loaded" in found
raise SystemExit(0 if as_seen else 1)
PROGRAM
