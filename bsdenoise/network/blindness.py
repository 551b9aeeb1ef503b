"""The size of a blind spot, as numbers and as text: height × width in pixels, both odd."""

import re

AUTO = "auto"  # what stands for a size where the images are to tell
MAX_SIZE = 31  # noise that pixels further apart share is no noise of pixels any more
_TEXT = re.compile(r"\s*(\d+)\s*(?:x\s*(\d+)\s*)?", re.IGNORECASE)


def size_of(value, name: str = "The blind spot") -> tuple[int, int]:
    """Read the size of a blind spot.

    Args:
        value: Height and width in pixels, an odd number for both, or text such as "3x3", "5x1" and "1".
        name: What it is called where it is refused.

    Raises:
        ValueError: If it is neither, or not odd, or out of range.

    Example:
        >>> size_of("5x1"), size_of(3)
        ((5, 1), (3, 3))
    """
    pair = value
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        pair = match and (int(match[1]), int(match[2] or match[1]))
    elif isinstance(value, int):
        pair = (value, value)
    if (
        not isinstance(pair, tuple | list)
        or len(pair) != 2
        or not all(type(side) is int and side % 2 and 1 <= side <= MAX_SIZE for side in pair)
    ):
        raise ValueError(
            f"{name} must be odd numbers of pixels from 1 to {MAX_SIZE}, height x width, such as 1, 3x3 or 5x1. "
            f"Received: {value!r}."
        )
    height, width = pair
    return height, width


def of_flag(text) -> tuple[int, int]:
    """Read what a command line gives as `--blind-spot`, as `size_of`."""
    return size_of(text, "--blind-spot")


def shifts(size: tuple[int, int]) -> tuple[int, int]:
    """Return by how many pixels the maps of branches are moved that look up or down, and left or right.

    A branch that looks upwards sees rows ≤ i − s then; together they see all but (2s − 1) rows and as many columns.
    """
    height, width = size
    return (height + 1) // 2, (width + 1) // 2


def in_words(size: tuple[int, int]) -> str:
    """Write a size as `size_of` reads it."""
    return "x".join(map(str, size))
