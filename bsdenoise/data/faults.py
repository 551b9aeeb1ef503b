"""Telling what is wrong with images: once for all images of a stack, and not without end."""

import re
import threading
from collections.abc import Callable

MAX_REPORTS = 30  # images that are left out with a line each
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")
_PLACE = re.compile(r"\[\d+\]$")  # of an image in its stack


class Faults:
    """Puts faults of images into words. Threads may share it."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def new(self, name: str, error: Exception) -> str | None:
        """Says what is wrong with an image.

        Args:
            name: What the image is called; of one in a stack the file's name, and its number in brackets.
            error: What is wrong with it.

        Returns:
            The name and the reason; `None` if that was said of the image before, or of another one of the same stack,
            whatever numbers the message holds.
        """
        file = _PLACE.sub("", name)
        reason = str(error).removeprefix(f"{name}: ").removeprefix(f"{file}: ")
        with self._lock:
            key = file, _NUMBER.sub("0", reason.replace(name, "").replace(file, ""))
            if key in self._told:
                return None
            self._told.add(key)
        others = "" if file == name else " (others of this stack with the same fault are not named)"
        return f"{name}: {reason}{others}"


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

    def left_out(self, name: str, error: Exception) -> None:
        """Reports an image."""
        with self._lock:
            if self._count >= MAX_REPORTS or (line := self._faults.new(name, error)) is None:
                return
            self._count += 1
            self._report(f"left out {line}")
            if self._count == MAX_REPORTS:
                self._report("whatever else is left out will not be named")
