"""Noise models: how a SPEC is written, how images are corrupted, and what the likelihood needs to know.

A noise model is a small class with the same methods as `GaussianNoise`; `parse` chooses it by the SPEC's name.
"""

from dataclasses import asdict, dataclass

import keras
from keras import ops

# The text alone needs no Keras; whoever has it finds all about noise here.
from bsdenoise.levels import is_relative, parse_level, parse_range

__all__ = [
    "DB2_LENGTH",
    "DB2_TAPS",
    "SIGMA_MEDIAN",
    "GaussianNoise",
    "estimate_sigma",
    "is_relative",
    "parse",
    "parse_level",
    "parse_range",
]
SIGMA_MEDIAN = 0.6744897501960817  # median of |N(0, 1)|, Donoho and Johnstone 1994
# Daubechies wavelet of two vanishing moments, high-pass: these two taps applied to second differences, so that it is
# blind to constant and linear image content. In this form a constant gives an exact zero.
DB2_TAPS = ((3.0**0.5 - 1.0) / (4.0 * 2.0**0.5), (3.0**0.5 + 1.0) / (4.0 * 2.0**0.5))
DB2_LENGTH = 4


@keras.saving.register_keras_serializable(package="bsdenoise")
@dataclass(frozen=True)
class GaussianNoise:
    """Additive white Gaussian noise, with a standard deviation that is known or drawn per image from a range.

    Args:
        low: Least standard deviation, as a fraction of full scale, > 0.
        high: Greatest standard deviation; equal to `low` for a known one.

    Raises:
        ValueError: If not 0 < low ≤ high ≤ 1.

    Example:
        >>> GaussianNoise(25 / 255, 25 / 255).is_known
        True
    """

    low: float
    high: float

    def __post_init__(self):
        """Checks the range."""
        if not 0.0 < self.low <= self.high <= 1.0:
            raise ValueError(
                "Noise needs 0 < sigma <= 1 as a fraction of full scale (25 grey levels of 255 are 0.098), the "
                f"lower end first. Received: {self.low:g} to {self.high:g}."
            )

    @property
    def is_known(self) -> bool:
        """Whether σ is one number for all images."""
        return self.low == self.high

    def draw_sigma(self, rng):
        """Draws σ of one image, uniformly from the range.

        Args:
            rng: Anything with `uniform(low, high)`, such as a `numpy.random.Generator`.
        """
        return self.low if self.is_known else rng.uniform(self.low, self.high)

    def corrupt(self, clean, sigma, rng):
        """Adds noise, neither clipped nor rounded.

        Args:
            clean: Float image of any shape, full scale 1.
            sigma: Standard deviation.
            rng: Anything with `standard_normal(shape, dtype)`, such as a `numpy.random.Generator`.
        """
        return clean + sigma * rng.standard_normal(clean.shape, clean.dtype)

    def get_config(self) -> dict:
        """Gives the arguments from which the model can be made again."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "GaussianNoise":
        """Makes the model again."""
        return cls(**config)


def parse(spec: str, full_scale: float) -> GaussianNoise:
    """Reads a noise SPEC: `gaussian:25`, `gaussian:25/255`, `gaussian:5-50`, `gaussian:5-50/255`.

    Args:
        spec: The SPEC. Numbers are in the units of the files, unless a full scale follows after a slash.
        full_scale: Greatest value of the files' pixel type (255, 65535, or 1 for float files).

    Returns:
        The noise model, with fractions of full scale.

    Raises:
        ValueError: If the SPEC cannot be read, or σ is outside of (0, full scale].
    """
    return GaussianNoise(*parse_range(spec, full_scale))


def estimate_sigma(image):
    """Estimates the standard deviation of white noise in each image from its finest diagonal details.

    Median of the absolute diagonal coefficients of a db2 wavelet over the median of |N(0, 1)| (Donoho and
    Johnstone 1994), averaged over channels. Fine texture counts as noise, so it tends to be a little high.
    Coefficients that are exactly zero are left out: they are saturated or empty parts, where clipping took the noise.

    Args:
        image: (B, H, W, C), any H and W ≥ 1; of fewer than four rows or columns, copies make up for the rest.

    Returns:
        float32 (B,), in the units of the image; 0 where nothing varies.
    """
    image = ops.cast(image, "float32")
    rows = _db2_details(image)
    details = ops.transpose(_db2_details(ops.transpose(rows, (0, 2, 1, 3))), (0, 3, 1, 2))
    shape = ops.shape(details)
    count = shape[2] * shape[3]
    magnitudes = ops.sort(ops.abs(ops.reshape(details, (shape[0], shape[1], count))), axis=-1)
    zeros = ops.sum(ops.cast(magnitudes == 0.0, "int32"), axis=-1, keepdims=True)
    middle = ops.concatenate([(zeros + count - 1) // 2, ops.minimum((zeros + count) // 2, count - 1)], axis=-1)
    return ops.mean(ops.take_along_axis(magnitudes, middle, axis=-1), axis=(1, 2)) / SIGMA_MEDIAN


def _db2_details(image):
    """Filters (B, H, W, C) along H with the db2 high-pass and keeps every second row."""
    height = ops.shape(image)[1]
    is_known = isinstance(height, int)
    if not is_known or height < DB2_LENGTH:
        length = DB2_LENGTH if is_known else ops.maximum(height, DB2_LENGTH)
        image = ops.take(image, ops.arange(length) % height, axis=1)
    slopes = image[:, 1:] - image[:, :-1]
    curvatures = slopes[:, 1:] - slopes[:, :-1]
    end = ops.shape(curvatures)[1] // 2 * 2
    return DB2_TAPS[0] * curvatures[:, :end:2] + DB2_TAPS[1] * curvatures[:, 1:end:2]
