"""Tests of images that were packed into shards: the same as before, and every damage is told."""

import concurrent.futures
import errno
import json
import resource
import sys
import threading
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tifffile
from image_kinds import write_all
from PIL import Image
from test_tfds_source import BsdenoiseSmall

from bsdenoise import images
from bsdenoise.data import packing, shards, sources
from bsdenoise.data.shards import ShardSource
from bsdenoise.data.sources import open_source, select

NUM_IMAGES = 18  # that can be read


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("kinds") / "in")


@pytest.fixture(name="photos", scope="module")
def _photos(tmp_path_factory):
    """Images of noise, of 30 kB each."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (100, 100, 3), "uint8")).save(folder / f"{number:02}.png")
    return folder


def _pack(source, out, shard_bytes=10**6, lines=None):
    return packing.pack(open_source(str(source)), out, shard_bytes, (lines if lines is not None else []).append)


def _readable(source):
    """Gives numbers of the images that can be read."""
    found = []
    for index in range(len(source)):
        try:
            source.read(index)
            found.append(index)
        except ValueError:
            pass
    return found


@pytest.mark.parametrize("shard_bytes", [1, 5000, 10**9], ids=["one each", "some", "all"])
def test_the_same_images(folder, tmp_path, shard_bytes):
    lines = []
    packed = _pack(folder, tmp_path / "out", shard_bytes, lines)
    before, after = open_source(str(folder)), open_source(str(tmp_path / "out"))
    assert isinstance(after, ShardSource) and len(after) == packed.images == NUM_IMAGES
    assert packed.left_out == 1 and len(lines) == 1 and "left out" in lines[0] and "broken.png: cannot be" in lines[0]
    assert packed.shards == len(list((tmp_path / "out").glob("*.arrayrecord")))
    assert {1: packed.shards == NUM_IMAGES, 5000: 1 < packed.shards < NUM_IMAGES, 10**9: packed.shards == 1}[
        shard_bytes
    ]
    order = np.random.default_rng(0).permutation(NUM_IMAGES)
    kept = _readable(before)
    for new in order:
        old, picture = before.read(kept[new]), after.read(new)
        np.testing.assert_array_equal(picture.array, old.array, strict=True)
        assert picture.notes == old.notes
        assert after.size(new) == old.array.shape[:2] == tuple(after.known_sizes()[new])
        assert after.short_name(new) == before.name(kept[new]).removeprefix(f"{folder}/")
        assert after.name(new).startswith(f"{after.short_name(new)} in {tmp_path}/out/images-0")
    assert any(after.read(new).notes for new in range(NUM_IMAGES))


def test_files_are_kept_byte_for_byte(folder, tmp_path):
    _pack(folder, tmp_path / "out")
    after = open_source(str(tmp_path / "out"))
    files = {after.short_name(index): after.content(index) for index in range(len(after))}
    assert {name for name, data in files.items() if data is None} == {
        *(f"stack.tif[{number}]" for number in range(3)),
        *(f"{name}[{number}]" for name in ("channels.npy", "many.zarr", "store.zarr") for number in range(2)),
    }
    assert all(data is None or data == (folder / name).read_bytes() for name, data in files.items())
    assert after.read(list(files).index("a.png")).format == "PNG"


def test_a_selection_and_what_is_packed_already(folder, tmp_path):
    chosen = select(open_source(str(folder)), 24, 30, lambda line: None)
    packing.pack(chosen, tmp_path / "one", 10**6, print)
    packing.pack(open_source(str(tmp_path / "one")), tmp_path / "two", 4000, print)
    found = [open_source(str(tmp_path / name)) for name in ("one", "two")]
    expected = [chosen.read(index) for index in _readable(chosen)]
    for source in found:
        assert len(source) == len(expected) > 3
        for index, picture in enumerate(expected):
            np.testing.assert_array_equal(source.read(index).array, picture.array, strict=True)
            assert source.read(index).notes == picture.notes
    assert found[0].names == found[1].names and found[1].has_file_names
    assert [size for size in found[1].known_sizes().tolist() if not 24 <= min(size) <= max(size) <= 30] == []


def test_an_npy_file(folder, tmp_path):
    before = open_source(str(folder / "channels.npy"))
    packing.pack(before, tmp_path / "out", 10**6, print)
    after = open_source(str(tmp_path / "out"))
    assert [after.short_name(index) for index in range(2)] == ["channels.npy[0]", "channels.npy[1]"]
    np.testing.assert_array_equal(after.read(1).array, before.read(1).array, strict=True)
    assert not after.has_file_names


@pytest.mark.parametrize("name", ["nested", "floats"])
def test_tensorflow_datasets(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds, "builder", lambda spec, data_dir: BsdenoiseSmall(data_dir=data_dir, config=name))
    spec = f"tfds:bsdenoise_small/{name}:test"
    before = open_source(spec)
    packing.pack(before, tmp_path / "out", 10**6, print)
    after = open_source(str(tmp_path / "out"))
    assert len(after) == 3 and after.short_name(2) == f"{spec}[2]"
    assert (after.content(0) is None) == (name == "floats")
    for index in range(3):
        np.testing.assert_array_equal(after.read(index).array, before.read(index).array, strict=True)


@pytest.mark.parametrize("most_open", [2, 100])
def test_threads_read_at_once(photos, tmp_path, monkeypatch, most_open):
    monkeypatch.setattr(shards, "MOST_OPEN", most_open)
    _pack(photos, tmp_path / "out", 40_000)
    before, after = open_source(str(photos)), open_source(str(tmp_path / "out"))
    expected = [before.read(index).array for index in range(len(before))]
    order = np.random.default_rng(0).integers(len(before), size=400)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for index, picture in zip(order, pool.map(after.read, order), strict=True):
            np.testing.assert_array_equal(picture.array, expected[index])


def test_decoding_holds_no_lock(photos, tmp_path, monkeypatch):
    """Two threads meet while each decodes, which they cannot if one has to wait for the other."""
    _pack(photos, tmp_path / "out")
    after = open_source(str(tmp_path / "out"))
    meeting = threading.Barrier(2, timeout=20)
    decode = shards.decode
    monkeypatch.setattr(shards, "decode", lambda data, name, no_data: (meeting.wait(), decode(data, name))[1])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(after.read, range(2)))) == 2


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.fixture(name="packed")
def _packed(photos, tmp_path):
    _pack(photos, tmp_path / "out", 150_000)
    return tmp_path / "out"


def _rewrite(path, change):
    with np.load(path) as content:
        arrays = dict(content)
    header = json.loads(arrays["header"].tobytes())
    change(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)


INDEX = images.PREPARED_INDEX
FIRST = "images-00000.arrayrecord"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / FIRST).unlink(), rf"{FIRST}: this part of what was prepared is missing\. Prepare it again"),
        (lambda out: (out / FIRST).write_bytes(b"cut"), rf"{FIRST}: expected \d+ bytes, received 3\. Prepare it again"),
        (lambda out: (out / INDEX).write_bytes(b"cut"), rf"{INDEX}: the index of what was prepared cannot be read"),
        (
            lambda out: _rewrite(out / INDEX, lambda header, arrays: header.update(format=2)),
            "expected format 1, received 2, of another bsdenoise",
        ),
        (
            lambda out: _rewrite(out / INDEX, lambda header, arrays: header["shards"].pop()),
            f"{INDEX}: the index contradicts itself",
        ),
        (
            lambda out: _rewrite(out / INDEX, lambda header, arrays: arrays.update(records=np.zeros(12))),
            f"{INDEX}: the index contradicts itself",
        ),
        (
            lambda out: (out / INDEX).unlink(),
            "holds shards without their index.*Remove the folder, and prepare it again",
        ),
    ],
    ids=["missing", "cut", "index", "format", "shards", "records", "unfinished"],
)
def test_damage_that_is_seen_at_once(packed, damage, message):
    damage(packed)
    with pytest.raises(ValueError, match=message):
        open_source(str(packed))


def test_one_flipped_bit_of_the_index(packed):
    data = bytearray((packed / INDEX).read_bytes())
    data[data.find(b"03.png")] ^= 1
    (packed / INDEX).write_bytes(data)
    with pytest.raises(ValueError, match="cannot be read"):
        open_source(str(packed))


@pytest.mark.parametrize("opened", [False, True], ids=["before", "while open"])
def test_a_damaged_record(packed, photos, opened):
    source = open_source(str(packed))
    if opened:
        source.read(0)
    path = packed / FIRST
    data = bytearray(path.read_bytes())
    place = data.find((photos / "02.png").read_bytes()[1000:1100])
    assert place > 0
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([data[place] ^ 1]))
    with pytest.raises(ValueError, match=rf"02\.png in .*{FIRST}: the record cannot be read: Corrupted.*mismatch\.$"):
        source.read(2)
    for index in (0, 1, 3, 11):
        np.testing.assert_array_equal(source.read(index).array, images.read_array(photos / f"{index:02}.png"))


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(bytes(path.stat().st_size)), lambda path: path.unlink()],
    ids=["zeros", "gone"],
)
def test_a_shard_that_is_lost_after_it_was_found(packed, photos, damage):
    source = open_source(str(packed))
    damage(packed / FIRST)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"01\.png in .*: the record cannot be read"):
            source.read(1)
    np.testing.assert_array_equal(source.read(11).array, images.read_array(photos / "11.png"))


def test_a_record_of_something_else(packed):
    _rewrite(packed / INDEX, lambda header, arrays: arrays["records"]["bytes"].__setitem__(1, 5))
    with pytest.raises(ValueError, match=r"01\.png in .*: expected a record of 5 bytes. Received: \d+"):
        open_source(str(packed)).read(1)


def test_more_than_one_image_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 9, 3), "uint8"))
    with pytest.raises(ValueError, match=r"name: expected one image. Received: shape=\(2, 8, 9, 3\)"):
        shards.decode((tmp_path / "a.npy").read_bytes(), "name")


def test_without_the_library(packed, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    with pytest.raises(ValueError, match="pip install array_record"):
        open_source(str(packed)).read(0)


def test_an_empty_name_is_no_prepared_folder(packed, monkeypatch):
    monkeypatch.chdir(packed)
    assert len(open_source(".")) == 12
    with pytest.raises(ValueError, match="is empty"):
        open_source("")


def test_a_prepared_folder_is_no_folder_of_files(packed):
    with pytest.raises(ValueError, match="holds images that `bsdenoise prepare` packed for training"):
        images.find(packed)


# --- partners ------------------------------------------------------------------------------------------------------


def test_partners(photos, packed, tmp_path):
    other = tmp_path / "targets"
    other.mkdir()
    for path in sorted(photos.iterdir()):
        Image.open(path).save(other / f"{path.stem}.tif")
    _pack(other, tmp_path / "other", 10**6)
    source, targets = open_source(str(packed)), open_source(str(tmp_path / "other"))
    for one, two in ((source, targets), (open_source(str(photos)), targets), (source, open_source(str(other)))):
        sources.check_partners(one, two)
    with pytest.raises(ValueError, match="must be other images than those of SOURCE"):
        sources.check_partners(source, open_source(str(packed)))
    (other / "03.tif").rename(other / "030.tif")
    with pytest.raises(ValueError, match=r"under the same names. Received: .*/030\.tif for 03\.png in"):
        sources.check_partners(source, open_source(str(other)))


# --- writing -------------------------------------------------------------------------------------------------------


def test_images_that_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MAX_REPORTS", 2)
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.png").write_text("no image")
    Image.new("RGB", (9, 8)).save(tmp_path / "in" / "z.png")
    lines = []
    packed = _pack(tmp_path / "in", tmp_path / "out", lines=lines)
    assert (packed.images, packed.left_out) == (1, 4)
    assert [line.split(":")[0] for line in lines[:2]] == [f"left out {tmp_path}/in/{number}.png" for number in range(2)]
    assert lines[0].count("0.png") == 1 and lines[2:] == ["whatever else is left out will not be named"]
    (tmp_path / "in" / "z.png").unlink()
    with pytest.raises(ValueError, match="None of the 4 images can be read"):
        _pack(tmp_path / "in", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("had_folder", [False, True], ids=["new", "empty"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, OSError(5, "gone")], ids=["Ctrl-C", "SIGTERM", "disk"]
)
def test_after_an_interruption_nothing_is_left(photos, tmp_path, monkeypatch, error, had_folder):
    out = tmp_path / "out"
    if had_folder:
        out.mkdir()
    original, calls = packing._checked, []

    def fail(write, *data):
        calls.append(len(list(out.iterdir())))
        if len(calls) == 10:
            raise error
        original(write, *data)

    monkeypatch.setattr(packing, "_checked", fail)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        _pack(photos, out, 60_000)
    assert max(calls) > 2, "there was something to remove"
    assert out.exists() == had_folder and (not had_folder or not list(out.iterdir()))


def test_the_index_comes_last(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(packing._Index, "write", lambda *_: (_ for _ in ()).throw(OSError(5, "no")))
    monkeypatch.setattr(packing.Path, "unlink", lambda *_, **__: None)  # as if it were killed
    monkeypatch.setattr(packing.Path, "rmdir", lambda *_: None)
    with pytest.raises(OSError, match="no"):
        _pack(photos, tmp_path / "out", 100_000)
    for action in (open_source, lambda out: _pack(photos, tmp_path / "out")):
        with pytest.raises(ValueError, match="holds shards without their index"):
            action(str(tmp_path / "out"))


def test_a_full_disk(photos, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written: ") as caught:
            _pack(photos, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG and FIRST in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda out: out.write_text("x"), "out: is a file; --out names a folder"),
        (lambda out: (out.mkdir(), (out / "x").touch()), "out: is not empty. Give another --out, or remove it"),
        (lambda out: (out.mkdir(), (out / INDEX).touch()), "out: holds prepared images already"),
        (lambda out: (out.mkdir(), (out / FIRST).touch()), "out: holds shards without their index"),
    ],
    ids=["file", "not empty", "prepared", "unfinished"],
)
def test_where_nothing_is_written(photos, tmp_path, make, message):
    make(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        _pack(photos, tmp_path / "out")


def test_the_index_is_small_and_plain(packed):
    """Other programs can read it: a zip of three arrays, the header JSON."""
    with zipfile.ZipFile(packed / INDEX) as content:
        assert sorted(content.namelist()) == ["header.npy", "names.npy", "records.npy"]
    with np.load(packed / INDEX) as content:
        header = json.loads(content["header"].tobytes())
    assert header["format"] == 1 and sum(number for _, number, _ in header["shards"]) == 12


def test_what_pixels_mean_is_kept(tmp_path):
    """Images of stacks go in as pixels, which say neither how many bits they have nor what their channels are."""
    (tmp_path / "in").mkdir()
    counts = np.random.default_rng(0).integers(0, 4096, (2, 3, 9, 8), "uint16")
    options = {"photometric": "minisblack", "bitspersample": 12, "extratags": [(42113, 2, 0, "7", True)]}
    tifffile.imwrite(tmp_path / "in/a.tif", counts, metadata={"axes": "ZCYX"}, **options)
    tifffile.imwrite(tmp_path / "in/b.tif", counts[0], metadata={"axes": "CYX"}, **options)
    tifffile.imwrite(tmp_path / "in/c.tif", counts.astype("float32"), photometric="minisblack")
    _pack(tmp_path / "in", tmp_path / "out")
    before, after = open_source(str(tmp_path / "in")), open_source(str(tmp_path / "out"))
    assert len(before) == len(after) == 2 + 1 + 6
    for index in range(len(before)):
        expected, found = before.read(index), after.read(index)
        np.testing.assert_array_equal(found.array, expected.array)
        for name in ("bits", "independent_channels", "no_data"):
            assert getattr(found, name) == getattr(expected, name)
    assert (after.read(0).bits, after.read(0).independent_channels, after.read(0).no_data) == (12, True, 7.0)


def test_folders_of_an_earlier_version_are_read(tmp_path):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in/a.npy", np.zeros((2, 9, 8, 1), np.uint8))
    _pack(tmp_path / "in", tmp_path / "out")
    index = tmp_path / "out" / images.PREPARED_INDEX
    with np.load(index) as content:
        kept = dict(content)
    header = json.loads(kept["header"].tobytes())
    del header["meanings"]
    np.savez(index, **{**kept, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    picture = open_source(str(tmp_path / "out")).read(1)
    assert (picture.array.shape, picture.bits, picture.independent_channels) == ((9, 8, 1), None, False)
