"""What a served model says of itself, and what can be told from it of an image before that is sent."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bsdenoise.inference.input_checks import Accepted
from bsdenoise.noise.base import INTENSITY, SIGMA, Parameter, check_is_sigma, is_sigma

FORMAT = 1  # of the description; the exporter raises it when a key changes its meaning
NOISE = "noise"  # input of models whose noise is more than a σ
FIRST_METHOD = "full"  # of models that were exported before their descriptions said it
FIRST_NOISE = "gaussian"  # likewise
STABILIZED = "stabilized"  # kind of noise of a model for white noise that takes noise which grows with the signal


@dataclass(frozen=True)
class ServedNoise:
    """The noise that the model was trained for, as a noise model of a `Denoiser` tells it.

    Attributes:
        kind: What a noise SPEC begins with, such as "gaussian".
        parameters: Its parameters.
        least: Least parameters of the training, with intensities as fractions of the model's scale.
        greatest: Greatest parameters.
    """

    kind: str
    parameters: tuple[Parameter, ...]
    least: tuple[float, ...]
    greatest: tuple[float, ...]

    @property
    def is_known(self) -> bool:
        """Whether all images have the same noise; otherwise the model estimates it."""
        return self.least == self.greatest

    @property
    def low(self) -> float:
        """Least σ, where that is what its parameters are."""
        return self.least[0]

    @property
    def high(self) -> float:
        """Greatest σ, where that is what its parameters are."""
        return self.greatest[0]

    @property
    def takes_sigma(self) -> bool:
        """Whether θ is a standard deviation, of which `sigma=` is the short form."""
        return is_sigma(self.parameters)


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
        """Read the text.

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
        told = noise.get("parameters") or [{"name": SIGMA, "low": noise["sigma_low"], "high": noise["sigma_high"]}]
        parameters = tuple(Parameter(str(one["name"]), str(one.get("unit", INTENSITY))) for one in told)
        least, greatest = (
            tuple(
                parameter.rescaled(float(one[end]), self.offset, self.scale)
                for parameter, one in zip(parameters, told, strict=True)
            )
            for end in ("low", "high")
        )
        return ServedNoise(str(noise.get("kind", FIRST_NOISE)), parameters, least, greatest)

    @cached_property
    def scale(self) -> float:
        """Difference of intensity that the network sees as 1."""
        return float(self.json["pixels"]["scale"])

    @cached_property
    def offset(self) -> float:
        """Intensity that the network sees as 0."""
        return float(self.json["pixels"]["offset"])

    @cached_property
    def units(self) -> str:
        """The units of pixels and noise, in words."""
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
        """Name of what can be called."""
        return frozenset(self.json["signatures"])

    @cached_property
    def accepted(self) -> Accepted:
        """What the model takes."""
        return Accepted(self.channels, self.is_fractional, self.units, *self.intensities, self.scale, self.offset)

    @property
    def can_be_stabilized(self) -> bool:
        """Whether `stabilized` tells of another noise."""
        return self.json.get("stabilized") is not None

    def stabilized(self) -> "Described":
        """Return the same of noise that grows with the signal."""
        return Described(self.json | {"noise": self.json["stabilized"], "stabilized": None})

    def theta_to_send(self, sigma: Any, noise: Any, count: int) -> np.ndarray | None:
        """Check the noise of images, and return it as float32 (B, P).

        Args:
            sigma: σ, a number or one per image; `None` if it is not told.
            noise: All parameters, (P,) or a row per image; `None` if they are not told.
            count: B, the number of images.

        Returns:
            The parameters; `None` if none were told, or the model has no use for them.

        Raises:
            ValueError: If they have another shape or are out of range, or the model has other ones.
        """
        if sigma is not None and noise is not None:
            raise ValueError("`sigma` is a short form of `noise`: give one of them.")
        theta = None
        if sigma is not None:
            self.check_takes_sigma()
            theta = self.accepted.sigma(sigma, count)[:, np.newaxis]
        elif noise is not None:
            theta = self.accepted.theta(noise, count, self.noise.parameters)
        return theta if self.method.has_posterior else None

    def check_takes_sigma(self) -> None:
        """Refuse a σ where the noise has other parameters; errors as of `theta_to_send`."""
        check_is_sigma(self.noise.kind, self.noise.parameters)

    def named(self, theta: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return noise parameters (B, P) as an input of signatures, by its name."""
        if theta is None:
            return {}
        return {SIGMA: theta[:, 0]} if self.noise.takes_sigma else {NOISE: theta}
