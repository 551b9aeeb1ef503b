"""The run folder: configuration, log lines, TensorBoard events and sample pictures."""

import dataclasses
import fcntl
import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bsdenoise import atomic, images
from bsdenoise.config import TrainConfig
from bsdenoise.images import results
from bsdenoise.network import blindness
from bsdenoise.noise.spec import UNKNOWN
from bsdenoise.training import checkpoints, own_network
from bsdenoise.training.starting_point import PAPER_SIZE

# What may differ when a run goes on: how long it lasts, how it is watched, how much memory it takes, and who computes.
CHANGEABLE = (
    *("images", "out", "validate_every", "checkpoint_minutes", "micro_batch", "recompute"),
    *("strategy", "communication", "workers", "restarts", "stall_minutes", "on_nan", "dry_run"),
)
DENOISER = "denoiser.keras"
_CHECKPOINTS = "checkpoints"
# What decides about pixels, order or arithmetic.
_PACKAGES = ("bsdenoise", "tensorflow", "keras", "numpy", "pillow", "tifffile", "imagecodecs", "zarr", "array-record")


class RunFolder:
    """Everything that a training run leaves on disk.

    Args:
        path: The folder; made if missing.
        config: The run's flags.

    Raises:
        ValueError: If the folder holds a run with other flags, or is no folder.
    """

    def __init__(self, path: Path, config: TrainConfig):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{path}: is a file; --out names a folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        try:
            self._check_same_run(config)
        except BaseException:
            os.close(self._lock)
            raise
        self.denoiser_path = self.path / DENOISER
        self._log_path = self.path / "log.jsonl"
        self._events = tf.summary.create_file_writer(str(self.path / "tensorboard"))

    def _locked(self) -> int:
        """Keep a second training out for as long as the folder stays open; the system closes it after a crash."""
        lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ValueError(f"{self.path}: another training writes there at this moment.") from None
        except OSError:  # a file system without locks
            pass
        return lock

    def write_config(self, config: TrainConfig, facts: dict[str, Any], devices: str) -> None:
        """Write all that is needed to do the run again: flags with their seed, data, package versions, machine."""
        content = {
            "config": plain(config),
            "facts": facts,
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
            "machine": {"devices": devices, "processor": platform.machine(), "system": platform.system()},
        }
        self._write_json("config.json", content)

    def write_summary(self, content: dict[str, Any]) -> None:
        """Write a short account of the run, summary.json."""
        self._write_json("summary.json", content)

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        with atomic.replacing(self.path / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

    def _check_same_run(self, config: TrainConfig) -> None:
        content = _earlier_run(self.path)
        if content is None:
            return
        # Flags that did not exist when the run began had the effect that their defaults have.
        before, now = _defaults() | content["config"], plain(config)
        for name, size in PAPER_SIZE.items():  # flags left out, which runs begun before wrote as these
            if now[name] is None and before[name] == size:
                before[name] = None
        changed = [name for name in now if name not in CHANGEABLE and before.get(name) != now[name]]
        if changed:
            details = ", ".join(f"{name} was {before.get(name)!r}, now {now[name]!r}" for name in changed)
            raise ValueError(f"{self.path} holds a run with other flags ({details}). Give another --out.")

    def forget_after(self, step: int) -> None:
        """Drop log lines of steps that will be done again after a restart at `step`."""
        if not self._log_path.exists():
            return
        lines = []
        for line in self._log_path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    lines.append(line + "\n")
            except ValueError:
                continue  # a line cut off by a crash
        with atomic.replacing(self._log_path) as temporary:
            temporary.write_text("".join(lines))

    def log(self, kind: str, step: int, values: dict[str, float | None]) -> None:
        """Append one line to log.jsonl, and the same numbers to TensorBoard; `None` is null there and nothing here."""
        line = json.dumps({"kind": kind, "step": step} | values, allow_nan=False)
        with self._log_path.open("a") as file:
            file.write(line + "\n")
        with self._events.as_default():
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(f"{kind}/{name}", value, step=step)
        self._events.flush()

    def save_sample(self, step: int, noisy: np.ndarray, moments: Sequence[np.ndarray], sigma: float) -> None:
        """Write one picture: noisy, mean, denoised and uncertainty side by side, as far as there are such."""
        picture = sample_picture(noisy, moments, sigma)
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        path = folder / f"{step:08d}.png"
        results.Lists().add(path)  # lest a later training takes it for an image
        images.write(path, picture)
        with self._events.as_default():
            tf.summary.image("sample", picture[np.newaxis], step=step)

    def save_denoiser(self, denoiser) -> None:
        """Write denoiser.keras, whole or not at all."""
        with atomic.replacing(self.denoiser_path) as temporary:
            denoiser.save(temporary)

    def close(self) -> None:
        """Write out what is left of the TensorBoard events, and let others write to the folder."""
        self._events.close()
        os.close(self._lock)


def earlier_facts(path: Path) -> dict[str, Any] | None:
    """Return what a run that goes on found out about its data when it began; `None` if there is no such run.

    Raises:
        ValueError: If the folder holds checkpoints without a readable configuration.
    """
    content = _earlier_run(Path(path))
    return None if content is None else content.get("facts", {})


def sample_picture(noisy: np.ndarray, moments: Sequence[np.ndarray], sigma: float) -> np.ndarray:
    """Join images to one uint8 picture: noisy, mean, denoised and uncertainty; without a posterior noisy and denoised.

    Uncertainty is the posterior standard deviation over σ, averaged over channels: white where nothing was gained.

    Args:
        noisy: (H, W, C).
        moments: Denoised, mean and posterior variance, (H, W, C) each; or denoised alone.
        sigma: Noise standard deviation.

    Returns:
        (H, 4W, 1 or 3), or (H, 2W, 1 or 3).
    """
    shown = 3 if noisy.shape[-1] == 3 else 1
    denoised, *rest = moments
    panels = [image[..., :shown] for image in (noisy, *rest[:1], denoised)]
    if rest:
        std = np.sqrt(np.maximum(rest[1], 0.0))
        panels.append(np.repeat(np.mean(std, axis=-1, keepdims=True) / sigma, shown, axis=-1))
    return images.from_unit(np.concatenate(panels, axis=1), np.uint8)


def checkpoints_path(path: Path) -> Path:
    """Return the folder of the checkpoints of a run folder."""
    return Path(path) / _CHECKPOINTS


def _earlier_run(path: Path) -> dict[str, Any] | None:
    """Read config.json of a folder with checkpoints; without, nothing was trained yet that other flags could spoil."""
    if not checkpoints.steps(checkpoints_path(path)):
        return None
    file = path / "config.json"
    if not file.exists():
        raise ValueError(f"{path} holds checkpoints but no config.json. Give another --out.")
    try:
        content = json.loads(file.read_text())
        if not isinstance(content["config"], dict):
            raise ValueError("no flags in it")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a readable run configuration ({error}).") from error
    return content


def plain(config: TrainConfig) -> dict[str, Any]:
    """Return a configuration as JSON holds it."""
    named = dataclasses.asdict(config) | {"network": own_network.name_of(config.network)}
    if config.noise is None:
        named["noise"] = UNKNOWN
    if config.blind_spot not in (None, blindness.AUTO):  # 3 is 3x3
        named["blind_spot"] = blindness.in_words(blindness.of_flag(config.blind_spot))
    return json.loads(json.dumps(named, default=str))


def _defaults() -> dict[str, Any]:
    """Return the flags that have defaults, with them, as JSON holds them."""
    fields = dataclasses.fields(TrainConfig)
    return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
