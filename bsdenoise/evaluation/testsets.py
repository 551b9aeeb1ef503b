"""The paper's test sets, known by their pixels: is a folder one of them, all of it, and nothing else?

Copies of the same name differ: there is a Kodak set cropped to 500×500, a BSD68 in colour, BSD300 with its training
images. `testsets.json` holds name, size and a checksum of the decoded pixels of every image, so that files that were
renamed or saved anew without loss are recognised, and files that were encoded anew are noticed. It is what
`bsdenoise datasets kodak24 bsd300 set14 bsd68 --json testsets.json` writes.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

import numpy as np

from bsdenoise import images
from bsdenoise.evaluation import deviations, references

NUM_CHECKSUM_DIGITS = 16  # hexadecimal: 64 bits tell far more images apart than there are
FEWEST = 1 / 8  # part of a set below which its images may be in a folder for another reason
HALF = 1 / 2


@dataclass(frozen=True)
class SetImage:
    """One image, as it was measured or as it should be.

    Attributes:
        name: Path below the folder of the set; with "[k]" behind it for image k of a stack.
        width: In pixels.
        height: In pixels.
        channels: Number of channels.
        dtype: NumPy's name of the type of the pixels.
        checksum: Of shape, type and pixels; `None` if it was not needed.
    """

    name: str
    width: int
    height: int
    channels: int
    dtype: str
    checksum: str | None

    @property
    def stem(self) -> str:
        """Its name without folder and suffix, in small letters."""
        return PurePosixPath(self.name).stem.lower()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def layout(self) -> tuple[int, int, int, str]:
        """What can be known from the header of its file."""
        return self.width, self.height, self.channels, self.dtype


@dataclass(frozen=True)
class KnownSet:
    """A test set of the paper.

    Attributes:
        key: Its name on the command line, as in `references.SETS`.
        about: What it is, and what its files are usually called.
        source: Where it comes from.
        terms: What is said there about its use.
        draws: How often the paper draws noise for each image.
        images: What belongs to it.
        variants: Other versions that are common: what they are, by the size that all their images have.
        has_telling_names: Whether names like those of its files mean this set.
    """

    key: str
    about: str
    source: str
    terms: str
    draws: int
    images: tuple[SetImage, ...] = ()
    variants: tuple[tuple[tuple[int, int], str], ...] = ()
    has_telling_names: bool = True

    @property
    def title(self) -> str:
        """The papers' name of it."""
        return references.SETS[self.key].title


_DESCRIPTIONS = (
    KnownSet(
        key="kodak24",
        about="Kodak Lossless True Color Image Suite in full size, kodim01.png to kodim24.png",
        source="https://r0k.us/graphics/kodak/",
        terms="released by Kodak for unrestricted use",
        draws=10,
        variants=(((500, 500), "the cropped Kodak"),),
    ),
    KnownSet(
        key="bsd300",
        about="the 100 test images of the Berkeley segmentation data set BSDS300, as JPEG; of BSDS500 the part `val`",
        source="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/",
        terms="non-commercial research and education; asks for citation",
        draws=3,
    ),
    KnownSet(
        key="set14",
        about="Set14 of Zeyde, Elad and Protter (2010) in full size, baboon.png to zebra.png; `bridge` is grey",
        source="code for super-resolution, where it is the ground truth",
        terms="none known",
        draws=20,
    ),
    KnownSet(
        key="bsd68",
        about="68 of the test images of BSDS300 in grey, 8 bits, test001.png to test068.png",
        source="https://github.com/cszn/DnCNN, folder testsets/BSD68",
        terms="as BSD300",
        draws=4,
        has_telling_names=False,
    ),
)


@functools.cache
def known_sets() -> dict[str, KnownSet]:
    """Return the test sets by their keys, in the order of the paper's table."""
    text = resources.files("bsdenoise.evaluation").joinpath("testsets.json").read_text()
    measured = {folder["name"]: folder["images"] for folder in json.loads(text)}
    return {
        one.key: KnownSet(**vars(one) | {"images": tuple(SetImage(**entry) for entry in measured[one.key])})
        for one in _DESCRIPTIONS
    }


@dataclass(frozen=True)
class Measured:
    """What a folder holds.

    Attributes:
        images: Those that can be read.
        unreadable: The reasons why others cannot, by name.
    """

    images: Sequence[SetImage]
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Finding:
    """A folder that holds a known test set, or is meant to.

    Attributes:
        key: Which one, as in `references.SETS`.
        title: The papers' name of it.
        lines: What is wrong with it, one thing a line.
    """

    key: str
    title: str
    lines: list[str]

    @property
    def is_complete(self) -> bool:
        """Whether all images of the set are there, as they should be, and no others."""
        return not self.lines


