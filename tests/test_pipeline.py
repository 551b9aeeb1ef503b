"""`bsdenoise.denoise_files`: what the command does, from Python."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

import bsdenoise
from bsdenoise import cli, images


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    images.write(tmp_path / "in/a.png", rng.integers(0, 256, (24, 17), "uint8"))
    tifffile.imwrite(tmp_path / "in/b.tif", rng.integers(0, 4096, (2, 20, 24), "uint16"), photometric="minisblack")
    (tmp_path / "in/c.png").write_bytes(b"")
    return tmp_path


def test_files_are_those_of_the_command(folder, tiny_denoiser_path, capsys):
    path = tiny_denoiser_path(1, 50 / 255)
    flags = [folder / "in", "--out", folder / "command", "--model", path, "--std"]
    assert cli.main(["denoise", *map(str, flags)]) == 2
    capsys.readouterr()
    told = []
    denoiser = bsdenoise.load(path)
    results = bsdenoise.denoise_files(folder / "in", folder / "library", model=denoiser, std=True, report=told.append)
    assert capsys.readouterr() == ("", "")
    assert told == results
    assert [result.source.name for result in results] == ["a.png", "b.tif", "c.png"]
    assert [result.error is None for result in results] == [True, True, False]
    assert "c.png" in str(results[2].error)
    # σ is in the units of the files: grey levels and counts.
    assert len(results[1].sigmas) == 2 and max(results[1].sigmas) > 255
    assert any("estimated" in note for note in results[0].notes)
    for result in results[:2]:
        for target in (result.target, result.std_target):
            expected = images.read_array(folder / "command" / target.name)
            np.testing.assert_array_equal(images.read_array(target), expected)


def test_sigma_is_in_the_units_of_the_file_and_presets_are_found(folder, monkeypatch):
    asked = []

    class Halving:
        channels, has_posterior, scale, fractional = 1, True, 1.0, True
        noise = bsdenoise.GaussianNoise(0.1, 0.2)

        def denoise(self, noisy, sigma=None):
            asked.append(sigma)
            return images.to_unit(noisy) / 2

    monkeypatch.setattr(bsdenoise.Denoiser, "from_preset", lambda name: Halving() if "grey" in name else None)
    lines = []
    (result,) = bsdenoise.denoise_files([folder / "in/a.png"], folder / "out.png", sigma=51, say=lines.append)
    assert result.error is None and result.sigmas == () and asked == [0.2]
    assert lines == ["no --model: preset grey-gaussian5-50 for images that are not RGB"]
    assert (images.read_array(result.target) <= 128).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"inputs": "nothing"}, "no such file", id="no-input"),
        pytest.param({"inputs": []}, "at least one image file", id="empty"),
        pytest.param({"model": "nothing"}, "nothing: no such model", id="no-model"),
        pytest.param({"tile": 33}, "tile", id="tile"),
        pytest.param({"mask": "nothing.png"}, "nothing.png", id="mask"),
    ],
)
def test_what_cannot_be_done_at_all_is_refused(folder, tiny_denoiser_path, arguments, message):
    known = {"inputs": folder / "in", "out": folder / "out", "model": tiny_denoiser_path(1)}
    with pytest.raises(ValueError, match=message):
        bsdenoise.denoise_files(**(known | arguments))
    assert not (folder / "out").exists()


def test_results_have_the_order_of_the_inputs(tmp_path, monkeypatch):
    """Also where presets for grey and for colour share the work, one after the other."""

    class Same:
        has_posterior, scale, fractional, noise = True, 1.0, True, bsdenoise.GaussianNoise(0.1, 0.2)

        def __init__(self, channels):
            self.channels = channels

        def denoise(self, noisy, sigma=None):
            return images.to_unit(noisy)

    monkeypatch.setattr(bsdenoise.Denoiser, "from_preset", lambda name: Same(1 if "grey" in name else 3))
    paths = [tmp_path / name for name in ("c.png", "a.png", "d.png", "b.png")]
    for path, channels in zip(paths, (3, 1, 3, 1), strict=True):
        images.write(path, np.zeros((9, 8, channels), "uint8"))
    told = []
    results = bsdenoise.denoise_files(paths, tmp_path / "out", sigma=51, report=lambda file: told.append(file.source))
    assert [result.error for result in results] == [None] * 4
    assert told == [paths[1], paths[3], paths[0], paths[2]]
    assert [result.source for result in results] == paths


def test_the_documentation_runs(folder, monkeypatch, capsys):
    """As it is printed, one example after the other."""
    monkeypatch.chdir(folder)
    (folder / "in").rename(folder / "scans")
    stack = np.random.default_rng(1).integers(0, 256, (2, 20, 24), "uint8")
    tifffile.imwrite(folder / "scans/b.tif", stack, photometric="minisblack")
    text = (Path(__file__).parent.parent / "docs" / "pipeline.md").read_text()
    first, watching = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(first, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["scans/a.png -> denoised/a.png", "scans/b.tif -> denoised/b.tif"]
    assert lines[2].startswith("scans/c.png: ") and len(lines) == 3
    exec(watching, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["again/a.png: written", "again/b.tif: written"] and lines[2].startswith("again/c.png: ")
    assert names["log"].pixels == 24 * 17 + 2 * 20 * 24
    for name in ("a.png", "b.tif"):
        np.testing.assert_array_equal(images.read_array(f"denoised/{name}"), images.read_array(f"again/{name}"))


def test_the_documentation_names_all_arguments():
    text = (Path(__file__).parent.parent / "docs" / "pipeline.md").read_text()
    rows = "".join(re.findall(r"^\| (`.*?) \|", text.split("## Options")[1].split("## Errors")[0], re.MULTILINE))
    names = bsdenoise.denoise_files.__kwdefaults__.keys() | {"out"}
    assert set(re.findall(r"`(\w+)`", rows)) == names
