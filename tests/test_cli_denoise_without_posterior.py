"""`bsdenoise denoise` with models that only denoise (l2, n2n, n2c, n2v), here and behind a server."""

import denoise_command
import keras
import numpy as np
import pytest
from denoise_command import denoise, grey, save, written
from fake_server import ONLY_DENOISES, SERVERS, FakeModel

from bsdenoise import cli, client, export, images, methods
from bsdenoise.app.denoising import Workshop
from bsdenoise.cli import models
from bsdenoise.denoiser import Denoiser
from bsdenoise.noise import GaussianNoise
from bsdenoise.server.run import LocalServer

use_model = denoise_command.use_model
BOTH = pytest.mark.parametrize("protocol", SERVERS)
NAMES = ("l2", "n2n", "n2c", "n2v")
METHODS = pytest.mark.parametrize("method", NAMES)
RANGES = pytest.mark.parametrize("is_known", [True, False], ids=["known", "range"])
NOTE = "bsdenoise: note: a model of method n2n does not use --sigma"
REFUSAL = (
    "bsdenoise: error: --std needs a model that says how sure it is, of method full or per_component. "
    "Received: a model of method {}, which only denoises."
)


@pytest.fixture
def folder(tmp_path):
    """Three grey files."""
    for number in range(1, 4):
        save(tmp_path / f"in/{number}.png", grey(40 * number, shape=(number, 7)))
    return tmp_path


def behind(url, *arguments):
    return cli.main(["denoise", *map(str, arguments), "--server", url])


# --- a stand-in ----------------------------------------------------------------------------------------------------


@RANGES
def test_no_sigma_is_looked_for_or_told(folder, use_model, capsys, is_known):
    model = use_model(1, is_known=is_known, method="n2n")
    assert denoise(folder / "in", "--out", folder / "out") == 0
    assert capsys.readouterr().err == "3 written, 0 failed\n"
    assert model.sigmas == [None] * 3
    assert (images.read_array(folder / "out/2.png") == 40).all()


def test_a_given_sigma_is_noted_once_and_checked_for_each_file(folder, use_model, capsys):
    model = use_model(1, method="n2n")
    assert denoise(folder / "in", "--out", folder / "out", "--sigma", "51") == 0
    assert capsys.readouterr().err.splitlines() == [NOTE, "3 written, 0 failed"]
    assert model.sigmas == pytest.approx([0.2] * 3)


def test_a_sigma_that_cannot_be_read_is_refused_all_the_same(folder, use_model, capsys):
    use_model(1, method="n2n")
    assert denoise(folder / "in", "--out", folder / "out", "--sigma", "many") == 2
    assert capsys.readouterr().err.startswith("bsdenoise: error: A sigma reads 25")
    assert not (folder / "out").exists()


@METHODS
@pytest.mark.parametrize("sigma", [[], ["--sigma", "51"]], ids=["none", "given"])
def test_std_is_refused_before_anything_is_written(folder, use_model, capsys, method, sigma):
    model = use_model(1, method=method)
    assert denoise(folder / "in", "--out", folder / "out", "--std", *sigma) == 2
    assert capsys.readouterr().err.splitlines() == [REFUSAL.format(method)]
    assert model.shapes == [] and not (folder / "out").exists()


def test_a_stack_and_the_channels_of_a_grey_model(tmp_path, use_model, capsys):
    model = use_model(1, is_known=False, method="l2")
    save(tmp_path / "a.npy", grey(100, shape=(2, 5, 7, 3)))
    assert denoise(tmp_path / "a.npy", "--out", tmp_path / "out") == 0
    assert (images.read_array(tmp_path / "out/a.npy") == 50).all()
    assert model.shapes == [(5, 7, 1)] * 6
    note, line = capsys.readouterr().err.splitlines()
    assert note.endswith("taken as N, Y, X, C: 2 images of 5 rows, 7 columns and 3 channels; --axes says otherwise")
    assert line == "1 written, 0 failed"


# --- a stand-in behind a server ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("sigma", [[], ["--sigma", "51"]], ids=["none", "given"])
def test_behind_a_server_too(folder, capsys, protocol, sigma):
    model = FakeModel(**ONLY_DENOISES, channels=1)
    with SERVERS[protocol](model) as url:
        assert behind(url, folder / "in", "--out", folder / "out", *sigma) == 0
    assert capsys.readouterr().err.splitlines() == [NOTE] * bool(sigma) + ["3 written, 0 failed"]
    assert {name for name, _ in model.calls} == {"describe", "encoded" if protocol == "rest" else "serving_default"}
    assert not any("sigma" in sent for _, sent in model.calls)
    assert (images.read_array(folder / "out/2.png") == np.floor(40 + 0.0125 * 255 + 0.5)).all()


