"""The optimizers that training can use: Adam, as in the paper, and Muon, which learns faster."""

import keras
from keras import ops

ADAM_BETA_1 = 0.9


def make(name, learning_rate, beta_2, **kwargs):
    """Make an optimizer.

    Args:
        name: "adam" or "muon".
        learning_rate: A number or a schedule.
        beta_2: Adam's decay of squared gradients; of Muon for what it leaves to Adam.
        **kwargs: Further arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: If there is none of that name.
    """
    if name == "adam":
        return keras.optimizers.Adam(learning_rate, beta_1=ADAM_BETA_1, beta_2=beta_2, **kwargs)
    if name == "muon":
        decays = {"weight_decay": None, "adam_weight_decay": None}
        return ConvMuon(learning_rate, adam_beta_1=ADAM_BETA_1, adam_beta_2=beta_2, **decays, **kwargs)
    raise ValueError(f"`name` must be 'adam' or 'muon'. Received: name={name!r}.")


@keras.saving.register_keras_serializable(package="bsdenoise")
class ConvMuon(keras.optimizers.Muon):
    """Muon (Jordan et al. 2024) for networks of convolutions; Keras' own takes matrices alone.

    A kernel (h, w, in, out) is the matrix (h·w·in, out) of the product that convolution is. Its momentum is replaced by
    the nearest matrix of orthogonal columns or rows, so that all directions of the kernel learn at one pace; the step
    is scaled by 0.2 · √(greater side) as by Liu et al. 2025, so that it is about as large as one of Adam's. First
    and last kernel, in the order of the variables, and all biases are left to Adam, as by Muon's authors.

    Args:
        **kwargs: As for `keras.optimizers.Muon`.
    """

    def build(self, var_list):
        """Make the state for variables."""
        kernels = [variable for variable in var_list if len(variable.shape) == 4]
        # Of one or two kernels nothing would be left to Muon.
        ends = (kernels[0], kernels[-1]) if len(kernels) > 2 else ()
        self._ends = {variable.path for variable in ends}
        super().build(var_list)

    def _should_use_adamw(self, variable):
        return len(variable.shape) != 4 or variable.path in self._ends

    def _muon_update_step(self, gradient, variable, lr, m):
        # A running mean where Keras has a sum: after orthogonalisation their length does not matter.
        self.assign_add(m, ops.multiply(gradient - m, 1.0 - self.momentum))
        direction = gradient + self.momentum * (m - gradient) if self.nesterov else m
        matrix = ops.reshape(direction, (-1, variable.shape[-1]))
        step = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, ops.reshape(step, variable.shape))
