"""Drawing: rows of small pictures side by side, each with some lines of text below."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
GAP = 4  # pixels between pictures
ROW_GAP = 12  # pixels between rows
PAD = 2  # pixels between a picture and its text
MIN_FONT, MAX_FONT = 13, 40  # pixels: smaller cannot be read on a screen, larger is for no one
FONT_SHARE = 11  # pixels of a picture for each pixel of the font; from 8 on there is room for "per-component"
MIN_LETTERS = 14  # in a line before it is wrapped, however narrow the picture


@dataclass(frozen=True)
class Picture:
    """One picture of a strip.

    Attributes:
        pixels: uint8 (H, W, 1) or (H, W, 3).
        lines: What stands below, line by line; long lines are wrapped.
    """

    pixels: np.ndarray
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """Pictures side by side.

    Attributes:
        title: What stands above; empty for nothing.
        pictures: From left to right.
    """

    title: str
    pictures: Sequence[Picture]


def enlarged(pixels: np.ndarray, zoom: int) -> np.ndarray:
    """Make every pixel a square of `zoom` × `zoom` pixels, so that nothing is interpolated."""
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def draw(rows: Sequence[Row], zoom: int = 1, columns: int | None = None) -> Image.Image:
    """Draw rows below each other.

    All pictures stand in columns of the same width; a column is wider than its pictures where their text is.

    Args:
        rows: At least one, each with at least one picture.
        zoom: Whole number by which pictures, not their texts, are enlarged; no pixel is interpolated.
        columns: Most pictures side by side: longer rows are continued below. `None` continues none.

    Returns:
        An RGB image on white.
    """
    widths = [picture.pixels.shape[1] * zoom for row in rows for picture in row.pictures]
    font = _font(min(max(min(widths) // FONT_SHARE, MIN_FONT), MAX_FONT))
    letters = max(int(min(widths) / font.getlength("n")), MIN_LETTERS)
    parts = []
    for row in rows:
        texts = [_text(_wrapped(picture.lines, letters), font) for picture in row.pictures]
        widths += [text.width for text in texts]
        parts.append((row, texts))
    column = max(widths)
    lines = []
    for row, texts in parts:
        tiles = [
            _below([_centred(image, column) for image in (_image(enlarged(picture.pixels, zoom)), text)], PAD)
            for picture, text in zip(row.pictures, texts, strict=True)
        ]
        step = columns or len(tiles)
        first, *others = [_beside(tiles[start : start + step], GAP) for start in range(0, len(tiles), step)]
        lines += [_below([_text([row.title], font), first], PAD) if row.title else first, *others]
    return _below(lines, ROW_GAP)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ValueError("Labels need a Pillow that was built with FreeType, as those that pip installs are.")
    return font


def _wrapped(lines: Sequence[str], letters: int) -> list[str]:
    """Break lines of more letters, within a word if it must be: names of models may be whole paths."""
    return [part for line in lines for part in textwrap.wrap(line, letters) or [""]]


def _text(lines: Sequence[str], font: ImageFont.FreeTypeFont) -> Image.Image:
    """Draw black text on white, centred lines."""
    text = "\n".join(lines)
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    _, _, right, bottom = pen.multiline_textbbox((0, 0), text, font)
    # Room for descenders, whether this text has any or not, so that equal numbers of lines are equally high.
    height = bottom + max(0, sum(font.getmetrics()) - (pen.textbbox((0, 0), lines[-1], font)[3]))
    canvas = Image.new("RGB", (int(np.ceil(right)), int(np.ceil(height))), WHITE)
    ImageDraw.Draw(canvas).multiline_text((0, 0), text, BLACK, font, align="center")
    return canvas


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))


def _centred(image: Image.Image, width: int) -> Image.Image:
    canvas = Image.new("RGB", (width, image.height), WHITE)
    canvas.paste(image, ((width - image.width) // 2, 0))
    return canvas


def _beside(images: Sequence[Image.Image], gap: int) -> Image.Image:
    """Put images side by side, aligned at the top."""
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    canvas, left = Image.new("RGB", (width, max(image.height for image in images)), WHITE), 0
    for image in images:
        canvas.paste(image, (left, 0))
        left += image.width + gap
    return canvas


def _below(images: Sequence[Image.Image], gap: int) -> Image.Image:
    """Put images below each other, aligned on the left."""
    height = sum(image.height for image in images) + gap * (len(images) - 1)
    canvas, top = Image.new("RGB", (max(image.width for image in images), height), WHITE), 0
    for image in images:
        canvas.paste(image, (0, top))
        top += image.height + gap
    return canvas
