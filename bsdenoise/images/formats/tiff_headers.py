"""Which TIFF files are understood. Every claim of a header is compared with the size of the file before it is believed.

tifffile reads the headers; what it passes over with a line in its log (broken pages, missing ones, other files that
belong to the same set) is an error here.
"""

import io
import logging
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPage, TiffPageSeries

from bsdenoise.images import pixels
from bsdenoise.images.formats import ome, tiff_tags
from bsdenoise.images.formats.tiff_layout import Layout

MAX_PACKING = 1100  # decoded bytes for each stored one: deflate reaches 1032
ALWAYS_ALLOWED = 2**28  # bytes of a page that need no such check: a black page may be packed to nothing
LEAST_BITS = 8
MAX_TEXT = 2**20  # bytes of a text that are compared with those of another
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_KINDS = ("ome", "imagej", "shaped")  # whose descriptions tell the axes
_JPEGS = (COMPRESSION.OJPEG, COMPRESSION.JPEG, 34892, 33007)  # decoded to RGB whatever is stored
_ALPHA = (1, 2)  # in the ExtraSamples tag: associated and unassociated
_KINDS_OF_COLOUR: dict[int, str] = {
    PHOTOMETRIC.SEPARATED: "CMYK (separated inks)",
    PHOTOMETRIC.MASK: "transparency mask",
    PHOTOMETRIC.YCBCR: "YCbCr (except in JPEG compression)",
    PHOTOMETRIC.CFA: "colour filter mosaic (raw camera)",
}


def examine(file: BinaryIO) -> Layout:
    """Read the headers of a file.

    Raises:
        ValueError: If it is broken or not understood. (Other errors are tifffile's.)
    """
    with opened(file) as tif:
        file_size = file.seek(0, io.SEEK_END)
        page_offsets = _page_offsets(file, tif)
        _check_tags(file, tif, page_offsets[0], file_size)
        if tif.is_ome:
            ome.check(tif.pages.first.description, len(page_offsets), tif.pages.first.samplesperpixel)
        series = _only_series(tif)
        page = series.keyframe
        dtype = _checked_type(page)
        bits = int(page.bitspersample)
        if tif.is_ome and dtype.kind == "u":
            bits = min(bits, ome.significant_bits(tif.pages.first.description) or bits)
        if not (series.axes.count("Y") == series.axes.count("X") == 1 and series.axes.count("S") <= 1):
            raise ValueError(f"its axes {series.axes} are not those of images")
        num_pages, start, offsets = _locate(series, page, file_size)
        kind = series.kind if series.kind in _KINDS else "plain"
        palette, notes = _palette(page, kind)
        num_colours, extrasamples = _without_alpha(page)
        if num_colours != page.samplesperpixel:
            notes.append(pixels.ALPHA_DROPPED)
        if len(series.levels) > 1:
            notes.append(pixels.PYRAMID_DROPPED)
        return Layout(
            kind=kind,
            axes=series.axes,
            shape=tuple(int(size) for size in series.shape),
            dtype=dtype,
            byteorder=tif.byteorder,
            is_big=tif.is_bigtiff,
            num_pages=num_pages,
            page_shape=tuple(int(size) for size in page.shape),
            offsets=offsets,
            start=start,
            photometric=int(page.photometric),
            is_planar=page.planarconfig == PLANARCONFIG.SEPARATE and page.samplesperpixel > 1,
            is_volume=page.imagedepth > 1,
            page_bits=int(page.bitspersample),
            bits=bits,
            num_colours=num_colours,
            extrasamples=extrasamples,
            palette=palette,
            compression=int(page.compression),
            predictor=int(page.predictor),
            tags=tiff_tags.collect(file, tif, page, kind, has_texts=_has_texts_of_its_own(file, tif, page_offsets[:2])),
            notes=tuple(notes),
        )


@contextmanager
def opened(file: BinaryIO) -> Iterator[TiffFile]:
    """Open a file with tifffile, which may look into no other file, and whose log is not shown."""
    file.seek(0)
    with silence(), TiffFile(file, _multifile=False, is_mmstack=False, is_ndtiff=False, is_scanimage=False) as tif:
        yield tif


def read_page(file: BinaryIO, tif: TiffFile, layout: Layout, number: int) -> np.ndarray:
    """Decode one page: the samples as they are stored, native byte order.

    Args:
        file: The open file.
        tif: The same, as tifffile has it.
        layout: What its headers say, with the place of each page.
        number: Number of the page, from 0.

    Raises:
        ValueError: If it is broken. (Other errors are tifffile's.)
    """
    assert layout.offsets is not None
    with silence():
        file.seek(int(layout.offsets[number]))
        page = TiffPage(tif, number)
        if page.shape != layout.page_shape or page.dtype != layout.dtype:
            raise ValueError(f"page {number} is not like the others")
        _check_data(page, page, file.seek(0, io.SEEK_END))  # before, the first page's arrangement stood for all
        return page.asarray(maxworkers=1)