@BOTH
def test_std_is_refused_behind_a_server_before_anything_is_sent(folder, capsys, protocol):
    model = FakeModel(**ONLY_DENOISES, channels=1)
    with SERVERS[protocol](model) as url:
        assert behind(url, folder / "in", "--out", folder / "out", "--std") == 2
    assert capsys.readouterr().err.splitlines() == [REFUSAL.format("n2n")]
    assert [name for name, _ in model.calls] == ["describe"]
    assert not (folder / "out").exists()


# --- real models ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """A function from a method to the `.keras` file of a tiny model of it, trained for a range of σ."""
    folder = tmp_path_factory.mktemp("models")

    def make(method):
        path = folder / f"{method}.keras"
        if not path.exists():
            keras.utils.set_random_seed(1)
            network = methods.get(method).network(3, width=4, depth=1)
            Denoiser(network, GaussianNoise(0.05, 0.2), method=method).save(path)
        return path

    return make


@pytest.fixture(scope="module")
def served(tmp_path_factory, model_path):
    """A server of the `n2n` model that takes 32 × 32 pixels at most."""
    folder = tmp_path_factory.mktemp("served")
    denoiser = models.load_denoiser(model_path("n2n"))
    export.export_saved_model(denoiser, folder / "1", tile=32, overlap=8, max_pixels=32 * 32)
    with LocalServer({"denoiser": folder}) as server:
        yield {"rest": server.rest_url, "grpc": f"grpc://{server.grpc_address}"}


def save_noisy_files(folder):
    rng = np.random.default_rng(0)
    save(folder / "small.png", rng.integers(0, 256, (9, 12, 3), np.uint8))
    save(folder / "large.png", rng.integers(0, 256, (40, 50, 3), np.uint8))
    save(folder / "deep.png", rng.integers(0, 65536, (9, 12, 3), np.uint16))
    save(folder / "photo.jpg", rng.integers(0, 256, (16, 24, 3), np.uint8))
    save(folder / "stack.tif", rng.uniform(0.4, 0.6, (2, 9, 12, 3)).astype("float32"))


@METHODS
def test_the_model_file_of_each_method(tmp_path, capsys, model_path, method):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    save(tmp_path / "a.png", pixels)
    arguments = [str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--model", str(model_path(method))]
    assert cli.main(["denoise", *arguments]) == 0
    assert capsys.readouterr().err == "1 written, 0 failed\n"
    network = models.load_denoiser(model_path(method)).network
    expected = np.asarray(network(pixels[np.newaxis] / np.float32(255)))[0]
    difference = images.read_array(tmp_path / "out/a.png") - np.clip(expected, 0, 1) * 255
    assert np.abs(difference).max() < 0.501 and expected.std() > 0.01
    assert cli.main(["denoise", *arguments, "--overwrite", "--std"]) == 2
    assert capsys.readouterr().err.splitlines() == [REFUSAL.format(method)]


@BOTH
def test_the_files_are_those_of_the_local_model(tmp_path, capsys, served, model_path, protocol):
    save_noisy_files(tmp_path / "in")
    model = ["--model", str(model_path("n2n"))]
    assert cli.main(["denoise", str(tmp_path / "in"), "--out", str(tmp_path / "local"), *model]) == 0
    assert behind(served[protocol], tmp_path / "in", "--out", tmp_path / "remote") == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "written" not in line] == []
    assert written(tmp_path / "remote") == written(tmp_path / "local") != []
    for file in written(tmp_path / "local"):
        expected, result = (images.read_array(tmp_path / side / file) for side in ("local", "remote"))
        assert result.dtype == expected.dtype
        if result.dtype == np.float32:
            np.testing.assert_allclose(result, expected, atol=1e-5)
        else:  # float32 sums in another order may be rounded the other way
            differences = np.abs(result.astype(int) - expected)
            assert differences.max() <= 1 and differences.mean() < 0.01, file


@BOTH
def test_a_client_of_a_real_export(served, model_path, protocol):
    noisy = np.random.default_rng(0).uniform(0, 1, (2, 9, 12, 3)).astype("float32")
    with client.connect(served[protocol]) as connected:
        assert (connected.method.name, connected.has_posterior) == ("n2n", False)
        expected = models.load_denoiser(model_path("n2n")).denoise(noisy)
        np.testing.assert_allclose(connected.denoise(noisy), expected, atol=1e-5)
        np.testing.assert_array_equal(connected.denoise(noisy, 0.1), connected.denoise(noisy))


@BOTH
def test_the_page_before_a_real_export(tmp_path, served, model_path, protocol):
    source = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8))
    _, local, _ = Workshop(models.load_denoiser(model_path("n2n")), 1000).look(source, None, 0)
    with client.connect(served[protocol]) as connected:
        _, remote, _ = Workshop(connected, 1000).look(source, "30/255", 0)
    assert np.abs(remote.denoised.astype(int) - local.denoised).max() <= 1
    assert (remote.ratio, remote.sigmas, remote.origin, remote.estimated_psnr) == (None, (), None, None)
