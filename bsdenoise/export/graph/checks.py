"""What the graph refuses before it computes anything, each with one sentence for the one who sent it.

A model server looks at neither shapes nor values, so the graph must. The shape of an input is pinned by its very
first op: a wrong rank that reaches a convolution can end the server's process. What an input holds is checked next,
one check after the other, and every later op waits for them.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from bsdenoise.export.graph.tiles import padded_pixels
from bsdenoise.noise import Parameter

# Of the numbers of an input that a sentence quotes, how many from each end.
QUOTED = 4
QUOTED_BYTES = 40  # of a word


class Rule(NamedTuple):
    """What must hold, and the sentence for when it does not.

    Attributes:
        holds: bool tensor ().
        sentence: What is said otherwise, with `{}` for each of `values`.
        values: Gives tensors for the sentence; called for when the rule is broken, so that they cost nothing else.
    """

    holds: tf.Tensor
    sentence: str
    values: Callable[[], Sequence[tf.Tensor]] = tuple


def checked(tensor: tf.Tensor, *rules: Rule) -> tf.Tensor:
    """Return the tensor once the rules hold; the first one that does not is an `InvalidArgumentError`."""
    checks: list[tf.Tensor] = []
    for rule in rules:
        with tf.control_dependencies(checks[-1:]):
            checks.append(_check(rule))
    return after(checks, tensor)


def after(tensors: Sequence[tf.Tensor], tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor once others have been computed."""
    with tf.control_dependencies(tensors):
        return tf.identity(tensor)


def image(tensor: tf.Tensor, channels: int, intensities: tuple[float, float], units: str, max_pixels: int) -> tf.Tensor:
    """Pins the shape (B, H, W, C), and refuses images that are empty, too large, not finite or in other units.

    Args:
        tensor: The input as it came.
        channels: C.
        intensities: Least and greatest pixel value.
        units: Their units, in words.
        max_pixels: Largest B·H·W.
    """
    tensor = tf.ensure_shape(tensor, (None, None, None, channels))
    shape = tf.shape(tensor, out_type=tf.int64)[:3]  # their product may be beyond 32 bits
    finite = tf.math.is_finite(tensor)
    low, high = intensities
    least, greatest = tf.reduce_min(tensor), tf.reduce_max(tensor)
    return checked(
        tensor,
        Rule(
            tf.reduce_all(shape > 0),
            "image is empty: batch, height and width must be at least 1. Received: [batch, height, width] = {}",
            lambda: [shape],
        ),
        Rule(
            tf.reduce_prod(shape) <= max_pixels,
            f"image holds too many pixels: this model takes at most {max_pixels} at once. Send fewer or smaller "
            "images, or export the model with a larger max_pixels. Received: [batch, height, width] = {}",
            lambda: [shape],
        ),
        Rule(
            tf.reduce_all(finite),
            "image holds NaN or infinite values, one at [batch, row, column, channel] = {}",
            lambda: [_position(~finite)],
        ),
        Rule(
            (least >= low) & (greatest <= high),
            f"image must hold pixels from {low:g} to {high:g}: their units are {units}. "
            "Received: pixels from {} to {}",
            lambda: [least, greatest],
        ),
    )


def padding(tensor: tf.Tensor, grid: int, limit: int) -> tf.Tensor:
    """Refuse so many small images that what the network fills them up to its grid with is the work.

    Args:
        tensor: Images that passed `image`.
        grid: Spacing of the network's pooling grid in pixels.
        limit: Largest number of pixels with the filling.
    """
    shape = tf.shape(tensor)
    return checked(
        tensor,
        Rule(
            padded_pixels(shape, grid) <= limit,
            f"image holds too many small images: this model fills each side up to a multiple of {grid} pixels, and "
            f"takes at most {limit} then. Send fewer at once. Received: [batch, height, width] = {{}}",
            lambda: [shape[:3]],
        ),
    )


