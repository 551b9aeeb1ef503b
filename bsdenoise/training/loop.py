"""`train`: from a configuration to a trained denoiser in a run folder; continues a run that was interrupted.

In a cluster every worker runs this. All do the same steps; the chief alone validates and writes.
"""

import contextlib
import functools
import hashlib
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from bsdenoise import loading
from bsdenoise.config import TrainConfig
from bsdenoise.data.survey import Sample
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.export import DESCRIPTION_FILE, export_saved_model, next_version
from bsdenoise.network import blindness
from bsdenoise.training import distribution, preparation, starting_point, unknown_noise
from bsdenoise.training.checkpoints import Checkpoints
from bsdenoise.training.distribution import PeerLostError, Place
from bsdenoise.training.run_folder import CHANGEABLE, DENOISER, RunFolder, checkpoints_path, earlier_facts, plain
from bsdenoise.training.selection import Selection
from bsdenoise.training.step import BEST, EARLIER_BEST, TrainingState
from bsdenoise.training.watchdog import Watchdog

SECONDS_BETWEEN_LINES = 30  # where there is no terminal for a progress bar
MOST_SKIPPED_IN_A_ROW = 50  # steps without a finite loss, by which it will not come back
SECONDS_FOR_A_SHARED_FILE = 60  # after which a file that the chief sees should be seen everywhere


