import time

import pytest

from bsdenoise.training import watchdog
from bsdenoise.training.watchdog import Watchdog


@pytest.fixture
def left(monkeypatch):
    codes = []
    monkeypatch.setattr(watchdog, "leave", codes.append)
    return codes


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_standstill_ends_the_process(left, capsys):
    with Watchdog(0.2).watching():
        wait_until(lambda: left)
    assert set(left) == {138}
    assert "no progress for 0.2 s" in capsys.readouterr().err


def test_progress_keeps_it_quiet(left):
    with Watchdog(1.0).watching() as dog:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            dog.progress()
            time.sleep(0.05)
    assert not left


def test_nobody_is_watched_after_the_end_or_without_a_limit(left):
    with Watchdog(0.1).watching():
        pass
    with Watchdog(0).watching():
        time.sleep(0.3)
    assert not left
