"""BM3D beside the trained models, through the PyPI package `bm3d`, with its results kept on disk.

Dabov et al. 2007 is the classical method that the literature compares with. The package comes with a licence for
non-commercial use only, so it is an extra and imported only when BM3D is asked for. It is slow, close to a minute for a
colour image of half a megapixel on one core; tables and figures share what was computed once.
"""

import hashlib
import importlib
import multiprocessing
import os
import re
import signal
import time
from importlib import metadata
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from bsdenoise import atomic, extras

PROFILE = "np"  # the package's default, "normal profile" of Dabov et al. 2007
CHANNELS = (1, 3)
MIN_SIDE = 9  # bm3d 4.0.3 refuses sides below its blocks of 8 pixels, and 8×8 ends the whole process
SIGMA_DIGITS = 6  # 25 / 255 is the same σ whether it went through float32 or not
DIGEST_LENGTH = 16  # hexadecimal digits, 64 bits: enough for names of files


class Result(NamedTuple):
    """What BM3D made of one image.

    Attributes:
        denoised: float32, of the shape of the noisy image.
        seconds: Time that it took when it was computed.
        notes: What is worth a word to the user.
    """

    denoised: np.ndarray
    seconds: float
    notes: tuple[str, ...] = ()


class Bm3d:
    """The filter, and a folder of its results.

    A result counts only for the same noisy pixels, σ, profile and version of the package, whatever the image is called:
    the name of its file is a checksum of these. The names of its folders are for people.

    Args:
        cache: Folder for results; `None` takes one in the user's cache.
        workers: Processes that compute at the same time, for callers with as many threads; 1 computes in this process.
            `None` takes as many as there are cores: each computes on one.

    Raises:
        ValueError: If the package is missing.
        OSError: If the folder cannot be made.
    """

    def __init__(self, cache: Path | None = None, workers: int | None = None):
        _package()
        self.version = f"bm3d {metadata.version('bm3d')}, bm4d {metadata.version('bm4d')}"
        self.cache = default_cache() if cache is None else Path(cache)
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"{self.cache}: cannot be a folder for results of BM3D: {error.strerror}.") from error
        self.workers = _num_cores() if workers is None else workers
        self._running: set[SpawnProcess] = set()
        self._is_stopped = False

    def denoise(self, noisy: np.ndarray, sigma: float, label: str = "") -> Result:
        """Denoise an image, or find what was computed before.

        Args:
            noisy: (H, W, 1) or (H, W, 3), float, in any units.
            sigma: Noise standard deviation in those units, > 0.
            label: Path of names that says which image it is, for whoever looks into the folder.

        Raises:
            ValueError: If the image has another number of channels, or a side of under 9 pixels, or σ is not positive.
            OSError: If the result cannot be kept, or the process that computes it ended without one.
        """
        check_channels(noisy.shape[-1])
        if min(noisy.shape[:2]) < MIN_SIDE:
            raise ValueError(
                f"BM3D needs sides of at least {MIN_SIDE} pixels. Received: {noisy.shape[1]}×{noisy.shape[0]}."
            )
        if not sigma > 0:
            raise ValueError(f"BM3D needs a positive sigma. Received: {sigma!r}.")
        noisy = np.ascontiguousarray(noisy, np.float32)
        sigma = float(f"{sigma:.{SIGMA_DIGITS}g}")
        checksum = self._checksum(noisy, sigma)
        found, notes = self._find(checksum, noisy.shape)
        if found is not None:
            return found
        compute = run if self.workers == 1 else self._run_apart
        denoised, seconds = compute(noisy, sigma, PROFILE)
        path = self.cache / _folder_of(label) / f"{checksum}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as temporary:
            np.savez(temporary, denoised=denoised, seconds=seconds)
        return Result(denoised, seconds, notes)

    def stop(self) -> None:
        """End the processes that compute for other threads; these, and all later ones, get an `OSError`."""
        self._is_stopped = True
        for process in list(self._running):
            process.terminate()

    def digest(self) -> str:
        """Return a checksum of all that a result depends on beside the image and σ."""
        return hashlib.sha256(f"{self.version}, {PROFILE}".encode()).hexdigest()[:DIGEST_LENGTH]

    def _run_apart(self, noisy: np.ndarray, sigma: float, profile: str) -> tuple[np.ndarray, float]:
        """Compute in a process of its own, as long as the calling thread waits."""
        # Not forked: TensorFlow's threads would not come along, but the locks that they hold.
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_run_and_send, args=(sender, noisy, sigma, profile), daemon=True)
        start = time.perf_counter()
        # Blocked, and so in the process too: Ctrl-C is for us, who end it (`stop`); it would print where it was.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()  # the process has its own; once that is closed as well, nothing will come
        self._running.add(process)
        if self._is_stopped:
            process.terminate()
        try:
            outcome = receiver.recv()
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        except EOFError as error:
            waited = time.perf_counter() - start
            raise OSError(f"BM3D's process ended after {waited:.0f} s with no result; is there memory left?") from error
        finally:
            process.terminate()  # it has nothing more to do, whether it is done or the waiting thread was interrupted
            process.join()
            self._running.discard(process)
            receiver.close()

    def _checksum(self, noisy: np.ndarray, sigma: float) -> str:
        facts = f"{self.digest()}, {noisy.shape}, {sigma!r}".encode()
        return hashlib.sha256(facts + noisy.tobytes()).hexdigest()[:DIGEST_LENGTH]

    def _find(self, checksum: str, shape: tuple[int, ...]) -> tuple[Result | None, tuple[str, ...]]:
        """Return the result that is kept under any label, or else a word for each file that cannot be used."""
        notes = []
        for path in sorted(self.cache.rglob(f"{checksum}.npz")):
            try:
                # Opened here: of a broken file, NumPy would leave it open.
                with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                    denoised, seconds = kept["denoised"], float(kept["seconds"])
                if denoised.shape != shape or denoised.dtype != np.float32:
                    raise ValueError(f"expected float32 {shape}, received {denoised.dtype} {denoised.shape}")
                return Result(denoised, seconds), ()
            except Exception as error:  # NumPy and zipfile answer broken files with errors of every type
                notes.append(f"{path}: is broken ({error}); BM3D is computed again")
        return None, tuple(notes)


