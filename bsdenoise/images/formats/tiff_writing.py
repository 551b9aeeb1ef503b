"""Writing TIFF files: like the one that was read, or new ones."""

import math
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

import numpy as np
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG, TiffWriter

from bsdenoise.images.formats import ome, tiff_byteorder, tiff_tags
from bsdenoise.images.formats.tiff_headers import silence
from bsdenoise.images.formats.tiff_layout import Layout
from bsdenoise.images.pixels import ImageFile, Picture

MAX_CLASSIC_BYTES = 2**32 - 2**25  # of pixels; offsets have 32 bits, and headers need room too
_DEFLATES = (COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE)
_IMAGEJ_TYPES = (np.uint8, np.uint16, np.float32)
_NO_PREDICTOR = 1
NUM_COLOURS = 3  # red, green and blue
TILED_PIXELS = 2**24  # larger pages are written in tiles, so that no page need be in memory as a whole
TILE = 512


def write_like(file: BinaryIO, array: np.ndarray, layout: Layout) -> None:
    """Write images with the axes, arrangement, compression and tags of a file that was read.

    More pixels than a classic TIFF can hold go into a BigTIFF. For an ImageJ stack that is a compromise: its
    description stays true, but ImageJ itself opens such a file through Bio-Formats only.

    Integers keep their byte order; floats are written little-endian, since Pillow, and all that reads through it, swaps
    the bytes of compressed big-endian ones. Packed integers stay packed, which no compression goes with; values that
    need more bits take all those of their type.

    Args:
        file: Open for writing.
        array: Of `layout.image_shape`.
        layout: The file's.
    """
    axes, shape = _written_axes(layout)
    tags = layout.tags
    has_same_type = array.dtype == layout.dtype
    keeps_bits = has_same_type and not (layout.significant_bits and array.max(initial=0) >= 2**layout.bits)
    bits = layout.page_bits if keeps_bits and layout.is_packed else None
    # tifffile packs integers as if they were little-endian whatever they are.
    byteorder = "<" if array.dtype.kind == "f" or bits else layout.byteorder
    extra = tags.extra if byteorder == layout.byteorder else tiff_byteorder.swapped(tags.extra, layout.byteorder)
    dtype = array.dtype.newbyteorder(byteorder)
    pages_per_frame = layout.num_pages // math.prod(shape[: layout.num_frame_axes])
    page_shape = _written_page_shape(layout)
    inverts = layout.is_inverted and keeps_bits
    white = 2**layout.bits - 1

    is_tiled = _is_tiled(page_shape, layout)

    def pages() -> Iterator[np.ndarray]:
        for frame in _frames(array, layout, axes, shape):
            for page in frame.reshape(pages_per_frame, *page_shape):
                for part in _tiles(page, layout.is_planar) if is_tiled else [page]:
                    yield np.ascontiguousarray(array.dtype.type(white) - part if inverts else part, dtype)

    options = {**_samples(layout, inverts, has_same_type), **({"bitspersample": bits} if bits else _packing(layout))}
    if is_tiled:
        options["tile"] = (TILE, TILE)
    # A profile and a table of colours are not those of anything else that is written in their place.
    kept = (tag for tag in extra if has_same_type or tag[0] not in tiff_tags.OF_COLOURS)
    options["extratags"] = [tiff_tags.for_writer(tag, byteorder) for tag in kept]
    options["software"] = tags.software or False
    if tags.resolution:
        options |= {"resolution": tags.resolution, "resolutionunit": tags.unit}
    if layout.kind == "shaped":
        options |= {"shape": shape, "metadata": {**tags.shaped, "axes": axes}, "description": tags.description}
    else:
        is_stack = layout.num_pages > 1
        options |= {"shape": (layout.num_pages, *page_shape) if is_stack else page_shape, "metadata": None}
        is_ome = layout.kind == "ome"
        samples = (layout.shape[layout.axes.index("S")], layout.num_colours) if layout.drops_alpha else None
        xml = ome.adapted(tags.description or b"", array.dtype, keeps_bits, samples) if is_ome else None
        options["description"] = xml if is_ome else tags.description
    with silence(), _writer(file, array.nbytes, byteorder, layout.is_big) as writer:
        writer.write(pages(), dtype=dtype, **options)


