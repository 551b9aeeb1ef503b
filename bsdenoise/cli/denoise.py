"""`bsdenoise denoise`: image files in, denoised image files out."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from bsdenoise import progress
from bsdenoise.cli import libraries, models, report, terminal
from bsdenoise.cli.denoise_progress import Progress
from bsdenoise.config import DenoiseConfig
from bsdenoise.pipeline import run as pipeline
from bsdenoise.pipeline.file_task import Task, in_words

EXIT_SOME_FAILED = 2


def run(config: DenoiseConfig) -> int:
    """Denoise all files of the configuration.

    Returns:
        0, or 2 if a file failed.

    Raises:
        ValueError: If nothing can be done at all: no input, clashing outputs, no model, or one that cannot do what is
            asked for.
        ClientError: If the server does not answer or has no such model.
    """
    tasks = list(pipeline.denoised(config, _Terminal(), models))
    num_failed = sum(task.error is not None for task in tasks)
    print(f"{len(tasks) - num_failed} written, {num_failed} failed{_noise_in_words(tasks)}", file=sys.stderr)
    return EXIT_SOME_FAILED if num_failed else 0


class _Terminal(pipeline.Watcher):
    """Shows bars, notes and errors."""

    def status(self, text: str) -> contextlib.AbstractContextManager[object]:
        return terminal.status(text)

    def note(self, line: str) -> None:
        with terminal.beside_bars():
            print(f"bsdenoise: note: {line}", file=sys.stderr)

    @contextlib.contextmanager
    def adapting(self, text: str) -> Iterator[Callable[[float], object]]:
        with libraries.graphs_of_gradients(), terminal.bar(text):
            done = 0.0

            def report(share: float) -> None:
                nonlocal done
                progress.advance(share - done)
                done = share

            yield report

    @contextlib.contextmanager
    def at_work(self, tasks: Sequence[Task]) -> Iterator[None]:
        with Progress(list(tasks)) as self._progress:
            yield

    def advance(self, task: Task, pixels: float) -> None:
        self._progress.advance(task, pixels)

    def end(self, task: Task) -> None:
        with terminal.beside_bars():
            for line in task.lines:
                print(line, file=sys.stderr)
            if task.error is not None:
                report(task.error, where=task.job.source)
        self._progress.end(task)


def _noise_in_words(tasks: list[Task]) -> str:
    """Say which noise was supposed where none was given, by kind of file, as each has units of its own."""
    kinds: dict[str, list[Task]] = {}
    for task in tasks:
        if task.thetas:
            kinds.setdefault(task.kind, []).append(task)
    if not kinds:
        return ""
    words = {
        kind: in_words(of[0].ranges([theta for task in of for theta in task.thetas]))
        for kind, of in sorted(kinds.items())
    }
    (first, *more) = words.values()
    noise = "; ".join(f"{text} in {kind} files" for kind, text in words.items()) if more else first
    origin = "estimated per image" if tasks[0].is_noise_estimated else "the model's own"
    return f"; {noise} ({origin})"
