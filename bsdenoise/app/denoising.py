"""What the page does with a file, without the page: facts, a denoised copy, and all that is known of one image."""

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bsdenoise import images, inspection
from bsdenoise.app import orientation
from bsdenoise.app.bench import Bench
from bsdenoise.app.facts import Denoised, Facts
from bsdenoise.app.steps import LEARNING, READING, WAITING, WRITING, Meter, Step, Tell, to_nobody
from bsdenoise.images import missing
from bsdenoise.noise.spec import read_level
from bsdenoise.pipeline.adapting import MAX_IMAGES

PREFIX = "denoised-"  # of the name of the denoised file


class Workshop:
    """Denoises files.

    Args:
        denoiser: A `Denoiser`, or what has the same `channels`, `method`, `has_posterior`, `noise`, `own_sigma`,
            `denoise` and `posterior`, such as `bsdenoise.client.connect` gives.
        max_pixels: Most pixels (images × height × width) of a file.
        grey: A denoiser of one channel and the same method, which takes all that is not RGB, and any other number
            of channels than `denoiser`, each channel by itself; `None` where those are refused.
    """

    def __init__(self, denoiser: Any, max_pixels: int, grey: Any = None):
        self.denoiser = denoiser
        self.max_pixels = max_pixels
        self._grey = grey
        # Gradio forgets a computation whose user has gone, but it goes on: the next one has to wait all the same.
        self._busy = threading.Lock()
        self._is_ending = False
        self._adapted: tuple[Any, Bench, str] | None = None  # the last one, with the file and σ that it is of

    def end(self) -> None:
        """Let what is being computed end after the image it is at."""
        self._is_ending = True

    def inspect(self, path: Path) -> Facts:
        """Read the headers of a file, and refuse what cannot be denoised before its pixels are decoded.

        Args:
            path: The file.

        Raises:
            ValueError: If it is no image, too large, or of a number of channels that the model does not take.
            OSError: If the file cannot be opened.
        """
        images.find(path)
        with images.opened(path) as file:
            return self._facts(path, file)

    @property
    def tells_noise(self) -> bool:
        """Whether `noise` tells any: not where a server finds it, as nothing of it is computed here then."""
        return getattr(self.denoiser, "description", None) is None

    def noise(self, path: Path) -> inspection.InspectedFile | None:
        """Find out what noise a file has, as `bsdenoise inspect` does; `None` where a server finds it.

        Args:
            path: The file.

        Raises:
            ValueError: As `inspect`; also if it holds no measurement.
            OSError: If the file cannot be opened.
        """
        self.inspect(path)
        return inspection.measure(path).file if self.tells_noise else None

    @property
    def can_learn(self) -> bool:
        """Whether models can go on learning from a file before they denoise it."""
        return all(Bench(one).can_learn for one in (self.denoiser, self._grey) if one is not None)

    def denoise(
        self, path: Path, target: Path, sigma: str | None, index: int, tell: Tell = to_nobody, learns: bool = False
    ) -> tuple[Facts, Denoised, float]:
        """Denoise a file into another one, with the pixels and metadata that `bsdenoise denoise` writes.

        Args:
            path: The noisy file.
            target: The file to write.
            sigma: σ as `--sigma` takes it, `None` for the model's own; checked and not used without a posterior.
            index: Number of the image to tell more about, from 0; it is denoised first.
            tell: Told of each step.
            learns: Whether the model first goes on learning from the images of the file, as `denoise --adapt each`.

        Returns:
            The facts, the image number `index`, and the seconds that all took.

        Raises:
            ValueError: As `inspect`; also if σ cannot be read or does not fit, there is no image `index`, or the pixels
                are broken.
            OSError: If a file cannot be read or written.
        """
        with self._turn(tell), images.opened(path) as file:
            start = time.perf_counter()
            facts, bench = self._facts(path, file), self._bench(file)
            images.check_writable(target, file.shape, file.dtype)
            work = _Work(file, bench, sigma, facts.count, tell)
            self._check_not_ending()
            remark = self._learn(work, path, learns)
            chosen = work.look(index, remark)
            result = np.empty(file.shape, file.dtype)
            stack = result if result.ndim == 4 else result[np.newaxis]
            stack[index] = chosen.denoised.reshape(stack.shape[1:])
            for number in (other for other in range(facts.count) if other != index):
                self._check_not_ending()
                stack[number] = work.denoised(number).reshape(stack.shape[1:])
            tell(Step(WRITING))
            images.write(target, result, like=file)
        return facts, chosen, time.perf_counter() - start

    def look(
        self, path: Path, sigma: str | None, index: int, tell: Tell = to_nobody, learns: bool = False
    ) -> tuple[Facts, Denoised, float]:
        """Denoise one image of a file, to look at it.

        Args, results and errors as for `denoise`.
        """
        with self._turn(tell), images.opened(path) as file:
            start = time.perf_counter()
            facts = self._facts(path, file)
            work = _Work(file, self._bench(file), sigma, 1, tell)
            chosen = work.look(index, self._learn(work, path, learns))
        return facts, chosen, time.perf_counter() - start

    def _learn(self, work: "_Work", path: Path, learns: bool) -> str | None:
        """Let the model learn from a file, unless it has done so last; tells what came of it."""
        if not learns:
            return None
        key = path, work.sigma
        if self._adapted is None or self._adapted[0] != key:
            self._adapted = key, *work.learn()
        _, work.bench, words = self._adapted
        return words

    @contextlib.contextmanager
    def _turn(self, tell: Tell) -> Iterator[None]:
        """Let one computation run at a time."""
        if not self._busy.acquire(blocking=False):
            tell(Step(WAITING))
            self._busy.acquire()
        try:
            yield
        finally:
            self._busy.release()

    def _facts(self, path: Path, file: images.ImageFile) -> Facts:
        """Read the headers, and refuse what does not fit."""
        bench = self._bench(file)
        try:
            bench.check_channels(file.channels, file.independent_channels)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        sides = file.shape[:3] if len(file.shape) == 4 else file.shape[:2]
        if math.prod(sides) > self.max_pixels:
            raise ValueError(
                f"{path}: {' × '.join(map(str, sides))} pixels are more than the {self.max_pixels} that this page "
                "takes (--max-pixels)."
            )
        scale = file.full_scale
        known, trained, peak = bench.known_sigma, bench.trained, bench.peak
        return Facts(
            name=path.name,
            format=file.format,
            shape=file.shape,
            dtype=file.dtype,
            notes=(*file.notes, *images.not_kept_in(result_name(path), file)),
            own_sigma=None if known is None else known * scale,
            bits=file.bits,
            independent_channels=file.independent_channels,
            one_by_one=bench.denoiser.channels < file.channels,
            orientation=orientation.read(file.metadata),
            trained=None if trained is None else (trained[0] * scale, trained[1] * scale),
            peak=None if peak is None else peak * scale,
            no_data=file.no_data,
        )

    def _bench(self, file: images.ImageFile) -> Bench:
        """Choose the denoiser of a file's images."""
        is_other = file.channels != self.denoiser.channels or file.independent_channels
        return Bench(self._grey if is_other and self._grey is not None else self.denoiser, file.bits)

    def _check_not_ending(self) -> None:
        if self._is_ending:
            raise ValueError("This page has been ended.")


