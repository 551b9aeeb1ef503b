"""The methods of the paper's Table 1: which network is trained, on what, and what its outputs mean.

| name | network | is shown | is compared with | by |
| --- | --- | --- | --- | --- |
| `full` | blind spot | noisy | the same | Gaussian likelihood, full covariance |
| `per_component` | blind spot | noisy | the same | Gaussian likelihood, diagonal covariance |
| `l2` | blind spot | noisy | the same | squared error |
| `n2n` | plain U-Net | noisy | another noisy copy | squared error |
| `n2c` | plain U-Net | noisy | clean | squared error |
| `n2v` | plain U-Net | noisy, some pixels masked | noisy | squared error at the masked pixels |

A method is a small class; everything else asks it and never looks at its name. One's own is a subclass of `Method`,
made known by `register`, or by an entry point of the group `bsdenoise.methods`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import ClassVar

import numpy as np

from bsdenoise import likelihood, network
from bsdenoise.methods import losses
from bsdenoise.methods.masking import Masking

ENTRY_POINTS = "bsdenoise.methods"  # group of entry points that name methods of other packages


@dataclass(frozen=True)
class Crop:
    """What can be had of one crop of an image, all of it (H, W, C) and in the units of the network.

    Attributes:
        noisy: Function that gives noisy copy 0 or 1. Of images that were noisy already, number 1 is their partner's.
        clean: The clean crop; `None` where it is not known.
        theta: Noise parameters, (P,).
        rng: For whatever else is random.
    """

    noisy: Callable[[int], np.ndarray]
    clean: np.ndarray | None
    theta: np.ndarray
    rng: np.random.Generator


class Method:
    """What one column of the table does. Subclasses say it by overriding.

    Weights are chosen by an error that is estimated on held-out images: by SURE if the network is blind; else from the
    loss, which then has to be a mean squared error.

    Attributes:
        name: What `--method` takes.
        is_blind: Whether the output at a pixel never depends on that pixel, so that its error can be estimated
            without a clean image (SURE).
        has_posterior: Whether the outputs are a distribution: the noise then matters, and there is an uncertainty.
        needs: What training needs beside noisy images, in words; empty for self-supervised methods.
        num_copies: Noisy copies of an image that training looks at.
        has_noisy_target: Whether outputs are compared with noisy pixels.
    """

    name: ClassVar[str]
    is_blind: ClassVar[bool] = False
    has_posterior: ClassVar[bool] = False
    needs: ClassVar[str] = ""
    num_copies: ClassVar[int] = 1
    has_noisy_target: ClassVar[bool] = True

    def network(self, channels, width, depth, dtype=None):
        """Build the network; arguments as for `blind_spot_network`."""
        build = network.blind_spot_network if self.is_blind else network.unet
        return build(channels, width, depth, self.estimator(channels).num_outputs, dtype=dtype)

    def estimator(self, channels, factor="prior", clamp="eigenvalue"):
        """Return what reads network outputs; arguments as for `GaussianLikelihood`, unused by point estimates."""
        return likelihood.PointEstimate(channels)

    def loss(self, channels, factor, noise):
        """Return the Keras loss of targets and network outputs.

        Args:
            channels: Number of channels of the images.
            factor: As for `GaussianLikelihood`.
            noise: The noise model.
        """
        return losses.SquaredError()

    def num_extra(self, noise):
        """Count the channels that targets have behind those of the image, as the loss expects them."""
        return 0

    def example(self, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
        """Make what the network is shown, (H, W, C), and its target, (H, W, C) or (H, W, C + 1)."""
        noisy = crop.noisy(0)
        return noisy, noisy


class Full(Method):
    """A Gaussian of full covariance per pixel, joined with the observed pixel (Laine et al. 2019, Eqs. 1-3)."""

    name = "full"
    is_blind = True
    has_posterior = True
    diagonal: ClassVar[bool] = False

    def estimator(self, channels, factor="prior", clamp="eigenvalue"):
        """Return the likelihood."""
        return likelihood.GaussianLikelihood(channels, factor, self.diagonal, clamp)

    def loss(self, channels, factor, noise):
        """Return the negative log-likelihood; noise parameters travel behind the channels of the target."""
        return losses.NoiseNLL(channels, noise, factor, self.diagonal)

    def num_extra(self, noise):
        """Count the noise parameters."""
        return noise.size

    def example(self, crop):
        """Show the noisy image, and compare with the same and its noise parameters."""
        noisy = crop.noisy(0)
        theta = np.broadcast_to(crop.theta.astype(noisy.dtype), (*noisy.shape[:2], len(crop.theta)))
        return noisy, np.concatenate([noisy, theta], axis=-1)


class PerComponent(Full):
    """The same with independent channels; on one channel it is the same."""

    name = "per_component"
    diagonal = True


class L2(Method):
    """The blind-spot network's mean alone: the observed pixel is ignored."""

    name = "l2"
    is_blind = True


