"""`bsdenoise inspect`: noisy images in, what noise they have out."""

import json
import os
import sys
from pathlib import Path

from bsdenoise import atomic, extras
from bsdenoise.cli import libraries, report, terminal
from bsdenoise.config import InspectConfig
from bsdenoise.images import results

EXIT_SOME_FAILED = 2
SUFFIX = ".png"


def run(config: InspectConfig) -> int:
    """Look at all files of the configuration, and say or draw what noise they have.

    Returns:
        0, or 2 if a file could not be looked at.

    Raises:
        ValueError: If there is nothing to look at, or the figure cannot be written.
        OSError: If the figure cannot be written.
    """
    if config.plot is not None:
        extras.check("bsdenoise inspect --plot")
        _check_plot(config.plot, config)
    with terminal.status("loading the libraries"):
        libraries.load_keras()  # before whatever imports it
    from bsdenoise.inspection import run as inspection
    from bsdenoise.inspection import words

    num_failed = 0

    def tell(file) -> None:  # type: ignore[no-untyped-def]  # an `InspectedFile`, which loads Keras
        nonlocal num_failed
        if file.error is not None:
            num_failed += 1
            with terminal.beside_bars():
                report(file.error, where=file.source)

    with terminal.status("looking at images"):
        found = inspection.inspected(config, tell, _note)
    if config.json:
        print(json.dumps(found.as_dict(), indent=1, allow_nan=False))
    elif found.readable:
        print(words.as_text(found))
    if config.plot is not None and found.readable:
        _draw(config.plot, found)
    return EXIT_SOME_FAILED if num_failed else 0


def _note(line: str) -> None:
    with terminal.beside_bars():
        print(f"bsdenoise: note: {line}", file=sys.stderr)


def _check_plot(path: Path, config: InspectConfig) -> None:
    """Refuse a figure that could not be written, before any work is done."""
    if path.suffix.lower() != SUFFIX:
        raise ValueError(f"{path}: --plot names a file that ends in {SUFFIX}.")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; a file of that name would be written.")
    if os.path.realpath(path) in {os.path.realpath(one) for one in config.inputs}:
        raise ValueError(f"{path}: the figure would replace an input.")
    if path.exists() and not config.overwrite:
        raise ValueError(f"{path}: exists already; --overwrite replaces it.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}.")


def _draw(path: Path, found) -> None:  # type: ignore[no-untyped-def]
    from bsdenoise.inspection import figure

    results.Lists().add(path)  # lest it is taken for an image
    with atomic.replacing(path) as temporary:
        figure.save(found, temporary)
    print(f"{path}: written", file=sys.stderr)
