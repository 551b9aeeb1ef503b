"""Many calls in flight, their results in order, in bounded memory."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2  # for each call in flight, how many results there may be that nobody has taken: one slow call stops none


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    concurrency: int,
    cost: Callable[[Item], float] | None = None,
    budget: float | None = None,
    prompt: bool = False,
) -> Iterator[tuple[Item, Future[Result]]]:
    """Call a function for each item in threads, and return the results in the order of the items.

    Without `cost`, at most `AHEAD * concurrency` items are taken before the first of them is handed out. The threads do
    not keep the process alive: who is interrupted leaves at once, whatever is in flight.

    Args:
        function: Called with one item.
        items: Taken one at a time, in the caller's thread.
        concurrency: Most calls in flight, ≥ 1.
        cost: What an item takes of `budget` until it is handed out; for items of very different sizes.
        budget: No item is taken beyond it, but for a second one beside one that alone exceeds it.
        prompt: Whether a result is handed out as soon as it is the next. Otherwise items are taken first, as many as
            may be, so that the threads have work while the caller does something with a result.

    Yields:
        Each item, with its finished future: `result()` gives what the function did, or raises what it raised.

    Raises:
        ValueError: If `concurrency` is less than 1.
    """
    if concurrency < 1:
        raise ValueError(f"`concurrency` must be at least 1. Received: concurrency={concurrency!r}.")
    if cost is None or budget is None:
        return _in_order(function, items, concurrency, lambda _: 1, AHEAD * concurrency, prompt)
    return _in_order(function, items, concurrency, cost, budget, prompt)


def _in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    concurrency: int,
    cost: Callable[[Item], float],
    budget: float,
    prompt: bool,
) -> Iterator[tuple[Item, Future[Result]]]:
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threads = 0
    pending: deque[tuple[Item, Future[Result]]] = deque()
    costs: deque[float] = deque()
    try:
        for item in items:
            if threads < concurrency:
                threading.Thread(target=_work, args=(function, tasks), daemon=True).start()
                threads += 1
            future: Future[Result] = Future()
            pending.append((item, future))
            costs.append(cost(item))
            tasks.put((future, item))
            del item, future  # nothing here may keep what was handed out
            while (len(pending) > 1 and sum(costs) >= budget) or (prompt and pending and pending[0][1].done()):
                costs.popleft()
                yield _finished(pending)
        while pending:
            yield _finished(pending)
    finally:
        for _, future in pending:
            future.cancel()
        for _ in range(threads):
            tasks.put(None)


def _finished(pending: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Future[Result]]:
    pending[0][1].exception()  # waits
    return pending.popleft()


def _work(function: Callable[[Any], Any], tasks: queue.SimpleQueue[Any]) -> None:
    """Works on tasks until there is a `None`."""
    while (task := tasks.get()) is not None:
        future, item = task
        if future.set_running_or_notify_cancel():
            try:
                result = function(item)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
        del task, future, item
