"""Ranges of flags, which their types say, and the groups that training's flags come in."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Ge, Gt, Le, Lt

from bsdenoise import cli, config
from bsdenoise.config import flags


@dataclasses.dataclass(frozen=True)
class Some:
    at_least: Annotated[int, Ge(1)] = 1
    between: Annotated[float, Ge(0), Le(2)] = 0
    above: Annotated[float, Gt(0), Le(5)] = 1
    below: Annotated[float, Ge(0), Lt(1)] = 0
    optional: Annotated[int, Gt(3)] | None = None
    several: tuple[Annotated[int, Ge(1)], ...] = (1, 2)
    marked: Annotated[tuple[Annotated[int, Ge(1)], ...] | None, "a mark of somebody else"] = None
    free: str = ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"at_least": 0}, "--at-least must be at least 1. Received: 0."),
        ({"between": 2.5}, "--between must be between 0 and 2. Received: 2.5."),
        ({"between": -1}, "--between must be between 0 and 2. Received: -1."),
        ({"above": 0.0}, "--above must be above 0 and at most 5. Received: 0.0."),
        ({"below": 1.0}, "--below must be at least 0 and below 1. Received: 1.0."),
        ({"optional": 3}, "--optional must be above 3. Received: 3."),
        ({"several": (2, 0, 3)}, "--several must be at least 1. Received: 0."),
        ({"marked": (0,)}, "--marked must be at least 1. Received: 0."),
        ({"between": float("nan")}, "--between must be between 0 and 2. Received: nan."),
    ],
    ids=lambda value: str(value)[:30],
)
def test_out_of_range(values, words):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        flags.check(Some(**values))


@pytest.mark.parametrize(
    "values",
    [{}, {"between": 2, "above": 5.0, "below": 0.999, "optional": 4, "several": (), "marked": (7,)}],
    ids=["defaults", "ends"],
)
def test_in_range(values):
    flags.check(Some(**values))


@pytest.mark.parametrize("name", ["serve", "datasets", "presets", "app"])
def test_defaults_are_in_range(name):
    flags.check(cli.COMMANDS[name]())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train photos --out run --noise gaussian:25 --width 0", "--width must be at least 1. Received: 0."),
        (
            "train photos --out run --noise gaussian:25 --ramp-up 1.5",
            "--ramp-up must be between 0 and 1. Received: 1.5.",
        ),
        ("denoise a.png --concurrency 0", "--concurrency must be at least 1. Received: 0."),
        ("evaluate --model run --data a --noise gaussian:25 --draws 3 0", "--draws must be at least 1. Received: 0."),
        ("export run --out models --keep 0", "--keep must be at least 1. Received: 0."),
        ("export run --out models --version -1", "--version must be at least 1. Received: -1."),
        ("prepare photos --out packed --min-side 0", "--min-side must be at least 1. Received: 0."),
        (
            "figure a.png --model run --noise gaussian:25 --out a.pdf --draw -1",
            "--draw must be at least 0. Received: -1.",
        ),
    ],
)
def test_commands_refuse_at_once(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.importlib, "import_module", None)  # nothing is loaded
    assert cli.main(arguments.split()) == 2
    assert capsys.readouterr().err == f"bsdenoise: error: {words}\n"


def test_training_is_all_of_its_groups():
    groups = flags.groups(config.TrainConfig)
    assert [group.__name__ for group in groups] == [
        f"{name}Config" for name in ("Data", "Noise", "Network", "Optimisation", "Cluster", "Logging")
    ]
    names = [field.name for group in groups for field in dataclasses.fields(group)]
    assert len(set(names)) == len(names)  # each flag is in one group
    assert names == [field.name for field in dataclasses.fields(config.TrainConfig)]
    assert isinstance(config.TrainConfig("photos", Path("run"), "gaussian:25"), groups)
    assert flags.groups(config.DenoiseConfig) == ()


def test_flat_keywords_and_the_three_that_have_places():
    flat = config.TrainConfig(source="photos", out=Path("run"), noise="gaussian:25", width=8, batch=2, images=9)
    assert flat == config.TrainConfig("photos", Path("run"), "gaussian:25", width=8, batch=2, images=9)
    assert dataclasses.replace(flat, batch=3).steps == 3
    with pytest.raises(TypeError, match="positional"):
        config.TrainConfig("photos", Path("run"), "gaussian:25", "fresh")


def test_help_has_a_heading_for_each_group(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    every = {field.name.replace("_", "-") for field in dataclasses.fields(config.TrainConfig)}
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = capsys.readouterr().out.replace("│", " ")
    boxes = dict(re.findall(r"^[ ─╭]*(\w+) options\b(.*?)(?=^[ ─╭]*\w+ options\b|\Z)", text, re.DOTALL | re.MULTILINE))
    for group in flags.groups(config.TrainConfig):
        box = boxes[group.__name__.removesuffix("Config").lower()]
        assert group.__doc__ in box
        shown = set(re.findall(r"^ +--([a-z0-9-]+)", box, re.MULTILINE)) & every
        assert shown == {field.name.replace("_", "-") for field in dataclasses.fields(group)} - {"source"}
