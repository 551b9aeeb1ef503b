"""`--config`: where values come from, who wins, and what is refused."""

import dataclasses
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from bsdenoise import cli
from bsdenoise.cli import config_file
from bsdenoise.config import DenoiseConfig, EvaluateConfig, TrainConfig

REQUIRED = ["photos", "--out", "run", "--noise", "gaussian:25"]
MISTAKES = [
    ("a.toml", b"lerning_rate = 1", r"^a\.toml: lerning_rate is not known\. Did you mean learning_rate\?$"),
    ("a.toml", b"[train]\nimages = 1", r"^a\.toml: train is not known\. Its keys are flags of the command"),
    ("a.toml", b'"--images" = 1', r"^a\.toml: --images is not known\."),
    ("a.toml", b"ramp_up = 0\nramp-up = 0", r"^a\.toml: ramp_up is given twice, with - and with _\."),
    ("a.toml", b"images = 1.5", r"^a\.toml: images: expected a valid integer\. Received: 1\.5\.$"),
    ("a.toml", b"images = true", r"^a\.toml: images: expected a valid integer\. Received: True\.$"),
    ("a.toml", b'beta-2 = "0.9"', r"^a\.toml: beta-2: expected a valid number\. Received: '0\.9'\.$"),
    ("a.toml", b"xla = 1", r"^a\.toml: xla: expected a valid boolean\. Received: 1\.$"),
    ("a.toml", b'source = ["a"]', r"^a\.toml: source: expected a valid string\. Received: \['a'\]\.$"),
    ("a.toml", b'optimizer = "sgd"', r"^a\.toml: optimizer: expected 'adam' or 'muon'\. Received: 'sgd'\.$"),
    ("a.toml", b"out = 5", r"^a\.toml: out: expected .*\. Received: 5\.$"),
    ("a.toml", b"images =", r"^a\.toml: not readable as TOML \(.+\)\.$"),
    ("a.toml", b"images = 1 # \xff", r"^a\.toml: not readable as TOML \(.*utf-8.*\)\.$"),
    ("a.json", b'{"config"', r"^a\.json: not readable as JSON \(.+\)\.$"),
    ("a.json", b'{"images": 5}', r"^a\.json: expected the config\.json of a run, with an object \"config\""),
    ("a.json", b"[1]", r"^a\.json: expected the config\.json of a run"),
    ("a.json", b'{"config": [1]}', r"^a\.json: expected the config\.json of a run"),
    ("a.json", b'{"config": {"batch": null}}', r"^a\.json: batch: expected a valid integer\. Received: None\.$"),
]


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(monkeypatch):
    """A function from arguments to the settings that reach the command."""

    def parse(*arguments):
        seen = []
        monkeypatch.setattr(cli, "_run", lambda command, settings: seen.append(settings) or 0)
        assert cli.main(list(arguments)) == 0
        return seen[0]

    return parse


def write(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def test_file_gives_values_and_flags_win(settings):
    write("a.toml", 'source = "scans"\nout = "there"\nnoise = "gaussian:10"\nwidth = 12\nema = 0\ncorrupt = "fixed"')
    expected = TrainConfig("scans", Path("there"), "gaussian:10", width=12, ema=0.0, corrupt="fixed")
    found = settings("train", "--config", "a.toml")
    assert found == expected and type(found) is TrainConfig
    assert isinstance(found.ema, float)
    won = settings("train", "photos", "--config=a.toml", "--width", "16", "--corrupt", "None", "--out=here")
    assert won == dataclasses.replace(expected, source="photos", width=16, corrupt=None, out=Path("here"))


@pytest.mark.parametrize("key", ["learning_rate", "learning-rate"])
@pytest.mark.parametrize("flag", ["--learning_rate", "--learning-rate"])
def test_hyphen_and_underscore_are_alike(settings, key, flag):
    write("a.toml", f"{key} = 2e-3")
    assert settings("train", *REQUIRED, "--config", "a.toml").learning_rate == 2e-3
    assert settings("train", *REQUIRED, "--config", "a.toml", flag, "1.0").learning_rate == 1.0


def test_place_of_the_flag_does_not_matter(settings):
    write("a.toml", "width = 12")
    one = settings("train", "--config", "a.toml", *REQUIRED)
    assert (
        one
        == settings("train", *REQUIRED, "--config", "a.toml")
        == TrainConfig("photos", Path("run"), "gaussian:25", width=12)
    )


def test_switches_can_be_turned_off(settings):
    write("a.toml", "xla = true")
    assert settings("train", *REQUIRED, "--config", "a.toml").xla is True
    assert settings("train", *REQUIRED, "--config", "a.toml", "--no-xla").xla is False


def test_mark_at_the_beginning_of_a_file_is_skipped(settings):
    Path("a.toml").write_bytes("\ufeffwidth = 12".encode())
    assert settings("train", *REQUIRED, "--config", "a.toml").width == 12


def test_what_neither_gives_stays_required(capsys):
    write("a.toml", 'noise = "gaussian:25"')
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "--config", "a.toml"])
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "SOURCE" in errors and "--out" in errors and "--noise" not in errors


