"""Which measurements may stand in one row of a table, and beside which published numbers.

Only what was measured on the same pixels may: the luminance of an image has another noise and another PSNR than its
colours, and grey images taken as RGB have three times the noise samples. So a set is a row for each number of channels.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bsdenoise.evaluation import references
from bsdenoise.evaluation.table import Row

SIGMA_TOLERANCE = 1e-6  # relative; σ is kept in single precision


@dataclass(frozen=True)
class MeasuredSet:
    """A set as it was measured with one number of channels.

    Attributes:
        title: What its rows are called.
        key: Key in `references.SETS`; `None` if it is none of those or was not recognised.
        channels: Number of channels compared.
        is_comparable: Whether published numbers are of the same noise and channels.
        rows: What was measured, by name of the contestant.
    """

    title: str
    key: str | None
    channels: int | None
    is_comparable: bool
    rows: Mapping[str, Row]

    @property
    def kind(self) -> tuple[int, int]:
        """Return what averaged sets share, in the order of the table: colour, grey, grey taken as colour."""
        channels = self.channels or 0
        is_grey_set = self.key is not None and references.SETS[self.key].channels == 1
        rank = 1 if channels == 1 else 2 if is_grey_set else 0
        return rank, channels


def gather(rows: Iterable[Row], known: Mapping[str, str], noise: str | None) -> list[MeasuredSet]:
    """Put rows of the same pixels together: colour sets first, then those of the papers first, in their order.

    Args:
        rows: Rows of `table.summarise`; averages among them are left out.
        known: Key of the test set by the name of the set, for those that were recognised.
        noise: SPEC of the noise that was added; `None` for real pairs.
    """
    groups: dict[tuple[str, int | None], dict[str, Row]] = {}
    for row in rows:
        if row.sets == 1:
            groups.setdefault((row.dataset, row.channels), {})[row.model] = row
    keys = {name: key for name, key in known.items() if key in references.SETS}
    sets = []
    for (name, channels), members in groups.items():
        key = keys.get(name)
        is_comparable = (
            key is not None
            and channels == references.SETS[key].channels
            and all(_is_published_noise(noise, row.sigma) for row in members.values())
        )
        title = _title(name, channels, list(groups), keys)
        sets.append(MeasuredSet(title, key, channels, is_comparable, members))
    places = {key: place for place, key in enumerate(references.SETS)}
    return sorted(sets, key=lambda one: (one.kind, places.get(one.key or "", len(places))))


def channels_in_words(channels: int | None) -> str:
    """Say how many channels there are."""
    return "1 channel" if channels == 1 else f"{channels} channels"


def _title(name: str, channels: int | None, groups: Sequence[tuple[str, int | None]], keys: Mapping[str, str]) -> str:
    """Name a set as the papers do, others by their own name; add what tells it from others where needed."""
    key = keys.get(name)
    if key is None:
        is_alone = sum(other == name for other, _ in groups) == 1
        return name if is_alone else f"{name}, {channels_in_words(channels)}"
    published = references.SETS[key]
    folders = {other for other, _ in groups if keys.get(other) == key}
    title = published.title if len(folders) == 1 else f"{published.title} ({name})"
    return title if channels == published.channels else f"{title}, {channels_in_words(channels)}"


def _is_published_noise(noise: str | None, sigma: float | None) -> bool:
    """Whether it is the noise of the publications: its kind from the SPEC, its σ as it was on the pixels."""
    kind = (noise or "").partition(":")[0]
    is_sigma = sigma is not None and math.isclose(sigma, references.SIGMA, rel_tol=SIGMA_TOLERANCE)
    return kind == references.NOISE and is_sigma