def _page_offsets(file: BinaryIO, tif: TiffFile) -> list[int]:
    """Follow the chain of page headers; tifffile passes over a broken one, and with it over the rest of the file."""
    tiff = tif.tiff
    offsets: list[int] = []
    known: set[int] = set()
    file.seek(tiff.offsetsize)  # 4 of a classic file, 8 of a BigTIFF: the sizes of what stands before
    try:
        (offset,) = struct.unpack(tiff.offsetformat, file.read(tiff.offsetsize))
        while offset:
            if offset in known:
                raise ValueError(f"its chain of pages runs in a ring after page {len(offsets)}")
            known.add(offset)
            offsets.append(offset)
            file.seek(offset)
            (num_tags,) = struct.unpack(tiff.tagnoformat, file.read(tiff.tagnosize))
            file.seek(num_tags * tiff.tagsize, io.SEEK_CUR)
            (offset,) = struct.unpack(tiff.offsetformat, file.read(tiff.offsetsize))
    except struct.error as error:
        raise ValueError(f"it ends early, after {len(offsets) - 1} whole page(s)") from error
    if len(offsets) != len(tif.pages) or not offsets:
        raise ValueError(f"its chain of pages is broken after page {len(tif.pages)}")
    return offsets


def _check_tags(file: BinaryIO, tif: TiffFile, offset: int, file_size: int) -> None:
    """Look for descriptions beyond the end of the file; tifffile goes on without them, and with other axes."""
    tiff = tif.tiff
    for code, kind, count, value in _entries(file, tif, offset):
        size = count * TYPE_SIZES.get(kind, 1)
        if code in (*tiff_tags.KEPT_TAGS, tiff_tags.DESCRIPTION) and tiff.offsetsize < size > file_size - value:
            raise ValueError(f"it ends early: its tag {code} is missing")


def _entries(file: BinaryIO, tif: TiffFile, offset: int) -> Iterator[tuple[int, int, int, int]]:
    """Read the tags of a page as they stand there: code, type, count, and value or where it is."""
    tiff = tif.tiff
    file.seek(offset)
    (num_tags,) = struct.unpack(tiff.tagnoformat, file.read(tiff.tagnosize))
    return struct.iter_unpack(f"{tiff.byteorder}HH2{tiff.offsetformat[1:]}", file.read(num_tags * tiff.tagsize))


def _has_texts_of_its_own(file: BinaryIO, tif: TiffFile, offsets: list[int]) -> bool:
    """Tell whether the second page has a description, a name or a date that the first one has not."""
    texts = []
    for offset in offsets:
        found = {}
        for code, _, count, value in list(_entries(file, tif, offset)):
            if code in tiff_tags.TEXTS_OF_PAGES:
                file.seek(value)
                # Short ones stand in the entry itself.
                found[code] = value if count <= tif.tiff.offsetsize else file.read(min(count, MAX_TEXT))
        texts.append(found)
    return any(text != texts[0].get(code) for found in texts[1:] for code, text in found.items())


def _only_series(tif: TiffFile) -> TiffPageSeries:
    """Find the one series of full-size images."""
    found = [series for series in tif.series if not series.keyframe.is_reduced]
    shapes = [series.shape for series in found]
    for series in found:  # tifffile takes a second image of half the size for a level of a pyramid
        levels = [level.keyframe for level in series.levels[1:]]
        shapes += [page.shape for page in levels if not (page.is_reduced or page.is_subifd)]
    if len(shapes) != 1:
        listed = ", ".join("×".join(map(str, shape)) for shape in shapes[:4])
        more = ", …" if len(shapes) > 4 else ""
        raise ValueError(f"it holds {len(shapes)} series of images ({listed}{more}) where one is expected: split it")
    (series,) = found
    if tif.is_ome and series.kind != "ome":
        raise ValueError("its OME description does not fit its pages; it may be one of a set of files")
    if series.transform is not None:
        raise ValueError("its pixels need a conversion that is not supported")
    return series


