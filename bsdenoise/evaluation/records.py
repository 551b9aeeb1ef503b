"""Measuring: one record for each method, image and noise draw, kept in a file from which an interrupted run goes on."""

import functools
import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import bsdenoise
from bsdenoise.evaluation.cases import Case, Item, Told, are_independent, read_clean, read_pair
from bsdenoise.evaluation.contestants import Contestant
from bsdenoise.evaluation.metrics import psnr, rounded, ssim
from bsdenoise.noise import GaussianNoise
from bsdenoise.noise.spec import parse_level


@dataclass(frozen=True)
class Protocol:
    """How images are made noisy and what the methods are told.

    Attributes:
        noise: SPEC of the noise to add; `None` for real pairs.
        sigma: Noise level that methods are told, as `25` or `25/255`; `None` tells what was added, for pairs nothing.
        own_sigma: Whether methods are told nothing.
        tile: Largest side of a tile in pixels; `None` tiles large images only.
    """

    noise: str | None
    sigma: str | None = None
    own_sigma: bool = False
    tile: int | None = None


@dataclass(frozen=True)
class Record:
    """What was measured of one contestant on one image with one noise draw.

    Intensities are fractions of full scale, of float files in the file's own units. PSNRs are in dB.

    Attributes:
        model: Name of the contestant.
        dataset: Name of the set.
        image: Name of the image.
        draw: Number of the noise draw.
        channels: Number of channels compared.
        height: Height in pixels.
        width: Width in pixels.
        sigma: Standard deviation of the noise that was added; `None` for real pairs, and for noise that is not white.
        sigma_used: What the contestant took it to be; `None` if its method does not use it.
        psnr_noisy: PSNR of the noisy image, not rounded.
        psnr: PSNR of the result, rounded to the bits of the file.
        psnr_unrounded: The same without rounding.
        psnr_mean: PSNR of the prediction from the surroundings alone, not rounded; `None` for methods without one.
        ssim: Structural similarity of the rounded result; `None` for images under 11 pixels.
        sure_psnr: What the contestant itself expects `psnr_unrounded` to be, without the clean image; `None` if its
            method cannot tell, where σ was estimated, and where the estimate is withheld.
        sure_withheld: Whether it is withheld, because the noise is not what the contestant was told.
        calibration: Squared error over the posterior variance, 1 for a model that knows how sure it is; `None` without
            a posterior.
        seconds: Time to denoise, when it was computed.
    """

    model: str
    dataset: str
    image: str
    draw: int
    channels: int
    height: int
    width: int
    sigma: float | None
    sigma_used: float | None
    psnr_noisy: float
    psnr: float
    psnr_unrounded: float
    psnr_mean: float | None
    ssim: float | None
    sure_psnr: float | None
    sure_withheld: bool
    calibration: float | None
    seconds: float


class Store:
    """The records of an output folder, by what they were measured from.

    A record counts only if model, image and noise are what they were when it was made; its checksum says so.

    Args:
        path: File of one record a line; `None` keeps nothing.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self._known: dict[str, dict] = {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = entry["record"]
            except (ValueError, KeyError, TypeError):
                continue  # a line cut off by a crash
        if lines and not path.read_text().endswith("\n"):
            with path.open("a") as file:
                file.write("\n")

    def find(self, key: str) -> Record | None:
        """Return the record that was made under that key."""
        try:
            return Record(**self._known[key]) if key in self._known else None
        except TypeError:  # made by another version of this package
            return None

    def add(self, key: str, record: Record) -> None:
        """Keep a record, on disk before the call returns."""
        if self.path is None:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, "record": asdict(record)}) + "\n")


def measure_all(
    contestants: Iterable[Contestant],
    items: list[Item],
    protocol: Protocol,
    store: Store,
    failed: Callable[[Item, Exception], None],
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Record]:
    """Measure contestants on images, or find what was measured before.

    Args:
        contestants: What is measured.
        items: The images and noise draws.
        protocol: The conditions.
        store: Earlier records; new ones are added to it.
        failed: Called for an image that cannot be measured; the others go on.
        note: Called with each line that is worth a word, once, such as for an image whose pixels were converted.

    Yields:
        One record for each contestant and item that could be measured, in their order.
    """
    noted = set()
    digest_of = functools.cache(_file_digest)  # a stack is one file for many items
    for contestant in contestants:
        attempt = functools.partial(_attempt, contestant, contestant.digest(), digest_of, protocol, store)
        for item, outcome in zip(items, _in_order(attempt, items, contestant), strict=True):
            if isinstance(outcome, Exception):
                failed(item, outcome)
                continue
            for line in outcome.notes:
                if line not in noted:
                    noted.add(line)
                    note(line)
            if outcome.is_new:
                store.add(outcome.key, outcome.record)
            # The same file may go by another name than in the run that measured it.
            yield replace(outcome.record, model=contestant.name, dataset=item.dataset, image=item.name)


class _Measured(NamedTuple):
    """A record, the key that it is kept under, whether it was made just now, and what is worth a word."""

    record: Record
    key: str
    is_new: bool
    notes: Sequence[str] = ()


def _attempt(
    contestant: Contestant,
    digest: str,
    digest_of: Callable[[Path], str],
    protocol: Protocol,
    store: Store,
    item: Item,
) -> _Measured | Exception:
    """Measure one image, or find what was measured, or return the reason why neither is possible."""
    try:
        key = _key([digest, *map(digest_of, item.paths)], item, protocol)
        known = store.find(key)
        if known is not None:
            return _Measured(known, key, is_new=False)
        case = read_case(item, contestant.channels, protocol)
        record, notes = measure(contestant, item, case, protocol)
        return _Measured(record, key, True, [*(f"{item.path}: {text}" for text in case.notes), *notes])
    except (ValueError, OSError) as error:
        return error


def _in_order(attempt: Callable[[Item], Any], items: Iterable[Item], contestant: Contestant) -> Iterator[Any]:
    """Attempt items, as many at the same time as the contestant can, and return the results in the items' order."""
    if contestant.workers == 1:
        yield from map(attempt, items)
        return
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(contestant.workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(attempt, item))
                if len(waiting) > contestant.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:  # Ctrl-C, or nobody wants the rest: do not wait for it
            for future in waiting:
                future.cancel()
            contestant.stop()
            raise


