"""What does denoising cost as images and batches grow, in time and in memory?

Each size of image is denoised in a process of its own, as `Denoiser.denoise` does it by default; `--huge` streams one
image from a file and into another. The memory is the peak of the whole process, TensorFlow included.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --huge 100 --width 24 --depth 4 --tile 1280
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks import machine, speed

MEGA = 1e6
LARGE = 8  # megapixels: of larger images the first time, with its tracing of seconds, is as good as a second
SIGMA = 25 / 255
# Run by a fresh process for each size.
DENOISE = """
import sys
from benchmarks import scaling
config = scaling.Config(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
scaling.denoise_once(config, float(sys.argv[4]))
"""
STREAM = """
import sys
from benchmarks import scaling
config = scaling.Config(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], tile=int(sys.argv[4]) or None)
scaling.stream_once(config, int(sys.argv[5]), sys.argv[6])
"""


@dataclass(frozen=True)
class Config:
    """Measures cost against size."""

    width: int = 48
    """Maps per encoder convolution."""
    depth: int = 5
    """How often the resolution is halved."""
    precision: str = "float32"
    """float32 or bfloat16."""
    megapixels: tuple[float, ...] = (0.25, 1, 4, 16)
    """Sizes of the images, in the ratio of 3 to 2."""
    batches: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of images of 128×128 in one batch."""
    repeats: int = 5
    """Timed repetitions of each batch."""
    huge: int = 0
    """Instead of all that, stream one image of so many megapixels."""
    tile: int | None = None
    """Largest side of the blocks of the huge image; by default chosen from the free memory."""


def denoiser_of(config: Config):
    """Builds a denoiser with random weights."""
    from bsdenoise import Denoiser, GaussianNoise

    network = speed.network_of(speed.Config(width=config.width, depth=config.depth), config.precision)
    return Denoiser(network, GaussianNoise(SIGMA, SIGMA))


def denoise_once(config: Config, megapixels: float) -> None:
    """Denoises one image and prints the seconds, of a first and a second time, and the peak memory in MiB."""
    height = round((megapixels * MEGA / 1.5) ** 0.5)
    image = np.random.default_rng(0).random((height, round(height * 1.5), 3), dtype="float32")
    denoiser = denoiser_of(config)
    denoiser.denoise(image[:200, :200])
    before, seconds = machine.peak_memory(), []
    for _ in range(2 if megapixels < LARGE else 1):
        start = time.perf_counter()
        denoiser.denoise(image)
        seconds.append(time.perf_counter() - start)
    print(seconds[0], seconds[-1], before, machine.peak_memory())


def stream_once(config: Config, megapixels: int, folder: str) -> None:
    """Streams an image of 8 bits between two files; prints seconds, and the peak memory in MiB before and after."""
    height = round((megapixels * MEGA / 1.5) ** 0.5)
    shape = (height, round(height * 1.5), 3)
    source, target = (Path(folder, name) for name in ("noisy.raw", "denoised.raw"))
    rng = np.random.default_rng(0)
    with open(source, "wb") as file:
        for _ in range(height):
            file.write(rng.integers(0, 256, shape[1:], dtype="uint8").tobytes())
    denoiser = denoiser_of(config)
    denoiser.denoise(np.zeros((200, 200, 3), "uint8"))
    before, start = machine.peak_memory(), time.perf_counter()

    def read(rows, columns):
        return np.array(np.memmap(source, "uint8", "r", shape=shape)[rows, columns])

    np.memmap(target, "uint8", "w+", shape=shape)
    for window, (denoised, *_) in denoiser.windows(read, shape, tile=config.tile):
        pixels = np.clip(denoised * 255 + 0.5, 0, 255).astype("uint8")
        np.memmap(target, "uint8", "r+", shape=shape)[window] = pixels
    print(time.perf_counter() - start, before, machine.peak_memory())


def _in_a_process(code: str, *arguments) -> list[float]:
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"It ended with code {answer.returncode}: {answer.stderr[-2000:]}")
    return [float(number) for number in answer.stdout.split()]


def run(config: Config) -> None:
    """Measures and prints."""
    print(f"width {config.width}, depth {config.depth}, {config.precision}; {machine.describe()}")
    result: dict = {"machine": machine.describe(), "config": asdict(config)}
    if config.huge:
        result["huge"] = _run_huge(config)
    else:
        result["images"] = _run_images(config)
        result["batches"] = _run_batches(config)
    print(json.dumps(result))


def _run_huge(config: Config) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        size = (config.width, config.depth, config.precision)
        seconds, before, peak = _in_a_process(STREAM, *size, config.tile or 0, config.huge, folder)
    print(
        f"{config.huge} megapixels of 8 bits, streamed: {seconds:.0f} s, {seconds / config.huge:.2f} s per megapixel; "
        f"peak {peak:.0f} MiB of the whole process, {peak - before:.0f} MiB over that of the loaded model"
    )
    return {"seconds": seconds, "before_mib": before, "peak_mib": peak}


def _run_images(config: Config) -> list[dict]:
    print(f"{'megapixels':>10}{'s':>9}{'s per MP':>10}{'first time':>12}{'peak MiB':>10}{'over the model':>16}")
    rows = []
    for megapixels in config.megapixels:
        numbers = _in_a_process(DENOISE, config.width, config.depth, config.precision, megapixels)
        first, again, before, peak = numbers
        rows.append({"megapixels": megapixels, "first_s": first, "s": again, "before_mib": before, "peak_mib": peak})
        print(
            f"{megapixels:10}{again:9.2f}{again / megapixels:10.2f}{first:12.2f}{peak:10.0f}{peak - before:16.0f}",
            flush=True,
        )
    return rows


def _run_batches(config: Config) -> list[dict]:
    calls = {}
    for batch in config.batches:
        denoiser = denoiser_of(config)
        images = np.random.default_rng(0).random((batch, 128, 128, 3), dtype="float32")
        calls["denoise", batch] = lambda denoiser=denoiser, images=images: denoiser.denoise(images) is None
        sizes = speed.Config(width=config.width, depth=config.depth, crop=128, batch=batch)
        calls["training step", batch] = speed.one_call(sizes, "training step", "ours", config.precision)
    seconds = speed.measure(calls, config.repeats)
    print(f"{'of 128×128':14}{'batch':>6}{'median s':>10}{'images/s':>10}")
    rows = []
    for (what, batch), times in sorted(seconds.items()):
        median = float(np.median(times))
        rows.append({"what": what, "batch": batch, "median_s": median, "images_per_s": batch / median})
        print(f"{what:14}{batch:6}{median:10.3f}{batch / median:10.2f}")
    return rows


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
