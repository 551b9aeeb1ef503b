"""The check sums of a version's files, by which a copy that is cut off or damaged is told before a server loads it.

A text such as `sha256sum` writes and reads, so that the container's entrypoint needs nothing else.
"""

import hashlib
import os
from pathlib import Path

FILE_NAME = "SHA256SUMS"


def write(folder: Path) -> None:
    """Write the check sums of all files of a folder, and see to it that all of them are on the disk.

    Raises:
        OSError: If a file cannot be read or written.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_flushed_sum(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    with (folder / FILE_NAME).open("w") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def _flushed_sum(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())  # else a version could be there after a power failure, and its weights not
        return hashlib.file_digest(file, "sha256").hexdigest()
