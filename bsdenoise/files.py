"""Writing files whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives the name of a temporary file beside `path`, which takes its place once the block has ended well.

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
