"""What is measured: clean images with noise added, the same for every method, or real pairs of noisy and clean.

The noise of an image is a function of its pixels and of the number of the draw, of nothing else: neither the name nor
the place of the folder, nor which other images or methods are measured beside it. It is neither clipped nor rounded,
and scales with its parameters. This is the protocol of Laine, Lehtinen, Aila (2019).
"""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bsdenoise import images, noise
from bsdenoise.images import missing

GREY, RGB = 1, 3


class Told(NamedTuple):
    """The noise of an image, in its units.

    Attributes:
        kind: The kind of noise.
        theta: Its parameters.
    """

    kind: str
    theta: tuple[float, ...]

    @property
    def parameters(self) -> tuple[noise.Parameter, ...]:
        """What the numbers are."""
        return tuple(noise.get(self.kind).parameters)

    @property
    def sigma(self) -> float | None:
        """Standard deviation of white Gaussian noise; `None` of other noise."""
        return self.theta[0] if self.kind == noise.GaussianNoise.kind else None


@dataclass(frozen=True)
class Case:
    """One image to denoise, and what is needed to judge the result.

    Attributes:
        noisy: float32 (H, W, C); full scale 1 for integer files, else in the file's own units.
        clean: float32 (H, W, C), in the same units.
        noise: The noise in those units; `None` if the method must know it by itself.
        levels: Greatest value of the clean file's integer type; `None` for float files.
        notes: What was done to the file's pixels, in words.
        independent_channels: Whether the channels are no colours.
        counts: Which values were measured in both images, bool (H, W, C); the others are filled. `None` for all.
    """

    noisy: np.ndarray
    clean: np.ndarray
    noise: Told | None
    levels: int | None
    notes: tuple[str, ...] = ()
    independent_channels: bool = False
    counts: np.ndarray | None = None

    @property
    def sigma(self) -> float | None:
        """Standard deviation of the noise; `None` if that is not known, or not all that there is to know."""
        return None if self.noise is None else self.noise.sigma

    @property
    def peak(self) -> float:
        """Full scale of integer files; of float files the range of the clean image."""
        if self.levels is not None:
            return 1.0
        clean = self.clean if self.counts is None else self.clean[self.counts]
        return float(clean.max() - clean.min()) or 1.0


