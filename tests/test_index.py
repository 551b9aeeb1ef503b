"""Tests of the index of a folder's image files: the same as a search, whatever is in the cache."""

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from bsdenoise import images
from bsdenoise.data import index as file_index

CLOCK_TICK = 0.02  # seconds, some of the kernel's: times of folders are as coarse as that
NAMES = (
    "z.png",
    "a.JPG",
    "a/1.png",
    "a/2.tiff",
    "a-b/3.npy",
    "a.b/4.jpeg",
    "a.png/5.png",
    "deep/er/6.tif",
    "deep/er-/7.tif",
    "deep/er.png",
    "deep/f[1].png",
    "store.zarr/zarr.json",
    "store.zarr/inner.png",
    "ä/8.png",
    "notes.txt",
    ".hidden.png",
    ".cache/9.png",
    "a/.10.png",
    "empty/readme",
)


@pytest.fixture(autouse=True)
def _small_and_quick(tmp_path, monkeypatch):
    monkeypatch.setenv(file_index.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(file_index, "FEWEST_FILES", 1)
    monkeypatch.setattr(file_index, "TICK_NS", 0)


@pytest.fixture
def tree(tmp_path):
    for name in NAMES:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    time.sleep(CLOCK_TICK)
    return tmp_path / "tree"


@pytest.fixture
def listed(monkeypatch):
    """The folders that were listed, by their names."""
    names = []
    original = images.list_folder

    def list_folder(folder):
        names.append(os.path.basename(folder))
        return original(folder)

    monkeypatch.setattr(images, "list_folder", list_folder)
    return names


def _search(folder):
    """Finds image files as they are defined: an `os.walk` over paths, sorted as paths."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        stores = [name for name in folders if name.endswith(".zarr")]
        folders[:] = [name for name in folders if name not in stores and not name.startswith(".")]
        found += [Path(parent, name) for name in (*stores, *names) if not name.startswith(".")]
    suffixes = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".zarr"}
    return sorted(path for path in found if path.suffix.lower() in suffixes)


def _open(folder):
    index = file_index.of_folder(folder)
    index.save()
    return index


def _paths(index):
    return [index.path(number) for number in range(len(index))]


def test_the_same_as_a_search(tree):
    expected = _search(tree)
    assert len(expected) == 13
    assert _paths(_open(tree)) == images.find(tree) == expected
    assert _paths(_open(tree)) == expected, "from the cache"
    below = [str(path.relative_to(tree)) for path in expected]
    for index in (_open(tree), file_index.of_files(expected, tree)):
        assert [index.name(number) for number in range(len(index))] == below
        assert b"".join(index.paths_in_bytes()) == "".join(f"{name}\0" for name in below).encode()


def test_names_that_are_no_text(tmp_path):
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    for name in (b"\xff.png", b"b\n.png"):
        with open(os.path.join(folder, name), "wb"):
            pass
    expected = _search(tmp_path / "odd")
    assert _paths(_open(tmp_path / "odd")) == _paths(_open(tmp_path / "odd")) == expected


def test_relative_folders(tree, monkeypatch):
    monkeypatch.chdir(tree)
    for folder in (Path("."), Path("a")):
        assert _paths(_open(folder)) == _paths(_open(folder)) == _search(folder)


def test_nothing_is_listed_twice(tree, listed):
    _open(tree)
    assert len(listed) == len(set(listed)) == 10
    listed.clear()
    _open(tree)
    assert listed == []


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda tree: (tree / "a" / "new.png").touch(), ["a"]),
        (lambda tree: (tree / "a" / "1.png").unlink(), ["a"]),
        (lambda tree: (tree / "deep" / "er" / "6.tif").rename(tree / "ä" / "6.tif"), ["er", "ä"]),
        (lambda tree: (tree / "new").mkdir(), ["tree", "new"]),
        (lambda tree: (tree / "deep").rename(tree / "deeper"), ["tree", "deeper", "er", "er-"]),
        (lambda tree: [(tree / "a-b" / "3.npy").unlink(), (tree / "a-b").rmdir()], ["tree"]),
        (lambda tree: (tree / "a" / "1.png").write_text("longer"), []),
    ],
    ids=["added", "removed", "moved", "new folder", "renamed folder", "removed folder", "rewritten in place"],
)
def test_only_what_changed_is_listed_again(tree, listed, change, again):
    before = _open(tree)
    for number in range(len(before)):
        before.learn(number, height=number + 1, width=7)
    before.save()
    heights = {before.name(number): number + 1 for number in range(len(before))}
    listed.clear()
    change(tree)
    index = _open(tree)
    assert sorted(listed) == sorted(again)
    assert _paths(index) == _search(tree)
    for number in range(len(index)):
        is_new = index.path(number).parent.name in again
        assert index.fact(number, "height") == (0 if is_new else heights[index.name(number)])


def test_a_folder_that_changed_just_now_is_listed_again(tree, listed, monkeypatch):
    monkeypatch.setattr(file_index, "TICK_NS", 3600 * 10**9)
    _open(tree)
    listed.clear()
    _open(tree)
    assert len(listed) == 10


def test_small_folders_are_not_kept(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(file_index, "FEWEST_FILES", 14)
    _open(tree)
    assert not (tmp_path / "cache").exists()


def _rewrite(path, **changes):
    with np.load(path) as content:
        arrays = dict(content)
    header = json.loads(arrays["header"].tobytes()) | changes.pop("header", {})
    arrays |= {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)} | changes
    np.savez(path, **arrays)


def _flip(path):
    data = bytearray(path.read_bytes())
    data[data.find(b"z.png")] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"something else"),
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        _flip,
        lambda path: _rewrite(path, header={"format": 99}),
        lambda path: _rewrite(path, header={"folder": "/another"}),
        lambda path: _rewrite(path, header={"folders": [["", [1, 2], "x"]]}),
        lambda path: _rewrite(path, header={"folders": [["", [1, 2, 3], [], 5, 3]]}),
        lambda path: _rewrite(path, names=np.zeros(13, np.uint8)),
        lambda path: _rewrite(path, names=np.zeros(2, np.uint8)),
        lambda path: _rewrite(path, facts=np.zeros(13)),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=[
        "empty",
        "foreign",
        "cut",
        "flipped",
        "format",
        "folder",
        "folders",
        "numbers",
        "names",
        "fewer names",
        "facts",
        "no file",
    ],
)
def test_a_damaged_cache_is_as_good_as_none(tree, damage):
    _open(tree)
    damage(file_index.cache_file(tree))
    assert _paths(_open(tree)) == _search(tree)
    assert _paths(_open(tree)) == _search(tree)


def test_a_cache_that_cannot_be_written(tree, tmp_path, listed):
    (tmp_path / "cache").write_text("a file")
    for _ in range(2):
        assert _paths(_open(tree)) == _search(tree)
    assert len(listed) == 20


def test_where_the_cache_is(tmp_path, monkeypatch):
    assert file_index.cache_file(tmp_path).parent == tmp_path / "cache" / "index"
    monkeypatch.delenv(file_index.CACHE_VARIABLE)
    assert file_index.cache_file(tmp_path).parent == platformdirs.user_cache_path("bsdenoise") / "index"


def test_links(tree, tmp_path):
    """A folder is searched once, however many links lead there; also in a circle, and after its target has gone."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.png").touch()
    (tree / "link").symlink_to(tmp_path / "outside")
    (tree / "link2").symlink_to(tmp_path / "outside")
    (tree / "a" / "circle").symlink_to(tree)
    (tree / "broken.png").symlink_to(tree / "missing")
    time.sleep(CLOCK_TICK)
    expected = sorted([*_search_without_links(tree), tree / "link" / "x.png"])
    assert _paths(_open(tree)) == _paths(_open(tree)) == images.find(tree) == expected
    (tmp_path / "outside" / "x.png").unlink()
    (tmp_path / "outside").rmdir()
    expected.remove(tree / "link" / "x.png")
    assert _paths(_open(tree)) == images.find(tree) == expected


