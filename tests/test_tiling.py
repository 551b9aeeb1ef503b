"""Tiles cover an image once, lie on the grid, and bring the context that was asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bsdenoise.inference.tiling import choose, fit, padded_pixels, plan


@st.composite
def plans(draw):
    """Height, width, tile, overlap and grid that fit together."""
    grid = 2 ** draw(st.integers(0, 5))
    overlap = grid * draw(st.integers(0, 6))
    tile = 2 * overlap + grid * draw(st.integers(1, 8))
    sides = st.integers(1, 12 * (tile - 2 * overlap))  # some hundred tiles at most
    return draw(sides), draw(sides), tile, overlap, grid


@settings(deadline=None)
@given(plans())
def test_every_pixel_is_kept_once(arguments):
    height, width, tile, overlap, grid = arguments
    image = np.arange(height * width).reshape(height, width)
    count = np.zeros((height, width), int)
    result = np.full((height, width), -1)
    for piece in plan(height, width, tile, overlap, grid):
        part = image[piece.window][piece.inner]
        assert part.size > 0
        assert result[piece.target].shape == part.shape
        result[piece.target] = part
        count[piece.target] += 1
    np.testing.assert_array_equal(count, 1)
    np.testing.assert_array_equal(result, image)


@settings(deadline=None)
@given(plans())
def test_windows_lie_on_the_grid_and_inside(arguments):
    height, width, tile, overlap, grid = arguments
    for piece in plan(height, width, tile, overlap, grid):
        for window, inner, target, size in zip(piece.window, piece.inner, piece.target, (height, width), strict=True):
            assert 0 <= window.start < window.stop <= size
            assert window.start % grid == 0
            # So that padding to the grid, and the grid seen from the far side, are those of the whole image.
            assert window.stop == size or window.stop % grid == 0
            assert window.stop - window.start <= tile
            assert target.start == window.start + inner.start and target.stop == window.start + inner.stop
            assert window.start == 0 or target.start - window.start >= overlap
            assert window.stop == size or window.stop - target.stop >= overlap


@settings(deadline=None)
@given(plans())
def test_no_tile_is_needless(arguments):
    """As many tiles as their kept parts ask for, so one for an image that fits."""
    height, width, tile, overlap, grid = arguments
    step = tile - 2 * overlap
    expected = 1
    for size in (height, width):
        expected *= 1 if size <= tile else 1 + -(-(size - tile) // step)
    assert len(list(plan(height, width, tile, overlap, grid))) == expected


def test_an_example_by_hand():
    pieces = list(plan(10, 20, tile=12, overlap=4, grid=4))
    assert [(piece.window[1], piece.inner[1], piece.target[1]) for piece in pieces] == [
        (slice(0, 12), slice(0, 8), slice(0, 8)),
        (slice(4, 16), slice(4, 8), slice(8, 12)),
        (slice(8, 20), slice(4, 12), slice(12, 20)),
    ]
    assert {(piece.window[0].stop, piece.inner[0].stop, piece.target[0].stop) for piece in pieces} == {(10, 10, 10)}


@pytest.mark.parametrize(
    "tile, overlap",
    [(30, 8), (32, 6), (32, 16), (32, 24), (32, -8), (0, 0), (-32, 0), (16, 8)],
    ids=[
        "tile-off-grid",
        "overlap-off-grid",
        "nothing-left",
        "less-than-nothing",
        "negative",
        "zero",
        "below-zero",
        "all",
    ],
)
def test_wrong_tiles(tile, overlap):
    with pytest.raises(ValueError, match=f"must be multiples of 8 with tile > 2 .* tile={tile}, overlap={overlap}"):
        list(plan(100, 100, tile, overlap, grid=8))


@pytest.mark.parametrize(
    "grid, tile, overlap, expected",
    [
        (32, None, None, (1024, 160)),  # a depth of 5
        (4, None, None, (1024, 40)),  # its reach
        (48, None, None, (1056, 144)),  # no multiple of the grid: the next one up, the next one down
        (16, 256, None, (256, 64)),  # at most a quarter of a tile
        (16, None, 32, (1024, 32)),
        (16, 64, 0, (64, 0)),
    ],
)
def test_what_is_not_given_is_chosen(grid, tile, overlap, expected):
    assert choose(grid, tile, overlap) == expected


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 6))
def test_pixels_with_padding(height, width, depth):
    grid = 2**depth
    rows, columns = (next(n for n in range(size, size + grid) if n % grid == 0) for size in (height, width))
    assert padded_pixels(height, width, grid) == rows * columns


@given(plans())
def test_tiles_end_where_a_mirror_image_begins_on_the_grid(arguments):
    height, width, tile, overlap, grid = arguments
    for piece in plan(*arguments):
        other = piece.for_mirroring(height, width, grid)
        assert (other.inner, other.target) == (piece.inner, piece.target)
        for window, whole, inner, size in zip(other.window, piece.window, piece.inner, (height, width), strict=True):
            assert window.start == whole.start and whole.stop - grid < window.stop <= whole.stop
            is_given_context = overlap > 0 or whole.stop == size
            assert (window.stop - size) % grid == 0 or not is_given_context
            assert inner.stop <= window.stop - window.start


def test_extra_rows_count_as_pixels_of_a_tile():
    """They make tiles narrower, not lower."""
    rows, columns = fit(200, 300, 10_000, 8, 4)
    assert rows * columns <= 10_000 < (rows + 100) * columns
    extra = fit(200, 300, 10_000, 8, 4, extra_rows=100)
    assert extra[0] == rows
    assert (extra[0] + 100) * extra[1] <= 10_000
    assert (extra[1] + 100) * extra[0] > 10_000
    both = fit(200, 300, 10_000, 8, 4, extra_rows=100, is_transposed=True)
    assert both[0] * both[1] + 100 * max(both) <= 10_000
