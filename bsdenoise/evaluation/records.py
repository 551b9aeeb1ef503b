"""Measuring: one record for each method, image and noise draw, kept in a file from which an interrupted run goes on."""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import bsdenoise
from bsdenoise import noise
from bsdenoise.denoiser import Denoiser
from bsdenoise.evaluation.cases import Case, Item, read_clean, read_pair
from bsdenoise.evaluation.metrics import psnr, rounded, ssim


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
class Model:
    """A denoiser under measurement.

    Attributes:
        name: What the tables call it.
        path: Its file.
        denoiser: The model itself.
    """

    name: str
    path: Path
    denoiser: Denoiser

    def digest(self) -> str:
        """Gives a checksum of the file."""
        return _file_digest(self.path)


@dataclass(frozen=True)
class Record:
    """What was measured of one model on one image with one noise draw.

    Intensities are fractions of full scale, of float files in the file's own units. PSNRs are in dB.

    Attributes:
        model: Name of the model.
        dataset: Name of the set.
        image: Name of the image.
        draw: Number of the noise draw.
        channels: Number of channels compared.
        height: Height in pixels.
        width: Width in pixels.
        sigma: Standard deviation of the noise that was added; `None` for real pairs.
        sigma_used: What the model took it to be.
        psnr_noisy: PSNR of the noisy image, not rounded.
        psnr: PSNR of the result, rounded to the bits of the file.
        psnr_unrounded: The same without rounding.
        psnr_mean: PSNR of the prediction from the surroundings alone, not rounded.
        ssim: Structural similarity of the rounded result; `None` for images under 11 pixels.
        sure_psnr: What the model itself expects `psnr_unrounded` to be, without the clean image; `None` where σ was
            estimated: an estimate that takes texture for noise leaves nothing of it.
        calibration: Squared error over the posterior variance, 1 for a model that knows how sure it is.
        seconds: Time to denoise.
    """

    model: str
    dataset: str
    image: str
    draw: int
    channels: int
    height: int
    width: int
    sigma: float | None
    sigma_used: float
    psnr_noisy: float
    psnr: float
    psnr_unrounded: float
    psnr_mean: float
    ssim: float | None
    sure_psnr: float | None
    calibration: float
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
        """Gives the record that was made under that key."""
        try:
            return Record(**self._known[key]) if key in self._known else None
        except TypeError:  # made by another version of this package
            return None

    def add(self, key: str, record: Record) -> None:
        """Keeps a record, on disk before the call returns."""
        if self.path is None:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, "record": asdict(record)}) + "\n")


def measure_all(
    models: Iterable[Model],
    items: list[Item],
    protocol: Protocol,
    store: Store,
    failed: Callable[[Item, Exception], None],
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Record]:
    """Measures models on images, or finds what was measured before.

    Args:
        models: The models.
        items: The images and noise draws.
        protocol: The conditions.
        store: Earlier records; new ones are added to it.
        failed: Called for an image that cannot be measured; the others go on.
        note: Called with one line for each image whose pixels were converted.

    Yields:
        One record for each model and item that could be measured.
    """
    noted = set()
    digest_of = functools.cache(_file_digest)  # a stack is one file for many items
    for model in models:
        digest = model.digest()
        for item in items:
            try:
                key = _key([digest, *map(digest_of, item.paths)], item, protocol)
                record = store.find(key)
                if record is None:
                    case = read_case(item, model.denoiser.channels, protocol)
                    for line in (f"{item.path}: {text}" for text in case.notes):
                        if line not in noted:
                            noted.add(line)
                            note(line)
                    record = measure(model, item, case, protocol)
                    store.add(key, record)
            except (ValueError, OSError) as error:
                failed(item, error)
                continue
            # The same file may go by another name than in the run that measured it.
            yield Record(**asdict(record) | {"model": model.name, "dataset": item.dataset, "image": item.name})


def read_case(item: Item, channels: int, protocol: Protocol) -> Case:
    """Reads an image, and adds noise where the protocol says so."""
    if protocol.noise is None:
        return read_pair(item, channels)
    return read_clean(item, channels, protocol.noise)


def measure(model: Model, item: Item, case: Case, protocol: Protocol) -> Record:
    """Denoises one image and compares the result with the clean one.

    Raises:
        ValueError: If the image is not in the model's units.
    """
    denoiser, clean, peak = model.denoiser, case.clean, case.peak
    if (case.levels is not None) != denoiser.fractional:
        kind = "integer" if denoiser.fractional else "float"
        raise ValueError(f"the model takes {kind} images: its units are {denoiser.units}.")
    sigma = case.sigma
    if protocol.own_sigma:
        sigma = None
    elif protocol.sigma is not None:
        sigma = noise.parse_level(protocol.sigma, float(case.levels or 1))
    is_estimate = sigma is None and not denoiser.noise.is_known
    used = float(denoiser.own_sigma(case.noisy[np.newaxis])[0]) if sigma is None else sigma
    start = time.perf_counter()
    result = denoiser.posterior(case.noisy, sigma=used, tile=protocol.tile)
    seconds = time.perf_counter() - start
    final, expected = rounded(result.denoised, case.levels), rounded(clean, case.levels)
    squared_error = np.square(result.denoised.astype(np.float64) - clean)
    height, width, channels = clean.shape
    return Record(
        model=model.name,
        dataset=item.dataset,
        image=item.name,
        draw=item.draw,
        channels=channels,
        height=height,
        width=width,
        sigma=case.sigma,
        sigma_used=used,
        psnr_noisy=psnr(case.noisy, clean, peak),
        psnr=psnr(final, expected, peak),
        psnr_unrounded=psnr(result.denoised, clean, peak),
        psnr_mean=psnr(result.mean, clean, peak),
        ssim=ssim(final, expected, peak),
        sure_psnr=None if is_estimate else result.estimated_psnr + float(20.0 * np.log10(peak / denoiser.scale)),
        calibration=float(np.mean(squared_error) / np.mean(np.square(result.std, dtype=np.float64))),
        seconds=seconds,
    )


def _key(digests: list[str], item: Item, protocol: Protocol) -> str:
    """Gives a checksum of all that a record depends on, this package's version included."""
    parts = [bsdenoise.__version__, digests, item.index, item.draw, asdict(protocol)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
