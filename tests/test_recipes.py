"""The shipped recipes: one for each trained cell of the paper's Table 1, alike but for what the cells differ in."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

import bsdenoise
from bsdenoise import cli
from bsdenoise.cli import config_file
from bsdenoise.config import TrainConfig
from bsdenoise.evaluation import references

FOLDER = Path(bsdenoise.__file__).parent / "recipes"
DOCUMENT = Path(__file__).parent.parent / "docs" / "recipes.md"
METHODS = ("full", "per_component", "l2", "n2n", "n2c", "n2v")
CHANNELS = {"colour": 3, "grey": 1}
CELLS = [(method, kind) for method in METHODS for kind in CHANNELS]
FOLLOW_UP = "paper/full-colour-follow-up"
ALL = sorted([f"{folder}/{method}-{kind}" for folder in ("compact", "paper") for method, kind in CELLS] + [FOLLOW_UP])
OF_PRESETS = [f"presets/{name}" for name in ("compact-end", "compact-trunk", "full-end", "full-trunk")]
MAY_DIFFER = ("method", "channels", "factor")


def settings(name):
    """Reads a recipe as the command does, with a SOURCE and an --out."""
    return TrainConfig(
        **{"source": "photos", "out": Path("run"), "noise": "gaussian:25"} | config_file.read(TrainConfig, name)
    )


def text(name):
    return (FOLDER / f"{name}.toml").read_text()


def comments(name):
    return "".join(line for line in text(name).splitlines(keepends=True) if line.startswith("#"))


def test_there_is_one_for_each_cell():
    assert config_file.recipes() == sorted(ALL + OF_PRESETS)


@pytest.mark.parametrize("folder", ["paper", "compact"])
@pytest.mark.parametrize(("method", "kind"), CELLS, ids=lambda value: value)
def test_recipe_is_of_its_cell_and_like_the_others(folder, method, kind):
    one, other = settings(f"{folder}/{method}-{kind}"), settings(f"{folder}/full-colour")
    assert (one.method, one.channels) == (method, CHANNELS[kind])
    assert dataclasses.replace(one, **{name: getattr(other, name) for name in MAY_DIFFER}) == other


def test_paper_settings():
    """Laine, Lehtinen, Aila (2019), and their published code."""
    written = tomllib.loads(text("paper/full-colour"))
    assert written == {
        "source": "tfds:imagenet2012:validation", "min_side": 256, "max_side": 512, "channels": 3,
        "noise": "gaussian:25", "corrupt": "fresh", "augment": False, "method": "full", "factor": "precision",
        "width": 48, "depth": 5, "images": 1_200_000, "batch": 4, "crop": 256, "learning_rate": 3e-4, "beta_2": 0.99,
        "ramp_up": 0.1, "ramp_down": 0.3, "ema": 0.0, "precision": "float32",
    }  # fmt: skip


def test_follow_up_differs_from_the_paper_in_two_settings():
    """Laine, Karras, Lehtinen, Aila (NeurIPS 2019): half a million steps, and the covariance of the clean pixel."""
    expected = dataclasses.replace(settings("paper/full-colour"), images=2_000_000, factor="prior")
    assert settings(FOLLOW_UP) == expected


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith("compact/")])
def test_compact_recipes_take_their_source_from_the_command_line(name):
    written = tomllib.loads(text(name))
    assert "source" not in written and "out" not in written
    assert (written["width"], written["depth"], written["images"]) == (24, 4, 8000)
    assert written["crop"] % 2 ** written["depth"] == 0


@pytest.mark.parametrize("name", ALL)
def test_every_key_that_matters_is_written_out(name):
    """So that a recipe stays what it is when a default changes."""
    like = set(tomllib.loads(text(f"{name.split('/')[0]}/l2-grey")))
    written = tomllib.loads(text(name))
    own = {"factor"} if written["method"] in ("full", "per_component") else set()
    if written["method"] == "n2v":
        own = {"n2v_fraction", "n2v_radius", "n2v_center"}
    assert set(written) == like | own


@pytest.mark.parametrize("name", ALL)
def test_comment_has_the_published_numbers(name):
    source = references.FOLLOW_UP if name == FOLLOW_UP else references.PAPER
    written = tomllib.loads(text(name))
    published = {
        references.SETS[key].title: psnr
        for key, psnr in source.psnr[written["method"]].items()
        if references.SETS[key].channels == written["channels"]
    }
    comment = comments(name)
    assert comment.count(" dB") == bool(published)
    for title, psnr in published.items():
        assert f"{title} {psnr:.2f}" in comment
    assert published or "no published number in colour" in comment


@pytest.mark.parametrize("name", ALL)
def test_commands_in_the_comment_can_be_given(name):
    lines = [line.removeprefix("#").split() for line in comments(name).splitlines() if "    bsdenoise " in line]
    train, evaluate = (cli._parse(line[1:]) for line in lines)
    assert (train[0], evaluate[0]) == ("train", "evaluate")
    merged = dataclasses.asdict(train[1])
    written = tomllib.loads(text(name))
    assert {key: merged[key] for key in written} == written
    assert evaluate[1].model == (train[1].out,) and evaluate[1].noise == written["noise"]
    assert len(evaluate[1].draws) == len(evaluate[1].data) == (3 if written["channels"] == 3 else 1)


@pytest.mark.parametrize("name", OF_PRESETS)
def test_recipes_of_presets(name, tmp_path, monkeypatch):
    """Their commands can be given, and the four differ in little but size and what they start from."""
    monkeypatch.chdir(tmp_path)
    lines = [line.removeprefix("#").split() for line in comments(name).splitlines() if "    bsdenoise " in line]
    found = [cli._parse(line[1:])[1] for line in lines]
    (own,) = [one for one, line in zip(found, lines, strict=True) if name in line]
    assert (own.init is None) == (name == "presets/compact-trunk")
    assert own.grow == (name == "presets/full-trunk")
    written = tomllib.loads(text(name))
    assert written.items() <= dataclasses.asdict(own).items()
    assert not {"noise", "corrupt", "source"} & set(written)  # they are for noisy images, as they are
    assert (own.noise, own.corrupt) == ("gaussian:25", None)
    alike = [settings(other) for other in OF_PRESETS if other.endswith(name.rsplit("-")[-1])]
    free = ("width", "images", "grow", "learning_rate", "ramp_up", "ema", "seed")
    assert len({dataclasses.replace(one, **{key: getattr(alike[0], key) for key in free}) for one in alike}) == 1


def documented_commands():
    """Gives the commands of docs/recipes.md, loops over methods and kinds unrolled once."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)).replace("\\\n", " ")
    lines = blocks.replace("$method", "n2v").replace("$kind", "grey").splitlines()
    return [line.split()[1:] for line in lines if line.strip().startswith("bsdenoise ")]


@pytest.mark.parametrize("arguments", documented_commands(), ids=" ".join)
def test_documented_commands_can_be_given(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1])
    if "--help" in arguments:
        with pytest.raises(SystemExit) as stopped:
            cli._parse(arguments)
        assert stopped.value.code == 0
    else:
        command, found = cli._parse(arguments)
        assert command == arguments[0] and str(found.out) == arguments[arguments.index("--out") + 1]