class TrainingDivergedError(ValueError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
        step: Steps done in all.
        finished: Whether that is the whole run.
        signal: Number of the signal that ended the call early; `None` if none did.
        score: Validation PSNR in dB of the denoiser, estimated as `Validation.score` says; `None` if it is withheld, or
            before the first validation.
        denoiser_path: Where the best denoiser is.
        place: The devices, and whether this process wrote the files, as one of a cluster does.
        summary: What summary.json says; empty for the workers that write nothing.
    """

    step: int
    finished: bool
    signal: int | None
    score: float | None
    denoiser_path: Path
    place: Place
    summary: dict[str, Any]


def train(config: TrainConfig, strategy: tf.distribute.Strategy | None = None) -> Outcome:
    """Train a denoiser, or go on where an earlier call with the same `out` stopped.

    Args:
        config: The run's flags.
        strategy: The devices, of this process alone; `None` lets `config.strategy` decide.

    Returns:
        How it ended. After SIGTERM or Ctrl-C, of this worker or another, everything is saved and `signal` is set.

    Raises:
        ValueError: If the source, the noise SPEC or the run folder cannot be used, or workers differ in them.
        TrainingDivergedError: If the loss turns to NaN; the last good checkpoint stays.
        PeerLostError: If another worker of the cluster is lost.
    """
    preparation.check(config)
    patience = 60.0 * config.stall_minutes
    watchdog = Watchdog(patience)
    place = Place(strategy) if strategy else distribution.join(config.strategy, config.communication, patience)
    with contextlib.ExitStack() as stack:
        if place.workers > 1:
            stack.enter_context(watchdog.watching())
        place.check_batch(config.batch)
        earlier = earlier_facts(config.out)
        if config.init is not None and earlier is None:
            loading.find(config.init)  # before a look at the images, which may take long
        say = tqdm.write if place.is_chief else lambda line: None
        data, sample = preparation.open_data(config, earlier, say, place)
        facts = preparation.facts(data, sample)
        preparation.warn_of_changes(earlier, facts, say)
        known = unknown_noise.known(config, data.measured)
        start = (
            starting_point.again(earlier["start"])
            if earlier and "start" in earlier
            else starting_point.load(known, data)
        )
        folder = stack.enter_context(contextlib.closing(RunFolder(config.out, config))) if place.is_chief else None
        state = TrainingState(known, data, place.strategy, start)
        checkpoints = Checkpoints(checkpoints_path(config.out), state.trackables(), {BEST: EARLIER_BEST})
        watchdog.progress()
        _restore(place, checkpoints, state, _agreed(config, facts, start))
        if folder is not None:
            folder.write_config(config, facts | {"start": start.facts()}, str(place))
            folder.forget_after(state.step)
            _announce(config, data, state, place)
        loop = _Loop(known, data, sample, state, place, watchdog, checkpoints, folder)
        received = loop.run()
        finished = state.step >= config.steps
        summary = {}
        if folder is not None:
            summary = loop.summary(finished)
            folder.write_summary(summary)
            if finished:
                _export(folder)
        place.part()
        return Outcome(state.step, finished, received, state.best_psnr, Path(config.out) / DENOISER, place, summary)


def _restore(place: Place, checkpoints: Checkpoints, state: TrainingState, agreed: dict[str, str]) -> None:
    """Restore the newest checkpoint that can be read, the same one on all workers.

    Raises:
        ValueError: If none can be read, or the workers would not train the same.
    """
    if place.is_chief:
        checkpoints.restore_newest()
    rows = place.gather([state.step, *(_number(text) for text in agreed.values())])
    for name, column in zip(agreed, rows.T[1:], strict=True):
        if (column != column[0]).any():
            raise ValueError(
                f"The workers of the cluster differ in {name}: worker {int(np.argmax(column != column[0]))} has not "
                "what worker 0 has. All need the same flags and the same files."
            )
    if not place.is_chief and rows[0, 0]:
        checkpoints.restore(int(rows[0, 0]), patience=SECONDS_FOR_A_SHARED_FILE)
    place.wait()  # nobody writes before everybody has read


def _agreed(config: TrainConfig, facts: dict, start: starting_point.Start) -> dict[str, str]:
    """Return what must be the same for all workers, by what it is called, as text."""
    flags = {name: value for name, value in plain(config).items() if name not in CHANGEABLE}
    changeable = {name: getattr(config, name) for name in ("images", "validate_every", "micro_batch", "recompute")}
    return {
        "their flags": json.dumps(flags | changeable),
        "the images of SOURCE": json.dumps(facts),
        "the model of --init": json.dumps(start.facts()),
    }


def _number(text: str) -> int:
    """Return a number that tells texts apart, an int64."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def _export(folder: RunFolder) -> None:
    """Export the best denoiser, unless that is what the newest version holds."""
    denoiser = keras.models.load_model(folder.denoiser_path)
    versions = folder.path / "export"
    version = next_version(versions)
    newest = versions / str(version - 1) / DESCRIPTION_FILE
    if newest.exists() and json.loads(newest.read_text())["training"] == denoiser.provenance:
        return
    export_saved_model(denoiser, versions / str(version))


class _Loop:
    """The loop over steps, and what happens every so many of them."""

    def __init__(self, config, data, sample: Sample, state, place, watchdog, checkpoints, folder):
        self.config = config
        self.data = data
        self.state = state
        self.place = place
        self.watchdog = watchdog
        self.checkpoints = checkpoints
        self.folder = folder  # None for all workers but the chief
        is_chief = folder is not None
        self.selection = Selection(config, data, state, folder, sample.full_scale) if is_chief else None
        self.began = (state.step, time.monotonic())
        self.last_checkpoint = time.monotonic()
        self.last_log = self.began
        self.last_line = 0.0
        self.last_skipped = state.num_skipped
        self.last_good = state.step

    def run(self) -> int | None:
        """Train to the end or to the first signal, whose number it gives."""
        with _signals() as received, _progress(self.config, self.state.step, self.folder is None) as bar:
            try:
                number = self._steps(received, bar)
            except tf.errors.OpError as error:
                if self.data.failure:
                    raise self.data.failure from None
                if self.place.workers > 1 and isinstance(error, distribution.LOST_PEER):
                    raise PeerLostError(f"at step {self.state.step}", error) from error
                raise
            if self.folder is not None:
                self._checkpoint(self.state.step)
        return number

    def _steps(self, received: list[int], bar: tqdm) -> int | None:
        config, state = self.config, self.state

        step = state.step
        if step == 0 and state.start.weights is not None and self.selection is not None:
            # What it starts from is the best so far: what is kept is never worse.
            self.selection.validate(0, self._require)
        stopping = None
        batches = functools.partial(self.data.batches, config.batch, step, config.steps)
        for shown, target in self.place.distributed(batches, config.batch):
            stopping_now = state.train_on(shown, target, tf.constant(bool(received)))
            step += 1
            self.watchdog.progress()
            bar.update(min(config.batch, config.images - bar.n))
            self._after(step, bar)
            if self.place.workers == 1:
                if received:
                    return received[0]
            # Of the step before, which is known by now; this one's may still be computed.
            elif stopping is not None and float(stopping) > 0:
                return received[0] if received else signal.SIGTERM
            stopping = stopping_now
        return received[0] if received else None

    def _after(self, step: int, bar: tqdm) -> None:
        last = step == self.config.steps
        if step % self.config.log_every == 0 or last:
            self._log(step, bar)
        if self.selection is None:
            return
        if step % self.config.validate_every == 0 or last:
            self.selection.validate(step, self._require)
        if last or time.monotonic() - self.last_checkpoint > 60.0 * self.config.checkpoint_minutes:
            self._checkpoint(step)

    def _log(self, step: int, bar: tqdm) -> None:
        """Read the loss, which waits for the device: so not at every step."""
        loss, skipped = self.state.take_loss(), self.state.num_skipped
        new = skipped - self.last_skipped
        is_good = np.isfinite(loss) and not (new and self.config.on_nan == "stop")
        if not is_good and self.config.on_nan == "skip" and step - self.last_good < MOST_SKIPPED_IN_A_ROW:
            return  # nothing to tell of steps that were all skipped; the next line counts them
        self._require(is_good, "The loss or its gradient is not a finite number", step)
        self.last_good, self.last_skipped = step, skipped
        before, then = self.last_log
        self.last_log = (step, time.monotonic())
        if self.folder is None:
            return
        values = {
            "images": step * self.config.batch,
            "loss": loss,
            "learning_rate": float(self.state.schedule(step - 1)),
            "images_per_second": (step - before) * self.config.batch / (self.last_log[1] - then),
            "skipped": skipped,
        }
        self.folder.log("train", step, values)
        if new:
            tqdm.write(f"step {step}: skipped {new} since the last line: loss or gradient was not finite")
        self._say(step, bar, values)

    def _say(self, step: int, bar: tqdm, values: dict[str, float]) -> None:
        """Show the newest numbers at the progress bar, or now and then as a line where there is no terminal."""
        loss, rate, speed = (values[name] for name in ("loss", "learning_rate", "images_per_second"))
        bar.set_postfix(loss=f"{loss:.4f}", lr=f"{rate:.1e}", refresh=False)
        if bar.disable and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            left = (self.config.images - values["images"]) / speed / 60
            tqdm.write(
                f"step {step} of {self.config.steps}: loss {loss:.4f}, learning rate {rate:.1e}, "
                f"{speed:.1f} images/s, {left:.0f} minutes left"
            )

    def _checkpoint(self, step: int) -> None:
        # A finite loss is not enough: it was computed from the weights before the last update.
        self._require(self.state.is_finite(), "The weights are no longer finite", step)
        self.checkpoints.save(step)
        self.last_checkpoint = time.monotonic()

    def _require(self, good: bool, what: str, step: int) -> None:
        if not good:
            kept = self.checkpoints.latest() or "none was written yet"
            raise TrainingDivergedError(
                f"{what} at step {step}. Try a lower --learning-rate, --precision float32, or --on-nan skip. "
                f"Last good checkpoint: {kept}."
            )

    def summary(self, finished: bool) -> dict[str, Any]:
        """Return a short account of the run, and of this call of it where it says so."""
        assert self.selection is not None  # the chief alone tells
        first, then = self.began
        seconds, step, error = time.monotonic() - then, self.state.step, self.state.best_error
        return {
            "finished": finished,
            "steps": step,
            "images": step * self.config.batch,
            "epochs": round(step * self.config.batch / len(self.data.training), 3),
            "skipped_steps": self.state.num_skipped,
            "left_out_images": self.data.num_left_out,
            "best_score": self.state.best_psnr,
            "best_error": error if np.isfinite(error) else None,
            "score": self.selection.score,
            "this_call": {
                "from_step": first,
                "seconds": round(seconds, 1),
                "images_per_second": round((step - first) * self.config.batch / seconds, 3),
                "devices": str(self.place),
            },
        }


def _announce(config: TrainConfig, data: TrainingImages, state: TrainingState, place: Place) -> None:
    done = f", going on at step {state.step}" if state.step else ""
    tqdm.write(
        f"{place}, {config.precision}; {len(data.training)} images to train on, "
        f"{len(data.held_out)} held out; network of {state.network.count_params():,} parameters; "
        f"{config.steps} steps of {config.batch} crops{done}"
    )
    if state.start.provenance is not None:
        size = [f"{name} {value}" for name, value in state.start.size.items() if name != "channels"]
        wider = ", made wider" if config.grow else ""
        tqdm.write(f"started from {config.init}{wider}{': ' if size else ''}{', '.join(size)}")
        its, now = state.start.its_blind_spot, state.denoiser.blind_spot
        if its is not None and now is not None and its != now:
            words = blindness.in_words(now), blindness.in_words(its)
            tqdm.write(f"with a blind spot of {words[0]}, where {config.init} had {words[1]}: the weights are the same")
    if distribution.hint():
        tqdm.write(f"note: {distribution.hint()}")
    if not len(data.held_out):
        tqdm.write("note: too few images to hold any out; validation uses training images, so its PSNR is optimistic")


def _progress(config: TrainConfig, step: int, silent: bool) -> tqdm:
    return tqdm(
        total=config.images,
        initial=min(step * config.batch, config.images),
        unit="img",
        desc="training",
        smoothing=0.05,
        dynamic_ncols=True,
        disable=silent or None,  # None: no bar where stderr is no terminal
    )


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C, so that a step is finished and saved first; a second one ends at once."""
    received: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def remember(number, _):
        received.append(number)
        signal.signal(number, before[number])
        tqdm.write("stopping: finishing the step and saving …")

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, remember)
    except ValueError:
        pass  # not in the main thread: the caller looks after signals
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
