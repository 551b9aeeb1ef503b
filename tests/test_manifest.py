"""Tests of the checksum that says whether two sources hold the same images."""

import hashlib
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from test_tfds_source import BsdenoiseSmall

from bsdenoise.data import manifest as manifests
from bsdenoise.data import packing
from bsdenoise.data.manifest import manifest
from bsdenoise.data.sources import open_source, select
from bsdenoise.data.tfds_source import TfdsSource


def _of(path):
    return manifest(open_source(str(path)))


@pytest.fixture(name="folder")
def _folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "more/b.png", "more/c.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), "uint8")).save(path)
    return tmp_path / "in"


def test_it_is_what_the_documentation_says(folder, monkeypatch):
    monkeypatch.setattr(manifests, "MOST_SAMPLED", 0)
    names = ("a.png", "more/b.png", "more/c.png")
    content = b"bsdenoise manifest 1 FileSource " + "".join(f"{name}\0" for name in names).encode()
    content += np.array([(folder / name).stat().st_size for name in names], "<i8").tobytes()
    assert _of(folder) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("most", [0, 100], ids=["large", "small"])
def test_it_does_not_depend_on_the_place(folder, tmp_path, monkeypatch, most):
    monkeypatch.setattr(manifests, "MOST_SAMPLED", most)
    before = _of(folder)
    shutil.copytree(folder, tmp_path / "elsewhere" / "deep")
    os.utime(tmp_path / "elsewhere" / "deep" / "a.png", (5, 5))
    assert _of(tmp_path / "elsewhere" / "deep") == _of(f"{folder}/**/*.png") == before
    monkeypatch.chdir(folder)
    assert _of(".") == before
    (folder / "notes.txt").touch()
    assert _of(".") == before


@pytest.mark.parametrize("most", [0, 100], ids=["large", "small"])
@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.png").rename(folder / "b.png"),
        lambda folder: (folder / "more" / "b.png").rename(folder / "b.png"),
        lambda folder: (folder / "a.png").unlink(),
        lambda folder: shutil.copy(folder / "a.png", folder / "z.png"),
        lambda folder: (folder / "a.png").write_bytes((folder / "a.png").read_bytes() + b"!"),
    ],
    ids=["renamed", "moved", "removed", "added", "longer"],
)
def test_what_changes_it(folder, monkeypatch, most, change):
    monkeypatch.setattr(manifests, "MOST_SAMPLED", most)
    before = _of(folder)
    change(folder)
    assert _of(folder) != before


@pytest.mark.parametrize(("most", "sees"), [(0, False), (100, True)], ids=["large", "small"])
def test_other_content_of_the_same_length_is_seen_in_small_sources_only(folder, monkeypatch, most, sees):
    monkeypatch.setattr(manifests, "MOST_SAMPLED", most)
    before = _of(folder)
    data = bytearray((folder / "a.png").read_bytes())
    data[100] ^= 1
    (folder / "a.png").write_bytes(data)
    assert (_of(folder) != before) == sees


@pytest.mark.parametrize("place", [0, 199_999, 100_000], ids=["first", "last", "middle"])
def test_an_npy_file(tmp_path, place):
    array = np.zeros((2, 1000, 100), "uint8")
    found = []
    for value in (0, 1):
        array.reshape(-1)[place // 1000 * 1000 : place // 1000 * 1000 + 7000] = value
        array.reshape(-1)[place] = value
        np.save(tmp_path / "a.npy", array)
        found.append(_of(tmp_path / "a.npy"))
    assert found[0] != found[1]
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "a.npy", tmp_path / "elsewhere" / "a.npy")
    assert _of(tmp_path / "elsewhere" / "a.npy") == found[1]


def test_a_selection(folder):
    Image.new("RGB", (9, 8)).save(folder / "more" / "small.png")
    source = open_source(str(folder))
    found = {manifest(select(source, *limits)) for limits in ((None, None), (10, None), (None, 10))}
    assert len(found) == 3
    assert manifest(select(source, 10, None)) == manifest(select(source, 15, None)), "the same images"


def test_a_prepared_folder(folder, tmp_path):
    for name, size in (("one", 10**6), ("two", 1000)):
        packing.pack(open_source(str(folder)), tmp_path / name, size, print)
    assert _of(tmp_path / "one") == _of(tmp_path / "two") != _of(folder)
    data = bytearray((folder / "a.png").read_bytes())
    pixels = np.array(Image.open(folder / "a.png"))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(folder / "a.png")
    assert (folder / "a.png").read_bytes() != data
    packing.pack(open_source(str(folder)), tmp_path / "three", 10**6, print)
    assert _of(tmp_path / "three") != _of(tmp_path / "one")


def test_tensorflow_datasets(tmp_path, monkeypatch):
    def open_at(root, split):
        monkeypatch.setattr(tfds, "builder", lambda spec, data_dir: BsdenoiseSmall(data_dir=root, config="nested"))
        return manifest(open_source(f"tfds:bsdenoise_small/nested:{split}"))

    one = {split: open_at(tmp_path / "one", split) for split in ("train", "train[:50%]", "test")}
    two = {split: open_at(tmp_path / "two", split) for split in one}
    assert one == two and len(set(one.values())) == 3


def test_tensorflow_datasets_of_another_size():
    def of(num_bytes):
        instruction = SimpleNamespace(filename="/some/where/a.array_record", skip=0, take=3, examples_in_shard=3)
        split = SimpleNamespace(file_instructions=[instruction], num_bytes=num_bytes)
        info = SimpleNamespace(full_name="a/1.0.0", splits={"train": split})
        return manifest(TfdsSource("tfds:a:train", SimpleNamespace(dataset_info=info, split="train"), None, (), None))

    assert of(5) == of(5) != of(6)


def test_unknown_kinds_of_source():
    with pytest.raises(TypeError, match="Expected a source of files, shards or tensorflow_datasets. Received: list"):
        manifest([])
