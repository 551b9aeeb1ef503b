"""Image files in and out, with their bit depth and metadata; which files a source names; pixel units.

A format is one entry of `_FORMATS`: its suffixes, the bytes that its files begin with, and two functions. Files are
told apart by their first bytes, so that a JPEG named `.png` is read all the same; what is written follows the suffix.
EXIF orientation is never applied to the pixels: it stays in the metadata, and a viewer turns the denoised image as it
turned the noisy one.
"""

import glob
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from bsdenoise import files, png

MAX_PNG_PIXELS = 2**28  # a header can claim terabytes; 2²⁸ is 16384×16384. For JPEG Pillow has a limit of its own.
JPEG_QUALITY = 95  # above it files grow fast and change little, says Pillow's manual
REC_601 = (0.299, 0.587, 0.114)  # ITU-R BT.601: weights of red, green and blue in the luminance
_EXIF_PREFIX = b"Exif\0\0"  # JPEG puts it before an EXIF block, PNG does not


@dataclass(frozen=True)
class Picture:
    """An image file's pixels and what else it holds.

    Attributes:
        array: (H, W) or (H, W, C), of a `.npy` stack (N, H, W, C); uint8, uint16 or a float type.
        format: "PNG", "JPEG" or "NPY".
        metadata: Where present `icc_profile` and `exif` (bytes, EXIF from its TIFF header on), `dpi` (x, y), and for
            PNG `chunks`, all that `png.KEPT_CHUNKS` names.
    """

    array: np.ndarray
    format: str
    metadata: dict[str, Any] = field(default_factory=dict)


def find(source: str | Path) -> list[Path]:
    """Lists the image files that a file name, a folder (searched recursively) or a glob names.

    Hidden files and folders below a folder are skipped, and so are files of other kinds in a folder or a glob.

    Args:
        source: File, folder, or glob such as "scans/**/*.png".

    Returns:
        The files, sorted; at least one.

    Raises:
        ValueError: If nothing is there, or nothing of a supported kind.
    """
    path = Path(source)
    if not str(source):
        raise ValueError("The name of a file, a folder or a glob is empty.")  # else it would mean the current folder
    if path.is_dir():
        found = _files_below(path)
    elif path.exists():
        if not is_supported(path):
            raise ValueError(f"{path}: not an image file that can be read. Expected one of {_suffix_list()}.")
        return [path]
    elif glob.has_magic(str(source)):
        found = [Path(name) for name in glob.iglob(str(source), recursive=True) if os.path.isfile(name)]
    else:
        raise ValueError(f"{source}: no such file or folder.")
    found = sorted(file for file in found if is_supported(file))
    if not found:
        raise ValueError(f"{source}: no image found there. Expected files ending in one of {_suffix_list()}.")
    return found


def is_supported(path: str | Path) -> bool:
    """Tells from its suffix, in either case, whether a file is of a supported kind."""
    return Path(path).suffix.lower() in SUFFIXES


def full_scale(dtype: Any) -> float:
    """Gives the value of a fully lit pixel: 255 for uint8, 65535 for uint16, 1 for floats.

    Raises:
        ValueError: For any other type.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype.kind == "f":
        return 1.0
    if dtype in (np.uint8, np.uint16):
        return float(np.iinfo(dtype).max)
    raise ValueError(f"Pixels must be uint8, uint16 or floats. Received: dtype={dtype}.")


def to_unit(array: np.ndarray) -> np.ndarray:
    """Converts pixels to float32, integers scaled so that full scale is 1; floats keep their values."""
    scale = np.float32(full_scale(array.dtype))
    unit = array.astype(np.float32)
    return unit if scale == 1 else unit / scale


def from_unit(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Undoes `to_unit`: integers are scaled back, clipped and rounded to nearest; floats keep their values."""
    scale = full_scale(dtype)
    if scale == 1:
        return array.astype(dtype)
    # In float32, 65535 + ½ is still exact to 1/128.
    return np.clip(np.floor(array * np.float32(scale) + np.float32(0.5)), 0, scale).astype(dtype)


