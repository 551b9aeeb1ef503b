"""What the tests of `bsdenoise denoise` share: a model that needs no network, the command, and files."""

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from bsdenoise import cli, images
from bsdenoise.cli import models
from bsdenoise.images import results
from bsdenoise.noise.gaussian import PARAMETERS

OWN_SIGMA = 0.1


class HalvingDenoiser:
    """Stands for a model: halves what it gets, which shows units, shapes and channels.

    It remembers σ and shape of each image, the sizes of the batches, and the options that were given.
    """

    grid = 4

    def __init__(self, channels, is_known=True, method="full"):
        self.channels = channels
        self.has_posterior = method in ("full", "per_component")
        self.method = SimpleNamespace(name=method, has_posterior=self.has_posterior)
        self.noise = SimpleNamespace(
            kind="gaussian", parameters=PARAMETERS, takes_sigma=True, is_known=is_known, least=(0.0,), greatest=(1.0,)
        )
        self.offset, self.scale, self.fractional = 0.0, 1.0, True
        self.sigmas = []
        self.shapes = []
        self.batches = []
        self.options = []

    def own_noise(self, image):
        return self.own_sigma(image)[:, np.newaxis]

    def own_sigma(self, image):
        assert self.has_posterior, "it has no use for one"
        assert image.dtype == np.float32
        assert image.ndim == 4
        factors = 1 if self.noise.is_known else 1 + image.mean(axis=(1, 2, 3))
        return OWN_SIGMA * factors * np.ones(len(image))

    def denoise(self, noisy, sigma=None, **options):
        assert noisy.shape[-1] == self.channels
        count = len(noisy) if noisy.ndim == 4 else 1
        self.batches.append(count)
        self.sigmas += [sigma] * count if sigma is None else list(np.broadcast_to(sigma, count))
        self.shapes += [noisy.shape[-3:]] * count
        self.options.append(options)
        return images.to_unit(noisy) / 2

    def denoise_with_noise(self, noisy, **options):
        batch = noisy if noisy.ndim == 4 else noisy[np.newaxis]
        theta = self.own_noise(images.to_unit(batch))
        return self.denoise(noisy, theta[:, 0] if noisy.ndim == 4 else float(theta[0, 0]), **options), theta

    def posterior(self, noisy, sigma=None, **options):
        assert self.has_posterior, "it has none"
        if sigma is None:
            denoised, theta = self.denoise_with_noise(noisy, **options)
            sigma = theta[:, 0]
        else:
            denoised = self.denoise(noisy, sigma, **options)
        sigma = np.float32(sigma)
        ratio = np.clip(2 * denoised, 0, 1)
        noise = np.reshape(sigma, (-1, 1))
        return SimpleNamespace(denoised=denoised, mean=denoised, std=(ratio.T * sigma.T).T, sigma=sigma, noise=noise)

    def windows(self, read, shape, sigma=None, tile=8, **options):
        """Blocks of at most `tile` with one pixel around them, as a `Denoiser` reads them."""
        _, height, width, channels = shape
        assert channels == self.channels
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                target = slice(top, min(top + tile, height)), slice(left, min(left + tile, width))
                start = max(top - 1, 0), max(left - 1, 0)
                noisy = read(slice(start[0], target[0].stop + 1), slice(start[1], target[1].stop + 1))
                inner = tuple(slice(t.start - s, t.stop - s) for t, s in zip(target, start, strict=True))
                denoised = self.denoise(noisy, sigma, **options)[:, *inner]
                if not self.has_posterior:
                    yield target, (denoised,)
                else:
                    std = np.reshape(sigma, (-1, 1, 1, 1)) * np.clip(2 * denoised, 0, 1)
                    yield target, (denoised, denoised, std)


def put_in_place_of_models(monkeypatch, **options):
    """Puts doubles in the place of models; gives them by the names by which they are asked for.

    Args:
        monkeypatch: That of the test.
        options: Further ones of the doubles.
    """
    found = {}

    def load(name):
        found[str(name)] = HalvingDenoiser(3 if "rgb" in str(name) else 1, **options)
        found[str(name)].provenance = {"preset": str(name)}
        return found[str(name)]

    monkeypatch.setattr(models, "load_denoiser", load)
    monkeypatch.setattr(models, "load_preset", load)
    return found


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
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != results.LIST)
    return sorted(path.relative_to(folder).as_posix() for path in files)


def save_tiff(path, shape, dtype=np.uint8, **options):
    pixels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype) * 2
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
    return pixels


def axes_of(path):
    with tifffile.TiffFile(path) as tif:
        (series,) = tif.series
        return series.kind, series.axes, series.shape, series.dtype
