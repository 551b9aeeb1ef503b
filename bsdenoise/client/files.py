"""Image files for a served model: encoded and decoded here, whatever its own signatures take."""

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from bsdenoise import images
from bsdenoise.config import DenoiseConfig
from bsdenoise.images.formats import jpeg
from bsdenoise.images.formats import png as png_format
from bsdenoise.pipeline.run import Watcher, denoised

PNG_LEVEL = 1  # of 9: noise cannot be compressed, and higher levels take several times as long to find out
_KINDS = ((png_format.SIGNATURE, png_format), (jpeg.SIGNATURE, jpeg))


def size(data: bytes) -> tuple[int, int]:
    """Read height and width of a PNG or JPEG file from its header.

    Raises:
        ValueError: If it is neither.
    """
    for signature, codec in _KINDS:
        if data.startswith(signature):
            try:
                return codec.open_file(io.BytesIO(data)).shape[:2]
            except Exception as error:  # decoders answer hostile bytes with errors of every type
                raise ValueError(f"The image file cannot be read: {error}.") from error
    raise ValueError(f"Expected the bytes of a PNG or JPEG file. Received: {len(data)} bytes of another kind.")


def png(image: np.ndarray) -> bytes:
    """Encode an image of 8 or 16 bits, (H, W, 1) or (H, W, 3)."""
    native = np.ascontiguousarray(image, image.dtype.newbyteorder("="))
    return png_format.encode(native, PNG_LEVEL)


def unit_pixels(data: bytes) -> np.ndarray:
    """Decode a PNG file to float32, full scale 1."""
    return images.to_unit(imagecodecs.png_decode(data))


def denoise_decoded(denoiser: Any, data: bytes, sigma: float | None) -> bytes:
    """Denoise a file by its pixels, for where it cannot be sent as it is; args as for `Client.denoise_bytes`."""
    noisy = images.decode(data, "The image file").array
    return png(images.from_unit(denoiser.denoise(noisy, sigma), noisy.dtype))


def denoise_file(denoiser: Any, source: str | Path, target: str | Path, sigma: float | None) -> None:
    """Denoise a file into another one; args as for `Client.denoise_file`."""
    if not images.is_supported(target):
        raise ValueError(f"{target}: unknown kind of image file. Expected one of {', '.join(images.SUFFIXES)}.")
    relative = None if sigma is None else f"{float(sigma)!r}/1"  # of full scale, as σ of a model is
    config = DenoiseConfig(inputs=(str(source),), out=Path(target), sigma=relative, overwrite=True)
    (task,) = denoised(config, Watcher(), given=denoiser, tells_noise=False)
    if task.error is not None:
        raise task.error
