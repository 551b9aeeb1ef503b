"""OME's description of a TIFF file: what it claims, and how it is adapted to the file that is written."""

import math
import re
from xml.etree import ElementTree

import numpy as np

LEAST_BITS = 8  # fewer would be no measurement of light: such a number is taken for an error
MAX_LABELS = 2**20  # positions along one axis; tifffile makes an array of them
_TYPES = {"f2": "half", "f4": "float", "f8": "double", "u1": "uint8", "u2": "uint16"}
_TIFF_DATA = re.compile(r"<(?:\w+:)?TiffData\b[^>]*?(?:/>|>.*?</(?:\w+:)?TiffData\s*>)", re.DOTALL)
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_PIXELS_END = re.compile(r"</(\w+:)?Pixels\s*>")
_UUID = re.compile(r"""(<(?:\w+:)?OME\b[^>]*?)\s+UUID\s*=\s*(?:"[^"]*"|'[^']*')""")
_SAMPLES = re.compile(r"""(\bSamplesPerPixel\s*=\s*["'])(\d+)(["'])""")
_SIZE_C = re.compile(r"""(\bSizeC\s*=\s*["'])(\d+)(["'])""")
_TYPE = re.compile(r"""\bType\s*=\s*["']\w+["']""")
_DECLARED_BITS = re.compile(r"""\bSignificantBits\s*=\s*["'](\d{1,2})["']""")
_SIGNIFICANT_BITS = re.compile(r"""\s+SignificantBits\s*=\s*["']\d+["']""")


def check(description: str, num_pages: int, samples_per_pixel: int) -> None:
    """Refuse a description that claims more than the file can hold, before anything of that size is made.

    Args:
        description: The OME-XML of the file.
        num_pages: How many pages the file has.
        samples_per_pixel: How many samples a pixel of them has.

    Raises:
        ValueError: If it does, or is no XML.
    """
    try:
        root = ElementTree.fromstring(description)
    except ElementTree.ParseError as error:
        raise ValueError(f"its OME description is broken ({error})") from error
    claims = [0]
    for element in root.iter():
        name, known = element.tag.rpartition("}")[2], element.attrib
        if name == "Pixels":
            planes = math.prod(int(known.get(f"Size{axis}", 1)) for axis in "CZT")
            claims.append(-(-planes // max(samples_per_pixel, 1)))
        elif name == "TiffData":
            claims += [int(known.get(key, 0)) for key in ("PlaneCount", "NumPlanes", "IFD")]
        elif name.startswith("ModuloAlong") and "Start" in known:
            start, end, step = (float(known.get(key, 1)) for key in ("Start", "End", "Step"))
            if not abs(end - start) <= MAX_LABELS * abs(step):
                raise ValueError(f"its OME description claims more than {MAX_LABELS} positions along an axis")
    if max(claims) > num_pages:
        raise ValueError(
            f"its OME description speaks of {max(claims)} pages, and it holds {num_pages}; it may be one of a set of "
            "files"
        )


def significant_bits(description: str) -> int | None:
    """Return how many bits of its integers the first image uses; `None` if the description does not say so."""
    pixels = _PIXELS.search(description)
    declared = _DECLARED_BITS.search(pixels[0]) if pixels else None
    return int(declared[1]) if declared and int(declared[1]) >= LEAST_BITS else None


def adapted(
    description: bytes, dtype: np.dtype, keeps_bits: bool = True, samples: tuple[int, int] | None = None
) -> bytes:
    """Make the description of a file whose pages stand in the order of the axes, with pixels of the given type.

    All else, such as the names of channels and the size of a pixel, stays as it is, letter by letter.

    Args:
        description: That of the file that was read.
        dtype: Type of the pixels.
        keeps_bits: Whether the pixels use no more bits than the description says.
        samples: How many samples a pixel of a page has there, and how many are left of them.
    """
    text = description.decode("utf-8", "surrogateescape")
    text = _TIFF_DATA.sub("", text)
    text = _PIXELS.sub(lambda match: _retyped(match[0], _TYPES[np.dtype(dtype).str[1:]]), text)
    # One <TiffData/> without attributes means: all pages, in order.
    text = _PIXELS_END.sub(lambda match: f"<{match[1] or ''}TiffData/>{match[0]}", text)
    if samples is not None:
        old, new = samples
        text = _SAMPLES.sub(lambda match: f"{match[1]}{new}{match[3]}" if int(match[2]) == old else match[0], text)
        text = _PIXELS.sub(lambda match: _SIZE_C.sub(lambda c: f"{c[1]}{int(c[2]) // old * new}{c[3]}", match[0]), text)
    if not keeps_bits:
        text = _PIXELS.sub(lambda match: _SIGNIFICANT_BITS.sub("", match[0]), text)
    return _UUID.sub(r"\1", text).encode("utf-8", "surrogateescape")


def _retyped(element: str, kind: str) -> str:
    if f'"{kind}"' in element or f"'{kind}'" in element:
        return element
    return _SIGNIFICANT_BITS.sub("", _TYPE.sub(f'Type="{kind}"', element))
