"""`Denoiser`: a network, its noise model and its likelihood, joined to one Keras model that denoises images.

Here stands what works on tensors, and what makes, changes and saves models; `arrays` has what takes arrays.
"""

import copy
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

# Modules, not names of them: `import keras` in any of these may be what imports this one (see bsdenoise/__init__.py).
# Layers and losses are imported so that they register themselves with Keras.
from bsdenoise import methods, noise, presets
from bsdenoise import network as networks
from bsdenoise.denoiser import arrays
from bsdenoise.images import missing
from bsdenoise.inference import engine, self_ensemble
from bsdenoise.inference.input_checks import Accepted
from bsdenoise.methods import losses  # noqa: F401
from bsdenoise.network import layers  # noqa: F401

# Largest distance of a pixel from `offset`, in units of `scale`. Photographs reach 1, with the strongest noise 6, and
# 255 where somebody forgot to divide; fitted scales leave out the brightest pixels, and a star may be far above them.
MAX_PHOTO_INTENSITY = 16.0
MAX_FITTED_INTENSITY = 1e4
FULL_SCALES = {"uint8": 255.0, "uint16": 65535.0}
_ARRAYS = (np.ndarray, list, tuple)  # what is checked, unlike tensors
_SAVED_AS = "layers/functional"  # where weights are in files: networks of this package once were functional models
PROBE = 256  # side in pixels of the middle of an image that the network sees for an estimate of its noise alone


class Moments(NamedTuple):
    """What is known of the clean pixels, tensors (B, H, W, C) in the units of the model.

    Attributes:
        denoised: MAP estimate and posterior mean.
        mean: Prediction from the surroundings alone; `None` without a posterior.
        std: Posterior standard deviation; `None` without a posterior.
    """

    denoised: Any
    mean: Any = None
    std: Any = None


