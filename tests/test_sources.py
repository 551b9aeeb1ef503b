"""Tests of SOURCE → a numbered set of images, and of the choice by size."""

import time

import numpy as np
import pytest
import tifffile
from PIL import Image

from bsdenoise.data import faults, header_scan, sources
from bsdenoise.data import index as file_index
from bsdenoise.data.sources import ArraySource, FileSource, open_source, select


def _write(path, height, width, value=0, dtype="uint8"):
    Image.fromarray(np.full((height, width, 3), value, dtype)).save(path)


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """Three files of one image, a TIFF stack of four, and an `.npy` stack of two, sorted by name."""
    (tmp_path / "more").mkdir()
    _write(tmp_path / "a.png", 40, 50)
    _write(tmp_path / "more" / "b.jpg", 60, 30)
    _write(tmp_path / "c.tif", 45, 35)
    stack = np.arange(4 * 20 * 24, dtype="uint8").reshape(4, 20, 24)
    tifffile.imwrite(tmp_path / "d.tif", stack, photometric="minisblack")
    np.save(tmp_path / "e.npy", np.stack([np.full((18, 22, 5), value, "uint16") for value in (7, 9)]))
    return tmp_path


def test_every_image_of_a_stack_counts(folder):
    source = open_source(str(folder))
    assert isinstance(source, FileSource) and len(source) == 1 + 1 + 4 + 2 + 1
    names = [source.name(index).removeprefix(f"{folder}/") for index in range(len(source))]
    assert names == [
        "a.png",
        "c.tif",
        "d.tif[0]",
        "d.tif[1]",
        "d.tif[2]",
        "d.tif[3]",
        "e.npy[0]",
        "e.npy[1]",
        "more/b.jpg",
    ]
    expected = np.arange(4 * 20 * 24, dtype="uint8").reshape(4, 20, 24)
    for page in range(4):
        np.testing.assert_array_equal(source.read(2 + page).array.reshape(20, 24), expected[page])
    assert [source.read(6 + k).array.max() for k in range(2)] == [7, 9]
    assert source.read(7).array.shape == (18, 22, 5)


def test_sizes(folder):
    source = open_source(str(folder))
    sizes = [source.size(index) for index in range(len(source))]
    assert sizes == [(40, 50), (45, 35), *[(20, 24)] * 4, *[(18, 22)] * 2, (60, 30)]
    assert sizes == [source.read(index).array.shape[:2] for index in range(len(source))]


def test_sizes_need_no_pixels(folder, monkeypatch):
    source = open_source(str(folder))
    monkeypatch.setattr(FileSource, "read", lambda self, index: pytest.fail("an image was decoded"))
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[:45])  # signature, header, and where pixels would begin
    assert source.size(0) == (40, 50) and source.size(8) == (60, 30)


def test_kinds_of_source(folder):
    assert len(open_source(str(folder / "*.tif"))) == 5
    assert len(open_source(str(folder / "a.png"))) == 1
    assert len(open_source(str(folder / "d.tif"))) == 4
    source = open_source(str(folder / "e.npy"))
    assert isinstance(source, ArraySource) and isinstance(source.array, np.memmap)
    assert len(source) == 2 and source.read(1).array.shape == (18, 22, 5) and source.size(1) == (18, 22)
    assert source.name(1).endswith("e.npy[1]")


@pytest.mark.parametrize(
    ("shape", "count"),
    [((20, 30), 1), ((20, 30, 3), 1), ((4, 20, 30), 4), ((4, 20, 30, 1), 4), ((3, 20, 30, 5), 3)],
    ids=["grey", "colour", "greys", "grey batch", "five channels"],
)
def test_array_shapes(tmp_path, shape, count):
    np.save(tmp_path / "a.npy", np.zeros(shape, "uint16"))
    assert len(open_source(str(tmp_path / "a.npy"))) == count


