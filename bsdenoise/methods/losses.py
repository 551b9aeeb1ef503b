"""Keras losses, for `compile` and `fit` and for the training loop alike: the likelihood, and squared errors.

In all of them a pixel of `y_true` of which a channel is NaN was not measured and does not count: the mean loss of an
image is that over its other pixels, and zero if it has none.
"""

import keras
from keras import ops

from bsdenoise import likelihood
from bsdenoise import noise as noise_models

MIN_COUNTED_SHARE = 1e-9  # without a pixel that counts the loss is zero, not undefined; no image has so many pixels


@keras.saving.register_keras_serializable(package="bsdenoise")
class NoiseNLL(keras.losses.Loss):
    """Negative log-likelihood of the noisy image under the network's per-pixel Gaussian and a noise model.

    Args:
        channels: Number C of image channels.
        noise: The noise model, as `bsdenoise.noise.parse` gives it.
        factor: "prior" or "precision", as for `GaussianLikelihood`.
        diagonal: Whether covariances are diagonal.
        reduction: As for `keras.losses.Loss`; the default averages over images and pixels.
        name: Name of the loss.

    The loss computes in float32 whatever the network's precision and Keras' `floatx`.

    Call arguments: `y_true`, the noisy image and behind its channels the P parameters of its noise, (B, H, W, C + P);
    `y_pred`, network outputs.

    Raises:
        ValueError: If an argument is none of those listed, or `y_true` has other channels.

    Example:
        >>> loss = bsdenoise.losses.NoiseNLL(channels=1, noise=bsdenoise.GaussianNoise(5 / 255, 50 / 255))
        >>> network = bsdenoise.blind_spot_network(channels=1, width=8, depth=2)
        >>> network.compile(optimizer="adam", loss=loss)
    """

    def __init__(
        self, channels, noise, factor="prior", diagonal=False, reduction="sum_over_batch_size", name="noise_nll"
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.likelihood = likelihood.GaussianLikelihood(channels, factor, diagonal)
        self.noise = noise

    def call(self, y_true, y_pred):
        """Compute the loss of each pixel, (B, H, W)."""
        channels = self.likelihood.channels
        names = ", ".join(parameter.name for parameter in self.noise.parameters)
        _check_channels(y_true, channels + self.noise.shown_size, f"those of the image, then {names}")
        # One by one, as the size of a slice of unknown channels is not known either.
        theta = ops.stack([y_true[..., channels + index] for index in range(self.noise.shown_size)], axis=-1)
        return self._of_pixels(y_true[..., :channels], theta, y_pred)

    def _of_pixels(self, noisy, theta, outputs):
        noisy, counts = _measured(noisy)
        return _over_counted(self.noise.nll(self.likelihood.prior(outputs), noisy, theta), counts)

    def get_config(self):
        """Return the arguments from which the loss can be made again."""
        return {
            **super().get_config(),
            "channels": self.likelihood.channels,
            "noise": noise_models.serialize(self.noise),
            "factor": self.likelihood.factor,
            "diagonal": self.likelihood.diagonal,
        }

    @classmethod
    def from_config(cls, config):
        """Make the loss again."""
        return cls(**config | {"noise": noise_models.deserialize(config["noise"])})


@keras.saving.register_keras_serializable(package="bsdenoise")
class GaussianNLL(NoiseNLL):
    """Negative log-likelihood under white Gaussian noise (Laine et al. 2019, Eq. 1).

    Args:
        channels: Number C of image channels.
        sigma: Noise standard deviation in the units of the image, > 0; `None` where it varies: `y_true` then holds
            it as one channel behind the image's own.
        factor: "prior" or "precision", as for `GaussianLikelihood`.
        diagonal: Whether covariances are diagonal.
        reduction: As for `keras.losses.Loss`; the default averages over images and pixels.
        name: Name of the loss.

    The loss computes in float32 whatever the network's precision and Keras' `floatx`.

    Call arguments: `y_true`, the noisy image (B, H, W, C), or (B, H, W, C + 1) with σ; `y_pred`, network outputs.

    Raises:
        ValueError: If `sigma` is not positive, an argument is none of those listed, or `y_true` has other channels.

    Example:
        >>> network = bsdenoise.blind_spot_network(channels=1, width=8, depth=2)
        >>> network.compile(optimizer="adam", loss=bsdenoise.GaussianNLL(channels=1, sigma=25 / 255))
    """

    def __init__(
        self,
        channels,
        sigma=None,
        factor="prior",
        diagonal=False,
        reduction="sum_over_batch_size",
        name="gaussian_nll",
    ):
        if sigma is not None and not sigma > 0:
            raise ValueError(f"`sigma` must be positive. Received: sigma={sigma!r}.")
        super().__init__(channels, noise_models.GaussianNoise(1.0, 1.0), factor, diagonal, reduction, name)
        self.sigma = sigma

    def call(self, y_true, y_pred):
        """Compute the loss of each pixel, (B, H, W)."""
        if self.sigma is None:
            return super().call(y_true, y_pred)
        _check_channels(y_true, self.likelihood.channels, "those of the image")
        return self._of_pixels(y_true, ops.full((1, 1), self.sigma, dtype="float32"), y_pred)

    def get_config(self):
        """Return the arguments from which the loss can be made again."""
        config = super().get_config() | {"sigma": self.sigma}
        del config["noise"]
        return config

    @classmethod
    def from_config(cls, config):
        """Make the loss again."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="bsdenoise")
class SquaredError(keras.losses.Loss):
    """Mean squared error of the pixels that were measured.

    Args:
        reduction: As for `keras.losses.Loss`; the default averages over images and pixels.
        name: Name of the loss.

    Call arguments: `y_true` and `y_pred`, both (B, H, W, C).

    Example:
        >>> network = bsdenoise.unet(channels=1, width=8, depth=2, num_outputs=1)
        >>> network.compile(optimizer="adam", loss=bsdenoise.methods.losses.SquaredError())
    """

    def __init__(self, reduction="sum_over_batch_size", name="squared_error"):
        super().__init__(name=name, reduction=reduction, dtype="float32")

    def call(self, y_true, y_pred):
        """Compute the weighted error of each pixel, (B, H, W)."""
        target, counts = _measured(y_true)
        error = ops.mean(ops.square(target - ops.cast(y_pred, "float32")), axis=-1)
        return _over_counted(error, counts)


@keras.saving.register_keras_serializable(package="bsdenoise")
class MaskedSquaredError(keras.losses.Loss):
    """Mean squared error over masked pixels alone (Noise2Void, Krull et al. 2019).

    Every pixel's error counts H · W / (number of masked pixels of its image that were measured) times, so that the
    mean over all pixels of an image is that over those.

    Args:
        reduction: As for `keras.losses.Loss`; the default averages over images and pixels.
        name: Name of the loss.

    Call arguments: `y_true`, the noisy image and behind its channels the mask, 1 where a pixel was masked and 0
    elsewhere, (B, H, W, C + 1); `y_pred`, network outputs (B, H, W, C).

    Raises:
        ValueError: If `y_true` has not one channel more than `y_pred`.

    Example:
        >>> network = bsdenoise.unet(channels=1, width=8, depth=2, num_outputs=1)
        >>> network.compile(optimizer="adam", loss=bsdenoise.methods.losses.MaskedSquaredError())
    """

    def __init__(self, reduction="sum_over_batch_size", name="masked_squared_error"):
        super().__init__(name=name, reduction=reduction, dtype="float32")

    def call(self, y_true, y_pred):
        """Compute the weighted error of each pixel, (B, H, W)."""
        channels = y_pred.shape[-1]
        _check_channels(y_true, channels + 1, "those of the image, then the mask")
        target, counts = _measured(y_true[..., :channels])
        error = ops.mean(ops.square(target - y_pred), axis=-1)
        return _over_counted(error, counts * y_true[..., channels])


def _check_channels(y_true, expected, what):
    """Refuse targets of other channels."""
    if y_true.shape[-1] not in (None, expected):
        raise ValueError(
            f"`y_true` must have {expected} channels: {what}. Received: y_true.shape={tuple(y_true.shape)}."
        )


def _measured(target):
    """Return a target (B, H, W, C) without NaN, and which of its pixels count, 1 or 0, (B, H, W)."""
    is_measured = ops.logical_not(ops.isnan(target))
    # What stands for NaN has no say, but a gradient must not meet NaN on its way to zero.
    return ops.where(is_measured, target, 0.0), ops.cast(ops.all(is_measured, axis=-1), "float32")


def _over_counted(loss, counts):
    """Weight the loss of each pixel (B, H, W), so that its mean over an image is that over the pixels that count."""
    share = ops.maximum(ops.mean(counts, axis=(1, 2), keepdims=True), MIN_COUNTED_SHARE)
    return ops.where(counts > 0.0, loss, 0.0) * counts / share
