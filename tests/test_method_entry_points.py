"""Methods of other packages: found by their entry points, trained by the command, and loaded from files."""

import importlib
import json
import sys

import keras
import numpy as np
import pytest
import training_runs

from bsdenoise import cli, loading, methods
from bsdenoise.methods import registry

source, quick_export = training_runs.source, training_runs.quick_export

MODULE = """
import keras
from bsdenoise import methods

class Median(methods.L2):
    name = "median"

    def loss(self, channels, factor="prior", noise=None):
        return keras.losses.MeanAbsoluteError(dtype="float32")

class Failing(methods.L2):
    name = "failing"

    def __init__(self):
        raise RuntimeError("not today")

made = Median()
made_by_hand = Median()
made_by_hand.name = "by-hand"
nothing = 3
"""
POINTS = """[bsdenoise.methods]
median = others_methods:Median
by-hand = others_methods:made_by_hand
renamed = others_methods:made
number = others_methods:nothing
failing = others_methods:Failing
absent = no_such_module:Method
"""


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """A package beside others, as pip would leave it; nothing of it is imported yet."""
    site = tmp_path / "site"
    folder = site / "others_methods-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: others-methods\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(POINTS)
    (site / "others_methods.py").write_text(MODULE)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


@pytest.mark.op_by_op
def test_trained_by_the_command_and_loaded(source, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    flags = "--noise gaussian:25 --corrupt fresh --width 4 --depth 1 --crop 16 --images 8".split()
    assert cli.main(["train", str(source), "--out", str(out), "--method", "median", *flags]) == 0
    assert json.loads((out / "config.json").read_text())["config"]["method"] == "median"

    registry._METHODS.pop("median")  # as in another process
    assert loading.load(out).method.name == "median"
    registry._METHODS.pop("median")
    denoiser = keras.models.load_model(out / "denoiser.keras")
    assert type(denoiser.method.loss(3, "prior", None)) is keras.losses.MeanAbsoluteError
    assert denoiser.denoise(np.zeros((8, 8, 3), "uint8")).shape == (8, 8, 3)


@pytest.mark.parametrize("name", ["median", "by-hand"])
def test_classes_and_instances(name):
    assert name not in registry._METHODS
    assert methods.get(name) is methods.get(name)
    assert methods.get(name).name == name


def test_a_module_that_registers_itself(tmp_path):
    module = tmp_path / "site" / "others_methods.py"
    module.write_text(MODULE + "methods.register(made)\n")
    sys.modules.pop("others_methods", None)
    importlib.invalidate_caches()
    assert methods.get("median") is sys.modules["others_methods"].made


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("renamed", r"renamed = others_methods:made .* must give a Method of that name. Received: the method 'median'"),
        ("number", "number = others_methods:nothing .* must give a Method of that name. Received: int"),
        ("failing", "failing = others_methods:Failing of the group bsdenoise.methods cannot be loaded: not today"),
        ("absent", "absent = no_such_module:Method .* cannot be loaded: No module named 'no_such_module'"),
    ],
)
def test_wrong_entry_points(name, message):
    with pytest.raises(ValueError, match=message):
        methods.get(name)


def test_they_are_named():
    known = ("full", "per_component", "l2", "n2n", "n2c", "n2v")
    assert methods.names() == (*known, "absent", "by-hand", "failing", "median", "number", "renamed")


def test_a_method_that_nobody_knows(tmp_path, capsys):
    arguments = ["train", "photos", "--out", str(tmp_path / "run"), "--noise", "gaussian:25", "--method", "n2w"]
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bsdenoise: error: --method must be one of full, per_component, l2, n2n, n2c, n2v, absent, ")
    assert line.endswith("or a method of one's own that is registered (docs/methods.md). Received: n2w.")


def test_a_model_of_an_unknown_method(source, tmp_path):
    out = tmp_path / "run"
    flags = "--noise gaussian:25 --corrupt fresh --width 4 --depth 1 --crop 16 --images 8".split()
    assert cli.main(["train", str(source), "--out", str(out), "--method", "median", *flags]) == 0
    registry._METHODS.pop("median")
    (tmp_path / "site" / "others_methods-1.0.dist-info" / "entry_points.txt").write_text("")
    with pytest.raises(ValueError, match=r"`method` must be one of .*'median'. .* group bsdenoise.methods"):
        loading.load(out)
