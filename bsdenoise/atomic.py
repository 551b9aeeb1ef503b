"""Writing files whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Return the name of a temporary file beside `path`, which takes its place once the block has ended well.

    It has the same suffix, and a name that begins with a dot, so that no search for images finds it. After an error
    it is gone, and what stood at `path` is as it was.

    Args:
        path: The file to write.

    Yields:
        The temporary file's name; the block writes it.

    Raises:
        OSError: If the file cannot be written; the error names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def beside(path: str | Path, suffix: str) -> Iterator[Path]:
    """Return the name of a temporary file in the folder of `path`, which is gone after the block.

    Raises:
        OSError: If the block cannot write; the error names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}{suffix}")
    try:
        yield temporary
    except OSError as error:
        if error.filename == str(path):
            raise
        raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Return the name of a temporary folder beside `path`, which takes its place once the block has ended well.

    What stood there is moved away first and removed last: for a moment there is nothing at `path`, but never is
    anything lost.

    Raises:
        OSError: If the folder cannot be written; the error names `path`.
    """
    path = Path(path)
    temporary, old = (path.with_name(f".{secrets.token_hex(8)}{path.suffix}") for _ in range(2))
    try:
        yield temporary
        if path.exists():
            os.rename(path, old)
        os.rename(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error
    finally:
        if old.exists() and not path.exists():
            os.rename(old, path)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)
