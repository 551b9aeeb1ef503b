"""A look at some of the training images before the training: their type, channels, noise and range of intensities."""

import statistics
from dataclasses import dataclass, field

import numpy as np

from bsdenoise import images
from bsdenoise.data.faults import Faults
from bsdenoise.data.sources import Source
from bsdenoise.images import missing
from bsdenoise.images.intensity_range import fit_range
from bsdenoise.images.masks import Masks
from bsdenoise.images.pixels import NUM_COLOURS
from bsdenoise.noise import estimate_sigma, noise_floor, verdicts
from bsdenoise.noise.noise_floor import NoiseFloor
from bsdenoise.noise.signal_dependent import in_units

SAMPLE_SIZE = 24  # images that are looked at
SAMPLE_OF_GROWTH = 6  # of these, whose noise is looked at for growing with the signal, which takes longer
GROWTH_SIDE = 512  # pixels of their middle that are looked at
MIN_ESTIMATE_SIZE = 16  # pixels on a side below which noise is not estimated
PIXELS_PER_IMAGE = 2**16  # drawn from each image for the range of intensities, at most; 24 images give 1.5 million
_DRAW = 0  # seed: the range must be the same whenever it is fitted


@dataclass(frozen=True)
class Sample:
    """What a look at some of the images told.

    Attributes:
        channels: Number of channels of most images.
        full_scale: Full scale of the first readable image's pixel type.
        sigmas: Noise estimates, as fractions of full scale.
        fractional: Whether the files hold integers, so that pixels are fractions of full scale.
        offset: Pixel value that becomes 0.
        scale: Difference of pixel values that becomes 1, > 0.
        notes: What was changed on reading, each kind once, with the name of the first image it was met in.
        floors: Noise of the images' quiet parts, in units of pixel values.
        ignored: Share of pixel values that hold no measurement.
        growing: Gain, σ and pedestal of each image that was looked at for that, (3,), in units of pixel values; where
            noise does not clearly grow with the signal, the gain is 0.
    """

    channels: int
    full_scale: float
    sigmas: list[float]
    fractional: bool = True
    offset: float = 0.0
    scale: float = 1.0
    notes: dict[str, str] = field(default_factory=dict)
    floors: list[NoiseFloor] = field(default_factory=list)
    ignored: float = 0.0
    growing: list[np.ndarray] = field(default_factory=list)

    @property
    def median_sigma(self) -> float | None:
        """Median of the noise estimates; `None` if there is none."""
        return float(np.median(self.sigmas)) if self.sigmas else None

    @property
    def detector(self) -> np.ndarray | None:
        """Medians of gain, σ and pedestal, (3,), if the noise of most images grows with the signal; else `None`."""
        found = [theta for theta in self.growing if theta[0] > 0]
        return np.median(found, axis=0) if 2 * len(found) > len(self.growing) else None


def look_at(source: Source, relative_noise: bool, masks: Masks | None = None) -> Sample:
    """Read a few images, spread over the source.

    Photographs of 8 bits keep their pixels as fractions of full scale: offset 0, scale 1. For anything else the range
    is fitted to the sample. It depends on the source alone.

    Args:
        source: The images.
        relative_noise: Whether the noise SPEC is a fraction of full scale, so that bit depths may differ.
        masks: Which pixels of the images are to be ignored beside those that the images themselves say.

    Raises:
        ValueError: If none can be read, bit depths differ where the SPEC is in the files' own units, or some files
            hold integers and others floats.
    """
    channels, dtypes, scales, sigmas, pixels, floors, shares = [], [], [], [], [], [], []
    middles: list[_Middle] = []
    notes: dict[str, str] = {}
    first, faults = "", Faults()
    for index in np.unique(np.linspace(0, len(source) - 1, SAMPLE_SIZE).astype(int)):
        try:
            picture = source.read(int(index))
            mask = None if masks is None else masks.of(source.short_name(int(index)), picture.shape)
            array = picture.array if picture.array.ndim == 3 else picture.array[..., np.newaxis]
            unit = images.measured_unit(array, missing.where(array, picture.no_data, mask), bits=picture.bits)
        except (ValueError, OSError) as error:
            faults.new(source.name(int(index)), error)
            continue  # reported when training meets it
        name = source.name(int(index))
        first = first or name
        dtypes.append(picture.array.dtype)
        scales.append(picture.full_scale)
        _check_alike((dtypes[0], scales[0]), first, (dtypes[-1], scales[-1]), name, relative_noise)
        channels.append(unit.shape[2])
        pixels.append(_draw(unit, int(index)))
        shares.append(np.isnan(unit).mean())
        for note in picture.notes:
            notes.setdefault(note, name)
        if min(unit.shape[:2]) >= MIN_ESTIMATE_SIZE:
            sigmas.append(_estimate(unit))
        if len(middles) < SAMPLE_OF_GROWTH:
            is_rgb = unit.shape[2] == NUM_COLOURS and not picture.independent_channels
            middles.append(_Middle.of(unit, is_rgb, picture.array.dtype.kind == "f"))
        floor = noise_floor.measure(unit)
        if floor is not None:
            floors.append(floor)
    if not dtypes:
        tried = "images" if len(source) <= SAMPLE_SIZE else f"{SAMPLE_SIZE} images that were tried"
        raise ValueError(f"None of the {tried} could be read; the first is {faults.first}")
    is_photo = np.uint8 in dtypes
    offset, scale = (0.0, 1.0) if is_photo else fit_range(np.concatenate(pixels))
    return Sample(
        statistics.mode(channels),
        scales[0],
        sigmas,
        fractional=dtypes[0].kind != "f",
        offset=offset,
        scale=scale,
        notes=notes,
        floors=floors,
        ignored=float(np.mean(shares)),
        growing=_growth(middles),
    )


