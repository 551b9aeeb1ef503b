"""How busy does a folder of small images of different sizes keep the cores?

The same folder of PNG and JPEG files is denoised in three ways, which take turns: file by file, as a loop over read,
`Denoiser.denoise` and write does it; with decoding and encoding in threads beside the computation, as
`bsdenoise denoise` does it, but each image by itself; and as it does it, with images of equal shape in batches. A
thread that computes waits for everything that is not the model: its share of the time is the most that overlapping can
gain.

    python -m benchmarks.folder
    python -m benchmarks.folder --width 16 --depth 3 --images 400
"""

import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import machine
from bsdenoise import images
from bsdenoise.config import DenoiseConfig
from bsdenoise.pipeline import file_plan, local_files
from bsdenoise.pipeline.denoising_model import Model
from bsdenoise.pipeline.file_task import Writes, surveyed

SIGMA = 25 / 255
LEAST_SIDE, MOST_SIDE = 64, 320  # pixels
WAYS = ("one by one", "overlapped", "overlapped, batched")
NO_BATCHES = 1  # pixels in a batch: each has one image


@dataclass(frozen=True)
class Config:
    """Compares ways to denoise a folder."""

    images: int = 200
    """Number of files."""
    shapes: int = 12
    """Number of different sizes among them."""
    width: int = 48
    """Maps of the network."""
    depth: int = 5
    """Levels of the network."""
    precision: str = "float32"
    """Arithmetic of the network's body."""
    repeats: int = 5
    """Runs of each way, after one to warm up."""
    seed: int = 0
    """Of sizes, pixels and weights."""


class Timed:
    """A denoiser that adds up for how long it computes.

    Args:
        denoiser: The `Denoiser`.
    """

    def __init__(self, denoiser: Any):
        self._denoiser = denoiser
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def denoise(self, *arguments: Any, **options: Any) -> np.ndarray:
        """Does what the denoiser does."""
        start = time.perf_counter()
        try:
            return self._denoiser.denoise(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - start


def make_folder(folder: Path, config: Config) -> float:
    """Writes noisy images, every other one a JPEG; gives their megapixels."""
    rng = np.random.default_rng(config.seed)
    shapes = rng.integers(LEAST_SIDE, MOST_SIDE + 1, (config.shapes, 2))
    pixels = 0
    for number in range(config.images):
        height, width = shapes[rng.integers(len(shapes))]
        rows, columns = np.mgrid[:height, :width]
        waves = np.stack([np.sin(rows / a) * np.cos(columns / b) for a, b in rng.uniform(3, 40, (3, 2))], axis=-1)
        noisy = 0.5 + 0.3 * waves + SIGMA * rng.standard_normal(waves.shape)
        images.write(folder / f"{number:05}.{('png', 'jpg')[number % 2]}", images.from_unit(noisy, np.uint8))
        pixels += height * width
    return pixels / 1e6


def one_by_one(denoiser: Any, source: Path, out: Path) -> None:
    """Denoises a folder as a loop in a script does it."""
    for path in images.find(source):
        picture = images.read(path)
        denoised = denoiser.denoise(picture.array, sigma=SIGMA)
        images.write(out / path.name, images.from_unit(denoised, picture.array.dtype), like=picture)


def as_the_command(denoiser: Any, source: Path, out: Path) -> None:
    """Denoises a folder as `bsdenoise denoise` does it."""
    config = DenoiseConfig(inputs=(str(source),), out=out, sigma=f"{255 * SIGMA:g}/255", overwrite=True)
    tasks = [surveyed(job) for job in file_plan.plan(config.inputs, out, overwrite=True)]
    local = local_files.Local(Model(denoiser, config), lambda task, pixels: None, Writes(local_files.WRITERS))
    for task in local.run(tasks):
        if task.error is not None:
            raise task.error


@contextlib.contextmanager
def without_batches() -> Iterator[None]:
    """Lets the command denoise each image by itself, as soon as it is there."""
    before = local_files.BATCH_PIXELS, local_files.LOOK_AHEAD_PIXELS
    local_files.BATCH_PIXELS = local_files.LOOK_AHEAD_PIXELS = NO_BATCHES
    try:
        yield
    finally:
        local_files.BATCH_PIXELS, local_files.LOOK_AHEAD_PIXELS = before


def measure(way: str, denoiser: Any, source: Path, out: Path) -> tuple[float, float]:
    """Denoises the folder in one way; gives the seconds that it took, and the share of it that nothing computed."""
    timed = Timed(denoiser)
    work: Callable[[Any, Path, Path], None] = one_by_one if way == WAYS[0] else as_the_command
    with without_batches() if way == WAYS[1] else contextlib.nullcontext():
        start = time.perf_counter()
        work(timed, source, out)
        seconds = time.perf_counter() - start
    return seconds, 1 - timed.seconds / seconds


def run(config: Config) -> None:
    """Measures and prints."""
    import keras

    from bsdenoise.denoiser import Denoiser
    from bsdenoise.network import blind_spot_network
    from bsdenoise.noise import GaussianNoise

    keras.utils.set_random_seed(config.seed)
    network = blind_spot_network(channels=3, width=config.width, depth=config.depth)
    denoiser = Denoiser(network, GaussianNoise(SIGMA, SIGMA)).in_precision(config.precision)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        out.mkdir()
        megapixels = make_folder(source, config)
        results: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for number in range(config.repeats + 1):
            for way in WAYS:
                result = measure(way, denoiser, source, out)
                if number > 0:
                    results[way].append(result)
    print(
        f"{config.images} files of {config.shapes} sizes, {megapixels:.1f} megapixels; "
        f"network of width {config.width}, depth {config.depth}, {config.precision}; {machine.describe()}"
    )
    summary = {}
    base = statistics.median(seconds for seconds, _ in results[WAYS[0]])
    for way, values in results.items():
        seconds, waiting = (statistics.median(numbers) for numbers in zip(*values, strict=True))
        rates = [config.images / taken for taken, _ in values]
        print(
            f"{way:20} {config.images / seconds:7.2f} images/s ({min(rates):.2f} to {max(rates):.2f}), "
            f"{megapixels / seconds:6.3f} megapixels/s, {base / seconds:.2f} times as fast as one by one; "
            f"the computing thread waits {waiting:.1%} of the time"
        )
        summary[way] = {"images_per_second": config.images / seconds, "waiting": waiting, "seconds": seconds}
    print(json.dumps({"machine": machine.describe(), "megapixels": megapixels, **summary}))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
