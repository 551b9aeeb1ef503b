"""What the page does with a file, without the page: facts, a denoised copy, and all that is known of one image."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bsdenoise import images
from bsdenoise.levels import parse_level


@dataclass(frozen=True)
class Facts:
    """What the headers of a file say.

    Attributes:
        name: The file's name, without its folder.
        format: "PNG", "JPEG", "NPY" or "TIFF".
        shape: (H, W), (H, W, C) or (N, H, W, C).
        dtype: Type of the pixels.
        notes: What was changed on reading.
        own_sigma: The model's own σ in the units of the file, `None` where it estimates σ for each image or uses none.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    dtype: np.dtype
    notes: tuple[str, ...]
    own_sigma: float | None

    @property
    def count(self) -> int:
        """Number of images."""
        return self.shape[0] if len(self.shape) == 4 else 1

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = (*self.shape, 1) if len(self.shape) == 2 else self.shape[-3:]
        return height, width, channels


@dataclass(frozen=True)
class Denoised:
    """All that is known of one image.

    Attributes:
        noisy: (H, W, C), in the type of the file.
        denoised: Of the same shape and type, as it stands in the denoised file.
        ratio: Posterior standard deviation over σ, mean over channels, (H, W); 1 where nothing was gained. `None` of a
            model without a posterior, as is all that follows.
        sigmas: σ in the units of the file: one, or one per channel where a grey model took each by itself.
        origin: Where σ came from: "given", "known" (the model's own) or "estimated" from the image.
        estimated_psnr: In dB; `None` where σ was estimated: taking texture for noise makes it far too high.
    """

    noisy: np.ndarray
    denoised: np.ndarray
    ratio: np.ndarray | None = None
    sigmas: tuple[float, ...] = ()
    origin: str | None = None
    estimated_psnr: float | None = None


class Workshop:
    """Denoises files.

    Args:
        denoiser: A `Denoiser`, or what has the same `channels`, `method`, `has_posterior`, `noise.is_known`,
            `own_sigma`, `denoise` and `posterior`, such as `bsdenoise.client.connect` gives.
        max_pixels: Most pixels (images × height × width) of a file.
        grey: A denoiser of one channel and the same method, which takes the images of as many channels as `denoiser`
            does not take, each channel by itself; `None` where those are refused.
    """

    def __init__(self, denoiser: Any, max_pixels: int, grey: Any = None):
        self.denoiser = denoiser
        self.max_pixels = max_pixels
        self._grey = grey
        # Gradio forgets a computation whose user has gone, but it goes on: the next one has to wait all the same.
        self._busy = threading.Lock()
        self._is_ending = False

    def end(self) -> None:
        """Lets what is being computed end after the image it is at."""
        self._is_ending = True

    def inspect(self, path: Path) -> Facts:
        """Reads the headers of a file, and refuses what cannot be denoised before its pixels are decoded.

        Raises:
            ValueError: If it is no image, too large, or of a number of channels that the model does not take.
            OSError: If the file cannot be opened.
        """
        images.find(path)
        with images.opened(path) as file:
            return self._facts(path, file)

    def denoise(
        self,
        path: Path,
        target: Path,
        sigma: str | None,
        index: int,
        advance: Callable[[int, int], Any] = lambda done, total: None,
    ) -> tuple[Facts, Denoised, float]:
        """Denoises a file into another one, with the pixels and metadata that `bsdenoise denoise` writes.

        Args:
            path: The noisy file.
            target: The file to write.
            sigma: σ as `--sigma` takes it, `None` for the model's own; checked and not used without a posterior.
            index: Number of the image to tell more about, from 0.
            advance: Called with the numbers of images done and of all.

        Returns:
            The facts, the image number `index`, and the seconds that all took.

        Raises:
            ValueError: As `inspect`; also if σ cannot be read or does not fit, there is no image `index`, or the pixels
                are broken.
            OSError: If a file cannot be read or written.
        """
        with self._busy, images.opened(path) as file:
            start = time.perf_counter()
            facts, bench = self._facts(path, file), self._bench(file)
            images.check_writable(target, file.shape, file.dtype)
            self._check_not_ending()
            chosen = bench.look(_with_channels(file.read(index)), sigma)
            result = np.empty(file.shape, file.dtype)
            stack = result if result.ndim == 4 else result[np.newaxis]
            stack[index] = chosen.denoised.reshape(stack.shape[1:])
            advance(1, facts.count)
            for done, number in enumerate((other for other in range(facts.count) if other != index), start=2):
                self._check_not_ending()
                denoised = bench.denoised(_with_channels(file.read(number)), sigma)
                stack[number] = denoised.reshape(stack.shape[1:])
                advance(done, facts.count)
            images.write(target, result, like=file)
        return facts, chosen, time.perf_counter() - start

    def look(self, path: Path, sigma: str | None, index: int) -> tuple[Facts, Denoised, float]:
        """Denoises one image of a file, to look at it.

        Args, results and errors as for `denoise`.
        """
        with self._busy, images.opened(path) as file:
            start = time.perf_counter()
            facts = self._facts(path, file)
            chosen = self._bench(file).look(_with_channels(file.read(index)), sigma)
        return facts, chosen, time.perf_counter() - start

    def _facts(self, path: Path, file: images.ImageFile) -> Facts:
        """Reads the headers, and refuses what does not fit."""
        bench = self._bench(file)
        images.check_channels(_channels(file), bench.denoiser.channels)
        sides = file.shape[:3] if len(file.shape) == 4 else file.shape[:2]
        if math.prod(sides) > self.max_pixels:
            raise ValueError(
                f"{path}: {' × '.join(map(str, sides))} pixels are more than the {self.max_pixels} that this page "
                "takes (--max-pixels)."
            )
        own = bench.known_sigma
        own = None if own is None else own * images.full_scale(file.dtype)
        return Facts(path.name, file.format, file.shape, file.dtype, file.notes, own)

    def _bench(self, file: images.ImageFile) -> "_Bench":
        """Gives the denoiser of a file's images."""
        is_other = self._grey is not None and _channels(file) != self.denoiser.channels
        return _Bench(self._grey if is_other else self.denoiser)

    def _check_not_ending(self) -> None:
        if self._is_ending:
            raise ValueError("This page has been ended.")


