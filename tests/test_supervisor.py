import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from bsdenoise import cli
from bsdenoise.config import TrainConfig
from bsdenoise.training import supervisor


@pytest.fixture
def config(tmp_path):
    return TrainConfig(
        source="photos", out=tmp_path / "run", noise="gaussian:25", corrupt="fresh", workers=2, restarts=2
    )


@pytest.fixture
def rounds(monkeypatch):
    """Replaces the workers by shell commands: a function from one list of them per round to the rounds started."""

    def play(*commands):
        started = []

        def start(path, workers, shares):
            words = commands[len(started)]
            started.append(words)
            return [subprocess.Popen(["sh", "-c", word], start_new_session=True) for word in words]

        monkeypatch.setattr(supervisor, "_started", start)
        monkeypatch.setattr(supervisor, "_gpus", list)
        return started

    return play


@pytest.mark.parametrize(
    ("commands", "code", "num_rounds"),
    [
        ([["true", "true"]], 0, 1),
        ([["exit 138", "kill -9 $$"], ["true", "true"]], 0, 2),
        ([["exit 138", "exit 138"]] * 3, 138, 3),
        ([["exit 2", "exit 138"]], 2, 1),
        ([["exit 143", "exit 143"]], 143, 1),
        ([["kill -9 $$", "sleep 0.5; exit 138"], ["exit 2", "exit 2"]], 2, 2),
    ],
    ids=["good", "killed", "too often", "bad input", "told to stop", "other end"],
)
def test_rounds(config, rounds, commands, code, num_rounds, capsys):
    started = rounds(*commands)
    assert supervisor.supervise(config) == code
    assert len(started) == num_rounds
    assert capsys.readouterr().out.count("starting again") == num_rounds - 1


def test_those_that_do_not_end_are_killed(config, rounds, monkeypatch):
    monkeypatch.setattr(supervisor, "SECONDS_TO_NOTICE", 0.3)
    rounds(["exit 5", "sleep 600"], ["true", "true"])
    assert supervisor.supervise(config) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_signals_are_passed_on(config, rounds, number, tmp_path):
    wait = "trap 'touch {0}/told-{1}; exit 143' TERM; touch {0}/ready-{1}; while :; do sleep 0.05; done"
    started = rounds([wait.format(tmp_path, index) for index in range(2)])

    def tell():
        while len(list(tmp_path.glob("ready-*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    threading.Thread(target=tell, daemon=True).start()
    assert supervisor.supervise(config) == 128 + number
    assert len(list(tmp_path.glob("told-*"))) == 2 and len(started) == 1
    assert signal.getsignal(number) is handler


def test_a_signal_while_workers_are_being_started(config, rounds, monkeypatch):
    rounds(["sleep 600", "sleep 600"])
    start = supervisor._started

    def started(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return start(*arguments)

    monkeypatch.setattr(supervisor, "_started", started)
    assert supervisor.supervise(config) == 143


def test_workers_get_the_same_flags_and_places_of_their_own(config, monkeypatch, tmp_path):
    """The command line that they get is read by the real parser."""
    calls = []
    monkeypatch.setattr(supervisor, "_gpus", lambda: ["0", "1", "2", "3"])
    monkeypatch.setenv("TF_CONFIG", "somebody else's")

    def popen(command, env, start_new_session):
        calls.append((command, env, cli._parse(command[3:])))
        return subprocess_popen([sys.executable, "-c", ""])

    subprocess_popen = subprocess.Popen
    monkeypatch.setattr(supervisor.subprocess, "Popen", popen)
    assert supervisor.supervise(config) == 0
    places = [json.loads(env["TF_CONFIG"]) for _, env, _ in calls]
    assert [place["task"] for place in places] == [{"type": "worker", "index": index} for index in (0, 1)]
    addresses = places[0]["cluster"]["worker"]
    assert places[1]["cluster"]["worker"] == addresses and len(set(addresses)) == 2
    assert [env["CUDA_VISIBLE_DEVICES"] for _, env, _ in calls] == ["0,1", "2,3"]
    for command, _, (name, settings) in calls:
        assert command[:3] == [sys.executable, "-m", "bsdenoise.cli"] and name == "train"
        assert settings == TrainConfig(source="photos", out=config.out, noise="gaussian:25", corrupt="fresh")


def test_gpus_that_cannot_be_divided(config, monkeypatch):
    monkeypatch.setattr(supervisor, "_gpus", lambda: ["0", "1", "2"])
    with pytest.raises(ValueError, match=r"--workers must divide the number of GPUs of this machine, 3. Received: 2"):
        supervisor.supervise(config)


@pytest.mark.parametrize(
    ("visible", "listing", "expected"),
    [
        ("", None, []),
        ("2,5", None, ["2", "5"]),
        (None, "GPU 0: H100 (UUID: a)\nGPU 1: H100 (UUID: b)\n", ["0", "1"]),
        (None, None, []),
    ],
    ids=["hidden", "chosen", "all", "none"],
)
def test_gpus(monkeypatch, tmp_path, visible, listing, expected):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if listing is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in listing.splitlines()))
        program.chmod(0o755)
    assert supervisor._gpus() == expected
