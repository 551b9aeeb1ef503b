"""The command line: flags to a configuration, and that to the module of the command.

Nothing heavy is imported until a command runs, so that `--help` answers at once.
"""

import contextlib
import importlib
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Union

import tyro

import bsdenoise
from bsdenoise import config
from bsdenoise.cli import config_file, libraries
from bsdenoise.config import flags

COMMANDS: dict[str, Any] = {
    "train": config.TrainConfig,
    "denoise": config.DenoiseConfig,
    "inspect": config.InspectConfig,
    "evaluate": config.EvaluateConfig,
    "figure": config.FigureConfig,
    "datasets": config.DatasetsConfig,
    "presets": config.PresetsConfig,
    "export": config.ExportConfig,
    "prepare": config.PrepareConfig,
    "serve": config.ServeConfig,
    "guard": config.GuardConfig,
    "app": config.AppConfig,
}
EXIT_FAILED = 2
MAX_STATEMENT_INDENTATION = 4  # in tyro's messages; deeper lines repeat the help
EXIT_INTERRUPTED = 130  # what shells report for a process that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bsdenoise COMMAND …`.

    Args:
        argv: The arguments; `None` takes those of the process.

    Returns:
        The exit code: 0, 2 after an error, or 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        print(f"bsdenoise {bsdenoise.__version__}")
        return 0
    if not arguments:
        try:
            _parse(["--help"])
        except SystemExit:
            return EXIT_FAILED
    try:
        with _terminating_by_exception():
            return _run(*_parse(arguments))
    except BrokenPipeError:  # the reader of our output has gone: no more to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("\nbsdenoise: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:  # whatever it is, the user gets one line
        report(error)
        return EXIT_FAILED


def main_train(argv: Sequence[str] | None = None) -> int:
    """Run `bsdenoise-train …`, which is `bsdenoise train …`, but for `--version`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return main(arguments if arguments == ["--version"] else ["train", *arguments])


def report(error: BaseException, where: object = None) -> None:
    """Print an error as one line on stderr; with BSDENOISE_DEBUG=1 its traceback as well.

    Args:
        error: The error. Its type is named unless the message was written for users.
        where: The file that it is about, named if the message does not do so.
    """
    if os.environ.get("BSDENOISE_DEBUG") == "1":
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name:
        error = ValueError(libraries.missing(error.name))
        message = str(error)
    if not isinstance(error, (ValueError, OSError)) or not message:
        message = ": ".join(filter(None, (type(error).__name__, message))) + " (BSDENOISE_DEBUG=1 shows where)"
    if where is not None and str(where) not in message:
        message = f"{where}: {message}"
    print(f"bsdenoise: error: {message}", file=sys.stderr)


@contextlib.contextmanager
def _terminating_by_exception() -> Iterator[None]:
    """Let SIGTERM end the process by an exception, so that half-written files are removed on the way out."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)  # what shells report for a process that a signal ended

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not in the main thread: the caller looks after signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(arguments: list[str]) -> tuple[str, Any]:
    """Read the command's name and its settings; exit with 0 after `--help`, with 2 and one line after a mistake."""
    command = arguments[0]
    kinds = {name: Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items()}
    if command in COMMANDS:
        kinds[command] = config_file.parser(COMMANDS[command], command, arguments[1:])
    one_of: Any = Union[tuple(kinds.values())]  # noqa: UP007 (there is no other way to write it)
    registry = tyro.constructors.ConstructorRegistry()
    registry.struct_rule(config_file.grouped)
    mistakes = io.StringIO()
    try:
        with contextlib.redirect_stderr(mistakes):
            parsed = tyro.cli(
                one_of,
                prog="bsdenoise",
                description="Self-supervised image denoising: train on noisy images only, then denoise.",
                args=arguments,
                registry=registry,
            )
    except SystemExit as stop:
        if stop.code:
            print(f"bsdenoise: error: {_one_line(mistakes.getvalue())}", file=sys.stderr)
        raise
    if parsed.config is not None:
        said = config_file.in_words(COMMANDS[command], parsed.config, arguments[1:])
        if said is not None:
            print(f"bsdenoise: note: {said}", file=sys.stderr)
    return command, parsed.settings


def _one_line(box: str) -> str:
    """Shorten what tyro frames and explains in many lines: its statements and the flags they are about."""
    words: list[str] = []
    for line in box.splitlines():
        # Framed by "│ " on the left; by two spaces where the terminal cannot show that.
        framed = re.fullmatch(r"(?:│ |  )(?P<indentation> *)(?P<text>[^ ─].*?)[ │]*", line)
        if not framed or not framed["text"].strip("-"):
            continue  # the frame, or a rule between two statements
        if framed["text"].startswith("For full helptext"):
            break
        if len(framed["indentation"]) <= MAX_STATEMENT_INDENTATION:
            words += framed["text"].split()
    return f"{' '.join(words)} (bsdenoise COMMAND --help explains)"


def _run(command: str, settings: Any) -> int:
    """Check the ranges of a command's flags, load its module, and run it."""
    flags.check(settings)
    module = importlib.import_module(f"bsdenoise.cli.{command}")
    return module.run(settings) or 0
