"""Noise levels and errors as the page writes them: in the units of the file, with their name."""

import numpy as np

from bsdenoise.app.facts import Facts


def in_units(value: float, facts: Facts) -> str:
    """Write a σ or an error with its unit.

    Args:
        value: In the units of the file.
        facts: The file.
    """
    return f"{number(value, facts)} {unit(facts)}"


def span(values: tuple[float, ...], facts: Facts) -> str:
    """Write the least and the greatest of some values with their unit; a single one if they are the same."""
    low, high = (number(value, facts) for value in (min(values), max(values)))
    return f"{low if low == high else f'{low} to {high}'} {unit(facts)}"


def number(value: float, facts: Facts) -> str:
    """Write a value without its unit."""
    return f"{value:.4g}" if facts.dtype.kind == "f" or value < 1 else f"{value:.1f}"


def unit(facts: Facts) -> str:
    """Name the unit of a file's pixels, as it stands behind a number."""
    if facts.dtype.kind == "f":
        return "in the file's units"
    return "grey levels" if facts.dtype == np.uint8 else "counts"


def declared(facts: Facts) -> str:
    """Say in which units a value may be typed."""
    if facts.dtype.kind == "f":
        return "In the file's own units, as a number or a quotient such as 25/255."
    return f"In {unit(facts)} (full scale is {facts.full_scale:.0f}), or as a fraction of full scale such as 25/255."
