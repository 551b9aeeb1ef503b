"""What becomes of a training when something breaks, for each fault that clusters know: really broken, then looked at.

Small trainings in processes of their own, two workers where the fault is about workers. Each is broken in the middle,
brought back as the documentation says, run to its end, and compared with a training that nobody disturbed.

    python -m benchmarks.faults
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import tyro

from benchmarks import cluster, machine
from benchmarks.cluster import Worker

STEPS, BATCH = 90, 12
BREAK_AT = 30  # step after which something is broken, or some steps later
SECONDS_TO_NOTICE = 30.0  # by which survivors must have ended; TensorFlow misses a heartbeat after 10


@dataclass(frozen=True)
class Config:
    """Breaks trainings, and shows what was lost."""

    only: tuple[str, ...] = ()
    """Names of faults; all if none is given."""


@dataclass(frozen=True)
class Seen:
    """What a fault did.

    Attributes:
        exit_codes: Of the processes, as far as they ended by themselves; negative after a signal.
        seconds: From the fault to the end of the last of them; `None` where nothing was to end.
        broken_at: Last step that was logged before.
        resumed_at: Step that the training went on from.
        deviation: Largest difference of any weight from the training that nobody disturbed, 0 being bit for bit;
            `None` where the fault takes part of the data away, so that it cannot be the same.
        repeated: Steps that the log has twice, and that it lacks.
        said: What was written to the terminal.
        summary: The run's summary.json.
    """

    exit_codes: tuple[int, ...]
    seconds: float | None
    broken_at: int
    resumed_at: int
    deviation: float | None
    repeated: int
    said: str
    summary: dict


@dataclass(frozen=True)
class Scene:
    """Images, and trainings on them that differ in nothing but their run folder.

    Attributes:
        folder: Where all is written.
        method: What is trained; by default the smallest network, since clusters do not care.
    """

    folder: Path
    method: str = "n2c"

    @classmethod
    def set_up(cls, folder: Path, method: str = method) -> "Scene":
        """Writes the images."""
        from bsdenoise import images

        source = folder / "images"
        source.mkdir()
        rows, columns = np.mgrid[:40, :44] / 9.0
        for number in range(8):
            waves = [np.sin(rows * 0.3 * (number + 1) + columns * shift) for shift in (0.2, 0.5, 0.9)]
            images.write(source / f"{number}.png", (128 + 90 * np.stack(waves, axis=-1)).astype("uint8"))
        return cls(folder, method)

    def run(self, name: str) -> Path:
        """Gives a run folder."""
        return self.folder / name

    def flags(self, name: str, *more: str, source: str = "images") -> list[str]:
        """Gives the command line of a training: a checkpoint about three times a second, a log line for every step."""
        flags = {
            "out": self.run(name),
            **{"noise": "gaussian:25", "corrupt": "fresh", "width": 4, "depth": 1, "crop": 32, "batch": BATCH},
            "method": self.method,
            **{"images": STEPS * BATCH, "learning-rate": 1e-3, "validate-every": 60, "log-every": 1},
            "checkpoint-minutes": 0.005,
        }
        pairs = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        return [str(self.folder / source), *pairs, *more]

    def undisturbed(self, workers: int = 1) -> Path:
        """Gives the run folder of a training that nobody disturbs; trained when it is first asked for."""
        name = f"undisturbed by {workers}"
        if not self.run(name).exists():
            end([Worker(self.flags(name))] if workers == 1 else cluster.start(workers, self.flags(name)), 0)
        return self.run(name)


def killed(scene: Scene, victim: int) -> Seen:
    """One of two workers is killed; the local supervisor starts both again."""
    name = f"killed {victim}"
    supervisor = Worker(scene.flags(name, "--workers", "2", "--restarts", "1"))
    broken_at = cluster.wait_for_step(scene.run(name), BREAK_AT, supervisor)
    workers = [child for child in psutil.Process(supervisor.process.pid).children() if "train" in child.cmdline()]
    workers.sort(key=lambda child: json.loads(child.environ()["TF_CONFIG"])["task"]["index"])
    survivor = workers[1 - victim]
    workers[victim].kill()
    start = time.monotonic()
    survivor.wait(SECONDS_TO_NOTICE)
    seconds = time.monotonic() - start
    code = supervisor.wait()
    return seen(scene, name, (code,), seconds, broken_at, supervisor.output(), scene.undisturbed(2))


def signalled(scene: Scene, victim: int, number: signal.Signals) -> Seen:
    """One of two workers gets a signal; when both have ended a single process goes on."""
    name = f"signal {number} to {victim}"
    workers = cluster.start(2, scene.flags(name))
    broken_at = cluster.wait_for_step(scene.run(name), BREAK_AT, workers[0])
    start = time.monotonic()
    workers[victim].signal(number)
    codes = tuple(worker.wait(SECONDS_TO_NOTICE) for worker in workers)
    seconds = time.monotonic() - start
    said = "".join(worker.output() for worker in workers)
    again = Worker(scene.flags(name))
    end([again], 0)
    return seen(scene, name, codes, seconds, broken_at, said + again.output(), scene.undisturbed(2))


def full_disk(scene: Scene) -> Seen:
    """The disk with the run folder fills up between two checkpoints: a small file system in a namespace of its own.

    Raises:
        PermissionError: If this system lets nobody mount file systems.
    """
    name = "full disk"
    run = scene.run(name)
    run.mkdir()
    mount = ["unshare", "--user", "--mount", "--map-root-user", "sh", "-ec"]
    if subprocess.run([*mount, f"mount -t tmpfs none '{run}'"], capture_output=True).returncode:
        raise PermissionError("this system lets nobody but root mount file systems")
    train = " ".join(f"'{word}'" for word in [sys.executable, "-m", "bsdenoise.cli", "train", *scene.flags(name)])
    script = f"""
        mount -t tmpfs -o size=4m none '{run}'
        {train} & training=$!
        until [ "$(ls '{run}'/checkpoints/ckpt-*.index 2>/dev/null | wc -l)" -ge 2 ]; do sleep 0.05; done
        head -c 4m /dev/zero > '{run}/fill' 2>/dev/null || true
        filled=$(date +%s.%N)
        wait $training && code=0 || code=$?
        echo "ended with $code, $filled, $(date +%s.%N) after $(tail -n 1 '{run}/log.jsonl')"
        rm '{run}/fill'
        {train}
        cp -r '{run}' '{run}.kept'
    """
    result = subprocess.run([*mount, script], capture_output=True, text=True, timeout=300)
    said = result.stdout + result.stderr
    if result.returncode:
        raise AssertionError(said)
    ended = next(line for line in said.splitlines() if line.startswith("ended with"))
    words, log_line = ended.removeprefix("ended with ").split(" after ")
    code, filled, over = map(float, words.split(","))
    run.rmdir()
    Path(f"{run}.kept").rename(run)
    broken_at = int(re.search(r'"step": (\d+)', log_line)[1])  # the disk was full: it may be cut short
    return seen(scene, name, (int(code),), over - filled, broken_at, said, scene.undisturbed())


def damaged_checkpoint(scene: Scene) -> Seen:
    """The newest checkpoint of a training that was killed is cut short."""
    name = "damaged checkpoint"
    training = Worker(scene.flags(name))
    folder = scene.run(name) / "checkpoints"
    while not _steps(folder)[1:] or _steps(folder)[-2] < BREAK_AT and training.process.poll() is None:
        time.sleep(cluster.SECONDS_BETWEEN_LOOKS)
    training.signal(signal.SIGKILL)
    code = training.wait()
    broken_at = cluster.logged(scene.run(name))[-1]["step"]
    (newest,) = folder.glob(f"ckpt-{_steps(folder)[-1]}.data*")
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    again = Worker(scene.flags(name))
    end([again], 0)
    return seen(scene, name, (code,), None, broken_at, again.output(), scene.undisturbed())


def same_folder(scene: Scene) -> Seen:
    """A second training is started with the run folder of one that is under way."""
    name = "same folder"
    first = Worker(scene.flags(name))
    broken_at = cluster.wait_for_step(scene.run(name), 1, first)
    start = time.monotonic()
    second = Worker(scene.flags(name))
    code = second.wait()
    seconds = time.monotonic() - start
    end([first], 0)
    return seen(scene, name, (code,), seconds, broken_at, second.output(), scene.undisturbed())


def stopped(scene: Scene) -> Seen:
    """One of two workers stands still, as if its machine were cut off; both are started again."""
    name = "stopped"
    workers = cluster.start(2, scene.flags(name))
    broken_at = cluster.wait_for_step(scene.run(name), BREAK_AT, workers[0])
    start = time.monotonic()
    workers[1].signal(signal.SIGSTOP)
    code = workers[0].wait(SECONDS_TO_NOTICE)
    seconds = time.monotonic() - start
    said = workers[0].output()
    workers[1].signal(signal.SIGKILL)
    workers[1].wait()
    end(cluster.start(2, scene.flags(name)), 0)
    return seen(scene, name, (code,), seconds, broken_at, said, scene.undisturbed(2))


def no_numbers(scene: Scene) -> Seen:
    """Some images hold a pixel so large that the loss of a crop is infinite; such steps are skipped."""
    name = "no numbers"
    stack = np.random.default_rng(0).normal(size=(8, 40, 44, 3)).astype("float32")
    stack[[2, 5, 7], 2, 3] = 1e30  # near a corner, so that few crops have it
    np.save(scene.folder / "stack.npy", stack)
    training = Worker(scene.flags(name, "--noise", "gaussian:0.5", "--on-nan", "skip", source="stack.npy"))
    end([training], 0)
    return seen(scene, name, (0,), None, 0, training.output(), None)


def vanished(scene: Scene) -> Seen:
    """Two of the images are deleted during the training."""
    name = "vanished"
    source = scene.folder / "vanishing"
    shutil.copytree(scene.folder / "images", source)
    training = Worker(scene.flags(name, source="vanishing"))
    broken_at = cluster.wait_for_step(scene.run(name), BREAK_AT, training)
    for number in (2, 5):
        (source / f"{number}.png").unlink()
    code = training.wait()
    return seen(scene, name, (code,), None, broken_at, training.output(), None)


FAULTS = {
    "worker killed (−9)": lambda scene: killed(scene, 1),
    "chief killed (−9)": lambda scene: killed(scene, 0),
    "SIGTERM to one of two workers": lambda scene: signalled(scene, 1, signal.SIGTERM),
    "worker stands still (SIGSTOP)": stopped,
    "disk full while saving": full_disk,
    "newest checkpoint cut short": damaged_checkpoint,
    "two trainings, one folder": same_folder,
    "loss that is no number": no_numbers,
    "images deleted during training": vanished,
}


def end(workers: list[Worker], expected: int) -> None:
    """Waits for the end of workers.

    Raises:
        AssertionError: If one of them ends with another exit code.
    """
    for worker in workers:
        if worker.wait() != expected:
            raise AssertionError(worker.output())


def seen(
    scene: Scene,
    name: str,
    codes: tuple[int, ...],
    seconds: float | None,
    broken_at: int,
    said: str,
    undisturbed: Path | None,
) -> Seen:
    """Looks at a finished run, and compares it with one that nobody disturbed."""
    run = scene.run(name)
    summary = json.loads((run / "summary.json").read_text())
    if not summary["finished"]:
        raise AssertionError(f"{run} was not finished")
    steps = [line["step"] for line in cluster.logged(run)]
    wrong = len(steps) - len(set(steps)) + STEPS - summary["skipped_steps"] - len(set(steps))
    deviation = largest_difference(run, undisturbed) if undisturbed else None
    return Seen(codes, seconds, broken_at, summary["this_call"]["from_step"], deviation, wrong, said, summary)


def largest_difference(one: Path, other: Path) -> float:
    """Gives the largest difference between the weights, and their averages, in the last checkpoints of two runs."""
    left, right = (_weights(run) for run in (one, other))
    if left.keys() != right.keys() or not left:
        raise AssertionError(f"{one} and {other} hold different things")
    return max(float(np.abs(left[name] - right[name]).max()) for name in left)


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("ckpt-*.index"))


def _weights(run: Path) -> dict[str, np.ndarray]:
    import tensorflow as tf

    path = tf.train.latest_checkpoint(str(run / "checkpoints"))
    names = [name for name, _ in tf.train.list_variables(path) if name.startswith(("network/", "average/"))]
    return {name: tf.train.load_variable(path, name) for name in names}


def main() -> None:
    """Prints a row per fault, and all as JSON."""
    config = tyro.cli(Config, description=__doc__)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene.set_up(Path(folder))
        print("| fault | exit codes | seconds to the end | last step before | went on at | deviation | wrong steps |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, fault in FAULTS.items():
            if config.only and name not in config.only:
                continue
            one = fault(scene)
            rows[name] = {key: value for key, value in vars(one).items() if key not in ("said", "summary")}
            codes = ", ".join(map(str, one.exit_codes))
            seconds = "–" if one.seconds is None else f"{one.seconds:.1f}"
            deviation = "–" if one.deviation is None else f"{one.deviation:.1e}"
            print(
                f"| {name} | {codes} | {seconds} | {one.broken_at} | {one.resumed_at} | {deviation} | {one.repeated} |",
                flush=True,
            )
    print(json.dumps({"faults": rows, "steps": STEPS, "machine": machine.describe()}))


if __name__ == "__main__":
    main()
