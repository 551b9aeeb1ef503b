"""`--config`: values for the flags of a command from a file, the config.json of a run, or a shipped recipe.

A file's values become the defaults of the command's flags, so that flags on the command line win, and `--help` shows
what the file says. Types are those of the command's dataclass.
"""

import dataclasses
import difflib
import inspect
import json
import shlex
import tomllib
import typing
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
from tyro.constructors import StructConstructorSpec, StructFieldSpec, StructTypeInfo

from bsdenoise.config import flags

FLAG = "--config"
RUN_CONFIG = "config.json"  # what a run folder calls its flags
TOML, JSON = ".toml", ".json"
SAID = "said"  # key beside the flags of a run: whoever wrote the file has told the user what it holds
FIRST_SAID = ("corrupt", "noise", "source", "targets", "init")  # what training does to images, or begins with
CLOSE = 0.75  # how alike a misspelt key and a flag are, of 1; 0.6, the default, finds "server" for "every"

Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True)
class WithFile(Generic[Settings]):
    """What a command line says: a command's dataclass, and the file that its defaults came from.

    Attributes:
        settings: The command's own.
        config: What `--config` named.
    """

    settings: Annotated[Settings, tyro.conf.arg(name="")]

    config: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME|FILE",
            help="TOML file with values for these flags by their names (learning_rate = 3e-4); paths in it are "
            "relative to the current folder. For train also a recipe, such as paper/full-colour or compact/l2-grey, "
            "or a run folder, to do that run again. Flags on the command line win over it.",
        ),
    ] = None


def parser(kind: type, command: str, arguments: Sequence[str]) -> Any:
    """Return what tyro takes for a subcommand: a command's dataclass with `--config`, whose values are its defaults.

    Args:
        kind: The dataclass.
        command: Name of the command.
        arguments: The command line behind that name.

    Raises:
        ValueError: If the command line names no such file, or one that is not what the command takes.
        OSError: If the file cannot be read.
    """
    name = named(arguments)
    default: Any = tyro.MISSING_NONPROP
    if name is not None:
        default = WithFile(_with_defaults(kind, defaults(kind, name, arguments)), name)
    text = inspect.cleandoc(kind.__doc__ or "")
    return Annotated[WithFile[kind], tyro.conf.subcommand(command, default=default, description=text)]  # type: ignore[valid-type]


