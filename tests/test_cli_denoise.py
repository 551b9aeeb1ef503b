"""`bsdenoise denoise`: which file becomes which, units of sigma, and what is written."""

import io
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from bsdenoise import cli, images
from bsdenoise.cli import libraries, models, paths

OWN_SIGMA = 0.1


class HalvingDenoiser:
    """Stands for a model: halves what it gets, which shows units, shapes and channels; remembers σ and shapes."""

    def __init__(self, channels, is_known=True):
        self.channels = channels
        self.noise = SimpleNamespace(is_known=is_known)
        self.sigmas = []
        self.shapes = []

    def own_sigma(self, image):
        assert image.dtype == np.float32
        assert image.ndim == 4
        return np.array([OWN_SIGMA if self.noise.is_known else OWN_SIGMA * (1 + image.mean())])

    def denoise(self, noisy, sigma):
        return self.posterior(noisy, sigma).denoised

    def posterior(self, noisy, sigma):
        assert noisy.shape[-1] == self.channels
        self.sigmas.append(sigma)
        self.shapes.append(noisy.shape)
        denoised = images.to_unit(noisy) / 2
        return SimpleNamespace(denoised=denoised, std=np.float32(sigma) * np.clip(2 * denoised, 0, 1))


@pytest.fixture
def use_model(monkeypatch):
    """Puts a `HalvingDenoiser` in the place of the model file, and returns it."""

    def use(channels, **options):
        denoiser = HalvingDenoiser(channels, **options)
        monkeypatch.setattr(models, "load_denoiser", lambda path: denoiser)
        return denoiser

    return use


def denoise(*arguments):
    return cli.main(["denoise", *map(str, arguments), "--model", "model.keras"])


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, array)
    return path


def grey(value=100, dtype=np.uint8, shape=(5, 7)):
    return np.full(shape, value, dtype)


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
        ("a.npy", grey(3.0, np.float32, (5, 7, 1)), 1.5),
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
    errors = capsys.readouterr().err
    assert "flat.png: `sigma` must be at most 1" in errors and "fractions of full scale" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["deep.png"]


@pytest.mark.parametrize(
    ("is_known", "values", "expected"),
    [
        (True, [0, 255], "sigma 25.5/255 (the model's own)"),
        (False, [0, 255], "sigma 25.5/255 to 51/255 (estimated per image)"),
        (False, [255], "sigma 51/255 (estimated per image)"),
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


# --- uncertainty ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)], ids=str)
@pytest.mark.parametrize("sigma", [[], ["--sigma", "10"]], ids=["own", "given"])
def test_std_is_relative_to_sigma(tmp_path, use_model, shape, sigma):
    use_model(shape[2] if len(shape) > 2 else 1)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    save(tmp_path / "a.png", pixels)
    assert denoise(tmp_path / "a.png", "--out", tmp_path / "out", "--std", *sigma) == 0
    np.testing.assert_allclose(images.read_array(tmp_path / "out/a-std.png"), pixels, atol=1)


def test_std_of_many_channels_is_their_mean(tmp_path, use_model):
    use_model(4)
    save(tmp_path / "a.npy", np.broadcast_to(np.array([0, 51, 102, 255], np.uint8), (5, 7, 4)).copy())
    assert denoise(tmp_path / "a.npy", "--out", tmp_path / "out", "--std") == 0
    ratio = images.read_array(tmp_path / "out/a-std.npy")
    assert (ratio.shape, ratio.dtype) == ((5, 7, 1), np.float32)
    np.testing.assert_allclose(ratio, 0.4, rtol=1e-5)


def test_std_of_a_stack_is_a_stack(tmp_path, use_model):
    use_model(1)
    save(tmp_path / "a.npy", grey(51, shape=(2, 5, 7, 1)))
    assert denoise(tmp_path / "a.npy", "--out", tmp_path / "out", "--std") == 0
    ratio = images.read_array(tmp_path / "out/a-std.npy")
    assert ratio.shape == (2, 5, 7, 1)
    np.testing.assert_allclose(ratio, 0.2, rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (2, 5, 7, 1)], ids=str)
def test_std_of_tiff_is_float_tiff(tmp_path, use_model, shape):
    use_model(1)
    save(tmp_path / "a.tif", grey(51, shape=shape))
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--std") == 0
    ratio = images.read_array(tmp_path / "out/a-std.tif")
    assert (ratio.shape, ratio.dtype) == (shape, np.float32)
    np.testing.assert_allclose(ratio, 0.2, rtol=1e-5)


def test_std_of_a_microscope_stack_keeps_its_axes(tmp_path, use_model):
    use_model(1)
    save_tiff(tmp_path / "a.tif", (2, 3, 2, 5, 7), imagej=True, metadata={"axes": "TZCYX"})
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out", "--std") == 0
    # The mean over channels has none.
    assert axes_of(tmp_path / "out/a-std.tif") == ("shaped", "TZYX", (2, 3, 5, 7), np.float32)


def test_the_uncertainties_of_one_name_in_several_formats_are_apart(tmp_path, use_model):
    use_model(1)
    names = ["a.png", "a.jpg", "a.jpeg", "a.tif", "a.tiff", "a.npy"]
    for name in names:
        save(tmp_path / "in" / name, grey())
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--std") == 0
    uncertainties = ["a-std.npy", "a-std.png", "a-std.tif", "a-std.tiff", "a.jpeg-std.png", "a.jpg-std.png"]
    assert written(tmp_path / "out") == sorted(names + uncertainties)


# --- stacks and TIFF -----------------------------------------------------------------------------------------------


def save_tiff(path, shape, dtype=np.uint8, **options):
    pixels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype) * 2
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
    return pixels


