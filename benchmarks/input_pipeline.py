"""Does training ever wait for its images?

First the input pipeline alone: crops per second by crop size, threads and kind of file, with fresh noise; each kind as
files, and packed by `bsdenoise prepare`. With `--files`, how long a folder of so many takes to open. Then its
share of the training step: blocks of steps that are fed from files alternate with blocks that are fed the same batch
again and again, so that a noisy machine disturbs both alike. On a CPU the share is what the pipeline takes from the
computing.

    python -m benchmarks.input_pipeline PHOTOS
    python -m benchmarks.input_pipeline PHOTOS --files 1281167 --blocks 0
    python -m benchmarks.input_pipeline PHOTOS --width 24 --depth 4 --crop 80 --precision bfloat16
"""

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from benchmarks import big_folder, machine

KINDS = ("jpg", "png")
THREADS = (1, 2)
SHARD_BYTES = 2**29  # the default of `bsdenoise prepare`, about


@dataclass(frozen=True)
class Config:
    """Times the input pipeline, and training steps with and without it."""

    source: Annotated[str, tyro.conf.Positional]
    """Photographs: a folder, of at least `--images` images that are not smaller than the crops."""
    images: int = 64
    """How many of them are used, once as JPEG and once as PNG."""
    files: int = 0
    """Files of a big folder whose opening is timed, made of links in a temporary folder; 0 for none."""
    crops: tuple[int, ...] = (64, 128, 256)
    """Crop sizes for the pipeline alone."""
    seconds: float = 2.0
    """How long the pipeline runs for each figure."""
    repeats: int = 3
    """Figures whose median is given."""
    width: int = 48
    """Maps per encoder convolution."""
    depth: int = 5
    """How often the resolution is halved."""
    crop: int = 256
    """Side of the crops of the training step; images that are smaller are left out."""
    batch: int = 4
    """Crops per step."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network's body."""
    blocks: int = 8
    """Blocks of training steps of each kind; 0 for the pipeline alone."""
    steps: int = 3
    """Steps of a block that are timed; one before them is not, in which the pipeline fills its buffer."""


def write_copies(config: Config, folder: Path) -> dict[str, Path]:
    """Writes the photographs in both formats, as files and packed, and gives the folder of each."""
    from bsdenoise import images
    from bsdenoise.data import packing
    from bsdenoise.data.sources import open_source

    least = max(config.crop, *config.crops)
    folders = {kind: folder / kind for kind in KINDS}
    for path in folders.values():
        path.mkdir()
    written = 0
    for path in images.find(config.source):
        array = images.read(path).array
        if min(array.shape[:2]) < least or array.shape[2:] != (3,):
            continue
        for kind, target in folders.items():
            images.write(target / f"{written}.{kind}", array)
        written += 1
        if written == config.images:
            packed = {f"{kind} packed": folder / f"{kind}-packed" for kind in KINDS}
            for kind, path in zip(KINDS, packed.values(), strict=True):
                packing.pack(open_source(str(folders[kind])), path, SHARD_BYTES, print)
            return folders | packed
    raise ValueError(
        f"{config.source}: expected {config.images} RGB images of at least {least} pixels, found {written}."
    )


def training_images(folder: Path, crop: int):
    """Opens a folder as training does."""
    from bsdenoise import methods
    from bsdenoise.data.sources import open_source
    from bsdenoise.data.training_images import TrainingImages
    from bsdenoise.noise import GaussianNoise

    noise = GaussianNoise(25 / 255, 25 / 255)
    return TrainingImages(open_source(str(folder)), methods.get("full"), 3, noise, "fresh", crop, full_scale=255.0)


def crops_per_second(data, config: Config, threads: int) -> float:
    """Runs the pipeline on so many threads and does nothing with its crops."""
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    rates = []
    for _ in range(config.repeats):
        batches = iter(data.batches(config.batch, 0, 10**9).with_options(options))
        next(batches)
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + config.seconds:
            next(batches)
            count += config.batch
        rates.append(count / (time.perf_counter() - start))
    return float(np.median(rates))


