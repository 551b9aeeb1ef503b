"""What is sent at once, and what is read before it is sent: plans, centres, addresses."""

import numpy as np
import pytest

from bsdenoise.client import address, request_plan
from bsdenoise.inference import tiling

# --- parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "most", "groups"),
    [
        ((5, 8, 8, 3), 10**6, [5]),
        ((5, 8, 8, 3), 128, [2, 2, 1]),
        ((3, 8, 8, 3), 64, [1, 1, 1]),
        ((3, 5, 5, 1), 64, [1, 1, 1]),  # two fit as they are, but not filled up to the grid of 4
        ((2, 7, 9, 1), 63, [1, 1]),  # one fits as it is
    ],
)
def test_batches_are_sent_in_groups_of_whole_images(shape, most, groups):
    planned = request_plan.plan(shape, most, grid=4, tile=16, overlap=4)
    assert [part.images.stop - part.images.start for part in planned] == groups
    assert [part.images.start for part in planned] == np.cumsum([0, *groups[:-1]]).tolist()
    batch = np.arange(np.prod(shape)).reshape(shape)
    for part in planned:
        assert not part.is_tile
        np.testing.assert_array_equal(batch[part.images, *part.tile.window], batch[part.images])


@pytest.mark.parametrize(("most", "tile", "overlap"), [(256, 16, 4), (300, 16, 4), (255, 12, 0), (16, 4, 0)])
def test_large_images_are_cut_as_the_model_cuts_them(most, tile, overlap):
    """Into smaller tiles only where one of the model's own would not fit."""
    planned = request_plan.plan((2, 37, 21, 1), most, grid=4, tile=16, overlap=4)
    expected = list(tiling.plan(37, 21, tile, overlap, 4))
    assert [part.tile for part in planned] == expected * 2
    assert [part.images for part in planned] == [slice(0, 1)] * len(expected) + [slice(1, 2)] * len(expected)
    assert all(part.is_tile for part in planned)
    covered = np.zeros((2, 37, 21), int)
    for part in planned:
        rows, columns = part.tile.window
        assert (rows.stop - rows.start) * (columns.stop - columns.start) <= most
        covered[part.images, *part.tile.target] += 1
    assert (covered == 1).all()


def test_a_strip_keeps_the_model_s_tile():
    planned = request_plan.plan((1, 5, 100, 1), 80, grid=4, tile=16, overlap=4)
    assert max(part.tile.window[1].stop - part.tile.window[1].start for part in planned) == 16


def test_a_limit_below_the_grid_is_refused():
    with pytest.raises(ValueError, match="at most 15 pixels per request are too few for tiles on a grid of 4"):
        request_plan.plan((1, 10, 10, 1), 15, grid=4, tile=16, overlap=4)


@pytest.mark.parametrize(
    ("height", "width", "most"), [(10, 20, 200), (10, 20, 199), (1000, 10, 100), (7, 7, 1), (1, 50, 3), (640, 480, 999)]
)
def test_the_centre_is_in_the_middle_and_fits(height, width, most):
    rows, columns = request_plan.centre(height, width, most)
    size = (rows.stop - rows.start) * (columns.stop - columns.start)
    assert 0 < size <= most
    assert size == height * width or size > 0.6 * most
    for part, side in ((rows, height), (columns, width)):
        assert 0 <= part.start and part.stop <= side
        assert abs(part.start - (side - part.stop)) <= 1


# --- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:8501", "http://host:8501/v1/models/denoiser"),
        ("HTTP://host:8501/", "http://host:8501/v1/models/denoiser"),
        ("https://host", "https://host:443/v1/models/denoiser"),
        ("http://host", "http://host:80/v1/models/denoiser"),
        ("http://[::1]:8501", "http://[::1]:8501/v1/models/denoiser"),
        ("http://host:1/v1/models/a-b.c", "http://host:1/v1/models/a-b.c"),
        ("http://host:1/v1/models/a/versions/12", "http://host:1/v1/models/a/versions/12"),
        ("http://host:1/v1/models/a/labels/canary/", "http://host:1/v1/models/a/labels/canary"),
        ("http://host:1/some/where/v1/models/a", "http://host:1/some/where/v1/models/a"),
        ("grpc://host:8500", "grpc://host:8500/denoiser"),
        ("grpcs://host:8500/a", "grpcs://host:8500/a"),
        ("grpc://host:8500/a/versions/3", "grpc://host:8500/a/versions/3"),
        ("grpc://host:8500/a/labels/stable", "grpc://host:8500/a/labels/stable"),
    ],
)
def test_addresses(url, expected):
    assert str(address.parse(url)) == expected


def test_the_fields_of_an_address():
    found = address.parse("grpcs://host:8500/a%20b/labels/c")
    assert (found.protocol, found.secure, found.host, found.port) == ("grpc", True, "host", 8500)
    assert (found.name, found.version, found.label) == ("a b", None, "c")
    assert address.parse("http://h/v1/models/a/versions/7").version == 7


@pytest.mark.parametrize(
    "url",
    ["", "host:8500", "ftp://host:1", "httpss://host", "grpc://host", "grpc://:1", "http://host/v2/models/a", "http://",
     "http://host/v1/models/a/versions/x", "http://host/v1/models/a:predict", "http://host?a=1", "grpc://host:1/a/b",
     "http://host:99999", "model.keras"],
)  # fmt: skip
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match="A server's URL reads http"):
        address.parse(url)


def test_passwords_are_refused_and_not_repeated():
    with pytest.raises(ValueError, match="must not hold a user or a password") as caught:
        address.parse("http://me:secret@host:1")
    assert "secret" not in str(caught.value)
