"""The network, its likelihood and its MAP step as the paper describes them, word by word: what ours is compared with.

A shifted convolution pads, convolves with "same" padding and crops; four rotated copies of the image, padded to a
square so that they fit into one batch, go through one U-Net; covariances are inverted as batches of float64 matrices
(Laine et al. 2019, Sections 3 and 4, Appendix A). It computes what `bsdenoise` computes, from the same weights.
"""

import keras
import numpy as np
import tensorflow as tf

LEAKY_SLOPE = 0.1


class Transcription:
    """The network as the paper describes it.

    Args:
        network: A network of `bsdenoise.blind_spot_network`; its weights are copied.
        dtype: "float32" or "bfloat16": that of everything but the last layer.
    """

    def __init__(self, network, dtype="float32"):
        self.dtype = dtype
        self.depth = network.depth
        layers = [layer for layer in network.layers if layer.weights]
        self.weights = {layer.name: [tf.Variable(weight.numpy()) for weight in layer.weights] for layer in layers}

    @property
    def variables(self):
        """All weights."""
        return [weight for pair in self.weights.values() for weight in pair]

    def __call__(self, image):
        """Gives network outputs (B, H, W, n) for images (B, H, W, C)."""
        batch, height, width, _ = image.shape
        multiple = 2**self.depth
        side = -(-max(height, width) // multiple) * multiple
        square = tf.pad(tf.cast(image, self.dtype), ((0, 0), (0, side - height), (0, side - width), (0, 0)))
        maps = self._unet(tf.concat([tf.image.rot90(square, turns) for turns in range(4)], axis=0))
        maps = tf.pad(maps[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
        parts = [tf.image.rot90(part, -turns % 4) for turns, part in enumerate(tf.split(maps, 4, axis=0))]
        maps = tf.concat(parts, axis=-1)[:, :height, :width]
        for name in ("head_conv0", "head_conv1"):
            maps = tf.nn.leaky_relu(self._conv(name, maps), LEAKY_SLOPE)
        kernel, bias = self.weights["outputs"]
        return tf.nn.conv2d(tf.cast(maps, "float32"), kernel, 1, "SAME") + bias

    def _unet(self, image):
        maps = self._shifted("enc_conv0", image)
        skips = [image]
        for level in range(1, self.depth + 1):
            maps = self._shifted(f"enc_conv{level}", maps)
            maps = tf.pad(maps, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
            maps = tf.nn.max_pool2d(maps, 2, 2, "VALID")
            skips.append(maps)
        maps = self._shifted(f"enc_conv{self.depth + 1}", maps)
        for level in range(self.depth, 0, -1):
            maps = tf.repeat(tf.repeat(maps, 2, axis=1), 2, axis=2)
            maps = tf.concat([maps, skips[level - 1]], axis=-1)
            maps = self._shifted(f"dec_conv{level}b", self._shifted(f"dec_conv{level}a", maps))
        return maps

    def _shifted(self, name, maps):
        """Pads half a kernel on top, convolves, and crops as much at the bottom."""
        maps = tf.pad(maps, ((0, 0), (1, 0), (0, 0), (0, 0)))
        return tf.nn.leaky_relu(self._conv(name, maps)[:, :-1], LEAKY_SLOPE)

    def _conv(self, name, maps):
        kernel, bias = (tf.cast(weight, self.dtype) for weight in self.weights[name])
        return tf.nn.bias_add(tf.nn.conv2d(maps, kernel, 1, "SAME"), bias)


def moments(outputs, channels: int):
    """Reads μ, (B, H, W, C), and Σ_p = L Lᵀ, (B, H, W, C, C), both float64."""
    from bsdenoise.likelihood import INITIAL_STD

    outputs = tf.cast(outputs, "float64")
    rows, columns = np.tril_indices(channels)
    places = np.zeros((len(rows), channels * channels))
    places[np.arange(len(rows)), rows * channels + columns] = 1.0
    shape = (*outputs.shape[:3], channels, channels)
    factor = tf.reshape(tf.tensordot(outputs[..., channels:], places, 1), shape) + INITIAL_STD * np.eye(channels)
    return outputs[..., :channels], tf.matmul(factor, factor, transpose_b=True)


def nll(outputs, noisy, sigma: float):
    """Computes the negative log-likelihood of each pixel, (B, H, W), float64, as Laine et al. 2019, Section 4."""
    channels = noisy.shape[-1]
    mean, prior_cov = moments(outputs, channels)
    noisy_cov = prior_cov + sigma**2 * np.eye(channels)
    residual = (tf.cast(noisy, "float64") - mean)[..., None]
    mahalanobis_sq = tf.matmul(residual, tf.matmul(tf.linalg.inv(noisy_cov), residual), transpose_a=True)[..., 0, 0]
    return 0.5 * (mahalanobis_sq + tf.math.log(tf.linalg.det(noisy_cov)))


def map_estimate(outputs, noisy, sigma: float):
    """Computes (Σ_p⁻¹ + σ⁻²I)⁻¹ (Σ_p⁻¹ μ + σ⁻² x̃), float32 (B, H, W, C), as Laine et al. 2019, Eq. 3."""
    channels = noisy.shape[-1]
    mean, prior_cov = moments(outputs, channels)
    prior_inverse = tf.linalg.inv(prior_cov + 1e-12 * np.eye(channels))
    noise_inverse = np.eye(channels) / sigma**2
    weighted = tf.linalg.matvec(prior_inverse, mean) + tf.linalg.matvec(noise_inverse, tf.cast(noisy, "float64"))
    return tf.cast(tf.linalg.matvec(tf.linalg.inv(prior_inverse + noise_inverse), weighted), "float32")


def training_step(transcription: Transcription, sigma: float):
    """Gives the function that does one step of Adam on noisy images (B, H, W, C), and gives the loss."""
    optimizer = keras.optimizers.Adam(3e-4)
    variables = [keras.Variable(weight, name=f"weight{index}") for index, weight in enumerate(transcription.variables)]
    values = iter(variable.value for variable in variables)
    transcription.weights = {name: [next(values) for _ in pair] for name, pair in transcription.weights.items()}
    optimizer.build(variables)

    @tf.function
    def step(noisy):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(nll(transcription(noisy), noisy, sigma))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)
        return loss

    return step
