"""`bsdenoise figure` as its users call it."""

import io
import json
import re

import numpy as np
import pytest
from denoise_command import written
from PIL import Image

from bsdenoise import cli


def opened(path):
    """Opens an image without keeping its file open."""
    return Image.open(io.BytesIO(path.read_bytes()))


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (26, 30, 3), "uint8")).save(path)
    return path


@pytest.fixture
def call(tiny_denoiser_path, capsys):
    def run(*arguments, command="figure", channels=(3,)):
        flags = [part for count in channels for part in ("--model", str(tiny_denoiser_path(count)))]
        code = cli.main([command, *map(str, arguments), *flags])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(autouse=True)
def quick_bm3d(monkeypatch):
    """Something quicker in the place of BM3D, on one core: what it was called with."""
    from bsdenoise.evaluation import bm3d

    calls = []

    def blur(noisy, sigma, profile):
        calls.append(noisy.shape)
        return np.full_like(noisy, noisy.mean()), 1.0

    monkeypatch.setattr(bm3d, "run", blur)
    monkeypatch.setattr(bm3d, "_num_cores", lambda: 1)
    return calls


NOISE = ("--noise", "gaussian:25")


def bm3d(tmp_path):
    return ("--methods", "bm3d", "--bm3d-cache", tmp_path / "cache")


@pytest.mark.parametrize("channels", [3, 1], ids=["colour", "grey_model_on_colour"])
def test_numbers_are_those_of_evaluate(call, photo, tmp_path, channels, quick_bm3d):
    settings = (*NOISE, *bm3d(tmp_path))
    code, _, errors = call(
        *("--data", photo.parent, *settings, "--draws", 3, "--json", tmp_path / "table.json"),
        command="evaluate",
        channels=[channels],
    )
    assert code == 0, errors
    flags = ("--draw", 2, "--out", tmp_path / "f.png", "--json", tmp_path / "f.json")
    code, text, errors = call(photo, *settings, *flags, channels=[channels])
    assert code == 0, errors
    measured = json.loads((tmp_path / "table.json").read_text())["images"]
    expected = {record["model"]: record for record in measured if record["draw"] == 2}
    (row,) = json.loads((tmp_path / "f.json").read_text())["rows"]
    noisy, *denoised, _ = row["panels"]
    assert [panel["label"] for panel in denoised] == ["BM3D", "full"]
    for panel in denoised:
        record = expected[panel["name"]]
        assert panel["psnr"] == record["psnr"]
        assert noisy["psnr"] == record["psnr_noisy"]
        assert panel["sigma_used"] == record["sigma_used"]
        assert f"{record['psnr']:.2f}" in text
    assert (row["channels"], row["sigma"]) == (channels, record["sigma"])
    assert len(quick_bm3d) == 3  # and its results are shared


def test_the_file_says_what_it_shows(call, photo, tmp_path):
    out, as_json = tmp_path / "new" / "f.png", tmp_path / "f.json"
    code, text, errors = call(photo, *NOISE, "--out", out, "--json", as_json, "--crop", "4,3,20,10", "--zoom", 3)
    assert code == 0, errors
    drawn = opened(out)
    facts = json.loads(as_json.read_text())
    assert json.loads(drawn.text["Comment"]) == facts
    assert "PSNR is of the whole image" in drawn.text["Description"] == facts["about"]
    assert drawn.text["Software"].startswith("bsdenoise ")
    assert facts["protocol"]["noise"] == "gaussian:25"
    assert facts["rows"][0]["crop"] == {"left": 4, "top": 3, "width": 20, "height": 10}
    assert facts["contestants"][0]["protocol"] == "the file does not say how it was trained"
    assert "PSNR, dB, whole image" in text and "4,3,20,10" in text
    assert errors.splitlines()[-1] == f"{out}: {drawn.width}×{drawn.height} pixels"
    # The clean part is the last picture, enlarged.
    clean = np.asarray(opened(photo))[3:13, 4:24]
    column = (drawn.width - 2 * 4) // 3
    left = drawn.width - column + (column - 60) // 2
    np.testing.assert_array_equal(np.asarray(drawn)[:30:3, left : left + 60 : 3], clean)


