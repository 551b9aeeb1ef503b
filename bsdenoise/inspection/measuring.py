"""What is measured of one file: its images in the middle, channel by channel, and the decision how it is denoised."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bsdenoise import images
from bsdenoise.images import filled_files, masks, missing
from bsdenoise.images.intensity_range import fit_range
from bsdenoise.images.pixels import NUM_COLOURS
from bsdenoise.inference import tiling
from bsdenoise.inspection import channels
from bsdenoise.inspection.channels import Image
from bsdenoise.inspection.fixed_pattern import Shared
from bsdenoise.inspection.records import Channel, InspectedFile
from bsdenoise.noise import verdicts
from bsdenoise.noise.noise_floor import NoiseFloor
from bsdenoise.noise.signal_dependent import in_units
from bsdenoise.pipeline import float_units
from bsdenoise.pipeline.denoising_model import parts_of
from bsdenoise.pipeline.float_units import Units

MEASURED_SIDE = 1024  # pixels of the middle, of which everything but the decision is measured
MEASURED_IMAGES = 4  # of a stack, whose noise is measured
SHARED_IMAGES = 16  # of a stack, among which patterns and defects of the detector are looked for
MOST_VALUES = 2**26  # of all these, which are kept in memory
PICTURE_SIDE = 512  # most pixels of a thumbnail
GREEN = 1  # the channel of a colour image that is looked at for patterns


@dataclass(frozen=True)
class Measured:
    """A file that was looked at, and what is needed to look at several together.

    Attributes:
        file: What was found.
        floors: Noise of the quiet parts of its first image, as fractions of its range.
        plane: Its first image, one channel, (H, W), with gaps filled.
        counts: Where that holds measurements, bool (H, W).
    """

    file: InspectedFile
    floors: list[NoiseFloor]
    plane: np.ndarray
    counts: np.ndarray


def measure(path: Path, axes: str | None = None, no_data: float | None = None, mask: Path | None = None) -> Measured:
    """Look at a file.

    Args:
        path: The file.
        axes: As for `images.opened`.
        no_data: Likewise.
        mask: File with its mask, if it has one.

    Raises:
        ValueError: If it cannot be read, or holds no measurement.
        OSError: If it cannot be opened.
    """
    with images.opened(path, axes, no_data) as file:
        with filled_files.filled(file, mask) as filled:
            units = float_units.of_floats(filled) if file.dtype.kind == "f" else Units()
        height, width = file.shape[-3:-1] if len(file.shape) > 2 else file.shape
        rows, columns = tiling.middle(height, width, tiling.MIDDLE)
        values = min(height, MEASURED_SIDE) * min(width, MEASURED_SIDE) * file.channels
        numbers = _spread(len(file), max(1, min(SHARED_IMAGES, MOST_VALUES // values)))
        measured = {int(numbers[place]) for place in _spread(len(numbers), MEASURED_IMAGES)}
        looked = _Looked(path, file, units, rows, columns)
        for number in map(int, numbers):
            image = _read(file, number, rows, columns, units, mask)
            if image is not None:
                looked.add(image, number in measured)
    return looked.measured(len(numbers))


def measure_picture(name: str, picture: images.Picture, ignored: np.ndarray | None = None) -> Measured:
    """Look at the middle of one image that has been read.

    8-bit pixels are taken as fractions of full scale, of anything else the range is fitted, as for a training.

    Args:
        name: What it is called.
        picture: The image, (H, W) or (H, W, C).
        ignored: Pixels to ignore beside those that it says itself, bool (H, W, 1) or (H, W, C).

    Raises:
        ValueError: If it holds no measurement.
    """
    array = picture.array if picture.array.ndim == 3 else picture.array[..., np.newaxis]
    gaps = missing.where(array, picture.no_data, ignored)
    rows, columns = tiling.middle(array.shape[0], array.shape[1], MEASURED_SIDE)
    array, gaps = array[rows, columns], None if gaps is None else gaps[rows, columns]
    if gaps is not None and gaps.all():
        raise ValueError(f"{name}: {missing.NOTHING_MEASURED}.")
    units = Units()
    if array.dtype != np.uint8:
        measured = array if gaps is None else array[~gaps]
        units = Units(*fit_range(measured if measured.dtype.kind == "f" else images.to_unit(measured, picture.bits)))
    looked = _Looked(Path(name), picture, units, rows, columns)
    looked.add(_image(array, gaps, units, picture.bits), True)
    return looked.measured(1)


def _spread(number: int, most: int) -> np.ndarray:
    """Return so many numbers from 0 to `number` − 1 at most, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).astype(int))


def _read(
    file: images.ImageFile, number: int, rows: slice, columns: slice, units: Units, mask: Path | None
) -> Image | None:
    """Read the middle of an image as `denoise` would show it to a preset; `None` if it holds no measurement."""
    pixels = file.read_window(number, rows, columns)
    with _mask(file, number, mask) as window:
        ignored = None if window is None else window(rows, columns)
    pixels = pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    gaps = missing.where(pixels, file.no_data, ignored)
    return None if gaps is not None and gaps.all() else _image(pixels, gaps, units, file.bits)


@contextlib.contextmanager
def _mask(file: images.ImageFile, number: int, mask: Path | None) -> Iterator[Callable | None]:
    if mask is None:
        yield None
        return
    with masks.opened(mask, number, file.shape[1:] if len(file.shape) == 4 else file.shape) as window:
        yield window


