"""What a model takes: images and the parameters of their noise, checked before anything is computed or sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bsdenoise.images.precision import SINGLE_BYTES, check_single_precision
from bsdenoise.noise.base import Parameter

FULL_SCALES = (np.dtype(np.uint8), np.dtype(np.uint16))  # integer types whose greatest value is a fully lit pixel


@dataclass(frozen=True)
class Accepted:
    """What a model takes.

    Attributes:
        channels: C, the number of channels of its images.
        is_fractional: Whether pixels are fractions of full scale, so that integers are taken.
        units: The units of pixels and σ, in words.
        low: Least pixel value.
        high: Greatest pixel value.
        scale: Difference of pixel values that the network sees as 1, which is the largest σ.
        offset: Pixel value that it sees as 0.
    """

    channels: int
    is_fractional: bool
    units: str
    low: float
    high: float
    scale: float
    offset: float = 0.0

    def batch(self, noisy: Any) -> np.ndarray:
        """Return an image or a batch as (B, H, W, C), of its own type.

        Raises:
            ValueError: If its type or shape does not fit, or it is empty.
        """
        array = np.asarray(noisy)
        if array.dtype.kind in "ui" and not self.is_fractional:
            raise ValueError(
                f"This model takes float images: its units are {self.units}. Received: dtype={array.dtype}."
            )
        if array.dtype.kind in "ui" and array.dtype.newbyteorder("=") not in FULL_SCALES:
            raise ValueError(
                f"Images of {array.dtype} have no full scale: convert them to uint8 or uint16, or to floats in "
                f"the units of the model, {self.units}. Received: dtype={array.dtype}."
            )
        if array.dtype.kind not in "uif":
            raise ValueError(f"Images must hold uint8, uint16 or floats. Received: dtype={array.dtype}.")
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
        """Return a batch as floats, integers scaled by their type's maximum.

        Returns:
            float32, or float64 for float64.

        Raises:
            ValueError: If values are not finite or out of range.
        """
        if batch.dtype.kind in "ui":
            scaled = batch.astype(np.float32) / np.float32(np.iinfo(batch.dtype).max)
        else:
            scaled = batch.astype(np.float64 if batch.dtype.itemsize > SINGLE_BYTES else np.float32, copy=False)
        if not np.isfinite(scaled).all():
            raise ValueError("The image holds NaN or infinite values.")
        least, greatest = scaled.min(), scaled.max()
        if least < self.low or greatest > self.high:
            cure = "; divide by the value of a fully lit pixel, 255 for 8 bits" if self.is_fractional else ""
            raise ValueError(
                f"Pixels must lie between {self.low:g} and {self.high:g}: the units are {self.units}{cure}. "
                f"Received: pixels from {least:g} to {greatest:g}."
            )
        return scaled

    @staticmethod
    def float32(pixels: np.ndarray) -> np.ndarray:
        """Return pixels as float32.

        Raises:
            ValueError: As `check_single_precision`.
        """
        check_single_precision(pixels)
        return pixels.astype(np.float32, copy=False)

    def sigma(self, sigma: Any, count: int) -> np.ndarray:
        """Return a number, or one per image, as float32 (B,).

        Raises:
            ValueError: If it has another shape, is not positive or too large.
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

    def theta(self, theta: Any, count: int, parameters: Sequence[Parameter]) -> np.ndarray:
        """Return noise parameters, (P,) or one row per image, as float32 (B, P).

        Args:
            theta: The parameters, in the units of the pixels.
            count: B.
            parameters: What they are, P of them.

        Raises:
            ValueError: If they have another shape, or one is out of range.
        """
        theta = np.asarray(theta, np.float32)
        names = ", ".join(parameter.name for parameter in parameters)
        if theta.shape not in ((len(parameters),), (count, len(parameters))):
            raise ValueError(f"`noise` must hold {names}, or a row of them per image. Received: shape={theta.shape}.")
        theta = np.broadcast_to(theta, (count, len(parameters)))
        for parameter, values in zip(parameters, theta.T, strict=True):
            low, high = parameter.ends(self.offset, self.scale)
            if not (np.isfinite(values) & (values >= low) & (values <= high)).all():
                raise ValueError(
                    f"`noise`: {parameter.name} must lie between {low:g} and {high:g}. Received: {values}."
                )
        return theta
