"""Asking again, where that is safe and may help, with growing pauses and a deadline for all of it."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bsdenoise.client.errors import DeadlineError, UnavailableError

FIRST_PAUSE = 0.2  # seconds; the server of a version that is being replaced answers again after about so long
LONGEST_PAUSE = 5.0
SHORT = 0.2  # seconds; an attempt with less left than this says little about the server when time is up
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Patience:
    """How long and how often a request is tried.

    Predictions change nothing on the server, so that one whose connection broke may be sent again.

    Attributes:
        timeout: Seconds for one request, all attempts and pauses together.
        retries: Attempts after the first one.

    Raises:
        ValueError: If `timeout` is not positive or `retries` is negative.
    """

    timeout: float
    retries: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.timeout > 0:
            raise ValueError(f"`timeout` must be positive, in seconds. Received: timeout={self.timeout!r}.")
        if self.retries < 0:
            raise ValueError(f"`retries` must not be negative. Received: retries={self.retries!r}.")

    def ask(self, attempt: Callable[[float], Answer]) -> Answer:
        """Call `attempt` with the seconds that are left, and again after an `UnavailableError`.

        Raises:
            ClientError: The last attempt's; of the one before if the last one had no time to tell anything.
        """
        end = time.monotonic() + self.timeout
        before: UnavailableError | None = None
        for number in range(self.retries + 1):
            left = end - time.monotonic()
            try:
                return attempt(left)
            except DeadlineError:
                if before is not None and left < SHORT:
                    raise before from None
                raise
            except UnavailableError as error:
                before = error
                pause = min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
                if number == self.retries or time.monotonic() + pause >= end:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")
