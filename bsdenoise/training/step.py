"""One step of training on all devices: gradient of the global batch mean, Adam, and the moving average."""

import keras
import tensorflow as tf

from bsdenoise.config import TrainConfig
from bsdenoise.data.crops import TrainingImages
from bsdenoise.denoiser import Denoiser
from bsdenoise.losses import GaussianNLL
from bsdenoise.network import blind_spot_network
from bsdenoise.training.schedule import RampUpDown

_DTYPES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


class TrainingState:
    """The network that is trained, its optimizer, and the averaged network inside a denoiser.

    Args:
        config: The run's flags.
        data: The training images, for channels, noise and units.
        strategy: The devices.
    """

    def __init__(self, config: TrainConfig, data: TrainingImages, strategy: tf.distribute.Strategy):
        self.config = config
        self.strategy = strategy
        diagonal = config.method == "per_component"
        # A range: σ travels behind the image's channels, as the loss expects it.
        self.loss = GaussianNLL(data.channels, sigma=None, factor=config.factor, diagonal=diagonal)
        num_outputs = self.loss.likelihood.num_outputs
        size = {"channels": data.channels, "width": config.width, "depth": config.depth, "num_outputs": num_outputs}
        with strategy.scope():
            keras.utils.set_random_seed(config.seed)
            self.network = blind_spot_network(**size, dtype=_DTYPES[config.precision])
            self.schedule = RampUpDown(config.learning_rate, config.steps, config.ramp_up, config.ramp_down)
            self.optimizer = keras.optimizers.Adam(self.schedule, beta_1=0.9, beta_2=config.beta_2)
            self.optimizer.build(self.network.trainable_variables)
        # The average lives in float32 on one device, in the network that is validated and saved.
        self.denoiser = Denoiser(
            blind_spot_network(**size, dtype="float32"),
            data.noise,
            factor=config.factor,
            diagonal=diagonal,
            offset=data.offset,
            scale=data.scale,
            fractional=data.fractional,
        )
        self.denoiser.network.set_weights(self.network.get_weights())
        if config.xla:
            self._loss_and_gradients = tf.function(self._loss_and_gradients, jit_compile=True)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float32)
        self.loss_count = tf.Variable(0.0, dtype=tf.float32)
        self.best_sure_psnr = tf.Variable(-float("inf"), dtype=tf.float64)

    @property
    def step(self) -> int:
        """Number of steps done."""
        return int(self.optimizer.iterations)

    def trackables(self) -> dict:
        """Everything that a checkpoint holds."""
        return {
            "network": self.network,
            "optimizer": self.optimizer,
            "average": self.denoiser.network,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "best_sure_psnr": self.best_sure_psnr,
        }

    def is_finite(self) -> bool:
        """Says whether all that a checkpoint would hold is finite; the best PSNR starts at −∞ and does not count."""
        variables = [*self.network.weights, *self.optimizer.variables, *self.denoiser.network.weights, self.loss_sum]
        values = [tf.convert_to_tensor(variable) for variable in variables]
        return all(bool(tf.reduce_all(tf.math.is_finite(value))) for value in values if value.dtype.is_floating)

    def take_loss(self) -> float:
        """Gives the mean loss of the steps since it was last taken, and starts a new mean."""
        mean = float(self.loss_sum) / float(self.loss_count)
        self.loss_sum.assign(0.0)
        self.loss_count.assign(0.0)
        return mean

    @tf.function
    def train_on(self, noisy, sigma):
        """Does one step on a global batch, distributed or not: noisy (B, H, W, C) and sigma (B,)."""
        losses = self.strategy.run(self._replica_step, args=(noisy, sigma))
        self.loss_sum.assign_add(self.strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None))
        self.loss_count.assign_add(1.0)
        self._update_average()

    def _replica_step(self, noisy, sigma):
        """Adds one device's part to the gradient of the global mean, and applies the sum."""
        loss, gradients = self._loss_and_gradients(noisy, sigma)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_variables, strict=True))
        return loss

    def _loss_and_gradients(self, noisy, sigma):
        """Gives this device's share of the global mean loss, and its gradients."""
        level = tf.broadcast_to(sigma[:, None, None, None], (*tf.unstack(tf.shape(noisy)[:3]), 1))
        with tf.GradientTape() as tape:
            outputs = self.network(noisy, training=True)
            per_pixel = self.loss.call(tf.concat([noisy, level], axis=-1), outputs)
            # Divided by the global batch, not by this device's part of it: summed over devices this is the mean.
            loss = tf.reduce_sum(tf.reduce_mean(per_pixel, axis=(1, 2))) / self.config.batch
        return loss, tape.gradient(loss, self.network.trainable_variables)

    def _update_average(self):
        """Moves the averaged weights; the decay grows to `ema`, so that the first steps are forgotten quickly."""
        done = tf.cast(self.optimizer.iterations.value, tf.float32)
        decay = tf.minimum(self.config.ema, (1.0 + done) / (10.0 + done)) if self.config.ema else 0.0
        for average, weight in zip(self.denoiser.network.weights, self.network.weights, strict=True):
            average.assign(weight + decay * (average - weight))
