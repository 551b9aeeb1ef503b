"""How much load does a served model take, and what does serving cost over calling the model?

Exports a model, serves it in a process of its own, and sends images of mixed sizes, as tensors over gRPC and as PNG
files over REST, from 1 to 32 clients at once. Every answer is compared with the local model's.

    python -m benchmarks.serving_load --model run

It measures `bsdenoise serve`, or the real `tensorflow_model_server` where that is on the PATH.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from benchmarks import machine

SIGMA = 25 / 255
# Heights and widths, and how often each comes: many thumbnails, some photographs.
SIZES = (((128, 128), 4), ((240, 321), 3), ((512, 512), 1))
OVERHEAD_SIZE = (512, 512)
# Largest difference from the local model: of float32 in full scale; of PNG files in grey levels, where a value that
# lies between two levels may be rounded either way.
TOLERANCE = {"grpc": 1e-4, "rest": 1}
MOST_ROUNDED_OTHERWISE = 1e-3  # part of the pixels
READY_SECONDS = 120.0


@dataclass(frozen=True)
class Config:
    """Measures throughput, latency, errors and memory of a served model."""

    model: Path | None = None
    """A .keras file or run folder; without one, a network of random weights of that width and depth."""
    width: int = 24
    """Maps per encoder convolution, without a model."""
    depth: int = 4
    """How often the resolution is halved, without a model."""
    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Clients at once."""
    requests: int = 48
    """Requests at each level."""
    repeats: int = 15
    """Pairs of calls for the overhead."""


@dataclass
class Level:
    """What was seen at one level of one protocol."""

    protocol: str
    concurrency: int
    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    wrong: int = 0
    pixels: int = 0
    wall: float = 0.0
    peak_mib: float = 0.0


def run(config: Config) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        denoiser = _denoiser(config)
        models = Path(folder) / "denoiser"
        _export(denoiser, models)
        images = _images(denoiser)
        print(f"{denoiser.network.count_params():,} parameters; {machine.describe()}")
        with _served(models) as (pid, urls):
            overhead = _overhead(models, urls["grpc"], config.repeats)
            print(
                f"one {OVERHEAD_SIZE[0]}×{OVERHEAD_SIZE[1]} image, medians of {config.repeats} pairs: model called "
                f"directly {overhead['direct']:.3f} s, over gRPC {overhead['served']:.3f} s, ratio of medians "
                f"{overhead['ratio']:.3f}"
            )
            columns = ("clients", "images/s", "MP/s", "p50 s", "p99 s", "errors", "wrong", "peak MiB")
            print(f"{'':6}" + "".join(f"{column:>10}" for column in columns))
            levels = []
            for protocol in ("grpc", "rest"):
                for concurrency in config.concurrency:
                    level = _load(protocol, urls[protocol], concurrency, config.requests, images, pid)
                    levels.append(_row(level))
    result = {"machine": machine.describe(), "overhead": overhead, "levels": levels}
    print(json.dumps(result))


def _denoiser(config):
    """Loads or makes the model."""
    from bsdenoise.cli import models

    if config.model:
        return models.load_denoiser(config.model)
    from bsdenoise.denoiser import Denoiser
    from bsdenoise.network import blind_spot_network
    from bsdenoise.noise import GaussianNoise

    return Denoiser(blind_spot_network(width=config.width, depth=config.depth), GaussianNoise(SIGMA, SIGMA))


def _export(denoiser, folder):
    from bsdenoise.export import export_saved_model

    export_saved_model(denoiser, folder / "1", warm_up=[size for size, _ in SIZES])


def _images(denoiser):
    """Makes noisy images of 8 bits, and what the local model makes of each as float32."""
    rng = np.random.default_rng(0)
    images = []
    for size, times in SIZES:
        ramp = np.linspace(0.2, 0.8, size[1])[np.newaxis, :, np.newaxis]
        noisy = ramp + SIGMA * rng.standard_normal((*size, denoiser.channels))
        noisy = np.rint(255 * np.clip(noisy, 0, 1)).astype(np.uint8)
        images += times * [(noisy, denoiser.denoise(noisy, sigma=SIGMA))]
    return [images[index] for index in rng.permutation(len(images))]


