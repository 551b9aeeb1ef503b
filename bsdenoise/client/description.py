"""What a served model says of itself, and what can be told from it of an image before that is sent."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bsdenoise.inference.input_checks import Accepted

FORMAT = 1  # of the description; the exporter raises it when a key changes its meaning
FIRST_METHOD = "full"  # of models that were exported before their descriptions said it


@dataclass(frozen=True)
class ServedNoise:
    """The noise that the model was trained for, σ in the units of its pixels.

    Attributes:
        low: Least standard deviation.
        high: Greatest standard deviation.
    """

    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether σ is one number for all images; otherwise the model estimates it."""
        return self.low == self.high


@dataclass(frozen=True)
class ServedMethod:
    """What the model was trained for.

    Attributes:
        name: Its name, such as "full" or "n2n".
        has_posterior: Whether σ matters, and the model says how sure its results are.
    """

    name: str
    has_posterior: bool


@dataclass(frozen=True)
class Described:
    """A model's description, read.

    Attributes:
        json: All of it, as it came.
    """

    json: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Described":
        """Reads the text.

        Raises:
            ValueError: If it is no description, or one of a later format.
        """
        try:
            described = cls(json.loads(text))
            if described.json["format"] == FORMAT:
                _ = described.channels, described.noise, described.scale, described.units, described.intensities
                _ = described.max_pixels, described.tiles, described.signatures, described.is_fractional
                _ = described.method
                return described
            reason = f"format {FORMAT} is expected. Received: format {described.json['format']!r}"
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"what the model says of itself cannot be used by this version of the client: {reason}")

    @cached_property
    def channels(self) -> int:
        """Number of image channels."""
        return int(self.json["channels"])

    @cached_property
    def method(self) -> ServedMethod:
        """What it was trained for; whether it has a posterior is told by what can be called."""
        return ServedMethod(str(self.json.get("method", FIRST_METHOD)), "posterior" in self.signatures)

    @cached_property
    def noise(self) -> ServedNoise:
        """For which noise it was trained."""
        noise = self.json["noise"]
        return ServedNoise(float(noise["sigma_low"]), float(noise["sigma_high"]))

    @cached_property
    def scale(self) -> float:
        """Difference of intensity that the network sees as 1, the largest σ."""
        return float(self.json["pixels"]["scale"])

    @cached_property
    def offset(self) -> float:
        """Intensity that the network sees as 0."""
        return float(self.json["pixels"]["offset"])

    @cached_property
    def units(self) -> str:
        """The units of pixels and σ, in words."""
        return str(self.json["pixels"]["units"])

    @cached_property
    def is_fractional(self) -> bool:
        """Whether pixels are fractions of full scale, so that integers are taken."""
        return bool(self.json["pixels"]["fractional"])

    @cached_property
    def intensities(self) -> tuple[float, float]:
        """Least and greatest pixel value."""
        return float(self.json["pixels"]["low"]), float(self.json["pixels"]["high"])

    @cached_property
    def max_pixels(self) -> int:
        """Largest number of pixels of a request."""
        return int(self.json["limits"]["max_pixels"])

    @cached_property
    def tiles(self) -> tuple[int, int, int]:
        """Pooling grid, largest side of a tile, and overlap, in pixels."""
        limits = self.json["limits"]
        return int(limits["grid"]), int(limits["tile"]), int(limits["overlap"])

    @cached_property
    def signatures(self) -> frozenset[str]:
        """Names of what can be called."""
        return frozenset(self.json["signatures"])

    @cached_property
    def accepted(self) -> Accepted:
        """What the model takes."""
        return Accepted(self.channels, self.is_fractional, self.units, *self.intensities, self.scale)

    def sigma_to_send(self, sigma: Any, count: int) -> np.ndarray | None:
        """Checks σ, and gives it as float32 (B,); `None` if none was given, or the model has no use for it.

        Args:
            sigma: A number, one per image, or `None`.
            count: B, the number of images.

        Raises:
            ValueError: If it has another shape, is not positive or too large.
        """
        checked = None if sigma is None else self.accepted.sigma(sigma, count)
        return checked if self.method.has_posterior else None
