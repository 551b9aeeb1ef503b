"""`bsdenoise denoise`: image files in, denoised image files out."""

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from bsdenoise import images
from bsdenoise.cli import models, paths, report
from bsdenoise.client.many import in_order
from bsdenoise.config import DenoiseConfig
from bsdenoise.levels import parse_level

EXIT_SOME_FAILED = 2


def run(config: DenoiseConfig) -> int:
    """Denoises all files of the configuration.

    Returns:
        0, or 2 if a file failed.

    Raises:
        ValueError: If nothing can be done at all: no input, clashing outputs, no model, or one that cannot do what is
            asked for.
        ClientError: If the server does not answer or has no such model.
    """
    if (config.model is None) == (config.server is None):
        raise ValueError("Expected either --model or --server, to say what denoises.")
    if config.concurrency < 1:
        raise ValueError(f"--concurrency must be at least 1. Received: {config.concurrency}.")
    jobs = paths.plan(config.inputs, config.out, std=config.std, overwrite=config.overwrite)
    worker = _Worker(_denoiser(config), config)
    worker.check()
    tasks = [_Task(job, _count(job)) for job in jobs]
    num_failed = 0
    # `disable=None` hides the bar where stderr is no terminal, so that logs stay readable.
    with (
        tqdm(total=sum(task.count for task in tasks), unit="image", file=sys.stderr, disable=None) as worker.bar,
        worker.ending_its_writes(),
    ):
        run_all = _one_by_one if config.server is None else functools.partial(in_order, concurrency=config.concurrency)
        for task, future in run_all(worker.do, tasks):
            error = future.exception()
            with _beside_the_bar():
                for line in task.lines:
                    print(line, file=sys.stderr)
                if error is not None:  # one bad file must not stop the others
                    num_failed += 1
                    report(error, where=task.job.source)
            worker.remember(task)
    print(f"{len(jobs) - num_failed} written, {num_failed} failed{worker.describe_sigma()}", file=sys.stderr)
    return EXIT_SOME_FAILED if num_failed else 0


def _denoiser(config: DenoiseConfig) -> Any:
    """Gives the model, here or behind a server."""
    return models.connect(str(config.server)) if config.model is None else models.load_denoiser(config.model)


def _one_by_one(function: Callable[["_Task"], None], tasks: list["_Task"]) -> Iterator[tuple["_Task", Future[None]]]:
    """Does in this thread what `in_order` does in many."""
    for task in tasks:
        future: Future[None] = Future()
        try:
            function(task)
            future.set_result(None)
        except Exception as error:
            future.set_exception(error)
        yield task, future


@dataclass
class _Task:
    """A file to denoise, and what is to be told of it.

    Attributes:
        job: What to read and to write.
        count: Number of images, as far as that can be told beforehand.
        done: Number of images denoised.
        lines: What users are told.
        sigmas: Every σ that was the model's own.
        is_float: Whether the file holds floats.
    """

    job: paths.Job
    count: int
    done: int = 0
    lines: list[str] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)
    is_float: bool = False


