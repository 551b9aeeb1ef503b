"""What a TIFF file knows beside its pixels: descriptions, resolution, profiles and other tags, kept byte for byte."""

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from tifffile import PHOTOMETRIC, RESUNIT, TiffFile, TiffPage

DESCRIPTION, SOFTWARE, ORIENTATION, COLORMAP, ICC_PROFILE = 270, 305, 274, 320, 34675
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
    42113: "GDAL_NODATA",
    50838: "IJMetadataByteCounts",
    50839: "IJMetadata",
}
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
    """

    extra: tuple[tuple[int, int, int, bytes, bool], ...]
    resolution: tuple[tuple[int, int], tuple[int, int]] | None
    unit: int
    software: bytes
    description: bytes | None
    shaped: dict[str, Any]
    colormap: np.ndarray | None


def collect(file: BinaryIO, tif: TiffFile, page: TiffPage, kind: str) -> Tags:
    """Reads the tags of a page."""
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
    )


def common_metadata(tags: Tags, byteorder: str) -> dict[str, Any]:
    """Translates what other formats know too: `icc_profile`, `dpi`, and the orientation as an EXIF block."""
    values = {code: _numbers(kind, data, byteorder) for code, kind, _, data, _ in tags.extra}
    metadata: dict[str, Any] = {
        "icc_profile": next((data for code, _, _, data, _ in tags.extra if code == ICC_PROFILE), None)
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


def from_common(metadata: dict[str, Any]) -> dict[str, Any]:
    """Translates metadata of other formats to arguments of tifffile's writer."""
    options: dict[str, Any] = {"extratags": [], "software": "bsdenoise"}
    if "icc_profile" in metadata:
        options["iccprofile"] = metadata["icc_profile"]
    if "dpi" in metadata:
        options |= {"resolution": metadata["dpi"], "resolutionunit": RESUNIT.INCH}
    if "exif" in metadata:
        exif = Image.Exif()
        exif.load(metadata["exif"])
        if exif.get(ORIENTATION, TOP_LEFT) in range(2, 9):
            options["extratags"] = [(ORIENTATION, 3, 1, exif[ORIENTATION], True)]
    return options


def _bytes(file: BinaryIO, tag: Any) -> bytes:
    """Reads a tag's value as it stands in the file."""
    file.seek(tag.valueoffset)
    return file.read(tag.valuebytecount)


def _numbers(kind: int, data: bytes, byteorder: str) -> tuple[int, ...]:
    """Unpacks SHORT and LONG values."""
    code = {3: "H", 4: "I"}.get(kind)
    return struct.unpack(f"{byteorder}{len(data) // struct.calcsize(code)}{code}", data) if code else ()
