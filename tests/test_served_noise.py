"""Noise that is not white behind a server and on the page: exports, clients, the command and the workshop."""

import io

import numpy as np
import pytest
import tensorflow as tf
from exported import make_denoiser
from PIL import Image
from scipy import ndimage
from skimage import data

import bsdenoise
from bsdenoise import cli, client, images, noise
from bsdenoise.app.denoising import Workshop
from bsdenoise.export import export_saved_model
from bsdenoise.server.run import LocalServer

THETA = np.array([0.02, 0.01, 0.05], np.float32)  # gain, σ, pedestal


@pytest.fixture(scope="module")
def clean():
    return (data.astronaut()[40:232, 60:252] @ [0.2989, 0.587, 0.114] / 255).astype("float32")[..., np.newaxis]


@pytest.fixture(scope="module")
def noisy(clean):
    """A photograph as a detector sees it, in 8 bits, which holds it after a file too."""
    found = noise.PoissonGaussianNoise((0.02, 0.02)).corrupt(clean, THETA, np.random.default_rng(0))
    return np.uint8(np.clip(np.round(255 * found), 0, 255))


@pytest.fixture(scope="module")
def denoiser():
    return make_denoiser(1, noise.GaussianNoise(5 / 255, 50 / 255), depth=2)


@pytest.fixture(scope="module")
def folder(denoiser, tmp_path_factory):
    return export_saved_model(denoiser, tmp_path_factory.mktemp("exported") / "m" / "1")


@pytest.fixture(scope="module")
def served(folder):
    return tf.saved_model.load(folder).signatures


@pytest.fixture(scope="module")
def server(folder):
    with LocalServer({"denoiser": folder.parent}) as server:
        yield server


def png(array):
    file = io.BytesIO()
    Image.fromarray(array[..., 0]).save(file, "PNG")
    return file.getvalue()


# --- the graph -----------------------------------------------------------------------------------------------------


def test_the_graph_finds_out_by_itself(noisy, denoiser, served):
    pixels = noisy[None] / np.float32(255)
    stabilized = denoiser.stabilized()
    expected, theta = stabilized.denoise_with_noise(pixels)
    assert theta[0, 0] == pytest.approx(0.02, rel=0.25) and np.abs(expected - denoiser.denoise(pixels)).max() > 0.01
    np.testing.assert_allclose(served["serving_default"](image=pixels)["denoised"], expected, atol=2e-5)
    np.testing.assert_allclose(served["own_noise"](image=pixels)["noise"], theta, rtol=1e-4)
    [found] = served["encoded"](image_bytes=tf.constant([png(noisy)]))["denoised_bytes"].numpy()
    difference = np.asarray(Image.open(io.BytesIO(found)), float) / 255 - np.clip(expected[0, ..., 0], 0, 1)
    assert np.abs(difference).max() < 0.51 / 255


