"""Pixels of image files: what a file gives, its units, and its channels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bsdenoise.images import missing
from bsdenoise.images.precision import check_single_precision

NUM_COLOURS = 3
REC_601 = (0.299, 0.587, 0.114)  # ITU-R BT.601: weights of red, green and blue in the luminance
# What may be changed on reading, in the words that users get to see.
ALPHA_DROPPED = "its alpha channel is dropped"
TRANSPARENT_COLOUR_DROPPED = "its transparent colour is dropped"
PALETTE_EXPANDED = "its palette is turned into {}; colours of a palette are rounded, and no noisy measurements any more"
PYRAMID_DROPPED = "only the full resolution of its pyramid is used"


@dataclass(frozen=True)
class Picture:
    """An image file's pixels and what else it holds.

    Attributes:
        array: (H, W) or (H, W, C), of a stack (N, H, W, C); uint8, uint16 or a float type.
        format: "PNG", "JPEG", "NPY" or "TIFF".
        metadata: Where present `icc_profile`, `exif` (from its TIFF header on), `xmp`, `photoshop` and `iptc` (bytes),
            `comments` (several bytes), `dpi` (x, y), for PNG `chunks`, all that `png.KEPT_CHUNKS` names, for JPEG
            `segments`, those that are kept as they are, and for TIFF `tiff`, its layout and tags.
        notes: What was changed on reading, in words, such as "its alpha channel is dropped".
        bits: Significant bits of integer pixels, if they are fewer than those of the type; 12 for packed 12-bit files.
        independent_channels: Whether the channels are measurements of their own, such as fluorescence channels, rather
            than the colours of one picture.
        no_data: Value of pixels that hold no measurement, in the file's own units; `None` if the file declares none.
    """

    array: np.ndarray
    format: str
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    bits: int | None = None
    independent_channels: bool = False
    no_data: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the pixels."""
        return self.array.shape

    @property
    def full_scale(self) -> float:
        """Value of a fully lit pixel."""
        return full_scale(self.array.dtype, self.bits)


