"""`bsdenoise datasets` as its users call it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bsdenoise import cli
from bsdenoise.evaluation import references, testsets

NAMES = [f"kodim{number:02}.png" for number in range(1, 5)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of four images that are a whole test set."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(rng.integers(0, 255, (8, 12, 3), "uint8")).save(folder / name)
    images = tuple(testsets.measure(str(folder)).images)
    one = testsets.KnownSet(key="kodak24", about="a", source="b", terms="c", draws=10, images=images)
    monkeypatch.setattr(testsets, "known_sets", lambda: {"kodak24": one})
    return folder


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))

    def run(*arguments):
        code = cli.main(["datasets", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_complete_sets(call, folder):
    assert call(folder) == (0, f"{folder}: Kodak, complete: 4 images\n", "")


def test_what_is_wrong_comes_a_line_each(call, folder):
    (folder / NAMES[1]).unlink()
    Image.new("RGB", (5, 5)).save(folder / "x.png")
    code, text, errors = call(folder)
    assert (code, errors) == (2, "")
    assert text.splitlines() == [
        f"{folder}: Kodak, but not as in the paper:",
        "  3 of 4 images, missing: kodim02.png",
        "  1 image is not of this set: x.png",
    ]


def test_other_folders(call, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (5, 6)).save(other / "x.png")
    (other / "y.png").write_bytes(b"")
    code, text, _ = call(folder, other)
    assert code == 2
    assert text.splitlines()[1:] == [
        f"{other}: no test set that is known: 2 images, 5×6",
        "  y.png: cannot be read: it is empty.",
    ]


def test_a_folder_that_is_not_there_is_named_and_the_others_are_looked_at(call, folder, tmp_path):
    code, text, errors = call(tmp_path / "nowhere", folder)
    assert code == 2
    assert text == f"{folder}: Kodak, complete: 4 images\n"
    assert errors == f"bsdenoise: error: {tmp_path / 'nowhere'}: no such file or folder.\n"


def test_json_holds_what_was_measured(call, folder, tmp_path):
    path = tmp_path / "new" / "found.json"
    (folder / NAMES[3]).unlink()
    assert call(folder, "--json", path)[0] == 2
    (found,) = json.loads(path.read_text())
    assert found["name"] == "photos"
    assert (found["testset"], found["complete"]) == ("kodak24", False)
    assert found["remarks"] == ["3 of 4 images, missing: kodim04.png"]
    assert [image["name"] for image in found["images"]] == NAMES[:3]
    assert found["images"][0] == {
        "name": "kodim01.png",
        "width": 12,
        "height": 8,
        "channels": 3,
        "dtype": "uint8",
        "checksum": testsets.checksum_of(np.asarray(Image.open(folder / NAMES[0]))),
    }


def test_json_is_what_the_known_sets_are_made_of(call, folder, tmp_path):
    path = tmp_path / "found.json"
    call(folder, "--json", path)
    (found,) = json.loads(path.read_text())
    entries = tuple(testsets.SetImage(**entry) for entry in found["images"])
    assert entries == testsets.known_sets()["kodak24"].images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--json", "a.json"], "Name at least one."), ([".", "--json", "."], "is a folder; --json names a file.")],
    ids=["no folder", "a folder for the file"],
)
def test_flags_that_do_not_fit(call, arguments, message):
    code, text, errors = call(*arguments)
    assert (code, text) == (2, "")
    assert errors.startswith("bsdenoise: error: ") and errors.endswith(f"{message}\n")


def test_a_json_that_cannot_be_written(call, folder, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, errors = call(folder, "--json", tmp_path / "file" / "a.json")
    assert code == 2
    assert len(errors.splitlines()) == 1 and str(tmp_path / "file") in errors


def test_without_a_folder_the_known_sets_are_listed(call):
    code, text, errors = call()
    assert (code, errors) == (0, "")
    rows = {line.split()[0]: line.split() for line in text.splitlines()[2:6]}
    assert list(rows) == list(references.SETS)
    for key, published in references.SETS.items():
        assert str(published.images) in rows[key]
        assert sum(line.startswith(f"{key}: ") for line in text.splitlines()) == 1
    assert rows["kodak24"][-5:] == ["768×512", "and", "512×768", "RGB", "10"]
    assert "13 RGB, 1 grey" in text
    assert "tfds:imagenet2012:validation --min-side 256 --max-side 512, 44,328 images" in text


@pytest.mark.parametrize(
    ("text", "is_prepared"),
    [
        ('{"splits": [{"name": "validation", "shardLengths": ["3"]}]}', True),
        ('{"splits": [{"name": "test"}]}', False),
        ('["validation"]', False),
        ("{", False),
    ],
    ids=["prepared", "another split", "no description", "broken"],
)
def test_where_the_training_set_is(call, tmp_path, text, is_prepared):
    manual = tmp_path / "tfds" / "downloads" / "manual"
    archive = manual / "ILSVRC2012_img_val.tar"
    assert f"It is not there: place ILSVRC2012_img_val.tar in {manual} (TFDS_DATA_DIR " in call()[1]
    manual.mkdir(parents=True)
    archive.write_bytes(b"")
    assert f"{archive} is there" in call()[1]
    prepared = tmp_path / "tfds" / "imagenet2012" / "5.1.0"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text(text)
    assert (f"It is prepared in {prepared}." in call()[1]) == is_prepared


def test_no_neural_network_library_is_loaded():
    program = (
        "import sys; from bsdenoise import cli; code = cli.main(['datasets']); "
        "sys.exit(code or bool({'tensorflow', 'keras', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, timeout=60)
