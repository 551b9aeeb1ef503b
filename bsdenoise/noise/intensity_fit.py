"""Intensities as a network was trained to see them: images with other noise are stretched or compressed.

A network that was trained for σ from 5 to 50 grey levels has never seen an image with less noise, such as 12-bit counts
in a 16-bit file. Stretched, σ and contrast grow alike: the image looks like one of those that it knows, as far as the
range of its intensities allows. What noise is left below is honoured by the likelihood: MAP takes σ as it is.
"""

import math
from typing import Any, NamedTuple

from keras import ops

MAX_SAMPLES = 2**16  # pixels of an image from which its range is found
TAIL = 1e-3  # share of the samples that may lie outside of the range, at either end: hot pixels, stars
# Brightest pixel after stretching, as full scale is 1. Beyond the tail there may be stars, of any brightness.
MAX_STRETCHED = 16.0
MIN_SIGMA = 1e-12


class Fit(NamedTuple):
    """How images are shown to a network: (image − offset) · gain.

    Attributes:
        offset: Intensity that is shown as 0, float32 (B,); an array or a tensor, as the images are.
        gain: Factor, float32 (B,).
    """

    offset: Any
    gain: Any

    def applied(self, image):
        """Return images (B, H, W, C) as they are shown."""
        return (image - _per_image(self.offset)) * _per_image(self.gain)

    def undone(self, moments):
        """Return moments (B, H, W, C) of images as shown, denoised, mean and variance, in the units of the images."""
        locations, variances = moments[:2], moments[2:]
        offset, gain = _per_image(self.offset), _per_image(self.gain)
        return *(one / gain + offset for one in locations), *(variance / gain**2 for variance in variances)

    def shown_theta(self, theta, xp):
        """Return σ, (B, 1), of images as they are shown."""
        return theta * self.gain[:, None]

    def true_theta(self, shown_theta, xp):
        """Undo `shown_theta`."""
        return shown_theta / self.gain[:, None]


def fit(image, sigma, low, high):
    """Fit the intensities of images to a network that was trained for σ from `low` to `high`.

    Images with σ in that range are shown as they are. Less noise is stretched up to `low`, as far as the image then
    still fits between 0 and 1; more noise is compressed down to `high`.

    Args:
        image: (B, H, W, C), as full scale is 1.
        sigma: Noise standard deviation, (B,).
        low: Least σ of the training.
        high: Greatest σ of the training.

    Returns:
        A `Fit`.
    """
    least, greatest, brightest = extent(image)
    sigma = ops.maximum(sigma, MIN_SIGMA)
    room = 1.0 / ops.maximum(greatest - least, 1e-6)
    room = ops.minimum(room, MAX_STRETCHED / ops.maximum(brightest - least, 1e-6))
    stretched = ops.maximum(ops.minimum(low / sigma, room), 1.0)
    gain = ops.where(sigma < low, stretched, ops.minimum(high / sigma, 1.0))
    # As little as possible: zero stays zero unless the image would leave the range then.
    offset = ops.minimum(ops.maximum(greatest - 1.0 / gain, 0.0), least)
    return Fit(ops.where(gain > 1.0, offset, 0.0), gain)


def extent(image):
    """Find the range of each image without its tails, and its brightest pixel, (B,) each."""
    shape = ops.shape(image)
    if isinstance(shape[1], int) and isinstance(shape[2], int):
        stride = max(1, math.ceil((shape[1] * shape[2] / MAX_SAMPLES) ** 0.5))
    else:
        pixels = ops.cast(shape[1] * shape[2], "float32")
        stride = ops.maximum(ops.cast(ops.ceil(ops.sqrt(pixels / MAX_SAMPLES)), "int32"), 1)
    samples = image
    for axis in (1, 2):  # not by slices: a step that is a tensor leaves no rank behind
        samples = ops.take(samples, ops.arange(0, shape[axis], stride, dtype="int32"), axis=axis)
    shape = ops.shape(samples)
    count = shape[1] * shape[2] * shape[3]
    ordered = ops.sort(ops.reshape(samples, (shape[0], count)), axis=-1)
    if isinstance(count, int):
        tail = int(count * TAIL)
    else:
        tail = ops.cast(ops.cast(count, "float32") * TAIL, "int32")
    return ordered[:, tail], ordered[:, count - 1 - tail], ops.max(image, axis=(1, 2, 3))


def _per_image(values):
    return values[:, None, None, None]
