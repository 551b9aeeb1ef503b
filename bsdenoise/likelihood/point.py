"""A likelihood that is none: the network's outputs are the denoised pixels."""

from dataclasses import dataclass

from keras import ops

from bsdenoise.likelihood.gaussian import MAX_MEAN
from bsdenoise.likelihood.prior import Moments


@dataclass(frozen=True)
class PointEstimate:
    """Reads network outputs as denoised pixels and nothing else.

    Args:
        channels: Number C of image channels, ≥ 1.
    """

    channels: int

    @property
    def num_outputs(self) -> int:
        """Number of network outputs per pixel, C."""
        return self.channels

    def moments(self, outputs):
        """Return the denoised image alone, as `Moments` without mean and variance."""
        return Moments(ops.clip(ops.cast(outputs, "float32"), -MAX_MEAN, MAX_MEAN))
