"""`bsdenoise denoise`: image files in, denoised image files out."""

import contextlib
import itertools
import sys
import threading
from collections.abc import Iterator

from tqdm import tqdm

from bsdenoise import ignored
from bsdenoise.cli import denoise_local, denoise_model, denoise_served, paths, report
from bsdenoise.cli.denoise_model import Model
from bsdenoise.cli.denoise_task import Task, Writes, surveyed
from bsdenoise.client.many import in_order
from bsdenoise.config import DenoiseConfig
from bsdenoise.masks import Masks

EXIT_SOME_FAILED = 2
SURVEYORS = 4  # threads that read headers, which is mostly waiting for the disk


def run(config: DenoiseConfig) -> int:
    """Denoises all files of the configuration.

    Returns:
        0, or 2 if a file failed.

    Raises:
        ValueError: If nothing can be done at all: no input, clashing outputs, no model, or one that cannot do what is
            asked for.
        ClientError: If the server does not answer or has no such model.
    """
    if config.concurrency < 1:
        raise ValueError(f"--concurrency must be at least 1. Received: {config.concurrency}.")
    denoise_model.check_flags(config)
    jobs = paths.plan(
        config.inputs,
        config.out,
        std=config.std,
        overwrite=config.overwrite,
        axes=config.axes,
        no_data=ignored.parse_no_data(config.no_data),
        masks=None if config.mask is None else Masks(config.mask),
    )
    if config.mask is not None and not any(job.mask for job in jobs):
        raise ValueError(f"{config.mask}: holds no mask under the name of an input, such as {jobs[0].source.name}.")
    is_default = config.model is None and config.server is None
    named = None if is_default else denoise_model.load(config)
    tasks = [future.result() for _, future in in_order(surveyed, jobs, SURVEYORS)]
    groups = _by_default(config, tasks) if named is None else [(named, tasks)]
    sigmas = _Sigmas()
    num_failed = 0
    writes = Writes(denoise_local.WRITERS if config.server is None else config.concurrency)
    with _Progress(tasks, may_stream=config.server is None) as progress, writes.ended_with():
        for task in itertools.chain.from_iterable(
            denoise_local.Local(model, progress.advance, writes).run(its_tasks)
            if config.server is None
            else denoise_served.run(its_tasks, model, config.concurrency, progress.advance, writes)
            for model, its_tasks in groups
        ):
            with _beside_the_bar():
                for line in task.lines:
                    print(line, file=sys.stderr)
                if task.error is not None:  # one bad file must not stop the others
                    num_failed += 1
                    report(task.error, where=task.job.source)
            sigmas.add(task)
            progress.end(task)
    print(f"{len(jobs) - num_failed} written, {num_failed} failed{sigmas.describe(groups[0][0])}", file=sys.stderr)
    return EXIT_SOME_FAILED if num_failed else 0


def _by_default(config: DenoiseConfig, tasks: list[Task]) -> list[tuple[Model, list[Task]]]:
    """Loads the presets that files of these kinds need where no model is named; gives each with its files."""
    readable = [task for task in tasks if task.shape is not None] or tasks
    groups: dict[int, list[Task]] = {}
    for task in tasks:
        alike = task if task.shape is not None else readable[0]  # it will fail, with whatever model
        groups.setdefault(denoise_model.default_channels(alike.joint_channels), []).append(task)
    return [(denoise_model.load_default(config, channels), groups[channels]) for channels in sorted(groups)]


class _Progress:
    """A progress bar that counts images, or pixels if there are files so large that an image takes long.

    Args:
        tasks: All files.
        may_stream: Whether large files are worked on in windows.
    """

    def __init__(self, tasks: list[Task], may_stream: bool):
        self._counts_pixels = may_stream and any(task.is_large for task in tasks)
        self._totals = {task: task.count * self._images(task, task.image_pixels) for task in tasks}
        self._lock = threading.Lock()

    def __enter__(self) -> "_Progress":
        units = {"unit": "px", "unit_scale": True} if self._counts_pixels else {"unit": "image"}
        # `disable=None` hides the bar where stderr is no terminal, so that logs stay readable.
        self._bar = tqdm(total=sum(self._totals.values()), file=sys.stderr, disable=None, **units)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, task: Task, pixels: int) -> None:
        """Counts an image, or a window of one; in any thread."""
        with self._lock:
            amount = self._images(task, pixels)
            task.done += amount
            self._bar.update(amount)

    def end(self, task: Task) -> None:
        """Counts what a broken file lacks."""
        with self._lock:
            self._bar.update(self._totals[task] - task.done)

    def _images(self, task: Task, pixels: int) -> int:
        return pixels if self._counts_pixels else 1


class _Sigmas:
    """Which σ was used where none was given."""

    def __init__(self) -> None:
        self._own: list[float] = []
        self._float_seen = False

    def add(self, task: Task) -> None:
        """Counts a file that is done."""
        self._own += task.sigmas
        self._float_seen |= bool(task.sigmas) and task.is_float

    def describe(self, model: Model) -> str:
        """Says which it was, in the notation that `--sigma` takes."""
        if not self._own:
            return ""
        low, high = (
            f"{value:.4g}" if self._float_seen else f"{255 * value:.4g}/255"
            for value in (min(self._own), max(self._own))
        )
        origin = "estimated per image" if model.estimates_sigma else "the model's own"
        return f"; sigma {low} ({origin})" if low == high else f"; sigma {low} to {high} ({origin})"


@contextlib.contextmanager
def _beside_the_bar() -> Iterator[None]:
    """Takes the progress bar away while something else is printed."""
    with tqdm.external_write_mode(file=sys.stderr):
        yield