@dataclass(frozen=True)
class Item:
    """One image of a set, not read yet.

    Attributes:
        dataset: Name of its set.
        name: Its path below the folder of the set; with "[k]" behind it for image k of a stack.
        path: The clean file.
        index: Number of the image in the file.
        noisy_path: The noisy file of a real pair.
        draw: Number of the noise draw.
        axes: Letters of the axes of `.npy` files and plain Zarr arrays; `None` goes by their names and shapes.
        no_data: Value of pixels that hold no measurement, as for `images.opened`.
    """

    dataset: str
    name: str
    path: Path
    index: int = 0
    noisy_path: Path | None = None
    draw: int = 0
    axes: str | None = None
    no_data: float | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that it is read from."""
        return (self.path,) if self.noisy_path is None else (self.path, self.noisy_path)

    @property
    def label(self) -> str:
        """A path of names that says which image and draw it is."""
        return f"{self.dataset}/{self.name}/draw-{self.draw}"


def clean_items(
    folders: Sequence[str],
    draws: Sequence[int] = (1,),
    every: Sequence[int] = (1,),
    axes: str | None = None,
    say: Callable[[str], object] | None = None,
) -> list[Item]:
    """List the images of folders of clean images, each as often as noise is drawn for it.

    Args:
        folders: Folders, files or globs; each is a set of its own.
        draws: Number of noise draws, one for all sets or one for each.
        every: Only every so many images of a set, in the order of their names, beginning with the first; one number for
            all sets or one for each.
        axes: Letters of the axes of arrays, as for `images.read`.
        say: As for `images.find`.

    Raises:
        ValueError: If a folder holds no image, or the numbers do not fit.
    """
    counts, steps = _for_each(folders, "--draws", draws), _for_each(folders, "--every", every)
    if len(set(map(os.path.realpath, folders))) < len(folders):
        raise ValueError(f"--data names a set twice. Received: {' '.join(folders)}.")
    items = []
    for folder, name, count, step in zip(folders, set_names(folders), counts, steps, strict=True):
        found = list(_images_of(folder, name, axes, say))[::step]
        items += [replace(item, draw=draw) for item in found for draw in range(count)]
    return items


def _for_each(folders: Sequence[str], flag: str, numbers: Sequence[int]) -> list[int]:
    """Return the number of each set."""
    if len(numbers) not in (1, len(folders)):
        raise ValueError(
            f"{flag} takes one number, or one for each of {len(folders)} --data. Received: {len(numbers)}."
        )
    if min(numbers) < 1:
        raise ValueError(f"{flag} must be at least 1. Received: {min(numbers)}.")
    return list(numbers) * (len(folders) // len(numbers))


def paired_items(
    noisy_folder: str,
    clean_folder: str,
    every: Sequence[int] = (1,),
    axes: str | None = None,
    say: Callable[[str], object] | None = None,
) -> list[Item]:
    """List real pairs: files of the same name, whatever their suffix, below two folders.

    Args:
        noisy_folder: Folder, file or glob of the noisy images.
        clean_folder: Likewise of the clean ones.
        every: As for `clean_items`.
        axes: As for `clean_items`.
        say: As for `images.find`.

    Raises:
        ValueError: If a folder holds no image, or an image has no partner.
    """
    (step,) = _for_each([clean_folder], "--every", every)
    (name,) = set_names([clean_folder])
    noisy, clean = (_by_stem(folder, name, axes, say) for folder in (noisy_folder, clean_folder))
    alone = sorted(noisy.keys() ^ clean.keys())
    if alone:
        folder = noisy_folder if alone[0] in noisy else clean_folder
        raise ValueError(
            f"{len(alone)} image(s) have no partner, the first is {alone[0]} in {folder}. "
            "Noisy and clean files must have the same names."
        )
    return [replace(clean[stem], noisy_path=noisy[stem].path) for stem in sorted(clean)][::step]


def set_names(folders: Sequence[str]) -> list[str]:
    """Name sets by their folders; by all that was given where two folders have the same name."""
    short = [Path(folder).resolve().name for folder in folders]
    return [name if short.count(name) == 1 else folder for name, folder in zip(short, folders, strict=True)]


def usual_channels(items: Sequence[Item]) -> int:
    """Return the number of channels that most of the images have, for methods that take grey and RGB images alike.

    Args:
        items: The images; those that cannot be read do not count. RGB wins a tie.
    """
    counts = Counter({RGB: 0})
    for (path, _), item in {(item.noisy_path or item.path, item.index): item for item in items}.items():
        with contextlib.suppress(ValueError, OSError):  # to be named when it is measured, beside those that can be
            counts[_read(path, item)[0].shape[-1]] += 1
    return counts.most_common(1)[0][0]


def _by_stem(folder: str, name: str, axes: str | None, say: Callable[[str], object] | None) -> dict[str, Item]:
    """List a folder's images by their names without suffix, which must not be the same for two of them."""
    found: dict[str, Item] = {}
    for item in _images_of(folder, name, axes, say):
        other = found.setdefault(_stem(item), item)
        if other is not item:
            raise ValueError(f"{other.path} and {item.path} have the same name: which one is meant is unclear.")
    return found


def read_clean(item: Item, channels: int, spec: str) -> Case:
    """Read a clean image and add its noise.

    Args:
        item: Which image and draw.
        channels: Number of channels of the method: colour becomes luminance for 1, grey is repeated for 3.
        spec: Noise SPEC.

    Raises:
        ValueError: If the file is broken, or has other channels.
        OSError: If it cannot be opened.
    """
    picture, gaps = _read(item.path, item)
    array, notes = picture.array, picture.notes
    if channels == RGB and array.shape[-1] == GREY:
        # The noise is added afterwards, so it is independent in each of the three.
        array, notes = np.repeat(array, RGB, axis=-1), (*notes, "grey, taken as RGB with three equal channels")
    array = images.to_channels(array, channels)
    clean = images.to_unit(array, picture.bits)
    declared = noise.read(spec, picture.full_scale)
    # Floats have units of their own, of which the noise may be many.
    limit = declared.reach if array.dtype.kind == "f" and not noise.is_relative(spec) else 1.0
    model = declared.rescaled(0.0, limit).made()
    rng = np.random.default_rng([*_seed(array), item.draw])
    theta = model.restored(model.draw(rng), 0.0, np.float32(limit))
    noisy = model.corrupt(clean, theta, rng)
    told = Told(model.kind, tuple(map(float, theta)))
    return Case(noisy, clean, told, _levels(picture), notes, counts=_counts(gaps, clean.shape))


