"""Trains the blind-spot network with plain Keras `compile` and `fit`, on JAX, PyTorch or TensorFlow.

TensorFlow need not be installed. Clean 8-bit images come from `.npy` files, go to the device as they are, and noise is
added there. The run is kept in small files and goes on from them, so it may be cut into as many calls as needed:

    KERAS_BACKEND=jax python examples/fit_any_backend.py --images crops.npy --out run --noise gaussian:25 --minutes 9

Call it again with the same `--out` until it says "finished". `--init rgb-gaussian25` begins with a preset's weights
in place of random ones. The folder then holds `denoiser.keras`, which
`keras.models.load_model` reads on any backend after `import bsdenoise`.
"""

import argparse
import io
import json
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

STARTED = time.monotonic()  # before the slow imports: --minutes counts them

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402

import bsdenoise  # noqa: E402
from bsdenoise import loading  # noqa: E402
from bsdenoise import network as networks  # noqa: E402
from bsdenoise import noise as noise_models  # noqa: E402
from bsdenoise.methods import optimizers  # noqa: E402
from bsdenoise.training.schedule import RampUpDown  # noqa: E402

FULL_SCALE = 255
PART_BYTES = 15_000_000  # so that every file stays under 16 MB
PAPER_SIZE = {"width": 48, "depth": 5}
LEAVING_SHARE = 0.05  # of --minutes: kept back for the last steps under way and for saving
BATCHES_AHEAD = 16
SIGNAL_EXIT = 128  # shells report 128 + number for a process that a signal ended
SECONDS_BETWEEN_LINES = 15.0  # while the first step is compiled
ORDER, CROPS = 1, 2  # random streams: which images, and what is cut from them
MAY_CHANGE = ("images", "out", "minutes", "save_every_minutes", "log_every", "call_steps", "workers")


class Crops(keras.utils.PyDataset):
    """Endless batches of random crops, each a function of (seed, step) alone.

    Args:
        images: Image stacks, uint8 (N, H, W, C); each may have its own N, H and W.
        first_step: Step of the whole run at which this dataset begins.
        batch: Crops per step.
        crop: Side of the crops in pixels.
        seed: Seed of order and crops.
        augment: Whether crops are mirrored and turned at random.
        workers: Threads that cut crops ahead of time.
    """

    num_batches = None  # endless

    def __init__(self, images, first_step, batch, crop, seed, augment, workers):
        super().__init__(workers=1)  # in place of Keras' queue, the threads below: a batch depends on its number alone
        self._images = images
        self._ends = np.cumsum([len(stack) for stack in images])
        self._first_step, self._batch, self._crop = first_step, batch, crop
        self._seed, self._augment = seed, augment
        self._order = lru_cache(maxsize=2)(self._order)
        self._pool = ThreadPoolExecutor(workers)
        self._ahead = {}

    def __getitem__(self, index):
        """Gives the batch of step `first_step + index`, and has those that follow made meanwhile."""
        for soon in range(index, index + BATCHES_AHEAD):
            if soon not in self._ahead:
                self._ahead[soon] = self._pool.submit(self._make, self._first_step + soon)
        return (self._ahead.pop(index).result(),)

    def close(self):
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _order(self, epoch):
        """Gives the order of the images in a pass through all of them."""
        return np.random.default_rng((self._seed, ORDER, epoch)).permutation(self._ends[-1])

    def _make(self, step):
        """Cuts the crops of one step, uint8 (B, crop, crop, C)."""
        rng = np.random.default_rng((self._seed, CROPS, step))
        visits = (divmod(step * self._batch + slot, int(self._ends[-1])) for slot in range(self._batch))
        return np.stack([self._cut(self._order(epoch)[place], rng) for epoch, place in visits])

    def _cut(self, number, rng):
        stack = int(np.searchsorted(self._ends, number, side="right"))
        image = self._images[stack][number - self._ends[stack]]  # counted from the end of its stack: negative
        top, left = (int(rng.integers(side - self._crop + 1)) for side in image.shape[:2])
        crop = image[top : top + self._crop, left : left + self._crop]
        if self._augment:
            turns, mirror = int(rng.integers(4)), rng.random() < 0.5
            crop = np.rot90(crop[:, ::-1] if mirror else crop, turns)
        return crop