class _Worker:
    """Denoises files, several at once if `do` is called by several threads, and remembers with which σ.

    Args:
        denoiser: A `Denoiser` or a `bsdenoise.client.Client`.
        config: What was asked for.
    """

    def __init__(self, denoiser: Any, config: DenoiseConfig):
        self.denoiser = denoiser
        self.config = config
        self.bar: Any = None
        self._bar_lock = threading.Lock()
        self._writes = threading.BoundedSemaphore(config.concurrency)
        self._own_sigmas: list[float] = []
        self._float_seen = False

    @contextlib.contextmanager
    def ending_its_writes(self) -> Iterator[None]:
        """Lets files that are being written be finished, and no other be begun, when something ends the work."""
        try:
            yield
        except BaseException:
            for _ in range(self.config.concurrency):
                self._writes.acquire()
            raise

    def do(self, task: _Task) -> None:
        """Reads, denoises and writes one file, image by image."""
        job = task.job
        with images.opened(job.source) as file:
            task.lines += [f"bsdenoise: note: {job.source}: {note}" for note in file.notes]
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
                task.done += 1
                self._advance(1)
            task.sigmas, task.is_float = sigmas, file.dtype.kind == "f"
            if sigmas and not self.denoiser.noise.is_known:
                task.lines.append(f"{job.source}: sigma {_span_in_units(file.dtype, sigmas)} (estimated)")
            with self._writes:
                job.target.parent.mkdir(parents=True, exist_ok=True)
                images.write(job.target, denoised, like=file)
                if job.std_target:
                    _write_ratios(job, ratios, file)

    def remember(self, task: _Task) -> None:
        """Keeps what the last line needs, and counts what a broken file lacks."""
        self._own_sigmas += task.sigmas
        self._float_seen |= bool(task.sigmas) and task.is_float
        self._advance(task.count - task.done)

    def _advance(self, count: int) -> None:
        with self._bar_lock:
            self.bar.update(count)

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
        results = [self._denoise_part(part, sigmas) for part in images.parts_for(noisy, self.denoiser.channels)]
        denoised, ratio = (np.concatenate(maps, axis=-1) for maps in zip(*results, strict=True))
        return denoised, ratio if channels in (1, 3) else ratio.mean(axis=-1, keepdims=True)

    def _denoise_part(self, noisy: np.ndarray, sigmas: list[float]) -> tuple[np.ndarray, np.ndarray]:
        sigma = self._sigma(noisy)
        if self.config.std:
            assert sigma is not None  # `check` saw that there is a posterior
            posterior = self.denoiser.posterior(noisy, sigma=sigma)
            result = np.asarray(posterior.denoised), np.asarray(posterior.std) / np.float32(sigma)
        else:
            # A server estimates from the whole image, of which a client may have sent it a part only.
            is_left_to_it = self.config.server is not None and self.config.sigma is None
            denoised = np.asarray(self.denoiser.denoise(noisy, sigma=None if is_left_to_it else sigma))
            result = denoised, np.empty(0, denoised.dtype).reshape(0, 0, denoised.shape[-1])
        if self.config.sigma is None and sigma is not None:
            sigmas.append(sigma)  # only now: before, the model may refuse the image
        return result

    def check(self) -> None:
        """Refuses before the first file what the model cannot do, and a σ that cannot be read; notes an idle one.

        Whether σ is too large, the model tells.
        """
        if self.config.sigma is not None:
            parse_level(self.config.sigma, 1.0)  # its words alone: it has no upper end
        if self.denoiser.has_posterior:
            return
        name = self.denoiser.method.name
        if self.config.std:
            raise ValueError(
                "--std needs a model that says how sure it is, of method full or per_component. "
                f"Received: a model of method {name}, which only denoises."
            )
        if self.config.sigma is not None:
            print(f"bsdenoise: note: a model of method {name} does not use --sigma", file=sys.stderr)

    def _sigma(self, noisy: np.ndarray) -> float | None:
        """Gives the σ of an image in the model's units: the one asked for, or the model's own if it uses one."""
        if self.config.sigma is not None:
            return parse_level(self.config.sigma, images.full_scale(noisy.dtype))
        if not self.denoiser.has_posterior:
            return None
        return float(self.denoiser.own_sigma(images.to_unit(noisy)[np.newaxis])[0])

    def describe_sigma(self) -> str:
        """Says which σ was used where none was given, in the notation that `--sigma` takes."""
        if not self._own_sigmas:
            return ""
        low, high = (
            f"{value:.4g}" if self._float_seen else f"{255 * value:.4g}/255"
            for value in (min(self._own_sigmas), max(self._own_sigmas))
        )
        origin = "the model's own" if self.denoiser.noise.is_known else "estimated per image"
        return f"; sigma {low} ({origin})" if low == high else f"; sigma {low} to {high} ({origin})"


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


def _span_in_units(dtype: np.dtype, sigmas: list[float]) -> str:
    """Writes the least and the greatest σ, or the one that they are, in the units of a file."""
    scale = images.full_scale(dtype)
    low, high = (f"{value * scale:{'.4g' if dtype.kind == 'f' else '.1f'}}" for value in (min(sigmas), max(sigmas)))
    return low if low == high else f"{low} to {high}"
