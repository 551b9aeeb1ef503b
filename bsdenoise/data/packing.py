"""A numbered set of images → shards, which `ShardSource` reads.

An image file goes in as it is, byte for byte; an image of a stack or a Zarr store as its pixels. Each is decoded
once before, so that what cannot be read is left out here and not found out in training.
"""

import collections
import concurrent.futures
import errno
import io
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import bsdenoise
from bsdenoise import atomic
from bsdenoise.data import shards
from bsdenoise.data.faults import Reports
from bsdenoise.data.header_scan import BAR_DELAY
from bsdenoise.data.sources import Source, has_file_names
from bsdenoise.images import PREPARED_INDEX, Picture, missing
from bsdenoise.images.precision import check_single_precision

# Images are compressed already; and each record has to be readable without its neighbours.
WRITER_OPTIONS = "group_size:1,uncompressed"
AHEAD = 4  # images per thread that are in memory at a time


@dataclass(frozen=True)
class Packed:
    """What was written."""

    images: int
    left_out: int
    shards: int
    bytes: int


@dataclass(frozen=True)
class _Record:
    """One image: its name, its bytes, height and width, and if the bytes are its pixels what else is known of them.

    Attributes:
        notes: What was changed on reading; `None` if the bytes are a file.
        meaning: What `shards.MEANING` names of a `Picture`.
    """

    name: str
    data: bytes
    size: tuple[int, int]
    notes: tuple[str, ...] | None
    meaning: tuple[Any, ...] = ()


def pack(
    source: Source, out: Path, shard_bytes: int, report: Callable[[str], None], no_data: float | None = None
) -> Packed:
    """Write all images into a folder. If that fails, or is interrupted, nothing is left of it.

    Args:
        source: The images.
        out: The folder, empty or not there yet.
        shard_bytes: Bytes of images after which the next shard is begun.
        report: Called with one line for each image that is left out.
        no_data: The value of pixels that hold no measurement with which `source` was opened.

    Raises:
        ValueError: If `out` is not empty, or no image can be read.
        OSError: If something cannot be written.
    """
    check_out(out)
    had_folder = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        return _pack(source, out, shard_bytes, report, written, no_data)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        if not had_folder:
            out.rmdir()
        raise