def can_write_like(shape: tuple[int, ...], dtype: np.dtype, layout: Layout) -> bool:
    """Tell whether images fit the layout of a file: some kinds fix the type, or the number of samples.

    Args:
        shape: Shape of the images.
        dtype: Type of their pixels.
        layout: That of the file.
    """
    if shape != layout.image_shape:
        return False
    if layout.kind == "imagej":
        types = _IMAGEJ_TYPES if "S" not in layout.axes else (np.uint8,)
        return dtype in types
    return True


def are_independent(shape: tuple[int, ...], like: Picture | ImageFile) -> bool:
    """Tell whether the channels of what is written like a file are no colours, as those of the file.

    Args:
        shape: Shape of what is written.
        like: What was read.
    """
    return like.independent_channels and shape[-1:] == like.shape[-1:]


def write_new(
    file: BinaryIO,
    array: np.ndarray,
    metadata: dict[str, Any],
    layout: Layout | None = None,
    independent_channels: bool = False,
) -> None:
    """Write images with the little that other formats know too.

    Grey and RGB images are plain pages. For stacks, and for channels that are no RGB, which become pages of their own,
    a description names the axes: OME's for what was OME, otherwise tifffile's.

    Args:
        file: Open for writing.
        array: (H, W), (H, W, C) or (N, H, W, C).
        metadata: As in `Picture`.
        layout: Of the file that was read, for its outer axes.
        independent_channels: Whether three channels are not red, green and blue.
    """
    num_images = array.shape[:-3]
    if array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    has_channels = array.ndim > 2 + len(num_images)
    is_rgb = has_channels and array.shape[-1] == NUM_COLOURS and not independent_channels
    if has_channels and not is_rgb:
        array = np.moveaxis(array, -1, -3)  # a view: pages are copied one by one
    names, sizes = "Q" * len(num_images), num_images
    if layout is not None and num_images == (layout.num_images,):
        names = "".join(layout.axes[number] for number in layout.outer)
        sizes = tuple(layout.shape[number] for number in layout.outer)
    axes = f"{names}YXS" if is_rgb else f"{names}{'C' if has_channels else ''}YX"
    shape = (*sizes, *array.shape[len(num_images) :])
    page_shape = array.shape[-3:] if is_rgb else array.shape[-2:]

    is_tiled = _is_tiled(page_shape)

    def pages() -> Iterator[np.ndarray]:
        for index in np.ndindex(array.shape[: array.ndim - len(page_shape)]):
            for part in _tiles(array[index], is_planar=False) if is_tiled else [array[index]]:
                yield np.ascontiguousarray(part)

    is_ome = layout is not None and layout.kind == "ome"
    is_plain = shape == page_shape and not is_ome
    with silence(), _writer(file, array.nbytes, "<", is_big=False, is_ome=is_ome) as writer:
        writer.write(
            pages(),
            shape=shape,
            dtype=array.dtype,
            photometric=PHOTOMETRIC.RGB if is_rgb else PHOTOMETRIC.MINISBLACK,
            planarconfig=PLANARCONFIG.CONTIG if is_rgb else None,
            metadata=None if is_plain else {"axes": axes},
            compression=COMPRESSION.ADOBE_DEFLATE,
            predictor=True,
            tile=(TILE, TILE) if is_tiled else None,
            **tiff_tags.from_common(metadata),
        )


def _is_tiled(page_shape: tuple[int, ...], layout: Layout | None = None) -> bool:
    """Tell whether pages are written in tiles; those with a depth, and ImageJ's, never are."""
    if layout is not None and (layout.is_volume or layout.kind == "imagej"):
        return False
    return math.prod(sorted(page_shape)[-2:]) > TILED_PIXELS