def recognise(folder: str) -> Finding | None:
    """Tell which known test set a folder holds, and what is wrong with it.

    Args:
        folder: Folder (searched recursively), glob or file.

    Returns:
        The finding; `None` if it is no known set. Single images of a set among others do not make it that set.

    Raises:
        ValueError: If no image is there.
        OSError: If the folder cannot be read.
    """
    layouts = {image.layout for one in known_sets().values() for image in one.images}
    return identify(measure(folder, layouts))


def measure(
    folder: str,
    layouts: Collection[tuple[int, int, int, str]] | None = None,
    say: Callable[[str], object] | None = None,
) -> Measured:
    """Measure the images of a folder.

    Args:
        folder: As for `recognise`.
        layouts: Only images of these layouts are decoded, for their checksums; those of others stay `None`, which
            makes large folders of something else quick. `None` decodes all.
        say: As for `images.find`.

    Raises:
        ValueError: If no image is there.
        OSError: If the folder cannot be read.
    """
    base = images.base_of(folder)
    found: list[SetImage] = []
    unreadable = {}
    for path in images.find(folder, say):
        name = path.relative_to(base).as_posix()
        try:
            found += _measure_file(path, name, layouts)
        except (ValueError, OSError) as error:
            unreadable[name] = " ".join(str(error).removeprefix(f"{path}: ").split())
    return Measured(found, unreadable)


def _measure_file(path: Path, name: str, layouts: Collection[tuple[int, int, int, str]] | None) -> list[SetImage]:
    """Measure the image of a file, or those of a stack."""
    found = []
    with images.opened(path) as file:
        height, width, channels = (*file.shape[len(file.shape) == 4 :], 1)[:3]
        layout = width, height, channels, file.dtype.name
        for index in range(len(file)):
            checksum = checksum_of(file.read(index)) if layouts is None or layout in layouts else None
            found.append(SetImage(f"{name}[{index}]" if len(file) > 1 else name, *layout, checksum))
    return found


def checksum_of(array: np.ndarray) -> str:
    """Return a checksum of an image's pixels, the same however its file is named, compressed or annotated.

    Args:
        array: (H, W) or (H, W, C).
    """
    array = array[..., np.newaxis] if array.ndim == 2 else array
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    facts = f"{array.shape} {array.dtype.name} ".encode()
    return hashlib.sha256(facts + little.tobytes()).hexdigest()[:NUM_CHECKSUM_DIGITS]


def identify(measured: Measured) -> Finding | None:
    """Tell which known test set measured images are, as `recognise` does."""
    one = _closest(measured.images)
    if one is None:
        return None
    lines = deviations.describe(one.images, measured.images, measured.unreadable, dict(one.variants))
    lines += [
        f"{other.title} has as many images, of the same sizes: that is another set"
        for other in known_sets().values()
        if other is not one and _has_sizes_of(measured.images, other)
    ]
    return Finding(one.key, one.title, lines)


def _closest(found: Sequence[SetImage]) -> KnownSet | None:
    """Find the set that has most in common with the images, by the surest sign that there is."""
    sets = known_sets().values()
    signs: tuple[tuple[Callable[[SetImage], Hashable], Callable[[int, KnownSet], bool]], ...] = (
        (lambda image: image.checksum, lambda count, one: _is_meant(count, one, len(found))),
        (lambda image: (image.stem, image.size), lambda count, one: _is_meant(count, one, len(found))),
        (lambda image: image.stem, lambda count, one: one.has_telling_names and count >= HALF * len(one.images)),
    )
    for sign, is_enough in signs:
        here = {sign(image) for image in found}
        counts = {one.key: len(here & {sign(image) for image in one.images}) for one in sets}
        fitting = [one for one in sets if is_enough(counts[one.key], one)]
        if fitting:
            return max(fitting, key=lambda one: counts[one.key])
    return next((one for one in sets if _has_sizes_of(found, one) or _is_variant(found, one)), None)


def _is_meant(count: int, one: KnownSet, num_found: int) -> bool:
    """Whether images of a set are so many that the folder is meant to be that set."""
    return count >= FEWEST * len(one.images) and count >= HALF * min(len(one.images), num_found)


def _has_sizes_of(found: Sequence[SetImage], one: KnownSet) -> bool:
    return sorted(image.size for image in found) == sorted(image.size for image in one.images)


def _is_variant(found: Sequence[SetImage], one: KnownSet) -> bool:
    return len(found) == len(one.images) and any({image.size for image in found} == {size} for size, _ in one.variants)
