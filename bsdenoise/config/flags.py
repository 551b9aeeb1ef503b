"""Kinds of flags that several commands have."""

from typing import Annotated

import tyro

# `--std` alone, without the twin `--no-std` that says what is so anyway.
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
