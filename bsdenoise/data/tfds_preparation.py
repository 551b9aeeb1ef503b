"""Data sets of tensorflow_datasets, made ready for random access, with errors that say what to place where.

A data set is prepared once, in its own folder below TFDS_DATA_DIR (by default ~/tensorflow_datasets), as array_record
files: the only ones of its kinds that give record k without reading those before. tensorflow_datasets is imported only
when such a data set is asked for.
"""

import contextlib
import difflib
import importlib
import io
import os
import re
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

DATA_DIR_VARIABLE = "TFDS_DATA_DIR"
FILE_FORMAT = "array_record"
SECONDS_TO_CONNECT = 10.0
# What the data sets that somebody has to fetch by hand need for one split: their own instructions ask for all of it.
MANUAL_FILES = {
    "imagenet2012": {
        "train": "ILSVRC2012_img_train.tar",
        "validation": "ILSVRC2012_img_val.tar",
        "test": "ILSVRC2012_img_test.tar",
    }
}


def load_library(spec: str) -> Any:
    """Import tensorflow_datasets.

    Args:
        spec: The SOURCE that needs it, for messages.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        with quiet():
            importlib.import_module("array_record.python.array_record_data_source")
            return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ValueError(
            f"{spec}: this needs tensorflow-datasets and array_record (pip install tensorflow-datasets array_record): "
            f"{error}."
        ) from error


def prepared_builder(tfds: Any, spec: str, name: str, split: str) -> Any:
    """Find a data set, and prepare it if that was not done before, which a line announces.

    Args:
        tfds: The library.
        spec: SOURCE, for messages.
        name: NAME[/CONFIG][:VERSION].
        split: The split that will be wanted.

    Returns:
        The library's builder of the data set, whose files are there.

    Raises:
        ValueError: If there is no such data set, or it cannot be prepared; the message says what to place where.
    """
    builder = _make_builder(tfds, spec, name)
    if not Path(builder.data_dir).exists():
        _prepare(tfds, builder, spec, split)
    return builder


def _make_builder(tfds: Any, spec: str, name: str) -> Any:
    """Find the data set, by its code or, if it was prepared elsewhere, by its files."""
    try:
        with quiet():
            # Not only at its import, as tensorflow_datasets does, is the environment asked.
            return tfds.builder(name, data_dir=os.environ.get(DATA_DIR_VARIABLE))
    except tfds.core.DatasetNotFoundError as error:
        stem = re.split("[/:]", name)[0]
        close = difflib.get_close_matches(stem, set(tfds.list_builders(with_community_datasets=False)), n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        folder = os.environ.get(DATA_DIR_VARIABLE) or tfds.core.constants.DATA_DIR
        raise ValueError(
            f"{spec}: tensorflow_datasets has no data set {stem!r}, and none of that name is prepared in {folder} "
            f"({DATA_DIR_VARIABLE} chooses another folder).{hint}"
        ) from error
    except Exception as error:  # configurations, versions and files that do not fit: errors of every type
        reason = re.sub(r"^Failed to construct dataset .*?}\": | Here are \d+ .*", "", _first_line(error))
        raise ValueError(f"{spec}: tensorflow_datasets cannot open {name!r}: {reason}") from error


def _prepare(tfds: Any, builder: Any, spec: str, split: str) -> None:
    """Make the array_record files."""
    manual = Path(builder.data_dir_root, "downloads", "manual")
    _require_manual_files(builder, spec, split, manual)
    _require_network(builder, spec, manual)
    tqdm.write(f"preparing {spec}: a copy goes into {builder.data_dir}, once; this may take a while …")
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        tfds.display_progress_bar(sys.stderr.isatty())
        with quiet():
            builder.download_and_prepare(file_format=FILE_FORMAT, download_config=settings)
    except Exception as error:  # the code of a data set may raise anything
        hint = f" Files that it needs belong in {manual}." if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else ""
        raise ValueError(f"{spec}: cannot be prepared: {_first_line(error)}{hint}") from error
    tqdm.write(f"prepared {spec}")


def _require_manual_files(builder: Any, spec: str, split: str, manual: Path) -> None:
    """Say what has to be placed by hand."""
    known = MANUAL_FILES.get(builder.name, {})
    needed = [known[part] for part in _split_names(split) if part in known]
    missing = [name for name in needed if not (manual / name).exists()]
    if missing:
        raise ValueError(
            f"{spec}: place {' and '.join(missing)} in {manual} ({DATA_DIR_VARIABLE} chooses another folder than "
            f"{builder.data_dir_root}); no other archive is needed."
        )
    is_empty = not manual.is_dir() or not any(manual.iterdir())
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and is_empty:
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise ValueError(f"{spec}: this data set has to be placed in {manual} by hand: {instructions}")


def _require_network(builder: Any, spec: str, manual: Path) -> None:
    """Refuse a download where its server cannot be reached: tensorflow_datasets would try for many minutes."""
    downloads = Path(builder.data_dir_root, "downloads", builder.name)
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return  # the addresses that are known may be those of the files that were placed by hand
    if urllib.request.getproxies() or (downloads.is_dir() and any(downloads.rglob("*.INFO"))):
        return  # whether a proxy lets it through, or what is there is enough, only the download itself can tell
    missing = {
        url: info.filename for url, info in (builder.url_infos or {}).items() if not _is_there(manual, info.filename)
    }
    for host, port in sorted({_server(url) for url in missing if url.startswith("http")}):
        try:
            socket.create_connection((host, port), timeout=SECONDS_TO_CONNECT).close()
        except OSError as error:
            names = ", ".join(sorted({name or url for url, name in missing.items()}))
            raise ValueError(
                f"{spec}: this data set has to be downloaded, and {host} cannot be reached ({_first_line(error)}) "
                f"Place its files ({names}) in {manual}, or the prepared data set in {builder.data_dir}."
            ) from error


def open_records(tfds: Any, builder: Any, spec: str, split: str) -> Sequence[bytes]:
    """Open the files of a split, such as `train[:80%]+test`.

    Args:
        tfds: The module tensorflow_datasets.
        builder: The builder of the data set, which is prepared.
        spec: SOURCE as the user wrote it, for messages.
        split: The split.

    Returns:
        Serialised examples, by number; safe in threads.

    Raises:
        ValueError: If there is no such split, it is empty, or its files do not allow it.
    """
    splits = sorted(builder.info.splits)
    unknown = [part for part in _split_names(split) if part not in splits and part != "all"]
    if unknown:
        names = ", ".join(splits) or "no split"
        again = MANUAL_FILES.get(builder.name, {}).get(unknown[0])
        hint = (
            f" For another one place {again} beside the others and remove {builder.data_dir}, so that it is prepared "
            "again."
            if again
            else ""
        )
        raise ValueError(f"{spec}: there is no split {unknown[0]!r}; {builder.data_dir} holds {names}.{hint}")
    try:
        number = builder.info.splits[split].num_examples
    except Exception as error:  # parts such as [:abc]
        raise ValueError(f"{spec}: the split {split!r} cannot be read: {_first_line(error)}") from error
    if not number:
        raise ValueError(f"{spec}: the split {split!r} is empty.")
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    try:
        with quiet():
            return builder.as_data_source(split=split, deserialize_method=raw, file_format=FILE_FORMAT)
    except (NotImplementedError, AttributeError) as error:
        raise _unsuitable_files(builder, spec) from error
    except Exception as error:
        if FILE_FORMAT not in {kind.value for kind in builder.info.available_file_formats()}:
            raise _unsuitable_files(builder, spec) from error
        raise ValueError(f"{spec}: the split {split!r} cannot be opened: {_first_line(error)}") from error


def _unsuitable_files(builder: Any, spec: str) -> ValueError:
    return ValueError(
        f"{spec}: {builder.data_dir} holds no {FILE_FORMAT} files but others, which cannot be read in any order. Set "
        f"{DATA_DIR_VARIABLE} to another folder, or remove this one; the data set is then prepared anew."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what tensorflow_datasets prints and logs; its progress bars stay."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _split_names(split: str) -> list[str]:
    """Return the names in `train[:80%]+test`."""
    return [part.split("[")[0].strip() for part in split.split("+")]


def _server(url: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _is_there(folder: Path, name: str | None) -> bool:
    return bool(name) and (folder / str(name)).exists()


def _first_line(error: Exception) -> str:
    """Return the first paragraph of a message, ending in a stop."""
    paragraph = re.split(r"\n\s*\n", str(error).strip())[0]
    return (" ".join(paragraph.split()).rstrip(".") or type(error).__name__) + "."
