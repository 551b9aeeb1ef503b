"""How fast is the network beside a plain transcription of the paper, what this machine can do at most, and BM3D?

Everything alternates in one run, so that a noisy machine disturbs all alike; ratios are those of medians. The ceiling
is what TensorFlow reaches here in the same precision, for one large product of matrices and for single convolutions of
the network's own shapes.

    python -m benchmarks.speed
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

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
height, width, crop, batch = map(int, sys.argv[1:5])
call = speed.one_call(speed.Config(height, width, crop, batch), *sys.argv[5:8])
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
    from bsdenoise.data.crops import TrainingImages
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


def bm3d_seconds(config: Config) -> list[float]:
    """Times colour BM3D on one image of the same size, in this process, on as many cores as its package uses."""
    from bsdenoise.evaluation import bm3d

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: config.height, : config.width_pixels] / 40.0
    clean = np.stack([0.5 + 0.3 * np.sin(rows + shift) * np.cos(columns) for shift in range(3)], axis=-1)
    noisy = (clean + SIGMA * rng.standard_normal(clean.shape)).astype("float32")
    return [bm3d.run(noisy, SIGMA, bm3d.PROFILE)[1] for _ in range(config.bm3d_repeats)]


def peak_memory(config: Config, name: tuple) -> list[int]:
    """Gives the peak memory in MiB of a fresh process before and after one call."""
    sizes = [str(size) for size in (config.height, config.width_pixels, config.crop, config.batch)]
    command = [sys.executable, "-c", MEMORY, *sizes, *name]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(number) for number in answer.stdout.split()]


def run(config: Config) -> None:
    """Measures and prints."""
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
    result: dict = {"machine": machine.describe(), "config": asdict(config), "rows": []}
    result["ceilings"] = {", ".join(name): rate / GIGA for name, rate in rates.items()}
    print("\nCeilings, GFLOP/s")
    for name, rate in rates.items():
        print(f"  {', '.join(name):30}{rate / GIGA:8.0f}")
    convs = work.convolutions(network_of(config, "float32"))
    nominal, done = (2 * sum(getattr(conv, how)() for conv in convs) for how in ("nominal", "done"))
    print(
        f"\nOperations per pixel: {nominal / MEGA:.3f} million as the paper has them, "
        f"{done / MEGA:.3f} million done by ours"
    )
    header = (
        "",
        "who",
        "precision",
        "median s",
        "min",
        "max",
        "images/s",
        "MP/s",
        "GFLOP/s",
        "done",
        "of ceiling",
        "MiB",
    )
    print("{:14}{:>14}{:>10}{:>10}{:>8}{:>8}{:>10}{:>8}{:>9}{:>8}{:>12}{:>8}".format(*header))
    for name in names:
        row = _row(config, name, seconds[name], nominal, done, rates)
        row["peak_mib"] = peak_memory(config, name)[1] if config.memory else None
        result["rows"].append(row)
        print(
            "{what:14}{who:>14}{precision:>10}{median:10.3f}{least:8.3f}{most:8.3f}{images:10.2f}{megapixels:8.3f}{nominal:9.0f}{done:8.0f}{share:12.2f}".format(
                **row
            )
            + f"{row['peak_mib'] or '':>8}"
        )
    print()
    result["ratios"] = _print_ratios(names, seconds)
    if config.bm3d_repeats:
        per_megapixel = float(np.median(bm3d_seconds(config))) / (config.height * config.width_pixels / MEGA)
        result["bm3d_s_per_megapixel"] = per_megapixel
        print(f"BM3D, colour: {per_megapixel:.1f} s per megapixel")
        for precision in PRECISIONS:
            ours = np.median(seconds["denoise", "ours", precision]) / (config.height * config.width_pixels / MEGA)
            print(
                f"  denoise, {precision}: {ours:.2f} s per megapixel, {per_megapixel / ours:.1f} times as fast as BM3D"
            )
    print(json.dumps(result))


def _row(config, name, times, nominal, done, rates):
    """Gives what is printed of one contestant."""
    what, who, precision = name
    median = float(np.median(times))
    is_training = what == "training step"
    images = config.batch if is_training else 1
    pixels = images * config.crop**2 if is_training else config.height * config.width_pixels
    passes = 3 if is_training else 1  # forward, and the gradients of inputs and of kernels
    rate = passes * nominal * pixels / median
    done_rate = passes * done * pixels / median if who == "ours" else rate
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