def run(noisy: np.ndarray, sigma: float, profile: str) -> tuple[np.ndarray, float]:
    """Compute BM3D, with nothing kept.

    Args:
        noisy: float32 (H, W, 1) or (H, W, 3).
        sigma: Noise standard deviation.
        profile: Name of the package's settings.

    Returns:
        The denoised image, float32 of the same shape, and the seconds that it took.

    Raises:
        ValueError: If the package fails.
    """
    package, start = _package(), time.perf_counter()
    # In units of σ: the package has thresholds of its own that small numbers, of float images, would come near.
    pixels = noisy.astype(np.float64) / sigma
    try:
        if noisy.shape[-1] == 1:
            denoised = package.bm3d(pixels[..., 0], 1.0, profile)[..., np.newaxis]
        else:
            denoised = package.bm3d_rgb(pixels, 1.0, profile)
    except Exception as error:  # of the package, which names none
        raise ValueError(f"BM3D cannot denoise this image: {error or type(error).__name__}.") from error
    return (denoised * sigma).astype(np.float32), time.perf_counter() - start


def check_channels(channels: int) -> None:
    """Refuse what BM3D has no variant for.

    Raises:
        ValueError: If there are neither one nor three channels.
    """
    if channels not in CHANNELS:
        raise ValueError(
            f"BM3D denoises grey (1 channel) and RGB images (3). Received: {channels} channels. Leave bm3d away."
        )


def default_cache() -> Path:
    """Return the folder that is used unless another one is named, in the user's cache."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("bsdenoise")) / "bm3d"


def _package() -> ModuleType:
    extras.check("--methods bm3d")
    try:
        return importlib.import_module("bm3d")
    except ImportError as error:  # such as a library of the system that it needs
        raise ValueError(f"The package bm3d is installed and cannot be loaded: {error}") from error


def _folder_of(label: str) -> Path:
    """Make a folder's name below the cache of any label: no step upwards, no sign that a file system may refuse."""
    parts = [re.sub(r"[^\w.\-\[\]]+", "_", part) for part in label.split("/")]
    return Path(*[part for part in parts if part.strip(".")] or ["unnamed"])


def _num_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_and_send(sender: Connection, noisy: np.ndarray, sigma: float, profile: str) -> None:
    """Compute BM3D in a process of its own, and send what `run` gives or raises."""
    try:
        sender.send(run(noisy, sigma, profile))
    except ValueError as error:
        sender.send(error)