def _locate(series: TiffPageSeries, page: TiffPage, file_size: int) -> tuple[int, int, np.ndarray | None]:
    """Find the pages of a series: their number, and where their pixels begin or the header of each is."""
    size = math.prod(series.shape)
    start, offsets = series.dataoffset, None
    if start is not None:  # pixels of all pages follow each other, perhaps with a header for the first page alone
        num_pages = size // math.prod(page.shape)
        if start + size * np.dtype(page.dtype).itemsize > file_size:
            raise ValueError("it ends early: pixels are missing")
    else:
        frames = list(series)
        num_pages = len(frames)
        if None in frames:
            raise ValueError(f"{frames.count(None)} of its {num_pages} pages are missing")
        for frame in frames:
            _check_data(frame, page, file_size)
        offsets = np.array([frame.offset for frame in frames if frame], np.int64)
    if num_pages * math.prod(page.shape) != size:
        raise ValueError(f"its {num_pages} pages are not the {series.shape} that its description claims")
    return num_pages, start or 0, offsets


def _checked_type(page: TiffPage) -> np.dtype:
    """Return the type of the pixels; refuse what is not grey or RGB, or holds no measured noise."""
    if page.bitspersample == 1:
        raise ValueError("1 bit per pixel tells nothing of how noisy a pixel was: there is no noise level to remove")
    if page.dtype is None:
        raise ValueError(f"its {page.bitspersample}-bit pixels are of an unknown type")
    pixels.full_scale(page.dtype)
    photometric = page.photometric
    if photometric == PHOTOMETRIC.PALETTE and page.samplesperpixel == 1 and page.colormap is not None:
        return page.dtype
    if photometric == PHOTOMETRIC.YCBCR and page.compression in _JPEGS and page.samplesperpixel == 3:
        return page.dtype
    if photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB):
        what = _KINDS_OF_COLOUR.get(photometric, getattr(photometric, "name", str(photometric)))
        raise ValueError(f"{what} images are not supported: convert it to RGB, knowing that this changes its noise")
    if page.bitspersample < LEAST_BITS:
        raise ValueError(
            f"{page.bitspersample}-bit grey images are not supported: rounding to {2**page.bitspersample} greys is no "
            "noise to model"
        )
    return page.dtype


def _check_data(frame: Any, page: TiffPage, file_size: int) -> None:
    """Compare what the header of a page claims with what the file holds."""
    offsets, counts = frame.dataoffsets, frame.databytecounts
    if not offsets or len(offsets) != len(counts) or 0 in counts:
        raise ValueError("parts of its pixels are missing")
    whole = [(offsets[0], page.nbytes)] if page.is_contiguous else zip(offsets, counts, strict=True)
    if any(offset + count > file_size for offset, count in whole):
        raise ValueError("it ends early: pixels are missing")
    if not page.is_contiguous and len(offsets) < math.prod(page.chunked):
        raise ValueError("parts of its pixels are missing")
    claimed = max(
        page.nbytes, math.prod(page.chunks) * np.dtype(page.dtype).itemsize
    )  # a tile may be larger than the page
    if claimed > max(ALWAYS_ALLOWED, MAX_PACKING * sum(counts)):
        raise ValueError(f"a page claims {claimed} bytes but holds only {sum(counts)} packed ones")


def _palette(page: TiffPage, kind: str) -> tuple[np.ndarray | None, list[str]]:
    """Return the colours of a palette, uint8, and the note; microscopes colour measured greys, which are kept."""
    if page.photometric != PHOTOMETRIC.PALETTE or kind in ("imagej", "ome"):
        return None, []
    colours = np.asarray(page.colormap).T
    # 16 bits, says the specification; some programs write 8.
    palette, note = pixels.simplified_palette((colours >> 8 if colours.max() > 255 else colours).astype(np.uint8))
    return palette, [note]


def _without_alpha(page: TiffPage) -> tuple[int, tuple[int, ...]]:
    """Count the samples but for alpha, and return the ExtraSamples tag without it."""
    extra = tuple(int(value) for value in page.extrasamples)
    has_alpha = bool(extra) and extra[-1] in _ALPHA and page.samplesperpixel > 1
    return page.samplesperpixel - has_alpha, extra[:-1] if has_alpha else extra


class _Silencer(logging.Filter):
    """Drops records of threads that read a file here: broken files are refused in one line of our own."""

    def __init__(self) -> None:
        super().__init__()
        self.local = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(self.local, "depth", 0)


_SILENCER = _Silencer()


@contextmanager
def silence() -> Iterator[None]:
    """Keep tifffile's log of this thread off the terminal."""
    logging.getLogger("tifffile").addFilter(_SILENCER)  # no more than once, whatever the number of calls
    local = _SILENCER.local
    local.depth = getattr(local, "depth", 0) + 1
    try:
        yield
    finally:
        local.depth -= 1
