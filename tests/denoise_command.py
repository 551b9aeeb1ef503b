"""What the tests of `bsdenoise denoise` share: a model that needs no network, the command, and files."""

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from bsdenoise import cli, images
from bsdenoise.cli import models

OWN_SIGMA = 0.1


class HalvingDenoiser:
    """Stands for a model: halves what it gets, which shows units, shapes and channels; remembers σ and shapes."""

    def __init__(self, channels, is_known=True, method="full"):
        self.channels = channels
        self.has_posterior = method in ("full", "per_component")
        self.method = SimpleNamespace(name=method, has_posterior=self.has_posterior)
        self.noise = SimpleNamespace(is_known=is_known)
        self.sigmas = []
        self.shapes = []

    def own_sigma(self, image):
        assert self.has_posterior, "it has no use for one"
        assert image.dtype == np.float32
        assert image.ndim == 4
        return np.array([OWN_SIGMA if self.noise.is_known else OWN_SIGMA * (1 + image.mean())])

    def denoise(self, noisy, sigma):
        assert noisy.shape[-1] == self.channels
        self.sigmas.append(sigma)
        self.shapes.append(noisy.shape)
        return images.to_unit(noisy) / 2

    def posterior(self, noisy, sigma):
        assert self.has_posterior, "it has none"
        denoised = self.denoise(noisy, sigma)
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


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def save_tiff(path, shape, dtype=np.uint8, **options):
    pixels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype) * 2
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
    return pixels


def axes_of(path):
    with tifffile.TiffFile(path) as tif:
        (series,) = tif.series
        return series.kind, series.axes, series.shape, series.dtype