def test_arrays_of_foreign_byte_order(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 8, 8), 258, ">u2"))
    array = open_source(str(tmp_path / "a.npy")).read(0).array
    assert array.dtype == np.uint16 and array.dtype.isnative and array.max() == 258


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not numpy", r"a\.npy: not a readable .npy"),
        (np.zeros((4, 4), "int64"), r"a\.npy: Pixels must be"),
        (np.zeros(9, "uint8"), r"a\.npy: the shape must be \(H, W\), "),
    ],
    ids=["broken", "type", "rank"],
)
def test_bad_arrays(tmp_path, content, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(ValueError, match=message):
        open_source(str(path))


def test_a_broken_stack_is_named_when_it_is_read(folder):
    (folder / "d.tif").write_bytes(b"II*\0 broken")
    source = open_source(str(folder))
    assert len(source) == 6
    with pytest.raises(ValueError, match=r"d\.tif"):
        source.read(2)


def test_more_than_one_image_is_refused(tmp_path, monkeypatch):
    _write(tmp_path / "a.png", 8, 8)
    source = open_source(str(tmp_path / "a.png"))
    stack = sources.Picture(np.zeros((2, 8, 8, 3), "uint8"), "TIFF")
    monkeypatch.setattr(sources.images, "read_image", lambda path, index, axes, no_data: stack)
    with pytest.raises(ValueError, match="expected one image"):
        source.read(0)


@pytest.mark.parametrize(
    ("low", "high", "kept"),
    [
        (None, None, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (20, None, [0, 1, 2, 3, 4, 5, 8]),
        (None, 24, [2, 3, 4, 5, 6, 7]),
        (30, 50, [0, 1]),
        (40, 50, [0]),
        (24, 60, [0, 1, 8]),
    ],
    ids=str,
)
def test_both_sides_within_the_limits(folder, low, high, kept):
    source = open_source(str(folder))
    chosen = select(source, low, high)
    assert [chosen.name(index) for index in range(len(chosen))] == [source.name(index) for index in kept]
    for index, place in enumerate(kept):
        np.testing.assert_array_equal(chosen.read(index).array, source.read(place).array)
        assert chosen.size(index) == source.size(place)


def test_images_without_a_readable_size_are_named(folder, monkeypatch):
    monkeypatch.setattr(faults, "MAX_REPORTS", 2)
    for name in ("x.png", "y.tif", "z.jpg"):
        (folder / name).write_bytes(b"no image")
    lines = []
    assert len(select(open_source(str(folder)), 10, None, lines.append)) == 9
    assert (
        len(lines) == 3 and "not be named" in lines[2] and "x.png: cannot be read" in lines[0] and "y.tif" in lines[1]
    )
    assert lines[0].count("x.png") == 1


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(100, None, r"at least 100 \(--min-side\) pixels"), (70, 80, r"at least 70 .*and at most 80 \(--max-side\)")],
    ids=["least", "both"],
)
def test_no_image_of_such_a_size(folder, low, high, words):
    with pytest.raises(ValueError, match=f"None of the 9 images has sides of {words}"):
        select(open_source(str(folder)), low, high)


@pytest.fixture
def kept(folder, monkeypatch, tmp_path_factory):
    """The folder, with an index that is kept of it."""
    monkeypatch.setenv(file_index.CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(file_index, "FEWEST_FILES", 1)
    monkeypatch.setattr(file_index, "TICK_NS", 0)
    time.sleep(0.02)  # some ticks of the clock of the file system
    return folder


def test_the_second_time_no_file_is_opened(kept, monkeypatch):
    before = [select(open_source(str(kept)), low, 50).indices.tolist() for low in (1, 30)]
    monkeypatch.setattr(header_scan, "in_threads", lambda function, numbers, *_: pytest.fail() if len(numbers) else {})
    assert [select(open_source(str(kept)), low, 50).indices.tolist() for low in (1, 30)] == before
    source = open_source(str(kept))
    assert [source.size(index) for index in (0, 2, 8)] == [(40, 50), (20, 24), (60, 30)]


def test_sizes_that_were_read_are_kept_after_ctrl_c(kept, monkeypatch):
    measure = sources.FileSource.size

    def size(self, index):
        if index == 8:
            raise KeyboardInterrupt
        return measure(self, index)

    monkeypatch.setattr(FileSource, "size", size)
    monkeypatch.setattr(header_scan, "PART", 1)
    with pytest.raises(KeyboardInterrupt):
        select(open_source(str(kept)), 1, None)
    index = open_source(str(kept)).index
    assert index.facts("height").tolist() == [40, 45, 20, 18, 0]


def test_many_images_are_announced(folder, monkeypatch, capsys):
    monkeypatch.setattr(header_scan, "MANY_IMAGES", 2)
    source = open_source(str(folder))
    assert "counting the images of 3 files …" in capsys.readouterr().out
    select(source, 1, None)
    assert "reading the sizes of 2 images …" in capsys.readouterr().out  # of the others they were met on the way
