"""Widens a trained network without changing what it computes, so that a large one need not start from nothing.

Maps are added to every layer. They begin with random weights, but nothing that was there reads them: the weights from
them to old maps are zero. So the wide network gives what the narrow one gives, and training finds use for the rest
(Chen, Goodfellow, Shlens: Net2Net, 2016, has the idea; there maps are copied).
"""

import numpy as np


def widened(network, wide):
    """Return weights for a wide network with which it computes what a narrow one does.

    Args:
        network: A `bsdenoise.network.BlindSpotUNet`.
        wide: Another one of the same channels, outputs and depth, and a width that is not less; with fresh weights.

    Returns:
        Arrays as `wide.set_weights` takes them.

    Raises:
        ValueError: If the two differ in more than their width, or `wide` is the narrower one.
    """
    narrow = {weight.path: np.asarray(weight) for weight in network.weights}
    if [*narrow] != [weight.path for weight in wide.weights]:
        raise ValueError("Only the width of a network can grow: the two have other layers.")
    old_blocks, new_blocks = network.joined_maps(), wide.joined_maps()
    grown = []
    for weight in wide.weights:
        old, new = narrow[weight.path], np.array(weight)
        if any(now < before for now, before in zip(new.shape, old.shape, strict=True)):
            raise ValueError(
                f"A network cannot become narrower: {weight.path} is {old.shape}, and shall be {new.shape}."
            )
        outputs = old.shape[-1]
        if old.ndim == 1:
            new[:outputs] = old
        else:
            layer = weight.path.split("/")[0]
            kept = _kept(old_blocks[layer], new_blocks[layer])
            new[..., :outputs] = 0.0
            new[:, :, kept, :outputs] = old
        grown.append(new)
    return grown


def _kept(old, new):
    """Return the places among new inputs of those that were there: the first of each block."""
    starts = np.cumsum([0, *new[:-1]])
    return np.concatenate([start + np.arange(count) for start, count in zip(starts, old, strict=True)])