def axes_of(path):
    with tifffile.TiffFile(path) as tif:
        (series,) = tif.series
        return series.kind, series.axes, series.shape, series.dtype


TIFFS = {
    "pages": ((4, 5, 7), np.uint16, {"metadata": None}),
    "float with time and depth": ((2, 3, 5, 7), np.float32, {"metadata": {"axes": "TZYX"}, "compression": "zlib"}),
    "imagej": ((2, 3, 2, 5, 7), np.uint16, {"imagej": True, "metadata": {"axes": "TZCYX"}}),
    "imagej rgb": ((3, 5, 7, 3), np.uint8, {"imagej": True, "photometric": "rgb", "metadata": {"axes": "ZYXS"}}),
    "ome": ((2, 3, 2, 5, 7), np.uint16, {"ome": True, "metadata": {"axes": "TZCYX"}}),
    "rgb in planes": ((3, 5, 7), np.uint8, {"photometric": "rgb", "planarconfig": "separate"}),
    "5 channels": ((5, 5, 7), np.float64, {"metadata": {"axes": "CYX"}}),
}


@pytest.mark.parametrize(("shape", "dtype", "options"), TIFFS.values(), ids=TIFFS)
def test_tiff_keeps_axes_type_and_kind(tmp_path, use_model, shape, dtype, options):
    denoiser = use_model(1)
    pixels = save_tiff(tmp_path / "a.tif", shape, dtype, **options)
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out") == 0
    assert axes_of(tmp_path / "out/a.tif") == axes_of(tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.tif"), pixels // 2)
    assert len(denoiser.shapes) == pixels.size // 35


def test_a_model_of_many_channels_takes_the_channels_of_each_image(tmp_path, use_model):
    denoiser = use_model(2)
    pixels = save_tiff(tmp_path / "a.ome.tif", (2, 3, 5, 7), np.uint16, metadata={"axes": "CZYX"})
    assert denoise(tmp_path / "a.ome.tif", "--out", tmp_path / "out") == 0
    assert denoiser.shapes == [(5, 7, 2)] * 3
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.ome.tif"), pixels // 2)


def test_other_numbers_of_channels_are_refused(tmp_path, use_model, capsys):
    use_model(2)
    save_tiff(tmp_path / "a.tif", (5, 5, 7), metadata={"axes": "CYX"})
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out") == 2
    assert "a.tif: an image with 5 channels cannot be denoised by a model for 2 channels" in capsys.readouterr().err


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, use_model, capsys):
    denoiser = use_model(1)
    save_tiff(tmp_path / "a.tif", (4, 5, 7))
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "b.png") == 2
    assert "b.png: PNG holds grey or RGB images. Received: shape=(4, 5, 7, 1)" in capsys.readouterr().err
    assert denoiser.shapes == []


def test_what_was_changed_on_reading_is_noted(tmp_path, use_model, capsys):
    use_model(1)
    Image.new("LA", (7, 5), (100, 50)).save(tmp_path / "a.png")
    assert denoise(tmp_path / "a.png", "--out", tmp_path / "out") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"bsdenoise: note: {tmp_path / 'a.png'}: its alpha channel is dropped"
    assert (images.read_array(tmp_path / "out/a.png") == 50).all()