class _Bench:
    """Denoises images with one denoiser.

    Args:
        denoiser: As for `Workshop`.
    """

    def __init__(self, denoiser: Any):
        self.denoiser = denoiser

    @property
    def known_sigma(self) -> float | None:
        """The model's own σ in its units; `None` where it estimates σ for each image or uses none."""
        if not (self.denoiser.has_posterior and self._is_known):
            return None
        return self._own_sigma(np.zeros((1, 1, self.denoiser.channels), np.float32))

    @property
    def _is_known(self) -> bool:
        return bool(self.denoiser.noise.is_known)

    def look(self, noisy: np.ndarray, sigma: str | None) -> Denoised:
        """Denoises one (H, W, C) image, and tells all that the model can."""
        if not self.denoiser.has_posterior:
            return Denoised(noisy, self.denoised(noisy, sigma))
        parts = images.parts_for(noisy, self.denoiser.channels)
        sigmas = [self._sigma(part, sigma) for part in parts]
        posteriors = [self.denoiser.posterior(part, sigma=own) for part, own in zip(parts, sigmas, strict=True)]
        ratios = [np.asarray(one.std) / np.float32(own) for one, own in zip(posteriors, sigmas, strict=True)]
        origin = "given" if sigma is not None else "known" if self._is_known else "estimated"
        return Denoised(
            noisy,
            images.from_unit(np.concatenate([np.asarray(one.denoised) for one in posteriors], axis=-1), noisy.dtype),
            np.concatenate(ratios, axis=-1).mean(axis=-1),
            tuple(own * images.full_scale(noisy.dtype) for own in sigmas),
            origin,
            None if origin == "estimated" else _joint_psnr([float(one.estimated_psnr) for one in posteriors]),
        )

    def denoised(self, noisy: np.ndarray, sigma: str | None) -> np.ndarray:
        """Denoises one (H, W, C) image, and no more."""
        parts = [
            np.asarray(self.denoiser.denoise(part, sigma=_given_sigma(part, sigma)))
            for part in images.parts_for(noisy, self.denoiser.channels)
        ]
        return images.from_unit(np.concatenate(parts, axis=-1), noisy.dtype)

    def _sigma(self, noisy: np.ndarray, sigma: str | None) -> float:
        """Gives σ in the model's units: the one asked for, or the model's own."""
        given = _given_sigma(noisy, sigma)
        return self._own_sigma(images.to_unit(noisy)) if given is None else given

    def _own_sigma(self, image: np.ndarray) -> float:
        return float(self.denoiser.own_sigma(image[np.newaxis])[0])


def _given_sigma(noisy: np.ndarray, sigma: str | None) -> float | None:
    """Gives the σ that was asked for in the model's units."""
    return None if sigma is None else parse_level(sigma, images.full_scale(noisy.dtype))


def _channels(file: images.ImageFile) -> int:
    return 1 if len(file.shape) == 2 else file.shape[-1]


def _with_channels(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[..., np.newaxis]


def _joint_psnr(psnrs: list[float]) -> float:
    """Gives the PSNR over all channels from those of each: their squared errors are averaged."""
    return float(-10 * np.log10(np.mean(10 ** (-np.array(psnrs) / 10))))
