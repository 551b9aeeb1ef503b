import threading
import time
from pathlib import Path

import grpc
import pytest

from bsdenoise.server.errors import ServingError
from bsdenoise.server.versions import Models, ModelSettings

PATIENCE = 20.0  # seconds for what takes milliseconds


class Loader:
    """Makes stand-ins for loaded versions; a folder with a file `bad` cannot be loaded."""

    def __init__(self):
        self.may_load = threading.Event()
        self.may_load.set()
        self.loading = threading.Event()
        self.attempts = []
        self.open = []

    def __call__(self, name, version, folder):
        self.attempts.append(version)
        self.loading.set()
        assert self.may_load.wait(PATIENCE)
        if (folder / "bad").exists():
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "broken\n graph")
        return Loaded(self, name, version)


class Loaded:
    def __init__(self, loader, name, version):
        self.loader, self.name, self.version = loader, name, version
        loader.open.append(version)

    def close(self):
        self.loader.open.remove(self.version)


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def watch(tmp_path, loader):
    """A function that starts to watch `tmp_path`; its lines go to `.lines`."""
    started = []

    def start(**kwargs):
        policy = {key: kwargs.pop(key) for key in ("policy", "versions", "labels", "num_versions") if key in kwargs}
        lines = []
        models = Models(
            [ModelSettings("den", tmp_path, **policy)],
            loader,
            **{"poll_seconds": 0.005, "retry_seconds": 0.005, "report": lines.append, **kwargs},
        )
        models.lines = lines
        started.append(models)
        models.start()
        return models

    yield start
    loader.may_load.set()
    for models in started:
        models.close()
    assert loader.open == []


def add(folder, version, *, is_bad=False):
    """Publishes a version as an export does: whole."""
    hidden = folder / f".{version}"
    hidden.mkdir()
    if is_bad:
        (hidden / "bad").touch()
    hidden.rename(folder / str(version))


def remove(folder, version):
    gone = (folder / str(version)).rename(folder / f".gone-{version}")
    for path in gone.iterdir():
        path.unlink()
    gone.rmdir()


def served(models, **kwargs):
    with models.borrow("den", **kwargs) as servable:
        return servable.version


def states(models):
    return {status.version: status.state for status in models.status("den")}


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def error_of(call, *args, **kwargs):
    with pytest.raises(ServingError) as caught:
        call(*args, **kwargs)
    return caught.value.code, caught.value.message


def test_the_newest_version_is_served(tmp_path, watch, loader):
    for version in (9, 10, 2):
        add(tmp_path, version)
    for name in ("v11", "12a", "-13", "1.5", "١٤"):  # no plain integers; the last has Arabic digits
        (tmp_path / name).mkdir()
    (tmp_path / "15").touch()  # no folder
    models = watch()
    assert served(models) == 10
    assert loader.attempts == [10]
    assert models.is_available("den")
    assert not models.is_available("nope")


def test_a_new_version_is_found_and_the_old_one_freed(tmp_path, watch, loader):
    add(tmp_path, 1)
    models = watch()
    add(tmp_path, 2)
    wait_for(lambda: loader.open == [2])
    assert served(models) == 2
    assert states(models) == {2: "AVAILABLE", 1: "END"}
    assert models.lines == ["den: version 1 is served", "den: version 2 is served", "den: version 1 is unloaded"]


def test_the_old_version_serves_while_the_new_one_is_loaded(tmp_path, watch, loader):
    add(tmp_path, 1)
    models = watch()
    loader.may_load.clear()
    loader.loading.clear()
    add(tmp_path, 2)
    assert loader.loading.wait(PATIENCE)
    assert served(models) == 1
    assert states(models) == {2: "LOADING", 1: "AVAILABLE"}
    loader.may_load.set()
    wait_for(lambda: served(models) == 2)


def test_the_old_version_is_freed_only_after_its_last_request(tmp_path, watch, loader):
    add(tmp_path, 1)
    models = watch()
    with models.borrow("den") as first, models.borrow("den", 1) as second:
        assert first is second
        add(tmp_path, 2)
        wait_for(lambda: states(models) == {2: "AVAILABLE", 1: "UNLOADING"})
        assert served(models) == 2
        add(tmp_path, 3)  # a request that lasts holds up nothing else
        wait_for(lambda: served(models) == 3)
        assert 1 in loader.open
        assert error_of(served, models, version=1) == (
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Specific(den, 1)",
        )
    wait_for(lambda: loader.open == [3])
    assert states(models)[1] == "END"


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(tmp_path, watch, loader):
    add(tmp_path, 1)
    models = watch(retry_seconds=1000.0)
    add(tmp_path, 2, is_bad=True)
    wait_for(lambda: states(models).get(2) == "END")
    assert served(models) == 1
    status = models.status("den", 2)[0]
    assert (status.code, status.message) == ("INVALID_ARGUMENT", "broken\n graph")
    assert models.lines[-1] == "den: version 2 cannot be loaded: broken graph"
    assert loader.attempts == [1, 2]


