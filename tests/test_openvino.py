"""An export in OpenVINO: the same numbers from another program that reads SavedModels."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from exported import export_some, make_denoiser

from bsdenoise.noise import GaussianNoise

# It reports each import and each conversion to its makers, which takes a core a minute where they cannot be reached.
sys.modules.setdefault("openvino_telemetry", None)
openvino = pytest.importorskip("openvino", reason="openvino is not installed")

TILE, OVERLAP = 128, 36  # enough that tiles equal one pass
SHAPES = [(1, 65, 47), (2, 64, 64), (1, 181, 123)]
TOLERANCE = 1e-4
# Without it OpenVINO computes in bfloat16 where the processor can, and is off by several grey levels.
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture(scope="module", params=[1, 8], ids=["one copy, noise estimated", "eight copies, noise known"])
def folder(request, tmp_path_factory):
    """Computes what has more than 128² pixels in tiles."""
    denoiser = make_denoiser(1, GaussianNoise(5 / 255, (50 if request.param == 1 else 5) / 255))
    target = tmp_path_factory.mktemp("openvino") / "1"
    return export_some(denoiser, target, "serving_default", tile=TILE, overlap=OVERLAP, tta=request.param)


@pytest.fixture(scope="module")
def converted(folder):
    """What `convert_model` takes of a SavedModel by itself: `serving_default`."""
    model = openvino.convert_model(folder)
    assert [next(iter(port.names)) for port in (*model.inputs, *model.outputs)] == ["image", "denoised"]
    return openvino.compile_model(model, "CPU", FLOAT32)


@pytest.fixture(scope="module")
def original(folder):
    return tf.saved_model.load(str(folder)).signatures["serving_default"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_converted_signature_gives_the_same(shape, converted, original):
    image = np.random.default_rng(sum(shape)).random((*shape, 1), np.float32)
    expected = original(image=tf.constant(image))["denoised"].numpy()
    (given,) = converted(image).values()
    np.testing.assert_allclose(given, expected, rtol=0, atol=TOLERANCE)
    assert np.abs(expected - image).max() > 100 * TOLERANCE
