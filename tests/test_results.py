"""Results of this package are told from images, by their names and by lists of them."""

import json
import os
import threading
from pathlib import Path

import denoise_command
import numpy as np
import pytest
from denoise_command import denoise, grey, save, save_tiff

from bsdenoise import images
from bsdenoise.data import index as file_index
from bsdenoise.data.sources import open_source
from bsdenoise.images import results

use_model = denoise_command.use_model  # a fixture


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv(file_index.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(file_index, "FEWEST_FILES", 1)
    monkeypatch.setattr(file_index, "TICK_NS", 0)


def _names(source, lines=None):
    """Names of what a source holds: as `find`, a new index, and a cached one have it, which are the same."""
    found = sorted(str(path) for path in images.find(source, None if lines is None else lines.append))
    for _ in range(2):
        opened = open_source(str(source))
        assert sorted({str(opened.path(index)) for index in range(len(opened))}) == found
    return [os.path.relpath(path, source) if Path(source).is_dir() else os.path.basename(path) for path in found]


@pytest.mark.parametrize(
    ("name", "beside", "expected"),
    [
        ("denoised-x.tif", "x.tif", True),
        ("denoised-x-std.tif", "x.tif", True),
        ("denoised-x.ome-std.tif", "x.ome.tif", True),
        ("denoised-x.jpg-std.png", "x.jpg", True),
        ("denoised-denoised-x.tif", "denoised-x.tif", True),
        ("denoised-x.zarr", "x.zarr", True),
        ("denoised-x.tif", "y.tif", False),
        ("denoised-x.tif", "x.png", False),
        ("denoised-x-std.tif", "x.png", False),
        ("Denoised-x.tif", "x.tif", False),
        ("x-std.tif", "x.tif", False),
        ("denoised-.tif", "x.tif", False),
    ],
)
def test_names_of_results_beside_their_inputs(name, beside, expected):
    assert results.is_named_so(name, {beside, name}.__contains__) == expected


@pytest.mark.parametrize("name", ["a.tif", "b.jpg", "c.png", "d.npy"])
def test_what_denoise_writes_beside_an_image_is_no_image(tmp_path, use_model, name):
    use_model(1)
    source = save(tmp_path / "in" / name, grey())
    assert denoise(source, "--std") == 0
    assert len(os.listdir(tmp_path / "in")) == 3
    lines = []
    assert _names(tmp_path / "in", lines) == [name]
    assert lines == [
        f"{tmp_path / 'in'}: left out 2 results of bsdenoise "
        "(denoised-NAME beside NAME, or listed in .bsdenoise-results)"
    ]


@pytest.mark.parametrize("is_large", [False, True], ids=["whole", "in windows"])
def test_what_denoise_writes_elsewhere_is_no_image(tmp_path, use_model, monkeypatch, is_large):
    from bsdenoise.pipeline import file_task

    if is_large:
        monkeypatch.setattr(file_task, "STREAMED_PIXELS", 10)
    use_model(1)
    save(tmp_path / "in/a.npy", grey())
    (tmp_path / "in/sub").mkdir()
    save_tiff(tmp_path / "in/sub/b.tif", (3, 5, 7))
    assert denoise(tmp_path / "in", "--out", tmp_path / "in/results", "--std") == 0
    assert denoise(tmp_path / "in/a.npy", "--out", tmp_path / "in/sub/other name.npy") == 0
    assert (tmp_path / "in/results/sub/b-std.tif").exists()
    lines = []
    assert _names(tmp_path / "in", lines) == ["a.npy", "sub/b.tif"]
    assert len(lines) == 1 and "left out 5 results" in lines[0]


def test_the_next_run_takes_the_same_images(tmp_path, use_model, capsys):
    denoiser = use_model(1)
    for name in "abc":
        save(tmp_path / f"in/{name}.png", grey())
    assert denoise(tmp_path / "in/a.png") == 0
    assert denoise(tmp_path / "in", "--out", tmp_path / "in/out") == 0
    assert denoise(tmp_path / "in", "--out", tmp_path / "second") == 0
    assert len(denoiser.shapes) == 1 + 3 + 3
    assert "left out 4 results" in capsys.readouterr().err
    assert denoise(f"{tmp_path}/in/**/*.png", "--out", tmp_path / "third") == 0
    assert len(denoiser.shapes) == 7 + 3
    # As a shell makes a list of a glob.
    everything = sorted((tmp_path / "in").rglob("*.png"))
    assert denoise(*everything, "--out", tmp_path / "fourth") == 0
    assert len(denoiser.shapes) == 10 + 3
    assert capsys.readouterr().err.count("left out 4 results") == 2


def test_results_that_are_named_are_taken(tmp_path, use_model, capsys):
    denoiser = use_model(1)
    save(tmp_path / "in/a.png", grey())
    save(tmp_path / "in/b.png", grey())
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert denoise(tmp_path / "in/a.png") == 0
    capsys.readouterr()
    lines = []
    assert _names(tmp_path / "out", lines) == ["a.png", "b.png"]
    assert lines == [f"{tmp_path / 'out'}: holds nothing but results of bsdenoise, so they are taken"]
    assert _names(f"{tmp_path}/in/denoised-*.png") == ["denoised-a.png"]
    assert denoise(tmp_path / "in/denoised-a.png", "--out", tmp_path / "twice") == 0
    assert len(denoiser.shapes) == 2 + 1 + 1
    assert "left out" not in capsys.readouterr().err


def test_images_below_out_are_said_to_be_left_out(tmp_path, use_model, capsys):
    """As a version wrote them that kept no list."""
    use_model(1)
    save(tmp_path / "in/a.png", grey())
    save(tmp_path / "in/out/old.png", grey())
    assert denoise(tmp_path / "in", "--out", tmp_path / "in/out") == 0
    words = f"left out 1 of its images: they are in {tmp_path / 'in/out'}, where results go"
    assert words in capsys.readouterr().err
    (tmp_path / "in/a.png").unlink()
    assert denoise(tmp_path / "in", "--out", tmp_path / "in/out", "--overwrite") == 2
    assert "no image found there but those in" in capsys.readouterr().err


def test_an_index_notices_results_that_come_later(tmp_path, use_model):
    use_model(1)
    source = save(tmp_path / "in/a.png", grey())
    save(tmp_path / "in/b.png", grey())
    assert _names(tmp_path / "in") == ["a.png", "b.png"]
    assert denoise(source, "--out", tmp_path / "in/c.png") == 0
    assert _names(tmp_path / "in") == ["a.png", "b.png"]
    (tmp_path / "in/c.png").rename(tmp_path / "in/d.png")  # whoever gives it a name wants it
    assert _names(tmp_path / "in") == ["a.png", "b.png", "d.png"]


def test_a_list_is_text_with_a_name_in_each_line(tmp_path):
    lists = results.Lists()
    for name in ("a.png", 'ö "b".tif', "line\nbreak.png", "a.png", os.fsdecode(b"\xff.png")):
        lists.add(tmp_path / name)
    results.Lists().add(tmp_path / "a.png")
    text = (tmp_path / results.LIST).read_bytes().decode("ascii").splitlines()
    assert [json.loads(line) for line in text] == ["a.png", 'ö "b".tif', "line\nbreak.png", os.fsdecode(b"\xff.png")]
    assert results.listed_in(tmp_path) == {json.loads(line) for line in text}


def test_a_damaged_list_names_what_can_be_read(tmp_path):
    (tmp_path / results.LIST).write_bytes(b'"a.png"\n"half\n\xff\xfe\n17\n"b.png"\n\n')
    assert results.listed_in(tmp_path) == {"a.png", "b.png"}
    assert results.listed_in(tmp_path / "none") == frozenset()


def test_a_list_that_cannot_be_written_stops_nothing(tmp_path, use_model):
    use_model(1)
    (tmp_path / "out" / results.LIST).mkdir(parents=True)
    assert denoise(save(tmp_path / "a.png", grey()), "--out", tmp_path / "out") == 0
    assert (images.read_array(tmp_path / "out/a.png") == 50).all()


def test_threads_and_processes_share_a_list(tmp_path):
    def work(number):
        lists = results.Lists()
        for index in range(50):
            lists.add(tmp_path / f"{number}-{index}.png")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.listed_in(tmp_path) == {f"{number}-{index}.png" for number in range(4) for index in range(50)}


def test_figures_are_no_images(tmp_path):
    lists = results.Lists()
    save(tmp_path / "a.png", grey())
    lists.add(tmp_path / "figure.png")
    save(tmp_path / "figure.png", grey())
    assert [path.name for path in images.find(tmp_path)] == ["a.png"]
    np.testing.assert_array_equal(images.read_array(tmp_path / "figure.png"), grey())
