"""Noisy files in, what noise they have out: each by itself, and all together."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bsdenoise import images
from bsdenoise.config import InspectConfig, flags
from bsdenoise.images import missing
from bsdenoise.images.masks import Masks
from bsdenoise.inspection import collection, commands
from bsdenoise.inspection.fixed_pattern import Shared
from bsdenoise.inspection.measuring import Measured, measure
from bsdenoise.inspection.records import InspectedFile, Inspection
from bsdenoise.pipeline import file_plan


def inspect_files(
    inputs: str | Path | Sequence[str | Path],
    *,
    sample: int = 24,
    axes: str | None = None,
    no_data: float | str | None = None,
    mask: str | Path | None = None,
    report: Callable[[InspectedFile], object] = lambda file: None,
    say: Callable[[str], object] = lambda line: None,
) -> Inspection:
    """Find out what noise image files, folders and globs have, as `bsdenoise inspect` does.

    The kind of noise is the one that `denoise_files` takes it for where no model is named. One bad file does not stop
    the others: its `error` says what is wrong.

    Args:
        inputs: Image files, folders (searched recursively) or globs; of a Zarr store also an image in it.
        sample: Most files that are looked at, spread evenly over all.
        axes: Letters of the axes of arrays without names, such as "TZYX".
        no_data: Value of pixels that hold no measurement, in the files' own units; `None` takes what files declare.
        mask: A mask image for all inputs, or a folder with masks under their names.
        report: Called with each file as soon as it was looked at.
        say: Called with a line on whatever there is to know of the whole work.

    Returns:
        What was found, in the units of the files; `as_dict()` gives the JSON document.

    Raises:
        ValueError: If there is nothing to look at: no input, or one that is missing.

    Example:
        >>> found = bsdenoise.inspect_files("scans")  # doctest: +SKIP
        >>> found.collection.verdict, found.collection.gain.value  # doctest: +SKIP
        ('signal-dependent', 3.4)
    """
    config = InspectConfig(
        inputs=tuple(map(str, [inputs] if isinstance(inputs, (str, Path)) else inputs)),
        sample=sample,
        axes=axes,
        no_data=None if no_data is None else str(no_data),
        mask=None if mask is None else str(mask),
    )
    flags.check(config)
    return inspected(config, report, say)


def inspected(
    config: InspectConfig,
    report: Callable[[InspectedFile], object] = lambda file: None,
    say: Callable[[str], object] = lambda line: None,
) -> Inspection:
    """Look at the files of a configuration; args, result and errors as for `inspect_files`."""
    if not config.inputs:
        raise ValueError("Expected at least one image file, folder or glob.")
    images.check_axes(config.axes)
    no_data = missing.parse_no_data(config.no_data)
    masks = None if config.mask is None else Masks(config.mask)
    found = _files(config.inputs, masks, say)
    places = np.unique(np.linspace(0, len(found) - 1, min(len(found), config.sample)).astype(int))
    files: list[InspectedFile] = []
    measured: list[Measured] = []
    pattern = Shared()
    for path, mask in (found[place] for place in places):
        try:
            one = measure(path, config.axes, no_data, mask)
        except (ValueError, OSError) as error:
            files.append(InspectedFile(path, error))
        else:
            if not measured or one.file.units == measured[0].file.units:
                pattern.add(one.plane, one.counts)
            measured.append(Measured(one.file, one.floors, np.empty(0), np.empty(0)))  # pixels are no longer needed
            files.append(one.file)
        report(files[-1])
    whole = collection.together(measured, pattern) if measured else None
    notes = [] if len(places) == len(found) else [f"looked at {len(places)} of {len(found)} files"]
    lines = commands.recommended(config, whole)
    return Inspection(config.inputs, tuple(files), len(found), whole, lines, tuple(notes))


def _files(inputs: Sequence[str], masks: Masks | None, say: Callable[[str], object]) -> list[tuple[Path, Path | None]]:
    """List the files that are named, each once, with their masks."""
    found: dict[Path, Path | None] = {}
    for source in file_plan.without_results(inputs, say):
        base = images.base_of(source)
        for path in images.find(source, say):
            below = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name
            found.setdefault(path, None if masks is None else masks.path(below) or masks.path(path.name))
    if masks is not None and not any(found.values()):
        raise ValueError(f"No mask is named after an input, such as {next(iter(found)).name}.")
    return list(found.items())