def _tiles(page: np.ndarray, is_planar: bool) -> Iterator[np.ndarray]:
    """Cut a page, (H, W), (H, W, S) or (S, H, W), into tiles in the order of the file."""
    for plane in page if is_planar else [page]:
        for top in range(0, plane.shape[0], TILE):
            for left in range(0, plane.shape[1], TILE):
                yield plane[top : top + TILE, left : left + TILE]


def _written_axes(layout: Layout) -> tuple[str, tuple[int, ...]]:
    """Return the axes and their lengths after alpha is dropped, or a palette turned into colours."""
    axes, shape = layout.axes, layout.shape
    if layout.drops_alpha:
        number = axes.index("S")
        kept = (layout.num_colours,) if layout.num_colours > 1 else ()
        axes = axes if kept else axes.replace("S", "")
        return axes, (*shape[:number], *kept, *shape[number + 1 :])
    if layout.palette is not None and layout.palette.ndim == 2:
        return f"{axes}S", (*shape, NUM_COLOURS)
    return axes, shape


def _written_page_shape(layout: Layout) -> tuple[int, ...]:
    """Return the shape of a page after the same changes."""
    shape = layout.page_shape
    if layout.drops_alpha:
        kept = (layout.num_colours,) if layout.num_colours > 1 else ()
        return (*kept, *shape[1:]) if layout.is_planar else (*shape[:-1], *kept)
    return (*shape, NUM_COLOURS) if layout.palette is not None and layout.palette.ndim == 2 else shape


def _frames(array: np.ndarray, layout: Layout, axes: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Cut (H, W), (H, W, C) or (N, H, W, C) into the frames of a layout, each with the axes that a frame has."""
    channel = next((axes.index(name) for name in "SC" if name in axes), None)
    inner = [axes.index("Y"), axes.index("X"), *([] if channel is None else [channel])]
    order = [*(number for number in range(len(axes)) if number not in inner), *inner]
    view = array.reshape([shape[number] for number in order]).transpose(np.argsort(order))
    for index in np.ndindex(view.shape[: layout.num_frame_axes]):
        yield view[index]


def _samples(layout: Layout, inverts: bool, has_same_type: bool) -> dict[str, Any]:
    """Return tifffile's arguments for what the samples mean."""
    num_samples = layout.num_colours
    photometric = PHOTOMETRIC.MINISBLACK
    if layout.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR) or (
        layout.palette is not None and layout.palette.ndim == 2
    ):
        photometric, num_samples = PHOTOMETRIC.RGB, max(num_samples, NUM_COLOURS)
    elif inverts or (layout.photometric == PHOTOMETRIC.MINISWHITE and layout.dtype.kind == "f"):
        photometric = PHOTOMETRIC.MINISWHITE
    options: dict[str, Any] = {"photometric": photometric}
    if layout.tags.colormap is not None and has_same_type:
        options |= {"colormap": layout.tags.colormap, "photometric": PHOTOMETRIC.PALETTE}
    if num_samples > 1:
        options["planarconfig"] = PLANARCONFIG.SEPARATE if layout.is_planar else PLANARCONFIG.CONTIG
    if layout.is_volume:
        options["volumetric"] = True
    if layout.extrasamples:
        options["extrasamples"] = layout.extrasamples
    return options


def _packing(layout: Layout) -> dict[str, Any]:
    """Return tifffile's arguments for the compression: none, deflate or LZW as in the input, deflate for others."""
    if layout.compression == COMPRESSION.NONE:
        return {}
    if layout.compression in (*_DEFLATES, COMPRESSION.LZW):
        return {"compression": COMPRESSION(layout.compression), "predictor": layout.predictor != _NO_PREDICTOR}
    return {"compression": COMPRESSION.ADOBE_DEFLATE, "predictor": True}


def _writer(
    file: BinaryIO, num_bytes: int, byteorder: Literal["<", ">"], is_big: bool, is_ome: bool = False
) -> TiffWriter:
    is_big = is_big or num_bytes > MAX_CLASSIC_BYTES
    return TiffWriter(file, bigtiff=is_big, byteorder=byteorder, ome=is_ome, imagej=False)
