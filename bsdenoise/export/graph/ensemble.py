"""The self-ensemble inside the graph: the copies of `bsdenoise.inference.self_ensemble`, one after the other."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from bsdenoise.inference.self_ensemble import Change


def average(
    compute: Callable[[tf.Tensor], Sequence[tf.Tensor]], images: tf.Tensor, changes: Sequence[Change]
) -> list[tf.Tensor]:
    """Average what a function makes of images that are changed in several ways.

    Not in a loop: in one, OpenVINO cannot run what lies in several ways.

    Args:
        compute: From images (B, H, W, C) to tensors of that shape.
        images: (B, H, W, C).
        changes: The changes.
    """
    sums: list[tf.Tensor] = []
    for change in changes:
        with tf.control_dependencies(sums):  # never two copies in memory
            found = [_undone(one, change) for one in compute(_changed(tf.identity(images), change))]
        sums = [total + one for total, one in zip(sums, found, strict=True)] if sums else found
    return [total / len(changes) for total in sums] if len(changes) > 1 else sums


def _changed(images, change):
    return _flipped(tf.transpose(images, (0, 2, 1, 3)) if change.transposed else images, change)


def _undone(images, change):
    images = _flipped(images, change)
    return tf.transpose(images, (0, 2, 1, 3)) if change.transposed else images


def _flipped(images, change):
    # What OpenVINO makes of `tf.reverse` along two axes has no rank.
    return images[:, :: -1 if change.upside_down else 1, :: -1 if change.mirrored else 1]
