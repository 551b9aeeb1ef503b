"""`train --dry-run`: what a run would be, timed on a few of its steps; writes nothing."""

import functools
import statistics
import time
from dataclasses import dataclass

import psutil
import tensorflow as tf
from tqdm import tqdm

from bsdenoise.config import TrainConfig
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.inference import memory
from bsdenoise.training import distribution, gradients, preparation, unknown_noise
from bsdenoise.training.checkpoints import KEPT
from bsdenoise.training.distribution import Place
from bsdenoise.training.step import TrainingState
from bsdenoise.training.validation import Validation

WARM_UP_STEPS = 2  # the first traces and compiles, the second allocates what is then used again
MIN_STEPS, MIN_SECONDS, MAX_SECONDS = 5, 5.0, 60.0
_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (0.0, "seconds"))


@dataclass(frozen=True)
class Timing:
    """What a few steps showed.

    Attributes:
        steps: Number of steps that were timed.
        step_seconds: Median time of one.
        first_seconds: Time until the first was done, from the start of building the network.
        memory_bytes: Peak memory of one device; on CPUs of the process beyond what it had before.
        validation_seconds: Time of one validation, after the first.
    """

    steps: int
    step_seconds: float
    first_seconds: float
    memory_bytes: int
    validation_seconds: float


def show(config: TrainConfig) -> None:
    """Print the plan of a run.

    Raises:
        ValueError: If the source, the noise SPEC or the flags cannot be used.
        PeerLostError: If another worker of the cluster is lost.
    """
    preparation.check(config)
    place = distribution.join(config.strategy, config.communication, 60.0 * config.stall_minutes)
    place.check_batch(config.batch)
    data, _ = preparation.open_data(config, None, tqdm.write if place.is_chief else lambda line: None, place)
    config = unknown_noise.known(config, data.measured)
    before = time.monotonic(), psutil.Process().memory_info().rss
    state = TrainingState(config, data, place.strategy)
    timing = _timed(config, data, state, place, *before)
    if place.is_chief:
        for name, text in describe(config, data, state, place, timing).items():
            print(f"{name:<12}{text}")


def describe(
    config: TrainConfig, data: TrainingImages, state: TrainingState, place: Place, timing: Timing
) -> dict[str, str]:
    """Say what the run would be, by topic."""
    rate = config.batch / timing.step_seconds
    validations = -(-config.steps // config.validate_every)
    validating = validations * timing.validation_seconds
    seconds = config.steps * timing.step_seconds + validating
    size = sum(4 * variable.shape.num_elements() for variable in state.optimizer.variables if variable.shape.rank)
    size += 8 * state.network.count_params()  # the weights and their average, float32, beside the optimizer's means
    epochs = config.images / len(data.training)
    work = flops(state, config.crop, data.channels, data.channels + data.method.num_extra(data.noise))
    return {
        "devices": f"{place}, {config.precision}",
        "images": f"{len(data.training):,} to train on, {len(data.held_out):,} held out; {epochs:.3g} epochs",
        "network": f"{state.network.count_params():,} parameters; {config.method}",
        "step": f"{config.batch} crops of {config.crop}×{config.crop}, {config.batch / place.replicas:g} per device",
        "work": f"{work / 1e9:,.4g} GFLOP per crop, forward and backward; {work * rate / 1e9:,.4g} GFLOP/s",
        "memory": f"{timing.memory_bytes / 1e9:.2f} GB per device at most; this machine has "
        f"{memory.available_bytes() / 1e9:.1f} GB free",
        "speed": f"{rate:.4g} crops/s, median of {timing.steps} steps of {timing.step_seconds:.3g} s, images read from "
        f"SOURCE; {timing.first_seconds:.0f} s until the first step is done",
        "whole run": f"{config.steps:,} steps, {duration(seconds)}, of it {duration(validating)} for {validations} "
        "validations",
        "disk": f"{size / 1e6:.1f} MB per checkpoint, {KEPT} kept",
    }


def flops(state: TrainingState, crop: int, channels: int, target_channels: int) -> int:
    """Count the floating-point operations of loss and gradient of one crop, a multiplication and an addition each."""
    function = gradients.make(state.network, state.loss, 1)
    specs = [tf.TensorSpec((1, crop, crop, size)) for size in (channels, target_channels)]
    graph = tf.function(function).get_concrete_function(*specs).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    return int(tf.compat.v1.profiler.profile(graph, cmd="scope", options=options).total_float_ops)


def duration(seconds: float) -> str:
    """Say how long, in the largest unit of which it is more than one."""
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= 1.5 * size)
    return f"{seconds / (size or 1.0):.3g} {unit}"


def _timed(config, data, state, place, began, bytes_before):
    """Time a few steps as the run would do them, and a validation."""
    batches = functools.partial(data.batches, config.batch, 0, config.steps)
    feed = iter(place.distributed(lambda **part: batches(**part).repeat(), config.batch))

    def seconds_of_step():
        start = time.monotonic()
        state.train_on(*next(feed), tf.constant(False))
        float(state.loss_sum)  # waits for the device
        return time.monotonic() - start

    seconds_of_step()
    first = time.monotonic() - began
    for _ in range(WARM_UP_STEPS - 1):
        seconds_of_step()
    times = [seconds_of_step() for _ in range(MIN_STEPS)]
    # Every worker must do as many steps as the others: their number comes from the chief.
    more = max(int(MIN_SECONDS / statistics.median(times)) - MIN_STEPS, 0)
    more = int(place.gather([min(more, int(MAX_SECONDS / statistics.median(times)))])[0, 0])
    times += [seconds_of_step() for _ in range(more)]
    used = _peak_bytes(bytes_before)
    return Timing(len(times), statistics.median(times), first, used, _seconds_of_validation(config, data, state, place))


def _seconds_of_validation(config, data, state, place):
    if not place.is_chief:
        return 0.0
    validation = Validation(state.denoiser, data, config.validation_images, config.validation_crop)
    validation()
    start = time.monotonic()
    validation()
    return time.monotonic() - start


def _peak_bytes(before: int) -> int:
    """Return the most memory that a GPU used, or without one this process beyond `before`."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(tf.config.experimental.get_memory_info(gpu.name.removeprefix("/device:"))["peak"] for gpu in gpus)
    return max(memory.peak_bytes() - before, 0)
