"""Self-ensemble: copies, their average, and what the average says of itself."""

import numpy as np
import pytest

from bsdenoise import Denoiser, GaussianNoise, blind_spot_network, methods, unet
from bsdenoise.inference import engine, self_ensemble

SIGMA = 0.1


MOST = 0.5  # greatest σ of models for a range


def build(method="full", high=SIGMA, **options):
    make = blind_spot_network if methods.get(method).is_blind else unet
    network = make(channels=2, width=4, depth=2, num_outputs=methods.get(method).estimator(2).num_outputs)
    rng = np.random.default_rng(0)
    for weight in network.weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 25.0
        weight.assign(rng.standard_normal(weight.shape) / np.sqrt(fan_in))
    return Denoiser(network, GaussianNoise(SIGMA, high), method=method, **options)


@pytest.fixture(scope="module")
def denoiser():
    return build()


def random_noisy(*shape):
    return np.random.default_rng(1).random(shape, dtype="float32")


def mirrored(images):
    return images[:, :, ::-1]


def over_a_diagonal(images):
    return np.rot90(images, 2, axes=(1, 2)).swapaxes(1, 2)


def dihedral(reflected=over_a_diagonal):
    """All ways to lay a rectangle on itself, each with its inverse.

    The first two are the image and a mirror image, the first four these and both of them turned by a half.
    """
    ways = []
    for turns in (0, 2, 1, 3):
        for reflect in (lambda images: images, reflected):

            def there(images, reflect=reflect, turns=turns):
                return np.ascontiguousarray(np.rot90(reflect(images), turns, axes=(1, 2)))

            def back(images, reflect=reflect, turns=turns):
                return reflect(np.rot90(images, -turns, axes=(1, 2)))

            ways.append((there, back))
    return ways


def copy_by_copy(denoiser, noisy, sizes, ways, **options):
    """Moments of ensembles of several sizes, from copies that are denoised one after the other."""
    moments = []
    for there, back in ways[: max(sizes)]:
        if denoiser.has_posterior:
            posterior = denoiser.posterior(there(noisy), **options)
            moments.append((back(posterior.denoised), back(posterior.mean), back(posterior.std) ** 2))
        else:
            moments.append((back(denoiser.denoise(there(noisy))),))
        assert len(moments) == 1 or np.abs(moments[0][0] - moments[-1][0]).max() > 1e-3
    return {size: [np.mean(some, axis=0) for some in zip(*moments[:size], strict=True)] for size in sizes}


def assert_is_average(denoiser, noisy, size, expected, **options):
    if not denoiser.has_posterior:
        found = [denoiser.denoise(noisy, tta=size, **options)]
    else:
        posterior = denoiser.posterior(noisy, tta=size, **options)
        found = posterior.denoised, posterior.mean, posterior.std**2
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


# --- copies of images whose sides are on the pooling grid: as if each were denoised by itself ----------------------


@pytest.mark.parametrize("method, reflected", [("full", over_a_diagonal), ("l2", over_a_diagonal), ("n2n", mirrored)])
def test_an_ensemble_is_the_mean_over_its_copies(method, reflected):
    denoiser = build(method)
    noisy = random_noisy(2, 16, 12, 2)
    for size, expected in copy_by_copy(denoiser, noisy, (1, 2, 4, 8), dihedral(reflected)).items():
        assert_is_average(denoiser, noisy, size, expected)


@pytest.mark.parametrize(
    "blind_spot, sizes, reflected", [((3, 3), (8,), over_a_diagonal), ((5, 1), (2, 4), mirrored)], ids=["3x3", "5x1"]
)
def test_copies_have_the_blind_spot(blind_spot, sizes, reflected):
    denoiser = build("per_component").with_blind_spot(blind_spot)
    noisy = random_noisy(1, 12, 20, 2)
    for size, expected in copy_by_copy(denoiser, noisy, sizes, dihedral(reflected)).items():
        assert_is_average(denoiser, noisy, size, expected)


def test_noise_is_estimated_once_for_all_copies():
    denoiser = build(high=MOST)
    noise = np.random.default_rng(2).standard_normal((2, 24, 20, 2))
    noisy = 0.5 + np.array([0.15, 0.3])[:, None, None, None] * noise
    sigma = np.asarray(denoiser.own_sigma(noisy))
    assert SIGMA < sigma.min() < 0.8 * sigma.max() < MOST
    for size, expected in copy_by_copy(denoiser, noisy, (4, 8), dihedral(), sigma=sigma).items():
        assert_is_average(denoiser, noisy, size, expected)
    np.testing.assert_allclose(denoiser.posterior(noisy, tta=2).sigma, sigma, rtol=1e-5)


