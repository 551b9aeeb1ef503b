"""The image files of a folder, and what is known of each, kept in the user's cache: the next time it opens in a second.

What is kept holds as long as no folder below changed: each folder has a stamp, and files are looked at again only where
it differs. A file that is rewritten in place changes no folder; then the index is out of date without knowing it.
"""

import bisect
import concurrent.futures
import hashlib
import itertools
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from bsdenoise import atomic, images

CACHE_VARIABLE = "BSDENOISE_CACHE"
FORMAT = 2
FEWEST_FILES = 1000  # below, an index is no quicker than looking
# A folder that changes twice within one tick of a clock keeps its stamp. Ticks of file systems are up to 2 s (FAT), and
# the clock of a server may be a little behind.
TICK_NS = 5 * 10**9
NAME_LENGTH = 32  # of index files: as many hexadecimal digits of a checksum
# Of one file: images that it holds, height and width of each, 0 where not known yet; and its bytes.
FACTS = np.dtype([("count", "<i4"), ("height", "<i4"), ("width", "<i4"), ("bytes", "<i8")])
UNKNOWN, MISSING = -1, -2  # bytes that were not asked for yet, and those of what is no file
THREADS = 8  # asking mostly waits for the disk
# Never opened to be counted. A file of another kind under such a name gives its first image.
SINGLE_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

Stamp = tuple[int, int, int]  # of a folder: when its list of files and when anything of it changed, and its inode
NO_STAMP = (0, 0, 0)


@dataclass(frozen=True)
class Listing:
    """One folder.

    Attributes:
        path: Its path relative to the source's base; "" for the base itself.
        names: Its image files, sorted, each ended by a zero byte.
        facts: What is known of each, (N,) of type `FACTS`.
        folders: All its sub-folders.
        stamp: What it will have again if nothing in it changed.
        results: Number of results of this package in it, which are not among `names`.
        kinds: Number of image files in it that cannot be read, by suffix.
    """

    path: str
    names: bytes
    facts: np.ndarray
    folders: list[str] = field(default_factory=list)
    stamp: Stamp = NO_STAMP
    results: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str, names: list[str], **known: Any) -> "Listing":
        """Make a listing of which nothing is known but names, and what else is given.

        Args:
            path: The folder, relative to the base of the index.
            names: Names of the files in it.
            **known: Further fields of the listing.
        """
        facts = np.zeros(len(names), FACTS)
        facts["count"] = [name.lower().endswith(SINGLE_IMAGE_SUFFIXES) for name in names]
        facts["bytes"] = UNKNOWN
        return cls(path, b"".join(os.fsencode(name) + b"\0" for name in names), facts, **known)


