"""`bsdenoise denoise`: image files in, denoised image files out."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from bsdenoise import images
from bsdenoise.cli import models, paths, report
from bsdenoise.config import DenoiseConfig

EXIT_SOME_FAILED = 2
HUGE_SCALE = 1e30  # no σ is too large for it


def run(config: DenoiseConfig) -> int:
    """Denoises all files of the configuration.

    Returns:
        0, or 2 if a file failed.

    Raises:
        ValueError: If nothing can be done at all: no input, clashing outputs, no model.
    """
    jobs = paths.plan(config.inputs, config.out, std=config.std, overwrite=config.overwrite)
    worker = _Worker(models.load_denoiser(config.model), config)
    worker.check_sigma()
    counts = [_count(job) for job in jobs]
    num_failed = 0
    # `disable=None` hides the bar where stderr is no terminal, so that logs stay readable.
    with tqdm(total=sum(counts), unit="image", file=sys.stderr, disable=None) as bar:
        for job, until in zip(jobs, np.cumsum(counts), strict=True):
            try:
                worker.do(job, bar.update)
            except Exception as error:  # one bad file must not stop the others
                num_failed += 1
                with _beside_the_bar():
                    report(error, where=job.source)
            bar.update(int(until) - bar.n)
    print(f"{len(jobs) - num_failed} written, {num_failed} failed{worker.describe_sigma()}", file=sys.stderr)
    return EXIT_SOME_FAILED if num_failed else 0


@dataclass
class _Worker:
    """Denoises one file after the other, and remembers with which σ."""

    denoiser: Any
    config: DenoiseConfig
    own_sigmas: list[float] = field(default_factory=list)
    float_seen: bool = False

    def do(self, job: paths.Job, advance: Callable[[], Any]) -> None:
        """Reads, denoises and writes one file, image by image; `advance` is called after each."""
        with images.opened(job.source) as file:
            for note in file.notes:
                self._say(f"bsdenoise: note: {job.source}: {note}")
            images.check_writable(job.target, file.shape, file.dtype)
            sigmas: list[float] = []
            denoised, ratios = np.empty(file.shape, file.dtype), []
            for index in range(len(file)):
                noisy = file.read(index)
                result, ratio = self._denoise(noisy if noisy.ndim == 3 else noisy[..., np.newaxis], sigmas)
                place = denoised[index] if denoised.ndim == 4 else denoised
                place[...] = images.from_unit(result, file.dtype).reshape(place.shape)
                if job.std_target:
                    ratios.append(ratio)
                advance()
            self._remember(job, sigmas, file.dtype)
            job.target.parent.mkdir(parents=True, exist_ok=True)
            images.write(job.target, denoised, like=file)
            if job.std_target:
                _write_ratios(job, ratios, file)

    def _denoise(self, noisy: np.ndarray, sigmas: list[float]) -> tuple[np.ndarray, np.ndarray]:
        """Denoises one (H, W, C) image; a one-channel model takes each colour channel as an image of its own.

        Args:
            noisy: The image.
            sigmas: Every σ that was the model's own is added to it.

        Returns:
            The denoised image, and the posterior standard deviation over σ: of 1 channel, 3 or the mean of all; only
            asked for by `--std`, meaningless without.
        """
        channels = noisy.shape[-1]
        if self.denoiser.channels == channels:
            parts = [noisy]
        elif self.denoiser.channels == 1:
            parts = np.split(noisy, channels, axis=-1)
        else:
            kind = "a grey image" if channels == 1 else f"an image with {channels} channels"
            raise ValueError(f"{kind} cannot be denoised by a model for {self.denoiser.channels} channels.")
        results = [self._denoise_part(np.ascontiguousarray(part), sigmas) for part in parts]
        denoised, ratio = (np.concatenate(maps, axis=-1) for maps in zip(*results, strict=True))
        return denoised, ratio if channels in (1, 3) else ratio.mean(axis=-1, keepdims=True)

    def _denoise_part(self, noisy: np.ndarray, sigmas: list[float]) -> tuple[np.ndarray, np.ndarray]:
        sigma = self._sigma(noisy)
        if self.config.std:
            posterior = self.denoiser.posterior(noisy, sigma=sigma)
            result = np.asarray(posterior.denoised), np.asarray(posterior.std) / np.float32(sigma)
        else:
            denoised = np.asarray(self.denoiser.denoise(noisy, sigma=sigma))
            result = denoised, np.empty(0, denoised.dtype).reshape(0, 0, denoised.shape[-1])
        if self.config.sigma is None:
            sigmas.append(sigma)  # only now: before, the model may refuse the image
        return result

    def check_sigma(self) -> None:
        """Refuses a σ that cannot be read before the first file; whether it is too large, the model tells."""
        from bsdenoise.noise import parse_level

        if self.config.sigma is not None:
            parse_level(self.config.sigma, HUGE_SCALE)

    def _sigma(self, noisy: np.ndarray) -> float:
        """Gives the σ of an image in the model's units: the one asked for, or the model's own."""
        from bsdenoise.noise import parse_level

        if self.config.sigma is not None:
            return parse_level(self.config.sigma, images.full_scale(noisy.dtype))
        return float(self.denoiser.own_sigma(images.to_unit(noisy)[np.newaxis])[0])

    def _remember(self, job: paths.Job, sigmas: list[float], dtype: np.dtype) -> None:
        """Keeps what the last line needs, and says which σ was estimated, in the units of the file."""
        self.own_sigmas += sigmas
        self.float_seen |= bool(sigmas) and dtype.kind == "f"
        if sigmas and not self.denoiser.noise.is_known:
            scale = images.full_scale(dtype)
            low, high = (_in_units_of(dtype, value * scale) for value in (min(sigmas), max(sigmas)))
            self._say(f"{job.source}: sigma {low if low == high else f'{low} to {high}'} (estimated)")

    def describe_sigma(self) -> str:
        """Says which σ was used where none was given, in the notation that `--sigma` takes."""
        if not self.own_sigmas:
            return ""
        low, high = (
            f"{value:.4g}" if self.float_seen else f"{255 * value:.4g}/255"
            for value in (min(self.own_sigmas), max(self.own_sigmas))
        )
        origin = "the model's own" if self.denoiser.noise.is_known else "estimated per image"
        return f"; sigma {low} ({origin})" if low == high else f"; sigma {low} to {high} ({origin})"

    def _say(self, line: str) -> None:
        with _beside_the_bar():
            print(line, file=sys.stderr)


@contextlib.contextmanager
def _beside_the_bar() -> Iterator[None]:
    """Takes the progress bar away while something else is printed."""
    with tqdm.external_write_mode(file=sys.stderr):
        yield


def _count(job: paths.Job) -> int:
    """Counts the images of a file for the progress bar; what is wrong with it is said when its turn comes."""
    try:
        return images.count(job.source)
    except (ValueError, OSError):
        return 1


def _write_ratios(job: paths.Job, ratios: list[np.ndarray], file: images.ImageFile) -> None:
    """Writes posterior standard deviations over σ: as numbers where the format holds them, or as an 8-bit picture."""
    assert job.std_target is not None
    array = np.stack(ratios) if len(file.shape) == 4 else ratios[0]
    suffix = job.std_target.suffix.lower()
    if suffix not in paths.NUMBER_SUFFIXES:
        images.write(job.std_target, images.from_unit(array, np.uint8))
    elif suffix == ".npy":
        images.write(job.std_target, array)
    else:
        fits = array.size == np.prod(file.shape)  # else it is the mean of many channels
        images.write(job.std_target, array.reshape(file.shape) if fits else array, like=file)


def _in_units_of(dtype: np.dtype, sigma: float) -> str:
    return f"{sigma:.4g}" if dtype.kind == "f" else f"{sigma:.1f}"
