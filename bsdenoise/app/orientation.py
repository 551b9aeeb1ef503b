"""EXIF orientation: how the stored pixels of a photograph have to be turned so that it stands upright.

Only what the screen shows is turned. Files keep their pixels and their orientation, which viewers apply.
"""

import warnings
from typing import Any

import numpy as np
from PIL import Image

TAG = 0x0112  # EXIF 2.3, section 4.6.4
UPRIGHT = 1
# For each orientation: whether rows and columns are exchanged, and then, whether the rows and whether the columns are
# reversed (EXIF 2.3, section 4.6.4: which side of the picture is the first row, and which the first column).
_MOVES = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
WORDS = {
    2: "mirrored left to right",
    3: "turned by 180°",
    4: "mirrored top to bottom",
    5: "mirrored along the diagonal from top left",
    6: "turned clockwise by 90°",
    7: "mirrored along the diagonal from top right",
    8: "turned anticlockwise by 90°",
}


def read(metadata: dict[str, Any]) -> int:
    """Return the orientation that a file declares, 1 to 8; 1 where it declares none, or nothing that makes sense.

    Args:
        metadata: As `Picture.metadata`; `exif` is read.
    """
    exif = Image.Exif()
    try:
        with warnings.catch_warnings(action="ignore"):  # broken EXIF is no news to whoever looks at the picture
            exif.load(metadata.get("exif", b""))
            value = exif.get(TAG)
    except Exception:  # broken EXIF raises errors of every type, and is no reason not to show a picture
        return UPRIGHT
    return value if isinstance(value, int) and value in _MOVES else UPRIGHT


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image upright.

    Args:
        image: (H, W, …) as stored.
        orientation: 1 to 8.

    Returns:
        (H, W, …), or (W, H, …) for the orientations from 5 on.
    """
    transposes, flips_rows, flips_columns = _MOVES[orientation]
    turned = image.swapaxes(0, 1) if transposes else image
    turned = turned[::-1] if flips_rows else turned
    return turned[:, ::-1] if flips_columns else turned
