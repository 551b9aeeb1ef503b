"""Which image files a file name, a folder or a glob names."""

import dataclasses
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bsdenoise.images import results
from bsdenoise.images.files import SUFFIXES, suffix_list
from bsdenoise.images.formats import ome_zarr, zarr_store
from bsdenoise.images.formats.left_out import LeftOut, unreadable_kind
from bsdenoise.images.formats.zarr_store import is_store

PREPARED_INDEX = "bsdenoise-index.npz"  # in folders that `bsdenoise prepare` wrote; `data.shards` says what is in it


@dataclasses.dataclass(frozen=True)
class Content:
    """What is directly in a folder, hidden files left out.

    Attributes:
        names: Image files and Zarr stores, sorted.
        results: Those that are results of this package, sorted; they are not among `names`.
        kinds: Number of image files that cannot be read, by suffix.
    """

    names: list[str]
    results: list[str]
    kinds: Counter[str]


def find(source: str | Path, say: Callable[[str], object] | None = None) -> list[Path]:
    """List the image files that a file name, a folder (searched recursively) or a glob names.

    Hidden files and folders below a folder are skipped, and so are in a folder or a glob files of other kinds, and
    results of this package among other images. Where there is nothing but results, they are what is meant.

    Args:
        source: File, folder, or glob such as "scans/**/*.png".
        say: Called with a line on each sort of files that are left out.

    Returns:
        The files, sorted; at least one.

    Raises:
        ValueError: If nothing is there, or nothing of a supported kind.
    """
    path = Path(source)
    if not str(source):
        raise ValueError("The name of a file, a folder or a glob is empty.")  # else it would mean the current folder
    if is_store(path):
        return _images_of_store(path)
    if (path / PREPARED_INDEX).is_file():
        raise ValueError(
            f"{path}: holds images that `bsdenoise prepare` packed for training. Expected image files, such as those "
            "that they were made of."
        )
    left_out = LeftOut()
    if path.is_dir():
        found, its_results = _in_folder(path, left_out)
    elif path.exists():
        if not is_supported(path):
            raise ValueError(f"{path}: not an image file that can be read. Expected one of {suffix_list()}.")
        return [path]
    elif glob.has_magic(str(source)):
        found, its_results = _in_glob(str(source), left_out)
    else:
        raise ValueError(f"{source}: no such file or folder.")
    if not found and not its_results:
        there = f" It holds {left_out.kinds_in_words()}." if left_out.kinds else ""
        raise ValueError(f"{source}: no image found there. Expected files ending in one of {suffix_list()}.{there}")
    lines = left_out.notes(source)
    if not found:
        left_out.results = 0
        lines = [f"{source}: holds nothing but results of bsdenoise, so they are taken", *left_out.notes(source)]
    for line in lines:
        if say is not None:
            say(line)
    return sorted(image for file in found or its_results for image in _images_of_file(file))


def _in_folder(folder: Path, left_out: LeftOut) -> tuple[list[Path], list[Path]]:
    """Return image files, and results, below a folder; count what is left out."""
    found: list[Path] = []
    its_results: list[Path] = []
    for parent, _, content in walk(folder):
        found += [Path(parent, name) for name in content.names]
        its_results += [Path(parent, name) for name in content.results]
        left_out.add(len(content.results), content.kinds)
    return found, its_results


def _in_glob(pattern: str, left_out: LeftOut) -> tuple[list[Path], list[Path]]:
    """Return image files, and results, that a glob names; count what is left out."""
    files = _match(pattern)
    found = [file for file in files if is_supported(file) or is_store(file)]
    its_results = results.among(found)
    left_out.add(len(its_results), Counter(filter(None, (unreadable_kind(file.name) for file in files))))
    return [file for file in found if file not in its_results], list(its_results)


def base_of(source: str | Path) -> Path:
    """Return the folder below which the files of a source stand: itself, its folder, or a glob up to its wildcards."""
    path = Path(source)
    if path.is_file() or is_store(path):
        return path.parent
    if path.is_dir():
        return path
    plain = 0
    while plain < len(path.parts) - 1 and not glob.has_magic(path.parts[plain]):
        plain += 1
    return Path(*path.parts[:plain])


