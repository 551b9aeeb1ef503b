"""How many multiplications a network takes, and which convolutions they are."""

from typing import NamedTuple

NUM_BRANCHES = 4


class Convolution(NamedTuple):
    """One convolution of a branch, or of the head.

    Attributes:
        name: Of its layer.
        level: How often the resolution is halved where it stands.
        kernel: Shape of its kernel, (h, w, in, out).
        num_coarse: How many of its input maps are upsampled.
        times: How often it is applied: once for each direction.
    """

    name: str
    level: int
    kernel: tuple[int, int, int, int]
    num_coarse: int
    times: int

    @property
    def is_in_branch(self) -> bool:
        """Whether it is in the branches, not in the head."""
        return self.times == NUM_BRANCHES

    def nominal(self) -> float:
        """Counts the multiplications per pixel of the image, those for upsampled maps with nine taps."""
        height, width, inputs, outputs = self.kernel
        return self.times * height * width * inputs * outputs / 4**self.level

    def squared(self, height: int, width: int, multiple: int) -> float:
        """Counts those for an image whose branches compute a square, the longer side filled up to a multiple."""
        side = -(-max(height, width) // multiple) * multiple
        return self.nominal() * (side**2 / (height * width) if self.is_in_branch else 1.0)

    def done(self) -> float:
        """Counts the multiplications per pixel that are really done: four taps instead of nine for upsampled maps."""
        height, width, inputs, outputs = self.kernel
        saved = height * width - (height + 1) * (width + 1) / 4
        return self.times * (height * width * inputs - saved * self.num_coarse) * outputs / 4**self.level


def convolutions(network) -> list[Convolution]:
    """Lists the convolutions of a network of `bsdenoise.blind_spot_network`, from its weights."""
    halvings = network.levels().branch.halvings
    found = []
    for layer in network.layers:
        if layer.weights:
            level, times = halvings.get(layer.name, 0), NUM_BRANCHES if layer.name in halvings else 1
            kernel = tuple(layer.kernel.shape)
            found.append(Convolution(layer.name, level, kernel, getattr(layer, "num_coarse", 0), times))
    return found