class FileIndex:
    """Image files, sorted as `images.find` does, and what is known of them.

    Args:
        base: The folder below which all are.
        listings: The folders.
        segments: Which files follow each other: number of the listing, first of its files, end of its files.
        cache: File that keeps the index, if one does.
        is_changed: Whether there is more to keep than the cache has.
    """

    def __init__(
        self,
        base: Path,
        listings: list[Listing],
        segments: list[tuple[int, int, int]],
        cache: Path | None = None,
        is_changed: bool = False,
    ):
        self.base = base
        self.listings = listings
        self.segments = [segment for segment in segments if segment[1] < segment[2]]
        self._starts = [0, *itertools.accumulate(stop - start for _, start, stop in self.segments)]
        self._ends = [np.flatnonzero(np.frombuffer(one.names, np.uint8) == 0).astype(np.int32) for one in listings]
        self._cache = cache
        self._is_changed = is_changed

    def __len__(self) -> int:
        """Number of files."""
        return self._starts[-1]

    @property
    def left_out(self) -> images.LeftOut:
        """What the search left out."""
        left_out = images.LeftOut()
        for one in self.listings:
            left_out.add(one.results, one.kinds)
        return left_out

    def name(self, number: int) -> str:
        """Return the path of a file relative to `base`."""
        listing, place = self._find(number)
        ends = self._ends[listing]
        start = ends[place - 1] + 1 if place else 0
        name = os.fsdecode(self.listings[listing].names[start : ends[place]])
        return f"{self.listings[listing].path}/{name}" if self.listings[listing].path else name

    def path(self, number: int) -> Path:
        """Return the path of a file."""
        return self.base / self.name(number)

    def facts(self, name: str) -> np.ndarray:
        """Return one of the fields of `FACTS` for all files, in their order."""
        parts = [self.listings[listing].facts[name][start:stop] for listing, start, stop in self.segments]
        return np.concatenate(parts)

    def fact(self, number: int, name: str) -> int:
        """Return one of the fields of `FACTS` for one file.

        Args:
            number: Number of the file.
            name: One of the fields.
        """
        listing, place = self._find(number)
        return int(self.listings[listing].facts[name][place])

    def learn(self, number: int, **facts: int) -> None:
        """Take down what was found out about a file. Safe in threads."""
        listing, place = self._find(number)
        for name, value in facts.items():
            self.listings[listing].facts[name][place] = value
        self._is_changed = True

    def measure_bytes(self) -> None:
        """Ask for the bytes of all files of which they are not known; those of a missing file are `MISSING`."""

        def measure(one: Listing) -> bool:
            unknown = one.facts["bytes"] == UNKNOWN
            if unknown.any():
                folder = os.path.join(os.fsencode(self.base / one.path), b"")
                names = itertools.compress(one.names.split(b"\0"), unknown)
                one.facts["bytes"][unknown] = [_num_bytes(folder + name) for name in names]
            return bool(unknown.any())

        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            self._is_changed |= any(list(pool.map(measure, self.listings)))

    def paths_in_bytes(self) -> Iterator[bytes]:
        """Return all relative paths in order, many at a time, each ended by a zero byte."""
        for listing, start, stop in self.segments:
            one, ends = self.listings[listing], self._ends[listing]
            part = one.names[ends[start - 1] + 1 if start else 0 : ends[stop - 1]]
            prefix = os.fsencode(f"{one.path}/") if one.path else b""
            yield prefix + part.replace(b"\0", b"\0" + prefix) + b"\0"

    def save(self) -> None:
        """Keep what was found out, for the next time; where that cannot be written, nothing happens."""
        if self._cache is None or not self._is_changed:
            return
        header = {
            "format": FORMAT,
            "folder": os.path.realpath(self.base),
            "folders": [
                [one.path, one.stamp, one.folders, one.results, one.kinds, len(one.facts), len(one.names)]
                for one in self.listings
            ],
        }
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            with atomic.replacing(self._cache) as temporary:
                np.savez(
                    temporary,
                    header=np.frombuffer(json.dumps(header).encode(), np.uint8),
                    names=np.frombuffer(b"".join(one.names for one in self.listings), np.uint8),
                    facts=np.concatenate([one.facts for one in self.listings]),
                )
        except OSError:  # an index saves time, and is nothing to fail for
            return
        self._is_changed = False

    def _find(self, number: int) -> tuple[int, int]:
        """Return the listing of a file, and its place there."""
        segment = bisect.bisect_right(self._starts, number) - 1
        listing, start, _ = self.segments[segment]
        return listing, start + number - self._starts[segment]


def of_files(paths: Iterable[Path], base: Path) -> FileIndex:
    """Make an index of files, in their order; it is not kept anywhere.

    Args:
        paths: The files, sorted as `images.find` does.
        base: The folder below which all are.
    """
    groups = itertools.groupby(paths, lambda path: path.parent)
    listings = []
    for parent, members in groups:
        below = parent.relative_to(base)
        listings.append(Listing.of("" if below == Path() else str(below), [path.name for path in members]))
    return FileIndex(base, listings, [(number, 0, len(one.facts)) for number, one in enumerate(listings)])


def of_folder(folder: Path, axes: str | None = None) -> FileIndex:
    """List the image files below a folder, the same as `images.find`; where nothing changed, from the cache.

    Results of this package are never among them: where `find` gives them for want of others, there are none here.

    Args:
        folder: The folder.
        axes: Letters of the axes with which arrays will be opened; what is known of them holds for the same only.

    Raises:
        OSError: If a folder cannot be listed.
    """
    cache = cache_file(folder, axes)
    known = _load(cache, folder)
    try:
        listings, is_changed = _scan(folder, known)
    except OSError:
        if not known:
            raise
        listings, is_changed = _scan(folder, {})  # what a link leads to may vanish, and no folder changes
    is_large = sum(len(one.facts) for one in listings) >= FEWEST_FILES
    return FileIndex(folder, listings, _sorted_segments(listings), cache if is_large else None, is_changed)