def test_told_noise_and_sigma_are_both_taken(noisy, denoiser, served):
    pixels = np.stack([noisy, noisy[::-1]]) / np.float32(255)
    thetas = np.stack([THETA, [0.0, 0.07, 0.0]]).astype("float32")
    expected = denoiser.stabilized().denoise(pixels, noise=thetas)
    np.testing.assert_allclose(served["with_noise"](image=pixels, noise=thetas)["denoised"], expected, atol=2e-5)
    files = tf.constant([png(noisy), png(noisy[::-1])])
    found = served["encoded_with_noise"](image_bytes=files, noise=thetas)["denoised_bytes"].numpy()
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in found]) / 255
    assert np.abs(decoded - np.clip(expected[..., 0], 0, 1)).max() < 0.51 / 255
    white = denoiser.denoise(pixels, sigma=0.07)
    np.testing.assert_allclose(expected[1], white[1], atol=1e-5)
    np.testing.assert_allclose(served["with_sigma"](image=pixels, sigma=[0.07] * 2)["denoised"], white, atol=2e-5)


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ([[0.02, 2.0, 0.0]], "sigma"),
        ([[np.nan, 0.1, 0.0]], "gain"),
        ([THETA, THETA], "of each image"),
        ([[0.1]], "shape"),
    ],
)
def test_noise_that_makes_no_sense_is_refused(noisy, served, theta, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served["with_noise"](image=tf.constant(noisy[None] / np.float32(255)), noise=tf.constant(np.float32(theta)))


def test_models_of_one_sigma_have_no_such_signature():
    known = make_denoiser(1, noise.GaussianNoise(0.1, 0.1))
    assert "with_noise" not in bsdenoise.export.signatures.names_of(known)
    assert not known.can_be_stabilized


# --- clients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_client_tells_and_asks_for_it(noisy, denoiser, server, protocol):
    stabilized = denoiser.stabilized()
    expected, theta = stabilized.denoise_with_noise(noisy)
    address = server.rest_url if protocol == "rest" else f"grpc://{server.grpc_address}"
    with client.connect(address) as model:
        assert model.noise.kind == "gaussian" and model.can_be_stabilized
        other = model.stabilized()
        assert [one.name for one in other.noise.parameters] == ["gain", "sigma", "pedestal"]
        tolerance = 0.51 / 255 if protocol == "rest" else 2e-5  # over REST files travel
        for one in (model, other):
            np.testing.assert_allclose(np.clip(one.denoise(noisy), 0, 1), np.clip(expected, 0, 1), atol=tolerance)
        np.testing.assert_allclose(other.own_noise(noisy), theta[0], rtol=1e-4)
        told = np.clip(stabilized.denoise(noisy, noise=THETA), 0, 1)
        np.testing.assert_allclose(np.clip(other.denoise(noisy, noise=THETA), 0, 1), told, atol=tolerance)
        np.testing.assert_allclose(model.own_sigma(noisy), denoiser.own_sigma(noisy[None] / 255.0)[0], rtol=1e-4)
        for refused in (lambda: other.denoise(noisy, sigma=0.1), lambda: other.posterior(noisy), other.stabilized):
            with pytest.raises(ValueError, match="noise"):
                refused()


def test_the_command_with_a_server_does_as_without(noisy, denoiser, server, tmp_path, capsys):
    images.write(tmp_path / "a.png", noisy[..., 0])
    denoiser.save(tmp_path / "m.keras")
    outputs = []
    for name, where in (("here", ["--model", str(tmp_path / "m.keras")]), ("there", ["--server", server.rest_url])):
        out = tmp_path / f"{name}.png"
        assert cli.main(["denoise", str(tmp_path / "a.png"), "--out", str(out), *where]) == 0
        told = capsys.readouterr()
        [line] = [line for line in (told.out + told.err).splitlines() if "a.png: gain" in line]
        outputs.append((line, images.read_image(out).array.astype(int)))
    assert outputs[0][0] == outputs[1][0] and np.abs(outputs[0][1] - outputs[1][1]).max() <= 1
    theta = f"poisson-gaussian:gain={0.02 * 255},sigma={0.01 * 255},pedestal={0.05 * 255}"
    command = ["denoise", str(tmp_path / "a.png"), "--out", str(tmp_path / "told.png"), "--noise", theta]
    assert cli.main([*command, "--server", server.rest_url]) == 0
    expected = denoiser.stabilized().denoise(noisy, noise=THETA)[..., 0]
    assert np.abs(images.read_image(tmp_path / "told.png").array / 255 - np.clip(expected, 0, 1)).max() < 0.51 / 255


# --- the page ------------------------------------------------------------------------------------------------------


def test_the_page_does_as_the_command(noisy, clean, denoiser, tmp_path):
    shared = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(clean.shape), (0.8, 0.8, 0))
    correlated = np.uint8(np.clip(np.round(255 * (clean + 0.06 / shared.std() * shared)), 0, 255))
    denoiser.save(tmp_path / "m.keras")
    workshop = Workshop(denoiser, 2**20)
    for name, array, words in (("grown", noisy, "gain"), ("shared", correlated, "neighbouring pixels share it")):
        source, target = tmp_path / f"{name}.png", tmp_path / f"{name}-out.png"
        images.write(source, array[..., 0])
        _, result, _ = workshop.denoise(source, target, None, 0)
        assert words in result.noise and result.estimated_psnr is None and result.origin is None
        assert result.ratio.shape == array.shape[:2] and 0 < result.ratio.mean() < 1
        out = tmp_path / f"{name}-command.png"
        assert cli.main(["denoise", str(source), "--out", str(out), "--model", str(tmp_path / "m.keras")]) == 0
        np.testing.assert_array_equal(images.read_image(target).array, images.read_image(out).array)
        # σ says that noise is white.
        _, white, _ = workshop.look(source, "15", 0)
        assert white.noise is None and white.origin == "given"
