"""A folder that `bsdenoise prepare` wrote → a numbered set of images, read from a few large files.

The shards are array_record files: any record can be read without those before, and each carries a checksum, so that
damage is noticed. An index beside them, the last file to be written, says what they hold.
"""

import bisect
import dataclasses
import functools
import importlib
import io
import itertools
import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np

from bsdenoise import images
from bsdenoise.images import PREPARED_INDEX, Picture

FORMAT = 1
SHARD_NAME = "images-{:05}.arrayrecord"
SHARD_PATTERN = "images-*.arrayrecord"
# Of one image: height and width, bytes of its record and their CRC-32, and which of the index's lists of notes goes
# with it. With IS_FILE its record is an image file, of which reading tells the notes; else its pixels as `.npy`.
RECORDS = np.dtype([("height", "<i4"), ("width", "<i4"), ("bytes", "<i8"), ("crc32", "<u4"), ("notes", "<i4")])
IS_FILE = -1
MEANING = ("bits", "independent_channels", "no_data")  # of a `Picture`, kept beside pixels
MOST_OPEN = 256  # shards; systems allow a process 1024 files, unless told otherwise
# For reading in any order, as array_record's documentation advises.
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
READER_BUFFER = 2**15  # bytes; as array_record's own data source has it
AGAIN = "Prepare it again (bsdenoise prepare)."


