"""`train`: from a configuration to a trained denoiser in a run folder; continues a run that was interrupted."""

import contextlib
import errno
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from bsdenoise.config import TrainConfig
from bsdenoise.data.crops import TrainingImages
from bsdenoise.export import DESCRIPTION_FILE, export_saved_model, next_version
from bsdenoise.training import preparation
from bsdenoise.training.distribution import choose_strategy, describe, hint
from bsdenoise.training.run_folder import RunFolder, earlier_facts
from bsdenoise.training.step import TrainingState
from bsdenoise.training.validation import Validation

KEPT_CHECKPOINTS = 2
SECONDS_BETWEEN_LINES = 30  # where there is no terminal for a progress bar


class TrainingDivergedError(ValueError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
        step: Steps done in all.
        finished: Whether that is the whole run.
        signal: Number of the signal that ended the call early; `None` if none did.
        score: Best validation PSNR in dB, estimated as `Validation.score` says; −inf before the first validation.
        denoiser_path: Where the best denoiser is.
    """

    step: int
    finished: bool
    signal: int | None
    score: float
    denoiser_path: Path


def train(config: TrainConfig, strategy: tf.distribute.Strategy | None = None) -> Outcome:
    """Trains a denoiser, or goes on where an earlier call with the same `out` stopped.

    Args:
        config: The run's flags.
        strategy: The devices; `None` takes all GPUs, or else the CPU.

    Returns:
        How it ended. After SIGTERM or Ctrl-C everything is saved and `signal` is set.

    Raises:
        ValueError: If the source, the noise SPEC or the run folder cannot be used.
        TrainingDivergedError: If the loss turns to NaN; the last good checkpoint stays.
    """
    preparation.check(config)
    data, sample = preparation.open_data(config, earlier_facts(config.out))
    strategy = strategy or choose_strategy()
    with contextlib.closing(RunFolder(config.out, config)) as folder:
        state = TrainingState(config, data, strategy)
        manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(**state.trackables()), str(folder.checkpoints_path), max_to_keep=KEPT_CHECKPOINTS
        )
        _restore(manager)
        folder.write_config(config, preparation.facts(data, sample))
        folder.forget_after(state.step)
        _announce(config, data, state, strategy)
        received = _Loop(config, data, state, folder, manager).run()
        finished = state.step >= config.steps
        if finished:
            _export(folder)
    return Outcome(state.step, finished, received, float(state.best_score), folder.denoiser_path)


def _export(folder: RunFolder) -> None:
    """Exports the best denoiser, unless that is what the newest version holds."""
    denoiser = keras.models.load_model(folder.denoiser_path)
    versions = folder.path / "export"
    version = next_version(versions)
    newest = versions / str(version - 1) / DESCRIPTION_FILE
    if newest.exists() and json.loads(newest.read_text())["training"] == denoiser.provenance:
        return
    export_saved_model(denoiser, versions / str(version))


class _Loop:
    """The loop over steps, and what happens every so many of them."""

    def __init__(self, config, data, state, folder, manager):
        self.config = config
        self.data = data
        self.state = state
        self.folder = folder
        self.manager = manager
        self.validation = Validation(state.denoiser, data, config.validation_images, config.validation_crop)
        self.last_checkpoint = time.monotonic()
        self.last_log = (state.step, time.monotonic())
        self.last_line = 0.0

    def run(self) -> int | None:
        """Trains to the end or to the first signal, whose number it gives."""
        config, state = self.config, self.state
        batches = self.data.batches(config.batch, state.step, config.steps)
        batches = state.strategy.experimental_distribute_dataset(batches)
        step = state.step
        with _signals() as received, _progress(config, step) as bar:
            try:
                for shown, target in batches:
                    state.train_on(shown, target)
                    step += 1
                    bar.update(min(config.batch, config.images - bar.n))
                    self._after(step, bar)
                    if received:
                        break
            except tf.errors.OpError as error:
                raise self.data.failure or error from None
            self._checkpoint(step)
        return received[0] if received else None

    def _after(self, step: int, bar: tqdm) -> None:
        last = step == self.config.steps
        if step % self.config.log_every == 0 or last:
            self._log(step, bar)
        if step % self.config.validate_every == 0 or last:
            self._validate(step)
        if last or time.monotonic() - self.last_checkpoint > 60.0 * self.config.checkpoint_minutes:
            self._checkpoint(step)

    def _log(self, step: int, bar: tqdm) -> None:
        """Reads the loss, which waits for the device: so not at every step."""
        loss = self.state.take_loss()
        self._require(np.isfinite(loss), f"The loss is {loss}", step)
        before, then = self.last_log
        self.last_log = (step, time.monotonic())
        values = {
            "images": step * self.config.batch,
            "loss": loss,
            "learning_rate": float(self.state.schedule(step - 1)),
            "images_per_second": (step - before) * self.config.batch / (self.last_log[1] - then),
        }
        self.folder.log("train", step, values)
        bar.set_postfix(loss=f"{loss:.4f}", lr=f"{values['learning_rate']:.1e}", refresh=False)
        if bar.disable and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            left = (self.config.images - values["images"]) / values["images_per_second"] / 60
            tqdm.write(
                f"step {step} of {self.config.steps}: loss {loss:.4f}, learning rate {values['learning_rate']:.1e}, "
                f"{values['images_per_second']:.1f} images/s, {left:.0f} minutes left"
            )

    def _validate(self, step: int) -> None:
        """Measures the averaged weights on held-out noisy images, and keeps them if they are the best so far."""
        values, moments = self.validation()
        self._require(np.isfinite(values["loss"]), f"The validation loss is {values['loss']}", step)
        self.folder.log("validation", step, values)
        first = self.validation.examples[0]
        self.folder.save_sample(step, first.noisy, moments, first.sigma)
        state, score = self.state, self.validation.score
        best = values[score] > float(state.best_score)
        if best:
            state.best_score.assign(values[score])
            state.denoiser.provenance = preparation.provenance(self.config, self.data, step, {score: values[score]})
            self.folder.save_denoiser(state.denoiser)
        text = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
        tqdm.write(f"step {step}: validation {text}{' (best)' if best else ''}")

    def _checkpoint(self, step: int) -> None:
        if not _is_at(self.manager, step):
            # A finite loss is not enough: it was computed from the weights before the last update.
            self._require(self.state.is_finite(), "The weights are no longer finite", step)
            try:
                self.manager.save(checkpoint_number=step)
            except tf.errors.ResourceExhaustedError as error:
                path = str(self.folder.checkpoints_path)
                raise OSError(errno.ENOSPC, "cannot be written: no space left on device", path) from error
        self.last_checkpoint = time.monotonic()

    def _require(self, good: bool, what: str, step: int) -> None:
        if not good:
            kept = self.manager.latest_checkpoint or "none was written yet"
            raise TrainingDivergedError(
                f"{what} at step {step}. Try a lower --learning-rate, or --precision float32. "
                f"Last good checkpoint: {kept}."
            )


def _announce(config: TrainConfig, data: TrainingImages, state: TrainingState, strategy) -> None:
    done = f", going on at step {state.step}" if state.step else ""
    tqdm.write(
        f"{describe(strategy)}, {config.precision}; {len(data.training)} images to train on, "
        f"{len(data.held_out)} held out; network of {state.network.count_params():,} parameters; "
        f"{config.steps} steps of {config.batch} crops{done}"
    )
    if hint():
        tqdm.write(f"note: {hint()}")
    if not len(data.held_out):
        tqdm.write("note: too few images to hold any out; validation uses training images, so its PSNR is optimistic")


def _restore(manager: tf.train.CheckpointManager) -> None:
    """Restores the newest checkpoint, if there is one."""
    if manager.latest_checkpoint:
        try:
            manager.checkpoint.restore(manager.latest_checkpoint).assert_consumed()
        except Exception as error:  # a broken file gives errors of every type
            raise ValueError(f"{manager.latest_checkpoint}: checkpoint cannot be read ({error}).") from error


def _is_at(manager: tf.train.CheckpointManager, step: int) -> bool:
    """Says whether the newest checkpoint is that of `step`."""
    return bool(manager.latest_checkpoint) and manager.latest_checkpoint.endswith(f"-{step}")


def _progress(config: TrainConfig, step: int) -> tqdm:
    return tqdm(
        total=config.images,
        initial=min(step * config.batch, config.images),
        unit="img",
        desc="training",
        smoothing=0.05,
        dynamic_ncols=True,
        disable=None,  # no bar where stderr is no terminal
    )


@contextlib.contextmanager
def _signals():
    """Collects SIGTERM and Ctrl-C, so that a step is finished and saved first; a second one ends at once."""
    received: list[int] = []
    before = {}

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
