"""Commands whose packages belong to an extra name it in one line; the others run without any of them."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bsdenoise import cli, extras, images
from bsdenoise.cli import libraries

OPTIONAL = sorted({module for _, modules in extras.NEEDED.values() for module in modules})
COMMANDS = {
    "serve": ["models", "--implementation", "local"],
    "guard": ["http://localhost:8501"],
    "app": [],
    "evaluate": ["--model", "run", "--data", "kodak24", "--noise", "gaussian:25"],
    "figure": ["a.png", "--model", "run", "--noise", "gaussian:25", "--out", "strip.png"],
}


def packages(extra):
    """The names in an extra of setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parent.parent / "setup.cfg")
    lines = parser["options.extras_require"][extra].split("\n")
    return {line.partition(">=")[0] for line in lines if line and not line.startswith("#")}


@pytest.mark.parametrize(
    ("command", "module"),
    [(command, module) for command in COMMANDS for module in extras.NEEDED[f"bsdenoise {command}"][1]],
)
def test_one_line(command, module, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, *COMMANDS[command]]) == 2
    extra = extras.NEEDED[f"bsdenoise {command}"][0]
    line = f"bsdenoise {command} needs the packages of an extra: pip install 'bsdenoise[{extra}]'"
    assert capsys.readouterr().err == f"bsdenoise: error: {line}\n"


def test_a_figure_of_inspect_needs_matplotlib(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    images.write(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    assert cli.main(["inspect", str(tmp_path / "a.png"), "--plot", str(tmp_path / "b.png")]) == 2
    line = "bsdenoise inspect --plot needs the packages of an extra: pip install 'bsdenoise[inspect]'"
    assert capsys.readouterr() == ("", f"bsdenoise: error: {line}\n")


def test_nothing_is_said_where_all_are_there():
    for what in extras.NEEDED:
        if what != "--methods bm3d":
            extras.check(what)


@pytest.mark.parametrize("what", extras.NEEDED)
def test_setup_cfg_lists_them(what):
    extra, modules = extras.NEEDED[what]
    assert {libraries.package_of(module) for module in modules} <= packages(extra)


def test_all_is_the_others():
    assert packages("all") == {"bsdenoise[app,evaluate,inspect,serve]"}
    assert {extra for extra, _ in extras.NEEDED.values()} == {"app", "evaluate", "inspect", "serve", "bm3d"}


PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({OPTIONAL!r}))  # None: cannot be imported
from bsdenoise.cli import main

model, = sys.argv[1:]
sys.exit(
    main(["presets"])
    or main(["denoise", "a.png", "--model", model])
    or main(["inspect", "a.png"])
    or main(["export", model, "--out", "exported"])
    or main("train a.npy --out run --noise gaussian:25/255 --width 4 --depth 1 --crop 32 --dry-run".split())
)
"""


@pytest.mark.slow
def test_the_base_needs_none_of_them(tmp_path, tiny_denoiser_path):
    noisy = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), np.uint8)
    images.write(tmp_path / "a.png", noisy[0])
    np.save(tmp_path / "a.npy", noisy)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], *sys.path])}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_denoiser_path(3))],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "denoised-a.png").exists() and (tmp_path / "exported" / "1" / "saved_model.pb").exists()