@dataclass(frozen=True)
class ImageFile:
    """An open image file: all that a `Picture` has, but pixels are read one image at a time.

    Attributes:
        format: As in `Picture`.
        shape: (H, W), (H, W, C) or (N, H, W, C), known from the headers.
        dtype: Type of the pixels, known from the headers, in native byte order.
        read: Reads image number `index`, (H, W) or (H, W, C).
        metadata: As in `Picture`.
        notes: As in `Picture`.
        window: Reads rows and columns of an image, without the others; `None` if the format or the file has no parts
            that can be read by themselves.
        bits: As in `Picture`.
        independent_channels: As in `Picture`.
        no_data: As in `Picture`.
    """

    format: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int], np.ndarray]
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    window: Callable[[int, slice, slice], np.ndarray] | None = None
    bits: int | None = None
    independent_channels: bool = False
    no_data: float | None = None
    _last: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        """Number of images."""
        return self.shape[0] if len(self.shape) == 4 else 1

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[-1] if len(self.shape) > 2 else 1

    @property
    def is_rgb(self) -> bool:
        """Whether the channels are red, green and blue."""
        return self.channels == NUM_COLOURS and not self.independent_channels

    @property
    def full_scale(self) -> float:
        """Value of a fully lit pixel."""
        return full_scale(self.dtype, self.bits)

    def read_window(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """Read a part of image number `index`, (h, w) or (h, w, C).

        Where the file has no parts that can be read by themselves, the image is read once and kept until another one is
        asked for.

        Raises:
            ValueError: If there are no such rows and columns; also as `read`.
        """
        height, width = self.shape[-3:-1] if len(self.shape) > 2 else self.shape
        if not (0 <= rows.start < rows.stop <= height and 0 <= columns.start < columns.stop <= width):
            raise ValueError(f"there is no window of rows {rows} and columns {columns} in {width}×{height} pixels")
        if self.window is not None:
            return self.window(index, rows, columns)
        if index not in self._last:
            self._last.clear()
            self._last[index] = self.read(index)
        return self._last[index][rows, columns]

    def read_all(self) -> np.ndarray:
        """Read all images, as one array of the file's shape."""
        if len(self.shape) < 4:
            return self.read(0)
        array = np.empty(self.shape, self.dtype)
        for index in range(len(self)):
            array[index] = self.read(index)
        return array


def full_scale(dtype: Any, bits: int | None = None) -> float:
    """Return the value of a fully lit pixel: 255 for uint8, 65535 for uint16, 1 for floats.

    Args:
        dtype: Type of the pixels.
        bits: Significant bits of integers, if they are fewer than those of the type: 12 gives 4095.

    Raises:
        ValueError: For any other type.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype in (np.float16, np.float32, np.float64):
        return 1.0
    if dtype in (np.uint8, np.uint16):
        return float(np.iinfo(dtype).max if bits is None else 2**bits - 1)
    raise ValueError(f"Pixels must be uint8, uint16 or floats. Received: dtype={dtype}.")


def to_unit(array: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Convert pixels to float32, integers scaled so that full scale is 1; floats keep their values.

    Args:
        array: Pixels of a file.
        bits: As for `full_scale`.
    """
    scale = np.float32(full_scale(array.dtype, bits))
    unit = array.astype(np.float32)
    if scale != 1:
        unit /= scale
    return unit


def measured_unit(
    array: np.ndarray, gaps: np.ndarray | None, channels: int | None = None, bits: int | None = None
) -> np.ndarray:
    """Convert pixels as `to_unit`, with NaN where there is no measurement.

    Args:
        array: Pixels of a file, (H, W) or (H, W, C).
        gaps: Which values are none, bool, of that shape; `None` if all are.
        channels: As for `to_channels`; `None` for those that the image has.
        bits: As for `to_unit`.

    Returns:
        float32 (H, W, C).

    Raises:
        ValueError: If no value is a measurement, one is infinite, or as `to_channels` and `check_single_precision`.
    """
    array = array if array.ndim == 3 else array[..., np.newaxis]
    if gaps is not None:
        if gaps.all():
            raise ValueError(missing.NOTHING_MEASURED)
        gaps = gaps.reshape(array.shape)
        array = np.where(gaps, 0, array)  # whatever stands there may be too large for float32
    if array.dtype.kind == "f":
        check_single_precision(missing.with_nan(array, gaps))
    with np.errstate(over="ignore"):
        # In double precision there are finite numbers that are infinite in single.
        unit = to_unit(to_channels(array, channels or array.shape[-1]), bits)
    if np.isinf(unit).any():
        raise ValueError("holds infinite values")
    if gaps is not None and unit.shape != gaps.shape:
        gaps = np.asarray(gaps.any(axis=-1, keepdims=True))
    return missing.with_nan(unit, gaps)


def from_unit(array: np.ndarray, dtype: Any, bits: int | None = None) -> np.ndarray:
    """Undo `to_unit`: integers are scaled back, clipped and rounded to nearest; floats keep their values."""
    scale = full_scale(dtype, bits)
    if scale == 1:
        return array.astype(dtype)
    scaled = array * np.float32(scale)
    scaled += np.float32(0.5)  # in float32, 65535 + ½ is still exact to 1/128
    return np.clip(np.floor(scaled, out=scaled), 0, scale, out=scaled).astype(dtype)


def to_channels(array: np.ndarray, channels: int, independent: bool = False) -> np.ndarray:
    """Return an image the number of channels that a model works on.

    Args:
        array: (H, W) or (…, H, W, C).
        channels: 1 turns RGB into Rec. 601 luminance; otherwise it must be what the image has.
        independent: Whether the channels are no colours, so that they have no luminance.

    Returns:
        (…, H, W, channels), of the same type; luminance of integers is rounded.

    Raises:
        ValueError: For any other change. Grey is not made RGB: three copies of one noise are not independent noise.
    """
    array = array[..., np.newaxis] if array.ndim == 2 else array
    if array.shape[-1] == channels:
        return array
    if channels == 1 and independent:
        raise ValueError(
            f"An image with {array.shape[-1]} independent channels has no luminance: take its channels one by one."
        )
    if channels == 1 and array.shape[-1] == len(REC_601):
        red, green, blue = np.moveaxis(array.astype(np.result_type(array.dtype, np.float32), copy=False), -1, 0)
        luminance = (REC_601[0] * red + REC_601[1] * green + REC_601[2] * blue)[..., np.newaxis]
        return (np.rint(luminance) if array.dtype.kind == "u" else luminance).astype(array.dtype)
    raise ValueError(
        f"An image with {array.shape[-1]} channel(s) cannot be used where {channels} are expected; "
        "only RGB can be converted, to 1 channel."
    )


def parts_for(array: np.ndarray, channels: int) -> list[np.ndarray]:
    """Return what a model takes of an image at once: all of it, or for a one-channel model each channel by itself.

    Args:
        array: (H, W, C).
        channels: The model's number of channels.

    Returns:
        Arrays (H, W, channels) that make up the image when put together along their last axis.

    Raises:
        ValueError: If the model cannot take the image.
    """
    check_channels(array.shape[-1], channels)
    return [np.ascontiguousarray(part) for part in np.split(array, array.shape[-1] // channels, axis=-1)]


def check_channels(received: int, channels: int) -> None:
    """Refuse images with other numbers of channels than a model takes; one for one channel takes any.

    Raises:
        ValueError: If the model cannot take them.
    """
    if channels not in (1, received):
        kind = "a grey image" if received == 1 else f"an image with {received} channels"
        raise ValueError(f"{kind} cannot be denoised by a model for {channels} channels.")


def check_grey_or_rgb(shape: tuple[int, ...], dtype: Any, dtypes: tuple[type, ...], name: str) -> None:
    """Check that a format for pictures can hold an array.

    Raises:
        ValueError: If not.
    """
    if len(shape) != 2 and not (len(shape) == 3 and shape[-1] in (1, 3)):
        raise ValueError(f"{name} holds grey or RGB images. Received: shape={shape}.")
    if np.dtype(dtype).newbyteorder("=") not in dtypes:
        expected = " or ".join(np.dtype(kind).name for kind in dtypes)
        raise ValueError(f"{name} holds {expected} pixels. Received: dtype={dtype}.")


def without_single_channel(array: np.ndarray) -> np.ndarray:
    """Drop the channel axis of a grey (H, W, 1)."""
    return np.ascontiguousarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def same_colours(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Tell from the shapes of two images whether a colour profile of the one can be right for the other."""
    return _num_channels(shape) == _num_channels(other)


def palette_lookup(indices: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return each pixel its colour.

    Args:
        indices: (H, W).
        palette: (number of colours, 3), or (number of greys,).

    Raises:
        ValueError: If an index is beyond the palette.
    """
    if indices.size and int(indices.max()) >= len(palette):
        raise ValueError(f"a pixel has colour {indices.max()} of a palette of {len(palette)}")
    return palette[indices]


def simplified_palette(palette: np.ndarray) -> tuple[np.ndarray, str]:
    """Make a palette of greys alone (number of greys,), and return the note that tells of its use."""
    is_grey = bool((palette == palette[:, :1]).all())
    return (palette[:, 0] if is_grey else palette), PALETTE_EXPANDED.format("grey" if is_grey else "RGB")


def _num_channels(shape: tuple[int, ...]) -> int:
    return 1 if len(shape) == 2 else shape[-1]
