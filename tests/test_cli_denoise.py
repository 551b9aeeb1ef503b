"""`bsdenoise denoise`: pixels, units of sigma, and what a real model gives."""

import os
import re
import subprocess
import sys

import denoise_command
import numpy as np
import pytest
from denoise_command import OWN_SIGMA, denoise, grey, save, written
from PIL import Image

from bsdenoise import cli, images, loading
from bsdenoise.cli import models

use_model = denoise_command.use_model


# --- one file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("a.png", grey(), 50),
        ("a.png", grey(101, shape=(5, 7, 3)), 51),  # 50.5 is rounded up
        ("a.png", grey(40001, np.uint16), 20001),
        ("a.png", grey(40000, np.uint16, (5, 7, 3)), 20000),
        ("a.jpg", grey(), 50),
        ("a.npy", grey(0.75, np.float64), 0.375),
        ("a.npy", grey(1.25, np.float32, (5, 7, 1)), 0.625),
        ("a.npy", grey(100, np.uint8, (2, 5, 7, 3)), 50),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else str(value),
)
def test_pixels_keep_type_shape_and_scale(tmp_path, use_model, name, array, expected):
    use_model(array.shape[-1] if array.ndim > 2 else 1)
    source = save(tmp_path / name, array)
    assert denoise(source, "--out", tmp_path / "out") == 0
    result = images.read(tmp_path / "out" / name)
    assert (result.array.dtype, result.array.shape) == (array.dtype, array.shape)
    assert (result.array == expected).all()


def test_each_image_of_a_stack_is_denoised_by_itself(tmp_path, use_model):
    denoiser = use_model(1, is_known=False)
    stack = np.stack([grey(0, shape=(5, 7, 1)), grey(255, shape=(5, 7, 1))])
    source = save(tmp_path / "a.npy", stack)
    assert denoise(source, "--out", tmp_path / "out") == 0
    assert denoiser.sigmas == pytest.approx([OWN_SIGMA, 2 * OWN_SIGMA])
    assert images.read_array(tmp_path / "out/a.npy")[:, 0, 0, 0].tolist() == [0, 128]


def test_a_grey_model_takes_each_colour_by_itself(tmp_path, use_model):
    denoiser = use_model(1)
    pixels = np.random.default_rng(0).integers(0, 128, (5, 7, 3), np.uint8) * 2
    source = save(tmp_path / "a.png", pixels)
    assert denoise(source, "--out", tmp_path / "out") == 0
    assert denoiser.shapes == [(5, 7, 1)] * 3
    np.testing.assert_array_equal(images.read_array(tmp_path / "out/a.png"), pixels // 2)


def test_a_colour_model_refuses_a_grey_file(tmp_path, use_model, capsys):
    use_model(3)
    source = save(tmp_path / "a.png", grey())
    assert denoise(source, "--out", tmp_path / "out") == 2
    assert f"error: {source}: a grey image cannot be denoised by a model for 3 channels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_metadata_and_format_are_kept(tmp_path, use_model):
    use_model(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    source = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6), (200, 100, 50)).save(source, exif=exif, dpi=(300, 300))
    assert denoise(source, "--out", tmp_path / "out") == 0
    with Image.open(tmp_path / "out/a.jpg") as image:
        assert (image.format, image.size, image.info["dpi"]) == ("JPEG", (8, 6), (300, 300))
        assert image.getexif()[0x0112] == 6


def test_out_may_name_the_file_and_another_format(tmp_path, use_model):
    use_model(1)
    source = save(tmp_path / "a.png", grey())
    assert denoise(source, "--out", tmp_path / "new/b.JPG") == 0
    assert images.read(tmp_path / "new/b.JPG").format == "JPEG"


# --- sigma ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "array", "text", "expected"),
    [
        ("a.png", grey(), "25", 25 / 255),
        ("a.png", grey(dtype=np.uint16), "25", 25 / 65535),
        ("a.png", grey(dtype=np.uint16), "25/255", 25 / 255),
        ("a.npy", grey(0.5, np.float32), "0.2", 0.2),
    ],
)
def test_sigma_is_in_the_units_of_the_file(tmp_path, use_model, name, array, text, expected):
    denoiser = use_model(1)
    source = save(tmp_path / name, array)
    assert denoise(source, "--out", tmp_path / "out", "--sigma", text) == 0
    assert denoiser.sigmas == pytest.approx([expected])


@pytest.mark.parametrize("text", ["many", "0", "-3", "25/0"])
def test_a_sigma_that_cannot_be_read_stops_before_the_first_file(tmp_path, use_model, capsys, text):
    use_model(1)
    for name in ("a", "b"):
        save(tmp_path / f"in/{name}.png", grey())
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", f"--sigma={text}") == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert errors.startswith("bsdenoise: error: ")


