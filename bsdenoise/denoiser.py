"""`Denoiser`: a network, its noise model and its likelihood, joined to one Keras model that denoises images."""

import copy
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

# Modules, not names of them: `import keras` in any of these may be what imports this one (see bsdenoise/__init__.py).
# Layers and losses are imported so that they register themselves with Keras.
from bsdenoise import adaptation, methods, noise, presets
from bsdenoise import network as networks
from bsdenoise.images import missing
from bsdenoise.inference import engine, self_ensemble, tiling, whitening
from bsdenoise.inference.input_checks import Accepted
from bsdenoise.likelihood import sure
from bsdenoise.likelihood.posterior import Posterior, estimate_psnr
from bsdenoise.methods import losses  # noqa: F401
from bsdenoise.network import layers  # noqa: F401
from bsdenoise.noise import base, correlated, verdicts

# Largest distance of a pixel from `offset`, in units of `scale`. Photographs reach 1, with the strongest noise 6, and
# 255 where somebody forgot to divide; fitted scales leave out the brightest pixels, and a star may be far above them.
MAX_PHOTO_INTENSITY = 16.0
MAX_FITTED_INTENSITY = 1e4
FULL_SCALES = {"uint8": 255.0, "uint16": 65535.0}
_ARRAYS = (np.ndarray, list, tuple)  # what is checked, unlike tensors
_SAVED_AS = "layers/functional"  # where weights are in files: networks of this package once were functional models
# Where noise of a detector is estimated, its gain is known to some percent. Errors that are a smaller share of the
# noise are not told.
UNSURE_SHARE = 0.18
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
class Denoiser(keras.Model):
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

    def shown_moments(self, shown, theta):
        """Compute the moments of images that are as the network was trained to see them, with known θ (B, P)."""
        return self.finished(self.network(shown), shown, theta)

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

    # --- images as users have them -----------------------------------------------------------------------------------

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

    def denoise(self, noisy, sigma=None, tile=None, overlap=None, tta=1, noise=None, adapt=0):
        """Denoise an image or a batch of images of any size; large ones in overlapping tiles.

        Args:
            noisy: (H, W), (H, W, C) or (B, H, W, C), floats in the units of the model. Of models whose pixels are
                fractions of full scale also uint8 and uint16, which are scaled by their type's maximum. Values that
                are NaN or masked (`numpy.ma`) hold no measurement: they come back as they are, and the others are
                denoised as if nothing were known of them.
            sigma: Noise standard deviation in the units of the scaled image, > 0 (25 grey levels of 8 bits are
                25 / 255): a number, or one per image (B,). `None` takes the known one, or estimates it. Methods without
                a posterior do not use it. Beyond the range of the training, intensities are stretched or compressed
                for the network (`bsdenoise.noise.intensity_fit`), and σ is honoured as it is.
            tile: Largest side of a tile in pixels, a multiple of the pooling grid; `None` computes at once what fits
                into half of the free memory, and larger images in the largest tiles that do.
            overlap: Context in pixels that a tile has on every inner side, a multiple of the pooling grid and less than
                half a tile; `None` takes the reach of the network (155 pixels at a depth of 4, 315 at 5), but at most
                160 pixels for the U-Nets of this package, and a quarter of a given tile. From the reach on, the result
                is that of one pass over the whole.
            tta: Number of copies of the image, mirrored and transposed, whose results are averaged: 1, 2, 4 or 8. It
                takes as many times as long. Copies are made of each tile where there are tiles. At most 4 where the
                blind spot is no square.
            noise: Noise parameters θ in the units of the scaled image, (P,) or one row per image (B, P), in the order
                of `noise.parameters`. Of Gaussian noise they are σ alone, of which `sigma` is the short form.
            adapt: Number of steps by which a copy of the network is adapted to these very images before, as `adapt`
                does it; 0 for none. 64 take about as long as denoising six megapixels.

        Returns:
            float32 array of the shape of `noisy`; float64 for float64, whose offset may be too large for float32. A
            masked array if `noisy` is one.

        Raises:
            ValueError: If the image has the wrong type or shape, is empty or holds infinite values, or `sigma`,
                `noise`, `tile` or `overlap` does not fit.
        """
        denoiser = self.adapt(noisy, sigma, noise, steps=adapt) if adapt else self
        return denoiser.denoise_with_noise(noisy, sigma, tile, overlap, tta, noise)[0]

    def denoise_with_noise(self, noisy, sigma=None, tile=None, overlap=None, tta=1, noise=None):
        """Denoise as `denoise` does, and tell which noise was used: an estimate costs no pass of its own then.

        Args and errors as for `denoise`.

        Returns:
            The denoised images, and their noise parameters, float32 (B, P), in the units of the model, 0 where no
            noise was found; `None` if none are used, or nothing was measured.
        """
        noisy, gaps = missing.taken(noisy)
        if gaps is not None and gaps.is_everything:
            return gaps.restored(self._empty(noisy)), None
        normalized, theta, moments = self._normalized_moments(noisy, sigma, noise, tile, overlap, tta, gaps)
        denoised = self._results(moments[:1], normalized)[0].reshape(np.shape(noisy))
        denoised = denoised if gaps is None else gaps.restored(denoised)
        return denoised, None if theta is None else self._told(theta)

    def posterior(self, noisy, sigma=None, tile=None, overlap=None, tta=1, noise=None):
        """Denoise, and say how sure it is: a standard deviation per pixel, and an estimate of the PSNR.

        Args as for `denoise`.

        Raises:
            ValueError: As `denoise`; also if the method has no posterior.

        Returns:
            A `Posterior` of arrays as `denoise` gives them; `estimated_psnr` and `sigma` are numbers for one image,
            (B,) for a batch, `noise` is (P,) or (B, P). The PSNR is for a peak of the model's `scale`, of the values
            that were measured; it is NaN where it is withheld, as told by `bsdenoise.likelihood.posterior.WITHHELD`.
            Mean and standard deviation are NaN where nothing was measured.
        """
        if not self.has_posterior:
            raise ValueError(f"A model of method {self.method.name!r} has no posterior: it only denoises.")
        noisy, gaps = missing.taken(noisy)
        shape = np.shape(noisy)
        if gaps is not None and gaps.is_everything:
            empty = self._empty(noisy)
            unknown = np.full(shape[0] if len(shape) == 4 else 1, np.nan, "float32")
            maps = [gaps.restored(empty), gaps.without(empty), gaps.without(empty)]
            return self._as_posterior(maps, unknown, np.full((len(unknown), self.noise.size), np.nan, "float32"))
        normalized, theta, moments = self._normalized_moments(noisy, sigma, noise, tile, overlap, tta, gaps)
        denoised, mean, variance = moments
        counts = None if gaps is None else gaps.counts.reshape(denoised.shape)
        noise_variance = self.noise.variance(mean, theta.astype(np.float64))
        psnr = np.full(len(denoised), np.nan, np.float32)
        if self.noise.has_risk_estimate:
            terms = self.noise.squared_errors(denoised, normalized.pixels, mean, variance, theta)
            least = np.full(len(theta), sure.MIN_SHARE_OF_NOISE)
            if sigma is None and noise is None and terms is not None:
                least[theta[:, 0] > 0] = UNSURE_SHARE
            std = np.sqrt(variance)
            psnr = estimate_psnr(denoised, normalized.pixels, mean, std, noise_variance, counts, terms, least)
            contradicted = [self._is_contradicted(image) for image in normalized.pixels]
            psnr = np.where(contradicted, np.float32(np.nan), psnr)
        maps = [array.reshape(shape) for array in self._results(moments, normalized)]
        if gaps is not None:
            maps = [gaps.restored(maps[0]), *map(gaps.without, maps[1:])]
        return self._as_posterior(maps, psnr, self._told(theta))

    def _is_contradicted(self, image):
        """Tell whether the noise of an image (H, W, C) is clearly none that the model knows."""
        kinds = {
            noise.GaussianNoise.kind: (verdicts.WHITE,),
            noise.StabilizedNoise.kind: (verdicts.WHITE, verdicts.SIGNAL_DEPENDENT),
        }
        if self.noise.kind not in kinds:
            return False
        rows, columns = tiling.middle(image.shape[0], image.shape[1], verdicts.LOOKED_AT)
        looks = noise.StabilizedNoise(self.noise.low, self.noise.high)
        return verdicts.decide(image[np.newaxis, rows, columns], looks).kind not in kinds[self.noise.kind]

    def _as_posterior(self, maps, psnr, theta):
        """Make a `Posterior` of an image or a batch."""
        denoised, mean, std = maps
        sigma = theta[:, 0] if self.noise.takes_sigma else None
        found = Posterior(denoised, mean, std, psnr, sigma, theta)
        return found if np.ndim(denoised) == 4 else found.of_one()

    def noise_std(self, mean, noise):
        """Compute the standard deviation of the noise of pixels, broadcastable to (B, H, W, C).

        Args:
            mean: Clean pixels or their prediction, (B, H, W, C), in the units of the model.
            noise: Noise parameters (B, P), in the same units.
        """
        theta = self._shown(np.asarray(noise, np.float32))
        return np.sqrt(self.noise.variance(self.normalized(np.asarray(mean)), theta)) * np.float32(self.scale)

    def windows(self, read, shape, sigma=None, tile=None, overlap=None, tta=1, noise=None):
        """Denoise an image, or several of one size, that need not fit into memory, block by block.

        Args:
            read: Function that gives the noisy pixels (h, w, C), or (B, h, w, C) of several images, of some rows and
                columns, two slices; in the units of `denoise`, integers included.
            shape: (H, W, C), or (B, H, W, C).
            sigma: As for `denoise`; where it has to be estimated, that is done in the middle of the image.
            tile: As for `denoise`, like those that follow.
            overlap: Likewise.
            tta: Likewise.
            noise: Likewise.

        Yields:
            The rows and columns that are done, two slices, and arrays (h, w, C) or (B, h, w, C) for them: denoised,
            mean and posterior standard deviation, or denoised alone if there is no posterior. Every pixel once, in
            bands from top to bottom.

        Raises:
            ValueError: As `denoise`.
        """
        self_ensemble.check(tta, self.blind_spot)
        *number, height, width, _ = shape
        last = gaps = None
        corner = 0, 0

        def normalized(rows, columns):
            nonlocal last, gaps, corner
            block, gaps = missing.taken(read(rows, columns))
            last, corner = self._normalized(block), (rows.indices(height)[0], columns.indices(width)[0])
            return last.pixels

        def finished(window, moments):
            maps = self._results(moments if number else [moment[0] for moment in moments], last)
            if gaps is None:
                return window, maps
            (rows, columns), (top, left) = window, corner
            inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
            its_gaps = gaps.part(*(slice(None) for _ in number), *inner)
            return window, [its_gaps.restored(maps[0]), *map(its_gaps.without, maps[1:])]

        middle = tiling.middle(height, width, tiling.MIDDLE)
        count = number[0] if number else 1
        theta = self._given_theta(sigma, noise, count)
        batch_shape = (count, height, width, self.channels)
        blocks = self._inference.windows(normalized, batch_shape, middle, theta, tile, overlap, tta)
        return (finished(window, moments) for window, moments in blocks)

    def denoise_correlated(self, noisy, noise=None, copies=whitening.COPIES, tile=None, overlap=None, tta=1):
        """Denoise images whose noise neighbouring pixels share, as that of camera files and of averaging detectors.

        What the noise lacks to be white is added before, with both signs, and the results are averaged
        (`bsdenoise.inference.whitening`).

        Args:
            noisy: As for `denoise`.
            noise: A `bsdenoise.noise.CorrelatedNoise` in the units of the scaled image, for all images or one for each;
                `None` measures it, in each image by itself.
            copies: How many copies are denoised and averaged, an even number.
            tile: As for `denoise`.
            overlap: Likewise.
            tta: Likewise, of each copy.

        Returns:
            As `denoise`.

        Raises:
            ValueError: As `denoise`; also if the model does not use noise, `copies` is odd, or the noise cannot be
                measured, as in images of less than 24 pixels on a side.
        """
        noisy, gaps = missing.taken(noisy)
        if gaps is not None and gaps.is_everything:
            return gaps.restored(self._empty(noisy))
        batch = self._accepted.batch(noisy)
        pixels = self._accepted.pixels(batch)
        if gaps is not None:
            pixels = missing.with_nan(pixels, gaps.where.reshape(pixels.shape))
        found = self._correlated(pixels, noise)

        def read(rows, columns):
            return pixels[:, rows, columns]

        denoised = np.empty(pixels.shape, pixels.dtype)
        for window, maps in self.windows_correlated(read, pixels.shape, found, copies, tile, overlap, tta):
            denoised[:, *window] = maps[0]
        denoised = denoised.reshape(np.shape(noisy))
        return denoised if gaps is None else gaps.restored(denoised)

    def windows_correlated(self, read, shape, noise, copies=whitening.COPIES, tile=None, overlap=None, tta=1):
        """Denoise images whose noise neighbouring pixels share, block by block, as `windows` does.

        Args:
            read: As for `windows`.
            shape: Likewise.
            noise: As for `denoise_correlated`, but not `None`.
            copies: Likewise.
            tile: As for `denoise`.
            overlap: Likewise.
            tta: Likewise.

        Yields:
            As `windows`. Mean and standard deviation are those with the noise that is added.

        Raises:
            ValueError: As `denoise_correlated`.
        """
        *number, height, width, channels = shape
        count = number[0] if number else 1
        whitened = whitening.Whitening(self._correlated([None] * count, noise), (height, width), copies)
        theta = self._white_theta(whitened)

        def shown(rows, columns):
            block, gaps = missing.taken(read(rows, columns))
            pixels = self._accepted.pixels(block if number else block[np.newaxis])
            if gaps is not None:
                pixels = missing.with_nan(pixels, gaps.where.reshape(pixels.shape))
            return whitened.applied(pixels, rows.indices(height)[0], columns.indices(width)[0])

        batch_shape = (count * copies, height, width, channels)
        blocks = self.windows(shown, batch_shape, None, tile, overlap, tta, theta)
        for window, (denoised, mean, std) in blocks:
            maps = [whitened.averaged(denoised), whitened.averaged(mean), whitened.averaged(std**2) ** 0.5]
            yield window, maps if number else [one[0] for one in maps]

    def adapt(self, images, sigma=None, noise=None, steps=None, seconds=None, seed=0, report=lambda share: None):
        """Return a copy of this denoiser that has gone on learning from the very images that it is to denoise.

        It makes some steps of its own training on crops of them, and keeps what it learnt only if that is better on
        blocks that were held out of the steps, by Stein's estimate of the error (`bsdenoise.adaptation`). The first
        call compiles a step, which takes some seconds more. `provenance["adapted"]` says what was done.

        Args:
            images: One image or a batch, as `denoise` takes them, or a sequence of images of any sizes.
            sigma: Noise standard deviation in the units of the scaled image: a number, or one per image. `None` takes
                the known one, or estimates it.
            noise: Noise parameters instead, as `denoise` takes them; or the `bsdenoise.noise.CorrelatedNoise` of all
                images, or one of each.
            steps: Number of steps, of a crop of 128×128 pixels each; `None` for 64, or for as many as fit.
            seconds: Time for the steps; `None` for as long as they take. The result then depends on the machine.
            seed: Of the crops and of what is held out. The same seed gives the same weights on the same machine.
            report: Called with how much is done, from 0 to 1.

        Raises:
            ValueError: If the network sees the pixel itself, the images are none that `denoise` takes or have less
                than 64² pixels in all, or `sigma`, `noise`, `steps` or `seconds` does not fit.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> noisy = rng.normal(0.5, 0.1, (64, 64)).astype("float32")
            >>> adapted = bsdenoise.load("grey-gaussian5-50-small").adapt(noisy, sigma=0.1, steps=1)
            >>> adapted.provenance["adapted"]["steps"]
            1
        """
        adapter = adaptation.Adapter(self)
        shown = self.as_shown(images, sigma, noise)
        return self.with_adapted(adapter.adapted(shown, steps, seconds, seed, report), len(shown))

    def with_adapted(self, adapted, count):
        """Return a copy with adapted weights.

        Args:
            adapted: As `bsdenoise.adaptation.Adapter` gives it.
            count: Number of images that they were adapted to.
        """
        body = adaptation.copy_of(self.network)
        body.set_weights(adapted.weights)
        copied = self.with_network(body)
        gain = {"gain_db": round(adapted.gain, 3)} if np.isfinite(adapted.gain) else {}
        done = {"images": count, "steps": adapted.steps, "share": adapted.share, **gain}
        copied.provenance = {**(self.provenance or {}), "adapted": done}
        return copied

    def as_shown(self, images, sigma=None, noise=None):
        """Return images as the network is shown them, a list of `bsdenoise.adaptation.Shown`; args as for `adapt`.

        Images without any measurement are left out; of correlated noise, each image gives its copies.
        """
        if not isinstance(images, (list, tuple)):
            images = [*images] if np.ndim(images) == 4 else [images]
        if isinstance(
            next(iter(noise), None) if isinstance(noise, (list, tuple)) else noise, correlated.CorrelatedNoise
        ):
            found = self._correlated(images, noise)
            return [shown for image, its in zip(images, found, strict=True) for shown in self._white_copies(image, its)]
        sigma = [None] * len(images) if sigma is None else np.broadcast_to(np.asarray(sigma, np.float32), len(images))
        if noise is None:
            noise = [None] * len(images)
        else:
            noise = np.broadcast_to(np.asarray(noise, np.float32), (len(images), np.shape(noise)[-1]))
        shown = [self._as_shown(*one) for one in zip(images, sigma, noise, strict=True)]
        return [one for one in shown if one is not None]

    def _as_shown(self, image, sigma, noise):
        """Return one image as the network is shown it; `None` if it has no measurements."""
        noisy, gaps = missing.taken(image)
        if gaps is not None and gaps.is_everything:
            return None
        pixels = self._normalized(noisy).pixels
        counts = None if gaps is None else gaps.counts.reshape(pixels.shape)
        theta = self._given_theta(sigma, noise, 1)
        if theta is None and counts is not None and self.estimates_noise:
            theta = self._theta_of_measured(pixels, counts)
        shown, theta, fit = self._inference.as_shown(pixels, theta)
        return adaptation.Shown(shown[0], theta[0], None if counts is None else counts[0], fit)

    def _white_copies(self, image, found):
        """Return an image with correlated noise as its white copies, of those that have measurements."""
        noisy, gaps = missing.taken(image)
        pixels = self._accepted.pixels(self._accepted.batch(noisy))
        if gaps is not None:
            pixels = missing.with_nan(pixels, gaps.where.reshape(pixels.shape))
        whitened = whitening.Whitening([found], pixels.shape[1:3], whitening.COPIES)
        copies, thetas = whitened.applied(pixels, 0, 0), self._white_theta(whitened)
        shown = [self._as_shown(copy, None, theta) for copy, theta in zip(copies, thetas, strict=True)]
        return [one for one in shown if one is not None]

    def _white_theta(self, whitened):
        """Return the noise parameters of white copies, (copies · B, P)."""
        names = [parameter.name for parameter in self.noise.parameters]
        if not self.has_posterior or base.SIGMA not in names:
            raise ValueError("Only a model that is told a sigma can be told of correlated noise.")
        theta = np.zeros((len(whitened.sigma), len(names)), np.float32)
        # A model takes no more noise than its intensities span.
        theta[:, names.index(base.SIGMA)] = np.minimum(whitened.sigma, self.scale)
        return theta

    def _correlated(self, images, noise):
        """Return the noise of each image; `None` measures it."""
        if isinstance(noise, correlated.CorrelatedNoise):
            return [noise] * len(images)
        if noise is not None:
            if len(noise) != len(images):
                raise ValueError(f"`noise` must be one for all images, or one for each of {len(images)}.")
            return [*noise]
        found = [correlated.estimate_correlated(image) for image in images]
        if any(one is None for one in found):
            raise ValueError(
                "The noise of an image cannot be measured: it has no flat part of 24 pixels square, or no noise at all."
            )
        return found

    def _empty(self, noisy):
        """Return a result for images of which nothing was measured, once they are known to be images."""
        self._accepted.batch(noisy)
        return np.zeros(noisy.shape, noisy.dtype if noisy.dtype == np.float64 else np.float32)

    def _normalized_moments(self, noisy, sigma, noise, tile, overlap, tta, gaps=None):
        """Return images, their noise parameters and their moments in the units of the network, as batches."""
        self_ensemble.check(tta, self.blind_spot)
        normalized = self._normalized(noisy)
        theta = self._given_theta(sigma, noise, len(normalized.pixels))
        if theta is None and gaps is not None and self.estimates_noise:
            theta = self._theta_of_measured(normalized.pixels, gaps.counts.reshape(normalized.pixels.shape))
        moments, theta = self._inference.moments(normalized.pixels, theta, tile, overlap, tta)
        return normalized, theta, moments

    def _given_theta(self, sigma, noise, count):
        """Return the noise parameters that were told, (B, P), in the units of the network; `None` if none were."""
        if sigma is not None and noise is not None:
            raise ValueError("`sigma` is a short form of `noise`: give one of them.")
        if sigma is not None:
            self._check_takes_sigma()
            return self._shown(self._accepted.sigma(sigma, count)[:, np.newaxis])
        return None if noise is None else self._shown(self._accepted.theta(noise, count, self.noise.parameters))

    def _check_takes_sigma(self):
        """Refuse a σ where the noise has other parameters."""
        base.check_is_sigma(self.noise.kind, self.noise.parameters)

    def _shown(self, theta, xp=np):
        """Return noise parameters (…, P) in the units of the network."""
        return self.noise.rescaled(theta, self.offset, self.scale, xp)

    def _told(self, theta):
        """Return noise parameters (B, P) of normalised images as users are told them."""
        found = self.noise.found(np.asarray(theta, np.float64))
        return self.noise.restored(found, self.offset, self.scale).astype("float32")

    def _normalized(self, noisy):
        """Check images and return them as a batch in the units of the network."""
        pixels = self._accepted.pixels(self._accepted.batch(noisy))
        # In the precision of the input: in float32, a large offset would swallow the noise of float64 images.
        return _Normalized(self.normalized(pixels).astype("float32", copy=False), pixels.dtype)

    def _theta_of_measured(self, pixels, counts):
        """Estimate noise parameters of normalised images, (B, P), from what was measured of them, each by itself."""
        found = [
            self.solved_theta(image[np.newaxis], its_counts[np.newaxis] if its_counts.any() else None)
            for image, its_counts in zip(pixels, counts, strict=True)
        ]
        return np.concatenate([ops.convert_to_numpy(theta) for theta in found])

    def _results(self, moments, normalized):
        """Return moments in the units of the model, in the precision of the images that they are of."""
        return self.in_units([moment.astype(normalized.dtype, copy=False) for moment in moments])

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


class _Normalized(NamedTuple):
    """Images in the units of the network.

    Attributes:
        pixels: float32 (B, H, W, C).
        dtype: float32 or float64, the precision of the results.
    """

    pixels: np.ndarray
    dtype: np.dtype


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
