"""`bsdenoise inspect`: what it prints, draws and returns."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bsdenoise import cli, images
from bsdenoise.images import results

RAMP = np.tile(np.linspace(20.0, 200.0, 128), (128, 1))


def noisy(seed=0, gain=0.0):
    rng = np.random.default_rng(seed)
    found = gain * rng.poisson(RAMP / gain) if gain else RAMP + 10 * rng.standard_normal(RAMP.shape)
    return np.rint(found).clip(0, 255).astype(np.uint8)


@pytest.fixture
def photo(tmp_path):
    images.write(tmp_path / "photo.png", noisy())
    return tmp_path / "photo.png"


def inspect(*arguments):
    return cli.main(["inspect", *map(str, arguments)])


def test_one_file_is_told_line_by_line(photo, capsys):
    assert inspect(photo) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == str(photo) and lines[1].startswith("  noise       white noise: sigma 9.85 ± ")
    assert f"denoise: bsdenoise denoise {photo}" in lines
    assert any(line.startswith(f"train:   bsdenoise train {photo} --out run --noise gaussian:") for line in lines)
    assert err == "" and max(map(len, lines)) < 200


def test_several_files_are_told_in_a_table(tmp_path, capsys):
    for seed in range(3):
        images.write(tmp_path / f"{seed}.png", noisy(seed, gain=4))
    assert inspect(tmp_path) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if ".png" in line and "signal-dependent" in line]
    assert [row[0] for row in rows] == ["0.png", "1.png", "2.png"]
    assert all(float(row[3]) == pytest.approx(4, rel=0.2) for row in rows)
    assert "All 3 files: noise that grows with the signal, as that of a detector: gain" in out
    assert f"bsdenoise train {tmp_path} --out run --noise poisson-gaussian:gain=" in out


def kinds(value):
    """The names and types of a document, whatever is in it; of lists the first element."""
    if isinstance(value, dict):
        return {name: kinds(one) for name, one in value.items()}
    return [kinds(value[0])] if isinstance(value, list) and value else type(value).__name__


ESTIMATE = {"value": "float", "error": "float"}
CORRELATION = {"next_in_row": "float", "next_in_column": "float", "diagonal": "float", "map": [["float"]]}
PATTERN = {name: "float" for name in ("correlation", "sigma", "rows", "columns")} | {
    "images": "int",
    "is_found": "bool",
}
CHANNEL = {
    "verdict": "str",
    "sigma": ESTIMATE,
    "curve": {"mean": ["float"], "variance": ["float"], "blocks": ["float"]}
    | {"gain": ESTIMATE, "sigma": ESTIMATE | {"error": "NoneType"}, "pedestal": ESTIMATE},
    "clipping": {name: "float" for name in ("least", "greatest", "at_least", "at_greatest")}
    | {"is_clipped_low": "bool", "is_saturated": "bool"},
    "levels": {"distinct": "int"}
    | {name: "float" for name in ("step", "share_used", "sigma_in_steps", "effective_bits")},
    "outliers": {"hot": "float", "dead": "float", "share": "float", "places": "list"},
    "correlation": CORRELATION,
}
FILE = {
    "file": "str",
    "error": "NoneType",
    "shape": ["int"],
    "dtype": "str",
    "full_scale": "float",
    "rgb": "bool",
    "looked_at": {"images": "int", "of": "int", "rows": ["int"], "columns": ["int"]},
    "ignored": "float",
    "verdict": "str",
    "denoised_as": [{"gain": "float", "sigma": "float", "pedestal": "float"}],
    "channels": [CHANNEL],
    "pattern": PATTERN,
    "notes": "list",
}
DOCUMENT = {
    "bsdenoise": "str",
    "schema": "int",
    "inputs": ["str"],
    "looked_at": {"files": "int", "of": "int"},
    "collection": {
        "verdict": "str",
        "verdicts": {"signal-dependent": "int"},
        "have_one_unit": "bool",
        "sigma": ESTIMATE,
        "gain": ESTIMATE,
        "at_black": ESTIMATE | {"error": "NoneType"},
        "pedestal": ESTIMATE,
        "correlation": CORRELATION,
        "pattern": "NoneType",
    },
    "commands": {"denoise": "str", "train": "str", "advice": "str"},
    "notes": "list",
    "files": [FILE],
}


def test_the_document(tmp_path, capsys):
    images.write(tmp_path / "a.png", np.rint(noisy(gain=4).astype(float) * 0.8 + 20).astype(np.uint8))
    (tmp_path / "b.png").write_bytes(b"broken")
    assert inspect(tmp_path, "--json") == 2
    out, err = capsys.readouterr()
    document = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert kinds(document) == DOCUMENT
    assert document["looked_at"] == {"files": 2, "of": 2} and [*document["files"][1]] == ["file", "error"]
    assert len(document["files"][0]["channels"][0]["correlation"]["map"]) == 17
    assert err.count("\n") == 1 and err.startswith(f"bsdenoise: error: {tmp_path / 'b.png'}: ")


@pytest.mark.parametrize("number", [1, 5])
def test_the_figure(tmp_path, capsys, number):
    for seed in range(number):
        images.write(tmp_path / f"{seed}.png", noisy(seed))
    plot = tmp_path / "found.png"
    assert inspect(tmp_path, "--plot", plot) == 0
    with Image.open(plot) as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(float)
    height, width, _ = pixels.shape
    assert (width, height) == (1200, 825)
    # Something is drawn in each quarter, and not everywhere.
    for rows in (slice(0, height // 2), slice(height // 2, None)):
        for columns in (slice(0, width // 3), slice(width // 2, None)):
            part = pixels[rows, columns]
            assert 0.01 < np.mean(part.min(axis=-1) < 128) < 0.7 and part.std() > 20
    assert plot.name in results.listed_in(tmp_path)
    assert capsys.readouterr().err.endswith(f"{plot}: written\n")
    before = plot.read_bytes()
    assert inspect(tmp_path, "--plot", plot) == 2  # as it exists
    assert capsys.readouterr().err == f"bsdenoise: error: {plot}: exists already; --overwrite replaces it.\n"
    assert inspect(tmp_path, "--plot", plot, "--overwrite") == 0
    assert plot.read_bytes() == before  # which was not taken for an image


@pytest.mark.parametrize("kind", ["stack", "constant", "tiny", "channels", "floats"])
def test_whatever_can_be_looked_at_can_be_drawn(tmp_path, kind):
    array = {
        "stack": np.stack([noisy(seed) for seed in range(5)])[..., np.newaxis],
        "constant": np.full((60, 60), 7, np.uint8),
        "tiny": np.uint8([[3]]),
        "channels": np.stack([noisy(seed) for seed in range(5)], axis=-1)[np.newaxis],
        "floats": (noisy() * 1e-12).astype(np.float32),
    }[kind]
    np.save(tmp_path / "a.npy", array)
    assert inspect(tmp_path / "a.npy", "--plot", tmp_path / "a.png") == 0
    with Image.open(tmp_path / "a.png") as drawn:
        assert np.asarray(drawn.convert("L")).std() > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "nothing.png: no such file or folder."),
        (["photo.png", "--plot", "a.jpg"], "a.jpg: --plot names a file that ends in .png."),
        (["photo.png", "--plot", "photo.png"], "photo.png: the figure would replace an input."),
        (["photo.png", "--plot", "x/a.png"], "x/a.png: there is no folder x."),
        (["photo.png", "--plot", "folder.png"], "folder.png: is a folder; a file of that name would be written."),
        (["photo.png", "--sample", "0"], "--sample must be at least 1. Received: 0."),
        (["photo.png", "--no-data", "x"], "--no-data takes a number in the files' own units"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(photo, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(photo.parent)
    (photo.parent / "folder.png").mkdir()
    assert inspect(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"bsdenoise: error: {message}") and err.count("\n") == 1


def test_a_shell_s_list_of_files_is_named_as_a_glob(tmp_path, capsys):
    names = [tmp_path / f"{seed}.png" for seed in range(5)]
    for seed, name in enumerate(names):
        images.write(name, noisy(seed))
    assert inspect(*names) == 0
    assert f"denoise: bsdenoise denoise '{tmp_path}/*.png' --out denoised\n" in capsys.readouterr().out


@pytest.mark.slow
def test_no_display_and_no_configuration_are_needed(photo):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MPLBACKEND": "TkAgg"}
    environment.pop("DISPLAY", None)
    program = "import sys; from bsdenoise.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "inspect", str(photo), "--plot", str(photo.with_name("plot.png"))]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert process.stderr == f"{photo.with_name('plot.png')}: written\n"
