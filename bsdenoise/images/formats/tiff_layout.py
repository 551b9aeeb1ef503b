"""How the images of a TIFF file lie in its pages.

A TIFF is a chain of pages; tifffile makes them a series, an array with named axes (T, Z, C, Y, X, S for samples, …)
whose last axes are those of a page.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tifffile import PHOTOMETRIC

from bsdenoise.images.formats import tiff_tags


@dataclass(frozen=True)
class Layout:
    """How the images of a series lie in a file.

    Attributes:
        kind: "ome", "imagej", "shaped" (tifffile's own) or "plain".
        axes: One letter per axis of the series as it is stored.
        shape: Length of each axis.
        dtype: Type of the stored pixels, native.
        byteorder: "<" or ">".
        is_big: Whether it is a BigTIFF.
        num_pages: Number of pages of the series.
        page_shape: (H, W), (H, W, S), (S, H, W), or with a depth before H.
        offsets: Where the page headers are; `None` if the pixels of all pages follow each other from `start` on.
        start: Where the pixels begin, if they follow each other.
        photometric: Meaning of the samples.
        is_planar: Whether each sample has a plane of its own.
        is_volume: Whether a page has a depth.
        page_bits: Bits per sample of the pages.
        bits: Bits per sample that mean something: those of the pages, or fewer where an OME description says so.
        num_colours: Samples that are kept; the rest is alpha.
        extrasamples: The ExtraSamples tag without that alpha.
        palette: Colours, (number, 3) or (number,), if they replace the pixels.
        compression: Its number.
        predictor: Its number; 1 for none.
        tags: What else the file knows.
        notes: What is changed on reading.
    """

    kind: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    byteorder: Literal["<", ">"]
    is_big: bool
    num_pages: int
    page_shape: tuple[int, ...]
    offsets: np.ndarray | None
    start: int
    photometric: int
    is_planar: bool
    is_volume: bool
    page_bits: int
    bits: int
    num_colours: int
    extrasamples: tuple[int, ...]
    palette: np.ndarray | None
    compression: int
    predictor: int
    tags: tiff_tags.Tags
    notes: tuple[str, ...]

    @property
    def channel(self) -> int | None:
        """Number of the axis that holds the channels: samples (S) where there are any, otherwise C."""
        return next((self.axes.index(name) for name in "SC" if name in self.axes), None)

    @property
    def outer(self) -> tuple[int, ...]:
        """Numbers of the axes along which there is one image after the other."""
        inner = (self.axes.index("Y"), self.axes.index("X"), self.channel)
        return tuple(number for number in range(len(self.axes)) if number not in inner)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return math.prod(self.shape[number] for number in self.outer)

    @property
    def num_frame_axes(self) -> int:
        """How many axes count frames: the least piece of whole pages that holds all rows and columns of an image."""
        for number in range(min(self.axes.index("Y"), self.axes.index("X")), 0, -1):
            if self.num_pages % math.prod(self.shape[:number]) == 0:
                return number
        return 0

    @property
    def independent_channels(self) -> bool:
        """Whether there are channels that are no colours: all but the samples of pages that are called RGB.

        An axis C counts as channels even where the pages are called RGB: tifffile calls every array of three planes so
        unless it is told otherwise.
        """
        if self.channel is None or len(self.image_shape) == 2 or self.image_shape[-1] == 1:
            return False
        return self.axes[self.channel] != "S" or self.photometric not in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)

    @property
    def significant_bits(self) -> int | None:
        """Bits of integer pixels, if they are fewer than those of the type."""
        is_partial = self.dtype.kind == "u" and self.palette is None and self.bits < 8 * self.dtype.itemsize
        return self.bits if is_partial else None

    @property
    def is_packed(self) -> bool:
        """Whether samples take fewer bits than the integers that they are read into."""
        return self.significant_bits is not None and self.page_bits < 8 * self.dtype.itemsize

    @property
    def is_inverted(self) -> bool:
        """Whether 0 is white. It is turned round on reading and writing; what floats mean by it nobody knows."""
        return self.photometric == PHOTOMETRIC.MINISWHITE and self.dtype.kind == "u" and self.palette is None

    @property
    def drops_alpha(self) -> bool:
        """Whether there are samples that are not kept."""
        return "S" in self.axes and self.shape[self.axes.index("S")] != self.num_colours

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of what is read: (H, W), (H, W, C) or (N, H, W, C)."""
        size = self.shape[self.axes.index("Y")], self.shape[self.axes.index("X")]
        channels: tuple[int, ...] = () if self.channel is None else (self.shape[self.channel],)
        if self.drops_alpha:
            channels = (self.num_colours,) if self.num_colours > 1 else ()
        if self.palette is not None and self.palette.ndim == 2:
            channels = (3,)
        return (*size, *channels) if self.num_images == 1 else (self.num_images, *size, *(channels or (1,)))
