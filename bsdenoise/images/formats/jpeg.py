"""JPEG files, grey and RGB."""

import io
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from bsdenoise.images.formats import jpeg_segments
from bsdenoise.images.pixels import ImageFile, Picture, check_grey_or_rgb, same_colours, without_single_channel

SIGNATURE = b"\xff\xd8\xff"
QUALITY = 95  # above it files grow fast and change little, says Pillow's manual
_EXIF_PREFIX = b"Exif\0\0"  # JPEG puts it before an EXIF block, PNG does not
_REFUSED = "{} images are not supported: convert it to RGB, knowing that this changes its noise"


def open_file(file: BinaryIO) -> ImageFile:
    """Read the headers.

    Raises:
        ValueError: If it is neither grey nor RGB. (Other errors are the decoder's.)
    """
    try:
        opened = Image.open(file, formats=("JPEG",))
    except UnidentifiedImageError as error:
        raise ValueError("it is cut off or damaged before the picture begins") from error
    with opened as image:
        if image.mode not in ("L", "RGB"):
            raise ValueError(_REFUSED.format(image.mode))
        exif = image.info.get("exif", b"").removeprefix(_EXIF_PREFIX)
        metadata = {"icc_profile": image.info.get("icc_profile"), "exif": exif, "dpi": image.info.get("dpi")}
        shape = (image.height, image.width) if image.mode == "L" else (image.height, image.width, 3)
    found = tuple(jpeg_segments.segments(file))
    kept = tuple(segment for segment in found if jpeg_segments.is_kept(segment))
    metadata |= {"segments": kept, "foreign": jpeg_segments.foreign(found), **jpeg_segments.metadata(kept)}

    def decode(_: int) -> np.ndarray:
        file.seek(0)
        with Image.open(file, formats=("JPEG",)) as image:
            return np.asarray(image)

    known = {key: value for key, value in metadata.items() if value}
    return ImageFile("JPEG", shape, np.dtype(np.uint8), decode, known, jpeg_segments.further(found))


def check(shape: tuple[int, ...], dtype: Any) -> None:
    """Check that an array can be written.

    Args:
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.

    Raises:
        ValueError: If not.
    """
    check_grey_or_rgb(shape, dtype, (np.uint8,), "JPEG")


def write(file: BinaryIO, array: np.ndarray, like: Picture | ImageFile) -> None:
    """Encode an array, with colours at full resolution and the metadata of `like`.

    Args:
        file: Open for writing.
        array: (H, W) or (H, W, C), uint8.
        like: Whose metadata it gets.
    """
    known = like.metadata
    options: dict[str, Any] = {}
    if "icc_profile" in known and same_colours(array.shape, like.shape):
        options["icc_profile"] = known["icc_profile"]
    if "exif" in known:
        options["exif"] = _EXIF_PREFIX + known["exif"]
    if "dpi" in known:
        options["dpi"] = known["dpi"]
    image = Image.fromarray(without_single_channel(array))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=QUALITY, subsampling="4:4:4", **options)
    extra = known.get("segments", ()) if like.format == "JPEG" else jpeg_segments.made_from(known)
    file.write(jpeg_segments.with_segments(encoded.getvalue(), extra))