def result_name(path: Path) -> str:
    """Name the denoised file; its ending, such as .ome.tif, stays whole."""
    return f"{PREFIX}{path.name}"


class _Work:
    """The images of an open file, denoised one after the other.

    Args:
        file: The file.
        bench: What denoises.
        sigma: As for `Workshop.denoise`.
        count: Number of images that will be denoised.
        tell: Told of each step.

    Raises:
        ValueError: If σ cannot be read.
    """

    def __init__(self, file: images.ImageFile, bench: Bench, sigma: str | None, count: int, tell: Tell):
        if sigma is not None:
            read_level(sigma)  # before the pixels are read, which may take long
        tell(Step(READING))
        self._file, self.bench, self.sigma = file, bench, sigma
        self._meter = Meter(count, tell)
        self._tell = tell

    def learn(self) -> tuple[Bench, str]:
        """Give the bench after its model has learnt from the images, and a line on that."""
        numbers = np.linspace(0, len(self._file) - 1, min(len(self._file), MAX_IMAGES)).round().astype(int)
        noisy = []
        for index in numbers:
            pixels = self._file.read(int(index))
            gaps = missing.where(pixels, self._file.no_data)
            plain = pixels if gaps is None else missing.filled(pixels, gaps)
            noisy.append((_with_channels(plain), None if gaps is None else _with_channels(gaps)))
        self._tell(Step(LEARNING, share=0.0))
        try:
            return self.bench.adapted(noisy, self.sigma, lambda share: self._tell(Step(LEARNING, share=share)))
        except ValueError as error:  # too few pixels
            return self.bench, f"nothing: {error}"

    def look(self, index: int, learnt: str | None = None) -> Denoised:
        """Denoise an image, and tell all that is known of it; `learnt` is what the model has learnt from it."""
        raw, gaps, found = self._next(self.bench.look, index)
        found = dataclasses.replace(found, learnt=learnt)
        if gaps is None:
            return dataclasses.replace(found, noisy=raw)
        nothing = gaps.any(axis=-1)
        ratio = None if found.ratio is None else np.where(nothing, np.float32(np.nan), found.ratio)
        denoised, ignored_share = np.where(gaps, raw, found.denoised), float(nothing.mean())
        return dataclasses.replace(found, noisy=raw, denoised=denoised, ratio=ratio, ignored_share=ignored_share)

    def denoised(self, index: int) -> np.ndarray:
        """Denoise an image, (H, W, C), and no more."""
        raw, gaps, denoised = self._next(self.bench.denoised, index)
        return denoised if gaps is None else np.where(gaps, raw, denoised)

    def _next(self, compute: Callable[..., Any], index: int) -> tuple[np.ndarray, np.ndarray | None, Any]:
        """Compute something of an image without gaps; give it with the image (H, W, C) as it is, and its gaps."""
        pixels = self._file.read(index)
        gaps = missing.where(pixels, self._file.no_data)
        whole = pixels if gaps is None else missing.filled(pixels, gaps)  # before it is cut into channels
        self._meter.advance(0.0)
        result = compute(_with_channels(whole), self.sigma, self._meter.advance)
        self._meter.next_image()
        return _with_channels(pixels), None if gaps is None else _with_channels(gaps), result


def _with_channels(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[..., np.newaxis]