class ShardSource:
    """Images of a prepared folder. Safe in threads, which do not wait for each other.

    Args:
        folder: The folder.
        header: The index's description of the whole.
        names: Name of each image below the base of what it was made of, each ended by a zero byte.
        records: What is known of each image, (N,) of type `RECORDS`.
        no_data: Value of pixels that hold no measurement, as for `images.opened`.
    """

    def __init__(
        self,
        folder: Path,
        header: dict[str, Any],
        names: bytes,
        records: np.ndarray,
        no_data: float | None = None,
    ):
        self.folder = folder
        self.names = names
        self.records = records
        self.has_file_names = bool(header["has_file_names"])
        self._notes = [tuple(notes) for notes in header["notes"]]
        # Folders that were prepared before it was kept have none.
        meanings = header.get("meanings") or [()] * len(self._notes)
        self._meanings = [dict(zip(MEANING, meaning, strict=False)) for meaning in meanings]
        self._no_data = no_data
        self._files_no_data = header.get("files_no_data") if no_data is None else no_data
        self._shards = [folder / name for name, _, _ in header["shards"]]
        self._starts = [0, *itertools.accumulate(number for _, number, _ in header["shards"])]
        self._ends = np.flatnonzero(np.frombuffer(names, np.uint8) == 0)
        self._open = functools.lru_cache(maxsize=MOST_OPEN)(_open_shard)
        self._opening = threading.Lock()

    @classmethod
    def open(cls, folder: Path, no_data: float | None = None) -> "ShardSource":
        """Read the index, and look whether all shards are there, whole.

        Args:
            folder: A folder that `bsdenoise prepare` has written.
            no_data: Value of pixels that hold no measurement.

        Raises:
            ValueError: If the index cannot be read, or a shard is missing or has another length.
        """
        header, names, records = _read_index(folder)
        for name, _, size in header["shards"]:
            try:
                received = (folder / name).stat().st_size
            except OSError as error:
                raise ValueError(f"{folder / name}: this part of what was prepared is missing. {AGAIN}") from error
            if received != size:
                raise ValueError(f"{folder / name}: expected {size} bytes, received {received}. {AGAIN}")
        return cls(folder, header, names, records, no_data)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    def name(self, index: int) -> str:
        """Name the original image, and the shard that it is in now."""
        return f"{self.short_name(index)} in {self._shards[self._find(index)[0]]}"

    def short_name(self, index: int) -> str:
        """Name the original image."""
        start = self._ends[index - 1] + 1 if index else 0
        return self.names[start : self._ends[index]].decode("utf-8", "surrogateescape")

    def read(self, index: int) -> Picture:
        """Decode one image."""
        data, notes = self._record(index), self.records["notes"][index]
        if notes == IS_FILE:
            return decode(data, self.name(index), self._files_no_data)
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        picture = Picture(array, "NPY", notes=self._notes[notes], **self._meanings[notes])
        return picture if self._no_data is None else dataclasses.replace(picture, no_data=self._no_data)

    def content(self, index: int) -> bytes | None:
        """Return the bytes of the image file that went in; `None` if it was no file of its own."""
        return self._record(index) if self.records["notes"][index] == IS_FILE else None

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width."""
        return int(self.records["height"][index]), int(self.records["width"][index])

    def known_sizes(self) -> np.ndarray:
        """Return (N, 2), height and width of all images."""
        return np.stack([self.records["height"], self.records["width"]], axis=-1)

    def _find(self, index: int) -> tuple[int, int]:
        """Return the shard of an image, and the number of its record there."""
        shard = bisect.bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _record(self, index: int) -> bytes:
        shard, number = self._find(index)
        try:
            with self._opening:  # else each thread would open it; an open one is found in no time
                reader = self._open(self._shards[shard])
            (data,) = reader.read([number])
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"{self.name(index)}: the record cannot be read: {reason_of(error)}.") from error
        if len(data) != self.records["bytes"][index]:
            expected = self.records["bytes"][index]
            raise ValueError(f"{self.name(index)}: expected a record of {expected} bytes. Received: {len(data)}.")
        return data


def is_prepared(folder: Path) -> bool:
    """Tell whether a folder was prepared."""
    return (folder / PREPARED_INDEX).is_file()


def check_finished(folder: Path) -> None:
    """Refuse a folder of shards that have no index.

    Raises:
        ValueError: If it is one.
    """
    if not is_prepared(folder) and any(folder.glob(SHARD_PATTERN)):
        raise ValueError(
            f"{folder}: holds shards without their index, as `bsdenoise prepare` leaves them when it is killed. Remove "
            "the folder, and prepare it again."
        )


def decode(data: bytes, name: str, no_data: float | None = None) -> Picture:
    """Read the bytes of an image file that holds one image, (H, W) or (H, W, C).

    Args:
        data: The file.
        name: Its name, for messages.
        no_data: Value of pixels that hold no measurement; `None` for what the file declares.

    Raises:
        ValueError: If it is broken, or holds several.
    """
    picture = images.decode(data, name, no_data)
    if picture.array.ndim < 4:
        return picture
    if len(picture.array) != 1:
        raise ValueError(f"{name}: expected one image. Received: shape={picture.array.shape}.")
    return dataclasses.replace(picture, array=picture.array[0])


def load_library() -> Any:
    """Import array_record.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        return importlib.import_module("array_record.python.array_record_module")
    except ImportError as error:
        raise ValueError(f"Prepared images need array_record (pip install array_record): {error}.") from error


def reason_of(error: Exception) -> str:
    """Shorten what array_record says: the places in the file come last."""
    words = " ".join(str(error).split())
    return re.split(r" \(computed|, chunk at|; ", words)[0].rstrip(".") or type(error).__name__


def _open_shard(path: Path) -> Any:
    library = load_library()
    return library.ArrayRecordReader(str(path), options=READER_OPTIONS, file_reader_buffer_size=READER_BUFFER)


def _read_index(folder: Path) -> tuple[dict[str, Any], bytes, np.ndarray]:
    """Read the index whole, which its own checksums allow only if it is undamaged."""
    path = folder / PREPARED_INDEX
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            header = json.loads(content["header"].tobytes())
            version = header["format"]
            if version == FORMAT:
                names, records = content["names"].tobytes(), content["records"]
    except Exception as error:  # of zip, NumPy and JSON, which answer damage with errors of every type
        raise ValueError(f"{path}: the index of what was prepared cannot be read. {AGAIN}") from error
    if version != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, received {version}, of another bsdenoise. {AGAIN}")
    numbers = {len(records), names.count(b"\0"), sum(number for _, number, _ in header["shards"])}
    if records.dtype != RECORDS or len(numbers) > 1:
        raise ValueError(f"{path}: the index contradicts itself. {AGAIN}")
    return header, names, records
