import dataclasses
import re

import keras
import psutil
import pytest
import training_runs

from bsdenoise import cli
from bsdenoise.training import dry_run, preparation
from bsdenoise.training.distribution import join
from bsdenoise.training.step import TrainingState

source, config = training_runs.source, training_runs.full_config
PARAMETERS = 2905  # of the network that is planned


def test_the_plan_is_printed_and_nothing_written(config, capsys, monkeypatch):
    # Other tests may have taken more in this process before than the plan does.
    peak = psutil.Process().memory_info().rss + 3 * 10**9
    monkeypatch.setattr(dry_run.memory, "peak_bytes", lambda: peak)
    config = dataclasses.replace(config, validation_images=1)
    dry_run.show(config)
    assert not config.out.exists()
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["devices"] == "1 CPU, float32"
    assert lines["images"].startswith("5 to train on, 1 held out; 9.6 epochs")
    assert lines["network"] == f"{PARAMETERS:,} parameters; full"
    assert lines["step"] == "4 crops of 16×16, 4 per device"
    speed = re.match(r"([\d.]+) crops/s, median of (\d+) steps of ([\d.]+) s", lines["speed"])
    assert float(speed[1]) * float(speed[3]) == pytest.approx(4, rel=0.02) and int(speed[2]) >= dry_run.MIN_STEPS
    assert lines["whole run"].startswith("12 steps, ") and "for 2 validations" in lines["whole run"]
    assert 2.5 < float(re.match(r"([\d.]+) GB", lines["memory"])[1]) < 3.5
    # Weights, their average and Adam's two means, four bytes each.
    assert lines["disk"] == f"{PARAMETERS * 4 * 4 / 1e6:.1f} MB per checkpoint, 2 kept"


def test_bad_flags(config, capsys):
    arguments = [
        "train",
        config.source,
        "--out",
        str(config.out),
        "--noise",
        "gaussian:25",
        "--dry-run",
        "--batch",
        "0",
    ]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == "bsdenoise: error: --batch must be at least 1. Received: 0.\n"


def test_operations_are_counted(config):
    """What wider convolutions cost more, counted by hand: forward, and backward for kernels and inputs."""
    data, _ = preparation.open_data(config)
    state = TrainingState(config, data, join().strategy)
    counted = []
    for width in (5, 25):
        image = keras.Input((16, 16, 3))
        hidden = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(image)
        state.network = keras.Model(image, keras.layers.Conv2D(9, 1, use_bias=False)(hidden))
        counted.append(dry_run.flops(state, 16, 3, 4))
    by_hand = 3 * 2 * 16 * 16 * (9 * 3 * 20 + 20 * 9)
    assert counted[1] - counted[0] == pytest.approx(by_hand, rel=0.02)
    assert counted[0] > by_hand / 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 seconds"), (89, "89 seconds"), (91, "1.52 minutes"), (6000, "1.67 hours"), (1e6, "11.6 days")],
)
def test_duration(seconds, text):
    assert dry_run.duration(seconds) == text
