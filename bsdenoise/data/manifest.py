"""One checksum for the images that a source gives, wherever it stands: are they those of the last time, of the others?

What it looks at costs little even for millions of images; so it tells another collection from this one, and does not
prove that every pixel is the same. docs/big-data.md says what it sees and what not.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from bsdenoise.data.shards import ShardSource
from bsdenoise.data.sources import ArraySource, FileSource, Selection, Source
from bsdenoise.data.tfds_source import TfdsSource

VERSION = "bsdenoise manifest 1"
MOST_SAMPLED = 100  # files of a source that is small enough for a look at what is in them
NUM_SAMPLES, SAMPLE_BYTES = 64, 4096  # spread evenly over a file


def manifest(source: Source) -> str:
    """Return the SHA-256 of what identifies the images of a source, as 64 hexadecimal digits.

    Of files: their paths below the source's base, in order, and their sizes in bytes; of at most 100 files, and of an
    `.npy` file, also samples of their content. Of a prepared folder: names, sizes and checksums of all images. Of
    tensorflow_datasets: name, version, and which examples of which files. Of a selection: that of the source and which
    images are selected.

    Raises:
        TypeError: If nothing is known of such a source.
        OSError: If a file cannot be read.
    """
    digest = hashlib.sha256()
    kind = type(source).__name__
    digest.update(f"{VERSION} {kind} ".encode())
    if isinstance(source, Selection):
        digest.update(manifest(source.source).encode() + np.asarray(source.indices, "<i8").tobytes())
    elif isinstance(source, FileSource):
        _add_axes(digest, source.axes)
        _add_files(digest, source)
    elif isinstance(source, ArraySource):
        _add_axes(digest, source.axes)
        digest.update(f"{source.path.name}\0".encode("utf-8", "surrogateescape"))
        _add_sample(digest, source.path)
    elif isinstance(source, ShardSource):
        digest.update(source.names)
        for name in ("bytes", "crc32"):
            digest.update(np.ascontiguousarray(source.records[name]).tobytes())
    elif isinstance(source, TfdsSource):
        digest.update(json.dumps(_tfds_facts(source), sort_keys=True).encode())
    else:
        raise TypeError(f"Expected a source of files, shards or tensorflow_datasets. Received: {kind}.")
    return digest.hexdigest()


def _add_axes(digest: Any, axes: str | None) -> None:
    """Add the axes that were named, as other ones make other images of the same arrays."""
    if axes is not None:
        digest.update(f"axes {axes.lower()}\0".encode())


def _add_files(digest: Any, source: FileSource) -> None:
    """Add paths and sizes; these are asked for once, and kept in the folder's index."""
    index = source.index
    index.measure_bytes()
    index.save()
    for paths in index.paths_in_bytes():
        digest.update(paths)
    digest.update(index.facts("bytes").tobytes())
    if len(index) <= MOST_SAMPLED:
        for number in range(len(index)):
            if index.path(number).is_file():
                _add_sample(digest, index.path(number))


def _add_sample(digest: Any, path: Path) -> None:
    """Add size and parts of a file, all of it if it is small."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        digest.update(str(size).encode())
        last = max(size - SAMPLE_BYTES, 0)
        for start in sorted({last * number // (NUM_SAMPLES - 1) for number in range(NUM_SAMPLES)}):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))


def _tfds_facts(source: TfdsSource) -> dict[str, Any]:
    """Say which examples of which files of which version are read, and what of them."""
    records: Any = source.records
    info = records.dataset_info
    instructions = info.splits[records.split].file_instructions
    return {
        "name": info.full_name,
        "files": [[Path(one.filename).name, one.skip, one.take, one.examples_in_shard] for one in instructions],
        "bytes": {name: split.num_bytes for name, split in info.splits.items()},
        "feature": source.path,
    }
