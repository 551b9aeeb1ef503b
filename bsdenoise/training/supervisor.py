"""Workers of this machine: starts them, and starts them all again when one fails.

What a cluster's scheduler does for workers on many machines. A worker that was told to stop, or whose input is wrong,
is not started again: it would end the same way.
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from bsdenoise.config import TrainConfig

BAD_INPUT = 2
SIGNAL_EXIT = 128  # shells report 128 + number for a process that a signal ended
SECONDS_TO_NOTICE = 60.0  # for the others to see by themselves that a worker is gone
_SECONDS_BETWEEN_LOOKS = 0.1


def supervise(config: TrainConfig) -> int:
    """Run a training in processes of its own until it is finished, told to stop, or has failed too often.

    Args:
        config: The run's flags; `workers` and `restarts` are this function's.

    Returns:
        The exit code: 0 if all workers succeeded, 128 + its number after a signal, else that of the first that failed.

    Raises:
        ValueError: If the machine's GPUs cannot be divided among the workers.
    """
    workers = config.workers or 1
    shares = _shared_out(_gpus(), workers)
    with tempfile.TemporaryDirectory(prefix="bsdenoise-") as folder, _signals() as received:
        path = Path(folder) / "config.json"
        flags = dataclasses.asdict(dataclasses.replace(config, workers=None, restarts=0))
        path.write_text(json.dumps({"config": flags, "said": True}, default=str))
        for left in range(config.restarts, -1, -1):
            code = _watched(_started(path, workers, shares), received)
            if received:
                return SIGNAL_EXIT + received[0]
            if code in (0, BAD_INPUT, SIGNAL_EXIT + signal.SIGTERM, SIGNAL_EXIT + signal.SIGINT) or not left:
                return code
            tqdm.write(f"a worker ended with exit code {code}: starting again, for {left} more time{'s' * (left > 1)}")
    raise AssertionError("the last round returns")


def _started(config_path: Path, workers: int, shares: list[str] | None) -> list[subprocess.Popen]:
    """Start the workers."""
    command = [sys.executable, "-m", "bsdenoise.cli", "train", "--config", str(config_path)]
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    processes = []
    for index in range(workers):
        environment = dict(os.environ)
        environment.pop("TF_CONFIG", None)
        if workers > 1:
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        if shares is not None:
            environment["CUDA_VISIBLE_DEVICES"] = shares[index]
        # In a session of its own, so that Ctrl-C comes from here alone, once.
        processes.append(subprocess.Popen(command, env=environment, start_new_session=True))
    return processes


def _watched(processes: list[subprocess.Popen], received: list[int]) -> int:
    """Wait until all have ended, and return the first failure; kill those that do not end by themselves after it.

    The first signal that is received is passed on as SIGTERM, a second one kills.
    """
    first, deadline, num_passed_on = 0, float("inf"), 0
    try:
        while any(process.poll() is None for process in processes):
            ended = [process.returncode for process in processes if process.returncode]
            if ended and not first:
                first, deadline = _as_exit_code(ended[0]), time.monotonic() + SECONDS_TO_NOTICE
            if num_passed_on < len(received):
                num_passed_on += 1
                _tell(processes, signal.SIGTERM if num_passed_on == 1 else signal.SIGKILL)
            if time.monotonic() > deadline:
                _tell(processes, signal.SIGKILL)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        _tell(processes, signal.SIGKILL)
    return first or next((_as_exit_code(process.returncode) for process in processes if process.returncode), 0)


def _tell(processes: list[subprocess.Popen], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _as_exit_code(returncode: int) -> int:
    return SIGNAL_EXIT - returncode if returncode < 0 else returncode


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _gpus() -> list[str]:
    """Name the NVIDIA GPUs that this process may use, without loading CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    try:
        listing = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(index) for index, _ in enumerate(line for line in listing.splitlines() if line.startswith("GPU "))]


def _shared_out(gpus: list[str], workers: int) -> list[str] | None:
    """Return each worker its value of CUDA_VISIBLE_DEVICES; `None` where there are no GPUs.

    Raises:
        ValueError: If there are fewer GPUs than workers, or some would have more than others.
    """
    if not gpus:
        return None
    if len(gpus) % workers:
        raise ValueError(
            f"--workers must divide the number of GPUs of this machine, {len(gpus)}. Received: {workers}. "
            "One worker uses all GPUs of a machine by itself."
        )
    size = len(gpus) // workers
    return [",".join(gpus[index * size : (index + 1) * size]) for index in range(workers)]
