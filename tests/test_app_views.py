"""Pictures for the screen: windows, sizes and colours, against plain loops and an independent lightness."""

import numpy as np
import pytest
from skimage.color import rgb2lab

from bsdenoise.app import views


def test_8_bit_images_are_shown_as_they_are():
    image = np.random.default_rng(0).integers(100, 120, (6, 7, 3), np.uint8)
    assert views.window(image) == (0, 255)
    np.testing.assert_array_equal(views.picture(image, (0.0, 255.0)), image)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_others_are_stretched_over_nearly_all_of_their_values(dtype):
    image = np.arange(10_000).reshape(100, 100, 1).astype(dtype)
    image[0, 0] = 60_000  # a hot pixel
    low, high = views.window(image)
    assert low == pytest.approx(11, abs=2)
    assert high == pytest.approx(9990, abs=3)
    drawn = views.picture(image, (low, high))
    assert drawn.shape == (100, 100, 3)
    expected = [round(min(max((value - low) / (high - low), 0), 1) * 255) for value in (60_000, 1, 2500, 5050)]
    assert np.abs(drawn[[0, 0, 25, 50], [0, 1, 0, 50], 0].astype(int) - expected).max() <= 1


def test_a_constant_image_has_a_window_too():
    assert views.window(np.full((4, 4, 1), 7.0)) == (7, 8)


def test_percentiles_of_large_images_are_taken_of_a_part():
    image = np.random.default_rng(0).random((2500, 2500, 1), np.float32)
    assert views.window(image) == pytest.approx((0.001, 0.999), abs=2e-4)


def test_of_other_channels_the_mean_is_shown():
    image = np.stack([np.full((3, 4), value, np.uint8) for value in (10, 20, 30, 40, 100)], axis=-1)
    assert (views.picture(image, (0.0, 255.0)) == 40).all()


@pytest.mark.parametrize(("shape", "expected"), [((3200, 100), (1600, 50)), ((5, 4800), (2, 1600)), ((1, 9), (1, 9))])
def test_large_pictures_are_shrunk_by_averaging(shape, expected):
    image = np.zeros((*shape, 3), np.uint8)
    image[:, ::2] = 200
    drawn = views.shrunk(image)
    assert drawn.shape == (*expected, 3)
    if expected != shape:
        assert drawn.mean() == pytest.approx(100, abs=2)
        assert np.ptp(drawn[:, 2:-2].astype(int)) < 80
    assert views.scale_on_screen(*shape) == pytest.approx(max(expected) / max(shape))


def test_white_means_that_nothing_was_gained():
    ratio = np.array([[0.0, 0.5, 1.0, 1.7]])
    drawn = views.uncertainty(ratio)[0]
    assert drawn[2].tolist() == drawn[3].tolist() == [255, 255, 255]
    assert drawn[0].tolist() == list(views.COLOURS[0])
    assert drawn[1].tolist() == pytest.approx(views.COLOURS[3], abs=1)


def test_the_lightness_of_the_colours_rises_evenly():
    lightness = rgb2lab(views.colour_table()[np.newaxis] / 255)[0, :, 0]
    assert (np.diff(lightness) > -0.2).all()  # 8-bit rounding aside
    np.testing.assert_allclose(lightness, np.linspace(6, 100, 256), atol=2.5)