class NoisyTraining(keras.Model):
    """Adds noise to clean images on the device and scores the network's prediction of them.

    The clean images serve for nothing but to be made noisy: the loss compares with the noisy ones.

    Args:
        network: Blind-spot network.
        noise: Noise model, as fractions of full scale.
        factor: "prior" or "precision", as for `GaussianLikelihood`.
        seed: Seed of the noise.
    """

    def __init__(self, network, noise, factor, seed):
        super().__init__(dtype="float32")
        self.network, self.noise = network, noise
        self.likelihood = bsdenoise.GaussianLikelihood(network.input_shape[-1], factor)
        self.noise_seed = keras.random.SeedGenerator(seed)
        self.built = True  # the network is

    def call(self, clean):
        """Gives the network's outputs for uint8 images (B, H, W, C) made noisy, and adds the loss."""
        clean = ops.cast(clean, "float32") / FULL_SCALE
        sigma = ops.full((ops.shape(clean)[0],), self.noise.low, dtype="float32")
        if not self.noise.is_known:
            sigma = keras.random.uniform(ops.shape(sigma), self.noise.low, self.noise.high, seed=self.noise_seed)
        normal = keras.random.normal(ops.shape(clean), dtype="float32", seed=self.noise_seed)
        noisy = clean + sigma[:, None, None, None] * normal
        outputs = self.network(noisy)
        self.add_loss(ops.mean(self.likelihood.nll(outputs, noisy, sigma)))
        return outputs


