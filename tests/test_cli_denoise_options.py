"""`bsdenoise denoise`: how the model computes, by --tta, --precision, --tile and --overlap."""

import denoise_command
import numpy as np
import pytest
from denoise_command import denoise, grey, save

from bsdenoise import cli, images
from bsdenoise.cli import models

use_model = denoise_command.use_model


@pytest.fixture
def source(tmp_path):
    return save(tmp_path / "a.png", grey())


GIVEN = {
    "nothing": ([], {}),
    "one copy": (["--tta", "1"], {}),
    "copies": (["--tta", "4"], {"tta": 4}),
    "tiles": (["--tile", "64", "--overlap", "8"], {"tile": 64, "overlap": 8}),
    "overlap alone": (["--overlap", "0"], {"overlap": 0}),
    "with std": (["--std", "--tta", "8", "--tile", "32"], {"tta": 8, "tile": 32}),
}


@pytest.mark.parametrize(("flags", "expected"), GIVEN.values(), ids=GIVEN)
def test_the_model_is_told(tmp_path, use_model, source, flags, expected):
    denoiser = use_model(1)
    assert denoise(source, "--out", tmp_path / "out", *flags) == 0
    assert denoiser.options == [expected]


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_model_is_put_into_the_precision(tmp_path, use_model, source, monkeypatch, precision):
    denoiser, asked = use_model(1), []

    def in_precision(name):
        asked.append(name)
        return other

    other = denoise_command.HalvingDenoiser(1)
    denoiser.in_precision = in_precision
    assert denoise(source, "--out", tmp_path / "out", "--precision", precision) == 0
    assert asked == [precision]
    assert (len(denoiser.shapes), len(other.shapes)) == (0, 1)


REFUSED = {
    "off the grid": (["--tile", "30"], "`tile` and `overlap` must be multiples of 4"),
    "overlap off the grid": (["--overlap", "5"], "`tile` and `overlap` must be multiples of 4"),
    "nothing between": (["--tile", "32", "--overlap", "16"], "with tile > 2 * overlap. Received: tile=32, overlap=16."),
    "no such ensemble": (["--tta", "3"], "--tta"),
    "no such precision": (["--precision", "float16"], "--precision"),
}


@pytest.mark.parametrize(("flags", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_one_line_before_the_first_file(tmp_path, use_model, source, capsys, flags, message):
    denoiser = use_model(1)
    try:
        code = denoise(source, "--out", tmp_path / "out", *flags)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("bsdenoise: error: ") and message in errors
    assert errors.count("\n") == 1
    assert denoiser.shapes == []


@pytest.mark.parametrize(
    "flags", [["--tta", "2"], ["--precision", "bfloat16"], ["--tile", "64"], ["--overlap", "0"]], ids=" ".join
)
def test_a_server_is_not_told_how_to_compute(tmp_path, source, capsys, flags):
    url = "http://localhost:1"
    assert cli.main(["denoise", str(source), "--out", str(tmp_path / "out"), "--server", url, *flags]) == 2
    assert capsys.readouterr().err == (
        f"bsdenoise: error: {flags[0]} needs a model here: what a server computes was fixed when its model was "
        f"exported. Received: {' '.join(flags)} with --server {url}.\n"
    )


CALLS = {
    "copies": (["--tta", "4"], lambda denoiser, noisy: denoiser.denoise(noisy, tta=4)),
    "tiles": (["--tile", "16", "--overlap", "4"], lambda denoiser, noisy: denoiser.denoise(noisy, tile=16, overlap=4)),
    "precision": (
        ["--precision", "bfloat16"],
        lambda denoiser, noisy: denoiser.in_precision("bfloat16").denoise(noisy),
    ),
}


@pytest.mark.parametrize(("flags", "call"), CALLS.values(), ids=CALLS)
def test_a_real_model_gives_what_python_gives(tmp_path, tiny_denoiser_path, flags, call):
    noisy = np.random.default_rng(0).uniform(0.2, 0.8, (40, 28, 3)).astype(np.float32)
    source = save(tmp_path / "a.npy", noisy)
    path = tiny_denoiser_path(3)
    assert cli.main(["denoise", str(source), "--out", str(tmp_path / "out"), "--model", str(path), *flags]) == 0
    denoiser = models.load_denoiser(path)
    result = images.read_array(tmp_path / "out/a.npy")
    np.testing.assert_allclose(result, call(denoiser, noisy), atol=1e-6)
    assert np.abs(result - denoiser.denoise(noisy)).max() > 1e-5  # the flag does something