def test_lists_and_flags_that_can_be_repeated(settings):
    """A repeated flag replaces the list of the file; it does not join it."""
    write("a.toml", 'model = ["a", "b"]\ndata = ["kodak", "set14"]\ndraws = [10, 20]\nnoise = "gaussian:25"')
    found = settings("evaluate", "--config", "a.toml")
    assert found == EvaluateConfig((Path("a"), Path("b")), data=("kodak", "set14"), draws=(10, 20), noise="gaussian:25")
    assert settings("evaluate", "--config", "a.toml", "--model", "c").model == (Path("c"),)
    assert settings("evaluate", "--config", "a.toml", "--model=c", "--model=d").model == (Path("c"), Path("d"))


def test_lists_that_a_file_leaves_out_stay_empty(settings):
    write("a.toml", 'methods = ["bm3d"]')
    assert settings("evaluate", "--config", "a.toml") == EvaluateConfig((), methods=("bm3d",))


def test_other_positionals_win_too(settings):
    write("a.toml", 'inputs = ["a.png", "b.png"]\nout = "c"')
    assert settings("denoise", "--config", "a.toml") == DenoiseConfig(("a.png", "b.png"), Path("c"))
    assert settings("denoise", "d.png", "--config", "a.toml") == DenoiseConfig(("d.png",), Path("c"))


def test_run_folder_repeats_a_run(settings):
    """As config.json holds it: paths as strings, and what is not set as null."""
    flags = TrainConfig("scans", Path("run"), "gaussian:25", images=800, min_side=64, method="l2")
    content = {"config": dataclasses.asdict(flags) | {"out": "run"}, "facts": {"num_images": 3}, "versions": {}}
    write("run/config.json", json.dumps(content))
    assert settings("train", "--config", "run/config.json") == flags
    assert settings("train", "--config", "run") == flags
    assert settings("train", "--config", "run", "--out", "b") == dataclasses.replace(flags, out=Path("b"))


def test_what_a_run_writes_can_be_read(settings):
    run_folder = import_module("bsdenoise.training.run_folder")
    flags = TrainConfig("scans", Path("run"), "gaussian:5-50", corrupt="fresh", n2v_fraction=1 / 3, learning_rate=1e-9)
    folder = run_folder.RunFolder(flags.out, flags)
    folder.write_config(flags, {}, "1 CPU")
    folder.close()
    assert settings("train", "--config", "run") == flags


def test_a_run_of_an_earlier_version_goes_on(settings):
    """Its flags stand in config.json as they always did, in whatever order, and without those that came later."""
    run_folder = import_module("bsdenoise.training.run_folder")
    old = {
        **{"source": "scans", "out": "run", "noise": "gaussian:25", "corrupt": "fresh", "targets": None, "axes": None},
        **{"method": "full", "factor": "prior", "n2v_fraction": 1 / 64, "n2v_radius": 5, "n2v_center": False},
        **{"channels": None, "min_side": 64, "max_side": None, "width": 48, "depth": 5, "images": 800, "batch": 4},
        **{"crop": 256, "augment": False, "learning_rate": 3e-4, "beta_2": 0.99, "ramp_up": 0.1, "ramp_down": 0.3},
        **{"ema": 0.999, "precision": "float32", "xla": False, "strategy": "auto", "seed": 0, "validation_images": 16},
        **{"validation_crop": 256, "validate_every": 1000, "log_every": 50, "checkpoint_minutes": 5.0},
    }
    write("run/config.json", json.dumps({"config": old}))
    write("run/checkpoints/ckpt-1.index", "")
    flags = TrainConfig("scans", Path("run"), "gaussian:25", corrupt="fresh", min_side=64, images=800)
    run_folder.RunFolder(flags.out, dataclasses.replace(flags, images=1600, log_every=50)).close()
    assert settings("train", "--config", "run") == dataclasses.replace(flags, width=48, depth=5)
    with pytest.raises(ValueError, match="min_side was 64, now 32"):
        run_folder.RunFolder(flags.out, dataclasses.replace(flags, min_side=32))


def test_run_goes_on_with_the_same_file_and_another_number_of_images(settings):
    """What the run folder remembers are the merged values, not the file."""
    run_folder = import_module("bsdenoise.training.run_folder")
    write("a.toml", "width = 4\nimages = 8")
    flags = settings("train", *REQUIRED, "--config", "a.toml")
    folder = run_folder.RunFolder(flags.out, flags)
    folder.write_config(flags, {}, "1 CPU")
    folder.close()
    assert json.loads(Path("run/config.json").read_text())["config"]["width"] == 4
    write("run/checkpoints/ckpt-1.index", "")
    longer = settings("train", *REQUIRED, "--config", "a.toml", "--images", "16")
    run_folder.RunFolder(longer.out, longer).close()
    write("a.toml", "width = 6")
    with pytest.raises(ValueError, match="width was 4, now 6"):
        run_folder.RunFolder(longer.out, settings("train", *REQUIRED, "--config", "a.toml", "--images", "16"))


