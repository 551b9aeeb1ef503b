"""`bsdenoise denoise`: image files in, denoised image files out."""

import itertools
import sys

from bsdenoise.cli import report, terminal
from bsdenoise.cli.denoise_progress import Progress
from bsdenoise.config import DenoiseConfig
from bsdenoise.images import missing
from bsdenoise.images.masks import Masks
from bsdenoise.parallel import in_order
from bsdenoise.pipeline import denoising_model, file_plan, local_files, served_files
from bsdenoise.pipeline.denoising_model import Model
from bsdenoise.pipeline.file_task import Task, Writes, surveyed

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
    denoising_model.check_flags(config)
    with terminal.status("looking for images"):
        jobs = file_plan.plan(
            config.inputs,
            config.out,
            std=config.std,
            overwrite=config.overwrite,
            axes=config.axes,
            no_data=missing.parse_no_data(config.no_data),
            masks=None if config.mask is None else Masks(config.mask),
            say=_note,
        )
    if config.mask is not None and not any(job.mask for job in jobs):
        raise ValueError(f"{config.mask}: holds no mask under the name of an input, such as {jobs[0].source.name}.")
    is_default = config.model is None and config.server is None
    named = None if is_default else denoising_model.load(config)
    with terminal.status("reading headers"):
        tasks = [future.result() for _, future in in_order(surveyed, jobs, SURVEYORS)]
    groups = _by_default(config, tasks) if named is None else [(named, tasks)]
    sigmas = _Sigmas()
    num_failed = 0
    writes = Writes(local_files.WRITERS if config.server is None else config.concurrency)
    with Progress(tasks) as progress, writes.ended_with():
        for task in itertools.chain.from_iterable(
            local_files.Local(model, progress.advance, writes).run(its_tasks)
            if config.server is None
            else served_files.run(its_tasks, model, config.concurrency, progress.advance, writes)
            for model, its_tasks in groups
        ):
            with terminal.beside_bars():
                for line in task.lines:
                    print(line, file=sys.stderr)
                if task.error is not None:  # one bad file must not stop the others
                    num_failed += 1
                    report(task.error, where=task.job.source)
            sigmas.add(task)
            progress.end(task)
    print(f"{len(jobs) - num_failed} written, {num_failed} failed{sigmas.describe(groups[0][0])}", file=sys.stderr)
    return EXIT_SOME_FAILED if num_failed else 0


def _note(line: str) -> None:
    with terminal.beside_bars():
        print(f"bsdenoise: note: {line}", file=sys.stderr)


def _by_default(config: DenoiseConfig, tasks: list[Task]) -> list[tuple[Model, list[Task]]]:
    """Loads the presets that files of these kinds need where no model is named; gives each with its files."""
    readable = [task for task in tasks if task.shape is not None] or tasks
    groups: dict[int, list[Task]] = {}
    for task in tasks:
        alike = task if task.shape is not None else readable[0]  # it will fail, with whatever model
        groups.setdefault(denoising_model.default_channels(alike.joint_channels), []).append(task)
    return [(denoising_model.load_default(config, channels), groups[channels]) for channels in sorted(groups)]


class _Sigmas:
    """Which σ was used where none was given, by kind of file, as each has units of its own."""

    def __init__(self) -> None:
        self._own: dict[str, tuple[Task, list[float]]] = {}

    def add(self, task: Task) -> None:
        """Counts a file that is done."""
        if task.sigmas:
            self._own.setdefault(task.kind, (task, []))[1].extend(task.sigmas)

    def describe(self, model: Model) -> str:
        """Says which it was."""
        words = {kind: task.in_words(sigmas) for kind, (task, sigmas) in sorted(self._own.items())}
        if not words:
            return ""
        (first, *more) = words.values()
        sigma = "; ".join(f"{sigma} in {kind} files" for kind, sigma in words.items()) if more else first
        origin = "estimated per image" if model.estimates_sigma else "the model's own"
        return f"; sigma {sigma} ({origin})"
