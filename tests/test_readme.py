"""What the README prints for users to copy is run as it is printed, with other ports only."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported import make_denoiser, png_file

from bsdenoise import adaptation, images
from bsdenoise.export import export_saved_model
from bsdenoise.noise import GaussianNoise
from bsdenoise.server.run import LocalServer

README = (Path(__file__).parent.parent / "README.md").read_text()
SECTION = README.split("\n## Serve\n")[1].split("\n## ")[0]


def block(language, containing):
    """Gives the one code block of the section in that language that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    (found,) = [block for block in blocks if containing in block]
    return found


@pytest.fixture(scope="module")
def denoiser():
    return make_denoiser(3, GaussianNoise(25 / 255, 25 / 255))


@pytest.fixture(scope="module")
def served(denoiser, tmp_path_factory):
    """A function that puts a running server's addresses into a text."""
    folder = tmp_path_factory.mktemp("models") / "denoiser"
    export_saved_model(denoiser, folder / "1")
    with LocalServer({"denoiser": folder}) as server:

        def adapt(text):
            rest = server.rest_url.removeprefix("http://")
            adapted = text.replace("localhost:8501", rest).replace("localhost:8500", server.grpc_address)
            assert adapted != text
            return adapted

        yield adapt


@pytest.fixture
def folder(tmp_path):
    noisy = np.random.default_rng(0).integers(40, 220, (21, 17, 3)).astype(np.uint8)
    (tmp_path / "noisy.png").write_bytes(png_file(noisy))
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_bytes(png_file(noisy))
    return tmp_path


def expected(denoiser, folder):
    return denoiser.denoise(images.read_array(folder / "noisy.png"))


def test_curl(served, folder, denoiser):
    script = served(block("sh", "curl"))
    subprocess.run(["bash", "-c", f"set -euo pipefail; {script}"], cwd=folder, check=True, timeout=60)
    denoised = images.read_array(folder / "denoised.png")
    assert np.abs(denoised / 255 - np.clip(expected(denoiser, folder), 0, 1)).max() < 0.51 / 255


def test_python_over_grpc(served, folder, denoiser):
    names = {"noisy": images.read_array(folder / "noisy.png")}
    exec(served(block("python", "grpc://")), names)
    np.testing.assert_allclose(names["clean"], expected(denoiser, folder), atol=1e-5)


def test_the_command_with_a_server(served, folder, denoiser):
    command = served(block("sh", "--server")).split()
    assert command[0] == "bsdenoise"
    subprocess.run([sys.executable, "-m", "bsdenoise.cli", *command[1:]], cwd=folder, check=True, timeout=60)
    denoised = images.read_array(folder / "denoised" / "a.png")
    assert np.abs(denoised / 255 - np.clip(expected(denoiser, folder), 0, 1)).max() < 0.51 / 255


def test_load_model(folder, denoiser, monkeypatch):
    """The example of the section on denoising."""
    (folder / "run").mkdir()
    denoiser.save(folder / "run" / "denoiser.keras")
    monkeypatch.chdir(folder)
    (code,) = (part for part in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "load_model" in part)
    names = {"noisy": images.read_array("noisy.png")}
    monkeypatch.setattr(adaptation, "MIN_PIXELS", 1)
    monkeypatch.setattr(adaptation, "STEPS", 1)
    exec(code, names)
    np.testing.assert_allclose(names["clean"], expected(denoiser, folder), atol=1e-5)
    assert 0 < names["post"].estimated_psnr < 100
