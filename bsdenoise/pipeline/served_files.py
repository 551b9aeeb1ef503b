"""Files denoised by a server: several at once, each in a thread of its own."""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from bsdenoise.parallel import in_order
from bsdenoise.pipeline.denoising_model import Model, joined, parts_of
from bsdenoise.pipeline.file_task import Collected, Task, Writes


def run(
    tasks: list[Task], model: Model, concurrency: int, advance: Callable[[Task, float], None], writes: Writes
) -> Iterator[Task]:
    """Denoise files.

    Args:
        tasks: The files.
        model: The served model.
        concurrency: How many are worked on at once.
        advance: Told of each image that is done, with its number of pixels, from any thread.
        writes: Encloses what is written.

    Yields:
        The files in their order, written, or with their `error`.
    """
    for task, future in in_order(functools.partial(_denoise, model, advance, writes), tasks, concurrency):
        error = future.exception()
        if error is not None:
            task.error = error
        yield task


def _denoise(model: Model, advance: Callable[[Task, float], None], writes: Writes, task: Task) -> None:
    """Read, denoise and write one file, image by image."""
    with task.job.opened() as file:
        task.note(file)
        model.check_file(file)
        task.take_units(model.units_of(file))
        collected = Collected(task.job, file, task.units)
        found: list[np.ndarray] = []
        for index in range(len(file)):
            noisy = parts_of(model.pixels(file.read(index), file, task.units), model.channels)
            parts = [model.denoise(part[np.newaxis], task.full_scale, task.offset) for part in noisy]
            if index == 0 and model.looks_correlated(noisy):
                task.tell_correlation()
            found += [part.own_noise for part in parts if part.own_noise is not None]
            ratios = [part.ratios[0] for part in parts if part.ratios is not None]
            denoised = joined(np.concatenate([part.images for part in parts]))
            collected.place(index, denoised, joined(np.stack(ratios)) if ratios else None)
            advance(task, task.image_pixels)
        task.take_noise(model.parameters, found)
        if model.estimates_noise:
            task.tell_noise(model.greatest)
        task.tell_gaps(collected.gaps)
        collected.write(writes)
