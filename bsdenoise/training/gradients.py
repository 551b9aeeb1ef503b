"""Loss and gradients of one device's part of a batch: at once, or in ways that need less memory.

All of them compute the same to rounding: this part's share of the mean loss of the whole batch, that is the sum over
its crops divided by the number of all, and its gradients in the order of `network.trainable_variables`. Summed over
devices that is the mean.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from bsdenoise.network import described


def make(
    network: keras.Model,
    loss: keras.losses.Loss,
    batch: int,
    micro_batch: int | None = None,
    recompute: bool = False,
    xla: bool = False,
) -> Callable:
    """Choose how gradients are computed.

    Args:
        network: The network, from (B, H, W, C) to (B, H, W, n).
        loss: Its `call` gives the loss of each pixel, (B, H, W); no crop's may depend on the others.
        batch: Number of crops of the whole batch, over all devices.
        micro_batch: How many crops are computed at a time; `None` for all.
        recompute: Whether branches are computed a second time instead of being kept.
        xla: Whether to compile with XLA.

    Returns:
        A function of what the network is shown and its targets, (B, H, W, …), that gives the loss and the gradients.

    Raises:
        ValueError: If branches are to be recomputed of a network that has none.
    """

    def share(target, outputs):
        return tf.reduce_sum(tf.reduce_mean(loss.call(target, outputs), axis=(1, 2))) / batch

    function = _recomputed(network, share, xla) if recompute else _at_once(network, share, xla)
    return function if micro_batch is None else _in_parts(function, network, micro_batch)


def _at_once(network, share, xla):
    """Keep all maps of all crops until the backward pass has used them."""

    def loss_and_gradients(shown, target):
        with tf.GradientTape() as tape:
            loss = share(target, network(shown, training=True))
        return loss, tape.gradient(loss, network.trainable_variables)

    return _compiled(loss_and_gradients, xla)


def _in_parts(function, network, size):
    """Go through the crops `size` at a time, the last time with what is left, and add up.

    A loop in the graph, one turn after the other: unrolled, or with turns side by side, memory would not be saved.
    """

    def loss_and_gradients(shown, target):
        def more(start, total, gradients):
            end = start + size
            part, part_gradients = function(shown[start:end], target[start:end])
            return end, total + part, [one + other for one, other in zip(gradients, part_gradients, strict=True)]

        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in network.trainable_variables]
        count = tf.shape(shown)[0]
        _, total, gradients = tf.while_loop(
            lambda start, *_: start < count, more, (0, tf.zeros(()), zeros), parallel_iterations=1
        )
        return total, gradients

    return loss_and_gradients


def _recomputed(network, share, xla):
    """Keep of each branch its input and its output alone; the backward pass computes the branch a second time.

    One branch after the other, so that there is never more than one in memory. `tf.recompute_grad` does not order them:
    in a graph it computes them again as soon as their inputs are there, all at once and before the head is done.
    Each piece is compiled by itself: across pieces XLA would find that it computes the same twice, and keep it.
    """
    parts = described(network).parts()
    if parts is None:
        raise ValueError(
            "--recompute is for networks with branches that join in a blind spot (--method full, per_component, l2). "
            f"Received: network {network.name!r} has none. --micro-batch saves memory with every network."
        )
    pieces, rest = parts
    forwards = [_compiled(lambda shown, piece=piece: piece(shown, training=True), xla) for piece in pieces]
    backwards = [_compiled(_backward(piece), xla) for piece in pieces]

    def of_rest(maps, target):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            loss = share(target, rest(maps, training=True))
        return loss, *tape.gradient(loss, (maps, rest.trainable_variables))

    of_rest = _compiled(of_rest, xla)

    def loss_and_gradients(shown, target):
        maps: list = []
        for forward in forwards:
            maps.append(forward(_after(maps[-1:], shown)))
        loss, upstream, rest_gradients = of_rest(maps, target)
        summed = _Sum()
        summed.add(rest.trainable_variables, rest_gradients)
        done = list(upstream)
        for piece, backward, gradient in zip(pieces, backwards, upstream, strict=True):
            done = backward(_after(done, shown), gradient)
            summed.add(piece.trainable_variables, done)
        return loss, [summed.of(variable) for variable in network.trainable_variables]

    return loss_and_gradients


def _backward(piece):
    """Return the function of an input and the gradient of the output that gives the gradients of the variables."""

    def backward(shown, upstream):
        with tf.GradientTape() as tape:
            maps = piece(shown, training=True)
        return tape.gradient(maps, piece.trainable_variables, output_gradients=upstream)

    return backward


class _Sum:
    """Adds up gradients by variable: branches share theirs."""

    def __init__(self):
        self._terms: dict[int, list] = {}

    def add(self, variables, gradients):
        for variable, gradient in zip(variables, gradients, strict=True):
            self._terms.setdefault(id(variable), []).append(gradient)

    def of(self, variable):
        return tf.add_n(self._terms[id(variable)])


def _after(tensors, value):
    """Return `value` once all of `tensors` are there; to the graph it is another one than without."""
    with tf.control_dependencies(tensors):
        return tf.identity(value)


def _compiled(function, xla):
    return tf.function(function, jit_compile=True, autograph=False) if xla else function
