"""Which files are results of this package, so that none of them is taken for a noisy image later.

A result beside its input is told by its name: denoised-NAME where NAME is. Everywhere else results are listed, by
folder, in a hidden file of the folder that holds them, one name in a line. Neither needs a look into an image, so that
folders of a million files are still searched in a second; both survive copying a folder.
"""

import contextlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

DENOISED = "denoised-"  # before the name of an input; so endings such as .ome.tif stay
STD = "-std"  # before the suffix of a result: its uncertainty
LIST = ".bsdenoise-results"


def std_name(name: str, suffix: str | None = None) -> str:
    """Name the uncertainty of a result: NAME-std with its suffix, or with another one after the whole name.

    Args:
        name: Name of the result.
        suffix: Suffix of another format; `None` for the same.
    """
    stem, own = os.path.splitext(name)
    return f"{stem}{STD}{own}" if suffix is None else f"{name}{STD}{suffix}"


def is_named_so(name: str, is_there: Callable[[str], bool]) -> bool:
    """Tell from its name whether a file is a result, or the uncertainty of one, that stands beside its input.

    Args:
        name: The file's name.
        is_there: Whether a file of some name is in its folder.
    """
    if not name.startswith(DENOISED):
        return False
    rest = name.removeprefix(DENOISED)
    if is_there(rest):
        return True
    stem, suffix = os.path.splitext(rest)
    of = stem.removesuffix(STD)
    return of != stem and (is_there(f"{of}{suffix}") or is_there(of))


def listed_in(folder: str | Path) -> frozenset[str]:
    """Read which files of a folder are listed as results; a line that cannot be read names none."""
    names = []
    with contextlib.suppress(OSError), open(os.path.join(folder, LIST), encoding="ascii", errors="replace") as lines:
        for line in lines:
            with contextlib.suppress(ValueError):
                names.append(json.loads(line))
    return frozenset(name for name in names if isinstance(name, str))


def among(paths: Iterable[Path]) -> set[Path]:
    """Find the results among files of any folders."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        folders[path.parent].append(path)
    found: set[Path] = set()
    for folder, members in folders.items():
        listed = listed_in(folder)

        def is_there(name: str, folder: Path = folder) -> bool:
            return (folder / name).exists()

        found.update(path for path in members if path.name in listed or is_named_so(path.name, is_there))
    return found


class Lists:
    """Lists results in their folders. Threads may share it."""

    def __init__(self) -> None:
        self._known: dict[Path, set[str]] = {}
        self._lock = threading.Lock()

    def add(self, path: Path) -> None:
        """List a result, which is about to be written.

        Before, not after: a folder that is read in between lacks the file, and never takes it for another one. Where
        the list cannot be written, as one that belongs to somebody else, there is none, and the result is worth more.

        Args:
            path: The file or store; its folder exists.
        """
        with self._lock, contextlib.suppress(OSError):
            known = self._known.setdefault(path.parent, set(listed_in(path.parent)))
            if path.name not in known:
                # Other processes may list theirs in the same folder: a short line that is appended is not torn.
                with open(path.parent / LIST, "a", encoding="ascii") as file:
                    file.write(f"{json.dumps(path.name)}\n")
                known.add(path.name)
