"""The page before a served model: the same files as with the model itself."""

import numpy as np
import pytest

from bsdenoise import client, images
from bsdenoise.app import texts
from bsdenoise.app.denoising import Workshop
from bsdenoise.cli import models
from bsdenoise.export import export_saved_model
from bsdenoise.server.run import LocalServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def denoiser(tiny_denoiser_path):
    return models.load_denoiser(tiny_denoiser_path(3, 60 / 255))


@pytest.fixture(scope="module")
def served(denoiser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    export_saved_model(denoiser, folder / "1")
    with LocalServer({"denoiser": folder}) as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def remote(served, request):
    url = served.rest_url if request.param == "http" else f"grpc://{served.grpc_address}"
    with client.connect(url) as model:
        yield model


@pytest.mark.parametrize("sigma", [None, "30/255"], ids=["estimated", "given"])
@pytest.mark.parametrize(("name", "dtype"), [("a.png", np.uint8), ("a.tif", np.uint16)])
def test_files_and_numbers_are_those_of_the_model(tmp_path, denoiser, remote, name, dtype, sigma):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (18, 22, 3), dtype, endpoint=True)
    source = tmp_path / name
    images.write(source, pixels)
    _, expected, _ = Workshop(denoiser, 10_000).denoise(source, tmp_path / f"local-{name}", sigma, 0)
    facts, result, _ = Workshop(remote, 10_000).denoise(source, tmp_path / f"remote-{name}", sigma, 0)
    difference = images.read_array(tmp_path / f"remote-{name}").astype(int) - images.read_array(
        tmp_path / f"local-{name}"
    ).astype(int)
    assert np.abs(difference).max() <= 1  # float32 sums in another order, rounded
    assert np.mean(difference != 0) < 0.02
    np.testing.assert_allclose(result.ratio, expected.ratio, rtol=1e-3)
    assert result.sigmas == pytest.approx(expected.sigmas, rel=1e-5)
    assert (result.origin, facts.own_sigma) == (expected.origin, None)
    if sigma:
        assert result.estimated_psnr == pytest.approx(expected.estimated_psnr, abs=1e-2)
    else:
        assert result.estimated_psnr is None


def test_a_server_that_is_gone_is_one_sentence(tmp_path):
    images.write(tmp_path / "a.png", np.zeros((4, 5, 3), np.uint8))
    with client.connect("http://127.0.0.1:9", timeout=1, retries=0) as model:
        with pytest.raises(client.ClientError) as error:
            Workshop(model, 100).inspect(tmp_path / "a.png")
        assert "http://127.0.0.1:9" in texts.sentence(error.value)