def seconds_of(call, repeats: int) -> float:
    """Gives the median time of a function of a number."""
    times = []
    for number in range(repeats):
        start = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def measure_pipeline(folders: dict[str, Path], config: Config) -> dict:
    """Prints a table of the pipeline alone."""
    result: dict = {}
    print(f"{'':24}{'crops/s by threads':^22}{'ms per crop, one thread':^34}")
    print(f"{'files':12}{'crop':>8}{'':4}" + "".join(f"{threads:>11}" for threads in THREADS), end="")
    print(f"{'all':>12}{'reading':>11}{'the rest':>11}")
    for kind, folder in folders.items():
        for crop in config.crops:
            data = training_images(folder, crop)
            whole = seconds_of(data.example, 2 * config.images)
            reading = seconds_of(lambda number, data=data: data.source.read(number % len(data.source)), config.images)
            rates = [crops_per_second(data, config, threads) for threads in THREADS]
            print(f"{kind:12}{crop:>8}{'':4}" + "".join(f"{rate:11.0f}" for rate in rates), end="")
            print(f"{1e3 * whole:12.2f}{1e3 * reading:11.2f}{1e3 * (whole - reading):11.2f}")
            result[f"{kind} {crop}"] = {"crops_per_s": dict(zip(THREADS, rates, strict=True)), "example_s": whole}
    return result


def measure_share(folder: Path, config: Config) -> dict:
    """Prints how much longer steps take that are fed from files than those that are fed one batch again and again."""
    import tensorflow as tf

    from bsdenoise.config import TrainConfig
    from bsdenoise.training.step import TrainingState

    # As the command line does it: the fusions of inference only delay the backward pass.
    tf.config.optimizer.set_experimental_options({"remapping": False})
    data = training_images(folder, config.crop)
    size = {"width": config.width, "depth": config.depth, "batch": config.batch, "crop": config.crop}
    flags = TrainConfig(source="", out=Path(), noise="gaussian:25/255", precision=config.precision, **size)
    state = TrainingState(flags, data, tf.distribute.get_strategy())
    batches = data.batches(config.batch, 0, 10**9)
    constant = next(iter(batches.take(1)))

    def block(feed) -> float:
        state.train_on(*next(feed))
        state.take_loss()
        start = time.perf_counter()
        for _ in range(config.steps):
            state.train_on(*next(feed))
        state.take_loss()  # waits for the device
        return (time.perf_counter() - start) / config.steps

    def endless():
        while True:
            yield constant

    block(endless())
    times: dict[str, list[float]] = {"one batch": [], "from files": []}
    for _ in range(config.blocks):
        times["one batch"].append(block(endless()))
        times["from files"].append(block(iter(batches)))  # a new one: in between nothing is read
    medians = {name: float(np.median(values)) for name, values in times.items()}
    share = medians["from files"] / medians["one batch"] - 1
    print(f"training step, width {config.width}, depth {config.depth}, {config.precision}, ", end="")
    print(f"batch {config.batch} of {config.crop}×{config.crop}:")
    for name, values in times.items():
        print(f"{name:12}{medians[name]:9.4f} s (from {min(values):.4f} to {max(values):.4f})")
    print(f"share of the input pipeline: {share:+.1%}")
    return {**medians, "share": share}


def run(config: Config) -> None:
    """Measures and prints."""
    from bsdenoise import images

    print(machine.describe())
    with tempfile.TemporaryDirectory() as folder:
        folders = write_copies(config, Path(folder))
        result = {"machine": machine.describe(), "config": config.__dict__, **measure_pipeline(folders, config)}
        if config.files:
            result["starts"] = big_folder.measure(images.find(folders["jpg"]), config.files)
        if config.blocks:
            result["step"] = measure_share(folders["jpg"], config)
    print(json.dumps(result))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
