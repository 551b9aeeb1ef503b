"""What the quiet parts of images tell of their noise."""

import counts
import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from bsdenoise.noise import noise_floor


def floors(images):
    return [noise_floor.measure(image[..., np.newaxis].astype("float32")) for image in images]


@pytest.fixture(scope="module")
def clean():
    return counts.photographs(8, 128)


@pytest.mark.parametrize("sigma", [5 / 255, 25 / 255])
def test_white_noise_is_seen_and_is_not_correlated(clean, sigma):
    found = floors(clean + np.random.default_rng(0).normal(0, sigma, clean.shape))
    middle = noise_floor.median(found)
    assert 0.85 * sigma < middle.low < 1.15 * sigma and 0.7 * sigma < middle.quiet < 1.1 * sigma
    assert not noise_floor.is_correlated(found, 1.0)


@pytest.mark.parametrize("blur", [0.7, 1.0])
@pytest.mark.parametrize("sigma", [10 / 255, 25 / 255])
def test_noise_that_neighbours_share_is_told(clean, blur, sigma):
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(clean.shape), (0, blur, blur))
    found = floors(clean + sigma / noise.std() * noise)
    assert noise_floor.median(found).low < 0.5 * sigma  # so it looks weaker than it is
    assert noise_floor.is_correlated(found, 1.0)


@pytest.mark.parametrize("units", [1.0, 1e-20, 1e20])
def test_clean_photographs_are_no_correlated_noise(clean, units):
    found = floors(units * clean)
    assert noise_floor.median(found).quiet < 4 / 255 * units
    assert not noise_floor.is_correlated(found, units)


def test_texture_everywhere_has_little_in_its_quiet_parts():
    found = floors([data.gravel()[:256, :256] / 255])
    assert found[0].quiet < 0.03


def test_small_and_empty_images_tell_nothing():
    assert noise_floor.measure(np.ones((20, 300, 1), "float32")) is None
    assert noise_floor.measure(np.full((60, 60, 1), np.nan, "float32")) is None
    assert noise_floor.median([]) is None and not noise_floor.is_correlated([], 1.0)


def test_bad_and_clipped_pixels_do_not_count():
    image = 0.5 + np.random.default_rng(0).normal(0, 0.1, (160, 160, 1))
    expected = noise_floor.measure(image)
    image[:48], image[-48:] = 0.0, np.nan
    found = noise_floor.measure(image)
    assert found.low == pytest.approx(expected.low, rel=0.15) and found.quiet == pytest.approx(expected.quiet, rel=0.2)
