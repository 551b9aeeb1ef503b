"""Pixels as 8-bit pictures for the screen: windows of intensity, sizes, and the colours of the uncertainty."""

import numpy as np
from PIL import Image

MAX_SIDE = 1600  # pixels: more than most windows show, and a PNG that a browser opens at once
WINDOW_PERCENTILES = (0.1, 99.9)  # a few hot pixels must not make everything else black
MAX_SAMPLES = 2**20  # pixels that percentiles are taken of
# Colours of the uncertainty from 0 to 1, evenly spaced. Their CIE lightness rises evenly from 6 to 100, so that the map
# reads in grey too, and whatever colours its reader can tell apart.
COLOURS = (
    (17, 14, 49),
    (47, 36, 128),
    (138, 51, 144),
    (214, 81, 100),
    (243, 142, 70),
    (249, 204, 126),
    (255, 255, 255),
)


def window(image: np.ndarray) -> tuple[float, float]:
    """Chooses which intensities are shown as black and as white.

    8-bit images are shown as they are. Anything else rarely fills its range (12-bit counts in 16-bit files, floats in
    units of their own), so its percentiles are taken.

    Args:
        image: (H, W, C) without noise to speak of, in the type of its file.
    """
    if image.dtype == np.uint8:
        return 0.0, 255.0
    step = max(1, int(np.sqrt(image.size / MAX_SAMPLES)))
    low, high = np.percentile(image[::step, ::step].astype(np.float64), WINDOW_PERCENTILES)
    return float(low), float(high) if high > low else float(low) + 1.0


def picture(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Draws an image in 8 bits, no larger than the screen.

    Args:
        image: (H, W, C); with one channel or three these are grey and RGB, of others the mean is shown.
        limits: Intensities of black and white.

    Returns:
        uint8 (h, w, 3).
    """
    if image.shape[-1] not in (1, 3):
        image = image.mean(axis=-1, keepdims=True)
    low, high = limits
    if image.dtype != np.uint8 or limits != (0.0, 255.0):
        image = np.clip((image.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low)), 0, 255)
        image = np.rint(image).astype(np.uint8)
    return shrunk(np.broadcast_to(image, (*image.shape[:2], 3)))


def uncertainty(ratio: np.ndarray) -> np.ndarray:
    """Colours a map of posterior standard deviation over σ, 0 dark to 1 white.

    Args:
        ratio: (H, W).

    Returns:
        uint8 (h, w, 3).
    """
    table = colour_table()
    index = np.rint(np.clip(ratio, 0, 1) * (len(table) - 1)).astype(np.uint8)
    return shrunk(table[index])


def colour_table() -> np.ndarray:
    """Gives the colours of 0 to 1 in 256 steps, uint8 (256, 3)."""
    places = np.linspace(0, 1, len(COLOURS))
    steps = np.linspace(0, 1, 256)
    channels = [np.interp(steps, places, column) for column in np.array(COLOURS, float).T]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def scale_on_screen(height: int, width: int) -> float:
    """Tells by which factor an image is shrunk for the screen, 1 if not at all."""
    return min(1.0, MAX_SIDE / max(height, width))


def shrunk(image: np.ndarray) -> np.ndarray:
    """Shrinks a picture that is larger than the screen, by averaging; uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    factor = scale_on_screen(height, width)
    if factor == 1:
        return np.ascontiguousarray(image)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BOX))