@contextlib.contextmanager
def _served(folder) -> Iterator[tuple[int, dict[str, str]]]:
    """Serves the folder in a process of its own; gives its number and the URLs of both protocols."""
    command = [sys.executable, "-m", "bsdenoise.cli", "serve", str(folder), "--grpc-port", "0", "--rest-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line), re.search(r"grpc://\S+", line)
        if not all(found):
            raise RuntimeError(f"the server did not start: {line!r}")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield process.pid, {"rest": found[0][0].rstrip(",;"), "grpc": found[1][0].rstrip(",;")}
    finally:
        process.terminate()
        process.wait(READY_SECONDS)


def _overhead(folder, url, repeats):
    """Times the exported model called in this process and over gRPC, by turns."""
    import tensorflow as tf

    from bsdenoise.client import connect

    call = tf.saved_model.load(str(folder / "1")).signatures["with_sigma"]
    image = np.random.default_rng(0).random((1, *OVERHEAD_SIZE, 3), "float32")
    sigma = np.array([SIGMA], "float32")
    times = {"direct": [], "served": []}
    with connect(url) as client:

        def direct():
            return call(image=tf.constant(image), sigma=tf.constant(sigma))["denoised"].numpy()

        def served():
            return client.denoise(image, SIGMA)

        direct(), served()  # the first calls are slow
        for _ in range(repeats):
            for name, function in (("direct", direct), ("served", served)):
                start = time.perf_counter()
                function()
                times[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return medians | {"ratio": medians["served"] / medians["direct"]}


def _load(protocol, url, concurrency, requests, images, pid) -> Level:
    """Sends requests from so many threads, each with one request in flight."""
    from bsdenoise.client import ClientError, connect

    level, lock = Level(protocol, concurrency), threading.Lock()
    _forget_peak(pid)
    with connect(url, retries=0) as client:
        client.description  # asked for once, before the clock runs  # noqa: B018

        def one(index):
            noisy, expected = images[index % len(images)]
            start = time.perf_counter()
            try:
                denoised = client.denoise(noisy, SIGMA)
            except ClientError as error:
                with lock:
                    level.errors += 1
                print(f"error: {error}", file=sys.stderr)
                return
            seconds = time.perf_counter() - start
            is_wrong = _is_wrong(protocol, denoised, expected)
            with lock:
                level.seconds.append(seconds)
                level.pixels += noisy.shape[0] * noisy.shape[1]
                level.wrong += is_wrong

        start = time.perf_counter()
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(one, range(requests)))
        level.wall = time.perf_counter() - start
    level.peak_mib = _peak(pid)
    return level


def _is_wrong(protocol, denoised, expected) -> bool:
    """Compares an answer with the local model's."""
    if protocol == "grpc":
        return bool(np.abs(denoised - expected).max() > TOLERANCE["grpc"])
    levels = [np.rint(255 * np.clip(image, 0, 1)).astype(int) for image in (denoised, expected)]
    differences = np.abs(levels[0] - levels[1])
    return bool(differences.max() > TOLERANCE["rest"] or (differences > 0).mean() > MOST_ROUNDED_OTHERWISE)


def _row(level: Level) -> dict:
    """Prints a line of the table, and gives its numbers."""
    p50, p99 = np.percentile(level.seconds, [50, 99]) if level.seconds else (float("nan"),) * 2
    numbers = {
        "images_per_second": len(level.seconds) / level.wall,
        "megapixels_per_second": level.pixels / level.wall / 1e6,
        "p50": float(p50),
        "p99": float(p99),
        "errors": level.errors,
        "wrong": level.wrong,
        "peak_mib": level.peak_mib,
    }
    formats = ("10.2f", "10.3f", "10.2f", "10.2f", "10d", "10d", "10.0f")
    cells = "".join(format(value, how) for value, how in zip(numbers.values(), formats, strict=True))
    print(f"{level.protocol:6}{level.concurrency:10d}{cells}", flush=True)
    return {"protocol": level.protocol, "concurrency": level.concurrency} | numbers


def _forget_peak(pid) -> None:
    """Lets Linux count a process's peak memory anew."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak(pid) -> float:
    """Gives the peak memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
