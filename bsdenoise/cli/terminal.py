"""What a terminal shows while a command is at work. Elsewhere, as in a log, nothing of it is written."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from tqdm import tqdm

from bsdenoise import progress


@contextlib.contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """Show a line while something takes its time, which goes when it is done.

    Args:
        text: What is being done, such as "loading the model".

    Yields:
        A function that puts another text in its place.
    """
    with tqdm(total=0, desc=f"{text} …", bar_format="{desc}", leave=False, disable=None, file=sys.stderr) as shown:
        yield lambda text: shown.set_description_str(f"{text} …")


@contextlib.contextmanager
def bar(text: str) -> Iterator[Callable[[str], None]]:
    """Show a line as `status` with a bar, which follows what is counted (`bsdenoise.progress`) in shares of 1."""
    shape = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    with tqdm(total=1, desc=text, bar_format=shape, leave=False, disable=None, file=sys.stderr) as shown:
        with progress.watched_by(shown.update):
            yield shown.set_description_str


@contextlib.contextmanager
def beside_bars() -> Iterator[None]:
    """Take what is shown away while something else is printed."""
    with tqdm.external_write_mode(file=sys.stderr):
        yield
