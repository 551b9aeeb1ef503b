"""Lower levels of a pyramid: each the means of blocks of the level above, of any number of axes, in bounded memory."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

BATCH_VALUES = 2**22  # of the level above that are in memory at once, as float64 32 MB
Region = tuple[slice, ...]


def edges(above: int, below: int) -> np.ndarray:
    """Return where the blocks of an axis begin and end, (below + 1,).

    Blocks are of one size, except that the last one may be cut short, or what is left of an odd side belongs to none;
    only where no whole number fits the two sides do the sizes differ by one.

    Args:
        above: Length of the axis in the level above.
        below: Length of the axis in this level, at most as much.
    """
    size = block(above, below)
    if isinstance(size, int):
        return np.minimum(np.arange(below + 1) * size, above)
    return np.arange(below + 1) * above // below


def block(above: int, below: int) -> int | float:
    """Return how long blocks are: the whole number that fits the two sides, or their mean length where none does.

    Args:
        above: Side of the level above.
        below: Side of the level below, in the same direction.
    """
    ratio = round(above / below)
    return ratio if below in (above // ratio, -(-above // ratio)) else above / below


def fill(lower: Any, above: Any) -> None:
    """Compute a level from the one above, each of its chunks or shards once and as a whole.

    Args:
        lower: Zarr array to write.
        above: Zarr array to read, of the same axes.
    """
    cuts = [edges(whole, side) for whole, side in zip(above.shape, lower.shape, strict=True)]
    for region in regions(lower.shape, lower.shards or lower.chunks):
        lower[region] = _means(above, cuts, region, lower.dtype)


def regions(shape: Sequence[int], unit: Sequence[int]) -> Iterator[Region]:
    """Divide an array into parts of whole units, several at a time along its last axis if they are small.

    Args:
        shape: Shape of the array.
        unit: Shape of a unit, such as a chunk or shard.
    """
    several = max(1, BATCH_VALUES // math.prod(unit))
    steps = [*unit[:-1], unit[-1] * several]
    ranges = [range(0, side, step) for side, step in zip(shape, steps, strict=True)]
    for starts in itertools.product(*ranges):
        yield tuple(slice(at, min(at + step, side)) for at, step, side in zip(starts, steps, shape, strict=True))


def _means(above: Any, cuts: list[np.ndarray], region: Region, dtype: Any) -> np.ndarray:
    """Compute a part of a level, by halves if it takes too much of the level above."""
    box = tuple(slice(int(cut[part.start]), int(cut[part.stop])) for cut, part in zip(cuts, region, strict=True))
    sizes = [part.stop - part.start for part in box]
    splittable = [axis for axis, part in enumerate(region) if part.stop - part.start > 1]
    if math.prod(sizes) > BATCH_VALUES and splittable:
        axis = max(splittable, key=lambda axis: sizes[axis])
        middle = (region[axis].start + region[axis].stop) // 2
        halves = (slice(region[axis].start, middle), slice(middle, region[axis].stop))
        parts = [_means(above, cuts, (*region[:axis], half, *region[axis + 1 :]), dtype) for half in halves]
        return np.concatenate(parts, axis)
    part = np.asarray(above[box]).astype(np.float64)
    for axis, (cut, place) in enumerate(zip(cuts, region, strict=True)):
        starts, counts = cut[place.start : place.stop], np.diff(cut[place.start : place.stop + 1])
        if (counts > 1).any():
            sums = np.add.reduceat(part, starts - starts[0], axis)
            part = sums / counts.reshape([-1 if number == axis else 1 for number in range(part.ndim)])
    return (np.rint(part) if np.dtype(dtype).kind in "iu" else part).astype(dtype)
