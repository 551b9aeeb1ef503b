"""How fast is the network beside a plain transcription of the paper, what this machine can do at most, and BM3D?

Everything alternates in one run, so that a noisy machine disturbs all alike; ratios are those of medians. The ceiling
is what TensorFlow reaches here in the same precision, for one large product of matrices and for single convolutions of
the network's own shapes.

    python -m benchmarks.speed
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks import machine, work

SIGMA = 25 / 255
PRECISIONS = ("float32", "bfloat16")
MATRIX = 2048
MEGA, GIGA = 1e6, 1e9
# Run by a fresh process for each contestant: what it needs beside what TensorFlow needs anyway.
MEMORY = """
import sys
from benchmarks import machine, speed
config = speed.Config(*map(int, sys.argv[1:7]))
call = speed.one_call(config, *sys.argv[7:10])
before = machine.peak_memory()
call()
print(before, machine.peak_memory())
"""


@dataclass(frozen=True)
class Config:
    """Times denoising and training."""

    height: int = 512
    """Height of the image in pixels."""
    width_pixels: int = 768
    """Width of the image in pixels."""
    crop: int = 128
    """Side of the training crops in pixels."""
    batch: int = 1
    """Crops per training step."""
    width: int = 48
    """Maps per encoder convolution."""
    depth: int = 5
    """How often the resolution is halved."""
    repeats: int = 7
    """Timed repetitions of each."""
    bm3d_repeats: int = 2
    """Timed repetitions of BM3D, which takes a minute; 0 leaves it out."""
    photo: Path | None = None
    """Clean image that BM3D gets with noise on it, in place of a made one."""
    memory: bool = True
    """Whether each contestant is run once more in a process of its own for its peak memory."""


def network_of(config: Config, precision: str):
    """Builds the full network with random weights; its biases are not zero, or they would be optimised away."""
    import keras

    from bsdenoise import blind_spot_network
    from bsdenoise.network import POLICIES

    keras.utils.set_random_seed(0)
    network = blind_spot_network(width=config.width, depth=config.depth, dtype=POLICIES[precision])
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if weight.name == "bias":
            weight.assign(0.01 * rng.standard_normal(weight.shape))
    return network


def one_call(config: Config, what: str, who: str, precision: str) -> Callable[[], None]:
    """Makes a function that does one pass or step and returns when it is done.

    Args:
        config: Sizes.
        what: "network" (the forward pass alone), "denoise" (with the MAP step) or "training step".
        who: "ours" or "transcription".
        precision: "float32" or "bfloat16".
    """
    import tensorflow as tf

    rng = np.random.default_rng(0)
    if what == "training step":
        noisy = tf.constant(rng.random((config.batch, config.crop, config.crop, 3), dtype="float32"))
        return _our_step(config, precision, noisy) if who == "ours" else _plain_step(config, precision, noisy)
    from benchmarks import transcription
    from bsdenoise import Denoiser, GaussianNoise

    image = tf.constant(rng.random((1, config.height, config.width_pixels, 3), dtype="float32"))
    network = network_of(config, precision)
    if who == "ours":
        function = network if what == "network" else Denoiser(network, GaussianNoise(SIGMA, SIGMA))
    else:
        plain = transcription.Transcription(network, precision)

        def function(noisy):
            outputs = plain(noisy)
            return outputs if what == "network" else transcription.map_estimate(outputs, noisy, SIGMA)

    graph = tf.function(lambda noisy: function(noisy))
    return lambda: graph(image).numpy() is None


def _our_step(config, precision, noisy):
    import tensorflow as tf

    from bsdenoise import methods
    from bsdenoise.config import TrainConfig
    from bsdenoise.data.training_images import TrainingImages
    from bsdenoise.noise import GaussianNoise
    from bsdenoise.training.step import TrainingState

    noise = GaussianNoise(SIGMA, SIGMA)
    size = {"width": config.width, "depth": config.depth, "batch": config.batch, "crop": config.crop}
    flags = TrainConfig(source="", out=None, noise="gaussian:25/255", precision=precision, **size)
    data = TrainingImages(range(1), methods.get(flags.method), 3, noise, "fresh", config.crop)
    state = TrainingState(flags, data, tf.distribute.get_strategy())
    target = tf.concat([noisy, tf.fill((*noisy.shape[:3], 1), noise.low)], axis=-1)
    return lambda: (state.train_on(noisy, target), state.loss_sum.numpy()) is None


def _plain_step(config, precision, noisy):
    from benchmarks import transcription

    step = transcription.training_step(transcription.Transcription(network_of(config, precision), precision), SIGMA)
    return lambda: step(noisy).numpy() is None


def ceiling_calls(config: Config, precision: str) -> dict[tuple, tuple[Callable[[], None], float]]:
    """Makes functions of single operations with their numbers of operations: a product, and convolutions by name.

    Convolutions have the shapes of the network's own, each with the padded rows and columns that it needs: `forward` at
    the size of the image, the others at that of the crops.
    """
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def random(*shape):
        return tf.cast(tf.constant(rng.standard_normal(shape, dtype="float32")), precision)

    left, right = random(MATRIX, MATRIX), random(MATRIX, MATRIX)
    product = tf.function(lambda: tf.matmul(left, right))
    calls = {("product",): (lambda: product().numpy() is None, 2.0 * MATRIX**3)}
    for conv in work.convolutions(network_of(config, "float32")):
        rows, columns, inputs, outputs = conv.kernel
        kernel = random(*conv.kernel)
        for kind in ("forward", "training forward", "input gradient", "filter gradient"):
            sides = (config.height, config.width_pixels) if kind == "forward" else (config.crop, config.crop)
            batch = 1 if kind == "forward" else config.batch
            height, width = (max(side >> conv.level, 1) for side in sides)
            image, result = (batch, height + rows - 1, width + columns - 1, inputs), (batch, height, width, outputs)
            function = _convolution(kind, random(*image), random(*result), kernel)
            operations = 2.0 * batch * height * width * rows * columns * inputs * outputs
            calls[kind, conv.name] = (function, operations)
    return calls


def _convolution(kind, image, result, kernel):
    import tensorflow as tf

    padding = {"strides": [1, 1, 1, 1], "padding": "VALID"}
    if kind == "input gradient":
        graph = tf.function(lambda: tf.nn.conv2d_transpose(result, kernel, image.shape, **padding))
    elif kind == "filter gradient":
        raw = tf.raw_ops.Conv2DBackpropFilter
        graph = tf.function(lambda: raw(input=image, filter_sizes=kernel.shape, out_backprop=result, **padding))
    else:
        graph = tf.function(lambda: tf.nn.conv2d(image, kernel, **padding))
    return lambda: graph().numpy() is None


def measure(calls: dict, repeats: int) -> dict[tuple, list[float]]:
    """Times functions by turns, after two calls of each that do not count."""
    for call in calls.values():
        call()
        call()
    seconds: dict[tuple, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ceilings(config: Config, seconds: dict, operations: dict) -> dict[tuple, float]:
    """Gives rates in operations per second: of the product, of all convolutions as the network has them, of the best.

    The best is the ceiling that the network is measured by. The mean of all is below it, and the network above that
    mean: of single convolutions some only write what they compute, into memory that is fresh each time.
    """
    convs = {conv.name: conv for conv in work.convolutions(network_of(config, "float32"))}
    rates: dict[tuple, float] = {}
    for precision in PRECISIONS:
        medians = {name[1:]: float(np.median(times)) for name, times in seconds.items() if name[0] == precision}
        rates[precision, "product"] = operations["product",] / medians["product",]
        for what, kinds in (
            ("inference", ("forward",)),
            ("training", ("training forward", "input gradient", "filter gradient")),
        ):
            names = [(kind, name) for kind in kinds for name in convs]
            # Each as often as the network applies it, so that the mean is that of the network's own mixture.
            total = sum(convs[name].times * operations[kind, name] for kind, name in names)
            rates[precision, what] = total / sum(convs[name].times * medians[kind, name] for kind, name in names)
            rates[precision, f"{what}, best"] = max(operations[name] / medians[name] for name in names)
    return rates


def noisy_photo(config: Config) -> np.ndarray:
    """Gives the image for BM3D, (H, W, 3), with noise on it."""
    from bsdenoise import images

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: config.height, : config.width_pixels] / 40.0
    clean = np.stack([0.5 + 0.3 * np.sin(rows + shift) * np.cos(columns) for shift in range(3)], axis=-1)
    if config.photo is not None:
        clean = images.read_array(config.photo) / 255.0
    return (clean + SIGMA * rng.standard_normal(clean.shape)).astype("float32")


def against_bm3d(config: Config, noisy: np.ndarray, calls: dict) -> dict[str, float]:
    """Times colour BM3D, on as many cores as its package uses, and our denoising by turns.

    Returns:
        Seconds per megapixel, medians, of "bm3d" and of our precisions.
    """
    from bsdenoise.evaluation import bm3d

    contestants = {precision: calls["denoise", "ours", precision] for precision in PRECISIONS}
    contestants["bm3d"] = lambda: bm3d.run(noisy, SIGMA, bm3d.PROFILE)
    megapixels = {name: config.height * config.width_pixels / MEGA for name in PRECISIONS}
    megapixels["bm3d"] = noisy.shape[0] * noisy.shape[1] / MEGA
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(config.bm3d_repeats):
        for name, call in contestants.items():
            start = time.perf_counter()
            call()
            seconds[name].append((time.perf_counter() - start) / megapixels[name])
    return {name: float(np.median(times)) for name, times in seconds.items()}


def peak_memory(config: Config, name: tuple) -> list[int]:
    """Gives the peak memory in MiB of a fresh process before and after one call."""
    sizes = (config.height, config.width_pixels, config.crop, config.batch, config.width, config.depth)
    command = [sys.executable, "-c", MEMORY, *map(str, sizes), *name]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(number) for number in answer.stdout.split()]


def operations_per_pixel(config: Config) -> dict[str, float]:
    """Counts operations, two for each multiplication: as in the paper, of ours, of the transcription on both sizes."""
    convs = work.convolutions(network_of(config, "float32"))
    sides = {"image": (config.height, config.width_pixels), "crop": (config.crop, config.crop)}
    return {
        "nominal": sum(2 * conv.nominal() for conv in convs),
        "ours": sum(2 * conv.done() for conv in convs),
        **{key: sum(2 * conv.squared(*size, 2**config.depth) for conv in convs) for key, size in sides.items()},
    }


def run(config: Config) -> None:
    """Measures and prints."""
    if config.bm3d_repeats:  # what is missing is better missed now than at the end
        importlib.import_module("bm3d")
        noisy = noisy_photo(config)
    print(machine.describe())
    print(f"width {config.width}, depth {config.depth}; image {config.width_pixels}×{config.height}, ", end="")
    print(f"training on {config.batch} of {config.crop}×{config.crop}; {config.repeats} repetitions by turns")
    names = [
        (what, who, precision)
        for what in ("network", "denoise", "training step")
        for precision in PRECISIONS
        for who in ("ours", "transcription")
    ]
    single = {
        (precision, *name): pair for precision in PRECISIONS for name, pair in ceiling_calls(config, precision).items()
    }
    operations = {name[1:]: pair[1] for name, pair in single.items()}
    calls = {name: one_call(config, *name) for name in names} | {name: pair[0] for name, pair in single.items()}
    seconds = measure(calls, config.repeats)
    rates = ceilings(config, {name: seconds[name] for name in single}, operations)
    print("\nCeilings, GFLOP/s")
    for name, rate in rates.items():
        print(f"  {', '.join(name):30}{rate / GIGA:8.0f}")
    result: dict = {"machine": machine.describe(), "config": asdict(config)}
    result["ceilings"] = {", ".join(name): rate / GIGA for name, rate in rates.items()}
    result["rows"] = _print_rows(config, {name: seconds[name] for name in names}, rates)
    print()
    result["ratios"] = _print_ratios(names, seconds)
    if config.bm3d_repeats:
        result["s_per_megapixel"] = found = against_bm3d(config, noisy, calls)
        print(f"BM3D, colour, {config.bm3d_repeats} times by turns: {found['bm3d']:.1f} s per megapixel")
        for precision in PRECISIONS:
            ratio = found["bm3d"] / found[precision]
            print(f"  denoise, {precision}: {found[precision]:.2f} s per megapixel, {ratio:.1f} times as fast as BM3D")
    print(json.dumps(result, default=str))


def _print_rows(config, seconds, rates) -> list[dict]:
    """Prints a line for each contestant."""
    counts = operations_per_pixel(config)
    print(
        f"\nOperations per pixel: {counts['nominal'] / MEGA:.3f} million as the paper has them, "
        f"{counts['ours'] / MEGA:.3f} million done by ours, {counts['image'] / MEGA:.3f} million by the transcription, "
        f"whose branches compute a square"
    )
    print(
        f"{'':14}{'who':>14}{'precision':>10}{'median s':>10}{'min':>8}{'max':>8}{'images/s':>10}{'MP/s':>8}"
        f"{'GFLOP/s':>9}{'done':>8}{'of ceiling':>12}{'MiB':>8}"
    )
    rows = []
    for name, times in seconds.items():
        row = _row(config, name, times, counts, rates)
        row["peak_mib"] = peak_memory(config, name)[1] if config.memory else None
        print(
            f"{row['what']:14}{row['who']:>14}{row['precision']:>10}{row['median']:10.3f}{row['least']:8.3f}"
            f"{row['most']:8.3f}{row['images']:10.2f}{row['megapixels']:8.3f}{row['nominal']:9.0f}{row['done']:8.0f}"
            f"{row['share']:12.2f}{row['peak_mib'] or '':>8}"
        )
        rows.append(row)
    return rows


def _row(config, name, times, counts, rates):
    """Gives what is printed of one contestant."""
    what, who, precision = name
    median = float(np.median(times))
    is_training = what == "training step"
    images = config.batch if is_training else 1
    pixels = images * config.crop**2 if is_training else config.height * config.width_pixels
    passes = 3 if is_training else 1  # forward, and the gradients of inputs and of kernels
    done = counts["ours"] if who == "ours" else counts["crop" if is_training else "image"]
    rate, done_rate = (passes * count * pixels / median for count in (counts["nominal"], done))
    share = done_rate / rates[precision, f"{'training' if is_training else 'inference'}, best"]
    return {
        "what": what, "who": who, "precision": precision, "median": median, "least": min(times), "most": max(times),
        "images": images / median, "megapixels": pixels / MEGA / median, "nominal": rate / GIGA,
        "done": done_rate / GIGA, "share": share,
    }  # fmt: skip


def _print_ratios(names, seconds) -> dict[str, float]:
    """Prints ratios of medians."""
    medians = {name: float(np.median(seconds[name])) for name in names}
    ratios = {}
    for what in ("network", "denoise", "training step"):
        for precision in PRECISIONS:
            ratio = medians[what, "transcription", precision] / medians[what, "ours", precision]
            ratios[f"{what}, {precision}: ours against the transcription"] = ratio
        ratio = medians[what, "ours", "float32"] / medians[what, "ours", "bfloat16"]
        ratios[f"{what}, ours: bfloat16 against float32"] = ratio
    for text, ratio in ratios.items():
        print(f"{text}: {ratio:.2f} times as fast")
    return ratios


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
