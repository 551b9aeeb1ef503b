"""What several files have together."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bsdenoise.inspection import curves
from bsdenoise.inspection.fixed_pattern import MIN_IMAGES, Shared
from bsdenoise.inspection.measuring import Measured
from bsdenoise.inspection.records import Collection, Estimate
from bsdenoise.noise import noise_floor, verdicts


def together(measured: Sequence[Measured], pattern: Shared | None = None) -> Collection:
    """Take files together: one verdict, and numbers if they have one unit.

    Args:
        measured: The files, one at least.
        pattern: What was seen of what they share; `None` if nobody looked.
    """
    files = [one.file for one in measured]
    counts = Counter(file.verdict for file in files)
    verdict = counts.most_common(1)[0][0]
    floors = [floor for one in measured for floor in one.floors]
    if len(files) > 1 and noise_floor.is_correlated(floors, 1.0):
        verdict = verdicts.CORRELATED
    if len({file.units for file in files}) > 1:
        return Collection(verdict, dict(counts), False)
    channels = [channel for file in files for channel in file.channels]
    if verdict == verdicts.SIGNAL_DEPENDENT:  # the others would flatten the line
        channels = [channel for channel in channels if channel.verdict == verdict]
    sigmas = np.array([channel.sigma.value for channel in channels])
    error = channels[0].sigma.error
    if len(sigmas) > 1:  # 1.25: a median is that much less certain than a mean
        error = float(1.25 * sigmas.std(ddof=1) / len(sigmas) ** 0.5)
    sigma = Estimate(float(np.median(sigmas)), error)
    known = [channel.curve for channel in channels if channel.curve is not None]
    spans = [channel.clipping.greatest - channel.clipping.least for channel in channels]
    curve = curves.pooled(known, max(*spans, 1e-300) if len(spans) > 1 else spans[0] or 1.0)
    maps = [channel.correlation for channel in channels if channel.correlation is not None]
    return Collection(
        verdict,
        dict(counts),
        True,
        sigma,
        gain=None if curve is None else curve.gain,
        at_black=None if curve is None else curve.sigma,
        pedestal=None if curve is None else curve.pedestal,
        correlation=np.mean(maps, axis=0) if maps else None,
        pattern=None if pattern is None or len(files) < MIN_IMAGES else pattern.found(sigma.value),
    )