class Starting:
    """Says that the first step is compiled, which may take minutes, and obeys SIGTERM and Ctrl-C meanwhile.

    Python handles no signal while compiled code is at work, so a thread of its own reads of them. It ends the process:
    nothing has been computed that is not on disk. Once the first step is done, the handlers of the run are enough.

    Args:
        what: What is compiled, for the lines that are printed.
    """

    def __init__(self, what):
        self.what = what
        self._began = time.monotonic()
        self._done = threading.Event()
        self._before = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        """Begins; the handlers of the signals must be set."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        print(f"compiling {self.what}; the first time this may take minutes", flush=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        """Ends the thread, whether the first step was done or not."""
        self.done(say=False)
        signal.set_wakeup_fd(self._before)
        os.write(self._writer, b"\0")  # no signal has this number: it wakes the thread
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def done(self, say=True):
        """Tells that the first step is done."""
        if not self._done.is_set():
            self._done.set()
            if say:
                print(f"compiled in {time.monotonic() - self._began:.0f} s", flush=True)

    def _watch(self):
        while not self._done.is_set():
            ready, _, _ = select.select([self._reader], [], [], SECONDS_BETWEEN_LINES)
            if self._done.is_set():
                return
            if not ready:
                print(f"still compiling, for {time.monotonic() - self._began:.0f} s", flush=True)
                continue
            number = os.read(self._reader, 1)[0]
            print("stopped before the first step of this call was done; what was saved before is whole", flush=True)
            os._exit(SIGNAL_EXIT + number)


class Run(keras.callbacks.Callback):
    """Keeps a run in a folder: logs, saves, stops in time, and goes on from what was saved.

    `state.json` names the files that belong together and is replaced last, so a run that is killed at any moment
    goes on from the last complete state.

    Args:
        training: The compiled model.
        denoiser: The float32 `Denoiser` that is written for use; its provenance lacks the number of crops.
        args: The command line.
        facts: What else must be the same when the run goes on, such as the number of images.
        starting: Told when the first step is done; `None` if nobody wants to know.

    Raises:
        ValueError: If the folder holds a run with other arguments.
    """

    def __init__(self, training, denoiser, args, facts, starting=None):
        super().__init__()
        self.starting = starting
        self.training, self.denoiser, self.args = training, denoiser, args
        self.folder = Path(args.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {name: value for name, value in vars(args).items() if name not in MAY_CHANGE}
        self.state = {"step": 0, "arguments": settings | facts, "files": [], "history": []}
        self.interrupted = False
        if (self.folder / "state.json").exists():
            self._restore()
        self.step = self.state["step"]
        self.last_step = min(args.steps, self.step + (args.call_steps or args.steps))
        self._saved_at = time.monotonic()

    @property
    def finished(self):
        """Whether all steps are done."""
        return self.step >= self.args.steps

    def interrupt(self, *_):
        """Has the run saved and left after the step under way; a signal handler."""
        self.interrupted = True

    def on_train_batch_begin(self, batch, logs=None):
        """Counts, and makes the step that begins the last one if it is time."""
        # Not at the end of the step: that would make Keras wait for the device at every step.
        if self.starting is not None and self.step > self.state["step"]:
            self.starting.done()
        self.step += 1
        if self.step >= self.last_step or self.interrupted or self._time_is_up():
            self.model.stop_training = True

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the time."""
        self._began, self._began_step = time.monotonic(), self.step

    def on_epoch_end(self, epoch, logs=None):
        """Logs one line, and saves if it is time."""
        if self.starting is not None:
            self.starting.done()
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            saved = self.state["step"]
            raise ValueError(f"The loss is {loss} at step {self.step}; step {saved} is saved. Try a lower rate.")
        now = time.monotonic()
        speed = (self.step - self._began_step) * self.args.batch / (now - self._began)
        rate = float(self.training.optimizer.learning_rate)
        self.state["history"].append({"step": self.step, "loss": loss, "images_per_second": round(speed, 2)})
        progress = f"step {self.step}/{self.args.steps}  loss {loss:.5f}  {speed:.1f} images/s  rate {rate:.2e}"
        print(f"{progress}  {(now - STARTED) / 60:.1f} min", flush=True)
        if self.model.stop_training or time.monotonic() - self._saved_at >= 60 * self.args.save_every_minutes:
            self.save()

    def save(self):
        """Writes weights, optimizer and noise seed in parts, the denoiser, and last of all `state.json`."""
        buffer = io.BytesIO()
        np.savez(buffer, **{f"{i:04d}": ops.convert_to_numpy(v) for i, v in enumerate(self._variables())})
        data = buffer.getbuffer()
        starts = range(0, len(data), PART_BYTES)
        names = [f"state-{self.step:08d}-{part}.npz.part" for part in range(len(starts))]
        for name, start in zip(names, starts, strict=True):
            self._write(name, data[start : start + PART_BYTES])
        self._write_denoiser()
        self.state |= {"step": self.step, "files": names, "variables": [v.path for v in self._variables()]}
        self._write("state.json", json.dumps(self.state).encode())
        for path in self.folder.glob("state-*.npz.part"):
            if path.name not in names:
                path.unlink()
        self._saved_at = time.monotonic()
        print(f"saved step {self.step} in {self.folder}", flush=True)

    def _restore(self):
        state = json.loads((self.folder / "state.json").read_text())
        before, now = state["arguments"], self.state["arguments"]
        changed = ", ".join(
            f"{key} was {before.get(key)!r}, now {now[key]!r}" for key in now if now[key] != before.get(key)
        )
        if changed:
            raise ValueError(f"{self.folder} holds a run with other arguments ({changed}). Give another --out.")
        data = b"".join((self.folder / name).read_bytes() for name in state["files"])
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for variable, name in zip(self._variables(), sorted(arrays.files), strict=True):
                variable.assign(arrays[name])
        self.state = state
        print(f"goes on from step {state['step']}", flush=True)

    def _variables(self):
        """Lists everything that the run depends on, always in the same order."""
        training = self.training
        return [*training.trainable_variables, training.noise_seed.state, *training.optimizer.variables]

    def _write_denoiser(self):
        """Writes the denoiser, with averaged weights if an average is kept."""
        network = self.training.network
        weights = network.get_weights()
        self.training.optimizer.finalize_variable_values(self.training.trainable_variables)
        self.denoiser.network.set_weights(network.get_weights())
        network.set_weights(weights)
        self.denoiser.provenance = (self.denoiser.provenance or {}) | {"crops": self.step * self.args.batch}
        temporary = self.folder / ".denoiser.tmp.keras"
        self.denoiser.save(temporary)
        os.replace(temporary, self.folder / "denoiser.keras")

    def _write(self, name, data):
        temporary = self.folder / f".{name}.tmp"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / name)

    def _time_is_up(self):
        minutes = self.args.minutes
        return minutes is not None and time.monotonic() - STARTED > 60 * minutes * (1 - LEAVING_SHARE)


