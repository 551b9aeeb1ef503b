"""`bsdenoise evaluate` as its users call it."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from bsdenoise import cli


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(rng.integers(0, 255, (14, 12, 3), "uint8")).save(folder / name)
    return folder


@pytest.fixture
def call(tiny_denoiser_path, capsys):
    def run(*arguments, model=True):
        model_flags = ["--model", str(tiny_denoiser_path(3))] if model else []
        code = cli.main(["evaluate", *model_flags, *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_tables_and_files(call, folder, tmp_path):
    out = tmp_path / "result"
    code, text, errors = call(
        *("--data", folder, "--noise", "gaussian:25", "--draws", 2, "--out", out, "--json", tmp_path / "r.json")
    )
    assert code == 0, errors
    results = json.loads((out / "results.json").read_text())
    assert results == json.loads((tmp_path / "r.json").read_text())
    assert len(results["images"]) == 6
    (row,) = results["summary"]
    assert row["psnr"] == pytest.approx(np.mean([image["psnr"] for image in results["images"]]))
    assert f"{row['psnr']:.2f}" in text
    assert f"{row['psnr']:.2f}" in (out / "table.md").read_text()
    (parsed,) = csv.DictReader((out / "table.csv").read_text().splitlines())
    assert float(parsed["psnr"]) == row["psnr"]
    assert sorted(path.name for path in out.iterdir()) == ["records.jsonl", "results.json", "table.csv", "table.md"]
    assert results["table1"] is None


def test_the_self_ensemble_is_measured_and_kept_apart(call, folder, tiny_denoiser_path, tmp_path):
    from bsdenoise.cli import models
    from bsdenoise.evaluation import cases

    flags = ["--data", folder, "--noise", "gaussian:25", "--out", tmp_path / "result"]
    psnrs = {}
    for tta in (1, 4):
        code, text, errors = call(*flags, "--tta", tta)
        assert code == 0, errors
        results = json.loads((tmp_path / "result/results.json").read_text())
        assert results["protocol"]["tta"] == tta
        assert ("mean of 4 copies of each image" in text) == (tta == 4)
        psnrs[tta] = results["images"][0]["psnr_unrounded"]
    case = cases.read_clean(cases.clean_items([str(folder)], (1,), (1,))[0], 3, "gaussian:25")
    denoiser = models.load_denoiser(tiny_denoiser_path(3))
    for tta, psnr in psnrs.items():
        denoised = denoiser.denoise(case.noisy, sigma=case.sigma, tta=tta)
        assert psnr == pytest.approx(-10 * np.log10(np.mean((denoised - case.clean) ** 2)), abs=1e-4)
    assert psnrs[1] != psnrs[4]


def test_models_side_by_side(call, folder, tiny_denoiser_path, tmp_path):
    other = tiny_denoiser_path(3, high=50 / 255)
    code, text, errors = call(
        "--model", other, "--data", folder, "--noise", "gaussian:25", "--json", tmp_path / "r.json"
    )
    assert code == 0, errors
    results = json.loads((tmp_path / "r.json").read_text())
    first, second = results["summary"]
    (difference,) = results["differences"]
    assert difference["psnr"] == pytest.approx(second["psnr"] - first["psnr"])
    noisy = [image["psnr_noisy"] for image in results["images"]]
    assert noisy[:3] == noisy[3:]
    assert "compared with" in text


@pytest.fixture
def quick_bm3d(monkeypatch):
    """Something quicker in the place of BM3D, on one core: what it was called with."""
    from bsdenoise.evaluation import bm3d

    calls = []

    def blur(noisy, sigma, profile):
        calls.append((noisy.shape, sigma))
        return np.full_like(noisy, noisy.mean()), 1.0

    monkeypatch.setattr(bm3d, "run", blur)
    monkeypatch.setattr(bm3d, "_num_cores", lambda: 1)
    return calls


BM3D_FLAGS = ("--noise", "gaussian:25", "--methods", "bm3d", "--bm3d-cache")


def test_bm3d_beside_a_model(call, folder, tmp_path, quick_bm3d):
    out = tmp_path / "out"
    code, text, errors = call("--data", folder, *BM3D_FLAGS, tmp_path / "cache", "--out", out)
    assert code == 0, errors
    results = json.loads((out / "results.json").read_text())
    model, other = results["contestants"]
    assert (model["method"], other["method"], other["path"], other["training"]) == ("full", "bm3d", None, None)
    assert {"bm3d", "bm4d"} < results["versions"].keys()
    own, bm3ds = results["images"][:3], results["images"][3:]
    assert [image["psnr_noisy"] for image in own] == [image["psnr_noisy"] for image in bm3ds]
    assert [image["sure_psnr"] for image in bm3ds] == [None] * 3
    assert quick_bm3d == [((14, 12, 3), pytest.approx(25 / 255, rel=1e-5))] * 3
    # The table as in the paper, and what everyone had to learn from.
    values = {row["model"]: row["psnr"] for row in results["summary"]}
    (row,) = results["table1"]["rows"]
    assert row["psnr"] == values
    for report in (text, (out / "table.md").read_text()):
        assert "bm3d: not trained, told sigma" in report
        assert f"{model['name']} (full): the file does not say how it was trained" in report
    assert text.index("PSNR, dB") < text.index("SURE-PSNR")
    (line,) = csv.DictReader((out / "table1.csv").read_text().splitlines())
    assert float(line["bm3d"]) == values["bm3d"]


def test_bm3d_alone_has_the_channels_of_the_images(call, folder, tmp_path, quick_bm3d):
    for path in folder.iterdir():
        Image.open(path).convert("L").save(path)
    flags = ("--data", folder, *BM3D_FLAGS, tmp_path / "cache")
    assert call(*flags, model=False)[0] == 0
    assert [shape for shape, _ in quick_bm3d] == [(14, 12, 1)] * 3
    assert call(*flags, model=False)[0] == 0
    assert len(quick_bm3d) == 3  # kept, with no --out


def test_results_of_bm3d_that_are_broken_are_named(call, folder, tmp_path, quick_bm3d):
    flags = ("--data", folder, *BM3D_FLAGS, tmp_path / "cache")
    call(*flags, model=False)
    (path,) = (tmp_path / "cache" / "photos" / "b.png").rglob("*.npz")
    path.write_bytes(b"")
    code, _, errors = call(*flags, model=False)
    assert code == 0
    (line,) = errors.splitlines()
    assert line.startswith(f"bsdenoise: note: {path}: is broken")


class Finding:
    """What is known of a set, as `testsets.recognise` says it."""

    key, title, is_complete, lines = "kodak24", "Kodak", False, ["3 of 24 images"]  # noqa: RUF012


def test_known_sets_that_are_not_whole_are_named(call, folder, tmp_path, monkeypatch):
    from bsdenoise.evaluation import testsets

    monkeypatch.setattr(testsets, "recognise", lambda given: Finding() if given == str(folder) else None)
    code, _, errors = call("--data", folder, "--noise", "gaussian:25", "--json", tmp_path / "r.json")
    assert code == 0
    assert errors.splitlines() == ["bsdenoise: note: photos: 3 of 24 images"]
    assert json.loads((tmp_path / "r.json").read_text())["sets"] == [
        {"name": "photos", "testset": "kodak24", "complete": False, "remarks": ["3 of 24 images"], "images": 3}
    ]


def test_what_a_whole_set_is_about_is_not_printed(call, folder, monkeypatch):
    from bsdenoise.evaluation import testsets

    finding = Finding()
    finding.is_complete, finding.lines = True, []
    monkeypatch.setattr(testsets, "recognise", lambda given: finding)
    assert call("--data", folder, "--noise", "gaussian:25")[2] == ""


def test_an_interrupted_evaluation_goes_on(call, folder, tmp_path, monkeypatch):
    from bsdenoise.evaluation import records

    flags = ("--data", folder, "--noise", "gaussian:25", "--out", tmp_path / "out")
    measure, measured = records.measure, []

    def stop_at_third(*arguments):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(measure(*arguments))
        return measured[-1]

    monkeypatch.setattr(records, "measure", stop_at_third)
    assert call(*flags)[0] == 130
    monkeypatch.setattr(records, "measure", lambda *arguments: measured.append(measure(*arguments)) or measured[-1])
    assert call(*flags)[0] == 0
    assert len(measured) == 3


def test_a_bad_image_is_named_and_the_others_count(call, folder, tmp_path):
    (folder / "b.png").write_bytes(b"no image")
    code, text, errors = call("--data", folder, "--noise", "gaussian:25", "--json", tmp_path / "r.json")
    assert code == 2
    assert "b.png: cannot be read" in errors
    assert "1 of 3 measurements failed" in errors
    results = json.loads((tmp_path / "r.json").read_text())
    assert (results["failed"], results["summary"][0]["images"]) == (1, 2)


MISTAKES = {
    "nothing": ([], "Expected either --data with --noise, or --noisy with --clean"),
    "noise_alone": (["--noise", "gaussian:25"], "Expected either --data with --noise"),
    "data_alone": (["--data", "."], "--noise says which noise is added to --data"),
    "both": (["--data", ".", "--noise", "gaussian:25", "--noisy", ".", "--clean", "."], "Expected either"),
    "noisy_alone": (["--noisy", "."], "Expected either"),
    "pairs_with_noise": (["--noisy", ".", "--clean", ".", "--noise", "gaussian:25"], "go without it"),
    "bad_noise": (["--data", ".", "--noise", "poison:3"], "A noise SPEC reads"),
    "bad_sigma": (["--data", ".", "--noise", "gaussian:25", "--sigma", "x"], "A sigma reads"),
    "two_sigmas": (["--data", ".", "--noise", "gaussian:25", "--sigma", "2", "--own-sigma"], "exclude each other"),
    "no_folder": (["--data", "missing", "--noise", "gaussian:25"], "missing: no such file or folder"),
    "own_sigma_of_bm3d": (
        ["--data", ".", "--noise", "gaussian:25", "--methods", "bm3d", "--own-sigma"],
        "BM3D must be told the noise level",
    ),
    "pairs_for_bm3d": (["--noisy", ".", "--clean", ".", "--methods", "bm3d"], "BM3D must be told the noise level"),
    "no_bm3d": (["--data", ".", "--noise", "gaussian:25", "--bm3d-cache", "x"], "--bm3d-cache is for --methods bm3d"),
    "unknown_method": (["--data", ".", "--noise", "gaussian:25", "--methods", "n2v"], "--methods takes what needs no"),
    "bad_cache": (
        ["--data", ".", "--noise", "gaussian:25", "--methods", "bm3d", "--bm3d-cache", "a.png"],
        "a.png: cannot be a folder for results of BM3D: File exists",
    ),
    "no_model": (["--model", "missing.keras", "--data", ".", "--noise", "gaussian:25"], "no such model"),
    "out_is_a_file": (["--data", ".", "--noise", "gaussian:25", "--out", "a.png"], "a.png: is a file"),
}


@pytest.mark.parametrize("arguments, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_get_one_line(arguments, message, call, folder, monkeypatch):
    monkeypatch.chdir(folder)
    code, text, errors = call(*arguments)
    assert code == 2
    assert text == ""
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_a_model_given_twice(call, folder, tiny_denoiser_path):
    code, _, errors = call("--model", tiny_denoiser_path(3), "--data", folder, "--noise", "gaussian:25")
    assert code == 2
    assert "A --model is given twice" in errors


def test_no_model_given(call, folder):
    code, _, errors = call("--data", folder, "--noise", "gaussian:25", model=False)
    assert code == 2
    assert "Expected at least one --model" in errors


def test_nothing_measured(call, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 4, 2), "float32"))
    code, _, errors = call("--data", tmp_path, "--noise", "gaussian:0.1")
    assert code == 2
    assert "No image could be measured; the first is" in errors


def test_table_says_why_published_numbers_are_not_comparable(call, folder, tmp_path, quick_bm3d, monkeypatch):
    from bsdenoise.evaluation import testsets

    monkeypatch.setattr(testsets, "recognise", lambda folder: Finding())
    flags = ("--data", folder, *BM3D_FLAGS, tmp_path / "cache")
    _, text, _ = call(*flags)
    assert "photos: 3 of 24 images" in text and "measured models were told" not in text
    out = tmp_path / "out"
    _, text, _ = call(*flags, "--sigma", "30", "--out", out)
    line = "measured models were told a sigma of 30, the published methods the one that was added"
    assert line in text and line in (out / "table.md").read_text()


def test_a_bad_file_is_named_once_however_many_are_measured(call, folder, tmp_path, quick_bm3d):
    (folder / "z.png").write_bytes(b"no image")
    code, _, errors = call("--data", folder, *BM3D_FLAGS, tmp_path / "cache")
    assert code == 2
    assert [line.count("z.png") for line in errors.splitlines() if line.startswith("bsdenoise: error")] == [1]
    assert "2 of 8 measurements failed and do not count" in errors


def test_progress_is_told_where_there_is_no_terminal(call, folder, monkeypatch):
    from bsdenoise.cli import evaluate

    monkeypatch.setattr(evaluate, "SECONDS_BETWEEN_LINES", -1)
    errors = call("--data", folder, "--noise", "gaussian:25")[2]
    assert [line.split(";")[0] for line in errors.splitlines()] == [
        f"bsdenoise: note: {number} of 3 measured" for number in (1, 2, 3)
    ]
