"""A model's folder of versions, as TF-Serving watches it: integer sub-folders that appear and vanish whole.

A server polls the folder and must never see half a version. So a version is written under another name, which is no
integer, and renamed; and one that goes is renamed before it is deleted.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

SAVED_MODEL = "saved_model.pb"  # what makes a folder a SavedModel


def next_version(folder: str | Path) -> int:
    """Return the number after the highest version in a model's folder of versions; 1 where there is none."""
    return max(_versions(folder), default=0) + 1


def retire(folder: str | Path, keep: int, but: int | None = None) -> list[Path]:
    """Remove the oldest versions of a model.

    Folders that hold no SavedModel are neither counted nor touched.

    Args:
        folder: The folder of versions.
        keep: How many stay, those of the highest numbers, ≥ 1.
        but: A version that stays in any case, as one of them.

    Returns:
        The folders that were removed.

    Raises:
        ValueError: If `keep` is less than 1.
        OSError: If a folder cannot be removed.
    """
    if keep < 1:
        raise ValueError(f"`keep` must be at least 1. Received: keep={keep}.")
    versions = {version: path for version, path in _versions(folder).items() if (path / SAVED_MODEL).is_file()}
    newest = sorted(versions, key=lambda version: (version == but, version), reverse=True)
    retired = [versions[version] for version in sorted(newest[keep:])]
    for path in retired:
        hidden = _hidden(path)
        os.rename(path, hidden)
        shutil.rmtree(hidden)
    return retired


def check_free(directory: Path) -> None:
    """Refuse a folder that holds something: a served version never changes.

    Raises:
        ValueError: If it does.
    """
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise ValueError(f"{directory}: exists already; export to a new version folder.")


@contextlib.contextmanager
def published(directory: Path) -> Iterator[Path]:
    """Return the name of a folder beside `directory`, which takes its place once the block has ended well.

    Args:
        directory: The version folder to make; it may exist if it is empty.

    Yields:
        The name of the folder to write.

    Raises:
        ValueError: If `directory` holds something by then.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = _hidden(directory)
    try:
        yield temporary
        check_free(directory)
        os.rename(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already if it was renamed


def _versions(folder: str | Path) -> dict[int, Path]:
    folder = Path(folder)
    paths = folder.iterdir() if folder.is_dir() else ()
    return {int(path.name): path for path in paths if path.is_dir() and path.name.isascii() and path.name.isdigit()}


def _hidden(directory: Path) -> Path:
    """Return a new name beside a version folder that no server takes for a version."""
    return directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.tmp")