def _search_without_links(tree):
    links = [path for path in tree.rglob("*") if path.is_symlink() and path.is_dir()]
    targets = [path.readlink() for path in links]
    for path in links:
        path.unlink()
    found = _search(tree)
    for path, target in zip(links, targets, strict=True):
        path.symlink_to(target)
    time.sleep(CLOCK_TICK)
    return found


def test_a_folder_that_cannot_be_listed(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("er-"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="er-"):
        file_index.of_folder(tree)


def test_many_at_once(tree, tmp_path):
    found = []

    def work():
        for _ in range(20):
            index = file_index.of_folder(tree)
            index.learn(0, height=3)  # so that there is something to write
            index.save()
            found.append(_paths(file_index.of_folder(tree)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80 and all(paths == _search(tree) for paths in found)
    assert len(os.listdir(tmp_path / "cache" / "index")) == 1


def test_bytes(tree, listed):
    (tree / "ghost.png").symlink_to(tree / "missing")
    time.sleep(CLOCK_TICK)
    index = _open(tree)
    index.measure_bytes()
    index.save()
    expected = {str(path.relative_to(tree)): path.stat().st_size for path in _search(tree) if path.is_file()}
    expected |= {
        "ghost.png": file_index.MISSING,
        "store.zarr": len("store.zarr/zarr.json") + len("store.zarr/inner.png"),
    }
    for one in (index, _open(tree)):
        assert {one.name(number): int(size) for number, size in enumerate(one.facts("bytes"))} == expected
