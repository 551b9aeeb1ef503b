"""The table as in the paper: sets down, methods across, PSNRs in dB, with what was published beside what was measured.

Averages are over colour sets or over grey ones, never over both: where three channels help each other, PSNRs are
higher for another reason than that the method is better.
"""

import csv
import io
import itertools
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from bsdenoise.evaluation import references
from bsdenoise.evaluation.cases import RGB
from bsdenoise.evaluation.measured_sets import MeasuredSet, channels_in_words, gather
from bsdenoise.evaluation.table import Row

BEST_WITHIN = 0.05  # dB, what the paper's table sets in bold
ROUNDING = 1e-9  # dB; 31.10 - 0.05 is not quite 31.05
AVERAGE = "Average"
MEASURED = "measured"  # what programs read where people see no publication
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"  # ECMA-48, select graphic rendition


@dataclass(frozen=True)
class Column:
    """What is measured.

    Attributes:
        name: Name of the contestant.
        method: Name of its method.
    """

    name: str
    method: str


@dataclass(frozen=True)
class Line:
    """One row of the table, measured or published; sequences have one entry for each column.

    Attributes:
        set: Title of the set, or of the average.
        source: Label of the publication; `None` for what was measured.
        images: Number of images that each value is over; `None` where there is no value.
        psnr: PSNR in dB; `None` where there is none.
        best: Whether it is within 0.05 dB of the best measured one of the row.
    """

    set: str
    source: str | None
    images: tuple[int | None, ...]
    psnr: tuple[float | None, ...]
    best: tuple[bool, ...]

    @property
    def title(self) -> str:
        """Name the set, and the publication."""
        return self.set if self.source is None else f"{self.set}, {self.source}"


@dataclass(frozen=True)
class Table1:
    """The table.

    Attributes:
        columns: What was measured, in the order of the paper's table, other methods behind.
        lines: Its rows from top to bottom.
        notes: What a reader must know, a line each.
    """

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def heads(self) -> list[str]:
        """Name the columns as the paper does, by their methods; by the contestants where a method is there twice."""
        methods = [column.method for column in self.columns]
        return [column.method if methods.count(column.method) == 1 else column.name for column in self.columns]


def make(rows: Iterable[Row], contestants: Mapping[str, str], known: Mapping[str, str], noise: str | None) -> Table1:
    """Arranges what was measured as the paper does, and puts the published numbers beside.

    Args:
        rows: Rows of `table.summarise`. Its averages are not used: those of this table are over other sets.
        contestants: Method of each contestant by its name, in the order in which they were given.
        known: Key of the test set by the name of the set, for those that were recognised, complete or not.
        noise: SPEC of the noise that was added; `None` for real pairs.

    Raises:
        ValueError: If a row is of no contestant.
    """
    rows = list(rows)
    strangers = {row.model for row in rows} - contestants.keys()
    if strangers:
        raise ValueError(f"Rows must be of one of {', '.join(contestants)}. Received: {', '.join(sorted(strangers))}.")
    columns = _columns(contestants)
    sets = gather(rows, known, noise)
    lines: list[Line] = []
    for _, members in itertools.groupby(sets, key=lambda one: one.kind):
        group = list(members)
        for one in group:
            lines += [_measured(one, columns), *_published(one.title, [one], columns)]
        if len(group) > 1:
            lines += _averages(group, columns)
    return Table1(columns, tuple(lines), tuple(_notes(sets, lines)))


def as_text(table: Table1, is_bold: bool | None = None) -> str:
    """Render the table and its notes for a terminal.

    Args:
        table: The table.
        is_bold: Whether the best are set in bold by escape sequences, else by a star; `None` asks whether stdout is a
            terminal, and the environment's NO_COLOR.
    """
    if is_bold is None:
        is_bold = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    mark = f"{BOLD}{{}}{PLAIN}" if is_bold else "{}*"
    word = "bold" if is_bold else "*"
    # Aligned on the left, so that stars do not move the digits.
    return "\n".join([_render(table, mark, "simple", "left"), "", *_footnotes(table, word)])


def as_markdown(table: Table1) -> str:
    """Render the table and its notes in Markdown, the best in bold."""
    notes = [f"- {note}" for note in _footnotes(table, "bold")]
    return "\n".join([_render(table, "**{}**", "github", "right"), "", *notes])