def read_pair(item: Item, channels: int) -> Case:
    """Read a noisy and a clean image of the same size and type, and with as many channels as the method takes.

    Raises:
        ValueError: If a file is broken, has other channels, or the two do not fit together.
        OSError: If one cannot be opened.
    """
    if item.noisy_path is None:
        raise ValueError(f"{item.path}: has no noisy partner.")
    (noisy, noisy_gaps), (clean, clean_gaps) = (_read(path, item) for path in (item.noisy_path, item.path))
    if noisy.shape[-1] != channels:
        # Neither luminance nor repeated channels would have the noise that the method expects.
        raise ValueError(f"{item.noisy_path}: has {noisy.shape[-1]} channel(s); the model takes {channels}.")
    if noisy.shape != clean.shape or noisy.full_scale != clean.full_scale:
        raise ValueError(
            f"{item.noisy_path}: its partner has another size or bit depth. "
            f"Received: {noisy.shape} {noisy.array.dtype} and {clean.shape} {clean.array.dtype}."
        )
    unit, clean_unit = (images.to_unit(picture.array, picture.bits) for picture in (noisy, clean))
    gaps = noisy_gaps if clean_gaps is None else clean_gaps if noisy_gaps is None else noisy_gaps | clean_gaps
    counts = _counts(gaps, clean.shape)
    return Case(unit, clean_unit, None, _levels(clean), noisy.notes, counts=counts)


def are_independent(item: Item, channels: int) -> bool:
    """Tell from the header whether the channels of an image are no colours.

    Args:
        item: The image.
        channels: Number of channels of the method.

    Raises:
        ValueError: If they are, and the method takes one: they have no luminance. Also if the file is broken.
        OSError: If it cannot be opened.
    """
    for path in item.paths:
        with images.opened(path, item.axes) as file:
            if file.independent_channels and channels == GREY:
                raise ValueError(
                    f"{path}: its {file.channels} channels are independent and have no luminance: save each as a file "
                    "of its own to measure a method for grey images."
                )
            if file.independent_channels:
                return True
    return False


def _images_of(folder: str, name: str, axes: str | None, say: Callable[[str], object] | None) -> Iterator[Item]:
    images.check_axes(axes)
    base = images.base_of(folder)
    for path in images.find(folder, say):
        below = path.relative_to(base)
        try:
            count = images.count(path, axes)
        except (ValueError, OSError):
            count = 1  # to be named when it is read, beside those that can be
        for index in range(count):
            name_in_set = below.as_posix() + (f"[{index}]" if count > 1 else "")
            yield Item(name, name_in_set, path, index, axes=axes)


def _stem(item: Item) -> str:
    """Return the name that the partners of a pair share."""
    path = Path(item.name)
    return (path.parent / path.name.removesuffix(path.suffix)).as_posix() + (f"[{item.index}]" if item.index else "")


def _read(path: Path, item: Item) -> tuple[images.Picture, np.ndarray | None]:
    """Read an image, (H, W, C), filled; and which of its values were not measured, `None` if all were."""
    picture = images.read_image(path, item.index, item.axes, item.no_data)
    array = picture.array[..., np.newaxis] if picture.array.ndim == 2 else picture.array
    gaps = missing.where(array, picture.no_data)
    return replace(picture, array=array if gaps is None else missing.filled(array, gaps)), gaps


def _counts(gaps: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return which values of an image of that shape were measured, from the gaps of the file, (H, W, …).

    Raises:
        ValueError: If none was.
    """
    if gaps is None:
        return None
    if gaps.all():
        raise ValueError(missing.NOTHING_MEASURED)
    return ~np.broadcast_to(gaps if gaps.shape == shape else gaps.any(axis=-1, keepdims=True), shape)


def _levels(picture: images.Picture) -> int | None:
    return None if picture.array.dtype.kind == "f" else int(picture.full_scale)


def _seed(array: np.ndarray) -> list[int]:
    """Return numbers that stand for an image: its shape and a checksum of its pixels."""
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
    return [*array.shape, int.from_bytes(digest[:8], "little")]