def test_a_sigma_above_the_range_of_the_file_fails_for_that_file(tmp_path, tiny_denoiser_path, capsys):
    save(tmp_path / "in/deep.png", grey(dtype=np.uint16))
    save(tmp_path / "in/flat.png", grey())
    flags = ["--out", tmp_path / "out", "--sigma", "300", "--model", tiny_denoiser_path(1)]
    assert cli.main(["denoise", str(tmp_path / "in"), *map(str, flags)]) == 2
    assert "flat.png: --sigma 300 is more than the model takes: for this file at most 255" in capsys.readouterr().err
    assert written(tmp_path / "out") == ["deep.png"]


@pytest.mark.parametrize(
    ("is_known", "values", "expected"),
    [
        (True, [0, 255], "sigma 25.5 (the model's own)"),
        (False, [0, 255], "sigma 25.5 to 51.0 (estimated per image)"),
        (False, [255], "sigma 51.0 (estimated per image)"),
    ],
)
def test_the_closing_line_says_which_sigma_was_used(tmp_path, use_model, capsys, is_known, values, expected):
    use_model(1, is_known=is_known)
    for value in values:
        save(tmp_path / f"in/{value}.png", grey(value))
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"{len(values)} written, 0 failed; {expected}"


def test_the_closing_line_gives_float_files_plain_numbers(tmp_path, use_model, capsys):
    use_model(1)
    assert denoise(save(tmp_path / "a.npy", grey(0.5, np.float32)), "--out", tmp_path / "out") == 0
    assert "sigma 0.1 (the model's own)" in capsys.readouterr().err


def test_a_given_sigma_is_not_repeated(tmp_path, use_model, capsys):
    use_model(1)
    assert denoise(save(tmp_path / "a.png", grey()), "--out", tmp_path / "out", "--sigma", "5") == 0
    assert capsys.readouterr().err.splitlines()[-1] == "1 written, 0 failed"


# --- units of the model --------------------------------------------------------------------------------------------


@pytest.fixture
def float_model_path(tmp_path):
    """A small untrained model of float images that span about 2000, for σ of 10 to 100."""
    import keras

    from bsdenoise.denoiser import Denoiser
    from bsdenoise.network import blind_spot_network
    from bsdenoise.noise import GaussianNoise

    keras.utils.set_random_seed(0)
    noise = GaussianNoise(10 / 2000, 100 / 2000)
    network = blind_spot_network(channels=1, width=4, depth=1)
    Denoiser(network, noise, offset=100, scale=2000, fractional=False).save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def noisy_counts(shape=(32, 32), sigma=50):
    return (1000 + sigma * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def run_real(source, out, model, *options):
    return cli.main(["denoise", str(source), "--out", str(out), "--model", str(model), *map(str, options)])


def test_sigma_of_float_files_is_in_their_own_units(tmp_path, float_model_path):
    source = save(tmp_path / "a.tif", noisy_counts())
    assert run_real(source, tmp_path / "out", float_model_path, "--sigma", 50) == 0
    expected = models.load_denoiser(float_model_path).denoise(noisy_counts(), sigma=50.0)
    np.testing.assert_allclose(images.read_array(tmp_path / "out/a.tif"), expected, rtol=1e-5)


def test_sigma_beyond_the_scale_of_the_model_is_refused_by_it(tmp_path, float_model_path, capsys):
    source = save(tmp_path / "a.tif", noisy_counts())
    assert run_real(source, tmp_path / "out", float_model_path, "--sigma", 2500) == 2
    assert "a.tif: --sigma 2500 is more than the model takes: for this file at most 2000" in capsys.readouterr().err


def test_a_model_of_floats_refuses_integers(tmp_path, float_model_path, capsys):
    save(tmp_path / "in/a.png", grey())
    save(tmp_path / "in/b.tif", noisy_counts())
    assert run_real(tmp_path / "in", tmp_path / "out", float_model_path) == 2
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"bsdenoise: error: {tmp_path / 'in/a.png'}: This model takes float images.*dtype=uint8\.", lines[0]
    )
    (low,) = re.fullmatch(rf"{tmp_path / 'in/b.tif'}: sigma ([\d.]+) \(estimated\)", lines[1]).groups()
    assert float(low) == pytest.approx(50, rel=0.2)
    assert re.fullmatch(rf"1 written, 1 failed; sigma {low} \(estimated per image\)", lines[2])


