"""How the images of a folder differ from those of a test set, in words."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Protocol

MOST_NAMES = 10  # in one line
MOST_LINES = 3  # about the same thing
KINDS = {1: "grey", 3: "colour"}  # by the number of channels


class Image(Protocol):
    """What is known of an image, as `testsets.SetImage` has it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def stem(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def channels(self) -> int: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def checksum(self) -> str | None: ...  # noqa: D102


Pair = tuple[Image, Image]  # what is there, and what should be


def describe(
    expected: Sequence[Image],
    found: Sequence[Image],
    unreadable: Mapping[str, str],
    variants: Mapping[tuple[int, int], str],
) -> list[str]:
    """Say what is wrong, one thing a line; nothing if all images are there as they should be, and no others.

    Args:
        expected: The images of the set.
        found: The images of the folder.
        unreadable: Reasons why others in the folder cannot be read, by name.
        variants: What other versions of the set are, by the size of their images.
    """
    twins, rest, open_ = _match_pixels(expected, found)
    is_renamed = not (open_.keys() & {image.stem for image in rest}) and len(open_) == len(rest) == len(expected)
    pairs, strangers = _match_sizes(open_, rest) if is_renamed else _match_names(open_, rest)
    for name in unreadable:
        open_.pop(PurePosixPath(name).stem.lower(), None)
    return [
        *_missing(open_, len(expected)),
        *_deviations(pairs, sizes_in_words(image.size for image in expected), variants, is_renamed),
        *_twins(twins),
        *_strangers(strangers),
        *(f"{name}: {reason}" for name, reason in unreadable.items()),
    ]


def _match_pixels(
    expected: Sequence[Image], found: Sequence[Image]
) -> tuple[list[Pair], list[Image], dict[str, Image]]:
    """Find images by their pixels.

    Returns:
        Images that are there twice, with the first of each; images with other pixels than any of the set; and those of
        the set that were not found, by stem.
    """
    by_pixels = {image.checksum: image for image in expected}
    first: dict[str | None, Image] = {}
    twins, rest = [], []
    for image in found:
        if image.checksum not in by_pixels:
            rest.append(image)
        elif image.checksum in first:
            twins.append((image, first[image.checksum]))
        else:
            first[image.checksum] = image
    return twins, rest, {image.stem: image for image in expected if image.checksum not in first}


def _match_names(open_: dict[str, Image], rest: Iterable[Image]) -> tuple[list[Pair], list[Image]]:
    """Find images by their names, and take those that they stand for out of `open_`."""
    pairs, strangers = [], []
    for image in rest:
        meant = open_.pop(image.stem, None)
        if meant is None:
            strangers.append(image)
        else:
            pairs.append((image, meant))
    return pairs, strangers


def _match_sizes(open_: dict[str, Image], rest: Iterable[Image]) -> tuple[list[Pair], list[Image]]:
    """Take as many images as the set has for those of the set, in the order of their sizes; empty `open_`."""
    expected = sorted(open_.values(), key=lambda image: image.size)
    open_.clear()
    return list(zip(sorted(rest, key=lambda image: image.size), expected, strict=True)), []


def _missing(open_: Mapping[str, Image], total: int) -> list[str]:
    names = [image.name for image in open_.values()]
    return [f"{total - len(names)} of {total} images, missing: {_listed(names)}"] if names else []


def _deviations(
    pairs: Iterable[Pair], sizes: str, variants: Mapping[tuple[int, int], str], is_renamed: bool
) -> list[str]:
    """Describe images that are meant to be those of the set, each by the grossest difference that it has."""
    other_size, other_channels, other_type, other_pixels = [], [], [], []
    for pair in pairs:
        image, meant = pair
        if image.size != meant.size:
            other_size.append(pair)
        elif image.channels != meant.channels:
            other_channels.append(pair)
        elif image.dtype != meant.dtype:
            other_type.append(pair)
        else:
            other_pixels.append(pair)
    names = (
        "other names and pixels, same sizes: other images, or" if is_renamed else "same names and sizes, other pixels:"
    )
    return [
        *_of_other_size(other_size, sizes, variants),
        *_lines(other_channels, "have other channels", lambda a, b: f"{_kind(a)} instead of {_kind(b)}"),
        *_lines(other_type, "have pixels of another type", lambda a, b: f"{a.dtype} instead of {b.dtype}"),
        *_in_general(other_pixels, f"{names} re-encoded, or decoded differently"),
    ]


def _of_other_size(pairs: Sequence[Pair], sizes: str, variants: Mapping[tuple[int, int], str]) -> list[str]:
    own = {image.size for image, _ in pairs}
    if len(own) == 1 and own <= variants.keys():
        (size,) = own
        count = f"{len(pairs)} images" if len(pairs) > 1 else "1 image"
        return [f"{count} of {in_words(size)}: these are {variants[size]}, the paper's are {sizes}"]

    def instead(image: Image, meant: Image) -> str:
        hint = " (turned)" if image.size == meant.size[::-1] else ""
        return f"{in_words(image.size)} instead of {in_words(meant.size)}{hint}"

    return _lines(pairs, "have other sizes", instead)


def _kind(image: Image) -> str:
    return KINDS.get(image.channels, f"{image.channels} channels")


def _lines(pairs: Sequence[Pair], what: str, instead: Callable[[Image, Image], str]) -> list[str]:
    """Return a line for each of a few images, one for many."""
    if len(pairs) <= MOST_LINES:
        return [f"{image.name}: {instead(image, meant)}" for image, meant in pairs]
    image, meant = pairs[0]
    return [f"{len(pairs)} images {what}, the first is {image.name}: {instead(image, meant)}"]


def _in_general(pairs: Sequence[Pair], what: str) -> list[str]:
    if len(pairs) <= MOST_LINES:
        return [f"{image.name}: {what}" for image, _ in pairs]
    return [f"{len(pairs)} images, {pairs[0][0].name} is the first: {what}"]


def _twins(twins: Sequence[Pair]) -> list[str]:
    return _lines(twins, "are there twice", lambda _, first: f"the same image as {first.name}")


def _strangers(strangers: Sequence[Image]) -> list[str]:
    names = [image.name for image in strangers]
    count = f"{len(names)} images are" if len(names) > 1 else "1 image is"
    return [f"{count} not of this set: {_listed(names)}"] if names else []


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_NAMES])} and {more} more"


def in_words(size: tuple[int, int]) -> str:
    """Write width and height."""
    return f"{size[0]}×{size[1]}"


def sizes_in_words(sizes: Iterable[tuple[int, int]]) -> str:
    """Name up to two sizes, of more the smallest and the largest."""
    different: Collection[tuple[int, int]] = sorted(set(sizes), key=lambda size: (size[0] * size[1], -size[0]))
    if len(different) <= 2:
        return " and ".join(map(in_words, different))
    first, *_, last = different
    return f"{in_words(first)} to {in_words(last)}"
