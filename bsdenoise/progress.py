"""How far a long computation is: it counts what is done, and whoever wants to know watches.

What computes does not know who watches, and need not be given anything on the way. A watcher hears of what its own
thread (or task) does.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_watcher: ContextVar[Callable[[float], object] | None] = ContextVar("watcher", default=None)


@contextlib.contextmanager
def watched_by(watcher: Callable[[float], object]) -> Iterator[None]:
    """Enclose a computation that is watched.

    Args:
        watcher: Called with each amount that is done, such as a number of pixels.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def advance(amount: float) -> None:
    """Count an amount that is done."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(amount)


@contextlib.contextmanager
def part(amount: float, of: float = 1.0) -> Iterator[None]:
    """Enclose a part of a computation: once it has ended well it counts as `amount`, whatever it counted itself.

    Args:
        amount: What the part is worth.
        of: What the part counts in all while it is at work; each of its steps is worth a share of `amount`.
    """
    watcher = _watcher.get()
    if watcher is None:
        yield
        return
    counted = 0.0

    def count(step: float) -> None:
        nonlocal counted
        share = min(step * amount / of, amount - counted)
        counted += share
        watcher(share)

    with watched_by(count):
        yield
    watcher(amount - counted)
