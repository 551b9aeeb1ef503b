"""Tests of pixels that hold no measurement: found, and filled without a copy of any neighbour."""

import numpy as np
import pytest
from scipy import ndimage

from bsdenoise.images import missing

LOWEST = np.finfo("float32").min


def _holes(kind, side=96):
    rows, columns = np.mgrid[:side, :side]
    rng = np.random.default_rng(5)
    return {
        "rectangle": (rows >= 30) & (rows < 60) & (columns >= 20) & (columns < 70),
        "outside of a circle": (rows - side / 2) ** 2 + (columns - side / 2) ** 2 > (0.36 * side) ** 2,  # 60 %
        "single pixels": rng.random((side, side)) < 0.02,
        "whole rows": rows % 9 == 0,
        "borders": (rows < 7) | (columns >= side - 11),
        "a chessboard": (rows + columns) % 2 == 0,
        "all but one pixel": (rows != 40) | (columns != 50),
    }[kind]


KINDS = ["rectangle", "outside of a circle", "single pixels", "whole rows", "borders", "a chessboard"]  # fmt: skip


@pytest.mark.parametrize(
    ("array", "no_data", "expected"),
    [
        (np.float32([1, LOWEST, 2]), -3.4028234663852886e38, [0, 1, 0]),
        (np.float32([1, LOWEST, 2]), -3.4e38, [0, 1, 0]),
        (np.float32([1, -3.4e38]), float(LOWEST), [0, 1]),
        (np.float64([1, -1.7976931348623157e308]), float("-1.79769313486232e+308"), [0, 1]),
        (np.float32([1, -np.inf, LOWEST, np.inf]), -np.inf, [0, 1, 1, 0]),
        (np.float32([9.96921e36, 1]), 9.969209968386869e36, [1, 0]),
        (np.float32([1e37, 1]), 3.4e38, None),
        (np.float32([-9999, -9998.999, 1]), -9999, [1, 0, 0]),
        (np.float32([1.1, 1.1000001]), 1.1, [1, 0]),
        (np.float32([0, 1, np.nan]), 0, [1, 0, 1]),
        (np.float32([np.nan, 1]), np.nan, [1, 0]),
        (np.float32([np.nan, 1]), None, [1, 0]),
        (np.float16([1, 2]), 1e30, None),
        (np.uint8([0, 255]), 255, [0, 1]),
        (np.uint16([0, 3]), 0, [1, 0]),
        (np.uint16([0, 3]), -9999, None),
        (np.uint8([0, 3]), 0.5, None),
        (np.uint8([0, 3]), 256, None),
        (np.uint8([0, 3]), np.nan, None),
        (np.uint8([0, 3]), None, None),
    ],
)
def test_values_that_are_no_measurement(array, no_data, expected):
    found = missing.where(array, no_data)
    assert (found is None) == (expected is None)
    if expected is not None:
        assert found.dtype == bool and found.tolist() == [bool(one) for one in expected]


def test_a_mask_adds_to_values():
    array = np.zeros((2, 3, 2), "float32")
    array[0, 0, 0] = np.nan
    mask = np.zeros((2, 3, 1), bool)
    mask[1, 2] = True
    expected = np.zeros(array.shape, bool)
    expected[0, 0, 0] = expected[1, 2] = True
    np.testing.assert_array_equal(missing.where(array, None, mask), expected)
    np.testing.assert_array_equal(missing.where(np.zeros((2, 3, 2), "uint8"), None, mask)[1, 2], True)
    assert missing.where(np.zeros((2, 3, 2), "uint8"), None, mask & False) is None


@pytest.mark.parametrize(("text", "value"), [("-3.4e38", -3.4e38), ("0", 0.0), ("-inf", -np.inf), (None, None)])
def test_text_of_a_value(text, value):
    assert missing.parse_no_data(text) == value


def test_text_that_is_no_number():
    with pytest.raises(ValueError, match="--no-data takes a number .*Received: 'none'"):
        missing.parse_no_data("none")
    assert np.isnan(missing.parse_no_data("nan"))


