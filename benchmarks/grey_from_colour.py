"""Makes a start for a grey network of a colour one: `python -m benchmarks.grey_from_colour MODEL OUT.keras`.

What a network has learnt to see in colour images serves in grey ones, too. The weights of the three colours are added
up, so that a grey image goes through the network as it would with three equal channels. It is no denoiser yet: equal
channels have equal noise, which the colour network has never seen. Some hundred steps of training put that right.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

COLOURS = 3
EXIT_FAILED = 2


def grey_weights(colour, grey):
    """Gives weights for a grey network that make of a colour one what can be made of it.

    Args:
        colour: Blind-spot network of 3 channels with the outputs of a Gaussian.
        grey: Another one of 1 channel, else of the same size.

    Returns:
        Arrays as `grey.set_weights` takes them. Mean: that of the three. Factor: the first entry of its diagonal.
    """
    weights = []
    for old, new in zip(colour.weights, grey.weights, strict=True):
        values = np.asarray(old)
        if values.shape[-1] != new.shape[-1]:  # the last layer
            mean = values[..., :COLOURS].mean(axis=-1, keepdims=True)
            values = np.concatenate([mean, values[..., COLOURS : COLOURS + 1]], axis=-1)
        elif values.shape != tuple(new.shape):  # a layer that reads the image, behind other maps or alone
            image = values[:, :, -COLOURS:].sum(axis=2, keepdims=True)
            values = np.concatenate([values[:, :, :-COLOURS], image], axis=2)
        weights.append(values)
    return weights


def grey_start(denoiser):
    """Gives a grey `Denoiser` with the weights of a colour one; it wants to be trained.

    Raises:
        ValueError: If the denoiser is none of three channels that predicts a distribution.
    """
    from bsdenoise.network import BlindSpotUNet

    colour = denoiser.network
    if not isinstance(colour, BlindSpotUNet) or denoiser.channels != COLOURS or denoiser.method.name != "full":
        raise ValueError("Expected a model of method full with three channels.")
    grey = BlindSpotUNet(1, colour.width, colour.depth, pooling=colour.pooling)
    grey.set_weights(grey_weights(colour, grey))
    provenance = (denoiser.provenance or {}) | {"made_grey": True}
    return type(denoiser)(grey, denoiser.noise, factor=denoiser.factor, provenance=provenance)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("model", help="run folder, .keras file or preset of a colour model")
    parser.add_argument("out", type=Path, help="file to write, which ends in .keras")
    arguments = parser.parse_args()
    from bsdenoise import atomic, loading

    try:
        if arguments.out.suffix != ".keras":
            raise ValueError(f"{arguments.out}: expected a name that ends in .keras.")
        grey = grey_start(loading.load(arguments.model))
        with atomic.replacing(arguments.out) as temporary:
            grey.save(temporary)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(f"{arguments.out}: train it on with bsdenoise train … --channels 1 --init {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