def load_images(paths: Sequence[str], crop: int) -> list[np.ndarray]:
    """Opens image stacks without reading them into memory.

    Args:
        paths: `.npy` files, or folders of them, uint8 (N, H, W, C) or (N, H, W).
        crop: Least side that is accepted.

    Raises:
        ValueError: If there is none, or one has another type, shape or number of channels.
    """
    files = [file for path in map(Path, paths) for file in (sorted(path.glob("*.npy")) if path.is_dir() else [path])]
    if not files:
        raise ValueError(f"No .npy file in {', '.join(paths)}.")
    stacks = []
    for file in files:
        stack = np.load(file, mmap_mode="r", allow_pickle=False)
        stack = stack[..., None] if stack.ndim == 3 else stack
        if stack.dtype != np.uint8 or stack.ndim != 4 or 0 in stack.shape or min(stack.shape[1:3]) < crop:
            raise ValueError(
                f"{file}: must hold uint8 images (N, H, W, C) with sides of at least the crop, {crop}. "
                f"Received: {stack.dtype} {stack.shape}."
            )
        stacks.append(stack)
    if len({stack.shape[-1] for stack in stacks}) > 1:
        raise ValueError(f"All images must have as many channels. Received: {[stack.shape[-1] for stack in stacks]}.")
    return stacks


