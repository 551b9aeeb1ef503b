"""`Denoiser`: a network, its noise model and its likelihood, joined to one Keras model that denoises images."""

import copy

import keras
import numpy as np
from keras import ops

# Modules, not names of them: `import keras` in any of these may be what imports this one (see bsdenoise/__init__.py).
# Layers and losses are imported so that they register themselves with Keras.
from bsdenoise import (  # noqa: F401
    ensemble,
    inference,
    layers,
    likelihood,
    losses,
    methods,
    network,
    noise,
    presets,
    tiling,
)
from bsdenoise.accepted import Accepted

# Largest distance of a pixel from `offset`, in units of `scale`. Photographs reach 1, with the strongest noise 6, and
# 255 where somebody forgot to divide; fitted scales leave out the brightest pixels, and a star may be far above them.
MAX_PHOTO_INTENSITY = 16.0
MAX_FITTED_INTENSITY = 1e4


@keras.saving.register_keras_serializable(package="bsdenoise")
class Denoiser(keras.Model):
    """Denoises images: prediction from the surroundings, joined with the observed pixel.

    Called on noisy images (B, H, W, C) it gives denoised ones, so `denoiser.predict(batch)` does too. It is saved
    with `denoiser.save("denoiser.keras")` and loaded with `keras.models.load_model` after `import bsdenoise`.

    Args:
        network: Keras model from (B, H, W, C) to (B, H, W, n), for any H and W.
        noise: The noise model, with standard deviations as fractions of `scale`.
        method: What the network was trained for, a name of `bsdenoise.methods`: "full", "per_component", "l2", "n2n",
            "n2c" or "n2v". Only the first two have a posterior; the others do not use σ.
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
        ValueError: If the network's outputs do not fit the method, there is no such method, or `scale` is not positive.

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
        self.channels = int(network.input_shape[-1])
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
        self.noise = noise
        self.offset = float(offset)
        self.scale = float(scale)
        self.fractional = bool(fractional)
        self.provenance = provenance
        self._inference = inference.Inference(self)
        self.built = True

    @classmethod
    def from_preset(cls, name):
        """Makes the denoiser of a shipped model; `bsdenoise presets` lists them.

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
        body = network.blind_spot_network(preset.channels, preset.width, preset.depth, dtype="float32")
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
        """Whether σ matters, and `posterior` says how sure the result is."""
        return self.method.has_posterior

    @property
    def grid(self) -> int:
        """Spacing in pixels of the network's pooling grid, 2^depth."""
        return 2 ** sum(layer.name.startswith("pool") for layer in self.network.layers)

    @property
    def intensities(self) -> tuple[float, float]:
        """Least and greatest pixel value that is taken for an image in the right units."""
        is_photo = self.fractional and self.scale == 1.0
        reach = self.scale * (MAX_PHOTO_INTENSITY if is_photo else MAX_FITTED_INTENSITY)
        return self.offset - reach, self.offset + reach

    @property
    def units(self) -> str:
        """Says in words what the units of pixels and σ are."""
        if self.fractional:
            return "fractions of full scale (25 grey levels of 8 bits are 0.098)"
        return f"those of the float images it was trained on, which span about {self.scale:g}"

    def call(self, image, sigma=None):
        """Denoises (B, H, W, C); `sigma`, a number or (B,), defaults to the model's own."""
        return self.moments(image, sigma)[0]

    def compute_output_shape(self, input_shape):
        """Gives the shape of the image."""
        return input_shape

    def moments(self, image, sigma=None):
        """Gives denoised, mean and posterior variance, tensors (B, H, W, C) in the units of the image.

        Without a posterior, it gives a tuple of the first alone.
        """
        image = ops.cast(image, "float32")
        sigma = self._default_sigma(image) if sigma is None else ops.convert_to_tensor(sigma, "float32")
        return self.finished(self.network(self.normalized(image)), image, sigma)

    def normalized(self, image):
        """Gives what the network is given for images (B, H, W, C)."""
        return (image - self.offset) / self.scale

    def finished(self, outputs, image, sigma):
        """Gives what `moments` gives, from network outputs (B, H, W, n), images and σ."""
        *locations, last = self.estimator.moments(outputs, self.normalized(image), sigma / self.scale)
        if not self.has_posterior:
            return (last * self.scale + self.offset,)
        return *(location * self.scale + self.offset for location in locations), last * self.scale**2

    def own_sigma(self, image):
        """Gives σ of each image, (B,): the known one, or an estimate within the range that was trained.

        Args:
            image: Noisy images (B, H, W, C), float.
        """
        if self.noise.is_known:
            return ops.full((ops.shape(image)[0],), self.noise.low * self.scale, dtype="float32")
        return ops.clip(noise.estimate_sigma(image), self.noise.low * self.scale, self.noise.high * self.scale)

    def _default_sigma(self, image):
        """Gives the model's own σ, (B,); where none is used, one that costs no estimate."""
        return self.own_sigma(image) if self.has_posterior else ops.zeros((ops.shape(image)[0],), dtype="float32")

    def denoise(self, noisy, sigma=None, tile=None, overlap=None, tta=1):
        """Denoises an image or a batch of images of any size; large ones in overlapping tiles.

        Args:
            noisy: (H, W), (H, W, C) or (B, H, W, C). Integers are scaled by their type's maximum.
            sigma: Noise standard deviation in the units of the scaled image, > 0 (25 grey levels of 8 bits are
                25 / 255): a number, or one per image (B,). `None` takes the known one, or estimates it. Methods without
                a posterior do not use it.
            tile: Largest side of a tile in pixels, a multiple of the pooling grid; `None` computes at once what fits
                into half of the free memory, and larger images in the largest tiles that do.
            overlap: Context in pixels that a tile has on every inner side, a multiple of the pooling grid and less than
                half a tile; `None` takes the reach of the network (155 pixels at a depth of 4, 315 at 5), but at most
                160 pixels and a quarter of a tile. From the reach on, the result is that of one pass over the whole.
            tta: Number of copies of the image, mirrored and transposed, whose results are averaged: 1, 2, 4 or 8. It
                takes as many times as long. Copies are made of each tile where there are tiles.

        Returns:
            float32 array of the shape of `noisy`.

        Raises:
            ValueError: If the image has the wrong shape, is empty or not finite, or `sigma`, `tile` or `overlap` does
                not fit.
        """
        _, _, (denoised, *_) = self._checked_moments(noisy, sigma, tile, overlap, tta)
        return denoised.reshape(np.shape(noisy))

    def posterior(self, noisy, sigma=None, tile=None, overlap=None, tta=1):
        """Denoises, and says how sure it is: a standard deviation per pixel, and an estimate of the PSNR.

        Args as for `denoise`.

        Raises:
            ValueError: As `denoise`; also if the method has no posterior.

        Returns:
            A `Posterior` of float32 arrays; `estimated_psnr` is a number for one image, (B,) for a batch, for a peak of
            the model's `scale`. It takes the noise to be unclipped and unquantised: for 8-bit files it is an
            approximation. It is as good as σ: where σ was estimated and texture was taken for noise, it is far too
            high, up to its limit of 100 dB.
        """
        if not self.has_posterior:
            raise ValueError(f"A model of method {self.method.name!r} has no posterior: it only denoises.")
        batch, sigma, (denoised, mean, variance) = self._checked_moments(noisy, sigma, tile, overlap, tta)
        whole = likelihood.posterior(
            *(array / self.scale for array in (denoised, batch, mean)), variance / self.scale**2, sigma / self.scale
        )
        psnr = ops.convert_to_numpy(whole.estimated_psnr)
        std = np.sqrt(np.maximum(variance, 0.0))
        shape = np.shape(noisy)
        return likelihood.Posterior(
            denoised.reshape(shape),
            mean.reshape(shape),
            std.reshape(shape),
            float(psnr[0]) if len(shape) < 4 else psnr,
        )

    def windows(self, read, shape, sigma=None, tile=None, overlap=None, tta=1):
        """Denoises an image that need not fit into memory, block by block.

        Args:
            read: Function that gives the noisy pixels (h, w, C) of some rows and columns, two slices; in the units of
                `denoise`, integers included.
            shape: (H, W, C).
            sigma: As for `denoise`, one number; where it has to be estimated, that is done in the middle of the image.
            tile: As for `denoise`, like the two that follow.
            overlap: Likewise.
            tta: Likewise.

        Yields:
            The rows and columns that are done, two slices, and float32 arrays (h, w, C) for them: denoised, mean and
            posterior variance, or denoised alone if there is no posterior. Every pixel once, in bands from top to
            bottom.

        Raises:
            ValueError: As `denoise`.
        """
        ensemble.check(tta)
        accepted = self._accepted

        def checked(rows, columns):
            return accepted.pixels(accepted.batch(read(rows, columns)))[0]

        if sigma is None:
            is_estimated = self.has_posterior and not self.noise.is_known
            middle = tiling.middle(*shape[:2], tiling.MIDDLE if is_estimated else 1)
            sigma = ops.convert_to_numpy(self._default_sigma(checked(*middle)[np.newaxis]))[0]
        else:
            sigma = accepted.sigma(sigma, 1)[0]
        return self._inference.windows(checked, shape, sigma, tile, overlap, tta)

    def _checked_moments(self, noisy, sigma, tile, overlap, tta):
        """Gives images as a batch, their σ, and their moments."""
        ensemble.check(tta)
        accepted = self._accepted
        batch = accepted.pixels(accepted.batch(noisy))
        if sigma is None:
            sigma = ops.convert_to_numpy(self._default_sigma(batch))
        else:
            sigma = accepted.sigma(sigma, len(batch))
        return batch, sigma, self._inference.moments(batch, sigma, tile, overlap, tta)

    def in_precision(self, precision):
        """Gives the same denoiser with the network's body in another precision; all else stays float32.

        Args:
            precision: "float32" or "bfloat16".

        Raises:
            ValueError: If it is neither, or the network is none that `bsdenoise.network` builds.
        """
        if precision not in network.POLICIES:
            raise ValueError(f"`precision` must be one of {[*network.POLICIES]}. Received: precision={precision!r}.")
        body = network.rebuilt(keras.saving.serialize_keras_object(self.network), network.POLICIES[precision])
        if body is None:
            raise ValueError(
                "Only a network that `bsdenoise.blind_spot_network` or `bsdenoise.unet` built has other precisions. "
                f"Received: a network named {self.network.name!r}."
            )
        body.set_weights(self.network.get_weights())
        kept = ("noise", "factor", "clamp", "offset", "scale", "fractional", "provenance")
        return Denoiser(body, method=self.method.name, **{name: getattr(self, name) for name in kept})

    @property
    def _accepted(self):
        return Accepted(self.channels, self.fractional, self.units, *self.intensities, self.scale)

    def get_config(self):
        """Gives the arguments from which the model can be made again."""
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "noise": keras.saving.serialize_keras_object(self.noise),
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
        """Makes the model again."""
        config = dict(config)
        if "diagonal" in config:  # models saved before there were other methods
            config["method"] = "per_component" if config.pop("diagonal") else "full"
        config["noise"] = keras.saving.deserialize_keras_object(config["noise"], custom_objects=custom_objects)
        config["network"] = network.rebuilt(config["network"]) or keras.saving.deserialize_keras_object(
            config["network"], custom_objects=custom_objects
        )
        return cls(**config)
