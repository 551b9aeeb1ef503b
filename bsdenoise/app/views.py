"""Pixels as 8-bit pictures for the screen: windows of intensity, sizes, and the colours of the uncertainty."""

import numpy as np
from PIL import Image

MAX_SIDE = 1600  # pixels: more than most windows show, and a PNG that a browser opens at once
WINDOW_PERCENTILES = (0.1, 99.9)  # a few hot pixels must not make everything else black
MAX_SAMPLES = 2**20  # pixels that percentiles are taken of
# Colours that channels are drawn in, rows, by the number of channels. None of them share red, green or blue light, so
# that the sum is never too bright, and of two channels nobody's eyes confuse the colours.
FALSE_COLOURS = {
    2: np.array([[1, 0, 1], [0, 1, 0]], np.float32),
    3: np.eye(3, dtype=np.float32),
}
GREY = 128  # of the uncertainty where nothing was measured: no colour of the scale is grey
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

Windows = tuple[tuple[float, float], ...]  # intensities of black and white


def windows(image: np.ndarray, is_picture: bool, no_data: float | None = None) -> Windows:
    """Choose which intensities are shown as black and as white.

    8-bit pictures are shown as they are. Anything else rarely fills its range (12-bit counts in 16-bit files, floats in
    units of their own), so its percentiles are taken; of channels that are no colours, those of each channel.

    Args:
        image: (H, W, C) without noise to speak of, in the type of its file.
        is_picture: Whether it is grey or RGB.
        no_data: Value of pixels that do not count; NaN does not count either.

    Returns:
        Intensities of black and white, for all channels together or for each.
    """
    if is_picture and image.dtype == np.uint8:
        return ((0.0, 255.0),)
    step = max(1, int(np.sqrt(image.size / MAX_SAMPLES)))
    samples = image[::step, ::step].astype(np.float64)
    channels = [samples] if is_picture else list(np.moveaxis(samples, -1, 0))
    return tuple(_window(channel, no_data) for channel in channels)


def _window(samples: np.ndarray, no_data: float | None) -> tuple[float, float]:
    counted = samples[np.isfinite(samples) & (samples != no_data)]
    if not counted.size:
        return 0.0, 1.0
    low, high = np.percentile(counted, WINDOW_PERCENTILES)
    return float(low), float(high) if high > low else float(low) + 1.0


def picture(image: np.ndarray, limits: Windows) -> np.ndarray:
    """Draw an image in 8 bits, no larger than the screen.

    Args:
        image: (H, W, C).
        limits: As `windows` gives them. With one window the channels are grey or RGB. With one for each channel two are
            drawn in magenta and green and three in red, green and blue, which leaves each to be told from the others;
            of any other number the mean is shown.

    Returns:
        uint8 (h, w, 3).
    """
    if len(limits) == 1 and limits[0] == (0.0, 255.0) and image.dtype == np.uint8:
        return shrunk(np.broadcast_to(image, (*image.shape[:2], 3)))
    precision = np.result_type(image.dtype, np.float32)  # of float64 all, because its offset may be large
    low, high = np.array(limits, precision).T
    light = np.clip((image.astype(precision, copy=False) - low) / (high - low), 0, 1).astype(np.float32, copy=False)
    if len(limits) > 1:
        light = light @ FALSE_COLOURS[len(limits)] if len(limits) in FALSE_COLOURS else light.mean(-1, keepdims=True)
    pixels = np.rint(np.nan_to_num(light) * 255).astype(np.uint8)
    return shrunk(np.broadcast_to(pixels, (*image.shape[:2], 3)))


def uncertainty(ratio: np.ndarray) -> np.ndarray:
    """Colour a map of posterior standard deviation over σ, 0 dark to 1 white.

    Args:
        ratio: (H, W); NaN, where nothing was measured, is drawn in grey.

    Returns:
        uint8 (h, w, 3).
    """
    table = colour_table()
    index = np.rint(np.clip(np.nan_to_num(ratio), 0, 1) * (len(table) - 1)).astype(np.uint8)
    return shrunk(np.where(np.isnan(ratio)[..., np.newaxis], np.uint8(GREY), table[index]))


def colour_table() -> np.ndarray:
    """Return the colours of 0 to 1 in 256 steps, uint8 (256, 3)."""
    places = np.linspace(0, 1, len(COLOURS))
    steps = np.linspace(0, 1, 256)
    channels = [np.interp(steps, places, column) for column in np.array(COLOURS, float).T]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def scale_on_screen(height: int, width: int) -> float:
    """Return by which factor an image is shrunk for the screen, 1 if not at all."""
    return min(1.0, MAX_SIDE / max(height, width))


def shrunk(image: np.ndarray) -> np.ndarray:
    """Shrink a picture that is larger than the screen, by averaging; uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    factor = scale_on_screen(height, width)
    if factor == 1:
        return np.ascontiguousarray(image)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BOX))
