"""Tiles inside the graph: the plan of `bsdenoise.inference.tiling`, for sizes that are known only when an image comes.

One tile of one image is computed at a time and written into results that are allocated once, so that beside the
images themselves the memory is that of one tile.
"""

from typing import NamedTuple

import tensorflow as tf


class Tiles(NamedTuple):
    """How images are cut.

    Attributes:
        grid: Spacing of the network's pooling grid in pixels.
        tile: Largest side of a tile in pixels, on the grid.
        overlap: Context in pixels that a tile has on every inner side, on the grid.
        untiled_pixels: A batch of at most as many pixels is computed in one pass; of a larger one, each image of at
            most as many. Sides count as filled up to the grid, as the network does it: many tiny images are much work.
    """

    grid: int
    tile: int
    overlap: int
    untiled_pixels: int


def padded_pixels(shape: tf.Tensor, grid: int) -> tf.Tensor:
    """Count the pixels that the network computes for images of shape (B, H, W, …), int64."""
    sides = (tf.cast(shape[1:3], tf.int64) + grid - 1) // grid * grid
    return tf.cast(shape[0], tf.int64) * tf.reduce_prod(sides)


def count(size: tf.Tensor, tile: tf.Tensor, overlap: int) -> tf.Tensor:
    """Count the tiles along a side."""
    step = tile - 2 * overlap
    return 1 + tf.maximum(size - tile + step - 1, 0) // step


def span(index: tf.Tensor, size: tf.Tensor, tile: tf.Tensor, overlap: int) -> tuple[tf.Tensor, ...]:
    """Return for one tile along a side where it starts and stops, and where what is kept of it does."""
    start = index * (tile - 2 * overlap)
    stop = tf.minimum(start + tile, size)
    first = tf.where(start > 0, start + overlap, start)
    last = tf.where(stop < size, stop - overlap, stop)
    return start, stop, first, last


def is_untiled(shape: tf.Tensor, tiles: Tiles) -> tf.Tensor:
    """Tell whether images of shape (B, H, W, …) are computed in one pass, all together."""
    return padded_pixels(shape, tiles.grid) <= tiles.untiled_pixels


def for_mirroring(stop: tf.Tensor, size: tf.Tensor, last: tf.Tensor, grid: int) -> tf.Tensor:
    """Return where a tile along a side stops that has a mirror image, as `tiling.Tile.for_mirroring`."""
    return stop - tf.minimum((stop - size) % grid, stop - last)


def compute(moments, finish, image, theta, tiles: Tiles, *, pictures: int, means: int, are_mirrored: bool = False):
    """Compute pictures of the size of the images, and means over each image, whole or tile by tile.

    Args:
        moments: Function from images (B, H, W, C) and noise parameters (B, P) to tensors (B, H, W, C) that need
            context.
        finish: Function from which images these are, a slice, the images, θ and what `moments` gave for them to two
            lists: pictures (B, H, W, C), and means over the pixels (B,). It is called on the parts of tiles that are
            kept.
        image: (B, H, W, C).
        theta: Noise parameters, (B, P).
        tiles: How images are cut.
        pictures: Number of pictures that `finish` gives.
        means: Number of means that it gives.
        are_mirrored: Whether `moments` looks at mirror images too.

    Returns:
        The two lists, for the whole images.
    """
    batch, height, width = tf.unstack(tf.shape(image)[:3])
    # All images together, if they are few enough pixels; else one after the other. One loop for either, so that the
    # network stands in the graph once: TensorFlow takes seconds to optimise it.
    fits = is_untiled(tf.shape(image), tiles)
    group = tf.maximum(tf.where(fits, batch, 1), 1)
    # What is small enough is a tile by itself.
    is_small = padded_pixels(tf.stack([group, height, width]), tiles.grid) <= tiles.untiled_pixels
    tile = tf.where(is_small, tf.maximum(tf.maximum(height, width), tiles.tile), tiles.tile)
    rows, columns = (count(size, tile, tiles.overlap) for size in (height, width))
    pixels = tf.cast(height, tf.float32) * tf.cast(width, tf.float32)

    def step(index, done_pictures, done_means):
        first, row, column = index // (rows * columns) * group, index // columns % rows, index % columns
        top, bottom, first_row, last_row = span(row, height, tile, tiles.overlap)
        left, right, first_column, last_column = span(column, width, tile, tiles.overlap)
        if are_mirrored:
            bottom = for_mirroring(bottom, height, last_row, tiles.grid)
            right = for_mirroring(right, width, last_column, tiles.grid)
        some = slice(first, first + group)
        window = image[some, top:bottom, left:right]
        kept = (slice(None), slice(first_row - top, last_row - top), slice(first_column - left, last_column - left))
        inner = [moment[kept] for moment in moments(window, theta[some])]
        new_pictures, new_means = finish(some, window[kept], theta[some], *inner)
        places = _places(first, first + group, first_row, last_row, first_column, last_column, height, width)
        share = tf.cast((last_row - first_row) * (last_column - first_column), tf.float32) / pixels
        return (
            index + 1,
            [_written(*pair, places) for pair in zip(done_pictures, new_pictures, strict=True)],
            [
                tf.tensor_scatter_nd_add(mean, tf.range(first, first + group)[:, tf.newaxis], share * new)
                for mean, new in zip(done_means, new_means, strict=True)
            ],
        )

    flat = tf.reshape(image, (-1, image.shape[-1]))
    start = (0, [tf.zeros_like(flat)] * pictures, [tf.zeros((batch,))] * means)
    total = batch // group * rows * columns
    done = tf.while_loop(lambda index, *_: index < total, step, start, parallel_iterations=1)
    return [tf.reshape(picture, tf.shape(image)) for picture in done[1]], done[2]


def _places(first, after, first_row, last_row, first_column, last_column, height, width):
    """Return the numbers of a part's pixels among those of all images, (pixels, 1)."""
    images = tf.range(first, after)[:, tf.newaxis, tf.newaxis]
    rows = tf.range(first_row, last_row)[:, tf.newaxis]
    columns = tf.range(first_column, last_column)
    return tf.reshape((images * height + rows) * width + columns, (-1, 1))


def _written(picture, part, places):
    """Write a part into a picture of flat pixels, in place: TensorFlow copies it only while others read it too.

    Slices can be written too, but other programs that read SavedModels know no such operation.
    """
    return tf.tensor_scatter_nd_update(picture, places, tf.reshape(part, (-1, picture.shape[-1])))