def to_channels(array: np.ndarray, channels: int) -> np.ndarray:
    """Gives an image the number of channels that a model works on.

    Args:
        array: (H, W) or (…, H, W, C).
        channels: 1 turns RGB into Rec. 601 luminance; otherwise it must be what the image has.

    Returns:
        (…, H, W, channels), of the same type; luminance of integers is rounded.

    Raises:
        ValueError: For any other change. Grey is not made RGB: three copies of one noise are not independent noise.
    """
    array = array[..., np.newaxis] if array.ndim == 2 else array
    if array.shape[-1] == channels:
        return array
    if channels == 1 and array.shape[-1] == len(REC_601):
        red, green, blue = np.moveaxis(array.astype(np.result_type(array.dtype, np.float32), copy=False), -1, 0)
        luminance = (REC_601[0] * red + REC_601[1] * green + REC_601[2] * blue)[..., np.newaxis]
        return (np.rint(luminance) if array.dtype.kind == "u" else luminance).astype(array.dtype)
    raise ValueError(
        f"An image with {array.shape[-1]} channel(s) cannot be used where {channels} are expected; "
        "only RGB can be converted, to 1 channel."
    )


def read_array(path: str | Path) -> np.ndarray:
    """Reads only the pixels: (H, W), (H, W, C) or (N, H, W, C); uint8, uint16 or float32. Safe in threads.

    Raises:
        ValueError: As `read`.
        OSError: If the file cannot be opened.
    """
    array = read(path).array
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def read(path: str | Path) -> Picture:
    """Reads an image file.

    Args:
        path: PNG (8 or 16 bits), JPEG, or `.npy` with (H, W), (H, W, C) or (N, H, W, C); what it is, its first bytes
            tell.

    Returns:
        Pixels, format and metadata.

    Raises:
        ValueError: If the file is broken, or of a kind that is not supported; the message names it.
        OSError: If the file cannot be opened.
    """
    data = Path(path).read_bytes()
    entry = next((entry for entry in _FORMATS if data.startswith(entry.magic)), None)
    if entry is None:
        what = "its content is no image of a known kind" if data else "it is empty"
        raise ValueError(f"{path}: cannot be read: {what}.")
    try:
        return entry.decode(data)
    except Exception as error:  # decoders answer hostile bytes with errors of every type
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(f"{path}: cannot be read as {entry.name}: {reason}.") from error


def write(path: str | Path, array: np.ndarray, like: Picture | None = None) -> None:
    """Writes an image file whole or not at all, in the format of its suffix and the bit depth of the array.

    Args:
        path: The file; what stood there before is replaced only once the new file is complete.
        array: (H, W) or (H, W, C); PNG takes uint8 and uint16, JPEG uint8, both 1 or 3 channels; `.npy` takes all.
        like: Its ICC profile, EXIF block, resolution and, from PNG to PNG, texts go into the file.

    Raises:
        ValueError: If the suffix is unknown, or the format cannot hold the array.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    entry = next((entry for entry in _FORMATS if path.suffix.lower() in entry.suffixes), None)
    if entry is None:
        raise ValueError(f"{path}: unknown kind of image file. Expected one of {_suffix_list()}.")
    try:
        data = entry.encode(array, like or Picture(array, entry.name))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with files.replacing(path) as temporary:
        temporary.write_bytes(data)


def _files_below(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        raise error  # `os.walk` would pass over a folder that it may not list

    files = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return files


def _suffix_list() -> str:
    return ", ".join(SUFFIXES)


def _as_pixels(array: np.ndarray, dtypes: tuple[type, ...], name: str) -> np.ndarray:
    """Checks that a format can hold an array, and drops a single channel's axis."""
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[-1] == 3):
        raise ValueError(f"{name} holds grey or RGB images. Received: shape={array.shape}.")
    if array.dtype not in dtypes:
        expected = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise ValueError(f"{name} holds {expected} pixels. Received: dtype={array.dtype}.")
    return np.ascontiguousarray(array)


