"""Quality on held-out noisy images: likelihood, and PSNR estimated without a clean image."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from bsdenoise.data.crops import TrainingImages
from bsdenoise.denoiser import Denoiser
from bsdenoise.likelihood import Posterior, psnr_from_mse, stein_mse


@dataclass(frozen=True)
class Example:
    """One validation image: noisy and clean (H, W, C), the latter if known; σ."""

    noisy: np.ndarray
    sigma: np.float32
    clean: np.ndarray | None


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
        self.examples = self._read(data, data.held_out, side, num_images)
        if not self.examples:
            self.examples = self._read(data, data.training, side, num_images)
        if not self.examples:
            raise ValueError("None of the images can be read.")
        image = tf.TensorSpec((1, None, None, denoiser.channels), tf.float32)
        self._evaluate = tf.function(self._evaluate_one, input_signature=(image, tf.TensorSpec((1,), tf.float32)))

    @staticmethod
    def _read(data: TrainingImages, indices, side: int, most: int) -> list[Example]:
        """Makes examples of the first readable images, `most` of them."""
        examples = []
        for index in indices:
            if len(examples) == most:
                break
            try:
                examples.append(Example(*data.validation_example(int(index), side)))
            except (ValueError, OSError) as error:
                data.report(f"left out {data.source.name(int(index))} of validation: {error}")
        return examples

    def _evaluate_one(self, noisy, sigma):
        likelihood = self.denoiser.likelihood
        outputs = self.denoiser.network(noisy)
        nll = tf.reduce_mean(likelihood.nll(outputs, noisy, sigma))
        return nll, *likelihood.moments(outputs, noisy, sigma)

    def __call__(self) -> tuple[dict[str, float], Posterior]:
        """Measures.

        Returns:
            Means over the images, and the posterior of the first image. `sure_psnr` and `sure_psnr_mean` are the PSNR
            in dB that is estimated for denoised image and predicted mean, of the mean squared error over all images;
            `psnr` and `psnr_mean` the true ones, where clean images are known.
        """
        results = [self._measure(example) for example in self.examples]
        nll = float(np.mean([nll for nll, _, _ in results]))
        squared_errors = [errors for _, errors, _ in results]
        mse = {name: np.mean([errors[name] for errors in squared_errors]) for name in squared_errors[0]}
        psnr = {name: float(psnr_from_mse(np.float32(value))) for name, value in mse.items()}
        return {"nll": nll, **psnr}, results[0][2]

    def _measure(self, example: Example) -> tuple[float, dict[str, float], Posterior]:
        """Gives NLL, mean squared errors by the name of the PSNR they end in, and posterior, of one image."""
        noisy, sigma = example.noisy[np.newaxis], np.array([example.sigma])
        nll, denoised, mean, variance = (value.numpy() for value in self._evaluate(noisy, sigma))
        errors = {
            "sure_psnr": float(stein_mse(denoised, noisy, sigma, variance)[0]),
            # The mean knows nothing of the pixel's own noise, so it misses the noisy pixel by its error plus that.
            "sure_psnr_mean": float(np.mean((mean - noisy) ** 2) - sigma[0] ** 2),
        }
        if example.clean is not None:
            errors["psnr"] = float(np.mean((denoised - example.clean) ** 2))
            errors["psnr_mean"] = float(np.mean((mean - example.clean) ** 2))
        std = np.sqrt(np.maximum(variance[0], 0.0))
        psnr = float(psnr_from_mse(np.float32(errors["sure_psnr"])))
        return float(nll), errors, Posterior(denoised[0], mean[0], std, psnr)
