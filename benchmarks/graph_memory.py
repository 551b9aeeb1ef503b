"""How much memory does the exported graph need, in tiles and in one pass?

Exports a denoiser with random weights twice, and lets a fresh process for each size run one request. The memory is
the peak of the whole process over what it had with the model loaded, and holds the request and its answer.

    python -m benchmarks.graph_memory
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import machine

MEGA = 2**20

# Run by the fresh process: the graph alone, without this package.
REQUEST = """
import sys, time
import numpy as np
import tensorflow as tf

folder, signature, side = sys.argv[1], sys.argv[2], int(sys.argv[3])

from benchmarks.machine import peak_memory as peak

loaded = tf.saved_model.load(folder)
call = loaded.signatures[signature]
inputs = {} if signature == "serving_default" else {"sigma": tf.constant([0.1])}
call(image=tf.zeros((1, 64, 64, 3)), **inputs)
before, start = peak(), time.perf_counter()
image = np.random.default_rng(0).random((1, side, side, 3), "float32")
outputs = {name: value.numpy() for name, value in call(image=tf.constant(image), **inputs).items()}
print(before, peak(), time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Config:
    """Measures the memory of requests to an exported model."""

    megapixels: tuple[int, ...] = (1, 4, 16)
    """Sizes of the images, squares as far as whole pixels allow."""
    untiled_up_to: int = 4
    """Largest size in megapixels that is also computed in one pass: this takes gigabytes per megapixel."""
    signature: str = "with_sigma"
    """Signature that is called."""
    width: int = 24
    """Maps per encoder convolution."""
    depth: int = 4
    """How often the resolution is halved."""
    tta: int = 1
    """Copies that are averaged."""


def run(config: Config) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        tiled, whole = _export(config, Path(folder))
        print(
            f"width {config.width}, depth {config.depth}, {config.signature}, {config.tta} copies; {machine.describe()}"
        )
        print(f"{'megapixels':>10}{'':>10}{'peak MiB over loaded model':>28}{'seconds':>10}")
        results = []
        for megapixels in config.megapixels:
            for name, model in (("tiles", tiled), ("one pass", whole)):
                if name == "one pass" and megapixels > config.untiled_up_to:
                    print(f"{megapixels:10}{name:>10}{'not run':>28}", flush=True)
                    continue
                before, peak, seconds = _request(model, config.signature, int((megapixels * MEGA) ** 0.5))
                result = {"megapixels": megapixels, "how": name, "before": before, "peak": peak, "seconds": seconds}
                results.append(result)
                print(f"{megapixels:10}{name:>10}{peak - before:28.0f}{seconds:10.1f}", flush=True)
    print(json.dumps({"machine": machine.describe(), "signature": config.signature, "results": results}))


def _export(config, folder):
    """Writes the model that tiles and the one that does not."""
    from bsdenoise.denoiser import Denoiser
    from bsdenoise.export import MOST_PIXELS, export_saved_model
    from bsdenoise.network import blind_spot_network
    from bsdenoise.noise import GaussianNoise

    network = blind_spot_network(width=config.width, depth=config.depth)
    denoiser = Denoiser(network, GaussianNoise(25 / 255, 25 / 255))
    return (
        export_saved_model(denoiser, folder / "tiled" / "1", tta=config.tta),
        export_saved_model(denoiser, folder / "whole" / "1", tta=config.tta, untiled_pixels=MOST_PIXELS),
    )


def _request(model, signature, side):
    """Gives MiB before, MiB at the peak, and seconds, as a fresh process measures them."""
    command = [sys.executable, "-c", REQUEST, str(model), signature, str(side)]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"A request of {side} by {side} pixels ended with code {answer.returncode}: {answer.stderr}")
    return (float(number) for number in answer.stdout.split())


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
