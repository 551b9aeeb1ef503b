"""`bsdenoise prepare` as its users call it, and training on what it wrote."""

import re

import numpy as np
import pytest
from PIL import Image

from bsdenoise import cli, methods
from bsdenoise.cli.prepare import parse_size
from bsdenoise.data.sources import open_source
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.images import PREPARED_INDEX
from bsdenoise.noise import GaussianNoise


@pytest.fixture
def folder(tmp_path):
    """Eight images of 40 to 47 rows and 50 columns."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (40 + number, 50, 3), "uint8")).save(tmp_path / "in" / f"{number}.png")
    return tmp_path / "in"


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = cli.main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_what_it_says(call, folder, tmp_path):
    code, out, err = call("prepare", folder, "--out", tmp_path / "out")
    assert code == 0 and err == ""
    assert re.fullmatch(rf"{tmp_path}/out: 8 images in 1 file, 0\.1 MB, \d+ s\n", out)


def test_sides_and_broken_images(call, folder, tmp_path):
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:300])
    code, out, _ = call("prepare", folder, "--out", tmp_path / "out", "--min-side", "42", "--max-side", "50")
    lines = out.splitlines()
    assert code == 0 and lines[0] == "6 of 8 images have sides within --min-side and --max-side"
    assert lines[1].startswith(f"warning: left out {folder}/3.png: cannot be read as PNG") and len(lines) == 3
    assert lines[2].startswith(f"{tmp_path}/out: 5 images (1 left out) in 1 file")
    assert [open_source(str(tmp_path / "out")).size(index)[0] for index in range(5)] == [42, 44, 45, 46, 47]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "--out", "out"], "missing: no such file or folder"),
        (["in", "--out", "in"], "in: is not empty. Give another --out, or remove it"),
        (["in", "--out", "in/0.png"], "0.png: is a file; --out names a folder"),
        (["in", "--out", "in/0.png/x"], "Not a directory"),
        (["in", "--out", "out", "--min-side", "60"], "None of the 8 images has sides of at least 60"),
        (["in", "--out", "out", "--shard-size", "12"], "--shard-size must be a size from 1MB to 1000GB, such as 512MB"),
    ],
    ids=["no source", "not empty", "file", "below a file", "sides", "size"],
)
def test_mistakes(call, folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("prepare", *arguments)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_sizes():
    found = [parse_size(text) for text in ("1MB", "512mb", "1.5 GB", " 1000GB")]
    assert found == [10**6, 512 * 10**6, 1_500_000_000, 10**12]


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "0.5MB", "1001GB", "1TB", "1e3MB", "nan", "5"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="--shard-size must be a size from 1MB to 1000GB"):
        parse_size(text)


def test_training_sees_the_same(call, folder, tmp_path):
    """The same examples, to the last bit, drawn by tf.data's threads."""
    assert call("prepare", folder, "--out", tmp_path / "out")[0] == 0
    found = []
    for source in (folder, tmp_path / "out"):
        noise = GaussianNoise(25 / 255, 25 / 255)
        data = TrainingImages(open_source(str(source)), methods.get("full"), 3, noise, "fresh", 16, augment=True)
        found.append([[part.numpy() for part in batch] for batch in data.batches(4, 0, 8)])
    assert len(found[0]) == 8
    for one, two in zip(*found, strict=True):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)


def test_training_leaves_out_what_is_damaged(call, folder, tmp_path):
    call("prepare", folder, "--out", tmp_path / "out")
    shard = next((tmp_path / "out").glob("*.arrayrecord"))
    data = bytearray(shard.read_bytes())
    data[data.find((folder / "5.png").read_bytes()) + 500] ^= 1
    shard.write_bytes(data)
    lines = []
    source = open_source(str(tmp_path / "out"))
    data = TrainingImages(source, methods.get("full"), 3, GaussianNoise(0.1, 0.1), "fresh", 16, report=lines.append)
    assert len(list(data.batches(4, 0, 6))) == 6
    assert len(lines) == 1
    assert re.match(rf"left out 5\.png in {shard}: the record cannot be read: Corrupted", lines[0])


@pytest.mark.parametrize("command", ["denoise", "evaluate"])
def test_other_commands_say_what_it_is(call, folder, tmp_path, command, tiny_denoiser_path):
    call("prepare", folder, "--out", tmp_path / "out")
    model = ["--model", tiny_denoiser_path(3)]
    arguments = {
        "denoise": [tmp_path / "out", "--out", tmp_path / "denoised", *model],
        "evaluate": ["--data", tmp_path / "out", "--noise", "gaussian:25", *model],
    }[command]
    code, _, err = call(command, *arguments)
    assert code == 2 and err.count("\n") == 1
    assert f"{tmp_path}/out: holds images that `bsdenoise prepare` packed for training. Expected image files" in err


def test_it_is_known_by_its_index(call, folder, tmp_path):
    call("prepare", folder, "--out", tmp_path / "out")
    (tmp_path / "out" / PREPARED_INDEX).unlink()
    code, _, err = call("train", tmp_path / "out", "--out", tmp_path / "run", "--noise", "gaussian:25")
    assert code == 2 and "holds shards without their index" in err
    code, _, err = call("prepare", folder, "--out", tmp_path / "out")
    assert code == 2 and "holds shards without their index" in err and "Remove the folder" in err
