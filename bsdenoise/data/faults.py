"""Telling what is wrong with images: once for all images of a stack, and not without end."""

import re
import threading
from collections.abc import Callable

MAX_REPORTS = 30  # images that are left out with a line each
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")
_PLACE = re.compile(r"\[\d+\]$")  # of an image in its stack


def named(name: str, error: Exception) -> str:
    """Return the name of an image and what is wrong with it, the name once.

    Args:
        name: As a source gives it: a path, with "[k]" behind it for image k of a stack.
        error: What reading raised; its message may begin with the file's path itself.
    """
    reason = str(error)
    for prefix in (name, _PLACE.sub("", name)):
        reason = reason.removeprefix(f"{prefix}: ")
    return f"{name}: {reason or type(error).__name__}"


class Faults:
    """Puts faults of images into words. Threads may share it.

    Attributes:
        first: What is wrong with the first of them; "" if nothing is with any.
    """

    def __init__(self) -> None:
        self.first = ""
        self._told: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def new(self, name: str, error: Exception) -> str | None:
        """Say what is wrong with an image.

        Args:
            name: What the image is called; of one in a stack the file's name, and its number in brackets.
            error: What is wrong with it.

        Returns:
            The name and the reason; `None` if that was said of the image before, or of another one of the same stack,
            whatever numbers the message holds.
        """
        file, line = _PLACE.sub("", name), named(name, error)
        reason = line.removeprefix(f"{name}: ")
        with self._lock:
            self.first = self.first or line
            key = file, _NUMBER.sub("0", reason.replace(name, "").replace(file, ""))
            if key in self._told:
                return None
            self._told.add(key)
        others = "" if file == name else " (others of this stack with the same fault are not named)"
        return f"{line}{others}"


class Reports:
    """Reports images that are left out. Threads may share it.

    Args:
        report: Called with one line for each image, and with a last one where there are too many.
    """

    def __init__(self, report: Callable[[str], object]):
        self._report = report
        self._faults = Faults()
        self._count = 0
        self._lock = threading.Lock()

    @property
    def first(self) -> str:
        """What is wrong with the first image; "" if nothing is with any."""
        return self._faults.first

    def left_out(self, name: str, error: Exception) -> None:
        """Report an image.

        Args:
            name: The image, as the source names it.
            error: Why it cannot be used.
        """
        with self._lock:
            if self._count >= MAX_REPORTS or (line := self._faults.new(name, error)) is None:
                return
            self._count += 1
            self._report(f"left out {line}")
            if self._count == MAX_REPORTS:
                self._report("whatever else is left out will not be named")
