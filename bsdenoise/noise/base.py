"""What a noise model is: everything that depends on how a noisy pixel comes about from a clean one.

All else carries θ, the parameters of an image's noise, as numbers (B, P), and asks the model. A model of one's own is a
subclass of `NoiseModel`, or of `GaussianObservation` if the noise is Gaussian given the clean pixel, made known by
`bsdenoise.noise.register`.

Noise models are plain records that need no neural network library. Where they compute, they use the operators of the
arrays that they are given, or `xp`, which is `numpy` or `keras.ops`.
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

# What a parameter is a number of, which says how it changes with the units of images.
INTENSITY = "intensity"  # a difference of pixel values, such as a standard deviation, or the gain of a photo-electron
LEVEL = "level"  # a pixel value
FRACTION = "fraction"  # the same in all units
SIGMA, GAIN = "sigma", "gain"  # parameters that have a meaning for others than their own model


@dataclass(frozen=True)
class Parameter:
    """One of the numbers that describe an image's noise.

    Attributes:
        name: Its name in words and files.
        unit: `INTENSITY`, `LEVEL` or `FRACTION`.
        low: Least value that makes sense; fractions of full scale unless `unit` is `FRACTION`.
        high: Greatest value.
    """

    name: str
    unit: str = INTENSITY
    low: float = 0.0
    high: float = 1.0

    def ends(self, offset: float, scale: float) -> tuple[float, float]:
        """Return least and greatest value for images x of which a network sees (x − offset) / scale."""
        return self.restored(self.low, offset, scale), self.restored(self.high, offset, scale)

    def rescaled(self, value: Any, offset: Any, scale: Any) -> Any:
        """Return a value for images x as that for (x − offset) / scale."""
        if self.unit == FRACTION:
            return value
        return (value - offset) / scale if self.unit == LEVEL else value / scale

    def restored(self, value: Any, offset: Any, scale: Any) -> Any:
        """Undo `rescaled`."""
        if self.unit == FRACTION:
            return value
        return value * scale + offset if self.unit == LEVEL else value * scale


def is_sigma(parameters: Sequence[Parameter]) -> bool:
    """Tell whether a standard deviation is all there is to tell, so that `sigma=` is a short form of θ."""
    return [parameter.name for parameter in parameters] == [SIGMA]


def check_is_sigma(kind: str, parameters: Sequence[Parameter]) -> None:
    """Refuse a σ where noise has other parameters.

    Args:
        kind: The kind of noise.
        parameters: Its parameters.

    Raises:
        ValueError: If they are not a σ.
    """
    if not is_sigma(parameters):
        names = ", ".join(parameter.name for parameter in parameters)
        raise ValueError(
            f"This model knows {kind} noise, which has no `sigma`: tell its parameters, {names}, as `noise`."
        )


class NoiseModel(abc.ABC):
    """A kind of noise, with parameters that are known or lie in a range.

    Attributes:
        kind: What a SPEC begins with, such as "gaussian".
        parameters: The parameters θ, P of them.
        least: Least parameters of the training, P numbers, with intensities as fractions of full scale.
        greatest: Greatest parameters; equal to `least` where they are known.
        is_declared: Whether it is noise that images may be said to have, in a SPEC.
        has_risk_estimate: Whether Stein's estimate of the error holds, as for Gaussian noise.
    """

    kind: ClassVar[str]
    is_declared: ClassVar[bool] = True
    has_risk_estimate: ClassVar[bool] = True
    # Fields or properties of a subclass.
    parameters: Any
    least: Any
    greatest: Any

    # --- what it is --------------------------------------------------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def read(cls, text: str, full_scale: float) -> "Declared":
        """Read what follows the kind in a SPEC.

        Args:
            text: Such as "25", "25/255", "5-50".
            full_scale: Greatest value of the files' pixel type; numbers are in the units of the files.

        Raises:
            ValueError: If it cannot be read.
        """

    @classmethod
    @abc.abstractmethod
    def from_range(cls, least: tuple[float, ...], greatest: tuple[float, ...]) -> "NoiseModel":
        """Make the model of a range of parameters, fractions of full scale.

        Raises:
            ValueError: If they make no sense.
        """

    @property
    def size(self) -> int:
        """Number P of parameters."""
        return len(self.parameters)

    @property
    def shown_size(self) -> int:
        """Number of parameters of images as they are shown to the network (`fit`)."""
        return self.size

    @property
    def is_known(self) -> bool:
        """Whether all images have the same parameters."""
        return self.least == self.greatest

    @property
    def takes_sigma(self) -> bool:
        """Whether θ is a standard deviation, of which `sigma=` is the short form."""
        return is_sigma(self.parameters)

    def in_words(self, offset: float, scale: float) -> str:
        """Say the parameters or their range, such as "sigma 5 to 50", of images whose full scale is `scale`."""
        ends = (self.restored(np.array(end), offset, scale) for end in (self.least, self.greatest))
        return ", ".join(
            f"{parameter.name} {low:.4g}" if low == high else f"{parameter.name} {low:.4g} to {high:.4g}"
            for parameter, low, high in zip(self.parameters, *ends, strict=True)
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which the model can be made again."""
        return asdict(self)  # type: ignore[call-overload]

    # --- images and their parameters ---------------------------------------------------------------------------------

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the parameters of one image, uniformly from their ranges, float32 (P,)."""
        ends = zip(self.least, self.greatest, strict=True)
        return np.array([low if low == high else rng.uniform(low, high) for low, high in ends], np.float32)

    @abc.abstractmethod
    def corrupt(self, clean: np.ndarray, theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add noise to an image, neither clipped nor rounded.

        Args:
            clean: Float image (H, W, C), full scale 1.
            theta: Parameters, (P,).
            rng: Source of what is random.
        """

    @abc.abstractmethod
    def estimate(self, image: Any, counts: Any = None) -> Any:
        """Estimate the parameters of each image from noisy pixels alone, tensor (B, P).

        Args:
            image: Tensor (B, H, W, C), full scale 1.
            counts: Which pixels hold measurements, bool (B, H, W, C); `None` for all.
        """

    def refined(self, prior: Any, noisy: Any, theta: Any, counts: Any = None) -> Any:
        """Improve estimates by what a blind-spot network predicts; by default they stay as they are.

        Args:
            prior: A `bsdenoise.likelihood.GaussianPrior`.
            noisy: What the network was shown, (B, H, W, C).
            theta: The estimates, (B, P).
            counts: As for `estimate`.
        """
        return theta

    def fit(self, noisy: Any, theta: Any) -> Any:
        """Fit intensities to the noise of the training, as a `bsdenoise.noise.intensity_fit.Fit`.

        By default images are shown to the network as they are: `None`.
        """
        return None

    def is_trained(self, theta: np.ndarray) -> bool:
        """Tell whether parameters (B, P) all lie in the range of the training."""
        return bool(
            (theta >= np.array(self.least, np.float32)).all() and (theta <= np.array(self.greatest, np.float32)).all()
        )

    def found(self, theta: np.ndarray) -> np.ndarray:
        """Return parameters (B, P) as users are told them, with 0 where no noise was found."""
        return theta

    def rescaled(self, theta: Any, offset: Any, scale: Any, xp: Any = np) -> Any:
        """Return parameters (…, P) of images x as those of (x − offset) / scale.

        Args:
            theta: (…, P), an array or a tensor.
            offset: A number, or (…).
            scale: Likewise.
            xp: `numpy` or `keras.ops`, whichever `theta` is of.
        """
        columns = (parameter.rescaled(theta[..., i], offset, scale) for i, parameter in enumerate(self.parameters))
        return xp.stack([*columns], axis=-1)

    def restored(self, theta: Any, offset: Any, scale: Any, xp: Any = np) -> Any:
        """Return parameters (…, P) of images (x − offset) / scale as those of x; args as for `rescaled`."""
        columns = (parameter.restored(theta[..., i], offset, scale) for i, parameter in enumerate(self.parameters))
        return xp.stack([*columns], axis=-1)

    # --- likelihood --------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def nll(self, prior: Any, noisy: Any, theta: Any) -> Any:
        """Compute the negative log-likelihood of each observed pixel, (B, H, W), up to a constant.

        Args:
            prior: What the network predicts, a `bsdenoise.likelihood.GaussianPrior`.
            noisy: Observed image (B, H, W, C).
            theta: Parameters, (B, P), or a map (B, H, W, P).
        """

    @abc.abstractmethod
    def posterior(self, prior: Any, noisy: Any, theta: Any) -> Any:
        """Join the prediction with the observed pixel, as `bsdenoise.likelihood.Moments`; args as for `nll`."""

    @abc.abstractmethod
    def variance(self, mean: Any, theta: Any, xp: Any = np) -> Any:
        """Compute the variance of the noise, broadcastable to (B, H, W, C).

        Args:
            mean: Clean pixels or their prediction, (B, H, W, C).
            theta: Parameters, (B, P), or a map (B, H, W, P).
            xp: `numpy` or `keras.ops`, whichever they are of.
        """

    def shown_variance(self, mean: Any, theta: Any, xp: Any = np) -> Any:
        """Compute the variance of the noise of images as they are shown (`fit`); args as for `variance`."""
        return self.variance(mean, theta, xp)

    def squared_error_of_mean(self, mean: Any, noisy: Any, theta: Any, xp: Any = np) -> Any:
        """Estimate the squared error of the prediction from the surroundings without a clean image, (B, H, W, C).

        It knows nothing of the pixel's own noise, so it misses the noisy pixel by its error plus that.

        Args:
            mean: The prediction, (B, H, W, C).
            noisy: The observed pixels.
            theta: As for `variance`.
            xp: Likewise.
        """
        return (mean - noisy) ** 2 - self.variance(mean, theta, xp)

    def squared_errors(
        self, denoised: np.ndarray, noisy: np.ndarray, mean: np.ndarray, variance: np.ndarray, theta: np.ndarray
    ) -> np.ndarray | None:
        """Estimate the squared error of each denoised pixel without a clean image, (B, H, W, C).

        By default `None`: Stein's estimate holds (`bsdenoise.likelihood.sure`).

        Args:
            denoised: Posterior mean, (B, H, W, C).
            noisy: The observed pixels.
            mean: The prediction from the surroundings.
            variance: Posterior variance.
            theta: Parameters, (B, P).
        """
        return None

    def usual_sigma(self, theta: Any) -> float:
        """Compute the standard deviation at half of full scale, over all channels, of parameters (P,)."""
        theta = np.asarray(theta, np.float64)[np.newaxis]
        return float(np.sqrt(np.mean(self.variance(np.full((1, 1, 1, 1), 0.5), theta))))


