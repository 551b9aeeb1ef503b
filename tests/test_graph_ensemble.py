"""The self-ensemble of the exported graph is that of `Denoiser.denoise`, in one pass and in tiles."""

import json

import numpy as np
import pytest
import tensorflow as tf
from exported import export_some, make_denoiser, noisy_batch

from bsdenoise import Denoiser, cli, unet
from bsdenoise.export import export_saved_model
from bsdenoise.noise import GaussianNoise

KNOWN = GaussianNoise(25 / 255, 25 / 255)
TILE, OVERLAP = 32, 8


@pytest.fixture(scope="module")
def plain():
    return Denoiser(unet(channels=1, width=2, depth=1, num_outputs=1), KNOWN, method="n2n")


@pytest.fixture(scope="module")
def ranged():
    """One that estimates σ."""
    return make_denoiser(1, GaussianNoise(5 / 255, 50 / 255))


def served(denoiser, folder, *names, **options):
    return tf.saved_model.load(export_some(denoiser, folder / "1", *names, **options)).signatures


@pytest.mark.parametrize("tta", [2, 4, 8])
def test_the_graph_averages_the_copies_that_denoise_does(tta, plain, tmp_path):
    """The branches are computed once for all turns, or the whole network for each copy."""
    for denoiser in (make_denoiser(2, KNOWN, offset=100.0, scale=4000.0, fractional=False), plain):
        ask = served(denoiser, tmp_path / denoiser.method.name, "serving_default", tta=tta)["serving_default"]
        tolerance = 1e-5 * denoiser.scale
        for shape in ((2, 9, 14), (1, 8, 4), (1, 2, 3)):
            image, _ = noisy_batch(denoiser, shape)
            expected = denoiser.denoise(image, tta=tta)
            assert np.abs(expected - denoiser.denoise(image, tta=1)).max() > 30 * tolerance
            np.testing.assert_allclose(ask(image=image)["denoised"], expected, rtol=1e-5, atol=tolerance)


def test_posteriors_and_estimated_noise_of_copies_in_tiles(ranged, tmp_path):
    options = {"tile": TILE, "overlap": OVERLAP}
    ask = served(ranged, tmp_path, "posterior", "serving_default", tta=8, **options)
    image, sigma = noisy_batch(ranged, (2, 45, 38))
    for size, cut in (((45, 38), options), ((31, 32), {})):  # in tiles and in one pass
        part = image[:, : size[0], : size[1]]
        expected = ranged.posterior(part, sigma, tta=8, **cut)
        assert np.abs(expected.denoised - ranged.denoise(part, sigma, tta=4, **cut)).max() > 1e-3
        found = ask["posterior"](image=part, sigma=sigma)
        for name in ("denoised", "mean"):
            np.testing.assert_allclose(found[name], getattr(expected, name), atol=5e-5, err_msg=name)
        np.testing.assert_allclose(found["std"] ** 2, expected.std**2, atol=1e-6)
        psnr = np.where(np.isnan(expected.estimated_psnr), -1.0, np.maximum(expected.estimated_psnr, 0.0))
        np.testing.assert_allclose(found["estimated_psnr"], psnr, atol=1e-3)
        told = ranged.stabilized().denoise(part, tta=8, **cut)  # it looks for noise that grows with the signal too
        np.testing.assert_allclose(ask["serving_default"](image=part)["denoised"], told, atol=5e-5)


def test_who_is_given_it_learns_how_many_copies_there_are(plain, tmp_path, capsys):
    plain.save(tmp_path / "denoiser.keras")
    assert cli.main(["export", str(tmp_path), "--out", str(tmp_path / "m"), "--tta", "2"]) == 0
    assert "self-ensemble: mean of 2 copies of each image\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "m" / "1" / "serving.json").read_text())["network"]["tta"] == 2


@pytest.mark.parametrize(
    "tta, blind_spot, sentence",
    [(3, 1, "`tta` must be one of .*tta=3"), (8, "5x1", "`tta` must be at most 4 for a blind spot that is no square")],
)
def test_copies_that_there_are_not(tta, blind_spot, sentence, ranged, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        export_saved_model(ranged.with_blind_spot(blind_spot), tmp_path / "1", tta=tta)
    assert list(tmp_path.iterdir()) == []
