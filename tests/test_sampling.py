"""Tests of the look at some images before the training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bsdenoise.data.faults import named
from bsdenoise.data.sources import open_source
from bsdenoise.data.survey import SAMPLE_SIZE, look_at
from bsdenoise.images import Picture
from bsdenoise.images.intensity_range import fit_range


class _Arrays:
    """A source of arrays, with notes by number; counts what is read."""

    def __init__(self, arrays, notes=None):
        self.arrays, self.notes, self.read_indices = arrays, notes or {}, []

    def __len__(self):
        return len(self.arrays)

    def name(self, index):
        return f"image {index}"

    def read(self, index):
        self.read_indices.append(index)
        if self.arrays[index] is None:
            raise ValueError("broken")
        return Picture(self.arrays[index], "NPY", notes=self.notes.get(index, ()))


def _noise(level, count=4, dtype="float32"):
    rng = np.random.default_rng(0)
    return [rng.normal(0.5, level, (64, 64)).astype(dtype) for _ in range(count)]


def test_eight_bits():
    arrays = [np.full((40, 40, 3), 20 * number, "uint8") for number in range(5)]
    sample = look_at(_Arrays(arrays), relative_noise=False)
    assert (sample.channels, sample.full_scale, sample.fractional) == (3, 255.0, True)
    assert (sample.offset, sample.scale) == (0.0, 1.0)
    assert sample.median_sigma == 0.0


def test_noise_and_range_of_floats():
    sample = look_at(_Arrays([400 * array + 100 for array in _noise(0.1)]), relative_noise=False)
    assert (sample.channels, sample.full_scale, sample.fractional) == (1, 1.0, False)
    assert sample.median_sigma == pytest.approx(40, rel=0.1)
    # The 0.1 and 99.9 percentiles of a normal distribution are 3.09 standard deviations away.
    assert sample.offset == pytest.approx(300 - 3.09 * 40, abs=6)
    assert sample.scale == pytest.approx(2 * 3.09 * 40, rel=0.03)


@pytest.mark.parametrize("bits", [8, 12], ids=["8 bits", "12 bits"])
def test_few_bits_in_sixteen(bits):
    """The range is that of the data, not of the file's type."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(2**bits, size=(50, 60, 3)).astype("uint16") for _ in range(6)]
    sample = look_at(_Arrays(arrays), relative_noise=False)
    assert (sample.full_scale, sample.fractional) == (65535.0, True)
    assert sample.offset * 65535 == pytest.approx(0, abs=0.004 * 2**bits)
    assert sample.scale * 65535 == pytest.approx(2**bits, rel=0.008)


def test_large_images_are_sampled_the_same_each_time():
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0, 1000, (300, 400, 2)).astype("float32") for _ in range(2)]
    one, two = (look_at(_Arrays(arrays), relative_noise=False) for _ in range(2))
    assert (one.offset, one.scale) == (two.offset, two.scale)
    assert one.offset == pytest.approx(1, abs=0.5) and one.scale == pytest.approx(998, abs=1)


def test_a_few_of_many_are_read():
    source = _Arrays([np.zeros((20, 20), "uint8")] * 1000)
    look_at(source, relative_noise=False)
    assert len(source.read_indices) == SAMPLE_SIZE and source.read_indices[0] == 0 and source.read_indices[-1] == 999


def test_notes_are_kept_with_the_first_of_their_kind():
    source = _Arrays([np.zeros((20, 20), "uint8")] * 3, {1: ("alpha",), 2: ("alpha", "palette")})
    assert look_at(source, relative_noise=False).notes == {"alpha": "image 1", "palette": "image 2"}


def test_most_images_give_the_channels():
    arrays = [np.zeros((20, 20), "uint8"), *[np.zeros((20, 20, 3), "uint8")] * 2]
    assert look_at(_Arrays(arrays), relative_noise=False).channels == 3


