"""Counting what is done, and that inference counts every pixel of an image once."""

import numpy as np
import pytest

from bsdenoise import progress
from bsdenoise.inference import engine


def test_nobody_watches():
    with progress.part(3):
        progress.advance(1)


def test_a_part_is_worth_its_amount_whatever_it_counts():
    heard = []
    with progress.watched_by(heard.append):
        with progress.part(10, of=4):
            progress.advance(1)
            progress.advance(1)
        with progress.part(5, of=2):
            progress.advance(3)
            progress.advance(1)
        progress.advance(7)
    assert heard == [2.5, 2.5, 5.0, 5.0, 0.0, 0.0, 7]


def test_a_part_that_fails_counts_what_it_had_done():
    heard = []
    with pytest.raises(KeyError), progress.watched_by(heard.append), progress.part(10):
        progress.advance(0.5)
        raise KeyError
    progress.advance(1)
    assert heard == [5.0]


@pytest.mark.parametrize(
    ("shape", "options", "tta"),
    [
        ((2, 20, 30, 1), {}, 2),
        ((100, 130, 1), {}, 1),
        ((100, 130, 1), {}, 2),
        ((100, 130, 1), {"tile": 64, "overlap": 16}, 1),
    ],
    ids=["one pass, twice", "stages", "stages, twice", "tiles"],
)
def test_every_pixel_counts_once(tiny_denoiser_path, monkeypatch, shape, options, tta):
    """In steps: no part of an image in stages or tiles is half of it."""
    from bsdenoise import loading

    denoiser = loading.load(tiny_denoiser_path(1))
    monkeypatch.setattr(engine, "MAX_PASS_PIXELS", 2**11)
    monkeypatch.setattr(engine, "MAX_CHUNK_PIXELS", 2**10)
    monkeypatch.setattr(engine, "MIN_CHUNK_PIXELS", 2**10)
    noisy = np.random.default_rng(0).uniform(size=shape).astype("float32")
    steps = []
    with progress.watched_by(steps.append):
        watched = denoiser.denoise(noisy, sigma=0.1, tta=tta, **options)
    number = 1 if len(shape) == 3 else shape[0]
    assert sum(steps) == pytest.approx(number * np.prod(shape[-3:]))
    assert min(steps) >= 0
    if len(shape) == 3:
        assert max(steps) < 0.2 * sum(steps)
    np.testing.assert_array_equal(watched, denoiser.denoise(noisy, sigma=0.1, tta=tta, **options))