def test_a_model_of_integers_is_shown_floats_of_other_units_as_fractions(tmp_path, tiny_denoiser_path, capsys):
    counts = noisy_counts()
    source = save(tmp_path / "a.tif", counts)
    assert run_real(source, tmp_path / "out", tiny_denoiser_path(1), "--sigma", 50) == 0
    low, high = np.percentile(counts.astype(float), (0.1, 99.9))
    fractions = ((counts - low) / (high - low)).astype(np.float32)
    denoised = models.load_denoiser(tiny_denoiser_path(1)).denoise(fractions, sigma=50 / (high - low))
    result = images.read_array(tmp_path / "out/a.tif")
    np.testing.assert_allclose(result, denoised * (high - low) + low, rtol=1e-4)
    assert "a.tif: its floats are no fractions of full scale: for the model, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (grey(255), "51.0"),
        (grey(65535, np.uint16), "13107.0"),
        (grey(1.0, np.float32), "0.2"),
        (np.stack([grey(0, shape=(5, 7, 1)), grey(255, shape=(5, 7, 1))]), "25.5 to 51.0"),
    ],
    ids=["8 bits", "16 bits", "float", "stack"],
)
def test_each_file_has_its_estimated_sigma_said(tmp_path, use_model, capsys, array, expected):
    use_model(1, is_known=False)
    source = save(tmp_path / "a.tif", array)
    assert denoise(source, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().err.splitlines()[0] == f"{source}: sigma {expected} (estimated)"


def test_an_estimate_beyond_the_training_is_said_to_be(tmp_path, use_model, capsys):
    use_model(1, is_known=False).noise.greatest = (OWN_SIGMA,)
    source = save(tmp_path / "a.png", grey(255))
    assert denoise(source, "--out", tmp_path / "out") == 0
    words = "estimated; the model was trained up to 25.5"
    assert capsys.readouterr().err.splitlines()[0] == f"{source}: sigma 51.0 ({words})"


@pytest.mark.parametrize(("is_known", "options"), [(True, []), (False, ["--sigma", "25"])], ids=["known", "given"])
def test_a_sigma_that_is_not_estimated_is_not_said(tmp_path, use_model, capsys, is_known, options):
    use_model(1, is_known=is_known)
    assert denoise(save(tmp_path / "a.png", grey()), "--out", tmp_path / "out", *options) == 0
    assert len(capsys.readouterr().err.splitlines()) == 1


# --- real models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "shape"), [(1, (21, 34)), (3, (21, 34, 3)), (1, (21, 34, 3))], ids=str)
@pytest.mark.parametrize("options", [[], ["--sigma", "10"]], ids=["own", "given"])
def test_a_real_model_gives_what_python_gives(tmp_path, tiny_denoiser_path, channels, shape, options):
    noisy = np.random.default_rng(0).integers(0, 65536, shape, np.uint16)
    source = save(tmp_path / "a.png", noisy)
    model_path = tiny_denoiser_path(channels)
    code = cli.main(["denoise", str(source), "--out", str(tmp_path / "out"), "--model", str(model_path), *options])
    assert code == 0
    denoiser = models.load_denoiser(model_path)
    sigma = 10 / 65535 if options else None
    if channels == 1 and len(shape) == 3:
        expected = np.stack([denoiser.denoise(noisy[..., c], sigma=sigma) for c in range(3)], axis=-1)
    else:
        expected = denoiser.denoise(noisy, sigma=sigma)
    result = images.read_array(tmp_path / "out/a.png").astype(float)
    assert np.abs(result - np.clip(expected, 0, 1) * 65535).max() <= 1
    assert (np.abs(result - noisy).mean() > 100) == (sigma is None)  # the model does something, but little for tiny σ


@pytest.mark.slow
def test_the_program_with_a_run_folder_from_the_outside(tmp_path, tiny_denoiser_path):
    source = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8))
    run = tmp_path / "run"
    run.mkdir()
    (run / loading.MODEL_NAME).symlink_to(tiny_denoiser_path(3, high=50 / 255))
    program = "import sys; from bsdenoise.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "denoise", source, tmp_path / "none.png", "--std"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    (tmp_path / "none.png").write_bytes(b"")
    result = subprocess.run(
        [*command, "--out", tmp_path / "out", "--model", run], capture_output=True, text=True, env=environment
    )
    lines = result.stderr.splitlines()
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(
        rf"{tmp_path / 'a.png'}: sigma 9\d\.\d \(estimated; the model was trained up to 50\.0\)", lines[0]
    )
    assert lines[1] == f"bsdenoise: error: {tmp_path / 'none.png'}: cannot be read: it is empty."
    assert re.fullmatch(r"1 written, 1 failed; sigma [\d.]+ \(estimated per image\)", lines[2])
    assert len(lines) == 3
    assert written(tmp_path / "out") == ["a-std.png", "a.png"]
