"""Keras losses, for `compile` and `fit` and for the training loop alike: the likelihood, and that of Noise2Void."""

import keras
from keras import ops

from bsdenoise import likelihood

MIN_MASKED_SHARE = 1e-9  # without a masked pixel the loss is zero, not undefined; no image has so many pixels


@keras.saving.register_keras_serializable(package="bsdenoise")
class GaussianNLL(keras.losses.Loss):
    """Negative log-likelihood of the noisy image under the network's per-pixel Gaussian (Laine et al. 2019, Eq. 1).

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
        super().__init__(name=name, reduction=reduction, dtype="float32")
        if sigma is not None and not sigma > 0:
            raise ValueError(f"`sigma` must be positive. Received: sigma={sigma!r}.")
        self.likelihood = likelihood.GaussianLikelihood(channels, factor, diagonal)
        self.sigma = sigma

    def call(self, y_true, y_pred):
        """Computes the loss of each pixel, (B, H, W)."""
        channels = self.likelihood.channels
        expected = channels + 1 if self.sigma is None else channels
        if y_true.shape[-1] not in (None, expected):
            what = "those of the image, then σ" if self.sigma is None else "those of the image"
            raise ValueError(
                f"`y_true` must have {expected} channels: {what}. Received: y_true.shape={tuple(y_true.shape)}."
            )
        sigma = y_true[..., channels] if self.sigma is None else self.sigma
        return self.likelihood.nll(y_pred, y_true[..., :channels], sigma)

    def get_config(self):
        """Gives the arguments from which the loss can be made again."""
        return {
            **super().get_config(),
            "channels": self.likelihood.channels,
            "sigma": self.sigma,
            "factor": self.likelihood.factor,
            "diagonal": self.likelihood.diagonal,
        }


@keras.saving.register_keras_serializable(package="bsdenoise")
class MaskedSquaredError(keras.losses.Loss):
    """Mean squared error over masked pixels alone (Noise2Void, Krull et al. 2019).

    Every pixel's error counts H · W / (number of masked pixels of its image) times, so that the mean over all pixels
    of an image is that over its masked ones.

    Args:
        reduction: As for `keras.losses.Loss`; the default averages over images and pixels.
        name: Name of the loss.

    Call arguments: `y_true`, the noisy image and behind its channels the mask, 1 where a pixel was masked and 0
    elsewhere, (B, H, W, C + 1); `y_pred`, network outputs (B, H, W, C).

    Raises:
        ValueError: If `y_true` has not one channel more than `y_pred`.

    Example:
        >>> network = bsdenoise.unet(channels=1, width=8, depth=2, num_outputs=1)
        >>> network.compile(optimizer="adam", loss=bsdenoise.losses.MaskedSquaredError())
    """

    def __init__(self, reduction="sum_over_batch_size", name="masked_squared_error"):
        super().__init__(name=name, reduction=reduction, dtype="float32")

    def call(self, y_true, y_pred):
        """Computes the weighted error of each pixel, (B, H, W)."""
        channels = y_pred.shape[-1]
        if y_true.shape[-1] not in (None, channels + 1):
            raise ValueError(
                f"`y_true` must have {channels + 1} channels: those of the image, then the mask. "
                f"Received: y_true.shape={tuple(y_true.shape)}."
            )
        mask = y_true[..., channels]
        share = ops.maximum(ops.mean(mask, axis=(1, 2), keepdims=True), MIN_MASKED_SHARE)
        return ops.mean(ops.square(y_true[..., :channels] - y_pred), axis=-1) * mask / share
