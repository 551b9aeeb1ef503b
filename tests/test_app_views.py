"""Pictures for the screen: windows, sizes and colours, against plain loops and an independent lightness."""

import numpy as np
import pytest
from skimage.color import rgb2lab

from bsdenoise.app import views


def test_8_bit_images_are_shown_as_they_are():
    image = np.random.default_rng(0).integers(100, 120, (6, 7, 3), np.uint8)
    assert views.windows(image, is_picture=True) == ((0, 255),)
    np.testing.assert_array_equal(views.picture(image, ((0.0, 255.0),)), image)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_others_are_stretched_over_nearly_all_of_their_values(dtype):
    image = np.arange(10_000).reshape(100, 100, 1).astype(dtype)
    image[0, 0] = 60_000  # a hot pixel
    ((low, high),) = views.windows(image, is_picture=True)
    assert low == pytest.approx(11, abs=2)
    assert high == pytest.approx(9990, abs=3)
    drawn = views.picture(image, ((low, high),))
    assert drawn.shape == (100, 100, 3)
    expected = [round(min(max((value - low) / (high - low), 0), 1) * 255) for value in (60_000, 1, 2500, 5050)]
    assert np.abs(drawn[[0, 0, 25, 50], [0, 1, 0, 50], 0].astype(int) - expected).max() <= 1


def test_a_constant_image_has_a_window_too():
    assert views.windows(np.full((4, 4, 1), 7.0), is_picture=True) == ((7, 8),)


def test_percentiles_of_large_images_are_taken_of_a_part():
    image = np.random.default_rng(0).random((2500, 2500, 1), np.float32)
    assert views.windows(image, is_picture=True)[0] == pytest.approx((0.001, 0.999), abs=2e-4)


def test_of_many_channels_the_mean_is_shown_each_from_its_own_black_to_white():
    """Channels of 10 and 10000 counts, for instance, which a common window would show as one."""
    image = np.random.default_rng(0).random((30, 40, 5)) * [1, 10, 100, 1000, 10_000] + [0, 5, 0, 0, 1e6]
    limits = views.windows(image, is_picture=False)
    expected = np.zeros((30, 40))
    for channel, (low, high) in enumerate(limits):
        values = image[..., channel]
        assert (low, high) == pytest.approx((np.percentile(values, 0.1), np.percentile(values, 99.9)))
        expected += np.clip((values - low) / (high - low), 0, 1) / 5
    np.testing.assert_allclose(views.picture(image, limits), np.dstack([255 * expected] * 3), atol=0.51)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("channels", "colours"), [(2, [[1, 0, 1], [0, 1, 0]]), (3, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])])
def test_channels_that_are_no_colours_have_false_ones(dtype, channels, colours):
    """Each pixel shines in one channel, and is drawn in the colour of that alone, as bright as can be."""
    image = np.zeros((6, channels, channels), dtype)
    image[:, range(channels), range(channels)] = [3, 50, 200][:channels]
    drawn = views.picture(image, views.windows(image, is_picture=False))
    np.testing.assert_array_equal(drawn[0], 255 * np.array(colours))


def test_values_without_a_measurement_do_not_count_in_windows():
    image = np.random.default_rng(0).random((50, 50, 1)).astype(np.float32)
    expected = np.percentile(image[10:], (0.1, 99.9))
    image[:10] = -9999
    assert views.windows(image, is_picture=True, no_data=-9999)[0] == pytest.approx(expected, rel=1e-6)
    image[:10] = np.nan
    assert views.windows(image, is_picture=True)[0] == pytest.approx(expected, rel=1e-6)
    drawn = views.picture(image, views.windows(image, is_picture=True))
    assert (drawn[:10] == 0).all() and drawn[10:].mean() > 100
    image[:] = np.nan
    assert views.windows(image, is_picture=True) == ((0, 1),)


def test_a_large_offset_does_not_hide_what_varies():
    image = 1e12 + np.arange(400.0).reshape(20, 20, 1)
    drawn = views.picture(image, views.windows(image, is_picture=True))
    assert len(np.unique(drawn)) > 200


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


def test_what_was_not_measured_is_grey_in_the_map_of_uncertainty():
    assert views.uncertainty(np.array([[np.nan, 0.0]]))[0].tolist() == [[128, 128, 128], list(views.COLOURS[0])]
    assert min(np.ptp(views.colour_table().astype(int), axis=1)[1:-4]) > 0, "no colour of the scale is grey"


def test_the_lightness_of_the_colours_rises_evenly():
    lightness = rgb2lab(views.colour_table()[np.newaxis] / 255)[0, :, 0]
    assert (np.diff(lightness) > -0.2).all()  # 8-bit rounding aside
    np.testing.assert_allclose(lightness, np.linspace(6, 100, 256), atol=2.5)
