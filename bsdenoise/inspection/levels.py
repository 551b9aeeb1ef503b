"""The values that pixels have: where they are clipped, how far apart they are, and how many there are."""

import math

import numpy as np

from bsdenoise.inspection.records import Clipping, Levels
from bsdenoise.likelihood.sure import MIN_PILE, MIN_PILE_SHARE

PILE_OVER_NEXT = 1.0  # of a limit over the value next to it: the tail of a histogram falls towards its end
MIN_REPEATS = 8  # times that floats must have each of their values, for these to be levels
TOLERANCE = 0.05  # of a step, by which levels of floats may be off
MIN_PER_LEVEL = 10  # pixels, for an empty level to mean something
SHOWN_BINS = 256  # of histograms


class Values:
    """The values of some pixels, counted.

    Args:
        pixels: Finite numbers of any shape, at least one.
        full_scale: Value of a fully lit pixel; `None` for floats, which have none.
    """

    def __init__(self, pixels: np.ndarray, full_scale: float | None):
        self._is_integer = pixels.dtype.kind in "ui"
        self._full_scale = full_scale
        self.values, self.counts = np.unique(pixels, return_counts=True)
        if self._is_integer:
            self.values = self.values.astype(np.int64)
        self.number = int(self.counts.sum())

    @property
    def is_constant(self) -> bool:
        """Whether all are equal."""
        return len(self.values) == 1

    def clipping(self) -> Clipping:
        """Find out what is clipped: where so many pixels have the least or the greatest value that it is a limit."""
        low, high = (float(self.values[end]) for end in (0, -1))
        shares = [float(self.counts[end] / self.number) for end in (0, -1)]
        at_limit = [
            self._full_scale is not None and low == 0,
            self._full_scale is not None and high == self._full_scale,
        ]
        is_limit = [
            not self.is_constant
            and self.counts[end] >= MIN_PILE
            and share >= MIN_PILE_SHARE
            and (known or self.counts[end] > PILE_OVER_NEXT * self.counts[following])
            for end, following, share, known in zip((0, -1), (1, -2), shares, at_limit, strict=True)
        ]
        return Clipping(low, high, shares[0], shares[1], bool(is_limit[0]), bool(is_limit[1]))

    def step(self) -> float | None:
        """Return the difference of neighbouring levels; `None` if there is none.

        The ends do not count, as clipping makes values of its own, and neither do values of a single pixel, such as
        those of defects.
        """
        inner = slice(1, -1) if len(self.values) > 4 else slice(None)
        values, counts = self.values[inner], self.counts[inner]
        if self._is_integer:
            repeated = values[counts > 1]
            values = repeated if len(repeated) > 2 else self.values
            return float(np.gcd.reduce(np.diff(values))) if len(values) > 1 else None
        if len(values) < 3 or self.number < MIN_REPEATS * len(self.values):
            return None
        gaps = np.diff(values.astype(np.float64))
        step = float(np.median(gaps[gaps < 1.5 * gaps.min()]))
        multiples = gaps / step
        is_grid = np.mean(np.abs(multiples - np.rint(multiples)) < TOLERANCE) > 0.99
        return step if is_grid else None

    def described(self, sigma: float) -> Levels:
        """Describe the levels, given the standard deviation of the noise."""
        step = self.step()
        used = None
        place = np.cumsum(self.counts) / self.number
        low, high = (self.values[min(int(np.searchsorted(place, end)), len(place) - 1)] for end in (0.01, 0.99))
        if step is not None and high > low:
            between = (self.values >= low) & (self.values <= high)
            possible = float(high - low) / step + 1
            if self.counts[between].sum() >= MIN_PER_LEVEL * possible:
                used = min(float(between.sum() / possible), 1.0)
        span = float(self.values[-1]) - float(self.values[0])
        noise = max(sigma * math.sqrt(12), step or 0.0)  # a step is noise of 1/√12 of it
        bits = math.log2(span / noise) if span > 0 and noise > 0 else None
        return Levels(len(self.values), step, used, None if step is None else sigma / step, bits)

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Count them in bins of equal width, of integers a whole number of steps wide; gives counts and edges."""
        low, high = (float(self.values[end]) for end in (0, -1))
        step = self.step() if self._is_integer else None
        if step is None:
            edges = np.linspace(low, high if high > low else low + 1.0, SHOWN_BINS + 1)
        else:
            width = step * max(1, math.ceil(((high - low) / step + 1) / SHOWN_BINS))
            edges = np.arange(low - step / 2, high + width, width)
        counts, _ = np.histogram(self.values, edges, weights=self.counts)
        return counts, edges
