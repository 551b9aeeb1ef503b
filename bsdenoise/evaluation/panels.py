"""What a figure says of its pictures: the image, its part, the numbers, the words below."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bsdenoise.evaluation.cases import Case, Item
from bsdenoise.evaluation.window import Window

NOISY, CLEAN = "noisy", "clean"
# From left to right as in the paper; what it does not have there comes last. In the words of the paper.
LABELS = {
    "bm3d": "BM3D",
    "l2": "L2",
    "per_component": "per-component",
    "full": "full",
    "n2n": "N2N",
    "n2c": "N2C",
    "n2v": "N2V",
}
ABOUT_PSNR = (
    "PSNR is of the whole image, over all its channels, after rounding to the bits of the file (noisy: not rounded); "
    "psnr_crop is that of the part shown alone."
)


@dataclass(frozen=True)
class Subject:
    """An image to be shown.

    Attributes:
        item: Which image and draw.
        case: Its pixels and its noise.
        window: The part that is shown.
    """

    item: Item
    case: Case
    window: Window


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        label: What it shows, in the field's words.
        psnr: PSNR of the whole image in dB; `None` for the clean one.
        psnr_crop: PSNR of the part that is shown.
        pixels: uint8 (H, W, C), what is shown.
        name: Name of the contestant; `None` for the noisy and the clean image.
        method: Its method.
        is_alone: Whether no other contestant has that method.
        sigma_used: What the contestant took σ to be; `None` if its method does not use it.
    """

    label: str
    psnr: float | None
    psnr_crop: float | None
    pixels: np.ndarray
    name: str | None = None
    method: str | None = None
    is_alone: bool = True
    sigma_used: float | None = None

    @property
    def caption(self) -> tuple[str, ...]:
        """What stands below: the label, the name where the label alone is not clear, and the PSNR."""
        name = () if self.is_alone or self.name is None else (self.name,)
        return self.label, *name, *(() if self.psnr is None else (f"{self.psnr:.2f} dB",))

    def facts(self) -> dict[str, Any]:
        """Return all but the pixels, for JSON."""
        told = ("label", "name", "method", "psnr", "psnr_crop", "sigma_used")
        return {name: getattr(self, name) for name in told}


@dataclass(frozen=True)
class Row:
    """All pictures of one image.

    Attributes:
        subject: The image.
        shown: What is black and what is white, in fractions of full scale or the file's own units.
        panels: From left to right.
        notes: What is worth a word to the user.
    """

    subject: Subject
    shown: tuple[float, float]
    panels: tuple[Panel, ...]
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return all but the pixels, for JSON."""
        item, case = self.subject.item, self.subject.case
        height, width, channels = case.clean.shape
        return {
            "dataset": item.dataset,
            "image": item.name,
            "path": str(item.path),
            "draw": item.draw,
            "channels": channels,
            "height": height,
            "width": width,
            "sigma": case.sigma,
            "crop": self.subject.window._asdict(),
            "black": self.shown[0],
            "white": self.shown[1],
            "panels": [panel.facts() for panel in self.panels],
        }
