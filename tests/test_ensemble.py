"""Self-ensemble: copies, their average, and what the average says of itself."""

import numpy as np
import pytest

from bsdenoise import Denoiser, GaussianNoise, blind_spot_network, unet
from bsdenoise.inference import self_ensemble

SIGMA = 0.1


def build(method="full", **options):
    make = blind_spot_network if method == "full" else unet
    network = make(channels=2, width=4, depth=2, num_outputs=None if method == "full" else 2)
    rng = np.random.default_rng(0)
    for weight in network.weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 25.0
        weight.assign(rng.standard_normal(weight.shape) / np.sqrt(fan_in))
    return Denoiser(network, GaussianNoise(SIGMA, SIGMA), method=method, **options)


@pytest.fixture(scope="module")
def denoiser():
    return build()


def random_noisy(*shape):
    return np.random.default_rng(1).random(shape, dtype="float32")


def dihedral(size):
    """All ways to lay a rectangle on itself, each with its inverse: quarter turns, mirrored or not."""
    ways = []
    for mirrored in (False, True):
        for turns in range(4):

            def there(x, mirrored=mirrored, turns=turns):
                return np.rot90(x[:, :, ::-1] if mirrored else x, turns, axes=(1, 2))

            def back(x, mirrored=mirrored, turns=turns):
                turned = np.rot90(x, -turns, axes=(1, 2))
                return turned[:, :, ::-1] if mirrored else turned

            ways.append((there, back))
    return ways[:size]


def test_eight_copies_are_all_of_the_dihedral_group(denoiser):
    noisy = random_noisy(2, 14, 9, 2)
    results = [back(denoiser.denoise(there(noisy))) for there, back in dihedral(8)]
    assert np.abs(results[0] - results[3]).max() > 1e-3
    np.testing.assert_allclose(denoiser.denoise(noisy, tta=8), np.mean(results, axis=0), atol=1e-5)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_copies_differ_and_come_back(size):
    """Every copy is another one, and undone before it is averaged."""
    seen = []

    def remember(images):
        seen.append(images)
        return images, 2 * images

    noisy = random_noisy(1, 5, 7, 2)
    one, two = self_ensemble.average(remember, noisy, size)
    np.testing.assert_allclose(one, noisy, rtol=1e-6)
    np.testing.assert_allclose(two, 2 * noisy, rtol=1e-6)
    assert len({array.tobytes() + bytes(array.shape) for array in seen}) == size


def test_one_copy_is_the_image_itself(denoiser):
    noisy = random_noisy(8, 8, 2)
    np.testing.assert_array_equal(denoiser.denoise(noisy, tta=1), denoiser.denoise(noisy))


@pytest.mark.usefixtures("compiled")
def test_average_is_linear_in_the_pixel_itself_with_the_mean_gain(denoiser):
    """d x̂ / d x̃ at a pixel, by finite differences, is 1 − mean gain: the posterior's variance over σ²."""
    noisy = random_noisy(12, 10, 2)
    posterior = denoiser.posterior(noisy, tta=8)
    for row, column, channel in [(0, 0, 0), (5, 3, 1), (11, 9, 0), (6, 6, 1)]:
        changed = noisy.copy()
        changed[row, column, channel] += 0.5
        change = denoiser.denoise(changed, tta=8)[row, column, channel] - posterior.denoised[row, column, channel]
        np.testing.assert_allclose(change / 0.5, posterior.std[row, column, channel] ** 2 / SIGMA**2, atol=2e-4)


@pytest.mark.usefixtures("compiled")
def test_estimated_psnr_is_steins_of_the_average(denoiser):
    """Unbiased: over draws of the noise, the mean of the estimated squared errors is that of the true ones."""
    clean = np.full((40, 40, 2), 0.5, "float32")
    rng = np.random.default_rng(0)
    estimated, true = [], []
    for _ in range(12):
        noisy = (clean + SIGMA * rng.standard_normal(clean.shape)).astype("float32")
        posterior = denoiser.posterior(noisy, tta=4)
        estimated.append(10 ** (-posterior.estimated_psnr / 10))
        true.append(np.mean((posterior.denoised - clean) ** 2))
    differences = np.subtract(estimated, true)
    assert abs(differences.mean()) < 4 * differences.std() / np.sqrt(len(differences))
    assert differences.std() < 0.1 * np.mean(true)


def test_methods_without_posterior():
    denoiser = build("n2n")
    noisy = random_noisy(1, 9, 12, 2)
    mirrored = denoiser.denoise(noisy[:, :, ::-1])[:, :, ::-1]
    expected = (denoiser.denoise(noisy) + mirrored) / 2
    np.testing.assert_allclose(denoiser.denoise(noisy, tta=2), expected, atol=1e-6)


def test_copies_of_tiles(denoiser):
    """Far from seams a tile's copies are those of the whole image, as tiles lie on the pooling grid."""
    noisy = random_noisy(96, 64, 2)
    whole, tiled = (denoiser.denoise(noisy, tta=2, tile=tile, overlap=36) for tile in (96, 80))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize("tta", [0, 3, 16, -1, "2"], ids=repr)
def test_wrong_number_of_copies(denoiser, tta):
    for function in (denoiser.denoise, denoiser.posterior):
        with pytest.raises(ValueError, match=r"`tta` must be one of \(1, 2, 4, 8\), the number of copies"):
            function(random_noisy(8, 8, 2), tta=tta)
