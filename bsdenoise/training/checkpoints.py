"""The checkpoints of a run: the newest two, written whole or not at all, and the newest that can be read."""

import errno
import re
import shutil
import time
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from bsdenoise import atomic

KEPT = 2
SECONDS_BETWEEN_LOOKS = 0.5
_PREFIX = "ckpt"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # behind the name of a variable in TensorFlow's checkpoints
_DAMAGED = "damaged-"  # what cannot be read is kept under another name, for whoever wants to know why


class Checkpoints:
    """The checkpoints in a folder.

    What is on disk counts, not TensorFlow's list of it (the file `checkpoint`), which may be lost or older: it is
    written for other tools.

    Args:
        path: The folder.
        trackables: What a checkpoint holds, by name.
        replaced: Names of numbers of which earlier versions wrote another one under another name, and those names.
            Restored from such a checkpoint they are NaN: not known.
    """

    def __init__(self, path: Path, trackables: dict, replaced: dict[str, str] | None = None):
        self.path = path
        self._trackables = trackables
        self._replaced = replaced or {}
        self._checkpoint = tf.train.Checkpoint(**trackables)

    def latest(self) -> str | None:
        """Return the path of the newest one without its suffixes; `None` if there is none."""
        found = steps(self.path)
        return self._prefix(found[-1]) if found else None

    def restore_newest(self) -> None:
        """Restore the newest one that can be read; says so if it is not the newest of all.

        Raises:
            ValueError: If there are some and none of them can be read.
        """
        found = steps(self.path)
        first_error = None
        for step in reversed(found):
            try:
                self.restore(step)
            except ValueError as error:
                first_error = first_error or error
                continue
            if first_error is not None:
                tqdm.write(f"note: {first_error} Going on from step {step}, the one before.")
                self._put_aside([other for other in found if other > step])
            return
        if first_error is not None:
            raise first_error

    def restore(self, step: int, patience: float = 0.0) -> None:
        """Restore the one of a step.

        Args:
            step: The step.
            patience: For how many seconds to wait for it to appear, where another machine has written it.

        Raises:
            ValueError: If it cannot be read.
        """
        end = time.monotonic() + patience
        while step not in steps(self.path) and time.monotonic() < end:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        try:
            self._read(self._prefix(step))
        except Exception as error:  # a broken file gives errors of every type
            raise ValueError(f"{self._prefix(step)}: checkpoint cannot be read ({error}).") from error

    def _read(self, prefix: str) -> None:
        """Read a checkpoint, of this version or an earlier one."""
        held = {name.split("/")[0] for name, _ in tf.train.list_variables(prefix)}
        old = {new: name for new, name in self._replaced.items() if new not in held and name in held}
        if not old:
            self._checkpoint.read(prefix).assert_consumed()
            return
        ignored = {name: tf.Variable(tf.train.load_variable(prefix, f"{name}{_VALUE}")) for name in old.values()}
        kept = {name: value for name, value in self._trackables.items() if name not in old}
        tf.train.Checkpoint(**kept, **ignored).read(prefix).assert_consumed()
        for name in old:
            self._trackables[name].assign(tf.fill(self._trackables[name].shape, tf.cast(float("nan"), tf.float64)))

    def save(self, step: int) -> None:
        """Write the checkpoint of a step and remove the oldest, in this order.

        Raises:
            OSError: If it cannot be written; those before it stay.
        """
        if steps(self.path)[-1:] == [step]:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._checkpoint.write(self._prefix(step))
        except tf.errors.OpError as error:
            for leftover in self.path.glob(f"{_PREFIX}-{step}_temp*"):
                shutil.rmtree(leftover, ignore_errors=True)  # its space may be what others lack
            if isinstance(error, tf.errors.ResourceExhaustedError):
                raise OSError(errno.ENOSPC, "cannot be written: no space left on device", str(self.path)) from error
            raise OSError(f"{self._prefix(step)}: cannot be written ({_first_line(error)}).") from error
        self._rotate()

    def _rotate(self) -> None:
        """Remove all but the newest, and tell TensorFlow's own tools of those."""
        found = steps(self.path)
        kept = [f"{_PREFIX}-{step}" for step in found[-KEPT:]]
        lines = [("model_checkpoint_path", kept[-1]), *(("all_model_checkpoint_paths", name) for name in kept)]
        with atomic.replacing(self.path / "checkpoint") as temporary:
            temporary.write_text("".join(f'{key}: "{name}"\n' for key, name in lines))
        for step in found[:-KEPT]:
            # The index goes first: without it the rest does not count as a checkpoint.
            for file in sorted(self.path.glob(f"{_PREFIX}-{step}.*"), key=lambda file: file.suffix != ".index"):
                file.unlink(missing_ok=True)

    def _put_aside(self, damaged: list[int]) -> None:
        for step in damaged:
            for file in self.path.glob(f"{_PREFIX}-{step}.*"):
                file.rename(file.with_name(_DAMAGED + file.name))

    def _prefix(self, step: int) -> str:
        return str(self.path / f"{_PREFIX}-{step}")


def steps(path: Path) -> list[int]:
    """List the steps of which there is a checkpoint in a folder, the newest last."""
    found = (re.fullmatch(rf"{_PREFIX}-(\d+)\.index", file.name) for file in path.glob(f"{_PREFIX}-*.index"))
    return sorted(int(match[1]) for match in found if match)


def _first_line(error: tf.errors.OpError) -> str:
    return (error.message or str(error)).splitlines()[0]
