"""`bsdenoise train`: trains a denoiser, alone, as a worker of a cluster, or with workers of its own."""

import sys
from typing import TYPE_CHECKING

from bsdenoise import cli
from bsdenoise.cli import libraries
from bsdenoise.config import TrainConfig

if TYPE_CHECKING:
    from bsdenoise.training.loop import Outcome

SIGNAL_EXIT = 128  # shells report 128 + number for a process that a signal ended


def run(config: TrainConfig) -> int:
    """Train, and say where the result is.

    Returns:
        0; 128 + the number of the signal that stopped the run early; 138 if another worker of the cluster was lost.
    """
    libraries.check_backend("train")
    if (config.workers or config.restarts) and not config.dry_run:
        from bsdenoise.training import supervisor

        return supervisor.supervise(config)
    libraries.load_keras()
    import tensorflow as tf

    from bsdenoise.training import watchdog
    from bsdenoise.training.distribution import PeerLostError
    from bsdenoise.training.loop import train

    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    if config.dry_run:
        from bsdenoise.training import dry_run

        with libraries.graphs_of_gradients():
            dry_run.show(config)
        return 0
    try:
        with libraries.graphs_of_gradients():
            outcome = train(config)
    except PeerLostError as error:
        cli.report(error)
        watchdog.leave(watchdog.EXIT_TRY_AGAIN)
    code = _concluded(outcome)
    if outcome.place.workers > 1:
        watchdog.leave(code)
    return code


def _concluded(outcome: "Outcome") -> int:
    """Say how it ended, once for all workers, and return the exit code."""
    if outcome.signal:
        if outcome.place.is_chief:
            print(f"stopped at step {outcome.step}; run the same command again to go on", file=sys.stderr)
        return SIGNAL_EXIT + outcome.signal
    if outcome.place.is_chief:
        summary, now = outcome.summary, outcome.summary["this_call"]
        score = "withheld" if outcome.score is None else f"{outcome.score:.2f} dB"
        print(
            f"trained for {outcome.step} steps, {summary['epochs']:.3g} epochs; "
            f"this time {now['images_per_second']:.3g} images/s; "
            f"{summary['skipped_steps']} steps skipped, {summary['left_out_images']} images left out\n"
            f"best estimated PSNR in validation {score}\n"
            f"denoiser: {outcome.denoiser_path}"
        )
    return 0
