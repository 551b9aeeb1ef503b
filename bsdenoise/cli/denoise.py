"""`bsdenoise denoise`: image files in, denoised image files out."""

import sys
from collections.abc import Iterator
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
    num_failed = 0
    # `disable=None` hides the bar where stderr is no terminal, so that logs stay readable.
    bar = tqdm(jobs, unit="image", file=sys.stderr, disable=None)
    for job in bar:
        try:
            worker.do(job)
        except Exception as error:  # one bad file must not stop the others
            num_failed += 1
            bar.clear()
            report(error, where=job.source)
    print(f"{len(jobs) - num_failed} written, {num_failed} failed{worker.describe_sigma()}", file=sys.stderr)
    return EXIT_SOME_FAILED if num_failed else 0


@dataclass
class _Worker:
    """Denoises one file after the other, and remembers with which σ."""

    denoiser: Any
    config: DenoiseConfig
    own_sigmas: list[float] = field(default_factory=list)
    float_seen: bool = False

    def do(self, job: paths.Job) -> None:
        """Reads, denoises and writes one file."""
        picture = images.read(job.source)
        results = [self._denoise(noisy) for noisy in _single_images(picture.array)]
        denoised = np.stack([denoised for denoised, _ in results]).reshape(picture.array.shape)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        images.write(job.target, images.from_unit(denoised, picture.array.dtype), like=picture)
        if job.std_target is None:
            return
        ratios = np.stack([ratio for _, ratio in results])
        ratios = ratios if picture.array.ndim == 4 else ratios[0]
        is_array = job.std_target.suffix == ".npy"
        images.write(job.std_target, ratios if is_array else images.from_unit(ratios, np.uint8))

    def _denoise(self, noisy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Denoises one (H, W, C) image; a one-channel model takes each colour channel as an image of its own.

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
        results = [self._denoise_part(np.ascontiguousarray(part)) for part in parts]
        denoised, ratio = (np.concatenate(maps, axis=-1) for maps in zip(*results, strict=True))
        return denoised, ratio if channels in (1, 3) else ratio.mean(axis=-1, keepdims=True)

    def _denoise_part(self, noisy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sigma = self._sigma(noisy)
        if not self.config.std:
            denoised = np.asarray(self.denoiser.denoise(noisy, sigma=sigma))
            return denoised, np.empty_like(denoised)
        posterior = self.denoiser.posterior(noisy, sigma=sigma)
        return np.asarray(posterior.denoised), np.asarray(posterior.std) / np.float32(sigma)

    def check_sigma(self) -> None:
        """Refuses a σ that cannot be read before the first file; whether it is too large, each file's type tells."""
        from bsdenoise.noise import parse_level

        if self.config.sigma is not None:
            parse_level(self.config.sigma, HUGE_SCALE)

    def _sigma(self, noisy: np.ndarray) -> float:
        """Gives the σ of an image as a fraction of full scale: the one asked for, or the model's own."""
        from bsdenoise.noise import parse_level

        if self.config.sigma is not None:
            return parse_level(self.config.sigma, images.full_scale(noisy.dtype))
        sigma = float(self.denoiser.own_sigma(images.to_unit(noisy)[np.newaxis])[0])
        self.own_sigmas.append(sigma)
        self.float_seen |= noisy.dtype.kind == "f"
        return sigma

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


def _single_images(array: np.ndarray) -> Iterator[np.ndarray]:
    """Gives the images of a file, each as (H, W, C)."""
    if array.ndim == 2:
        yield array[..., np.newaxis]
    elif array.ndim == 3:
        yield array
    else:
        yield from array