def test_a_failed_load_is_tried_five_times_more(tmp_path, watch, loader):
    add(tmp_path, 1)
    watch()
    add(tmp_path, 2, is_bad=True)
    wait_for(lambda: loader.attempts.count(2) == 6)
    time.sleep(0.05)  # ten more looks
    assert loader.attempts.count(2) == 6


def test_a_failed_load_is_tried_again_after_the_interval_only(tmp_path, watch, loader, monkeypatch):
    add(tmp_path, 1)
    watch(retry_seconds=60.0)
    add(tmp_path, 2, is_bad=True)
    wait_for(lambda: loader.attempts == [1, 2])
    time.sleep(0.03)
    assert loader.attempts == [1, 2]
    (tmp_path / "2" / "bad").unlink()
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 61)
    for _ in range(10000):
        if loader.open == [2]:
            break
        time.sleep(0.001)
    assert loader.open == [2]


def test_a_mended_version_is_tried_at_once(tmp_path, watch, loader):
    add(tmp_path, 1)
    models = watch(retry_seconds=1000.0)
    add(tmp_path, 2, is_bad=True)
    wait_for(lambda: states(models).get(2) == "END")
    looks = threading.Semaphore(0)
    wanted = ModelSettings.wanted

    remove(tmp_path, 2)
    with pytest.MonkeyPatch.context() as patch:  # until a look has seen that it is gone
        patch.setattr(ModelSettings, "wanted", lambda self: (looks.release(), wanted(self))[1])
        for _ in range(3):
            assert looks.acquire(timeout=PATIENCE)
    add(tmp_path, 2)
    wait_for(lambda: loader.open == [2])


def test_the_last_version_is_kept_when_its_folder_vanishes(tmp_path, watch, loader):
    add(tmp_path, 1)
    models = watch()
    remove(tmp_path, 1)
    time.sleep(0.05)  # ten looks
    assert served(models) == 1
    add(tmp_path, 2)
    wait_for(lambda: loader.open == [2])


def test_removing_the_newest_version_brings_the_one_before_back(tmp_path, watch, loader):
    add(tmp_path, 1)
    add(tmp_path, 2)
    models = watch()
    remove(tmp_path, 2)
    wait_for(lambda: loader.open == [1])
    assert served(models) == 1


def test_an_unreadable_folder_changes_nothing(tmp_path, watch, loader, monkeypatch):
    add(tmp_path, 1)
    models = watch()
    looked = threading.Semaphore(0)

    def fail(self):
        looked.release()
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", fail)
    for _ in range(3):
        assert looked.acquire(timeout=PATIENCE)
    assert served(models) == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"policy": "latest", "num_versions": 2}, [2, 3]),
        ({"policy": "all"}, [1, 2, 3]),
        ({"policy": "specific", "versions": frozenset({1, 3, 8})}, [1, 3]),
    ],
    ids=["latest", "all", "specific"],
)
def test_policies(tmp_path, watch, loader, settings, expected):
    for version in (1, 2, 3):
        add(tmp_path, version)
    models = watch(**settings)
    assert sorted(loader.open) == expected
    assert served(models) == 3
    assert served(models, version=expected[0]) == expected[0]


def test_labels(tmp_path, watch):
    for version in (1, 2):
        add(tmp_path, version)
    models = watch(policy="all", labels={"stable": 1, "canary": 2, "lost": 7})
    assert served(models, label="stable") == 1
    assert served(models, label="canary") == 2
    assert [status.version for status in models.status("den", label="stable")] == [1]
    assert [status.version for status in models.status("den", label="unknown")] == [2, 1]
    assert error_of(served, models, label="unknown") == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Unrecognized servable version label: unknown",
    )
    assert error_of(served, models, label="lost") == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(den, 7)",
    )


def test_what_is_not_there(tmp_path, watch):
    add(tmp_path, 1)
    models = watch()
    not_found = grpc.StatusCode.NOT_FOUND
    assert error_of(models.borrow("nope").__enter__) == (not_found, "Servable not found for request: Latest(nope)")
    assert error_of(served, models, version=9) == (not_found, "Servable not found for request: Specific(den, 9)")
    assert error_of(models.status, "nope") == (not_found, "Could not find any versions of model nope")
    assert error_of(models.status, "den", 9) == (not_found, "Could not find version 9 of model den")


def test_nothing_starts_without_a_version(tmp_path, watch):
    with pytest.raises(ServingError, match="model den: no version found in"):
        watch()
    add(tmp_path, 1, is_bad=True)
    with pytest.raises(ServingError, match="model den: broken"):
        watch()