@dataclass(frozen=True)
class Declared:
    """The parameters of noise as a SPEC tells them, before anybody asks whether they make sense.

    Attributes:
        kind: The kind of noise.
        parameters: What its parameters are.
        least: Least parameters, fractions of full scale.
        greatest: Greatest ones.
    """

    kind: type[NoiseModel]
    parameters: tuple[Parameter, ...]
    least: tuple[float, ...]
    greatest: tuple[float, ...]

    def rescaled(self, offset: float, scale: float) -> "Declared":
        """Return the parameters for images x as those for (x − offset) / scale."""
        least, greatest = (
            tuple(one.rescaled(value, offset, scale) for one, value in zip(self.parameters, values, strict=True))
            for values in (self.least, self.greatest)
        )
        return replace(self, least=least, greatest=greatest)

    @property
    def reach(self) -> float:
        """A scale, at least 1, that no parameter exceeds; by a power of two nothing is rounded."""
        return 2.0 ** math.ceil(math.log2(max(*map(abs, self.greatest), 1.0)))

    def made(self) -> NoiseModel:
        """Make the noise model.

        Raises:
            ValueError: If its parameters make no sense, such as a σ outside of (0, full scale].
        """
        return self.kind.from_range(self.least, self.greatest)


class GaussianObservation(NoiseModel):
    """Noise that is Gaussian and independent given the clean pixel: only `variance` differs from kind to kind."""

    def corrupt(self, clean: np.ndarray, theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add Gaussian noise of the variance that clean pixels have."""
        sigma = np.sqrt(self.variance(clean[np.newaxis], theta[np.newaxis])[0]).astype(clean.dtype)
        return clean + sigma * rng.standard_normal(clean.shape, clean.dtype)

    def nll(self, prior: Any, noisy: Any, theta: Any) -> Any:
        """Compute the likelihood with the variance at the predicted mean (Laine et al. 2019b, for Poisson noise)."""
        return prior.nll(noisy, self.variance(prior.mean, theta, prior.xp))

    def posterior(self, prior: Any, noisy: Any, theta: Any) -> Any:
        """Compute the posterior with the variance at the predicted mean."""
        return prior.posterior(noisy, self.variance(prior.mean, theta, prior.xp))


def per_pixel(values: Any) -> Any:
    """Return parameters (B, n) or maps (B, H, W, n) as what broadcasts to images, (B, 1, 1, n) or (B, H, W, n)."""
    return values[:, None, None, :] if len(values.shape) == 2 else values