def _image(pixels: np.ndarray, gaps: np.ndarray | None, units: Units, bits: int | None) -> Image:
    """Fill gaps, and add pixels as the model is given them."""
    counts = np.ones(pixels.shape, bool) if gaps is None else ~gaps
    pixels = pixels if gaps is None else missing.filled(pixels, gaps)
    unit = units.to_model(pixels if pixels.dtype.kind == "f" else images.to_unit(pixels, bits))
    return Image(pixels, counts, unit.astype(np.float32, copy=False))


def _middle(image: Image) -> Image:
    height, width, _ = image.pixels.shape
    rows, columns = tiling.middle(height, width, MEASURED_SIDE)
    return Image(*(part[rows, columns] for part in (image.pixels, image.counts, image.unit)))


class _Looked:
    """The images of a file that were looked at, one after the other.

    Args:
        source: Name of the file.
        file: The open file, or an image that has been read.
        units: Of its floats, or of its integers as fractions of full scale.
        rows: What is looked at of each image.
        columns: Likewise.
    """

    def __init__(
        self, source: Path, file: images.ImageFile | images.Picture, units: Units, rows: slice, columns: slice
    ):
        self._source, self._file, self._rows, self._columns = source, file, rows, columns
        self._units = units
        self._channels = file.shape[-1] if len(file.shape) > 2 else 1
        self._is_rgb = self._channels == NUM_COLOURS and not file.independent_channels
        self._scale = units.scale * file.full_scale  # difference of pixel values that is 1
        self._decisions: list[verdicts.Decision] = []
        self._found: list[Image] = []
        self._all: list[Image] = []
        self._pattern = Shared()

    def add(self, image: Image, is_measured: bool) -> None:
        """Look at an image for the pattern and the defects of the detector, and for its noise if that `is_measured`."""
        middle = _middle(image)
        if is_measured:
            parts = parts_of(image.unit, self._channels if self._is_rgb else 1)
            self._decisions.append(verdicts.decide(parts, verdicts.PRESETS))
            self._found.append(middle)
        channel = GREEN if self._is_rgb else 0
        self._pattern.add(middle.pixels[..., channel], middle.counts[..., channel])
        self._all.append(middle)

    def measured(self, number: int) -> Measured:
        """Return what was found.

        Args:
            number: How many images were looked at, with those that hold no measurement.

        Raises:
            ValueError: If none of those that were to be measured holds a measurement.
        """
        if not self._found:
            raise ValueError(f"{self._source}: {missing.NOTHING_MEASURED}.")
        found, file = self._found, self._file
        is_float = found[0].pixels.dtype.kind == "f"
        described = self._described(None if is_float else file.full_scale)
        theta = np.median([decision.theta for decision in self._decisions], axis=0)
        units, rows, columns = self._units, self._rows, self._columns
        record = InspectedFile(
            source=self._source,
            shape=file.shape,
            dtype=found[0].pixels.dtype.name,
            full_scale=file.full_scale,
            is_rgb=self._is_rgb,
            images=number,
            window=(rows.start, rows.stop, columns.start, columns.stop),
            ignored=float(np.mean([1.0 - image.counts.mean() for image in found])),
            verdict=channels.of_most(described),
            theta=in_units(theta, units.offset * file.full_scale, self._scale),
            channels=tuple(described),
            pattern=self._pattern.found(float(np.median([one.sigma.value for one in described]))),
            notes=(*file.notes, *([] if units.line is None or not is_float else [units.line])),
            picture=_picture(found[0]),
        )
        channel = GREEN if self._is_rgb else 0
        plane, counts = found[0].pixels[..., channel], found[0].counts[..., channel]
        return Measured(record, verdicts.known(self._decisions[0].floors), plane, counts)

    def _described(self, full_scale: float | None) -> list[Channel]:
        """Describe all channels."""
        kinds = channels.kinds(self._decisions)
        part_of = [0 if self._is_rgb else channel for channel in range(self._channels)]
        offset = self._units.offset * self._file.full_scale
        looks = [
            channels.look(self._found, channel, offset, self._scale, kinds[part])
            for channel, part in enumerate(part_of)
        ]
        rows, columns = self._rows, self._columns
        inner = tiling.middle(rows.stop - rows.start, columns.stop - columns.start, MEASURED_SIDE)
        corner = [outer.start + one.start for outer, one in zip((rows, columns), inner, strict=True)]
        described = [
            channels.described(self._all, self._found, channel, one, full_scale, corner)
            for channel, one in enumerate(looks)
        ]
        for part, kind in enumerate(kinds):
            its_channels = [channel for channel, one in enumerate(part_of) if one == part]
            floors = verdicts.known([decision.floors[part] for decision in self._decisions])
            verdict = channels.verdict(kind, floors, [described[channel] for channel in its_channels], self._scale)
            for channel in its_channels:
                described[channel] = replace(described[channel], verdict=verdict)
        return described


def _picture(image: Image) -> np.ndarray:
    """Return a thumbnail, (H, W, C), between the 0.5th and the 99.5th percentile as fractions."""
    stride = -(-max(image.pixels.shape[:2]) // PICTURE_SIDE)
    small = image.unit[::stride, ::stride].astype(np.float64)
    low, high = np.percentile(small, (0.5, 99.5))
    return np.clip((small - low) / max(high - low, 1e-12), 0.0, 1.0).astype(np.float32)