def test_recipe_goes_before_a_folder_of_its_name():
    write("compact/l2-grey/config.json", '{"config": {"width": 5}}')
    assert config_file.read(TrainConfig, "compact/l2-grey")["width"] == 24
    assert config_file.read(TrainConfig, "./compact/l2-grey") == {"width": 5}


@pytest.mark.parametrize(("name", "content", "message"), MISTAKES, ids=[repr(content) for _, content, _ in MISTAKES])
def test_wrong_files_are_refused(name, content, message):
    Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        config_file.read(TrainConfig, name)


def test_wrong_entry_of_a_list_is_refused():
    write("a.toml", "draws = [1, 2.5]")
    with pytest.raises(ValueError, match=r"^a\.toml: draws: expected a valid integer\. Received: 2\.5\.$"):
        config_file.read(EvaluateConfig, "a.toml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sepia", "^sepia: no recipe has that name and no run folder"),
        ("paper/full-colour.toml", r"^paper/full-colour\.toml: there is no such file"),
        ("empty", "^empty/config.json: there is no such file"),
    ],
)
def test_unknown_name_lists_the_recipes(name, message):
    Path("empty").mkdir()
    with pytest.raises(ValueError, match=message) as raised:
        config_file.read(TrainConfig, name)
    assert "compact/ full-colour" in str(raised.value) and "paper/ full-colour" in str(raised.value)


def test_misspelt_recipe_is_told_what_it_may_mean():
    message = r"^paper/ful-colour: no recipe has that name and no run folder\. Did you mean paper/full-colour\?$"
    with pytest.raises(ValueError, match=message):
        config_file.read(TrainConfig, "paper/ful-colour")


def test_folder_that_looks_like_a_file_is_refused():
    Path("a.toml").mkdir()
    with pytest.raises(OSError, match=r"a\.toml"):
        config_file.read(TrainConfig, "a.toml")


def said(capsys, *arguments):
    cli._parse(["train", "photos", "--out", "run", *arguments])
    return capsys.readouterr().err


def test_what_a_file_sets_is_said_in_one_line(capsys):
    write("a.toml", "width = 24\ncorrupt = 'fresh'\naugment = true\ndepth = 4\nseed = 0\nnoise = 'gaussian:25'")
    assert said(capsys, "--config", "a.toml") == (
        "bsdenoise: note: --config a.toml sets --corrupt fresh --noise gaussian:25 --width 24 --augment --depth 4\n"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--corrupt", "fixed"], "--augment"),
        (["--corrupt=None"], "--augment"),
        (["--no-augment"], "--corrupt fresh"),
        (["--no-augment", "--corrupt", "None"], None),
    ],
)
def test_what_the_command_line_sets_is_not_said(capsys, arguments, expected):
    write("a.toml", "corrupt = 'fresh'\naugment = true")
    found = said(capsys, "--config", "a.toml", "--noise", "gaussian:25", *arguments)
    assert found == ("" if expected is None else f"bsdenoise: note: --config a.toml sets {expected}\n")


@pytest.mark.parametrize("name", config_file.recipes())
def test_a_recipe_that_adds_noise_says_so_first(capsys, name):
    found = said(capsys, "--config", name, "--noise", "gaussian:25")
    adds = config_file.read(TrainConfig, name).get("corrupt") is not None
    assert found.startswith(f"bsdenoise: note: --config {name} sets --corrupt fresh ") == adds
    assert adds or "--corrupt" not in found
    assert adds == (not name.startswith("presets/"))


def test_workers_of_this_machine_do_not_say_it_again(capsys):
    flags = json.dumps({"config": {"corrupt": "fresh"}, "said": True})
    write("config.json", flags)
    assert said(capsys, "--config", "config.json", "--noise", "gaussian:25") == ""


def test_flag_may_be_given_once():
    with pytest.raises(ValueError, match="--config may be given once. Received: b, a"):
        config_file.named(["--config", "a", "--config=b"])


@pytest.mark.parametrize("arguments", [["--config"], ["--config", "--xla"], ["--config", "-h"]], ids=str)
def test_flag_without_a_value_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", *arguments])
    assert stopped.value.code == 2
    assert "--config" in capsys.readouterr().err


def test_mistakes_are_one_line_and_exit_with_2(capsys):
    write("a.toml", "width = 'wide'")
    assert cli.main(["train", *REQUIRED, "--config", "a.toml"]) == 2
    assert capsys.readouterr().err == ("bsdenoise: error: a.toml: width: expected a valid integer. Received: 'wide'.\n")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_the_flag_and_those_of_the_command(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # wider ones have groups of flags side by side
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert len(re.findall(r"^\W*--config NAME\|FILE", text, re.MULTILINE)) == 1 and "compact/l2-grey" in text
    field = dataclasses.fields(cli.COMMANDS[command])[-1].name.replace("_", "-")
    assert f"--{field}" in text


def test_help_shows_the_values_of_the_file(capsys):
    write("a.toml", "width = 37\nxla = true")
    with pytest.raises(SystemExit):
        cli.main(["train", "--config", "a.toml", "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Default: 48, as in the paper; with --init that model's. (default: 37)" in words
    assert "--no-xla" in words and "Side of the square crops in pixels. (default: 256)" in words
