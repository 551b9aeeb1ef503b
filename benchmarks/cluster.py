"""A cluster of worker processes on this machine, for what is measured and tested of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 0.02


class Worker:
    """One `bsdenoise train`, whose terminal is a file.

    Args:
        arguments: The command line behind `train`.
        environment: Variables beside those of this process; `None` removes one.
        cores: The processor cores that it may use; `None` for all.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str | None] | None = None,
        cores: set[int] | None = None,
    ):
        merged = dict(os.environ) | (environment or {})
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bsdenoise.cli", "train", *arguments],
            env={name: value for name, value in merged.items() if value is not None},
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
        )

    def output(self) -> str:
        """What it has written so far."""
        if not self._output.closed:
            self._output.seek(0)
            self._written = self._output.read()
        return self._written

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = 300.0) -> int:
        """Waits for its end, and gives its exit code, negative after a signal.

        Raises:
            AssertionError: If it has not ended by then.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no end after {seconds} s:\n{self.output()}") from None
        finally:
            self.output()
            self._output.close()


def start(
    workers: int,
    arguments: Sequence[str],
    each: Callable[[int], Sequence[str]] = lambda index: (),
    cores: Callable[[int], set[int] | None] = lambda index: None,
) -> list[Worker]:
    """Starts the workers of a cluster with a TF_CONFIG each.

    Args:
        workers: How many.
        arguments: The command line of all of them behind `train`.
        each: From the number of a worker to what is behind that for it alone.
        cores: From the number of a worker to its processor cores.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    tasks = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}} for index in range(workers)]
    return [
        Worker([*arguments, *each(index)], {"TF_CONFIG": json.dumps(task)}, cores(index))
        for index, task in enumerate(tasks)
    ]


def free_ports(count: int) -> list[int]:
    """Finds ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def logged(run: Path, kind: str = "train") -> list[dict]:
    """Gives the whole lines of one kind in a run's log."""
    path = run / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [line for line in map(json.loads, filter(lambda text: text.endswith("\n"), lines)) if line["kind"] == kind]


def wait_for_step(run: Path, step: int, worker: Worker, seconds: float = 300.0) -> int:
    """Waits until a run has logged a step, and gives the last one that it has logged.

    Raises:
        AssertionError: If the worker ends before, or it takes too long.
    """
    end = time.monotonic() + seconds
    while True:
        lines = logged(run)
        if lines and lines[-1]["step"] >= step:
            return lines[-1]["step"]
        if worker.process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"step {step} was not reached:\n{worker.output()}")
        time.sleep(SECONDS_BETWEEN_LOOKS)