class NoiseToNoise(Method):
    """Noise2Noise (Lehtinen et al. 2018): one noisy copy is predicted from another."""

    name = "n2n"
    needs = "two noisy copies of each image"
    num_copies = 2

    def example(self, crop):
        """Show one copy and compare with the other; which is which is left to chance."""
        first = int(crop.rng.integers(2))
        return crop.noisy(first), crop.noisy(1 - first)


class NoiseToClean(Method):
    """Supervised training on clean targets: the upper end of the table."""

    name = "n2c"
    needs = "a clean copy of each image"
    has_noisy_target = False

    def example(self, crop):
        """Show the noisy image and compare with the clean one."""
        return crop.noisy(0), crop.clean


@dataclass(frozen=True)
class NoiseToVoid(Method):
    """Noise2Void (Krull, Buchholz, Jug 2019): a plain network trained with masked pixels.

    Args:
        masking: Which pixels are masked, and how.
    """

    name = "n2v"
    masking: Masking = field(default_factory=Masking)

    def loss(self, channels, factor, noise):
        """Return the squared error at the masked pixels; the mask travels behind the channels of the target."""
        return losses.MaskedSquaredError()

    def num_extra(self, noise):
        """Count the mask."""
        return 1

    def example(self, crop):
        """Show the image with masked pixels and compare with the unmasked one."""
        noisy = crop.noisy(0)
        masked, mask = self.masking.mask(noisy, crop.rng)
        return masked, np.concatenate([noisy, mask], axis=-1)


_METHODS: dict[str, Method] = {}


def register(method: Method) -> None:
    """Make a method known under its name, to `TrainConfig(method=…)` and `Denoiser(method=…)`.

    Raises:
        ValueError: If another one has that name.

    Example:
        >>> class Darker(L2):
        ...     name = "darker"
        >>> register(Darker())
    """
    if method.name in _METHODS:
        raise ValueError(f"There is a method of that name already. Received: name={method.name!r}.")
    _METHODS[method.name] = method


for _method in (Full(), PerComponent(), L2(), NoiseToNoise(), NoiseToClean(), NoiseToVoid()):
    register(_method)


def _load(point: metadata.EntryPoint) -> None:
    """Register the method of an entry point, a `Method` or a class of such, unless its module has done so itself."""
    where = f"The entry point {point.name} = {point.value} of the group {ENTRY_POINTS}"
    try:
        found = point.load()
        method = found() if isinstance(found, type) else found
    except Exception as error:  # whatever another package does wrong
        raise ValueError(f"{where} cannot be loaded: {error}") from error
    if not isinstance(method, Method) or method.name != point.name:
        received = f"the method {method.name!r}" if isinstance(method, Method) else type(method).__name__
        raise ValueError(f"{where} must give a Method of that name. Received: {received}.")
    if point.name not in _METHODS:
        register(method)


def names() -> tuple[str, ...]:
    """Name all methods: those of this module's table, those that were registered, those of entry points."""
    return tuple(dict.fromkeys([*_METHODS, *sorted(metadata.entry_points(group=ENTRY_POINTS).names)]))


def get(name: str) -> Method:
    """Return a method by its name; one that is not known here is looked for among the entry points.

    Raises:
        ValueError: If there is none, or its entry point does not give it.
    """
    if name not in _METHODS:
        for point in metadata.entry_points(group=ENTRY_POINTS, name=name):
            _load(point)
    if name not in _METHODS:
        raise ValueError(
            f"`method` must be one of {names()}. Received: method={name!r}. Another one is registered before, or by an "
            f"entry point of the group {ENTRY_POINTS} (docs/methods.md)."
        )
    return _METHODS[name]