@pytest.mark.parametrize("kind", [*KINDS, "all but one pixel"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "uint16"])
def test_filled_pixels_follow_their_surroundings(kind, dtype):
    """A smooth image comes out smooth; nothing that was measured changes."""
    rows, columns = np.mgrid[:96, :96]
    holes = _holes(kind)
    image = (90 + rows / 2 + columns / 4).astype(dtype)
    shown = np.where(holes, 0, image).astype(dtype)
    filled = missing.filled(shown, holes)
    assert filled.dtype == dtype
    np.testing.assert_array_equal(filled[~holes], image[~holes])
    distance = np.abs(filled.astype(float) - image)[holes]
    assert distance.max() < (75 if kind == "all but one pixel" else 40)
    near = holes & ndimage.binary_dilation(~holes, np.ones((3, 3)))
    assert np.abs(filled.astype(float) - image)[near].max() < (5 if kind != "all but one pixel" else 1.5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_pixel_is_copied(kind):
    """What one pixel adds to any filled one, with the noise of all others fixed."""
    holes = _holes(kind)
    image = np.random.default_rng(0).normal(0, 1, holes.shape).astype("float32")
    before = missing.filled(image, holes)
    near = ~holes & ndimage.binary_dilation(holes, np.ones((3, 3)))
    shares = []
    for row, column in np.argwhere(near)[::7]:
        changed = image.copy()
        changed[row, column] += 3.0
        shares.append(np.abs(missing.filled(changed, holes) - before)[holes].max() / 3.0)
    assert 0.01 < max(shares) < 0.35


def test_a_constant_stays_constant():
    holes = _holes("rectangle")
    np.testing.assert_allclose(missing.filled(np.full(holes.shape, 7.0), holes), 7.0, rtol=1e-12)


def test_noise_inside_is_that_outside():
    """Without it a network takes a noisy image with large gaps for a cleaner one."""
    holes = _holes("rectangle", 128)
    inner = ndimage.binary_erosion(holes, np.ones((3, 3)), iterations=6)
    image = np.random.default_rng(0).normal(300, 20, holes.shape).astype("float32")
    filled = missing.filled(image, holes)
    assert filled[inner].std() == pytest.approx(20, rel=0.15)
    assert np.corrcoef(filled[inner], image[inner])[0, 1] == pytest.approx(0, abs=0.15)
    np.testing.assert_array_equal(missing.filled(image, holes), filled)


def test_channels_are_filled_by_themselves():
    rng = np.random.default_rng(0)
    image = rng.normal([0, 100, 200], 1, (40, 50, 3)).astype("float32")
    image[5:20, :25, 0] = np.nan
    image[10:30, 30:, 2] = np.nan
    filled = missing.filled(image)
    assert np.isfinite(filled).all()
    np.testing.assert_allclose(filled.mean(axis=(0, 1)), [0, 100, 200], atol=0.5)
    image[..., 1] = np.nan
    np.testing.assert_allclose(missing.filled(image)[..., 1], np.nanmean(image, dtype=np.float64), rtol=1e-5)


def test_without_gaps_it_is_the_array_itself():
    image = np.zeros((4, 5, 1), "float32")
    assert missing.filled(image) is image
    assert missing.with_nan(image, None) is image


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (2, 2), (3, 5, 2)])
def test_tiny_images(shape):
    image = np.ones(shape, "float32")
    image[0, 0] = np.nan
    filled = missing.filled(image)
    assert np.isfinite(filled).all()
    if image.size > image[0, 0].size:
        np.testing.assert_allclose(filled, 1.0, rtol=1e-6)
    assert (missing.filled(np.full(shape, np.nan)) == 0).all()


def test_a_clipped_image_stays_in_its_range():
    image = np.random.default_rng(0).choice(np.uint8([0, 255]), (40, 40))
    holes = _holes("rectangle", 40 * 2)[20:60, 20:60]
    assert missing.filled(image, holes).dtype == np.uint8


# --- arrays of callers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (2, 20, 30, 1)])
def test_nan_comes_back_bit_for_bit(shape):
    noisy = np.random.default_rng(0).normal(0, 1, shape).astype("float32")
    bits = np.uint32(0x7FC01234)
    rows = noisy[:, 5:9] if noisy.ndim == 4 else noisy[5:9]
    rows.view("uint32")[...] = bits
    array, gaps = missing.taken(noisy)
    assert np.isfinite(array).all() and array.dtype == noisy.dtype and not gaps.is_masked
    back = gaps.restored(np.full(shape, 0.5, "float32"))
    np.testing.assert_array_equal(back.view("uint32")[np.isnan(noisy)], bits)
    assert (back[~np.isnan(noisy)] == 0.5).all()
    assert np.isnan(gaps.without(np.ones(shape, "float32"))).sum() == np.isnan(noisy).sum()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_masked_arrays_come_back_masked(dtype):
    data = np.random.default_rng(0).integers(0, 200, (20, 30)).astype(dtype)
    mask = np.zeros(data.shape, bool)
    mask[3:8, 4:20] = True
    if dtype == "float64":
        data[5, 5] = 1e300  # under a mask there may be anything
    array, gaps = missing.taken(np.ma.MaskedArray(data, mask))
    assert not np.ma.isMaskedArray(array) and array.dtype == dtype
    np.testing.assert_array_equal(array[~mask], data[~mask])
    back = gaps.restored(np.zeros(data.shape, "float32"))
    assert np.ma.isMaskedArray(back)
    np.testing.assert_array_equal(back.mask, mask)
    scale = np.iinfo(dtype).max if dtype.startswith("u") else 1
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(back.data[mask], data[mask].astype("float32") / np.float32(scale))


def test_a_masked_array_without_a_mask():
    array, gaps = missing.taken(np.ma.MaskedArray(np.ones((4, 5))))
    assert np.ma.isMaskedArray(gaps.restored(np.ones((4, 5), "float32"))) and not np.ma.isMaskedArray(array)


@pytest.mark.parametrize("noisy", [np.ones((4, 5)), np.ones((4, 5), "uint8"), [[1, 2]], np.array("text")])
def test_other_arrays_are_passed_on(noisy):
    array, gaps = missing.taken(noisy)
    assert gaps is None
    np.testing.assert_array_equal(array, noisy)


def test_an_empty_image_of_a_batch_gets_what_the_others_have():
    batch = np.full((2, 8, 8, 1), 1000.0)
    batch[1] = np.nan
    array, gaps = missing.taken(batch)
    np.testing.assert_allclose(array, 1000.0)
    assert not gaps.is_everything and missing.taken(batch[1:])[1].is_everything


def test_infinite_values_are_left_for_whoever_refuses_them():
    noisy = np.ones((8, 8), "float32")
    noisy[2, 2], noisy[3, 3] = np.inf, np.nan
    assert np.isinf(missing.taken(noisy)[0]).any()
