"""What a TIFF file knows beside its pixels: descriptions, resolution, profiles and other tags, kept byte for byte."""

import contextlib
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from tifffile import PHOTOMETRIC, RESUNIT, TiffFile, TiffPage

DESCRIPTION, SOFTWARE, ORIENTATION, COLORMAP, ICC_PROFILE = 270, 305, 274, 320, 34675
GDAL_NODATA = 42113
RESOLUTION_X, RESOLUTION_Y, RESOLUTION_UNIT = 282, 283, 296
# Tags that stay true when only the pixels change; those of the first page stand for the file.
KEPT_TAGS = {
    269: "DocumentName",
    271: "Make",
    272: "Model",
    ORIENTATION: "Orientation",
    285: "PageName",
    286: "XPosition",
    287: "YPosition",
    306: "DateTime",
    315: "Artist",
    316: "HostComputer",
    318: "WhitePoint",
    319: "PrimaryChromaticities",
    COLORMAP: "ColorMap",
    700: "XMP",
    33432: "Copyright",
    33550: "ModelPixelScale",
    33723: "IPTC",
    33922: "ModelTiepoint",
    34264: "ModelTransformation",
    34377: "Photoshop",
    ICC_PROFILE: "ICC profile",
    34735: "GeoKeyDirectory",
    34736: "GeoDoubleParams",
    34737: "GeoAsciiParams",
    42112: "GDAL_METADATA",
    50844: "RPCCoefficient",
    GDAL_NODATA: "GDAL_NODATA",
    50838: "IJMetadataByteCounts",
    50839: "IJMetadata",
}
# Blocks that other formats know too, by the names that `Picture.metadata` has for them.
IN_OTHER_FORMATS = (ORIENTATION, COLORMAP, 700, 33723, 34377, ICC_PROFILE, 50838, 50839)
COMMON_BLOCKS = {"xmp": 700, "photoshop": 34377, "iptc": 33723}
TEXTS_OF_EXIF = (271, 272, 306, 315, 33432)  # make, model, date, artist and copyright: EXIF took them from TIFF
_BYTE = 1
TEXTS_OF_PAGES = (DESCRIPTION, 285, 306)  # and names, and dates
OF_COLOURS = (COLORMAP, ICC_PROFILE)
_FRACTIONS = {5: "I", 10: "i"}  # types of two numbers, without and with a sign
# Tags that say how the pixels are stored and what is read of them, or which of them are brightest: written anew.
_STORAGE = {
    *range(254, 260),  # sizes, bits, compression
    262,  # photometric interpretation
    *range(263, 267),  # dither and order of bits
    *range(273, 282),  # strips, least and greatest value
    284,  # samples in planes
    *range(288, 294),  # free space, curve of greys, options of fax compression
    297,  # number of the page
    317,  # predictor
    *range(321, 326),  # halftones, tiles
    330,  # other pages
    *range(338, 342),  # kinds of samples, least and greatest value
    347,  # tables of JPEG
    *range(512, 522),  # old JPEG
    *range(529, 533),  # YCbCr
    559,
    *range(32995, 32999),  # depth of images and tiles
}
_UNDERSTOOD = {*KEPT_TAGS, *_STORAGE, DESCRIPTION, SOFTWARE, RESOLUTION_X, RESOLUTION_Y, RESOLUTION_UNIT}
CENTIMETRES_PER_INCH = 2.54
TOP_LEFT = 1  # the orientation of an image that needs no turning


@dataclass(frozen=True)
class Tags:
    """The tags of a file that go into what is written like it.

    Attributes:
        extra: (code, type, count, bytes, only on the first page), as tifffile takes extra tags.
        resolution: Pixels per unit in x and y, as fractions (numerator, denominator).
        unit: The unit: 1 for none, 2 for inches, 3 for centimetres.
        software: Name of the program that wrote the file.
        description: ImageDescription, or the user's part of it.
        shaped: What tifffile's own description says beside the shape.
        colormap: (3, 2^bits) of a palette that colours measured greys for display.
        left_out: What is not kept, in words: tags of which nobody knows whether they stay true.
    """

    extra: tuple[tuple[int, int, int, bytes, bool], ...]
    resolution: tuple[tuple[int, int], tuple[int, int]] | None
    unit: int
    software: bytes
    description: bytes | None
    shaped: dict[str, Any]
    colormap: np.ndarray | None
    left_out: tuple[str, ...] = ()