@keras.saving.register_keras_serializable(package="bsdenoise")
class Denoiser(arrays.OnArrays):
    """Denoises images: prediction from the surroundings, joined with the observed pixel.

    Called on noisy images (B, H, W, C) it gives denoised ones, so `denoiser.predict(batch)` does too. It is saved
    with `denoiser.save("denoiser.keras")` and loaded with `keras.models.load_model` after `import bsdenoise`.

    Args:
        network: Keras model from (B, H, W, C) to (B, H, W, n), for any H and W: a
            `bsdenoise.network.DenoisingNetwork`, or any other, which is measured where that matters.
        noise: The noise model, a `bsdenoise.noise.NoiseModel` such as `GaussianNoise`, with intensities as fractions of
            `scale`.
        method: What the network was trained for, a name of `bsdenoise.methods`: "full", "per_component", "l2", "n2n",
            "n2c" or "n2v". Only the first two have a posterior; the others do not use the noise.
        factor: "prior" or "precision": which triangular factor the network gives, if it gives one.
        clamp: "eigenvalue", "diagonal" or "none", as for `GaussianLikelihood`.
        offset: Intensity that the network sees as 0.
        scale: Difference of intensity that the network sees as 1, > 0.
        fractional: Whether pixels are fractions of full scale, as those of integer images become; `False` for a model
            of float images, whose units are their own.
        provenance: How the model was trained, a dictionary of JSON values for whoever is given it; `None` if nobody
            said. It is kept in files and exports and changes nothing.
        **kwargs: Arguments of `keras.Model`, such as `name`; outside of the network all is float32.

    Raises:
        ValueError: If the network's outputs do not fit the method, it takes more channels than it denoises, there is no
            such method, or `scale` is not positive.

    Example:
        >>> noise = bsdenoise.GaussianNoise(25 / 255, 25 / 255)
        >>> denoiser = bsdenoise.Denoiser(bsdenoise.blind_spot_network(width=8, depth=2), noise)
        >>> denoiser.denoise(np.zeros((9, 7, 3), "uint8")).shape
        (9, 7, 3)
    """

    def __init__(
        self,
        network,
        noise,
        method="full",
        factor="prior",
        clamp="eigenvalue",
        offset=0.0,
        scale=1.0,
        fractional=True,
        provenance=None,
        **kwargs,
    ):
        # Whatever the policy of the network: another one would round the observed pixels on their way in.
        super().__init__(**{**kwargs, "dtype": "float32"})
        shown = networks.described(network)
        self.channels = shown.channels
        if shown.input_channels != shown.channels:
            raise ValueError(
                f"The network takes {shown.input_channels} channels and denoises {shown.channels} of them: a "
                "`Denoiser` has nothing to give it for the others."
            )
        self.method = methods.get(method)
        self.factor = factor
        self.clamp = clamp
        self.estimator = self.method.estimator(self.channels, factor, clamp)
        if network.output_shape[-1] != self.estimator.num_outputs:
            raise ValueError(
                f"The network must have {self.estimator.num_outputs} outputs for {self.channels} channels with method "
                f"{method!r}. Received: a network with {network.output_shape[-1]}."
            )
        if not scale > 0:
            raise ValueError(f"`scale` must be positive. Received: scale={scale!r}.")
        self.network = network
        if isinstance(network, networks.DenoisingNetwork):
            self.__dict__[_SAVED_AS] = network
        self.noise = noise
        self.offset = float(offset)
        self.scale = float(scale)
        self.fractional = bool(fractional)
        self.provenance = provenance
        self._inference = engine.Inference(self, shown)
        self._is_checked = False
        self.built = True

    @classmethod
    def from_preset(cls, name):
        """Make the denoiser of a shipped model; `bsdenoise presets` lists them.

        Args:
            name: Name of the preset, such as "rgb-gaussian5-50".

        Raises:
            ValueError: If there is none of that name, or its file is damaged.

        Example:
            >>> denoiser = bsdenoise.Denoiser.from_preset("grey-gaussian5-50-small")
            >>> denoiser.denoise(np.zeros((9, 7), "uint8"), sigma=25 / 255).shape
            (9, 7)
        """
        preset = presets.get(name)
        body = networks.blind_spot_network(preset.channels, preset.width, preset.depth, dtype="float32")
        weights = preset.read_weights()
        if {weight.path: tuple(weight.shape) for weight in body.weights} != {
            path: values.shape for path, values in weights.items()
        }:
            raise ValueError(f"{preset.path}: holds the weights of another network than its index says; install anew.")
        body.set_weights([weights[weight.path] for weight in body.weights])
        provenance = {"preset": name, **copy.deepcopy(preset.provenance)}
        return cls(body, noise.GaussianNoise(*preset.sigmas), factor=preset.factor, provenance=provenance)

    @property
    def has_posterior(self) -> bool:
        """Whether the noise matters, and `posterior` says how sure the result is."""
        return self.method.has_posterior

    @property
    def grid(self) -> int:
        """Spacing in pixels of the network's pooling grid; 2^depth of a U-Net."""
        return self._inference.network.grid

    @property
    def blind_spot(self) -> tuple[int, int] | None:
        """Height and width of the network's blind spot in pixels; `None` if it has none, or does not say."""
        return self.described_network().blind_spot

    # A method, no property: Keras would save what it gives as if it were another part of the model.
    def described_network(self):
        """Return the network as a `DenoisingNetwork`, which can be asked for its reach and more."""
        return self._inference.network

    def check_blindness(self):
        """Refuse a network that sees the pixel itself where the method needs one that does not.

        Raises:
            ValueError: If it is one.
        """
        if self.method.is_blind and not self._is_checked and not self.described_network().is_blind:
            raise ValueError(
                f"Method {self.method.name!r} needs a network whose output at a pixel does not depend on that pixel, "
                f"such as `bsdenoise.blind_spot_network`. Received: network {self.network.name!r}, which sees it."
            )
        self._is_checked = True

    def __dir__(self):
        """List what Keras saves: it reads every attribute, and names the weights in files by them.

        The grid, which may have to be measured, is left out; so is, in favour of `_SAVED_AS`, the list of the layers,
        whose members Keras names by their classes.
        """
        return [
            name for name in super().__dir__() if name != "grid" and (name != "layers" or _SAVED_AS not in vars(self))
        ]

    @property
    def intensities(self) -> tuple[float, float]:
        """Least and greatest pixel value that is taken for an image in the right units."""
        is_photo = self.fractional and self.scale == 1.0
        reach = self.scale * (MAX_PHOTO_INTENSITY if is_photo else MAX_FITTED_INTENSITY)
        return self.offset - reach, self.offset + reach

    @property
    def units(self) -> str:
        """Say in words what the units of pixels and σ are."""
        if self.fractional:
            return "fractions of full scale (25 grey levels of 8 bits are 0.098)"
        return f"those of the float images it was trained on, which span about {self.scale:g}"

    def __call__(self, image, *args, **kwargs):
        """Denoise a batch, tensor or array; arrays are checked as by `denoise`.

        Raises:
            ValueError: If an array is no batch (B, H, W, C), or one that `denoise` refuses.
        """
        return super().__call__(self._checked_batch(image), *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Denoise a batch with `keras.Model.predict`; arrays are checked as by `denoise`.

        Raises:
            ValueError: If an array is no batch (B, H, W, C), or one that `denoise` refuses.
        """
        plain, gaps = missing.taken(x) if isinstance(x, _ARRAYS) else (x, None)
        checked = self._checked_batch(plain)
        # Noise is estimated without gaps, which Keras knows nothing of.
        return super().predict(checked, *args, **kwargs) if gaps is None else self.denoise(x).astype("float32")

    def call(self, image, sigma=None, noise=None):
        """Denoise (B, H, W, C) as `moments` does, and return the denoised images alone."""
        return self.moments(image, sigma, noise).denoised

    def compute_output_shape(self, input_shape):
        """Return the shape of the image."""
        return input_shape

    def moments(self, image, sigma=None, noise=None):
        """Compute what is known of the clean pixels, `Moments` of tensors in the units of the image.

        Args:
            image: Tensor (B, H, W, C): floats in the units of the model, or uint8 or uint16.
            sigma: A number or (B,), in the same units; `None` for the model's own.
            noise: Noise parameters θ instead, (P,) or (B, P), in the same units; `None` for the model's own.
        """
        noisy = self.normalized(_as_fractions(image))
        if sigma is not None:
            self._check_takes_sigma()
            noise = ops.broadcast_to(ops.convert_to_tensor(sigma, "float32"), (ops.shape(noisy)[0],))[:, None]
        theta = None
        if noise is not None:
            noise = ops.convert_to_tensor(noise, "float32")
            theta = ops.broadcast_to(self._shown(noise, ops), (ops.shape(noisy)[0], self.noise.size))
        return Moments(*self.in_units(self.solved(noisy, theta)[0]))

    def normalized(self, image):
        """Return images (B, H, W, C), arrays or tensors, in the units of the network."""
        return image if self._has_plain_units else (image - self.offset) / self.scale

    def in_units(self, moments):
        """Return denoised, mean and standard deviation in the units of the model, from moments in those of the network.

        Moments hold the variance: only there its square cannot leave float32, whatever the units of the model are.

        Args:
            moments: Arrays or tensors (B, H, W, C): denoised, mean and variance, or the first of them.
        """
        locations, stds = moments[:2], [variance**0.5 for variance in moments[2:]]
        if self._has_plain_units:
            return *locations, *stds
        return *(one * self.scale + self.offset for one in locations), *(std * self.scale for std in stds)

    # --- in the units of the network ---------------------------------------------------------------------------------

    def solved(self, noisy, theta=None):
        """Compute the moments of normalised images, and the noise parameters that they were computed with.

        Estimated parameters are found in the same pass of the network (`NoiseModel.refined`).

        Args:
            noisy: Tensor (B, H, W, C).
            theta: (B, P); `None` for the model's own.

        Returns:
            The moments, and θ (B, P); 0 if it is not used.
        """
        if not self.has_posterior:
            theta = ops.zeros((ops.shape(noisy)[0], self.noise.size), dtype="float32")
            return self.shown_moments(noisy, theta), theta
        first = self.first_theta(noisy) if theta is None else theta
        fit = self.noise.fit(noisy, first)
        shown, shown_theta = (noisy, first) if fit is None else (fit.applied(noisy), self.fitted_theta(first, fit))
        outputs = self.network(shown)
        if theta is None and self.estimates_noise:
            shown_theta = self.refined(outputs, shown, shown_theta)
        moments = self.finished(outputs, shown, shown_theta)
        if fit is None:
            return moments, shown_theta
        return fit.undone(moments), self.unfitted_theta(shown_theta, fit)

    def solved_flat(self, noisy):
        """Return what `solved` gives for the model's own noise parameters as one tuple."""
        moments, theta = self.solved(noisy)
        return *moments, theta

    def shown_moments(self, shown, theta, turns=self_ensemble.UNTURNED):
        """Compute the moments of images that are as the network was trained to see them, with known θ (B, P).

        Args:
            shown: Tensor (B, H, W, C).
            theta: Noise parameters, (B, P).
            turns: Numbers of quarter turns: the moments are the means for images turned so often. Only a network that
                can be cut into levels takes others than 0.
        """
        if turns == self_ensemble.UNTURNED:
            return self.finished(self.network(shown), shown, theta)
        return self.finished_mean(self.described_network().levels().outputs(shown, turns), shown, theta)

    def finished_mean(self, outputs, shown, theta):
        """Compute the means of what `finished` gives for each of several outputs."""
        moments = zip(*(self.finished(one, shown, theta) for one in outputs), strict=True)
        return tuple(sum(parts) / len(parts) for parts in moments)

    def finished(self, outputs, shown, theta):
        """Compute denoised, mean and variance, or denoised alone, a tuple of tensors (B, H, W, C).

        Args:
            outputs: Network outputs (B, H, W, n).
            shown: What the network was shown, (B, H, W, C).
            theta: Noise parameters, (B, P).
        """
        if not self.has_posterior:
            return (self.estimator.moments(outputs).denoised,)
        theta = ops.convert_to_tensor(theta, "float32")
        denoised, mean, variance = self.noise.posterior(self.estimator.prior(outputs), shown, theta)
        return denoised, mean, ops.maximum(variance, 0.0)

    def fitted_theta(self, theta, fit, xp=ops):
        """Return noise parameters (B, P) of images as they are shown with a fit."""
        return fit.shown_theta(theta, xp)

    def unfitted_theta(self, theta, fit, xp=ops):
        """Undo `fitted_theta`."""
        return fit.true_theta(theta, xp)

    def first_theta(self, noisy, counts=None):
        """Return the noise of each image before the network has seen it, (B, P): the known one, or a first estimate."""
        if self.noise.is_known:
            known = ops.convert_to_tensor(self.noise.least, "float32")
            return ops.broadcast_to(known, (ops.shape(noisy)[0], self.noise.size))
        return self.noise.estimate(noisy, counts)

    def refined(self, outputs, shown, theta, counts=None):
        """Improve estimates by what the network predicts; args as for `finished`."""
        return self.noise.refined(self.estimator.prior(outputs), shown, theta, counts)

    def solved_theta(self, noisy, counts=None, network=None, first=None):
        """Return the model's own noise parameters of normalised images, (B, P).

        The network sees the middle of an image, 256 pixels square.

        Args:
            noisy: Tensor (B, H, W, C).
            counts: Which pixels hold measurements, bool (B, H, W, C); `None` for all.
            network: What computes the network's outputs; `None` for the network itself.
            first: What `first_theta` gives, if it is known already.
        """
        first = self.first_theta(noisy, counts) if first is None else first
        if not self.estimates_noise:
            return first
        fit = self.noise.fit(noisy, first)
        rows, columns = (_middle(ops.shape(noisy)[axis]) for axis in (1, 2))
        shown = noisy[:, rows, columns]
        counts = None if counts is None else counts[:, rows, columns]
        if fit is None:
            return self.refined((network or self.network)(shown), shown, first, counts)
        shown = fit.applied(shown)
        refined = self.refined((network or self.network)(shown), shown, self.fitted_theta(first, fit), counts)
        return self.unfitted_theta(refined, fit)

    # --- the noise of images -----------------------------------------------------------------------------------------

    @property
    def estimates_noise(self) -> bool:
        """Whether the noise of each image is estimated where none is told."""
        return self.has_posterior and not self.noise.is_known

    def own_noise(self, image):
        """Return the model's own noise parameters of each image, (B, P): the known ones, or an estimate.

        An estimate may lie outside of the range that was trained: such images are denoised with it as it is.

        Args:
            image: Noisy images (B, H, W, C), float, in the units of the model.
        """
        theta = self.solved_theta(self.normalized(ops.cast(image, "float32")))
        return self.noise.restored(theta, self.offset, self.scale, ops)

    def own_sigma(self, image):
        """Return the model's own σ of each image, (B,), as `own_noise` does.

        Args:
            image: Noisy images (B, H, W, C), float, in the units of the model.

        Raises:
            ValueError: If its noise model has other parameters.
        """
        self._check_takes_sigma()
        return self.own_noise(image)[:, 0]

    def _checked_batch(self, image):
        """Check an array (B, H, W, C) and return it as floats in the units of the model; tensors stay as they are."""
        if not isinstance(image, _ARRAYS):
            return image
        if np.ma.isMaskedArray(image):
            raise ValueError("A call takes no masked array; `denoise` and `predict` do.")
        if np.ndim(image) != 4:
            raise ValueError(
                "A call and `predict` take a batch (B, H, W, C); `denoise` takes single images too. "
                f"Received: shape={np.shape(image)}."
            )
        return self._accepted.float32(self._accepted.pixels(self._accepted.batch(image)))

    def in_precision(self, precision):
        """Return the same denoiser with the network's body in another precision; all else stays float32.

        Args:
            precision: "float32" or "bfloat16".

        Raises:
            ValueError: If it is neither, or the network has no other precisions.
        """
        if precision not in networks.POLICIES:
            raise ValueError(f"`precision` must be one of {[*networks.POLICIES]}. Received: precision={precision!r}.")
        body = self.described_network().with_dtype(networks.POLICIES[precision])
        return self._with(body, self.noise)

    def with_blind_spot(self, size):
        """Return the same denoiser with another blind spot of its network, and the same weights.

        A network that was trained with a large blind spot, for noise that neighbouring pixels share, may denoise
        better with a smaller one: it sees more then, though some of it through the noise.

        Args:
            size: Height and width in pixels, both odd and at most 31: a pair, an integer, or text such as "3x3".

        Raises:
            ValueError: If `size` is none of these, or the network has no other blind spots.

        Example:
            >>> bsdenoise.load("grey-gaussian5-50-small").with_blind_spot(3).blind_spot
            (3, 3)
        """
        return self._with(self.described_network().with_blind_spot(size), self.noise)

    def with_network(self, network):
        """Return the same denoiser around another network of as many outputs."""
        return self._with(network, self.noise)

    def _with(self, body, its_noise):
        """Return a denoiser with another network and noise model."""
        kept = ("factor", "clamp", "offset", "scale", "fractional", "provenance")
        return Denoiser(body, its_noise, method=self.method.name, **{name: getattr(self, name) for name in kept})

    @property
    def can_be_stabilized(self) -> bool:
        """Whether `stabilized` makes a denoiser of it: it was trained for white noise of a range of strengths."""
        return self.noise.kind == noise.GaussianNoise.kind and self.estimates_noise

    def stabilized(self):
        """Return the same denoiser for noise that grows with the signal, by the generalised Anscombe transform.

        Its noise parameters are gain, σ and pedestal (`bsdenoise.noise.StabilizedNoise`), which are told as `noise=` or
        estimated. It shares the network with this one.

        Raises:
            ValueError: If the network was not trained for white noise of a range of strengths.

        Example:
            >>> denoiser = bsdenoise.load("grey-gaussian5-50-small").stabilized()
            >>> denoiser.denoise(np.zeros((9, 7), "uint8"), noise=[3.5 / 255, 0.0, 3.0 / 255]).shape
            (9, 7)
        """
        if not self.can_be_stabilized:
            raise ValueError(
                "Only a model that was trained for white noise of a range, such as gaussian:5-50, takes noise that "
                f"grows with the signal. Received: method {self.method.name}, {self.noise}."
            )
        return self._with(self.network, noise.StabilizedNoise(self.noise.low, self.noise.high))

    @property
    def _has_plain_units(self) -> bool:
        """Whether the units of the model are those of the network."""
        return self.offset == 0.0 and self.scale == 1.0

    @property
    def _accepted(self):
        return Accepted(self.channels, self.fractional, self.units, *self.intensities, self.scale, self.offset)

    def get_config(self):
        """Return the arguments from which the model can be made again."""
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "noise": noise.serialize(self.noise),
            "method": self.method.name,
            "factor": self.factor,
            "clamp": self.clamp,
            "offset": self.offset,
            "scale": self.scale,
            "fractional": self.fractional,
            "provenance": self.provenance,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the model again."""
        config = dict(config)
        if "diagonal" in config:  # models saved before there were other methods
            config["method"] = "per_component" if config.pop("diagonal") else "full"
        config["noise"] = noise.deserialize(config["noise"])
        config["network"] = keras.saving.deserialize_keras_object(
            networks.upgraded(config["network"]), custom_objects=custom_objects
        )
        return cls(**config)


def _as_fractions(image):
    """Return a tensor as floats; unsigned integers of 8 and 16 bits are scaled by their type's maximum."""
    dtype = keras.backend.standardize_dtype(image.dtype)
    if "float" in dtype:
        return ops.cast(image, "float32")
    if dtype not in FULL_SCALES:
        raise ValueError(f"Images must be floats, uint8 or uint16. Received: dtype={dtype}.")
    return ops.cast(image, "float32") / FULL_SCALES[dtype]


def _middle(size):
    """Return the middle of a side, a slice; `size` is a number or, in a graph, a tensor."""
    if isinstance(size, int):
        start = max(size - PROBE, 0) // 2
    else:
        start = ops.maximum(size - PROBE, 0) // 2
    return slice(start, start + PROBE)