def _same_colours(array: np.ndarray, like: Picture) -> bool:
    """Tells whether a colour profile of the one image can be right for the other."""
    return (array.ndim, array.shape[2:]) == (like.array.ndim, like.array.shape[2:])


def _decode_png(data: bytes) -> Picture:
    header = png.read_header(data)
    if header.kind not in ("grey", "RGB") or header.bits not in (8, 16):
        raise ValueError(f"{header.bits}-bit {header.kind} images are not supported, only 8 and 16 bits, grey or RGB")
    if header.width * header.height > MAX_PNG_PIXELS:
        raise ValueError(f"{header.width}×{header.height} pixels are more than the limit of {MAX_PNG_PIXELS}")
    found = list(png.chunks(data))
    names = {chunk.name for chunk in found}
    for name, kind in ((b"tRNS", "images with a transparent colour"), (b"acTL", "animations")):
        if name in names:
            raise ValueError(f"{kind} are not supported")
    # Not Pillow: it reduces 16-bit RGB to 8 bits without a word.
    array = imagecodecs.png_decode(data)
    kept = tuple(chunk for chunk in found if chunk.name in png.KEPT_CHUNKS)
    metadata = {
        "icc_profile": png.icc_profile(kept),
        "exif": png.exif(kept),
        "dpi": png.dots_per_inch(kept),
        "chunks": kept,
    }
    return Picture(array, "PNG", {key: value for key, value in metadata.items() if value})


def _encode_png(array: np.ndarray, like: Picture) -> bytes:
    array = _as_pixels(array, (np.uint8, np.uint16), "PNG")
    known = like.metadata
    if like.format == "PNG":
        kept = known.get("chunks", ())
    else:
        kept = png.metadata_chunks(known.get("icc_profile"), known.get("exif"), known.get("dpi"))
    if not _same_colours(array, like):
        kept = tuple(chunk for chunk in kept if chunk.name not in png.COLOUR_CHUNKS)
    return png.with_chunks(bytes(imagecodecs.png_encode(array)), kept)


def _decode_jpeg(data: bytes) -> Picture:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.mode not in ("L", "RGB"):
            raise ValueError(f"{image.mode} images are not supported, only grey or RGB")
        array = np.asarray(image)
        exif = image.info.get("exif", b"").removeprefix(_EXIF_PREFIX)
        metadata = {"icc_profile": image.info.get("icc_profile"), "exif": exif, "dpi": image.info.get("dpi")}
    return Picture(array, "JPEG", {key: value for key, value in metadata.items() if value})


def _encode_jpeg(array: np.ndarray, like: Picture) -> bytes:
    array = _as_pixels(array, (np.uint8,), "JPEG")
    known = like.metadata
    options: dict[str, Any] = {}
    if "icc_profile" in known and _same_colours(array, like):
        options["icc_profile"] = known["icc_profile"]
    if "exif" in known:
        options["exif"] = _EXIF_PREFIX + known["exif"]
    if "dpi" in known:
        options["dpi"] = known["dpi"]
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4", **options)
    return file.getvalue()


def _decode_npy(data: bytes) -> Picture:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise ValueError(f"the shape must be (H, W), (H, W, C) or (N, H, W, C), nothing empty. Received: {array.shape}")
    full_scale(array.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("it holds NaN or infinite values")
    return Picture(array.astype(array.dtype.newbyteorder("="), copy=False), "NPY")


def _encode_npy(array: np.ndarray, like: Picture) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


@dataclass(frozen=True)
class _Format:
    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    decode: Callable[[bytes], Picture]
    encode: Callable[[np.ndarray, Picture], bytes]


_FORMATS = (
    _Format("PNG", (".png",), png.SIGNATURE, _decode_png, _encode_png),
    _Format("JPEG", (".jpg", ".jpeg"), b"\xff\xd8\xff", _decode_jpeg, _encode_jpeg),
    _Format("NPY", (".npy",), b"\x93NUMPY", _decode_npy, _encode_npy),
)
SUFFIXES = tuple(suffix for entry in _FORMATS for suffix in entry.suffixes)
