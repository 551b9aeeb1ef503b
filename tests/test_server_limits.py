import os
import threading

import grpc
import pytest

from bsdenoise.server import limits
from bsdenoise.server.errors import ServingError
from bsdenoise.server.limits import Arrivals, Gate, Limits

PATIENCE = 20.0  # seconds for what takes milliseconds


class Occupied:
    """A gate with requests inside, each in a thread, until `leave` is set."""

    def __init__(self, gate, number):
        self.leave = threading.Event()
        self.inside = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self._stay, args=(gate,)) for _ in range(number)]

    def _stay(self, gate):
        with gate.admitted(PATIENCE):
            self.inside.release()
            self.leave.wait(PATIENCE)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.leave.set()
        for thread in self.threads:
            thread.join(PATIENCE)


def wait_for(condition):
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        threading.Event().wait(0.001)
    raise TimeoutError


def refused(gate, timeout=PATIENCE, **kwargs):
    with pytest.raises(ServingError) as caught, gate.admitted(timeout, **kwargs):
        pass
    return caught.value


def test_no_more_requests_compute_than_are_allowed():
    gate = Gate(Limits(concurrency=2, queue=5))
    with Occupied(gate, 5) as occupied:
        wait_for(lambda: gate.waiting == 3)
        assert gate.computing == 2
        occupied.leave.set()
    assert (gate.waiting, gate.computing) == (0, 0)


@pytest.mark.parametrize("queue", [0, 3])
def test_a_full_queue_refuses_at_once_in_the_words_of_tensorflow_serving(queue):
    gate = Gate(Limits(concurrency=1, queue=queue))
    with Occupied(gate, 1 + queue):
        wait_for(lambda: (gate.computing, gate.waiting) == (1, queue))
        error = refused(gate)
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.message == "The batch scheduling queue to which this task was submitted is full"
    assert error.http_status == 503
    with gate.admitted(0.0):  # and takes requests again afterwards
        assert gate.computing == 1


def test_a_request_whose_time_is_up_leaves_the_queue():
    gate = Gate(Limits(concurrency=1, queue=1))
    with Occupied(gate, 1) as occupied:
        occupied.inside.acquire(timeout=PATIENCE)
        error = refused(gate, timeout=0.01)
        assert (gate.waiting, gate.computing) == (0, 1)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "Timed out" in error.message


def test_nothing_is_computed_for_a_caller_who_has_hung_up():
    gate = Gate(Limits(concurrency=1))
    assert refused(gate, is_gone=lambda: True).code is grpc.StatusCode.CANCELLED
    with gate.admitted(0.0):
        assert gate.computing == 1


def test_an_error_inside_frees_the_place():
    gate = Gate(Limits(concurrency=1, queue=0))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate.admitted(0.0):
            raise ZeroDivisionError
    assert (gate.waiting, gate.computing) == (0, 0)


def test_closing_waits_for_what_was_taken_and_refuses_the_rest():
    gate = Gate(Limits(concurrency=1, queue=2))
    with Occupied(gate, 2) as occupied:
        wait_for(lambda: (gate.computing, gate.waiting) == (1, 1))
        assert not gate.close(0.01)
        error = refused(gate)
        occupied.leave.set()
        assert gate.close(PATIENCE)
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert "stopping" in error.message


def test_arrivals_are_answered_before_a_server_stops():
    arrivals = Arrivals()
    arrivals.enter()
    arrivals.enter()
    arrivals.leave()
    assert not arrivals.close(0.01)
    with pytest.raises(ServingError, match="^The server is stopping$") as caught:
        arrivals.enter()
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert arrivals.number == 1
    timer = threading.Timer(0.01, arrivals.leave)
    timer.start()
    assert arrivals.close(PATIENCE)
    timer.join()


@pytest.mark.parametrize(
    ("gibibytes", "cores", "expected"),
    [(64, 2, 2), (64, 32, 16), (9, 8, 2), (1, 8, 1)],
    ids=["cores", "memory", "container", "at least one"],
)
def test_the_default_concurrency_fits_cores_and_memory(monkeypatch, tmp_path, gibibytes, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**24}.get)  # 64 GiB
    (tmp_path / "none").write_text("max\n")
    (tmp_path / "limit").write_text(f"{gibibytes * 2**30}\n")
    monkeypatch.setattr(limits, "CGROUP_MEMORY", (tmp_path / "absent", tmp_path / "none", tmp_path / "limit"))
    assert limits.default_concurrency() == expected