def cache_file(folder: Path, axes: str | None = None) -> Path:
    """Name the file that keeps the index of a folder, looked at with those axes.

    Args:
        folder: The folder.
        axes: Letters of the axes of arrays without names.
    """
    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_path("bsdenoise")
    name = os.path.realpath(folder) + (f"\0{axes.lower()}" if axes else "")
    checksum = hashlib.sha256(os.fsencode(name)).hexdigest()
    return Path(root, "index", f"{checksum[:NAME_LENGTH]}.npz")


def _num_bytes(path: bytes) -> int:
    """Return the bytes of a file; of a Zarr store those of the files at its top, which describe it."""
    try:
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size
        with os.scandir(path) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.is_file())
    except OSError:
        return MISSING


def _load(cache: Path, folder: Path) -> dict[str, Listing]:
    """Read what is kept of a folder; nothing if it is not there, damaged, or of another folder."""
    try:
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as content:
            header = json.loads(content["header"].tobytes())
            if header["format"] != FORMAT or header["folder"] != os.path.realpath(folder):
                return {}
            return _listings(header["folders"], content["names"].tobytes(), content["facts"])
    except Exception:  # whatever is in there: the folder itself can be asked
        return {}


def _listings(folders: list[Any], names: bytes, facts: np.ndarray) -> dict[str, Listing]:
    if facts.dtype != FACTS or len(facts) != names.count(b"\0"):
        return {}
    listings, first, start = {}, 0, 0
    for path, stamp, below, results, kinds, number, size in folders:
        part = names[start : start + size]
        if part.count(b"\0") != number:
            return {}
        listings[path] = Listing(path, part, facts[first : first + number], below, tuple(stamp), results, kinds)
        first, start = first + number, start + size
    return listings


def _scan(folder: Path, known: dict[str, Listing]) -> tuple[list[Listing], bool]:
    """List all folders, a folder before those below it; say whether one of them is not as it is known."""
    base, begin = str(folder), time.time_ns()
    is_changed = False

    def list_one(path: str) -> tuple[list[str], Listing]:
        nonlocal is_changed
        relative = os.path.relpath(path, base) if path != base else ""
        stamp = _stamp(path, begin)  # before it is listed: if it changes meanwhile, it is listed again the next time
        listing = known.get(relative)
        if listing is None or stamp == NO_STAMP or listing.stamp != stamp:
            is_changed = True
            folders, content = images.list_folder(path)
            counts = {"results": len(content.results), "kinds": dict(content.kinds)}
            listing = Listing.of(relative, content.names, folders=folders, stamp=stamp, **counts)
        return listing.folders, listing

    listings = [listing for _, _, listing in images.walk(folder, list_one)]
    return listings, is_changed or len(listings) != len(known)


def _stamp(path: str, now: int) -> Stamp:
    """Tell a folder's states apart; `NO_STAMP` if it changed just now, when a further change might not show."""
    status = os.stat(path)
    if max(status.st_mtime_ns, status.st_ctime_ns) > now - TICK_NS:
        return NO_STAMP
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _sorted_segments(listings: list[Listing]) -> list[tuple[int, int, int]]:
    """Order files of folders as their whole paths are, part by part: a folder's files around its sub-folders."""
    numbers = {one.path: number for number, one in enumerate(listings)}
    below: dict[str, list[str]] = {}
    for one in listings[1:]:
        parent, _, name = one.path.rpartition("/")
        below.setdefault(parent, []).append(name)
    segments: list[tuple[int, int, int]] = []
    rest: list[str | tuple[int, int, int]] = [""]
    while rest:
        item = rest.pop()
        if isinstance(item, tuple):
            segments.append(item)
            continue
        number = numbers[item]
        names = [os.fsdecode(name) for name in listings[number].names.split(b"\0")[:-1]] if item in below else []
        pieces: list[str | tuple[int, int, int]] = []
        start = 0
        for name in sorted(below.get(item, [])):
            stop = bisect.bisect_left(names, name)
            pieces += [(number, start, stop), f"{item}/{name}" if item else name]
            start = stop
        rest += reversed([*pieces, (number, start, len(listings[number].facts))])
    return segments
