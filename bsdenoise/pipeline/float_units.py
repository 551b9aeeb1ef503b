"""Floats in units of their own, shown to a model whose pixels are fractions of full scale."""

from dataclasses import dataclass

import numpy as np

from bsdenoise import images
from bsdenoise.images.intensity_range import fit_range
from bsdenoise.inference import tiling

# Fractions of full scale lie between 0 and 1, and with strong noise a little beyond. What spans less than a thousandth
# of that, or lies elsewhere, is in other units: counts, or a flux of 1e-18.
LEAST, GREATEST, LEAST_SPAN = -2.0, 3.0, 1e-3
LOOKED_AT = 3  # images of a stack from which the range is fitted


@dataclass(frozen=True)
class Units:
    """The units of a file's floats: (pixel − offset) / scale is what a model is given.

    Attributes:
        offset: Pixel value that becomes 0.
        scale: Difference of pixel values that becomes 1, > 0.
    """

    offset: float = 0.0
    scale: float = 1.0

    @property
    def are_plain(self) -> bool:
        """Whether nothing is changed."""
        return self == Units()

    @property
    def line(self) -> str | None:
        """Say that they were fitted; `None` if nothing is changed."""
        if self.are_plain:
            return None
        return (
            f"its floats are no fractions of full scale: for the model, {self.offset:.6g} becomes 0 and "
            f"{self.offset + self.scale:.6g} becomes 1"
        )

    def to_model(self, pixels: np.ndarray) -> np.ndarray:
        """Convert pixels of the file, floats of any size, to what the model is given; float64 stays so until then."""
        return pixels if self.are_plain else ((pixels - self.offset) / self.scale).astype(np.float32)

    def from_model(self, image: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Undo `to_model` for denoised pixels, in the float type of the file.

        Args:
            image: Denoised pixels as the model gave them.
            dtype: Float type of the file.
        """
        return image if self.are_plain else (image.astype(np.float64) * self.scale + self.offset).astype(dtype)


def of_floats(file: images.ImageFile) -> Units:
    """Find the units of an open file of floats: none of their own if they look like fractions of full scale.

    Args:
        file: The file; of a stack, some images are looked at, and of large ones their middle.

    Raises:
        ValueError: If it cannot be read.
    """
    height, width = file.shape[-3:-1] if len(file.shape) > 2 else file.shape
    rows, columns = tiling.middle(height, width, tiling.MIDDLE)
    numbers = np.unique(np.linspace(0, len(file) - 1, LOOKED_AT).astype(int))
    pixels = np.concatenate([file.read_window(int(number), rows, columns).ravel() for number in numbers])
    pixels = pixels[np.isfinite(pixels)].astype(np.float64)
    if not pixels.size:
        return Units()
    offset, scale = fit_range(pixels)
    if LEAST <= offset and offset + scale <= GREATEST and (scale >= LEAST_SPAN or not np.ptp(pixels)):
        return Units()
    return Units(offset, scale)