def is_supported(path: str | Path) -> bool:
    """Tell from its suffix, in either case, whether a file is of a supported kind."""
    return Path(path).suffix.lower() in SUFFIXES


def store_root(path: Path) -> Path | None:
    """Find the store that an image, or an array of one, is in: itself or a folder above; `None` for a file.

    A folder above belongs to it that has a store's name, or that is a store by its files and so are all between.
    """
    if not is_store(path):
        return None
    whole = Path(os.path.abspath(path))
    named = [parent for parent in (whole, *whole.parents) if _has_store_name(parent)]
    root = named[-1] if named else whole
    while not named and is_store(root.parent):
        root = root.parent
    depth = len(whole.parts) - len(root.parts)
    if depth >= len(path.parts) or ".." in path.parts:
        return root
    return path.parents[depth - 1] if depth else path  # as it was written


def _images_of_file(path: Path) -> list[Path]:
    """List the images of a store, of which a plate and some layouts hold several; all else is one."""
    return _images_of_store(path) if is_store(path) else [path]


def _images_of_store(path: Path) -> list[Path]:
    try:
        names = ome_zarr.image_names(path)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):  # to be named when it is opened
        names = []
    return [path / name for name in names] if len(names) > 1 else [path]


def _match(pattern: str) -> list[Path]:
    """List the files and stores that a glob names; of what is in a store only images, and those if it names no more."""
    names = list(map(Path, glob.iglob(pattern, recursive=True)))
    stores = {name for name in names if is_store(name) and (_has_store_name(name) or ome_zarr.has_images(name))}
    outer = [name for name in stores if stores.isdisjoint(name.parents)]
    known: dict[Path, bool] = {}  # a folder may be above a million files

    def is_inside(path: Path) -> bool:
        return any(
            known[above] if above in known else known.setdefault(above, is_store(above)) for above in path.parents
        )

    found = [name for name in names if name not in stores and name.is_file() and not is_inside(name)]
    return [*found, *outer]


def _has_store_name(path: Path) -> bool:
    return path.suffix.lower() == zarr_store.SUFFIX


def list_folder(folder: str) -> tuple[list[str], Content]:
    """List what is directly in a folder, without looking at any image.

    Returns:
        Names of the sub-folders to be searched, sorted, hidden ones left out; and the content.

    Raises:
        OSError: If the folder cannot be listed.
    """
    folders, names = [], []
    kinds: Counter[str] = Counter()
    has_list = False
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                has_list |= name == results.LIST
                continue
            if _is_folder(entry) and not name.lower().endswith(zarr_store.SUFFIX):
                folders.append(name)
            elif name.lower().endswith(SUFFIXES):
                names.append(name)
            elif kind := unreadable_kind(name):
                kinds[kind] += 1
    its_results = _results_among(names, results.listed_in(folder) if has_list else frozenset())
    if its_results:
        names = [name for name in names if name not in its_results]
    return sorted(folders), Content(sorted(names), sorted(its_results), kinds)


def _results_among(names: list[str], listed: frozenset[str]) -> set[str]:
    """Find the results among the images of a folder; quick where there is none among a million."""
    candidates = [name for name in names if name.startswith(results.DENOISED)]
    if not candidates and not listed:
        return set()
    there = set(names)
    return there & listed | {name for name in candidates if results.is_named_so(name, there.__contains__)}


def walk(
    folder: str | Path, lister: Callable[[str], tuple[list[str], Any]] = list_folder
) -> Iterator[tuple[str, list[str], Any]]:
    """List a folder and all below, each once however many links lead there.

    Args:
        folder: Where to begin.
        lister: Lists one folder as `list_folder` does; what it gives beside the sub-folders is passed on.

    Yields:
        Path of a folder, names of the sub-folders that will follow, and the rest of what `lister` gives.

    Raises:
        OSError: If a folder cannot be listed.
    """
    seen = {os.path.realpath(folder)}  # links may lead in a circle
    rest = [str(folder)]
    while rest:
        parent = rest.pop()
        names, content = lister(parent)
        new = []
        for name in names:
            target = os.path.realpath(os.path.join(parent, name))
            if target not in seen:
                seen.add(target)
                new.append(name)
        yield parent, new, content
        rest += [os.path.join(parent, name) for name in reversed(new)]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle: no folder, as `os.walk` has it
        return False
