"""Tests of what is said of flags, data and devices before a training."""

import dataclasses

import pytest
import tensorflow as tf
import training_runs

from bsdenoise.training import distribution
from bsdenoise.training.loop import train

source, config, quick_export = training_runs.source, training_runs.full_config, training_runs.quick_export


def test_unseen_gpu_is_hinted_at(monkeypatch, tmp_path):
    monkeypatch.setattr(distribution, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert "bsdenoise[gpu]" in distribution.hint()
    monkeypatch.setattr(distribution, "NVIDIA_DRIVER", tmp_path / "none")
    assert distribution.hint() is None


def test_forgotten_corrupt_is_noticed(config, capsys):
    config = dataclasses.replace(config, corrupt=None, images=4)
    train(config)
    assert "add --corrupt fresh" in capsys.readouterr().out
    train(dataclasses.replace(config, corrupt="fresh", out=config.out.with_name("other")))
    assert "add --corrupt" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "missing"}, "missing: no such file or folder"),
        ({"noise": "gauss:25"}, "noise SPEC reads"),
        ({"noise": "gaussian:300"}, "sigma of 300, and the images span only 255 .from 0 to 255"),
        ({"noise": "gaussian:300/255"}, "has a sigma of 300, and the images span only 255"),
        ({"noise": "gaussian:50-5"}, "lower end first. Received: 0.196"),
        ({"min_side": 0}, "--min-side must be at least 1"),
        ({"max_side": 15}, "--max-side must be at least the side of a crop"),
        ({"min_side": 60, "max_side": 50}, "--max-side must be at least .* --min-side"),
        ({"min_side": 100}, "None of the 6 images has sides of at least 100"),
        ({"noise": "gaussian:5-50", "corrupt": None}, "needs --corrupt"),
        ({"crop": 0}, "--crop must be at least 1"),
        ({"crop": 64}, r"None of the 5 images .* left out is .*\.png: 40×\d+ pixels are less than the crop of 64×64"),
        ({"ema": 1.0}, "--ema must be at least 0 and below 1. Received: 1.0"),
        ({"beta_2": -1.0}, "--beta-2 must be"),
        ({"validation_images": 0}, "--validation-images must be"),
        ({"channels": 0}, "--channels must be"),
        ({"micro_batch": 0}, "--micro-batch must be at least 1"),
        ({"recompute": True, "method": "n2v"}, "--recompute is for networks with branches.*Received: network 'unet'"),
        ({"channels": 1, "corrupt": None}, "--channels 1 takes the luminance"),
        (
            {"channels": 2},
            r"None of the images can be validated with; the first is .*\.png: .* cannot be used where 2 are",
        ),
        ({"seed": -1}, "--seed must be at least 0. Received: -1"),
        ({"checkpoint_minutes": float("nan")}, "--checkpoint-minutes must be"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0. Received: 0.0"),
        ({"ramp_up": 0.8}, "together at most 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_flags(config, change, message):
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(config, **change))
