"""What of a file a written one cannot hold, in words: metadata is kept, or said to be left out."""

from pathlib import Path

from bsdenoise.images.formats import jpeg_segments, png, tiff_tags, tiff_writing
from bsdenoise.images.pixels import ImageFile, Picture

# By format, the metadata of other formats that go into it, named as in `Picture.metadata`.
_HELD = {
    "PNG": {"icc_profile", "exif", "dpi", "xmp", "comments"},
    "JPEG": {"icc_profile", "exif", "dpi", "xmp", "photoshop", "iptc", "comments"},
    "TIFF": {"icc_profile", "dpi", "xmp", "photoshop", "iptc"},
    "NPY": set(),
    "Zarr": set(),
}
_WORDS = {
    "icc_profile": "ICC profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "photoshop": "Photoshop and IPTC data",
    "iptc": "IPTC data",
    "comments": "comments",
}
_GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 50844)
_GDAL_METADATA = 42112
_NO_RESOLUTION = ((1, 1), (1, 1))  # what programs write that know none


def not_kept(like: Picture | ImageFile, target: str, path: Path | None = None) -> tuple[str, ...]:
    """Name what is left out of a file that is written like another one.

    Args:
        like: The file that was read.
        target: Format of the one that is written: "PNG", "JPEG", "TIFF", "NPY" or "Zarr".
        path: Name of the one that is written, for the words.

    Returns:
        Notes, each of a kind: metadata, and what pixels mean.
    """
    names = _metadata(like, target)
    where = path.name if path is not None else f"a {target} file"
    notes = []
    if names:
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        notes.append(f"its {listed} {'are' if len(names) > 1 or listed.endswith('s') else 'is'} not kept in {where}")
    if like.bits is not None and not (target == "TIFF" and like.format == "TIFF"):
        notes.append(f"its {like.bits}-bit values are not scaled: {target} has 8 or 16 bits, and shows them dark")
    if like.independent_channels and target in ("PNG", "JPEG") and like.shape[-1] > 1:
        notes.append(f"its independent channels become red, green and blue: {target} has no others")
    return tuple(notes)


def _metadata(like: Picture | ImageFile, target: str) -> list[str]:
    known = like.metadata
    held = _HELD[target]
    is_same = like.format == target
    names = [] if is_same else [words for key, words in _WORDS.items() if known.get(key) and key not in held]
    if target == "TIFF" and known.get("exif") and not is_same and tiff_tags.holds_exif(known["exif"]):
        names.remove("EXIF")
    if like.format == "JPEG":
        if not is_same and known.get("more_xmp"):
            names.append("extended XMP")
        names += known.get("foreign", ())
    elif like.format == "PNG" and not is_same:
        names += ["texts"] if png.num_other_texts(known.get("chunks", ())) else []
        names += ["gamma and chromaticities"] if _has_own_colours(known.get("chunks", ())) else []
    elif "tiff" in known:
        names += _of_tiff(like, target)
    elif like.format == "Zarr" and not is_same and getattr(known.get("zarr"), "image", None) is not None:
        names.append("OME-Zarr description")
    if target == "JPEG" and not is_same and known.get("xmp") and not jpeg_segments.fits_xmp(known):
        names.append("XMP (more than 64 kB)")
    if like.no_data is not None and not is_same:
        names.append("no-data value")
    return names


def _has_own_colours(chunks: tuple[png.Chunk, ...]) -> bool:
    """Tell whether colours are described by numbers alone, which no other format takes over."""
    names = {chunk.name for chunk in chunks}
    return bool(names & {b"gAMA", b"cHRM"}) and not names & {b"sRGB", b"iCCP"}


def _of_tiff(like: Picture | ImageFile, target: str) -> list[str]:
    layout = like.metadata["tiff"]
    tags = layout.tags
    names = list(tags.left_out)
    array_type = like.dtype if isinstance(like, ImageFile) else like.array.dtype
    if target == "TIFF" and tiff_writing.can_write_like(like.shape, array_type, layout):
        return names
    codes = {code for code, *_ in tags.extra}
    if layout.kind == "ome":
        names.append("OME description")
    elif layout.kind == "imagej":
        names.append("ImageJ description")
    elif tags.description or tags.shaped:
        names.append("description")
    if codes & set(_GEO_TAGS):
        names.append("GeoTIFF tags")
    if _GDAL_METADATA in codes:
        names.append("GDAL metadata")
    rest = codes - {*_GEO_TAGS, _GDAL_METADATA, tiff_tags.GDAL_NODATA, *tiff_tags.IN_OTHER_FORMATS}
    names += [tiff_tags.KEPT_TAGS[code] for code in sorted(rest)]
    has_no_unit = tags.resolution is not None and "dpi" not in like.metadata
    if has_no_unit and layout.kind not in ("ome", "imagej") and tags.resolution != _NO_RESOLUTION:
        names.append("resolution")
    return names