def test_the_progress_bar_counts_images(tmp_path, use_model, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    use_model(1)
    (tmp_path / "in").mkdir()
    save_tiff(tmp_path / "in/a.tif", (4, 5, 7))
    save_tiff(tmp_path / "in/b.tif", (2, 5, 7))
    (tmp_path / "in/c.png").write_bytes(b"no image")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 2
    assert "7/7" in terminal.getvalue()  # a broken file counts for one


def test_a_stack_needs_little_more_memory_than_its_result(tmp_path, use_model):
    use_model(1)
    pixels = save_tiff(tmp_path / "a.tif", (64, 64, 64), np.uint16)
    denoise(tmp_path / "a.tif", "--out", tmp_path / "first")
    tracemalloc.start()
    assert denoise(tmp_path / "a.tif", "--out", tmp_path / "out") == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pixels.nbytes < peak < 1.5 * pixels.nbytes


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
    assert "a.tif: `sigma` must be at most 2000" in capsys.readouterr().err


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


def test_a_model_of_integers_refuses_floats_of_other_units(tmp_path, tiny_denoiser_path, capsys):
    source = save(tmp_path / "a.tif", noisy_counts())
    assert run_real(source, tmp_path / "out", tiny_denoiser_path(1), "--sigma", 0.1) == 2
    assert "a.tif: Pixels must lie between -16 and 16: the units are fractions of full scale" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize(("is_known", "options"), [(True, []), (False, ["--sigma", "25"])], ids=["known", "given"])
def test_a_sigma_that_is_not_estimated_is_not_said(tmp_path, use_model, capsys, is_known, options):
    use_model(1, is_known=is_known)
    assert denoise(save(tmp_path / "a.png", grey()), "--out", tmp_path / "out", *options) == 0
    assert len(capsys.readouterr().err.splitlines()) == 1


# --- many files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for name in ("in/a.png", "in/sub/a.png", "in/sub/b.jpg"):
        save(tmp_path / name, grey())
    return tmp_path


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_keeps_its_structure(folder, use_model):
    use_model(1)
    assert denoise(folder / "in", "--out", folder / "out") == 0
    assert written(folder / "out") == ["a.png", "sub/a.png", "sub/b.jpg"]


def test_a_glob_keeps_the_structure_from_its_first_wildcard_on(folder, use_model):
    use_model(1)
    assert denoise(folder / "in/**/*.png", "--out", folder / "out") == 0
    assert written(folder / "out") == ["a.png", "sub/a.png"]


def test_a_bad_file_is_named_and_does_not_stop_the_others(folder, use_model, capsys):
    use_model(1)
    bad = folder / "in/broken.png"
    bad.write_text("no image")
    assert denoise(folder / "in", "--out", folder / "out") == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith(f"bsdenoise: error: {bad}: cannot be read")
    assert errors[1].startswith("3 written, 1 failed")
    assert len(errors) == 2
    assert len(written(folder / "out")) == 3


def test_an_error_of_the_model_does_not_stop_the_others(folder, use_model, capsys, monkeypatch):
    denoiser = use_model(1)
    posterior = denoiser.posterior

    def fail_once(noisy, sigma):
        monkeypatch.setattr(denoiser, "posterior", posterior)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(denoiser, "posterior", fail_once)
    assert denoise(folder / "in", "--out", folder / "out") == 2
    assert f"{folder / 'in/a.png'}: RuntimeError: out of memory" in capsys.readouterr().err
    assert written(folder / "out") == ["sub/a.png", "sub/b.jpg"]


def test_ctrl_c_stops_at_once(folder, use_model, monkeypatch):
    denoiser = use_model(1)

    def interrupt(noisy, sigma):
        raise KeyboardInterrupt

    monkeypatch.setattr(denoiser, "posterior", interrupt)
    assert denoise(folder / "in", "--out", folder / "out") == 130
    assert written(folder / "out") == []


def test_outputs_of_an_earlier_run_inside_the_folder_are_no_inputs(folder, use_model):
    use_model(1)
    for options in ([], ["--overwrite"]):
        assert denoise(folder / "in", "--out", folder / "in/clean", *options) == 0
    assert written(folder / "in/clean") == ["a.png", "sub/a.png", "sub/b.jpg"]


def test_a_file_given_twice_is_denoised_once(folder, use_model):
    denoiser = use_model(1)
    assert denoise(folder / "in/a.png", folder / "in/../in/a.png", "--out", folder / "out") == 0
    assert len(denoiser.shapes) == 1


def test_nothing_is_overwritten_unless_told(folder, use_model, capsys):
    use_model(1)
    source = folder / "in/a.png"
    before = source.read_bytes()
    assert denoise(source, "--out", folder / "in") == 2
    assert "would replace the input" in capsys.readouterr().err
    assert source.read_bytes() == before
    assert denoise(source, "--out", folder / "in", "--overwrite") == 0
    assert (images.read_array(source) == 50).all()
    assert denoise(source, "--out", folder / "in/sub") == 2
    assert "exists already; --overwrite replaces it" in capsys.readouterr().err
    assert denoise(source, "--out", folder / "in/sub", "--overwrite") == 0
    assert (images.read_array(folder / "in/sub/a.png") == 25).all()


def test_an_input_behind_a_link_is_not_overwritten(folder, use_model, capsys):
    use_model(1)
    (folder / "link").symlink_to(folder / "in")
    assert denoise(folder / "in/a.png", "--out", folder / "link") == 2
    assert "would replace the input" in capsys.readouterr().err


PLANS_REFUSED = {
    "no input": ([], "out", "at least one image file"),
    "missing": (["in/x.png"], "out", "in/x.png: no such file or folder"),
    "same name": (["in/a.png", "in/sub/a.png"], "out", "in/a.png and in/sub/a.png would both be written to out/a.png"),
    "out is a file": (["in"], "in/a.png", "in/a.png: --out must be a folder"),
    "out named like a file": (["in"], "new.png", "new.png: --out must be a folder"),
    "out of unknown kind": (["in/a.png"], "b.bmp", r"b.bmp: unknown kind of image file. Expected a folder, or"),
    "onto a folder": (["in/sub/b.jpg"], "folders", "folders/b.jpg: is a folder"),
    "another input": (["in/sub", "in"], "in", "would replace the input|would both be written"),
}


@pytest.mark.parametrize(("inputs", "out", "message"), PLANS_REFUSED.values(), ids=PLANS_REFUSED)
def test_plans_that_would_lose_something_are_refused(folder, monkeypatch, inputs, out, message):
    monkeypatch.chdir(folder)
    (folder / "folders/b.jpg").mkdir(parents=True)
    with pytest.raises(ValueError, match=message):
        paths.plan(inputs, Path(out), overwrite=True)


def test_the_uncertainty_picture_must_not_hit_another_output(tmp_path):
    for name in ("a.png", "a-std.png"):
        save(tmp_path / "in" / name, grey())
    with pytest.raises(ValueError, match="would both be written to .*a-std.png"):
        paths.plan([str(tmp_path / "in")], tmp_path / "out", std=True)
    assert len(paths.plan([str(tmp_path / "in")], tmp_path / "out")) == 2


def test_an_output_is_never_another_input_even_with_overwrite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "x/sub/a.png", grey())
    save(tmp_path / "x/a.png", grey())
    with pytest.raises(ValueError, match="x/a.png: the output would replace the input x/a.png"):
        paths.plan(["x/sub/a.png", "x"], Path("x"), overwrite=True)


