"""Computed stripes and checks to train on: varied, within the range of intensities, and the same for a seed."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import pattern_images


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["pattern_images", *map(str, arguments)])
    return pattern_images.main()


def test_patterns_are_varied_and_within_the_range():
    rng = np.random.default_rng(0)
    drawn = np.stack([pattern_images.pattern(rng) for _ in range(24)])
    assert drawn.shape[1:] == (pattern_images.SIDE,) * 2
    assert drawn.min() >= 0 and drawn.max() <= 1
    contrasts = np.ptp(drawn, axis=(1, 2))
    assert contrasts.min() > 0.1 and np.ptp(contrasts) > 0.4
    peaks = set()
    for one in drawn:
        power = np.abs(np.fft.rfft2(one - one.mean()))
        peaks.add(np.unravel_index(power.argmax(), power.shape))
    assert len(peaks) > 20  # directions and periods


def test_a_seed_gives_the_same_images(tmp_path, monkeypatch, capsys):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        assert run(monkeypatch, tmp_path / name, "--count", 2, "--seed", seed) == 0
    one, same, other = (
        [np.asarray(Image.open(path)) for path in sorted((tmp_path / name).iterdir())]
        for name in ("one", "same", "other")
    )
    assert [image.shape for image in one] == [(256, 256)] * 2
    np.testing.assert_array_equal(one, same)
    assert (one[0] != one[1]).any() and (one[0] != other[0]).any()


@pytest.mark.parametrize("flag", ["--count=0", "--seed=-1"])
def test_numbers_out_of_range_are_refused(flag, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path / "new", flag) == 2
    assert capsys.readouterr().err.startswith(f"error: {flag.split('=')[0]} must")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    assert run(monkeypatch, tmp_path / "file") == 2
    assert capsys.readouterr().err.startswith("error: ")
