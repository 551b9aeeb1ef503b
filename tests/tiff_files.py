"""TIFF files for tests, by plain calls of tifffile."""

import numpy as np
import tifffile

RGB = {"photometric": "rgb"}


def random_pixels(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def save(path, shape, dtype, **options):
    """Writes random pixels with plain calls of tifffile; returns them as written."""
    pixels = random_pixels(shape, dtype)
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
    return pixels
