"""What a terminal shows while a command is at work. Elsewhere, as in a log, nothing of it is written."""

import contextlib
import sys
from collections.abc import Iterator

from tqdm import tqdm


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """Shows a line while something takes its time, which goes when it is done.

    Args:
        text: What is being done, such as "loading the model".
    """
    with tqdm(total=0, desc=f"{text} …", bar_format="{desc}", leave=False, disable=None, file=sys.stderr):
        yield


@contextlib.contextmanager
def beside_bars() -> Iterator[None]:
    """Takes what is shown away while something else is printed."""
    with tqdm.external_write_mode(file=sys.stderr):
        yield
