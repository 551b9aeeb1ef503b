"""How noise levels are written: `gaussian:25`, `5-50`, `25/255`. Text to numbers, with no neural network library.

Beside it what relates σ to the median of noise.
"""

import re
from typing import NamedTuple

SIGMA_MEDIAN = 0.6744897501960817  # median of |N(0, 1)|, Donoho and Johnstone 1994
SPEC_READS = (
    "A noise SPEC reads gaussian:25 (in the files' own units), gaussian:25/255 (a fraction of full scale), or "
    "gaussian:5-50 (a range)."
)
UNKNOWN = "unknown"  # what stands for a SPEC where the images are to tell
NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


def parse_range(text: str, full_scale: float) -> tuple[float, float]:
    """Read σ of a noise SPEC: `25`, `25/255`, `5-50`, `5-50/255`.

    Args:
        text: What follows `gaussian:`. Numbers are in the units of the files, unless a full scale stands after a slash.
        full_scale: Greatest value of the files' pixel type (255, 65535, or 1 for float files).

    Returns:
        Least and greatest σ as fractions of full scale, the same number twice for a known σ. Whether they make sense
        as a noise model, `bsdenoise.noise.GaussianNoise` checks.

    Raises:
        ValueError: If it cannot be read.
    """
    match = re.fullmatch(rf"({NUMBER})(?:-({NUMBER}))?(?:/({NUMBER}))?", text.strip())
    if not match:
        raise ValueError(f"{SPEC_READS} Received: 'gaussian:{text}'.")
    low, high, divisor = match.groups()
    return _level(low, divisor, full_scale), _level(high or low, divisor, full_scale)


class Level(NamedTuple):
    """A σ as it was written.

    Attributes:
        value: The number.
        divisor: The full scale after the slash; `None` if the number is in the file's own units.
    """

    value: float
    divisor: float | None

    def fraction(self, full_scale: float) -> float:
        """Return σ as a fraction of full scale.

        Args:
            full_scale: Greatest value of the file's pixel type.
        """
        return self.value / (self.divisor or full_scale)


def read_level(text: str) -> Level:
    """Read one σ, `25` in the file's own units or `25/255`.

    Raises:
        ValueError: If it cannot be read, or is not positive.
    """
    match = re.fullmatch(rf"({NUMBER})(?:/({NUMBER}))?", text.strip())
    if not match:
        raise ValueError(f"A sigma reads 25 (in the file's own units) or 25/255. Received: {text!r}.")
    value, divisor = match.groups()
    if not _level(value, divisor, 1.0) > 0:
        raise ValueError(f"A sigma must be positive. Received: {text!r}.")
    return Level(float(value), float(divisor) if divisor else None)


def parse_level(text: str, full_scale: float) -> float:
    """Read one σ as a fraction of full scale; args and errors as for `read_level` and `Level.fraction`."""
    return read_level(text).fraction(full_scale)


def is_relative(spec: str) -> bool:
    """Say whether a SPEC is a fraction of full scale, so that it means the same for every bit depth."""
    return "/" in spec


def _level(value: str, divisor: str | None, full_scale: float) -> float:
    """Divide by the SPEC's own full scale where there is one, by the files' otherwise."""
    scale = float(divisor) if divisor else full_scale
    if scale <= 0:
        raise ValueError(f"The number after the slash must be positive. Received: {divisor}.")
    return float(value) / scale
