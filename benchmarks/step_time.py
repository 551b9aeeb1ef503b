"""How long do a training step and a forward pass of the network take, in float32 and bfloat16?

The two precisions alternate in one run, so that a noisy machine disturbs both alike.

    python -m benchmarks.step_time --width 48 --crop 128 --batch 1 --repeats 15
"""

import json
import os
import time
from dataclasses import dataclass

import numpy as np
import tyro

from benchmarks import machine


@dataclass(frozen=True)
class Config:
    """Times a training step and a forward pass."""

    width: int = 48
    """Maps per encoder convolution."""
    depth: int = 5
    """How often the resolution is halved."""
    channels: int = 3
    """Image channels."""
    crop: int = 128
    """Side of the images in pixels."""
    batch: int = 1
    """Images per step."""
    repeats: int = 15
    """Timed repetitions of each."""


def make_calls(config: Config, precision: str):
    """Builds the two functions to time, traced and warm; each returns when its result is there."""
    import tensorflow as tf

    from bsdenoise import methods
    from bsdenoise.config import TrainConfig
    from bsdenoise.data.crops import TrainingImages
    from bsdenoise.noise import GaussianNoise
    from bsdenoise.training.step import TrainingState

    noise = GaussianNoise(25 / 255, 25 / 255)
    size = {"width": config.width, "depth": config.depth, "batch": config.batch, "crop": config.crop}
    flags = TrainConfig(source="", out=None, noise="gaussian:25/255", precision=precision, **size)
    data = TrainingImages(range(1), methods.get(flags.method), config.channels, noise, "fresh", config.crop)
    state = TrainingState(flags, data, tf.distribute.get_strategy())
    noisy = tf.random.stateless_uniform((config.batch, config.crop, config.crop, config.channels), seed=(0, 0))
    target = tf.concat([noisy, tf.fill((*noisy.shape[:3], 1), noise.low)], axis=-1)
    forward = tf.function(lambda image: state.network(image))
    calls = {
        "training step": lambda: (state.train_on(noisy, target), state.loss_sum.numpy()),
        "forward pass": lambda: forward(noisy).numpy(),
    }
    for call in calls.values():
        call()
        call()
    return calls


def run(config: Config) -> None:
    """Measures and prints."""
    calls = {precision: make_calls(config, precision) for precision in ("float32", "bfloat16")}
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(config.repeats):
        for precision, pair in calls.items():
            for name, call in pair.items():
                start = time.perf_counter()
                call()
                seconds.setdefault((name, precision), []).append(time.perf_counter() - start)
    print(f"width {config.width}, depth {config.depth}, batch {config.batch} of {config.crop}×{config.crop}")
    print(machine.describe())
    print(f"{'':15}{'precision':>10}{'median s':>10}{'min s':>9}{'max s':>9}{'images/s':>10}")
    result: dict = {"machine": machine.describe(), "config": config.__dict__}
    for (name, precision), times in seconds.items():
        median = float(np.median(times))
        rate = config.batch / median
        print(f"{name:15}{precision:>10}{median:10.3f}{min(times):9.3f}{max(times):9.3f}{rate:10.2f}")
        result[f"{name}, {precision}"] = {"median_s": median, "images_per_s": rate}
    for name in ("training step", "forward pass"):
        ratio = np.median(seconds[name, "float32"]) / np.median(seconds[name, "bfloat16"])
        print(f"{name}: bfloat16 is {ratio:.2f} times as fast as float32 (ratio of medians)")
    print(json.dumps(result))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
