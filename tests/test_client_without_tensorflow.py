"""REST needs neither TensorFlow nor Keras nor scikit-image: in a process where none of them can be imported."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_server import FakeModel, rest

from bsdenoise import images

ABSENT = ("tensorflow", "keras", "tensorflow_serving", "grpc", "skimage", "scipy", "starlette", "gradio")
PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}))  # None: cannot be imported
from bsdenoise.cli import main
from bsdenoise.client import connect
import numpy as np

url = sys.argv[1]
with connect(url) as model:
    model.wait_until_ready(20)
    noisy = np.load("a.npy")
    np.save("denoised.npy", model.denoise(noisy, 0.2))
    np.save("std.npy", model.posterior(noisy, 0.2).std)
try:
    connect("grpc://127.0.0.1:1")
except ValueError as error:
    print(error)
sys.exit(main(["denoise", "in", "--out", "out", "--server", url, "--sigma", "51"]))
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The folder that the process worked in, and what it printed."""
    folder = tmp_path_factory.mktemp("client")
    rng = np.random.default_rng(0)
    np.save(folder / "a.npy", rng.uniform(0, 1, (5, 7, 3)).astype("float32"))
    (folder / "in").mkdir()
    for name in ("a.png", "b.tif", "c.jpg"):
        images.write(folder / "in" / name, rng.integers(0, 256, (5, 7, 3), np.uint8))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with rest(FakeModel()) as url:
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM, url],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert process.returncode == 0, process.stderr
    return folder, process


def test_arrays(result):
    folder, _ = result
    noisy = np.load(folder / "a.npy")
    np.testing.assert_allclose(np.load(folder / "denoised.npy"), noisy / 2 + 0.025, rtol=1e-6)
    np.testing.assert_allclose(np.load(folder / "std.npy"), np.full(noisy.shape, 0.1), rtol=1e-6)


def test_the_command(result):
    folder, process = result
    assert process.stderr == "3 written, 0 failed\n"
    for name in ("a.png", "b.tif"):
        noisy = images.read_array(folder / "in" / name)
        expected = np.floor((noisy / 255 / 2 + 0.025) * 255 + 0.5)
        np.testing.assert_array_equal(images.read_array(folder / "out" / name), expected)


def test_grpc_says_what_it_needs(result):
    _, process = result
    assert process.stdout.startswith("gRPC needs tensorflow-serving-api, which is not installed")


def test_the_requirements_are_those_of_the_package():
    """What the list names has the bound that setup.cfg gives, and TensorFlow and Keras are not among it."""
    root = Path(__file__).parent.parent
    listed = [line for line in (root / "requirements-client.txt").read_text().splitlines() if line[:1].isalpha()]
    bounds = {line.strip().partition(">=")[0]: line.strip() for line in (root / "setup.cfg").read_text().splitlines()}
    assert len(listed) > 5
    assert listed == [bounds.get(line.partition(">=")[0], line) for line in listed]
    assert not any(line.startswith(("tensorflow", "keras", "scikit")) for line in listed)