def _draw(image: np.ndarray, index: int) -> np.ndarray:
    """Draw pixels of (H, W, C): all of a small image, of a large one so many that it does not outweigh the others."""
    flat = image.reshape(-1, image.shape[2])
    if len(flat) > PIXELS_PER_IMAGE:
        flat = flat[np.random.default_rng((_DRAW, index)).integers(len(flat), size=PIXELS_PER_IMAGE)]
    return flat[~np.isnan(flat)] if flat.dtype.kind == "f" else flat.ravel()


@dataclass(frozen=True)
class _Middle:
    """What is looked at of an image for noise that grows with the signal.

    Attributes:
        parts: (P, h, w, C): one part of all colours, or one of each independent channel.
        offset: Pixel value that is 0 there.
        scale: Difference of pixel values that is 1 there.
    """

    parts: np.ndarray
    offset: float
    scale: float

    @classmethod
    def of(cls, unit: np.ndarray, is_rgb: bool, is_float: bool) -> "_Middle":
        """Take it from an image (H, W, C).

        Args:
            unit: The image.
            is_rgb: Whether its channels are colours.
            is_float: Whether it has units of its own.
        """
        rows, columns = (slice(max(side - GROWTH_SIDE, 0) // 2, None) for side in unit.shape[:2])
        unit = missing.filled(unit[rows, columns][:GROWTH_SIDE, :GROWTH_SIDE])
        offset, scale = fit_range(unit) if is_float else (0.0, 1.0)
        shown = ((unit - offset) / scale).astype(np.float32)
        parts = shown[np.newaxis] if is_rgb else np.moveaxis(shown, 2, 0)[..., np.newaxis]
        return cls(parts, offset, scale)


def _growth(middles: list[_Middle]) -> list[np.ndarray]:
    """Find gain, σ and pedestal of images, (3,) each, as `denoise` does; the medians of independent channels."""
    found: dict[int, np.ndarray] = {}
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for number, middle in enumerate(middles):
        by_shape.setdefault(middle.parts.shape[1:], []).append(number)
    for numbers in by_shape.values():
        batch = np.concatenate([middles[number].parts for number in numbers])
        ends = np.cumsum([len(middles[number].parts) for number in numbers])
        found |= zip(numbers, np.split(verdicts.estimated(batch, verdicts.PRESETS), ends[:-1]), strict=True)
    return [
        np.asarray(np.median(in_units(found[number], middle.offset, middle.scale), axis=0))
        for number, middle in enumerate(middles)
    ]


def _estimate(unit: np.ndarray) -> float:
    """Estimate the noise of an image (H, W, C) from what was measured of it."""
    counts = ~np.isnan(unit)
    if counts.all():
        return float(estimate_sigma(unit[np.newaxis])[0])
    return float(estimate_sigma(missing.filled(unit)[np.newaxis], counts[np.newaxis])[0])


def _check_alike(
    one: tuple[np.dtype, float], one_name: str, other: tuple[np.dtype, float], other_name: str, relative_noise: bool
) -> None:
    """Refuse pixels, each given by type and full scale, that have no common units."""
    kinds = [dtype.kind for dtype, _ in (one, other)]
    if (kinds[0] == "f") != (kinds[1] == "f"):
        integers, floats = (other_name, one_name) if kinds[0] == "f" else (one_name, other_name)
        raise ValueError(
            f"{integers} holds integers and {floats} floats, which have no common units. Convert one kind."
        )
    if one[1] != other[1] and not relative_noise:
        raise ValueError(
            f"{other_name} and {one_name} have different bit depths: "
            "give the noise as a fraction of full scale, such as gaussian:25/255."
        )