def test_unreadable_and_infinite_images_do_not_count():
    bad = np.full((20, 20, 2), np.inf, "float32")
    good = np.linspace(0, 1, 400, dtype="float32").reshape(20, 20)
    sample = look_at(_Arrays([None, bad, good]), relative_noise=False)
    assert sample.channels == 1 and 0.99 < sample.scale <= 1


def test_hot_pixels_do_not_widen_the_range():
    rng = np.random.default_rng(0)
    arrays = [rng.integers(100, 400, (100, 100)).astype("uint16") for _ in range(3)]
    for array in arrays:
        array.ravel()[rng.integers(array.size, size=5)] = 65535
        array.ravel()[rng.integers(array.size, size=5)] = 0
    sample = look_at(_Arrays(arrays), relative_noise=False)
    assert sample.offset * 65535 == pytest.approx(100, abs=2) and sample.scale * 65535 == pytest.approx(300, abs=3)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([7.0] * 5, (7.0, 7.0)),
        ([-7.0] * 5, (-7.0, 7.0)),
        ([0.0] * 5, (0.0, 1.0)),
        ([3.0] * 5000 + [5.0], (3.0, 2.0)),
    ],
    ids=["constant", "negative", "zero", "one spot"],
)
def test_constant_images_have_a_scale(pixels, expected):
    assert fit_range(np.array(pixels, "float32")) == expected


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False), min_size=1, max_size=50))
def test_the_scale_is_always_positive_and_finite(pixels):
    offset, scale = fit_range(np.array(pixels, "float32"))
    assert scale > 0 and np.isfinite([offset, scale]).all()
    assert min(pixels) <= offset <= max(pixels)


def test_bit_depths_differ(tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), "uint8")).save(tmp_path / "a.png")
    np.save(tmp_path / "deep.npy", np.zeros((20, 20, 3), "uint16"))
    with pytest.raises(ValueError, match=r"deep\.npy and .*a\.png have different bit depths"):
        look_at(open_source(str(tmp_path)), relative_noise=False)
    sample = look_at(open_source(str(tmp_path)), relative_noise=True)
    assert (sample.full_scale, sample.offset, sample.scale) == (255.0, 0.0, 1.0)


@pytest.mark.parametrize("order", [1, -1], ids=["integers first", "floats first"])
def test_integers_and_floats_differ(order):
    arrays = [np.zeros((20, 20), "uint8"), np.zeros((20, 20), "float32")][::order]
    integers, floats = (0, 1)[::order]
    with pytest.raises(ValueError, match=f"image {integers} holds integers and image {floats} floats"):
        look_at(_Arrays(arrays), relative_noise=True)


def test_nothing_readable(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(ValueError) as raised:
        look_at(open_source(str(tmp_path)), relative_noise=False)
    assert str(raised.value) == (
        f"None of the images could be read; the first is {tmp_path}/a.png: cannot be read: its content is no image of "
        "a known kind."
    )


@pytest.mark.parametrize("count", [3, SAMPLE_SIZE + 6])
def test_the_reason_of_the_first_of_many(count):
    tried = "images" if count <= SAMPLE_SIZE else f"{SAMPLE_SIZE} images that were tried"
    with pytest.raises(ValueError, match=f"^None of the {tried} could be read; the first is image 0: broken$"):
        look_at(_Arrays([None] * count), relative_noise=False)


@pytest.mark.parametrize(
    ("name", "message", "expected"),
    [
        ("a.tif", "a.tif: bad", "a.tif: bad"),
        ("a.tif[3]", "a.tif: bad", "a.tif[3]: bad"),
        ("a.tif[3]", "a.tif[3]: bad", "a.tif[3]: bad"),
        ("a.tif", "bad", "a.tif: bad"),
        ("a.tif", "", "a.tif: ValueError"),
    ],
)
def test_an_image_is_named_once(name, message, expected):
    assert named(name, ValueError(message)) == expected
