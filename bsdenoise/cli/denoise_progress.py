"""How far `bsdenoise denoise` is: on a terminal, megapixels of all files and of a large one; in a log a line at times.

The time left follows from all that is done so far: parts of an image take unequal times.
"""

import sys
import threading
import time
from typing import Any

from tqdm import tqdm

from bsdenoise.pipeline.file_task import Task

OWN_BAR_PIXELS = 2**21  # of a file, all images of a stack together; smaller ones are done in seconds
SECONDS_BETWEEN_LINES = 30  # where there is no terminal
MEGAPIXEL = 1e6
# Pixels are counted with their thousands and millions (12.0Mpx).
_SHAPE: dict[str, Any] = {
    "unit": "px",
    "unit_scale": True,
    "smoothing": 0,
    "bar_format": "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]",
}


class Progress:
    """A bar for all files, and one below it for each file of megapixels while others wait. Threads may share it.

    Args:
        tasks: All files.
    """

    def __init__(self, tasks: list[Task]):
        self._tasks = tasks
        self._totals = {task: task.count * task.image_pixels for task in tasks}
        self._num_ended = 0
        self._own: tuple[Task, tqdm] | None = None
        self._last_line = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> "Progress":
        # `disable=None` hides a bar where stderr is no terminal.
        total = sum(self._totals.values())
        self._bar = tqdm(total=total, desc=self._name, disable=None, file=sys.stderr, **_SHAPE)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._show_own(None)
            self._bar.close()

    def advance(self, task: Task, pixels: float) -> None:
        """Count pixels of a file that are denoised; in any thread.

        Args:
            task: The file.
            pixels: How many more of its pixels are done.
        """
        with self._lock:
            amount = min(pixels, self._totals[task] - task.done)
            self._count(task, amount)
            if len(self._tasks) > 1 and self._totals[task] >= OWN_BAR_PIXELS:
                self._show_own(task)

    def end(self, task: Task) -> None:
        """Count a file that is over, with what is lacking of a broken one."""
        with self._lock:
            self._num_ended += 1
            if self._own is not None and self._own[0] is task:
                self._show_own(None)
            self._bar.set_description_str(self._name, refresh=False)
            self._count(task, self._totals[task] - task.done)
            self._bar.refresh()

    @property
    def _name(self) -> str:
        """Name what the bar counts."""
        if len(self._tasks) == 1:
            return self._tasks[0].job.source.name
        return f"{self._num_ended} of {len(self._tasks)} files"

    def _count(self, task: Task, amount: float) -> None:
        task.done += amount
        self._bar.update(amount)
        if self._own is not None and self._own[0] is task:
            self._own[1].update(amount)
        if self._bar.disable:
            self._say_at_times()

    def _say_at_times(self) -> None:
        """Write a line, if the last one was long ago and more are to come."""
        done, total = sum(task.done for task in self._tasks), sum(self._totals.values())
        if done >= total or time.monotonic() - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = time.monotonic()
        words = f"{done / MEGAPIXEL:.1f} of {total / MEGAPIXEL:.1f} megapixels are denoised"
        print(f"bsdenoise: note: {words}", file=sys.stderr, flush=True)

    def _show_own(self, task: Task | None) -> None:
        """Show the bar of a file in the place of another's, or take it away."""
        if self._bar.disable or (self._own is not None and self._own[0] is task):
            return
        if self._own is not None:
            self._own[1].close()
            self._own = None
        if task is not None and task.done < self._totals[task]:
            bar = tqdm(
                initial=task.done,
                total=self._totals[task],
                desc=task.job.source.name,
                leave=False,
                file=sys.stderr,
                **_SHAPE,
            )
            self._own = task, bar
