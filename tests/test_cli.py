"""The command line as a whole: help, version, exit codes, and how errors look."""

import importlib
import importlib.metadata
import os
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

import bsdenoise
from bsdenoise import cli, config

QUICK = 0.5  # seconds, the promise of `bsdenoise --help` and `import bsdenoise`
TRIES = 5  # the best counts: other work on the machine only ever adds time
DENOISE = ["denoise", "a.png", "--out", "b", "--model", "m"]
PROGRAM = "import sys; from bsdenoise.cli import main; sys.exit(main())"


def run_command(monkeypatch, result, arguments=DENOISE):
    """Runs the command line with a command in the place of `denoise` that returns or raises `result`."""
    seen = []

    def run(settings):
        seen.append(settings)
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setitem(sys.modules, "bsdenoise.cli.denoise", SimpleNamespace(run=run))
    return cli.main(arguments), seen


def test_help_of_every_command(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            cli.main([name, "--help"])
        assert stopped.value.code == 0
        assert f"usage: bsdenoise {name}" in capsys.readouterr().out


def test_every_flag_has_a_help_text():
    import dataclasses

    from tyro import _docstrings

    for kind in cli.COMMANDS.values():
        for field in dataclasses.fields(kind):
            assert _docstrings.get_field_docstring(kind, field.name, ()), f"{kind.__name__}.{field.name}"


def test_no_command_prints_the_help_and_fails(capsys):
    assert cli.main([]) == 2
    assert "denoise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["frobnicate"], ["frobnicate", "train, denoise, inspect, evaluate, figure, datasets, presets, export"]),
        (["export", "a.keras"], ["--out"]),
        ([*DENOISE, "--nonsense"], ["--nonsense"]),
        (["train", "a", "--out", "b", "--noise", "gaussian:25", "--images", "1.5"], ["--images", "1.5"]),
        (["train"], ["SOURCE", "--out"]),
    ],
    ids=str,
)
def test_wrong_flags_give_one_line_and_exit_with_2(arguments, names, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("bsdenoise: error: ") and errors.count("\n") == 1 and len(errors) < 300
    assert all(name in errors for name in names)


def test_sigterm_ends_a_command_by_an_exception(monkeypatch):
    """So that whoever is writing a file can remove its half."""
    cleaned = []

    def run(settings):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(run=run))
    with pytest.raises(SystemExit) as stopped:
        cli.main(DENOISE)
    assert stopped.value.code == 143 and cleaned
    assert signal.getsignal(signal.SIGTERM) is before


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bsdenoise {bsdenoise.__version__}\n"
    assert importlib.metadata.version("bsdenoise") == bsdenoise.__version__


def test_console_scripts_are_declared():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert scripts["bsdenoise"].load() is cli.main
    assert scripts["bsdenoise-train"].load() is cli.main_train


def test_settings_reach_the_command(monkeypatch):
    code, (settings,) = run_command(monkeypatch, None, [*DENOISE, "--sigma", "25/255", "--std"])
    assert code == 0
    assert isinstance(settings, config.DenoiseConfig)
    assert (settings.inputs, str(settings.out), str(settings.model)) == (("a.png",), "b", "m")
    assert (settings.sigma, settings.std, settings.overwrite) == ("25/255", True, False)


def test_train_command_is_train(monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "main", lambda arguments: seen.append(arguments) or 0)
    assert cli.main_train(["a", "--out", "b"]) == 0
    assert seen == [["train", "a", "--out", "b"]]


def test_exit_code_of_the_command_is_passed_on(monkeypatch):
    assert run_command(monkeypatch, 2)[0] == 2


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("a.png: is\n  broken."), 2, "bsdenoise: error: a.png: is broken.\n"),
        (OSError(28, "No space left on device"), 2, "bsdenoise: error: [Errno 28] No space left on device\n"),
        (KeyError("x"), 2, "bsdenoise: error: KeyError: 'x' (BSDENOISE_DEBUG=1 shows where)\n"),
        (ValueError(), 2, "bsdenoise: error: ValueError (BSDENOISE_DEBUG=1 shows where)\n"),
        (KeyboardInterrupt(), 130, "\nbsdenoise: interrupted\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_are_one_line_and_no_traceback(monkeypatch, capsys, error, code, line):
    monkeypatch.delenv("BSDENOISE_DEBUG", raising=False)
    assert run_command(monkeypatch, error)[0] == code
    assert capsys.readouterr().err == line


def test_debug_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv("BSDENOISE_DEBUG", "1")
    assert run_command(monkeypatch, ValueError("no"))[0] == 2
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.endswith("bsdenoise: error: no\n")


def test_report_names_the_file_once(capsys):
    cli.report(ValueError("too dark"), where="a.png")
    cli.report(ValueError("a.png: too dark"), where="a.png")
    assert capsys.readouterr().err == 2 * "bsdenoise: error: a.png: too dark\n"


def seconds(code, *arguments):
    """Least processor time of a fresh interpreter that runs a line of Python.

    On an idle machine that is the wall time, since nothing is waited for; on a busy one it stays what it is.
    """
    times = []
    for _ in range(TRIES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if times[-1] < QUICK:
            break
    return min(times)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["denoise", "--help"], ["train", "--config", "paper/n2v-grey", "--help"]],
    ids=" ".join,
)
def test_help_is_quick(arguments):
    assert seconds(PROGRAM, *arguments) < QUICK


def test_import_is_quick():
    assert seconds("import bsdenoise") < QUICK


def test_commands_choose_the_backend_before_a_neural_network_library_is_loaded():
    code = (
        "import importlib, sys, bsdenoise.cli as cli\n"
        "for command in cli.COMMANDS: importlib.import_module(f'bsdenoise.cli.{command}')\n"
        "sys.exit(str({'keras', 'tensorflow', 'jax'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr == "set()\n"


def test_help_loads_nothing_heavy():
    code = (
        "import sys, bsdenoise.cli as cli\n"
        "try: cli.main(['denoise', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(str({'numpy', 'keras', 'tensorflow', 'jax'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr == "set()\n"
