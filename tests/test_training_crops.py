"""Tests of what training crops cost: only crops are converted to the network's units, and nothing else comes of it."""

import numpy as np
import pytest

from bsdenoise import images, methods
from bsdenoise.data.sources import open_source
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.noise import GaussianNoise

SIDE = 16


def _write(folder, kind):
    """Writes one image as a stack, and gives it as float32 in units of full scale, whole, by plain NumPy."""
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (40, 44, 3))
    array = {"uint8": pixels, "luminance": pixels, "uint16": pixels * 257, "float64": pixels / 7}[kind]
    dtype = "uint8" if kind == "luminance" else kind
    np.save(folder / "stack.npy", array[np.newaxis].astype(dtype))
    if kind == "luminance":
        array = array.astype("float32")
        red, green, blue = (array[..., [k]] for k in range(3))
        array = np.rint(0.299 * red + 0.587 * green + 0.114 * blue)
    full = {"uint16": 65535, "float64": 1}.get(kind, 255)
    return array.astype("float32") / np.float32(full)


@pytest.mark.parametrize(
    ("kind", "corrupt"),
    [
        ("uint8", None),
        ("uint8", "fresh"),
        ("luminance", "fresh"),
        ("uint16", None),
        ("uint16", "fresh"),
        ("float64", None),
    ],
    ids=str,
)
def test_crops_are_those_of_the_whole_normalised_image(tmp_path, monkeypatch, kind, corrupt):
    whole = _write(tmp_path, kind)
    offset, scale = (0.25, 0.5) if kind == "uint16" else (0.0, 1.0)
    if kind == "uint16":
        whole = (whole - np.float32(offset)) / np.float32(scale)
    data = TrainingImages(
        open_source(str(tmp_path / "stack.npy")), methods.get("l2"), whole.shape[2], GaussianNoise(0.1, 0.1), corrupt,
        SIDE, seed=3, offset=offset, scale=scale, fractional=kind != "float64", remark=lambda line: None,
    )  # fmt: skip
    converted = []
    original = images.to_unit
    monkeypatch.setattr(images, "to_unit", lambda array: converted.append(array.shape) or original(array))
    places = set()
    for number in range(6):
        rng = np.random.default_rng((3, 1, number))
        top, left = (int(rng.integers(side - SIDE + 1)) for side in whole.shape[:2])
        places.add((top, left))
        expected = whole[top : top + SIDE, left : left + SIDE]
        if corrupt:
            expected = expected + np.float32(0.1) * rng.standard_normal(expected.shape, "float32")
        shown, _ = data.example(number)
        np.testing.assert_array_equal(shown, expected)
    assert len(places) == 6
    if kind != "float64":  # whether floats are finite has to be looked up anyway
        assert set(converted) == {(SIDE, SIDE, whole.shape[2])}


@pytest.mark.parametrize(("value", "num_left_out"), [(np.nan, 0), (np.inf, 1)])
def test_a_pixel_outside_of_the_crop_that_is_no_number(tmp_path, value, num_left_out):
    stack = np.zeros((2, 64, 64, 1), "float32")
    stack[0, 0, 0] = value
    np.save(tmp_path / "stack.npy", stack)
    lines = []
    data = TrainingImages(
        open_source(str(tmp_path / "stack.npy")), methods.get("l2"), 1, GaussianNoise(0.1, 0.1), None, SIDE,
        fractional=False, report=lines.append, remark=lambda line: None,
    )  # fmt: skip
    for number in range(4):
        assert np.isfinite(data.example(number)).all()
    assert len(lines) == num_left_out and all("infinite" in line for line in lines)
