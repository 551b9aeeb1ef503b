"""The learning rate over a run."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bsdenoise")
class RampUpDown(keras.optimizers.schedules.LearningRateSchedule):
    """Rises along a cosine, stays, and falls along a squared cosine, as in the paper's authors' experiments.

    With t from 0 to 1 along each ramp, the rate is lr · (½ − ½ cos πt) on the way up and
    lr · (½ + ½ cos πt)² on the way down.

    Args:
        learning_rate: Rate between the ramps, > 0.
        steps: Number of steps of the whole run, ≥ 1.
        ramp_up: Fraction of the run spent rising, 0 to 1.
        ramp_down: Fraction of the run spent falling, 0 to 1.

    Raises:
        ValueError: If an argument is out of range, or the ramps together take more than the run.
    """

    def __init__(self, learning_rate, steps, ramp_up=0.1, ramp_down=0.3):
        super().__init__()
        if not learning_rate > 0:
            raise ValueError(f"`learning_rate` must be positive. Received: learning_rate={learning_rate!r}.")
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1. Received: steps={steps!r}.")
        if not (ramp_up >= 0 and ramp_down >= 0 and ramp_up + ramp_down <= 1):
            raise ValueError(
                "`ramp_up` and `ramp_down` are fractions of the run and together at most 1. "
                f"Received: ramp_up={ramp_up!r}, ramp_down={ramp_down!r}."
            )
        self.learning_rate = learning_rate
        self.steps = steps
        self.ramp_up = ramp_up
        self.ramp_down = ramp_down

    def __call__(self, step):
        """Return the rate of step 0, 1, …, `steps` − 1."""
        done = (ops.cast(step, "float32") + 0.5) / self.steps
        rate = self.learning_rate
        if self.ramp_up > 0:
            rising = ops.clip(done / self.ramp_up, 0.0, 1.0)
            rate = rate * (0.5 - 0.5 * ops.cos(math.pi * rising))
        if self.ramp_down > 0:
            falling = ops.clip((done - 1.0 + self.ramp_down) / self.ramp_down, 0.0, 1.0)
            rate = rate * ops.square(0.5 + 0.5 * ops.cos(math.pi * falling))
        return rate

    def get_config(self):
        """Return the arguments from which the schedule can be made again."""
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "ramp_up": self.ramp_up,
            "ramp_down": self.ramp_down,
        }
