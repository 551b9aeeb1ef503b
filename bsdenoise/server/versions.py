"""The versions of the served models: watched on disk, loaded, lent to requests, unloaded.

As with TensorFlow-Serving, a new version serves only once it is loaded and warmed up, the old one until then, and a
version that fails to load changes nothing for those that serve. Unlike there, the last version that serves is kept
when its folder vanishes.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bsdenoise.server.errors import ServingError

POLL_SECONDS = 1.0  # TensorFlow-Serving's own intervals
RETRY_SECONDS = 60.0
RETRIES = 5
LATEST, ALL, SPECIFIC = "latest", "all", "specific"
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSettings:
    """Which versions of a model are served.

    Attributes:
        name: The model's name.
        base_path: Its folder of versions.
        policy: "latest", "all" or "specific".
        num_versions: How many, if the latest.
        versions: Which, if specific ones.
        labels: Names for versions.
    """

    name: str
    base_path: Path
    policy: str = LATEST
    num_versions: int = 1
    versions: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)

    def wanted(self) -> dict[int, Path]:
        """Find the folders of the versions that should be served."""
        try:
            paths = [path for path in self.base_path.iterdir() if _is_version(path.name) and path.is_dir()]
        except OSError:
            paths = []
        found = {int(path.name): path for path in paths}
        if self.policy == SPECIFIC:
            return {version: path for version, path in found.items() if version in self.versions}
        newest = sorted(found, reverse=True)
        return {version: found[version] for version in (newest if self.policy == ALL else newest[: self.num_versions])}


@dataclass(frozen=True)
class VersionStatus:
    """How it stands with a version, in TensorFlow-Serving's words.

    Attributes:
        version: Its number.
        state: "START", "LOADING", "AVAILABLE", "UNLOADING" or "END".
        code: "OK", or the name of the error that it ended with.
        message: That error.
    """

    version: int
    state: str
    code: str = "OK"
    message: str = ""


class _Version:
    """What is known of one version: its state, its servable while there is one, and who uses that."""

    def __init__(self, number: int):
        self.status = VersionStatus(number, "START")
        self.servable = None
        self.users = 0
        self.failures = 0
        self.next_attempt = 0.0

    @property
    def is_available(self) -> bool:
        return self.status.state == "AVAILABLE"


class Models:
    """All served models.

    Args:
        settings: The models.
        load: Function from a model's name, a version and its folder to a servable.
        poll_seconds: How often the folders are looked at.
        retry_seconds: How long after a failed load it is tried again.
        report: Called with one line whenever a version comes, goes or fails.
    """

    def __init__(
        self,
        settings: Sequence[ModelSettings],
        load: Callable,
        *,
        poll_seconds: float = POLL_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        report: Callable[[str], None] = _LOGGER.info,
    ):
        self._settings = {model.name: model for model in settings}
        self._load = load
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._report = report
        self._versions: dict[str, dict[int, _Version]] = {name: {} for name in self._settings}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)

    @property
    def names(self) -> list[str]:
        """The models' names."""
        return list(self._settings)

    def start(self) -> None:
        """Load what is there, and watch the folders from then on.

        Raises:
            ServingError: If a model has no version that can be loaded.
        """
        self._look()
        for name, model in self._settings.items():
            if not self.is_available(name):
                failed = [version.status for version in self._versions[name].values() if version.failures]
                reason = failed[-1].message if failed else f"no version found in {model.base_path}"
                raise ServingError(grpc.StatusCode.NOT_FOUND, f"model {name}: {reason}")
        self._thread.start()

    def close(self) -> None:
        """Stop watching and free all models; nothing may be running."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            versions = [version for known in self._versions.values() for version in known.values()]
        for version in versions:
            self._retire("", version)

    def is_available(self, name: str) -> bool:
        """Say whether some version of a model serves."""
        with self._lock:
            return any(version.is_available for version in self._versions.get(name, {}).values())

    @contextlib.contextmanager
    def borrow(self, name: str, version: int | None = None, label: str | None = None) -> Iterator:
        """Lend the servable of a version, by default the newest, which stays loaded inside of the block.

        Args:
            name: The model's name.
            version: Its number; `None` for the newest that serves.
            label: A label in place of the number.

        Raises:
            ServingError: If there is none.
        """
        with self._lock:
            lent = self._find(name, version, label)
            lent.users += 1
        try:
            yield lent.servable
        finally:
            with self._lock:
                lent.users -= 1
            self._free_if_unused(name, lent)

    def status(self, name: str, version: int | None = None, label: str | None = None) -> list[VersionStatus]:
        """Return the state of all versions of a model, or of one, the newest first.

        An unknown label stands for all versions, as TensorFlow-Serving has it.

        Args:
            name: The model's name.
            version: Its number; `None` for all.
            label: A label in place of the number.

        Raises:
            ServingError: If there is no such model or version.
        """
        with self._lock:
            known = self._versions.get(name)
            if not known:
                raise ServingError(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
            if version is None and label is not None:
                version = self._settings[name].labels.get(label)
            if version is None:
                return [known[number].status for number in sorted(known, reverse=True)]
            if version not in known:
                raise ServingError(grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model {name}")
            return [known[version].status]

    def _find(self, name, number, label) -> _Version:
        known = self._versions.get(name, {})
        if label is not None and known:
            if label not in self._settings[name].labels:
                raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
            number = self._settings[name].labels[label]
        available = [version for version, state in known.items() if state.is_available]
        if number is None and available:
            number = max(available)
        if number not in available:
            wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise ServingError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
        return known[number]

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self._look()
            except Exception:  # whatever it is, the next look may go well
                _LOGGER.exception("the folders of the models could not be looked at")

    def _look(self) -> None:
        """Load what has come, then unload what is no longer wanted, unless nothing else serves."""
        for name, model in self._settings.items():
            wanted = model.wanted()
            for number in sorted(wanted):
                self._load_if_due(name, number, wanted[number])
            with self._lock:
                known = self._versions[name]
                gone = [version for number, version in known.items() if number not in wanted and version.is_available]
                others = [version for number, version in known.items() if number in wanted and version.is_available]
                if not others:
                    gone = sorted(gone, key=lambda version: version.status.version)[:-1]
                for number in known.keys() - wanted.keys():  # should it come again, it is tried again at once
                    known[number].failures, known[number].next_attempt = 0, 0.0
            for version in gone:
                self._retire(name, version)

    def _load_if_due(self, name: str, number: int, folder: Path) -> None:
        with self._lock:
            version = self._versions[name].setdefault(number, _Version(number))
            is_due = version.failures <= RETRIES and time.monotonic() >= version.next_attempt
            if version.servable is not None or not is_due:
                return
            version.status = VersionStatus(number, "LOADING")
        try:
            servable = self._load(name, number, folder)
        except ServingError as error:
            with self._lock:
                version.failures += 1
                version.next_attempt = time.monotonic() + self._retry_seconds
                version.status = VersionStatus(number, "END", error.code.name, error.message)
            self._report(f"{name}: version {number} cannot be loaded: {' '.join(error.message.split())}")
            return
        with self._lock:
            version.servable = servable
            version.failures, version.next_attempt = 0, 0.0
            version.status = VersionStatus(number, "AVAILABLE")
        self._report(f"{name}: version {number} is served")

    def _retire(self, name: str, version: _Version) -> None:
        """Take a version out of service; it is freed once nobody uses it."""
        with self._lock:
            if version.servable is None:
                return
            version.status = VersionStatus(version.status.version, "UNLOADING")
        self._free_if_unused(name, version)

    def _free_if_unused(self, name: str, version: _Version) -> None:
        """Free a version that is out of service, after its last request."""
        with self._lock:
            if version.users or version.servable is None or version.is_available:
                return
            servable, version.servable = version.servable, None
            version.status = VersionStatus(version.status.version, "END")
        servable.close()
        if name:
            self._report(f"{name}: version {version.status.version} is unloaded")


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit()
