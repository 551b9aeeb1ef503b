"""How much a server takes on: sizes, requests at once, time."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from bsdenoise.server.errors import ServingError

MIB = 2**20
MAX_MESSAGE_BYTES = 2**31 - 1  # the most that gRPC can be told
BYTES_PER_COMPUTATION = 4 * 2**30  # what an image of 16 megapixels takes (benchmarks/README.md)
# Where Linux says what a container may take: control groups, version 2 and 1.
CGROUP_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# TensorFlow-Serving's own words when its batching queue is full.
FULL = "The batch scheduling queue to which this task was submitted is full"

STOPPING = "The server is stopping"


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        max_body_bytes: Largest request over REST, unpacked.
        max_message_bytes: Largest request over gRPC.
        max_pixels: Largest batch × height × width of an input of rank 4; `None` leaves it to the model.
        concurrency: Requests computed at once.
        queue: Requests that may wait for that.
        timeout: Seconds from a request's arrival to its answer.
    """

    max_body_bytes: int = 100 * MIB
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_pixels: int | None = None
    concurrency: int = 2
    queue: int = 128
    timeout: float = 30.0


def default_concurrency() -> int:
    """Return as many computations at once as there is memory for, and no more than there are cores.

    The memory is the machine's, or what its container may take if that is less.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_MEMORY:
        with contextlib.suppress(OSError, ValueError):  # there is no such limit, or it says "max"
            memory = min(memory, int(path.read_text()))
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
        """Wait until the request may compute, which it may inside of the block.

        Args:
            timeout: Seconds to wait at most.
            is_gone: Says whether the caller has hung up meanwhile.

        Raises:
            ServingError: If too many wait already, the time is up, the caller has gone, or the server is stopping.
        """
        with self._lock:
            if self._closed:
                raise ServingError(grpc.StatusCode.UNAVAILABLE, STOPPING)
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
        """Take no further requests, and wait for those that were taken.

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


class Arrivals:
    """Counts requests from their arrival until their answer is sent, so that a server can stop between them."""

    def __init__(self):
        self.number = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def enter(self) -> None:
        """Count a request.

        Raises:
            ServingError: If the server is stopping.
        """
        with self._changed:
            if self._is_closed:
                raise ServingError(grpc.StatusCode.UNAVAILABLE, STOPPING)
            self.number += 1

    def leave(self) -> None:
        """Take note that a request has been answered."""
        with self._changed:
            self.number -= 1
            self._changed.notify_all()

    def close(self, timeout: float) -> bool:
        """Take no further requests, and wait for those that were taken.

        Returns:
            Whether all have been answered within `timeout` seconds.
        """
        with self._changed:
            self._is_closed = True
            return self._changed.wait_for(lambda: not self.number, timeout)