def as_csv(table: Table1) -> str:
    """Render the table for programs, not rounded: set, source ("measured" or a publication), a column for each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "source", *(column.name for column in table.columns)])
    for line in table.lines:
        writer.writerow([line.set, line.source or MEASURED, *("" if value is None else value for value in line.psnr)])
    return text.getvalue()


def as_dict(table: Table1) -> dict[str, Any]:
    """Return the table as JSON takes it, not rounded; cells without a value are left out."""
    return {
        "columns": [{"name": column.name, "method": column.method} for column in table.columns],
        "rows": [
            {
                "set": line.set,
                "source": line.source or MEASURED,
                "psnr": _named(table, line.psnr),
                "images": _named(table, line.images),
                "best": [column.name for column, best in zip(table.columns, line.best, strict=True) if best],
            }
            for line in table.lines
        ],
        "references": {source.label: source.citation for source in _shown(table.lines)},
        "notes": list(table.notes),
    }


def _columns(contestants: Mapping[str, str]) -> tuple[Column, ...]:
    """Put contestants in the order of the paper's table; those of one method, or of another one, stay in their own."""
    places = {method: place for place, method in enumerate(references.METHOD_ORDER)}
    columns = [Column(name, method) for name, method in contestants.items()]
    return tuple(sorted(columns, key=lambda column: places.get(column.method, len(places))))


def _measured(one: MeasuredSet, columns: Sequence[Column]) -> Line:
    rows = [one.rows.get(column.name) for column in columns]
    psnr = [None if row is None else row.psnr for row in rows]
    images = [None if row is None else row.images for row in rows]
    return Line(one.title, None, tuple(images), tuple(psnr), _best(psnr))


def _averages(group: Sequence[MeasuredSet], columns: Sequence[Column]) -> list[Line]:
    """Average sets, each counted once, of the contestants that were measured on all of them."""
    psnr: list[float | None] = []
    images: list[int | None] = []
    for column in columns:
        rows = [one.rows[column.name] for one in group if column.name in one.rows]
        is_whole = len(rows) == len(group)
        psnr.append(sum(row.psnr for row in rows) / len(rows) if is_whole else None)
        images.append(sum(row.images for row in rows) if is_whole else None)
    if all(value is None for value in psnr):
        return []
    channels = group[0].channels
    title = AVERAGE if channels == RGB else f"{AVERAGE}, {channels_in_words(channels)}"
    return [Line(title, None, tuple(images), tuple(psnr), _best(psnr)), *_published(title, group, columns)]


def _published(title: str, group: Sequence[MeasuredSet], columns: Sequence[Column]) -> list[Line]:
    """Return a row of each publication that has something for these sets, or for their average."""
    if not all(one.is_comparable for one in group):
        return []
    keys = [one.key for one in group if one.key is not None]
    count = sum(references.SETS[key].images for key in keys)
    lines = []
    for source in references.SOURCES:
        psnr = [references.average(source, column.method, keys) for column in columns]
        if any(value is not None for value in psnr):
            images = tuple(None if value is None else count for value in psnr)
            lines.append(Line(title, source.label, images, tuple(psnr), (False,) * len(columns)))
    return lines


def _best(psnr: Sequence[float | None]) -> tuple[bool, ...]:
    best = max((value for value in psnr if value is not None), default=math.inf)
    return tuple(value is not None and value >= best - BEST_WITHIN - ROUNDING for value in psnr)


def _notes(sets: Sequence[MeasuredSet], lines: Sequence[Line]) -> list[str]:
    """Say where numbers of one row are not of the same images, and where the published ones come from."""
    notes = []
    with_references = {line.set for line in lines if line.source is not None}
    for one in sets:
        counts = sorted({row.images for row in one.rows.values()})
        in_words = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        if len(counts) > 1:
            notes.append(f"{one.title}: the columns are not over the same images ({in_words} of them)")
        if one.key is not None and one.title in with_references:
            whole = references.SETS[one.key].images
            if counts != [whole]:
                notes.append(
                    f"{one.title}: {in_words} images were measured and {whole} published: "
                    "its rows, and averages with it, compare a part with the whole"
                )
    notes += [f"{source.label}: {source.citation}" for source in _shown(lines)]
    return notes


def _footnotes(table: Table1, mark: str) -> list[str]:
    return [f"{mark}: within {BEST_WITHIN} dB of the best measured one of its row", *table.notes]


def _shown(lines: Iterable[Line]) -> list[references.Source]:
    labels = {line.source for line in lines}
    return [source for source in references.SOURCES if source.label in labels]


def _named(table: Table1, values: Sequence[Any]) -> dict[str, Any]:
    return {column.name: value for column, value in zip(table.columns, values, strict=True) if value is not None}


def _render(table: Table1, mark: str, style: str, align: str) -> str:
    """Lays the table out; `mark` is what becomes of the best values, as a format."""
    cells = []
    for line in table.lines:
        texts = ["" if value is None else f"{value:.2f}" for value in line.psnr]
        marked = [mark.format(text) if best else text for text, best in zip(texts, line.best, strict=True)]
        cells.append([line.title, *marked])
    heads = ["PSNR, dB", *table.heads]
    return tabulate(
        cells, heads, tablefmt=style, colalign=["left", *[align] * len(table.columns)], disable_numparse=True
    )
