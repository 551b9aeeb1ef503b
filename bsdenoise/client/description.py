"""What a served model says of itself, and what can be told from it of an image before that is sent."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

FORMAT = 1  # of the description; the exporter raises it when a key changes its meaning


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
    def noise(self) -> ServedNoise:
        """For which noise it was trained."""
        noise = self.json["noise"]
        return ServedNoise(float(noise["sigma_low"]), float(noise["sigma_high"]))

    @cached_property
    def scale(self) -> float:
        """Difference of intensity that the network sees as 1, the largest σ."""
        return float(self.json["pixels"]["scale"])

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

    def batch(self, noisy: Any) -> np.ndarray:
        """Gives an image or a batch as (B, H, W, C), of its own type.

        Raises:
            ValueError: As `Denoiser.denoise` for types, shapes and empty images.
        """
        array = np.asarray(noisy)
        if array.dtype.kind in "ui" and not self.is_fractional:
            raise ValueError(
                f"This model takes float images: its units are {self.units}. Received: dtype={array.dtype}."
            )
        if array.dtype.kind not in "uif":
            raise ValueError(f"Images must hold integers or floats. Received: dtype={array.dtype}.")
        batch = array
        if array.ndim == 2 and self.channels == 1:
            batch = array[np.newaxis, ..., np.newaxis]
        elif array.ndim == 3:
            batch = array[np.newaxis]
        if batch.ndim != 4 or batch.shape[-1] != self.channels:
            grey = "(H, W), " if self.channels == 1 else ""
            raise ValueError(
                f"This model takes images {grey}(H, W, {self.channels}) or (B, H, W, {self.channels}). "
                f"Received: shape={array.shape}."
            )
        if 0 in batch.shape:
            raise ValueError(f"The image is empty. Received: shape={array.shape}.")
        return batch

    def pixels(self, batch: np.ndarray) -> np.ndarray:
        """Gives a batch as float32, integers scaled by their type's maximum.

        Raises:
            ValueError: As `Denoiser.denoise` for values that are not finite or out of range.
        """
        if batch.dtype.kind in "ui":
            scaled = batch.astype(np.float32) / np.float32(np.iinfo(batch.dtype).max)
        else:
            with np.errstate(over="ignore"):  # what overflows is refused below
                scaled = batch.astype(np.float32, copy=False)
        if not np.isfinite(scaled).all():
            raise ValueError("The image holds NaN or infinite values.")
        low, high = self.intensities
        if scaled.min() < low or scaled.max() > high:
            raise ValueError(
                f"Pixels must lie between {low:g} and {high:g}: the units are {self.units}. "
                f"Received: pixels from {scaled.min():g} to {scaled.max():g}."
            )
        return scaled

    def sigma(self, sigma: Any, count: int) -> np.ndarray:
        """Gives a number, or one per image, as float32 (B,).

        Raises:
            ValueError: As `Denoiser.denoise`.
        """
        sigma = np.asarray(sigma, np.float32)
        if sigma.shape not in ((), (count,)):
            raise ValueError(f"`sigma` must be a number or one per image. Received: shape={sigma.shape}.")
        if not (np.isfinite(sigma) & (sigma > 0)).all():
            raise ValueError(f"`sigma` must be positive. Received: sigma={sigma}.")
        if (sigma > self.scale).any():
            raise ValueError(
                f"`sigma` must be at most {self.scale:g}: its units are {self.units}. Received: sigma={sigma}."
            )
        return np.broadcast_to(sigma, (count,))
