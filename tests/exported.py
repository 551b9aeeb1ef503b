"""What the tests of the exported graph share: a process that runs SavedModels, small models, images and files."""

import io
import pickle
import subprocess
import sys
from pathlib import Path

import imagecodecs
import keras
import numpy as np
import pytest
from PIL import Image

from bsdenoise.denoiser import Denoiser
from bsdenoise.export import saved_model, signatures
from bsdenoise.network import blind_spot_network

ROUTES = ("tf2", "session")


class Server:
    """A process that runs SavedModels and cannot import bsdenoise."""

    def __init__(self):
        script = Path(__file__).with_name("saved_model_process.py")
        self.process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, folder, signature, *, route="session", **inputs):
        """Gives the outputs by name; a graph's error comes as ValueError "TypeOfError: message"."""
        status, *answer = self._ask(route, str(folder), signature, inputs)
        if status == "error":
            raise ValueError(": ".join(answer))
        return answer[0]

    def peak(self):
        """Gives the largest memory that the process ever had, in MiB."""
        return self._ask("peak", None, None, None)[1]

    def _ask(self, *request):
        pickle.dump(request, self.process.stdin)
        self.process.stdin.flush()
        try:
            return pickle.load(self.process.stdout)
        except EOFError:
            pytest.fail(f"The serving process died with code {self.process.wait()}.")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


def make_denoiser(channels, noise, depth=1, dtype="float32", num_outputs=None, **kwargs):
    """A small denoiser with random weights, biases included."""
    keras.utils.set_random_seed(channels)
    network = blind_spot_network(channels=channels, width=4, depth=depth, num_outputs=num_outputs, dtype=dtype)
    rng = np.random.default_rng(channels)
    network.set_weights([value + 0.1 * rng.standard_normal(value.shape) for value in network.get_weights()])
    return Denoiser(network, noise, **kwargs)


def export_some(denoiser, folder, *names, **options):
    """Exports with these signatures alone: each of the others would take seconds."""

    def some(*arguments):
        table = signatures.signatures(*arguments)
        return {name: table[name] for name in names}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "signatures", some)
        return saved_model.export_saved_model(denoiser, folder, **options)


def noisy_batch(denoiser, shape):
    """Noisy images in the model's units, and a different sigma for each."""
    rng = np.random.default_rng(sum(shape))
    sigma = np.linspace(0.04, 0.15, shape[0]).astype("float32")
    clean = rng.uniform(0.2, 0.8, (shape[0], 1, 1, denoiser.channels))
    unit = clean + sigma[:, None, None, None] * rng.standard_normal((*shape, denoiser.channels))
    return (unit * denoiser.scale + denoiser.offset).astype("float32"), sigma * np.float32(denoiser.scale)


def strings(*items):
    """A batch of files."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def noisy_pixels(channels, size, dtype, seed=0):
    """Pixels that use the whole range of their type, both ends included."""
    rng = np.random.default_rng(seed)
    unit = np.clip(rng.uniform(0.1, 0.9, channels) + 0.4 * rng.standard_normal((*size, channels)), 0, 1)
    pixels = np.rint(unit * np.iinfo(dtype).max).astype(dtype)
    return pixels[..., 0] if channels == 1 else pixels


def png_file(array):
    return bytes(imagecodecs.png_encode(array))


def pillow_file(array, kind, mode=None, **options):
    """A file as Pillow writes it, converted to a mode first."""
    picture, file = Image.fromarray(array), io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


def decoded(data):
    """Decodes with other codecs than TensorFlow's."""
    if data.startswith(b"\x89PNG"):
        return imagecodecs.png_decode(data)
    return np.asarray(Image.open(io.BytesIO(data)))