def read_case(item: Item, channels: int, protocol: Protocol) -> Case:
    """Read an image, and add noise where the protocol says so."""
    independent = are_independent(item, channels)
    case = read_pair(item, channels) if protocol.noise is None else read_clean(item, channels, protocol.noise)
    return replace(case, independent_channels=independent)


def told_noise(case: Case, protocol: Protocol) -> Told | None:
    """Return the noise that contestants are told of an image; `None` leaves it to them.

    Raises:
        ValueError: If the protocol's cannot be read.
    """
    if protocol.own_sigma:
        return None
    if protocol.sigma is not None:
        return Told(GaussianNoise.kind, (parse_level(protocol.sigma, float(case.levels or 1)),))
    return case.noise


def measure(contestant: Contestant, item: Item, case: Case, protocol: Protocol) -> tuple[Record, tuple[str, ...]]:
    """Denoise one image and compare the result with the clean one.

    Returns:
        The record, and what the contestant has to say about its making.

    Raises:
        ValueError: If the image is not in the contestant's units, or it must be told the noise and is not.
    """
    contestant.check(case)
    start = time.perf_counter()
    estimate = contestant.estimate(case.noisy, told_noise(case, protocol), protocol.tile, item.label)
    seconds = time.perf_counter() - start if estimate.seconds is None else estimate.seconds
    clean, peak, counts = case.clean, case.peak, case.counts
    # Of images with gaps it is not told at all: it would count what was filled.
    estimated_psnr = estimate.estimated_psnr if counts is None else None
    is_withheld = estimated_psnr is not None and math.isnan(estimated_psnr)
    final, expected = rounded(estimate.denoised, case.levels), rounded(clean, case.levels)
    height, width, channels = clean.shape
    record = Record(
        model=contestant.name,
        dataset=item.dataset,
        image=item.name,
        draw=item.draw,
        channels=channels,
        height=height,
        width=width,
        sigma=case.sigma,
        sigma_used=estimate.sigma,
        psnr_noisy=psnr(case.noisy, clean, peak, counts),
        psnr=psnr(final, expected, peak, counts),
        psnr_unrounded=psnr(estimate.denoised, clean, peak, counts),
        psnr_mean=None if estimate.mean is None else psnr(estimate.mean, clean, peak, counts),
        ssim=ssim(final, expected, peak, counts),
        sure_psnr=None if is_withheld else _for_peak(estimated_psnr, peak / contestant.scale),
        sure_withheld=is_withheld,
        calibration=None if estimate.std is None else _calibration(estimate.denoised, estimate.std, clean, counts),
        seconds=seconds,
    )
    return record, estimate.notes


def _for_peak(estimated_psnr: float | None, ratio: float) -> float | None:
    """Convert a PSNR to a peak that is so many times as high."""
    return None if estimated_psnr is None else estimated_psnr + float(20.0 * np.log10(ratio))


def _calibration(denoised: np.ndarray, std: np.ndarray, clean: np.ndarray, counts: np.ndarray | None) -> float:
    if counts is not None:
        denoised, std, clean = denoised[counts], std[counts], clean[counts]
    squared_error = np.square(denoised.astype(np.float64) - clean)
    return float(np.mean(squared_error) / np.mean(np.square(std, dtype=np.float64)))


def _key(digests: list[str], item: Item, protocol: Protocol) -> str:
    """Return a checksum of all that a record depends on, this package's version included."""
    parts = [bsdenoise.__version__, digests, item.index, item.draw, asdict(protocol)]
    if item.no_data is not None:
        parts.append(f"no data {item.no_data}")
    if item.axes is not None:
        parts.append(item.axes.lower())
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _file_digest(path: Path) -> str:
    """Return a checksum of a file, or of all files of a Zarr store."""
    if path.is_dir():
        digest = hashlib.sha256()
        for one in sorted(one for one in path.rglob("*") if one.is_file()):
            digest.update(f"{one.relative_to(path).as_posix()} {_file_digest(one)}\0".encode())
        return digest.hexdigest()[:16]
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