def test_tiles_and_stages_equal_one_pass(denoiser, monkeypatch):
    """Mirror images of tiles lie on the grid of that of the whole image, whatever its sides are."""
    noisy = random_noisy(135, 94, 2)
    whole = denoiser.posterior(noisy, tta=8)
    expected = whole.denoised, whole.mean, whole.std**2
    tiles = {"tile": 108, "overlap": 40}
    assert_is_average(denoiser, noisy, 8, expected, **tiles)
    monkeypatch.setattr(engine, "MAX_PASS_PIXELS", 30)
    monkeypatch.setattr(engine, "MAX_CHUNK_PIXELS", 1600)
    monkeypatch.setattr(engine, "MIN_CHUNK_PIXELS", 1600)
    assert_is_average(denoiser, noisy, 8, expected)
    assert_is_average(denoiser, noisy, 8, expected, **tiles)  # of blocks in stages, inner parts are kept


# --- copies of others ----------------------------------------------------------------------------------------------


def turned_behind_the_branches(denoiser, noisy, turns):
    """Outputs for an image turned in several ways, each turned back, by Keras models of the branches and the head."""
    branches, head = denoiser.network.parts()
    maps = [np.asarray(branch(noisy)) for branch in branches]
    for turn in turns:
        turned = [np.rot90(maps[(index + turn) % 4], turn, axes=(1, 2)) for index in range(4)]
        yield np.rot90(np.asarray(head([np.ascontiguousarray(one) for one in turned])), -turn, axes=(1, 2))


def test_branches_are_padded_as_those_of_the_image_and_its_mirror_image(denoiser, monkeypatch):
    """Sides off the grid; in stages too."""
    noisy = random_noisy(1, 45, 31, 2)
    theta = np.full((1, 1), SIGMA, "float32")
    moments = {}
    for reflect in (lambda images: images, over_a_diagonal):
        copy = np.ascontiguousarray(reflect(noisy))
        for turn, outputs in enumerate(turned_behind_the_branches(denoiser, copy, range(4))):
            finished = denoiser.finished(np.ascontiguousarray(outputs), copy, theta)
            moments[turn, reflect] = [reflect(np.asarray(moment)) for moment in finished]
    chosen = {4: [some for (turn, _), some in moments.items() if turn in (0, 2)], 8: [*moments.values()]}
    averages = {size: [np.mean(parts, axis=0) for parts in zip(*some, strict=True)] for size, some in chosen.items()}
    for size, expected in averages.items():
        assert_is_average(denoiser, noisy, size, expected)
    assert np.abs(averages[8][0] - copy_by_copy(denoiser, noisy, (8,), dihedral())[8][0]).max() > 1e-3
    monkeypatch.setattr(engine, "MAX_PASS_PIXELS", 30)
    monkeypatch.setattr(engine, "MAX_CHUNK_PIXELS", 400)
    monkeypatch.setattr(engine, "MIN_CHUNK_PIXELS", 400)
    assert_is_average(denoiser, noisy, 8, averages[8])


@pytest.mark.parametrize("make", [blind_spot_network, unet])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_copies_differ_and_come_back(size, make):
    """Every copy is another one, and undone before it is averaged."""
    seen = []
    copies = self_ensemble.Copies.of(size, make(channels=2, width=1, depth=1))

    def remember(images, change):
        inner = change.of_window((slice(1, 3), slice(2, 7)), images.shape[1:3])
        seen.extend(np.rot90(images, turn, axes=(1, 2)) for turn in copies.turns)
        return images[:, *inner], 2 * images[:, *inner]

    noisy = random_noisy(1, 5, 7, 2)
    one, two = self_ensemble.average(remember, noisy, copies.changes)
    np.testing.assert_allclose(one, noisy[:, 1:3, 2:7], rtol=1e-6)
    np.testing.assert_allclose(two, 2 * noisy[:, 1:3, 2:7], rtol=1e-6)
    assert len({array.tobytes() + bytes(array.shape) for array in seen}) == size


def test_one_copy_is_the_image_itself(denoiser):
    noisy = random_noisy(8, 8, 2)
    np.testing.assert_array_equal(denoiser.denoise(noisy, tta=1), denoiser.denoise(noisy))


def test_half_precision_is_rounded_no_more_than_one_copy(denoiser):
    """Where branches are shared, sums and differences of their maps are rounded too."""
    half = denoiser.in_precision("bfloat16")
    noisy = random_noisy(64, 48, 2)
    errors = half.denoise(noisy, tta=8) - denoiser.denoise(noisy, tta=8)
    rounding = half.denoise(noisy) - denoiser.denoise(noisy)
    assert 0 < np.sqrt(np.mean(errors**2)) < np.sqrt(np.mean(rounding**2))


# --- what the average says of itself -------------------------------------------------------------------------------


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


@pytest.mark.parametrize("tta", [0, 3, 16, -1, "2"], ids=repr)
def test_wrong_number_of_copies(denoiser, tta):
    for function in (denoiser.denoise, denoiser.posterior):
        with pytest.raises(ValueError, match=r"`tta` must be one of \(1, 2, 4, 8\), the number of copies"):
            function(random_noisy(8, 8, 2), tta=tta)