def test_a_pdf_has_the_same_pixels(call, photo, tmp_path):
    for name in ("f.png", "f.pdf"):
        assert call(photo, *NOISE, "--out", tmp_path / name)[0] == 0
    data = (tmp_path / "f.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    start = data.index(b"\x00\x00\x00\x0cjP  ")
    page = Image.open(io.BytesIO(data[start : data.index(b"\nendstream", start)])).convert("RGB")
    np.testing.assert_array_equal(np.asarray(page), np.asarray(opened(tmp_path / "f.png")))
    assert "PSNR is of the whole image".encode("utf-16-be") in data


def test_pictures_alone(call, photo, tmp_path, tiny_denoiser_path):
    other = photo.parent / "a.tif"
    opened(photo).save(other)
    flags = ("--out", tmp_path / "f.png", "--crop", "4,3,20,10", "1,1,5", "--save-crops", tmp_path / "crops")
    more = ("--model", tiny_denoiser_path(3, high=50 / 255))
    code, _, errors = call(photo, other, *NOISE, *flags, *more, *bm3d(tmp_path), "--zoom", 1)
    assert code == 0, errors
    names = ["noisy", "bm3d", "full-3-0.0980", "full-3-0.1961", "clean"]
    expected = sorted(f"{number}-a-{name}.png" for number in (1, 2) for name in names)
    assert written(tmp_path / "crops") == expected
    clean = np.asarray(opened(tmp_path / "crops" / "1-a-clean.png"))
    np.testing.assert_array_equal(clean, np.asarray(opened(photo))[3:13, 4:24])
    assert opened(tmp_path / "crops" / "2-a-bm3d.png").size == (5, 5)


def test_pictures_of_grey_images_are_grey(call, photo, tmp_path):
    flags = ("--out", tmp_path / "f.png", "--save-crops", tmp_path / "crops")
    assert call(photo, *NOISE, *flags, channels=[1])[0] == 0
    assert opened(tmp_path / "crops" / "a-clean.png").mode == "L"
    assert opened(tmp_path / "crops" / "a-full.png").size == (52, 52)


@pytest.mark.parametrize("flags, expected", [((), "20"), (("--as-given",), "21")], ids=["paper", "as_given"])
def test_order(call, photo, tmp_path, tiny_denoiser_path, monkeypatch, flags, expected):
    """Of an N2N model given before a "full" one; the first is told apart by its name."""
    from bsdenoise.evaluation import contestants

    made = contestants.Model.__init__

    def make(self, name, path, *arguments):
        made(self, name, path, *arguments)
        self.method = "n2n" if name == "3-0.1961" else "full"

    monkeypatch.setattr(contestants.Model, "__init__", make)
    flags = (*flags, *bm3d(tmp_path), "--out", tmp_path / "f.png", "--json", tmp_path / "f.json")
    code, _, errors = call(photo, *NOISE, "--model", tiny_denoiser_path(3, high=50 / 255), *flags)
    assert code == 0, errors
    (row,) = json.loads((tmp_path / "f.json").read_text())["rows"]
    order = {"20": ["BM3D", "full", "N2N"], "21": ["BM3D", "N2N", "full"]}[expected]
    assert [panel["label"] for panel in row["panels"]] == ["noisy", *order, "clean"]


def test_an_older_figure_is_replaced_and_nothing_else_left(call, photo, tmp_path):
    out = tmp_path / "out" / "f.png"
    out.parent.mkdir()
    out.write_text("old")
    assert call(photo, *NOISE, "--out", out)[0] == 0
    assert opened(out).format == "PNG"
    assert written(out.parent) == ["f.png"]


def test_what_is_done_to_images_is_said_once(call, photo, tmp_path):
    grey = photo.parent / "grey.png"
    opened(photo).convert("L").save(grey)
    code, _, errors = call(grey, *NOISE, "--out", tmp_path / "f.png")
    assert code == 0
    assert errors.count("grey.png: grey, taken as RGB with three equal channels") == 1


MISTAKES = {
    "no_image": ([], "Expected at least one image file, folder or glob"),
    "image_behind_methods": (["--methods", "bm3d", "a.png"], "They stand before --methods and --crop"),
    "missing_image": (["b.png"], "b.png: no such file or folder"),
    "broken_image": (["broken.png"], "broken.png: cannot be read"),
    "crop": (["a.png", "--crop", "1,2"], "A crop reads LEFT,TOP,WIDTH"),
    "crop_outside": (["a.png", "--crop", "20,20,20"], "a.png: the crop LEFT,TOP,WIDTH,HEIGHT is outside of the image"),
    "two_crops": (["a.png", "--crop", "1,2,3", "1,2,4"], "--crop takes one crop, or one for each of 1 images"),
    "noise": (["a.png", "--noise", "poison:3"], "A noise SPEC reads"),
    "too_much_noise": (["a.png", "--noise", "gaussian:300"], "a.png: Noise needs 0 < sigma"),
    "sigma": (["a.png", "--sigma", "x"], "A sigma reads"),
    "two_sigmas": (["a.png", "--sigma", "2", "--own-sigma"], "exclude each other"),
    "own_sigma_of_bm3d": (["a.png", "--methods", "bm3d", "--own-sigma"], "BM3D must be told the noise level"),
    "cache_alone": (["a.png", "--bm3d-cache", "x"], "--bm3d-cache is for --methods bm3d"),
    "unknown_method": (["a.png", "--methods", "n2v"], "--methods takes what needs no training: bm3d"),
    "no_model": (["a.png", "--model", "missing.keras"], "missing.keras: no such model"),
    "suffix": (["a.png", "--out", "f.jpg"], "f.jpg: --out names a file that ends in .png or .pdf"),
    "out_is_input": (["a.png", "--out", "a.png"], "a.png: would replace one of the images"),
    "out_is_folder": (["a.png", "--out", "folder.png"], "folder.png: is a folder"),
    "json_is_folder": (["a.png", "--json", "folder.png"], "folder.png: is a folder"),
    "json_is_out": (["a.png", "--json", "f.png"], "Two outputs have the same name"),
    "below_a_file": (["a.png", "--out", "a.png/f.png"], "a.png/f.png: cannot be written, because"),
    "crops_below_a_file": (["a.png", "--save-crops", "a.png/crops"], "a.png/crops: cannot be made: Not a directory"),
    "crops_in_a_file": (["a.png", "--save-crops", "a.png"], "a.png: is a file; --save-crops names a folder"),
    "zoom": (["a.png", "--zoom", "0"], "--zoom must be at least 1. Received: 0"),
    "columns": (["a.png", "--columns", "-2"], "--columns must be at least 1. Received: -2"),
    "draw": (["a.png", "--draw", "-1"], "--draw must be at least 0. Received: -1"),
}


@pytest.mark.parametrize("arguments, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_get_one_line(arguments, message, call, photo, monkeypatch):
    monkeypatch.chdir(photo.parent)
    (photo.parent / "folder.png").mkdir()
    (photo.parent / "broken.png").write_bytes(b"no image")
    before = {path: path.stat().st_size for path in photo.parent.iterdir()}
    flags = [*([] if "--noise" in arguments else NOISE), *([] if "--out" in arguments else ["--out", "f.png"])]
    code, text, errors = call(*arguments, *flags)
    assert code == 2
    assert text == ""
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert {path: path.stat().st_size for path in photo.parent.iterdir()} == before


def test_grey_beside_colour(call, photo, tmp_path):
    code, _, errors = call(photo, *NOISE, "--out", tmp_path / "f.png", *bm3d(tmp_path), channels=[3, 1])
    assert code == 2
    (line,) = errors.splitlines()
    assert re.search(r"PSNR of luminance is not that of colours. Received: .* \(3\), .* \(1\). Make two figures", line)


def test_a_crop_that_would_replace_an_image(call, photo, tmp_path):
    other = photo.parent / "a-noisy.png"
    other.write_bytes(photo.read_bytes())
    code, _, errors = call(photo, other, *NOISE, "--out", tmp_path / "f.png", "--save-crops", photo.parent)
    assert code == 2
    assert "a-noisy.png: would replace one of the images that are shown" in errors
    assert other.read_bytes() == photo.read_bytes()
    assert not (tmp_path / "f.png").exists()


def test_nothing_to_compare(call, photo, tmp_path):
    code, _, errors = call(photo, *NOISE, "--out", tmp_path / "f.png", channels=[])
    assert code == 2
    assert "Expected at least one --model, or --methods bm3d" in errors
