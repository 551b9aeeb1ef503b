"""What a terminal shows while a command is at work. Elsewhere, as in a log, nothing of it is written."""

import contextlib
import sys
from collections.abc import Iterator

from tqdm import tqdm

from bsdenoise import progress


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """Shows a line while something takes its time, which goes when it is done.

    Args:
        text: What is being done, such as "loading the model".
    """
    with tqdm(total=0, desc=f"{text} …", bar_format="{desc}", leave=False, disable=None, file=sys.stderr):
        yield


@contextlib.contextmanager
def bar(text: str) -> Iterator[None]:
    """Shows a line with a bar, which follows what is counted (`bsdenoise.progress`) as shares that add up to 1."""
    shape = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    with tqdm(total=1, desc=text, bar_format=shape, leave=False, disable=None, file=sys.stderr) as shown:
        with progress.watched_by(shown.update):
            yield


@contextlib.contextmanager
def beside_bars() -> Iterator[None]:
    """Takes what is shown away while something else is printed."""
    with tqdm.external_write_mode(file=sys.stderr):
        yield
