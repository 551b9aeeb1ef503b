"""White Gaussian noise."""

from dataclasses import asdict, dataclass

import keras

from bsdenoise.noise.spec import parse_range


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
