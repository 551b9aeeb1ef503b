"""A grey network that is made of a colour one does with an image what that does with three equal channels."""

import numpy as np
import pytest
from keras import ops

from benchmarks import grey_from_colour
from bsdenoise import cli, loading


@pytest.fixture
def colour_path(tiny_denoiser_path):
    return tiny_denoiser_path(3, high=50 / 255)


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["grey_from_colour", *map(str, arguments)])
    return grey_from_colour.main()


def test_it_computes_the_same(colour_path):
    colour = loading.load(colour_path)
    rng = np.random.default_rng(0)
    colour.network.set_weights([weight + 0.05 * rng.standard_normal(weight.shape) for weight in colour.network.weights])
    grey = grey_from_colour.grey_start(colour)
    image = rng.random((2, 21, 26, 1), np.float32)
    expected = ops.convert_to_numpy(colour.network(image.repeat(3, axis=-1)))
    found = ops.convert_to_numpy(grey.network(image))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found[..., 0], expected[..., :3].mean(axis=-1), atol=1e-5)
    np.testing.assert_allclose(found[..., 1], expected[..., 3], atol=1e-5)


def test_it_can_be_trained_on(colour_path, tmp_path, monkeypatch):
    colour = loading.load(colour_path)
    start, photos, run_folder = tmp_path / "grey.keras", tmp_path / "photos", tmp_path / "run"
    assert run(monkeypatch, colour_path, start) == 0
    grey = loading.load(start)
    assert (grey.channels, grey.factor, grey.noise.high) == (1, colour.factor, colour.noise.high)
    assert grey.provenance["made_grey"]
    photos.mkdir()
    np.save(photos / "stack.npy", np.random.default_rng(0).integers(0, 256, (6, 24, 24), np.uint8))
    flags = ["--channels", "1", "--init", start, "--noise", "gaussian:25-50", "--corrupt", "fresh", "--images", "2"]
    flags += ["--batch", "2", "--crop", "16", "--out", run_folder]
    assert cli.main([str(word) for word in ["train", photos, *flags]]) == 0
    assert loading.load(run_folder).provenance["started_from"]["made_grey"]


@pytest.mark.parametrize(
    ("channels", "name", "message"),
    [(1, "grey.keras", "Expected a model of method full with three channels"), (3, "grey", "ends in .keras")],
)
def test_what_cannot_be_made_is_refused(channels, name, message, tiny_denoiser_path, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tiny_denoiser_path(channels), tmp_path / name) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