def sigma(tensor: tf.Tensor, batch: tf.Tensor, scale: float, units: str) -> tf.Tensor:
    """Pins the shape (B,), and refuses what is no standard deviation, or one in other units.

    Args:
        tensor: The input as it came.
        batch: B.
        scale: The largest σ.
        units: The units of σ, in words.
    """
    tensor = tf.ensure_shape(tensor, (None,))
    return checked(
        tensor,
        Rule(
            tf.size(tensor) == batch,
            "sigma must hold one number per image. Received: {} number(s) for {} image(s)",
            lambda: [tf.size(tensor), batch],
        ),
        Rule(
            tf.reduce_all(tf.math.is_finite(tensor) & (tensor > 0.0)),
            "sigma must be positive and finite. Received: sigma = {}",
            lambda: [tensor],
        ),
        Rule(
            tf.reduce_all(tensor <= scale),
            f"sigma must be at most {scale:g}: its units are {units}. Received: sigma = {{}}",
            lambda: [tensor],
        ),
    )


def theta(
    tensor: tf.Tensor, batch: tf.Tensor, parameters: Sequence[Parameter], offset: float, scale: float
) -> tf.Tensor:
    """Pin the shape (B, P), and refuse what are no noise parameters.

    Args:
        tensor: The input as it came.
        batch: B.
        parameters: What they are, P of them.
        offset: Pixel value that the network sees as 0.
        scale: Difference of pixel values that it sees as 1.
    """
    tensor = tf.ensure_shape(tensor, (None, len(parameters)))
    names = ", ".join(parameter.name for parameter in parameters)
    return checked(
        tensor,
        Rule(
            tf.shape(tensor)[0] == batch,
            f"noise must hold {names} of each image. Received: {{}} row(s) for {{}} image(s)",
            lambda: [tf.shape(tensor)[0], batch],
        ),
        *(_within(tensor[:, index], one, *one.ends(offset, scale)) for index, one in enumerate(parameters)),
    )


def _within(values, parameter, low, high) -> Rule:
    return Rule(
        tf.reduce_all((values >= low) & (values <= high)),  # NaN is neither
        f"noise: {parameter.name} must lie between {low:g} and {high:g}. Received: {{}}",
        lambda: [values],
    )


def words(tensor: tf.Tensor, name: str, known: Sequence[str]) -> tf.Tensor:
    """Pins the shape (B,), and refuses words that are not known.

    Args:
        tensor: The input as it came.
        name: Its name.
        known: The words that are.
    """
    tensor = tf.ensure_shape(tensor, (None,))
    is_known = tf.reduce_any(tensor[:, tf.newaxis] == tf.constant(list(known)), axis=-1)
    return checked(
        tensor,
        Rule(
            tf.reduce_all(is_known),
            f"{name} must be {' or '.join(known)}. Received: {{}}",
            lambda: [tf.strings.substr(tf.boolean_mask(tensor, ~is_known)[0], 0, QUOTED_BYTES)],
        ),
    )


def size_rules(place: tf.Tensor, kind: str, height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tuple[Rule, Rule]:
    """Return the rules for the size that a file's header claims.

    Args:
        place: The file's name for sentences, string ().
        kind: Its format.
        height: int64, below 2^32.
        width: int64, below 2^32.
        max_pixels: Largest H·W.
    """
    values = lambda: [place, height, width]  # noqa: E731
    return (
        Rule((height > 0) & (width > 0), f"{{}} is empty: a {kind} file of {{}} row(s) and {{}} column(s)", values),
        Rule(
            # Not the product, which may be beyond 64 bits.
            width <= max_pixels // tf.maximum(height, 1),
            f"{{}} holds too many pixels: this model takes at most {max_pixels} per image. Send it in parts, or export "
            f"the model with a larger max_pixels. Received: a {kind} file of {{}} rows and {{}} columns",
            values,
        ),
    )


def _check(rule):
    """Return a tensor that cannot be computed if the rule is broken."""

    def refuse():
        words, values = rule.sentence.split("{}"), map(_in_words, rule.values())
        sentence = tf.strings.join([words[0], *itertools.chain(*zip(values, words[1:], strict=True))])
        return after([tf.debugging.Assert(False, [sentence])], tf.constant(False))

    return tf.cond(rule.holds, lambda: tf.constant(True), refuse)


def _in_words(value):
    return value if value.dtype == tf.string else tf.strings.format("{}", value, summarize=QUOTED)


def _position(mask):
    """Find the indices of a `True`: not `tf.where`, which may need many times the memory of the image."""
    flat = tf.argmax(tf.cast(tf.reshape(mask, [-1]), tf.uint8), output_type=tf.int64)
    return tf.unravel_index(flat, tf.shape(mask, out_type=tf.int64))