# --- models --------------------------------------------------------------------------------------------------------


def test_missing_and_wrong_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere.keras: no such model"):
        models.load_denoiser(tmp_path / "nowhere.keras")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'denoiser.keras'}: no such model")):
        models.load_denoiser(tmp_path)
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(ValueError, match="text.keras: not a .keras file"):
        models.load_denoiser(tmp_path / "text.keras")


def test_the_innermost_of_nested_keras_errors_is_shown_in_short(tmp_path, monkeypatch):
    import keras

    def fail(*arguments, **options):
        raise TypeError("could not. config={...}\n\nException encountered: no class 'Pad'. " + "word " * 1000)

    zipfile.ZipFile(tmp_path / "a.keras", "w").close()
    monkeypatch.setattr(keras.models, "load_model", fail)
    with pytest.raises(ValueError, match="a.keras: cannot be read as a Keras model: no class 'Pad'. word") as caught:
        models.load_denoiser(tmp_path / "a.keras")
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


def test_start_up_chatter_is_held_back_unless_loading_fails(capfd, monkeypatch):
    monkeypatch.delenv("BSDENOISE_DEBUG", raising=False)
    with libraries._held_back_stderr():
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError, match="no"), libraries._held_back_stderr():
        os.write(2, b"useful\n")
        raise ImportError("no")
    assert capfd.readouterr().err == "useful\n"
    monkeypatch.setenv("BSDENOISE_DEBUG", "1")
    with libraries._held_back_stderr():
        os.write(2, b"shown\n")
    assert capfd.readouterr().err == "shown\n"


def test_a_model_that_is_no_denoiser_is_refused(tmp_path):
    import keras

    keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="expected a bsdenoise Denoiser. Received a model of type Sequential"):
        models.load_denoiser(tmp_path / "other.keras")


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
    (run / models.MODEL_NAME).symlink_to(tiny_denoiser_path(3, high=50 / 255))
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
    assert re.fullmatch(rf"{tmp_path / 'a.png'}: sigma \d+\.\d \(estimated\)", lines[0])
    assert lines[1] == f"bsdenoise: error: {tmp_path / 'none.png'}: cannot be read: it is empty."
    assert re.fullmatch(r"1 written, 1 failed; sigma [\d.]+/255 \(estimated per image\)", lines[2])
    assert len(lines) == 3
    assert written(tmp_path / "out") == ["a-std.png", "a.png"]