def grouped(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Have tyro read a class that is made of groups of flags group by group, each with a heading in `--help`.

    Args:
        info: What is to be read, as a rule of `tyro.constructors` is told.

    Returns:
        The groups as fields, and what makes the class of them; `None` for other classes.
    """
    kind = info.type
    parts = flags.groups(kind) if isinstance(kind, type) else ()
    if not parts:
        return None

    def made(**read: Any) -> Any:
        return kind(**{name: value for part in read.values() for name, value in _values(part, type(part)).items()})

    fields = []
    for part in parts:
        known: Any = tyro.MISSING_NONPROP
        if isinstance(info.default, kind):
            known = part(**_values(info.default, part))
        whole: Any = Annotated[part, tyro.conf.OmitArgPrefixes]
        heading = part.__name__.removesuffix("Config").lower()
        fields.append(StructFieldSpec(heading, whole, known, inspect.getdoc(part)))
    return StructConstructorSpec(made, tuple(fields))


def _values(config: Any, part: type) -> dict[str, Any]:
    """Return the values of a group's flags."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(part)}


def named(arguments: Sequence[str]) -> str | None:
    """Find what `--config` names; `None` if it is not there, or without a value, of which the parser complains.

    Raises:
        ValueError: If it is there twice.
    """
    names = [word.removeprefix(f"{FLAG}=") for word in arguments if word.startswith(f"{FLAG}=")]
    pairs = zip(arguments, arguments[1:], strict=False)
    names += [name for word, name in pairs if word == FLAG and not name.startswith("-")]
    if len(names) > 1:
        raise ValueError(f"{FLAG} may be given once. Received: {', '.join(names)}.")
    return names[0] if names else None


def defaults(kind: type, name: str, arguments: Iterable[str]) -> dict[str, Any]:
    """Read what `--config NAME` says of the flags that the command line does not give itself.

    Flags that can be repeated add to their defaults: a given one would not win, but join.

    Args:
        kind: The command's dataclass.
        name: A recipe, a TOML file, a run folder or its config.json.
        arguments: The command line.

    Raises:
        ValueError: If there is no such thing, or it is not what the command takes; names file and key.
        OSError: If the file cannot be read.
    """
    given = {word.split("=")[0].removeprefix("--").replace("-", "_") for word in arguments if word.startswith("--")}
    return {field: value for field, value in read(kind, name).items() if field not in given}


def read(kind: type, name: str) -> dict[str, Any]:
    """Read values for fields of a dataclass, of the fields' types.

    Args:
        kind: The dataclass.
        name: A recipe, a TOML file, a run folder or its config.json.

    Raises:
        ValueError: If there is no such thing, or it is not what the command takes; names file and key.
        OSError: If the file cannot be read.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in _load(name).items():
        field = key.replace("-", "_")
        if field not in hints:
            close = difflib.get_close_matches(field, hints, n=1, cutoff=CLOSE)
            advice = f"Did you mean {close[0]}?" if close else "Its keys are flags of the command, which --help lists."
            raise ValueError(f"{name}: {key} is not known. {advice}")
        if field in values:
            raise ValueError(f"{name}: {field} is given twice, with - and with _. Leave one of them.")
        values[field] = _checked(hints[field], value, f"{name}: {key}")
    return values


def in_words(kind: type, name: str, arguments: Sequence[str]) -> str | None:
    """Say in a line what `--config NAME` sets beyond the command line, so that nothing of it acts unseen.

    Args:
        kind: The command's dataclass.
        name: As for `read`.
        arguments: The command line.

    Returns:
        What differs from the command's own defaults, written as flags, what changes the images first; `None` if
        nothing does, or if it was said before, to whoever started this process.

    Raises:
        ValueError: As `read`.
        OSError: If the file cannot be read.
    """
    if _is_said(name):
        return None
    own = {field.name: field.default for field in dataclasses.fields(kind) if _has_default(field)}
    values = defaults(kind, name, arguments)
    changed = {field: value for field, value in values.items() if field not in own or own[field] != value}
    kept = [field for field in changed if f"--no-{field.replace('_', '-')}" not in arguments]
    positional = _positional(kind)
    flags = [_as_flag(field, changed[field], field in positional) for field in sorted(kept, key=_rank)]
    return f"{FLAG} {name} sets {' '.join(flags)}" if flags else None


def recipes() -> list[str]:
    """Name the shipped recipes, such as "paper/full-colour"."""
    folders = [folder for folder in _recipe_folder().iterdir() if folder.is_dir()]
    files = [(folder.name, file.name) for folder in folders for file in folder.iterdir() if file.name.endswith(TOML)]
    return sorted(f"{folder}/{file.removesuffix(TOML)}" for folder, file in files)


def _rank(field: str) -> int:
    """Order what is said: first what decides about the images."""
    return FIRST_SAID.index(field) if field in FIRST_SAID else len(FIRST_SAID)


def _positional(kind: type) -> set[str]:
    """List the fields that a command line gives without a flag."""
    mark = _metadata(tyro.conf.Positional[int])[0]
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field for field, hint in hints.items() if mark in _metadata(hint)}


def _metadata(hint: Any) -> tuple:
    return getattr(hint, "__metadata__", ())


def _as_flag(field: str, value: Any, is_positional: bool) -> str:
    """Write a value as it would stand on a command line."""
    flag = field.upper() if is_positional else f"--{field.replace('_', '-')}"
    if isinstance(value, bool):
        return flag if value else f"--no-{field.replace('_', '-')}"
    values = value if isinstance(value, (list, tuple)) else [value]
    return " ".join([flag, *(shlex.quote(str(one)) for one in values)])


def _is_said(name: str) -> bool:
    """Tell whether the flags come from a process that has told the user of them."""
    path = Path(name)
    return path.suffix == JSON and json.loads(path.read_text()).get(SAID) is True


def _with_defaults(kind: type, values: dict[str, Any]) -> Any:
    """Make a dataclass of values, what is required and not there being marked as missing."""
    missing = {field.name: tyro.MISSING for field in dataclasses.fields(kind) if not _has_default(field)}
    return kind(**missing | values)


def _has_default(field: dataclasses.Field) -> bool:
    return (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)


def _recipe_folder() -> Any:
    return resources.files("bsdenoise").joinpath("recipes")


def _load(name: str) -> dict[str, Any]:
    """Read keys and values, of whatever type."""
    path = Path(name)
    if path.suffix not in (TOML, JSON):
        # A recipe's name means the recipe, whatever folders there are; ./NAME is a folder.
        if name in recipes():
            return _parsed(_recipe_folder().joinpath(f"{name}{TOML}").read_bytes(), TOML, name)
        if not path.is_dir():
            close = difflib.get_close_matches(name, recipes(), n=1, cutoff=CLOSE)
            advice = f"Did you mean {close[0]}?" if close else _choice()
            raise ValueError(f"{name}: no recipe has that name and no run folder. {advice}")
        path = path / RUN_CONFIG
    if not path.exists():
        raise ValueError(f"{path}: there is no such file. {_choice()}")
    return _parsed(path.read_bytes(), path.suffix, str(path))


def _parsed(content: bytes, suffix: str, where: str) -> dict[str, Any]:
    try:
        text = content.decode("utf-8-sig")  # some editors put a mark in front, which neither format allows
        if suffix == TOML:
            return tomllib.loads(text)
        run = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: not readable as {suffix[1:].upper()} ({error}).") from error
    if not isinstance(run, dict) or not isinstance(run.get("config"), dict):
        raise ValueError(f'{where}: expected the {RUN_CONFIG} of a run, with an object "config"; other files are TOML.')
    return run["config"]


def _choice() -> str:
    """Say what there is to choose from, in as many words as fit a line."""
    folders: dict[str, list[str]] = {}
    for name in recipes():
        folder, _, recipe = name.partition("/")
        folders.setdefault(folder, []).append(recipe)
    shipped = "; ".join(f"{folder}/ {', '.join(names)}" for folder, names in folders.items())
    return f"Expected a {TOML} file, a run folder or its {RUN_CONFIG}, or a recipe: {shipped}."


def _checked(hint: Any, value: Any, where: str) -> Any:
    """Return a value as the type `hint` has it; numbers are not made of strings, nor strings of numbers."""
    import pydantic

    # Read as JSON, lists may become tuples and strings paths even where types are strict. TOML's dates are strings.
    text = json.dumps(value, default=str)
    try:
        return pydantic.TypeAdapter(hint).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        wrong = error.errors()[0]
        expected = wrong["msg"].replace("Input should be", "expected")
        raise ValueError(f"{where}: {expected}. Received: {wrong['input']!r}.") from error
