"""Self-ensemble: an image is denoised as it is, mirrored and transposed, and the results are averaged.

The average is still linear in a pixel's own value: x̂ = x̃ − mean over the copies of Gₖ (x̃ − μₖ). So its posterior
variance, with the mean gain, is the mean of the variances, and Stein's estimate of the error stays exact.
"""

from collections.abc import Callable, Sequence

import numpy as np

from bsdenoise.network import blindness

# Whether a copy is transposed, flipped upside down, and mirrored left to right. The first so many make an ensemble.
_COPIES = (
    (False, False, False),
    (False, False, True),
    (False, True, False),
    (False, True, True),
    (True, False, False),
    (True, True, True),
    (True, False, True),
    (True, True, False),
)
SIZES = (1, 2, 4, 8)
_TRANSPOSED_FROM = next(number for number, copy in enumerate(_COPIES) if copy[0])


def check(size: int, blind_spot: tuple[int, int] | None = None) -> None:
    """Check a number of copies.

    Args:
        size: The number.
        blind_spot: Height and width of the network's blind spot; `None` if it has none.

    Raises:
        ValueError: If there is no ensemble of that size; or one of its copies is transposed and the blind spot is not
            square: noise that pixels of one column share would lie in a row, where the blind spot does not hide it.
    """
    if size not in SIZES:
        raise ValueError(f"`tta` must be one of {SIZES}, the number of copies to average. Received: tta={size!r}.")
    if blind_spot is not None and blind_spot[0] != blind_spot[1] and any(copy[0] for copy in _COPIES[:size]):
        raise ValueError(
            f"`tta` must be at most {_TRANSPOSED_FROM} for a blind spot that is no square, as more copies are "
            f"transposed. Received: tta={size} and a blind spot of {blindness.in_words(blind_spot)}."
        )


def average(compute: Callable[[np.ndarray], Sequence[np.ndarray]], images: np.ndarray, size: int) -> list[np.ndarray]:
    """Average what a function makes of images and of their copies.

    Args:
        compute: From images (B, H, W, C) to arrays of the same shape.
        images: (B, H, W, C).
        size: Number of copies, one of `SIZES`.

    Returns:
        The means, float32.
    """
    if size == 1:
        return [np.asarray(array, "float32") for array in compute(images)]
    sums = [np.array(array, "float32") for array in compute(images)]
    for copy in _COPIES[1:size]:
        for total, array in zip(sums, compute(np.ascontiguousarray(_changed(images, *copy))), strict=True):
            total += _changed_back(np.asarray(array), *copy)
    return [total / np.float32(size) for total in sums]


def _changed(images, transposed, upside_down, mirrored):
    images = images.swapaxes(1, 2) if transposed else images
    return images[:, :: -1 if upside_down else 1, :: -1 if mirrored else 1]


def _changed_back(images, transposed, upside_down, mirrored):
    images = images[:, :: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return images.swapaxes(1, 2) if transposed else images