def collect(file: BinaryIO, tif: TiffFile, page: TiffPage, kind: str, has_texts: bool = False) -> Tags:
    """Read the tags of the first page.

    Args:
        file: The open file.
        tif: The same, opened by tifffile.
        page: Its first page.
        kind: As in `Layout`.
        has_texts: Whether further pages have texts of their own, which are left out.
    """
    raw = {tag.code: tag for tag in page.tags if tag.code in (*KEPT_TAGS, SOFTWARE)}
    is_for_display = kind in ("ome", "imagej")
    if not is_for_display:
        raw.pop(COLORMAP, None)
    extra = tuple(
        (code, int(tag.dtype), int(tag.count), _bytes(file, tag), True)
        for code, tag in raw.items()
        if code in KEPT_TAGS
    )
    software = _bytes(file, raw[SOFTWARE]).rstrip(b"\0") if SOFTWARE in raw else b""
    described = [_bytes(file, tag).rstrip(b"\0") for tag in page.tags.getall(DESCRIPTION) or ()]
    shaped: dict[str, Any] = {}
    if kind == "shaped":
        described = [text for text in described if text != (page.shaped_description or "").encode()]
        (shaped, *_) = tif.shaped_metadata or ({},)
        shaped = {key: value for key, value in shaped.items() if key not in ("shape", "axes", "truncated")}
    colormap = page.colormap if is_for_display and page.photometric == PHOTOMETRIC.PALETTE else None
    ratios = [page.tags.valueof(code) for code in (RESOLUTION_X, RESOLUTION_Y)]
    is_known = all(isinstance(ratio, tuple) and len(ratio) == 2 and all(ratio) for ratio in ratios)
    unit = page.tags.valueof(RESOLUTION_UNIT, default=RESUNIT.INCH)
    resolution = tuple(ratios) if is_known and unit in tuple(RESUNIT) else None
    return Tags(
        extra,
        resolution,
        int(unit) if resolution else 1,
        software,
        described[0] if described else None,
        shaped,
        colormap,
        (
            *(f"tag {tag.code} ({tag.name})" for tag in page.tags if tag.code not in _UNDERSTOOD),
            *(["texts of further pages"] if has_texts else []),
        ),
    )


def common_metadata(tags: Tags, byteorder: str) -> dict[str, Any]:
    """Translate what other formats know too.

    Args:
        tags: The tags of the file.
        byteorder: "<" or ">".

    Returns:
        As far as they are there `icc_profile`, `xmp`, `photoshop`, `iptc`, `dpi`, and the orientation as an EXIF block.
    """
    values = {code: _numbers(kind, data, byteorder) for code, kind, _, data, _ in tags.extra}
    metadata: dict[str, Any] = {
        name: next((data for code, _, _, data, _ in tags.extra if code == number), None)
        for name, number in (("icc_profile", ICC_PROFILE), *COMMON_BLOCKS.items())
    }
    scale = {int(RESUNIT.INCH): 1.0, int(RESUNIT.CENTIMETER): CENTIMETRES_PER_INCH}.get(tags.unit)
    if scale and tags.resolution:
        metadata["dpi"] = tuple(numerator / denominator * scale for numerator, denominator in tags.resolution)
    (orientation,) = values.get(ORIENTATION) or (TOP_LEFT,)
    if orientation != TOP_LEFT:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        metadata["exif"] = exif.tobytes()
    return {key: value for key, value in metadata.items() if value}


