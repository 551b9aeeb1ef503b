"""One step of training on all devices: gradient of the global batch mean, optimizer, and the moving average.

A step whose loss or gradient is not finite changes no weight: it is counted, and its place in the data order is passed.
"""

import keras
import numpy as np
import tensorflow as tf

from bsdenoise.config import TrainConfig
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.denoiser import Denoiser
from bsdenoise.methods import optimizers
from bsdenoise.training import gradients, own_network, starting_point
from bsdenoise.training.schedule import RampUpDown

# What checkpoints call the estimated squared error of the denoiser that is kept, and its PSNR. Those of earlier
# versions hold a PSNR alone, which was cut off at 100 dB.
BEST, EARLIER_BEST = "best", "best_score"


class TrainingState:
    """The network that is trained, its optimizer, and the averaged network inside a denoiser.

    Args:
        config: The run's flags.
        data: The training images, for method, channels, noise and units.
        strategy: The devices.
        start: What the network starts from; `None` for what the flags say.

    Raises:
        ValueError: If `config.recompute` does not fit the network, `config.init` not the run, or `config.network` not
            the method.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingImages,
        strategy: tf.distribute.Strategy,
        start: starting_point.Start | None = None,
    ):
        self.config = config
        self.strategy = strategy
        method = data.method
        self.loss = method.loss(data.channels, config.factor, data.noise)
        self.start = start = start or starting_point.load(config, data)
        size = start.size
        with strategy.scope():
            keras.utils.set_random_seed(config.seed)
            self.network = own_network.build(config, method, size, config.precision, start.blind_spot)
            if start.weights is not None:
                self.network.set_weights(start.weights)
            else:
                starting_point.begin_in_the_middle(self.network, data.channels)
            self.schedule = RampUpDown(config.learning_rate, config.steps, config.ramp_up, config.ramp_down)
            self.optimizer = optimizers.make(config.optimizer, self.schedule, config.beta_2)
            self.optimizer.build(self.network.trainable_variables)
        # The average lives in float32 on one device, in the network that is validated and saved.
        self.denoiser = Denoiser(
            own_network.build(config, method, size, "float32", start.blind_spot),
            data.noise,
            method=method.name,
            factor=config.factor,
            offset=data.offset,
            scale=data.scale,
            fractional=data.fractional,
        )
        self.denoiser.network.set_weights(self.network.get_weights())
        self.denoiser.check_blindness()
        height, width = self.denoiser.blind_spot or (1, 1)
        data.half_turns = height != width  # noise that pixels of one column share would lie in a row
        most = -(-config.batch // strategy.num_replicas_in_sync)  # crops of one device
        micro_batch = config.micro_batch if config.micro_batch and config.micro_batch < most else None
        self._loss_and_gradients = gradients.make(
            self.network, self.loss, config.batch, micro_batch, config.recompute, config.xla
        )
        self.loss_sum = tf.Variable(0.0, dtype=tf.float32)
        self.loss_count = tf.Variable(0.0, dtype=tf.float32)
        self._num_skipped = tf.Variable(0, dtype=tf.int64)
        self._best = tf.Variable([float("inf"), float("nan")], dtype=tf.float64)

    @property
    def step(self) -> int:
        """Number of steps done."""
        # As a tensor: a mirrored variable is no number by itself.
        return int(tf.convert_to_tensor(self.optimizer.iterations))

    @property
    def num_skipped(self) -> int:
        """Number of these steps that changed nothing, for their loss or gradient was not finite."""
        return int(self._num_skipped)

    @property
    def best_error(self) -> float:
        """Estimated squared error of the denoiser that is kept; ∞ if there is none, NaN if it was chosen otherwise."""
        return float(self._best[0])

    @property
    def best_psnr(self) -> float | None:
        """Estimated PSNR of the denoiser that is kept, in dB; `None` if it is withheld, or there is none."""
        return None if np.isnan(self._best[1]) else float(self._best[1])

    def keep(self, error: float, psnr: float | None) -> None:
        """Remember the estimates of a denoiser that is kept."""
        self._best.assign([error, float("nan") if psnr is None else psnr])

    def trackables(self) -> dict:
        """Everything that a checkpoint holds."""
        return {
            "network": self.network,
            "optimizer": self.optimizer,
            "average": self.denoiser.network,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "num_skipped": self._num_skipped,
            BEST: self._best,
        }

    def is_finite(self) -> bool:
        """Say whether all that a checkpoint would hold is finite; the least error starts at ∞ and does not count."""
        variables = [*self.network.weights, *self.optimizer.variables, *self.denoiser.network.weights, self.loss_sum]
        values = [tf.convert_to_tensor(variable) for variable in variables]
        return all(bool(tf.reduce_all(tf.math.is_finite(value))) for value in values if value.dtype.is_floating)

    def take_loss(self) -> float:
        """Return the mean loss of the steps since it was last taken, and start a new mean; NaN if all were skipped."""
        count = float(self.loss_count)
        mean = float(self.loss_sum) / count if count else float("nan")
        self.loss_sum.assign(0.0)
        self.loss_count.assign(0.0)
        return mean

    # No translation of Python into graphs, which takes seconds: nothing here needs it.
    @tf.function(autograph=False)
    def train_on(self, shown, target, stop=False):
        """Do one step on a global batch, distributed or not.

        Args:
            shown: What the network is shown.
            target: Its targets.
            stop: Whether this worker was told to stop, the same shape on all: a scalar bool.

        Returns:
            How many devices belong to workers that were told to stop, a scalar float32, the same on all of them.
        """
        shares, sums = self.strategy.run(self._replica_gradients, args=(shown, target, tf.cast(stop, tf.float32)))
        loss, num_broken, num_stopping = tf.unstack(self.strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None))
        # Decided from sums, so that all devices decide alike.
        is_finite = tf.logical_and(tf.math.is_finite(loss), tf.equal(num_broken, 0.0))
        tf.cond(is_finite, lambda: self._apply(shares, loss), self._skip)
        return num_stopping

    def _replica_gradients(self, shown, target, stop):
        """Return one device's share of the gradient of the global mean, and what is to be added up over devices."""
        loss, shares = self._loss_and_gradients(shown, target)
        is_broken = tf.logical_not(tf.math.is_finite(tf.linalg.global_norm(shares)))
        return shares, tf.stack([loss, tf.cast(is_broken, tf.float32), stop])

    def _apply(self, shares, loss):
        """Add up the gradients of all devices, and do what a good step does."""
        self.strategy.run(self._replica_update, args=(shares,))
        self.loss_sum.assign_add(loss)
        self.loss_count.assign_add(1.0)
        self._update_average()
        return tf.constant(0)

    def _replica_update(self, shares):
        self.optimizer.apply_gradients(zip(shares, self.network.trainable_variables, strict=True))

    def _skip(self):
        """Count the step, and leave everything else as it is."""
        self.optimizer.iterations.value.assign_add(1)
        self._num_skipped.assign_add(1)
        return tf.constant(0)

    def _update_average(self):
        """Move the averaged weights; the decay grows to `ema`, so that the first steps are forgotten quickly."""
        done = tf.cast(self.optimizer.iterations.value, tf.float32)
        decay = tf.minimum(self.config.ema, (1.0 + done) / (10.0 + done)) if self.config.ema else 0.0
        for average, weight in zip(self.denoiser.network.weights, self.network.weights, strict=True):
            average.assign(weight + decay * (average - weight))
