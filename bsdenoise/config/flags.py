"""Kinds of flags that several commands have, and the check of their ranges.

A range stands in the type of a field, in the terms of annotated-types, which pydantic reads too; `check` compares.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import tyro
from annotated_types import Ge, Gt, Le, Lt

# `--std` alone, without the twin `--no-std` that says what is so anyway.
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Count = Annotated[int, Ge(1)]
NonNegative = Annotated[int, Ge(0)]
Port = Annotated[int, Ge(0), Le(65535)]  # 0 picks a free one
Seconds = Annotated[float, Gt(0), Le(86400)]  # at most a day
Duration = Annotated[float, Ge(0)]  # seconds or minutes, also none
Fraction = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Ge(0), Lt(1)]

_LOWER = {Ge: "at least {}", Gt: "above {}"}
_UPPER = {Le: "at most {}", Lt: "below {}"}
_HOLDS = {
    Ge: lambda value, bound: value >= bound.ge,
    Gt: lambda value, bound: value > bound.gt,
    Le: lambda value, bound: value <= bound.le,
    Lt: lambda value, bound: value < bound.lt,
}


def check(config: Any) -> None:
    """Refuse values that are not in the ranges of their flags.

    Args:
        config: What a command is told, of one of the classes of `bsdenoise.config`.

    Raises:
        ValueError: If there is one. NaN is in no range.
    """
    for name, hint in typing.get_type_hints(type(config), include_extras=True).items():
        bounds = list(_bounds(hint))
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            # Not "if a bound is broken": NaN compares as false with all of them.
            if one is not None and not all(_HOLDS[type(bound)](one, bound) for bound in bounds):
                raise ValueError(f"--{name.replace('_', '-')} must be {_in_words(bounds)}. Received: {one}.")


def groups(kind: type) -> tuple[type, ...]:
    """List the groups of flags that a command's class is made of, in their order; none of a class without."""
    return tuple(base for base in reversed(kind.__bases__) if dataclasses.is_dataclass(base))


def _bounds(hint: Any) -> Iterator[Any]:
    """Find the bounds in a type: its own, those of the members of a union, of the elements of a tuple."""
    yield from (mark for mark in getattr(hint, "__metadata__", ()) if type(mark) in _HOLDS)
    if typing.get_origin(hint) in (Annotated, typing.Union, types.UnionType, tuple):
        for part in typing.get_args(hint)[: 1 if typing.get_origin(hint) is Annotated else None]:
            yield from _bounds(part)


def _in_words(bounds: list) -> str:
    kinds = [type(bound) for bound in bounds]
    if kinds == [Ge, Le]:
        return f"between {bounds[0].ge} and {bounds[1].le}"
    words = _LOWER | _UPPER
    return " and ".join(
        words[kind].format(*dataclasses.astuple(bound)) for kind, bound in zip(kinds, bounds, strict=True)
    )
