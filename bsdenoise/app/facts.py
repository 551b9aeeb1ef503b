"""What is known of a file before it is denoised, and of one of its images afterwards."""

from dataclasses import dataclass

import numpy as np

from bsdenoise import images
from bsdenoise.app.orientation import UPRIGHT
from bsdenoise.images.pixels import NUM_COLOURS


@dataclass(frozen=True)
class Facts:
    """What the headers of a file say, and what the model makes of them.

    Attributes:
        name: The file's name, without its folder.
        format: "PNG", "JPEG", "NPY" or "TIFF".
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.
        notes: What was changed on reading.
        own_sigma: The model's own σ in the units of the file, `None` where it estimates σ for each image or uses none.
        bits: Significant bits of integers, if they are fewer than those of the type.
        independent_channels: Whether the channels are measurements of their own, and no picture in colours.
        one_by_one: Whether each channel is denoised by itself.
        orientation: EXIF orientation, 1 to 8: how the stored pixels have to be turned to stand upright.
        trained: Least and greatest σ that the model was trained for, in the units of the file; `None` if it uses none.
        peak: The peak for which a PSNR is estimated, in the units of the file; `None` if none is.
        no_data: Value of pixels without a measurement; `None` if the file declares none.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    dtype: np.dtype
    notes: tuple[str, ...]
    own_sigma: float | None
    bits: int | None = None
    independent_channels: bool = False
    one_by_one: bool = False
    orientation: int = UPRIGHT
    trained: tuple[float, float] | None = None
    peak: float | None = None
    no_data: float | None = None

    @property
    def count(self) -> int:
        """Number of images."""
        return self.shape[0] if len(self.shape) == 4 else 1

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = (*self.shape, 1) if len(self.shape) == 2 else self.shape[-3:]
        return height, width, channels

    @property
    def is_picture(self) -> bool:
        """Whether an image is grey or RGB, so that it can be shown as it is."""
        return self.size[-1] == 1 or (self.size[-1] == NUM_COLOURS and not self.independent_channels)

    @property
    def full_scale(self) -> float:
        """Value of a fully lit pixel."""
        return images.full_scale(self.dtype, self.bits)


@dataclass(frozen=True)
class Denoised:
    """All that is known of one image.

    Attributes:
        noisy: (H, W, C), in the type of the file.
        denoised: Of the same shape and type, as it stands in the denoised file.
        ratio: Posterior standard deviation over that of the noise, mean over channels, (H, W); 1 where nothing was
            gained. `None` of a model without a posterior, as is all that follows.
        sigmas: σ in the units of the file: one, or one for each channel where each was denoised by itself.
        origin: Where σ came from: "given", "known" (the model's own) or "estimated" from the image.
        estimated_psnr: In dB, for the peak that the facts name; NaN where the model withholds it; `None` where σ was
            estimated, because texture that is taken for noise makes it far too high.
        given: σ as it was typed, `None` if it was not.
        noise: The noise that was supposed, in words, of a model that knows it by other numbers than σ.
        learnt: What came of learning from the file before, in words; `None` if the model did not.
        ignored_share: Share of pixels without a measurement; they are left as they are, and `ratio` is NaN there.
    """

    noisy: np.ndarray
    denoised: np.ndarray
    ratio: np.ndarray | None = None
    sigmas: tuple[float, ...] = ()
    origin: str | None = None
    estimated_psnr: float | None = None
    given: str | None = None
    noise: str | None = None
    learnt: str | None = None
    ignored_share: float = 0.0
