"""Files that a search leaves out are counted by kind, and said."""

import denoise_command
import pytest
from denoise_command import denoise, grey, save

from bsdenoise import cli, images
from bsdenoise.data import index as file_index
from bsdenoise.data.sources import open_source
from bsdenoise.images.formats.left_out import LeftOut, unreadable_kind

IMAGES = (
    "a.webp b.WEBP c.webp d.heic e.cr2 f.dng g.nd2 h.czi i.lif j.avif k.gif l.bmp m.fits n.fits.gz o.tif.gz".split()
)
OTHERS = "notes.txt a.json a.xmp Thumbs.db .DS_Store .hidden.webp readme a.tar.json table.csv a.csv.gz a.md5".split()

use_model = denoise_command.use_model  # a fixture


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(file_index.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(file_index, "FEWEST_FILES", 1)
    monkeypatch.setattr(file_index, "TICK_NS", 0)
    for name in (*IMAGES, *OTHERS, *(f"deep/{name}" for name in ("p.webp", "x.txt"))):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    save(tmp_path / "in/z.png", grey())
    return tmp_path / "in"


EXPECTED = (
    "left out 4 .webp files, 1 .avif file, 1 .bmp file, 1 .cr2 file, 1 .czi file, 1 .dng file, 1 .fits file, "
    "1 .fits.gz file and 5 other image files: these kinds cannot be read"
)


def test_the_same_words_for_all(folder):
    said = []
    images.find(folder, said.append)
    for _ in range(2):  # the second time from the cache
        open_source(str(folder), say=said.append)
    images.find(f"{folder}/**", said.append)
    assert said == [*[f"{folder}: {EXPECTED}"] * 3, f"{folder}/**: {EXPECTED}"]


def test_nothing_is_said_where_nothing_is_left_out(folder):
    said = []
    images.find(f"{folder}/*.png", said.append)
    open_source(str(folder / "z.png"), say=said.append)
    assert said == []


@pytest.mark.parametrize(("name", "kind"), [("A.Nii.GZ", ".nii.gz"), ("x.png.zst", ".png.zst"), ("x.CR3", ".cr3")])
def test_kinds(name, kind):
    assert unreadable_kind(name) == kind


@pytest.mark.parametrize(
    "name", [*(name for name in OTHERS if not name.startswith(".h")), "a.png", "x", "webp", "x.gz", "x.txt.gz"]
)
def test_no_kinds(name):
    assert unreadable_kind(name) is None


def test_one_of_a_kind():
    left_out = LeftOut()
    assert left_out.notes("in") == []
    left_out.add(1, {".heic": 1})
    assert left_out.notes("in") == [
        "in: left out 1 result of bsdenoise (denoised-NAME beside NAME, or listed in .bsdenoise-results)",
        "in: left out 1 .heic file: these kinds cannot be read",
    ]
    left_out.add(0, {".heic": 2, ".webp": 4})
    assert left_out.notes("in")[1] == "in: left out 4 .webp files and 3 .heic files: these kinds cannot be read"


def test_denoise_says_it(folder, tmp_path, use_model, capsys):
    use_model(1)
    assert denoise(folder, "--out", tmp_path / "out") == 0
    assert f"bsdenoise: note: {folder}: {EXPECTED}" in capsys.readouterr().err.splitlines()


def test_prepare_says_it(folder, tmp_path, capsys):
    assert cli.main(["prepare", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert f"note: {folder}: {EXPECTED}" in capsys.readouterr().out.splitlines()


def test_datasets_says_it(folder, capsys):
    cli.main(["datasets", str(folder)])
    assert f"bsdenoise: note: {folder}: {EXPECTED}" in capsys.readouterr().err.splitlines()


def test_where_nothing_else_is_there(folder):
    (folder / "z.png").unlink()
    with pytest.raises(ValueError, match=r"no image found there. Expected .* It holds 4 \.webp files, 1 \.avif file"):
        images.find(folder)
    with pytest.raises(ValueError, match=r"no image found there. .* It holds 4 \.webp files"):
        open_source(str(folder))