def _count(text):
    """Reads a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {value}.")
    return value


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--images", nargs="+", required=True, help=".npy files, or folders of them: clean uint8 (N, H, W[, C])")
    add("--out", required=True, help="folder of the run; it goes on if there is one")
    add("--noise", required=True, help="gaussian:25 (grey levels), or gaussian:5-50 (drawn per image)")
    add("--steps", type=_count, default=300_000, help="steps of the whole run")
    add("--batch", type=_count, default=4, help="crops per step")
    add("--crop", type=_count, default=256, help="side of the crops in pixels")
    add("--augment", action="store_true", help="mirror and turn the crops at random")
    add("--init", help="trained model to begin with: a .keras file, a run folder or a preset; default: random weights")
    add("--width", type=_count, help="maps per encoder convolution; default: 48, or that of --init")
    add("--depth", type=_count, help="how often the resolution is halved; default: 5, or that of --init")
    add("--factor", choices=("prior", "precision"), default="prior", help="what the triangular factor stands for")
    add("--precision", choices=("float32", "mixed_bfloat16"), default="float32", help="arithmetic of the body")
    add("--optimizer", choices=("adam", "muon"), default="adam", help="what turns gradients into steps")
    add("--learning-rate", type=float, default=3e-4, help="rate between the ramps")
    add("--ramp-up", type=float, default=0.1, help="fraction of the run in which the rate rises")
    add("--ramp-down", type=float, default=0.3, help="fraction of the run in which it falls")
    add("--beta-2", type=float, default=0.99, help="Adam's decay of squared gradients")
    add("--ema", type=float, default=0.999, help="decay of the averaged weights that are kept for use; 0 for none")
    add("--seed", type=int, default=0, help="seed of weights, order, crops and noise")
    add("--minutes", type=float, help="leave in time to have ended after so many minutes")
    add("--call-steps", type=_count, help="leave after so many steps")
    add("--save-every-minutes", type=float, default=2.0, help="minutes between saves")
    add("--log-every", type=_count, default=100, help="steps between lines of the log")
    add("--workers", type=_count, default=4, help="threads that cut crops")
    return parser.parse_args(argv)


def load_start(args: argparse.Namespace, channels: int) -> bsdenoise.Denoiser | None:
    """Loads the model of `--init`, if there is one.

    Raises:
        ValueError: If it cannot be loaded, or is another kind of model than the command line makes.
    """
    if args.init is None:
        return None
    start = loading.load(args.init)
    its = start.network
    if start.method.name != "full" or not isinstance(its, networks.BlindSpotUNet) or its.pooling != "max":
        raise ValueError(f"--init {args.init}: not a blind-spot network with the likelihood of this training.")
    its = its.sizes | {"factor": start.factor}
    wanted = {"channels": channels, "width": args.width, "depth": args.depth, "factor": args.factor}
    for name, value in wanted.items():
        if value is not None and value != its[name]:
            raise ValueError(
                f"--init {args.init}: a model of {name} {its[name]} cannot begin a training of {name} {value}."
            )
    return start


def provenance(args: argparse.Namespace, num_images: int, start: bsdenoise.Denoiser | None) -> dict:
    """Says how the denoiser is trained, as `bsdenoise train` says it; the number of crops is added when it is saved."""
    return {
        "method": "full",
        "images": num_images,
        "noise": args.noise,
        "corrupt": "fresh",
        "pairs": False,
        "crop": args.crop,
        "optimizer": args.optimizer,
        "started_from": start and (start.provenance or {}),
        "precision": args.precision,
        "seed": args.seed,
        "backend": keras.backend.backend(),
        "date": time.strftime("%Y-%m-%d"),
        "package": f"bsdenoise {bsdenoise.__version__}",
    }


def fit(args: argparse.Namespace) -> bsdenoise.Denoiser:
    """Trains, from the beginning or from where an earlier call stopped.

    Returns:
        The denoiser as it was saved last.
    """
    images = load_images(args.images, args.crop)
    channels = images[0].shape[-1]
    noise = noise_models.parse(args.noise, FULL_SCALE)
    num_images = sum(map(len, images))
    keras.utils.set_random_seed(args.seed)
    start = load_start(args, channels)
    its = start.network.sizes if start else PAPER_SIZE
    size = {"channels": channels, "width": args.width or its["width"], "depth": args.depth or its["depth"]}
    denoiser = bsdenoise.Denoiser(
        bsdenoise.blind_spot_network(**size, dtype="float32"),
        noise,
        factor=args.factor,
        provenance=provenance(args, num_images, start),
    )
    training = NoisyTraining(bsdenoise.blind_spot_network(**size, dtype=args.precision), noise, args.factor, args.seed)
    if start:
        training.network.set_weights(start.network.get_weights())
    rate = RampUpDown(args.learning_rate, args.steps, args.ramp_up, args.ramp_down)
    average = {"use_ema": True, "ema_momentum": args.ema} if args.ema else {}
    training.compile(optimizers.make(args.optimizer, rate, args.beta_2, **average))
    training.optimizer.build(training.trainable_variables)

    starting = Starting(f"the step for {keras.backend.backend()}, {args.batch} crops of {args.crop}×{args.crop}")
    run = Run(training, denoiser, args, {"num_images": num_images}, starting)
    if run.finished:
        print(f"finished: {run.folder / 'denoiser.keras'}")
        return keras.models.load_model(run.folder / "denoiser.keras")
    crops = Crops(images, run.step, args.batch, args.crop, args.seed, args.augment, args.workers)
    epochs = -(-(run.last_step - run.step) // args.log_every)
    handlers = {number: signal.signal(number, run.interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with starting:
            training.fit(
                crops, steps_per_epoch=args.log_every, epochs=epochs, shuffle=False, verbose=0, callbacks=[run]
            )
    finally:
        crops.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    print(f"finished: {run.folder / 'denoiser.keras'}" if run.finished else "not finished: call it again", flush=True)
    return denoiser


def main() -> int:
    """Runs the command line."""
    try:
        fit(parse())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