def no_data(tags: Tags, dtype: np.dtype) -> tuple[float | None, tuple[str, ...]]:
    """Read the value of pixels that hold no measurement, as GDAL writes it.

    Args:
        tags: Those of the file.
        dtype: Type of its pixels; the value is rounded to it if it is a float type, as pixels are.

    Returns:
        The value, `None` if there is none; notes, in words, if it cannot be understood.
    """
    data = next((data for code, _, _, data, _ in tags.extra if code == GDAL_NODATA), None)
    text = (data or b"").split(b"\0")[0].decode("latin-1").strip()
    if not text:
        return None, ()
    values = [_number(word) for word in text.replace(",", " ").split()]
    if None in values or len({repr(value) for value in values}) != 1:
        return None, (f"its no-data value {text!r} (GDAL_NODATA) is not one number and is ignored",)
    (value, *_) = values
    assert value is not None
    if dtype.kind == "f" and np.isfinite(value):
        with np.errstate(over="ignore"):
            rounded = float(dtype.type(value))
        value = rounded if np.isfinite(rounded) else value
    return value, ()


def _number(word: str) -> float | None:
    if "#" in word:  # as C programs on Windows wrote what is no number: 1.#QNAN, -1.#IND
        return float("nan") if word.upper().lstrip("+-").startswith(("1.#QNAN", "1.#IND", "1.#SNAN")) else None
    with contextlib.suppress(ValueError):
        return float(word) if "_" not in word else None
    return None


def holds_exif(block: bytes) -> bool:
    """Tell whether a TIFF file's own tags can hold all that an EXIF block says."""
    exif = Image.Exif()
    exif.load(block)
    own = {ORIENTATION, RESOLUTION_X, RESOLUTION_Y, RESOLUTION_UNIT, SOFTWARE, *TEXTS_OF_EXIF}
    return set(exif) <= own


def from_common(metadata: dict[str, Any]) -> dict[str, Any]:
    """Translate metadata of other formats to arguments of tifffile's writer."""
    options: dict[str, Any] = {"extratags": [], "software": "bsdenoise"}
    if "icc_profile" in metadata:
        options["iccprofile"] = metadata["icc_profile"]
    if "dpi" in metadata:
        options |= {"resolution": metadata["dpi"], "resolutionunit": RESUNIT.INCH}
    if "exif" in metadata:
        exif = Image.Exif()
        exif.load(metadata["exif"])
        if exif.get(ORIENTATION, TOP_LEFT) in range(2, 9):
            options["extratags"].append((ORIENTATION, 3, 1, exif[ORIENTATION], True))
        texts = {code: exif.get(code) for code in TEXTS_OF_EXIF}
        options["extratags"] += [
            (code, 2, 0, text.encode("utf-8", "replace"), True)
            for code, text in texts.items()
            if isinstance(text, str) and text
        ]
    options["extratags"] += [
        (number, _BYTE, len(metadata[name]), metadata[name], True)
        for name, number in COMMON_BLOCKS.items()
        if metadata.get(name)
    ]
    return options


def for_writer(tag: tuple[int, int, int, bytes, bool], byteorder: str) -> tuple[int, int, int, Any, bool]:
    """Prepare a tag for tifffile, which counts fractions twice if they come as bytes.

    Args:
        tag: Code, kind, count, value as bytes, and whether it stands on the first page alone.
        byteorder: "<" or ">".
    """
    code, kind, count, data, is_first = tag
    if kind not in _FRACTIONS or len(data) != 8 * count:
        return tag
    return code, kind, count, struct.unpack(f"{byteorder}{2 * count}{_FRACTIONS[kind]}", data), is_first


def _bytes(file: BinaryIO, tag: Any) -> bytes:
    """Read a tag's value as it stands in the file."""
    file.seek(tag.valueoffset)
    return file.read(tag.valuebytecount)


def _numbers(kind: int, data: bytes, byteorder: str) -> tuple[int, ...]:
    """Unpack SHORT and LONG values."""
    code = {3: "H", 4: "I"}.get(kind)
    return struct.unpack(f"{byteorder}{len(data) // struct.calcsize(code)}{code}", data) if code else ()
