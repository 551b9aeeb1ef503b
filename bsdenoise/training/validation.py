"""Quality on held-out images, without clean ones if the method needs none: the loss, and an estimate of the PSNR."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from bsdenoise import ignored
from bsdenoise.data.crops import TrainingImages
from bsdenoise.denoiser import Denoiser
from bsdenoise.likelihood import psnr_from_mse, stein_mse
from bsdenoise.methods import Crop

# Which estimate of the PSNR decides which weights are kept.
SURE, HELD_OUT = "sure_psnr", "held_out_psnr"


@dataclass(frozen=True)
class Example:
    """One validation image, all (H, W, …): what the loss takes, the noisy image, σ, and the clean one if known.

    What was not measured is NaN in the target, and filled elsewhere; `counts` (H, W) tells where all was measured.
    """

    shown: np.ndarray
    target: np.ndarray
    noisy: np.ndarray
    sigma: np.float32
    clean: np.ndarray | None
    counts: np.ndarray


class Validation:
    """Measures a denoiser on the same noisy images each time.

    Args:
        denoiser: The denoiser; its weights may change between calls.
        data: Where the images come from; those held out, or, if none are, the first of those trained on.
        num_images: Most images to use.
        side: Largest side of an image in pixels.

    Raises:
        ValueError: If none of the images can be read.
    """

    def __init__(self, denoiser: Denoiser, data: TrainingImages, num_images: int, side: int):
        self.denoiser = denoiser
        self.method = data.method  # with its settings, which the denoiser does not need
        self.loss = self.method.loss(denoiser.channels, denoiser.factor)
        self.examples = self._read(data, data.held_out, side, num_images)
        if not self.examples:
            self.examples = self._read(data, data.training, side, num_images)
        if not self.examples:
            raise ValueError("None of the images can be read.")
        # Most methods show the network the noisy image itself: once is enough then.
        self._is_shown_noisy = all(np.array_equal(example.shown, example.noisy) for example in self.examples)
        channels = denoiser.channels
        shown, target, noisy = (tf.TensorSpec((1, None, None, size)) for size in (channels, None, channels))
        # Nothing in it is Python that would have to be translated into a graph, which takes seconds.
        self._loss_and_moments = tf.function(
            self._loss_and_moments_of, input_signature=(shown, target, noisy, tf.TensorSpec((1,))), autograph=False
        )

    @property
    def score(self) -> str:
        """Which of the values says how good the weights are, in dB and without a clean image if the method needs none.

        `SURE` where the network is blind; else `HELD_OUT`, which follows from the loss on held-out images: for n2n
        the PSNR against a second noisy copy less the noise of that, for n2c against the clean image, for n2v that of
        masked pixels.
        """
        return SURE if self.method.is_blind else HELD_OUT

    def _read(self, data: TrainingImages, indices, side: int, most: int) -> list[Example]:
        """Makes examples of the first readable images, `most` of them."""
        examples = []
        for index in indices:
            if len(examples) == most:
                break
            try:
                examples.append(self._example(data.validation_crop(int(index), side)))
            except (ValueError, OSError) as error:
                data.report(f"left out {data.source.name(int(index))} of validation: {error}")
        return examples

    def _example(self, crop: Crop) -> Example:
        shown, target = self.method.example(crop)
        shown, target, noisy = (np.ascontiguousarray(array, "float32") for array in (shown, target, crop.noisy(0)))
        is_known = ~np.isnan(noisy if crop.clean is None else noisy + crop.clean)
        return Example(
            ignored.filled(shown), target, ignored.filled(noisy), crop.sigma, crop.clean, is_known.all(axis=-1)
        )

    def _loss_and_moments_of(self, shown, target, noisy, sigma):
        network = self.denoiser.network
        outputs = network(shown)
        loss = tf.reduce_mean(self.loss.call(target, outputs))
        outputs = outputs if self._is_shown_noisy else network(noisy)
        return loss, self.denoiser.estimator.moments(outputs, noisy, sigma)

    def __call__(self) -> tuple[dict[str, float], list[np.ndarray]]:
        """Measures.

        Returns:
            Means over the images, and the moments of the first one, each (H, W, C). The mean loss; the PSNR in dB that
            is estimated (`score`), for a method with a posterior also that of its mean alone, `sure_psnr_mean`; and
            `psnr`, `psnr_mean`, the true ones, where clean images are known. PSNRs are those of the mean squared
            error over all images.
        """
        results = [self._measure(example) for example in self.examples]
        squared_errors = [errors for _, errors, _ in results]
        mse = {name: np.mean([errors[name] for errors in squared_errors]) for name in squared_errors[0]}
        psnr = {name: float(psnr_from_mse(np.float32(value))) for name, value in mse.items()}
        return {"loss": float(np.mean([loss for loss, _, _ in results])), **psnr}, results[0][2]

    def _measure(self, example: Example) -> tuple[float, dict[str, float], list[np.ndarray]]:
        """Gives loss, mean squared errors by the name of the PSNR they end in, and moments, of one image."""
        shown, target, noisy = (one[np.newaxis] for one in (example.shown, example.target, example.noisy))
        sigma = np.array([example.sigma])
        loss, moments = self._loss_and_moments(shown, target, noisy, sigma)
        loss, moments = float(loss), [moment.numpy() for moment in moments]
        noisy, *measured = (_row(array[0], example.counts) for array in (noisy, *moments))
        denoised, mean, variance = (*measured, None, None)[:3]
        clean = None if example.clean is None else _row(example.clean, example.counts)
        if self.method.is_blind:
            errors = {SURE: float(stein_mse(denoised, noisy, sigma, variance)[0])}
        else:
            # Loss of a point estimate: its squared error, and that of the target itself.
            errors = {HELD_OUT: loss - float(sigma[0]) ** 2 * self.method.has_noisy_target}
        if mean is not None:
            # The mean knows nothing of the pixel's own noise, so it misses the noisy pixel by its error plus that.
            errors["sure_psnr_mean"] = float(np.mean((mean - noisy) ** 2) - sigma[0] ** 2)
        if clean is not None:
            errors["psnr"] = float(np.mean((denoised - clean) ** 2))
            if mean is not None:
                errors["psnr_mean"] = float(np.mean((mean - clean) ** 2))
        return loss, errors, [moment[0] for moment in moments]


def _row(image: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Gives the pixels (H, W, C) that count as an image of one row, (1, 1, n, C), for whoever takes means of images."""
    return image[counts][np.newaxis, np.newaxis]
