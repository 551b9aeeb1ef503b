"""`bsdenoise denoise` without a model or without --out: which presets denoise what, and where results go."""

import denoise_command
import numpy as np
import pytest
from denoise_command import grey, save, written
from PIL import Image

from bsdenoise import cli, images, presets
from bsdenoise.cli import models

RGB = (5, 7, 3)


@pytest.fixture
def loaded(monkeypatch):
    """Doubles in the place of presets, by the names by which they were asked for."""
    return denoise_command.put_in_place_of_models(monkeypatch, is_known=False)


def denoise(*arguments):
    return cli.main(["denoise", *map(str, arguments)])


def test_colour_and_grey_images_each_get_their_preset(tmp_path, loaded, capsys):
    for number in range(2):
        save(tmp_path / f"in/{number}-grey.png", grey())
        save(tmp_path / f"in/{number}-rgb.png", grey(60, shape=RGB))
    save(tmp_path / "in/stack.npy", grey(shape=(2, 5, 7, 1)))
    save(tmp_path / "in/many.npy", grey(shape=(5, 7, 5)))
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert loaded.keys() == set(presets.DEFAULTS.values())
    assert loaded[presets.DEFAULTS[3]].shapes == [RGB] * 2
    assert loaded[presets.DEFAULTS[1]].shapes == [(5, 7, 1)] * (2 + 2 + 5)
    assert len(written(tmp_path / "out")) == 6
    assert (images.read(tmp_path / "out/1-rgb.png").array == 30).all()
    said = capsys.readouterr().err
    assert "note: no --model: preset rgb-gaussian5-50 for RGB images" in said
    assert "6 written, 0 failed; sigma" in said and "(estimated per image)" in said


def test_only_what_is_needed_is_loaded(tmp_path, loaded):
    """A file that cannot be read needs no model of its own."""
    (tmp_path / "bad.png").write_text("no image")
    source = save(tmp_path / "a.png", grey(shape=RGB))
    assert denoise(tmp_path / "bad.png", source, "--out", tmp_path / "out") == 2
    assert [*loaded] == [presets.DEFAULTS[3]]
    assert written(tmp_path / "out") == ["a.png"]


def test_a_preset_by_name(tmp_path, loaded):
    source = save(tmp_path / "a.png", grey(shape=RGB))
    assert denoise(source, "--model", "rgb-gaussian25", "--out", tmp_path / "out.png") == 0
    assert [*loaded] == ["rgb-gaussian25"]


# --- without --out --------------------------------------------------------------------------------------------------


def test_results_stand_beside_the_inputs(tmp_path, loaded, capsys):
    one, two = save(tmp_path / "a/one.png", grey()), save(tmp_path / "b/two.tif", grey(shape=RGB))
    assert denoise(one, two, "--std") == 0
    assert written(tmp_path) == [
        *("a/denoised-one-std.png", "a/denoised-one.png", "a/one.png"),
        *("b/denoised-two-std.tif", "b/denoised-two.tif", "b/two.tif"),
    ]
    capsys.readouterr()
    assert denoise(one) == 2
    assert "denoised-one.png: exists already; --overwrite replaces it" in capsys.readouterr().err


@pytest.mark.parametrize("source", [".", "*.png"])
def test_folders_and_globs_need_an_out(tmp_path, loaded, monkeypatch, capsys, source):
    """Else the next run would take results for inputs."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png", grey())
    assert denoise(source) == 2
    assert (
        capsys.readouterr().err
        == f"bsdenoise: error: {source}: a folder or a glob needs --out, the folder for the results.\n"
    )
    assert denoise("missing.png") == 2
    assert capsys.readouterr().err == "bsdenoise: error: missing.png: no such file or folder.\n"


# --- σ --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "is_noted"), [("5", False), ("60", False), ("3", False), ("70", True)])
def test_a_sigma_that_was_not_trained_is_noted_once(tmp_path, loaded, monkeypatch, capsys, sigma, is_noted):
    def load(name):
        model = denoise_command.HalvingDenoiser(1)
        model.noise.least, model.noise.greatest = (5 / 255,), (50 / 255,)
        return model

    monkeypatch.setattr(models, "load_preset", load)
    for number in range(3):
        save(tmp_path / f"in/{number}.png", grey(shape=(5, 7 + number)))
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--sigma", sigma) == 0
    note = f"note: the model was trained for a sigma of 5 to 50, and is told {sigma}: its results"
    assert capsys.readouterr().err.count(note) == is_noted


# --- for real -------------------------------------------------------------------------------------------------------


def test_a_photograph_with_the_shipped_model(tmp_path):
    """Better than the noisy one by far, with σ told and with σ estimated."""
    from skimage import data

    clean = data.astronaut()[100:228, 150:310]
    noise = 25 * np.random.default_rng(0).standard_normal(clean.shape)
    noisy = np.clip(np.round(clean + noise), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "noisy.png")

    def rms(image):
        return np.sqrt(np.mean((image.astype(float) - clean) ** 2))

    errors = []
    for arguments in (["--sigma", 25], ["--overwrite"]):
        assert denoise(tmp_path / "noisy.png", *arguments) == 0
        errors.append(rms(images.read(tmp_path / "denoised-noisy.png").array))
    assert max(errors) < rms(noisy) / 2.5
    assert errors[1] < 1.1 * errors[0]
