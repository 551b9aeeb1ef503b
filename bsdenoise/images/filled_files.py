"""Pixels of a file that hold no measurement: filled for the model, counted, and put back into the result."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bsdenoise import images
from bsdenoise.images import masks, missing

MaskReader = Callable[[slice, slice], np.ndarray]


class Gaps:
    """What was met while a file was read. Threads may read and put back.

    Args:
        file: The open file.
        mask: Gives the mask of an image by its number; `None` if the file has none.
    """

    def __init__(self, file: images.ImageFile, mask: Callable[[int], MaskReader] | None = None):
        self._file = file
        self._mask = mask
        self._lock = threading.Lock()
        # Of each image that is on its way, the last window that was read and had gaps: corner, pixels, gaps.
        self._kept: dict[int, tuple[int, int, np.ndarray, np.ndarray]] = {}
        self._ignored = self._all = 0

    def read(self, index: int) -> np.ndarray:
        """Read an image as `ImageFile.read`, filled."""
        return self._filled(index, self._file.read(index), 0, 0)

    def window(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        """Read a part as `ImageFile.read_window`, filled.

        Args:
            index: Number of the image, from 0.
            rows: Its rows.
            columns: Its columns.
        """
        return self._filled(index, self._file.read_window(index, rows, columns), rows.start, columns.start)

    def _filled(self, index: int, pixels: np.ndarray, top: int, left: int) -> np.ndarray:
        mask = None
        if self._mask is not None:
            mask = self._mask(index)(slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1]))
            mask = mask[..., 0] if pixels.ndim == 2 else mask
        gaps = missing.where(pixels, self._file.no_data, mask)
        with self._lock:
            if gaps is None:
                self._kept.pop(index, None)
                return pixels
            self._kept[index] = top, left, pixels, gaps
        return missing.filled(pixels, gaps)

    def where(self, index: int) -> np.ndarray | None:
        """Tell which values of what was read last of an image hold no measurement; `None` if all do."""
        with self._lock:
            kept = self._kept.get(index)
        return None if kept is None else kept[3]

    def put_back(self, index: int, rows: slice, columns: slice, denoised: np.ndarray, std: np.ndarray | None) -> None:
        """Put what stood there back into a denoised part, and mark its uncertainty.

        Args:
            index: Number of the image.
            rows: Rows of the part, within what was read of that image last.
            columns: Its columns, likewise.
            denoised: The part as the file will hold it, of the type of the file; changed in place.
            std: Its uncertainty as its file will hold it, changed in place to NaN, or 0 in integers; `None` without.
        """
        with self._lock:
            kept = self._kept.get(index)
            self._all += (rows.stop - rows.start) * (columns.stop - columns.start)
        if kept is None:
            return
        top, left, pixels, gaps = kept
        window = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        gaps, pixels = gaps[window], pixels[window]
        denoised[gaps.reshape(denoised.shape)] = pixels[gaps]
        any_of_them = gaps if gaps.ndim == 2 else gaps.any(axis=-1)
        if std is not None:
            nothing = np.nan if std.dtype.kind == "f" else 0
            if std.size == gaps.size:
                std[gaps.reshape(std.shape)] = nothing
            else:  # one map for all channels
                std[any_of_them] = nothing
        with self._lock:
            self._ignored += int(any_of_them.sum())

    def done(self, index: int) -> None:
        """Forget an image that was put back whole."""
        with self._lock:
            self._kept.pop(index, None)

    @property
    def line(self) -> str | None:
        """Say how many pixels were put back; `None` if none were."""
        if not self._ignored:
            return None
        share = 100 * self._ignored / self._all
        return f"{self._ignored} pixels ({share:.3g} %) hold no data and are left as they are"


@dataclasses.dataclass(frozen=True)
class FilledFile(images.ImageFile):
    """An open image file whose pixels are all measurements, or look as if they were.

    Attributes:
        gaps: Those that are not.
    """

    gaps: Gaps = dataclasses.field(kw_only=True)


@contextlib.contextmanager
def filled(file: images.ImageFile, mask_path: Path | None = None) -> Iterator[FilledFile]:
    """Fill what was not measured in an open file.

    Args:
        file: The file.
        mask_path: File with its mask, if it has one.

    Yields:
        The file, whose `read` and `read_window` give filled pixels.

    Raises:
        ValueError: If the mask cannot be read or does not fit.
    """
    with contextlib.ExitStack() as stack:
        shape = file.shape[1:] if len(file.shape) == 4 else file.shape
        opened: dict[int, MaskReader] = {}  # that of one image, which the next one closes

        def mask_of(index: int) -> MaskReader:
            assert mask_path is not None
            if index not in opened:
                stack.close()
                opened.clear()
                opened[index] = stack.enter_context(masks.opened(mask_path, index, shape))
            return opened[index]

        if mask_path is not None:
            mask_of(0)  # before any work is done
        gaps = Gaps(file, None if mask_path is None else mask_of)
        known = {one.name: getattr(file, one.name) for one in dataclasses.fields(images.ImageFile)}
        yield FilledFile(**known | {"read": gaps.read, "window": gaps.window}, gaps=gaps)