def check_out(out: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ValueError: If it is one, or a file.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; --out names a folder.")
    if not out.is_dir():
        return
    shards.check_finished(out)
    if any(out.iterdir()):
        what = "holds prepared images already" if shards.is_prepared(out) else "is not empty"
        raise ValueError(f"{out}: {what}. Give another --out, or remove it.")


def _pack(
    source: Source,
    out: Path,
    shard_bytes: int,
    report: Callable[[str], None],
    written: list[Path],
    no_data: float | None,
) -> Packed:
    found, reports = _Index(no_data), Reports(report)
    records = _records(source, reports, no_data)
    first = next(records, None)
    while first is not None:
        path = out / shards.SHARD_NAME.format(len(written))
        written.append(path)
        with atomic.replacing(path) as temporary:
            before = len(found)
            first = _write_shard(temporary, itertools.chain([first], records), shard_bytes, found)
        found.shards.append((path.name, len(found) - before, path.stat().st_size))
    if not len(found):
        raise ValueError(f"None of the {len(source)} images could be read; the first is {reports.first}")
    found.write(out / PREPARED_INDEX, has_file_names(source))
    total = sum(size for _, _, size in found.shards)
    return Packed(len(found), len(source) - len(found), len(written), total)


class _Index:
    """What will be known of the records, in their order, as the index holds it: there may be millions."""

    def __init__(self, no_data: float | None) -> None:
        self.no_data = no_data
        self.names = bytearray()
        self.records = bytearray()
        self.notes: dict[tuple[tuple[str, ...], tuple[Any, ...]], int] = {}
        self.shards: list[tuple[str, int, int]] = []

    def add(self, record: _Record) -> None:
        notes = shards.IS_FILE
        if record.notes is not None:
            # NaN is not equal to itself: each would be another.
            meaning = tuple(None if value != value else value for value in record.meaning)
            notes = self.notes.setdefault((record.notes, meaning), len(self.notes))
        self.names += record.name.encode("utf-8", "surrogateescape") + b"\0"
        facts = (*record.size, len(record.data), zlib.crc32(record.data), notes)
        self.records += np.array([facts], shards.RECORDS).tobytes()

    def __len__(self) -> int:
        return len(self.records) // shards.RECORDS.itemsize

    def write(self, path: Path, with_file_names: bool) -> None:
        header = {
            "format": shards.FORMAT,
            "package": f"bsdenoise {bsdenoise.__version__}",
            "has_file_names": with_file_names,
            "shards": self.shards,
            "notes": [notes for notes, _ in self.notes],
            "meanings": [meaning for _, meaning in self.notes],
            "files_no_data": self.no_data,
        }
        with atomic.replacing(path) as temporary:
            np.savez(
                temporary,
                header=np.frombuffer(json.dumps(header).encode(), np.uint8),
                names=np.frombuffer(self.names, np.uint8),
                records=np.frombuffer(self.records, shards.RECORDS),
            )


def _write_shard(path: Path, records: Iterator[_Record], limit: int, found: _Index) -> _Record | None:
    """Write one shard; return the record that has no place in it any more."""
    writer = shards.load_library().ArrayRecordWriter(str(path), WRITER_OPTIONS)
    size = 0
    left: _Record | None = None
    try:
        for record in records:
            if size and size + len(record.data) > limit:
                left = record
                break
            _checked(writer.write, record.data)
            found.add(record)
            size += len(record.data)
        return left
    finally:
        _checked(writer.close)


def _checked(write: Callable[..., None], *data: bytes) -> None:
    """Let array_record write, with errors as the system's own functions have them."""
    try:
        write(*data)
    except RuntimeError as error:
        known = {number: os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
        for number, reason in known.items():
            if reason in str(error):
                raise OSError(number, reason) from error
        raise OSError(errno.EIO, shards.reason_of(error)) from error


def _records(source: Source, reports: Reports, no_data: float | None) -> Iterator[_Record]:
    """Read all images in their order, in threads; say which cannot be read."""
    num_threads = os.cpu_count() or 1
    pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    waiting: collections.deque[tuple[int, concurrent.futures.Future[_Record]]] = collections.deque()
    numbers = iter(range(len(source)))
    progress = tqdm(total=len(source), desc="preparing", unit="img", delay=BAR_DELAY, disable=None, leave=False)
    try:
        with progress:
            for number in itertools.islice(numbers, AHEAD * num_threads):
                waiting.append((number, pool.submit(_record, source, number, no_data)))
            while waiting:
                index, future = waiting.popleft()
                for number in itertools.islice(numbers, 1):
                    waiting.append((number, pool.submit(_record, source, number, no_data)))
                try:
                    yield future.result()
                except (ValueError, OSError) as error:
                    reports.left_out(source.name(index), error)
                progress.update()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the rest


def _record(source: Source, index: int, no_data: float | None) -> _Record:
    data = source.content(index)
    if data is not None:
        picture = shards.decode(data, source.name(index), no_data)
        _check(picture)
        return _Record(source.short_name(index), data, (picture.shape[0], picture.shape[1]), None)
    picture = source.read(index)
    _check(picture)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(picture.array), allow_pickle=False)
    size = (picture.shape[0], picture.shape[1])
    meaning = tuple(getattr(picture, name) for name in shards.MEANING)
    return _Record(source.short_name(index), buffer.getvalue(), size, picture.notes, meaning)


def _check(picture: Picture) -> None:
    """Refuse an image of which no pixel was measured, and one whose noise single precision cannot hold."""
    gaps = missing.where(picture.array, picture.no_data)
    if gaps is not None and gaps.all():
        raise ValueError(missing.NOTHING_MEASURED)
    if picture.array.dtype.kind == "f":
        check_single_precision(missing.with_nan(picture.array, gaps))
