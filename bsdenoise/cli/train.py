"""`bsdenoise train`: trains a denoiser."""

import sys

from bsdenoise.cli import libraries
from bsdenoise.config import TrainConfig

SIGNAL_EXIT = 128  # shells report 128 + number for a process that a signal ended


def run(config: TrainConfig) -> int:
    """Trains, and says where the result is.

    Returns:
        0; or 128 + the number of the signal that stopped the run early.
    """
    libraries.load_keras()
    import tensorflow as tf

    from bsdenoise.training.loop import train

    # TensorFlow 2.21's remapper cannot fuse a leaky ReLU whose gradient is wanted: it gives up, and says so on stderr.
    tf.config.optimizer.set_experimental_options({"remapping": False})

    outcome = train(config)
    if outcome.signal:
        print(f"stopped at step {outcome.step}; run the same command again to go on", file=sys.stderr)
        return SIGNAL_EXIT + outcome.signal
    print(
        f"trained for {outcome.step} steps; best estimated PSNR in validation {outcome.score:.2f} dB\n"
        f"denoiser: {outcome.denoiser_path}"
    )
    return 0
