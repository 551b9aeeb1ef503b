"""Ends a process that stands still: in a cluster a lost worker must never leave the others waiting for ever."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator

# "Start me again", as Kubernetes' training operator reads it (128 and above may be tried again, 138 is left to the
# user); 128 + the number of SIGUSR1, which nothing here sends.
EXIT_TRY_AGAIN = 138


class Watchdog:
    """Ends the process if nobody says for too long that there was progress.

    Args:
        seconds: How long; 0 for ever.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._last = time.monotonic()

    def progress(self) -> None:
        """Say that there was progress."""
        self._last = time.monotonic()

    @contextlib.contextmanager
    def watching(self) -> Iterator["Watchdog"]:
        """Watch until the end of the block."""
        if not self._seconds:
            yield self
            return
        self.progress()
        done = threading.Event()
        threading.Thread(target=self._watch, args=(done,), daemon=True, name="watchdog").start()
        try:
            yield self
        finally:
            done.set()

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(min(self._seconds / 10, 1.0)):
            if time.monotonic() - self._last > self._seconds:
                print(
                    f"bsdenoise: error: no progress for {self._seconds:g} s, probably for a worker that hangs; "
                    "all must be started again, and go on from the last checkpoint",
                    file=sys.stderr,
                )
                if os.environ.get("BSDENOISE_DEBUG") == "1":
                    faulthandler.dump_traceback()
                leave(EXIT_TRY_AGAIN)


def leave(code: int) -> None:
    """End the process at once: in an orderly end TensorFlow would wait for the workers that are lost."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
