"""How much a server takes on: sizes, requests at once, time."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc

from bsdenoise.server.errors import ServingError

MIB = 2**20
BYTES_PER_COMPUTATION = 4 * 2**30  # what an image of 16 megapixels takes (benchmarks/README.md)
# TensorFlow-Serving's own words when its batching queue is full.
FULL = "The batch scheduling queue to which this task was submitted is full"


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        max_body_bytes: Largest request, unpacked.
        max_pixels: Largest batch × height × width of an input of rank 4; `None` leaves it to the model.
        concurrency: Requests computed at once.
        queue: Requests that may wait for that.
        timeout: Seconds that a request may wait, and as many that it may be computed.
    """

    max_body_bytes: int = 100 * MIB
    max_pixels: int | None = None
    concurrency: int = 2
    queue: int = 128
    timeout: float = 30.0


def default_concurrency() -> int:
    """Gives as many computations at once as there is memory for, and no more than there are cores."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // BYTES_PER_COMPUTATION))


class Gate:
    """Lets a bounded number of requests compute, and a bounded number wait.

    Args:
        limits: The bounds.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._slots = threading.Semaphore(limits.concurrency)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._closed = False
        self.waiting = 0
        self.computing = 0

    @contextlib.contextmanager
    def admitted(self, timeout: float, is_gone: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Waits until the request may compute, which it may inside of the block.

        Args:
            timeout: Seconds to wait at most.
            is_gone: Says whether the caller has hung up meanwhile.

        Raises:
            ServingError: If too many wait already, the time is up, the caller has gone, or the server is stopping.
        """
        with self._lock:
            if self._closed:
                raise ServingError(grpc.StatusCode.UNAVAILABLE, "The server is stopping")
            if self.waiting >= self._limits.queue + self._limits.concurrency - self.computing:
                raise ServingError(grpc.StatusCode.UNAVAILABLE, FULL)
            self.waiting += 1
        got_slot = self._slots.acquire(timeout=max(0.0, timeout))
        with self._lock:
            self.waiting -= 1
            self.computing += got_slot
        try:
            if not got_slot:
                raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out")
            if is_gone():
                raise ServingError(grpc.StatusCode.CANCELLED, "The client has hung up")
            yield
        finally:
            with self._lock:
                self.computing -= got_slot
                self._idle.notify_all()
            if got_slot:
                self._slots.release()

    def close(self, timeout: float) -> bool:
        """Takes no further requests, and waits for those that were taken.

        Returns:
            Whether all have ended within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            while self.waiting or self.computing:
                if not self._idle.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                    return False
            return True
