"""How far a computation is, and how long it will still take."""

import time
from collections.abc import Callable
from dataclasses import dataclass

WAITING, READING, LEARNING, DENOISING, WRITING = "waiting", "reading", "learning", "denoising", "writing"
LEAST_SHARE = 0.02  # of the work, before which the time that it will take cannot be told from the time that it took


@dataclass(frozen=True)
class Step:
    """What is being done.

    Attributes:
        doing: "waiting" for another computation, "reading" the pixels, "learning" from them, "denoising", or "writing"
            the result.
        image: Number of the image that is denoised, from 1.
        count: Number of images.
        share: Part of the learning or of the denoising that is done, from 0 to 1; `None` while neither is at work.
        seconds_left: Estimate of the time that the rest of the denoising takes; `None` where there is none yet.
    """

    doing: str
    image: int = 1
    count: int = 1
    share: float | None = None
    seconds_left: float | None = None


Tell = Callable[[Step], None]


def to_nobody(step: Step) -> None:
    """Tell nobody."""


class Meter:
    """Measures the denoising of the images of a file.

    Args:
        count: Number of images.
        tell: Told of each step.
    """

    def __init__(self, count: int, tell: Tell):
        self._count = count
        self._tell = tell
        self._start = time.perf_counter()
        self._done = 0

    def advance(self, share: float) -> None:
        """Note that a part of the present image is done, from 0 to 1."""
        whole = (self._done + share) / self._count
        elapsed = time.perf_counter() - self._start
        left = elapsed * (1 - whole) / whole if whole >= LEAST_SHARE else None
        image = min(self._done + 1, self._count)
        self._tell(Step(DENOISING, image, self._count, whole, left))

    def next_image(self) -> None:
        """Note that the present image is done."""
        self._done += 1
