"""Float64 images whose noise float32 cannot hold are refused, whoever meets them first; all others pass."""

import numpy as np
import pytest

from bsdenoise import images
from bsdenoise.inference.input_checks import Accepted, check_single_precision

RNG = np.random.default_rng(7)
NOISE = RNG.normal(0.0, 1.0, (40, 50))
SPOILT = {
    "counts of a clock": 1e9 + NOISE,
    "small noise upon one": 1.0 + 1e-9 * NOISE,
    "beside a star": np.where(np.arange(2000).reshape(40, 50) == 777, 1e12, 1e8 + NOISE),
    "negative": -3e8 + NOISE,
}
HELD = {
    "photograph": 100.0 + 20.0 * NOISE,
    "electrons": 1e5 + NOISE,
    "whole numbers": np.rint(1e6 + 10.0 * NOISE),
    "tiny units": 1e-30 * (5.0 + NOISE),
    "noiseless spot": 0.1 + np.exp(-((np.arange(2000).reshape(40, 50) % 50 - 25.0) ** 2) / 8.0),
    "constant": np.full((40, 50), 0.1),
    "one hole": np.where(np.arange(2000).reshape(40, 50) == 5, np.nan, NOISE),
    "nothing": np.full((40, 50), np.nan),
}


def spoils(image):
    """Tells by what is left of the noise after rounding, in decimal steps of float32."""
    ulp = np.spacing(np.abs(np.nanmedian(image)).astype(np.float32))
    return ulp > np.nanstd(np.diff(image[5]))


@pytest.mark.parametrize("image", SPOILT.values(), ids=SPOILT)
def test_noise_that_float32_cannot_hold_is_refused(image, tmp_path):
    assert spoils(image)
    accepted = Accepted(1, False, "any", -np.inf, np.inf, np.inf)
    for check in (check_single_precision, accepted.float32):
        with pytest.raises(ValueError, match="float32 cannot hold this float64 image: neighbouring pixels differ by"):
            check(image)
    with pytest.raises(ValueError, match="float32 cannot hold"):
        check_single_precision(np.stack([image, image])[..., np.newaxis])
    np.save(tmp_path / "a.npy", image)
    with pytest.raises(ValueError, match=r"a\.npy: .*float32 cannot hold"):
        images.read(tmp_path / "a.npy")


@pytest.mark.parametrize("image", HELD.values(), ids=HELD)
def test_what_float32_holds_is_taken(image):
    check_single_precision(image)
    check_single_precision(image[..., np.newaxis])
    check_single_precision(image.astype(np.float32))
    np.testing.assert_array_equal(
        Accepted(1, False, "any", -np.inf, np.inf, np.inf).float32(image), image.astype(np.float32)
    )
