"""Tests of masked pixels for Noise2Void."""

import numpy as np
import pytest
from scipy import stats

from bsdenoise.methods.masking import Masking


def _numbered(height, width, channels=1):
    """An image whose pixels all differ, in every channel."""
    count = height * width * channels
    return np.arange(1.0, count + 1).reshape(height, width, channels).astype("float32")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (5, 3), (1, 2), (2, 1)], ids=str)
def test_masked_pixels_and_no_others_are_replaced_from_their_neighbourhood(size, channels):
    noisy = _numbered(*size, channels)
    for seed in range(20):
        masked, mask = Masking(radius=2).mask(noisy, np.random.default_rng(seed))
        assert mask.shape == (*size, 1) and set(np.unique(mask)) <= {0.0, 1.0} and mask.any()
        np.testing.assert_array_equal((masked != noisy).all(axis=-1), mask[..., 0] == 1)
        np.testing.assert_array_equal((masked != noisy).any(axis=-1), mask[..., 0] == 1)
        for row, column in np.argwhere(mask[..., 0]):
            source_row, source_column = np.argwhere((noisy == masked[row, column]).all(axis=-1))[0]
            distance = max(abs(source_row - row), abs(source_column - column))
            assert 1 <= distance <= 2
    np.testing.assert_array_equal(noisy, _numbered(*size, channels))


def test_one_pixel_in_each_box():
    """64 of a patch of 64×64 pixels, as in the paper, one in each square of 8×8."""
    for seed in range(10):
        _, mask = Masking().mask(_numbered(64, 64), np.random.default_rng(seed))
        boxes = mask.reshape(8, 8, 8, 8).sum(axis=(1, 3))
        np.testing.assert_array_equal(boxes, 1)


@pytest.mark.parametrize("fraction", [0.01, 0.015, 0.1, 0.5])
def test_fraction_of_masked_pixels(fraction):
    rng = np.random.default_rng(0)
    masks = [Masking(fraction).mask(_numbered(50, 70), rng)[1].mean() for _ in range(60)]
    # Where boxes have no whole sides, two of them may choose the same pixel.
    assert np.mean(masks) == pytest.approx(fraction, rel=0.05 if fraction < 0.05 else 0.25)


def test_every_pixel_is_masked_equally_often():
    rng = np.random.default_rng(0)
    counts = sum(Masking(1 / 16).mask(_numbered(8, 8), rng)[1][..., 0] for _ in range(3000))
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


@pytest.mark.parametrize("center", [False, True])
def test_every_neighbour_is_drawn_equally_often(center):
    """The neighbourhood of a middle pixel, and that of a corner, which the border cuts."""
    rng = np.random.default_rng(0)
    drawn = {(3, 3): [], (0, 0): []}
    noisy = _numbered(7, 7)
    for _ in range(4000):
        masked, mask = Masking(1.0, radius=2, center=center).mask(noisy, rng)
        assert mask.all()
        for place, values in drawn.items():
            values.append(masked[*place, 0])
    for (row, column), values in drawn.items():
        rows = slice(max(row - 2, 0), row + 3)
        columns = slice(max(column - 2, 0), column + 3)
        expected = set(noisy[rows, columns, 0].ravel()) - (set() if center else {noisy[row, column, 0]})
        numbers, counts = np.unique(values, return_counts=True)
        assert set(numbers) == expected
        assert stats.chisquare(counts).pvalue > 1e-4


def test_a_single_pixel_has_nothing_to_be_replaced_by():
    masked, mask = Masking().mask(_numbered(1, 1), np.random.default_rng(0))
    assert masked == 1 and mask == 1


def test_depends_on_the_generator_alone():
    noisy = _numbered(20, 20)
    one, two, other = (Masking().mask(noisy, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[0], two[0])
    assert (one[0] != other[0]).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 0.0}, "fraction of masked pixels must be in"),
        ({"fraction": 1.5}, r"Received: fraction=1\.5"),
        ({"fraction": float("nan")}, "Received: fraction=nan"),
        ({"radius": 0}, "radius of the neighbourhood must be at least 1"),
    ],
    ids=str,
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        Masking(**settings)
