"""Whatever is measured, behind one face: trained models of every method, and methods that need no training."""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from bsdenoise import loading, presets
from bsdenoise.evaluation import bm3d
from bsdenoise.evaluation.cases import RGB, Case, Told
from bsdenoise.likelihood import posterior

UNTRAINED = ("bm3d",)  # what `--methods` takes


class Estimate(NamedTuple):
    """What a contestant says of one image. All images are float32 (H, W, C).

    Attributes:
        denoised: The denoised image.
        mean: Prediction from the surroundings alone; `None` if there is no such thing.
        std: Standard deviation of the posterior; `None` without one.
        estimated_psnr: PSNR of `denoised` in dB estimated without the clean image, for a peak of the contestant's
            `scale`; NaN where it is withheld, for the reason of `bsdenoise.likelihood.posterior.WITHHELD`; `None` where
            none can be, or where σ itself was estimated: an estimate that takes texture for noise leaves nothing of it.
        sigma: The σ that was used; `None` if none was.
        seconds: How long it took if it was computed at another time; `None` if now.
        notes: What is worth a word to the user.
    """

    denoised: np.ndarray
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    estimated_psnr: float | None = None
    sigma: float | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()


class Contestant(Protocol):
    """Something that denoises images and is measured.

    Attributes:
        name: What the tables call it.
        method: "full" to "n2v", names of `bsdenoise.methods`, or "bm3d".
        channels: Number of channels of the images that it takes.
        scale: Intensity that `Estimate.estimated_psnr` takes for the peak.
        training: How it was trained, as the model's file says; `None` if it does not, or there was no training.
        protocol: The same in words.
        path: Its file; `None` if it has none.
        workers: Images that it can denoise at the same time, each called from a thread of its own.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def channels(self) -> int: ...  # noqa: D102
    @property
    def scale(self) -> float: ...  # noqa: D102
    @property
    def training(self) -> dict[str, Any] | None: ...  # noqa: D102
    @property
    def protocol(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> Path | None: ...  # noqa: D102
    @property
    def workers(self) -> int: ...  # noqa: D102

    def digest(self) -> str:
        """Return a checksum of what its results depend on beside the image."""
        ...

    def check(self, case: Case) -> None:
        """Raise `ValueError` if an image is not in its units, or its channels are no colours where they must be."""
        ...

    def estimate(self, noisy: np.ndarray, told: Told | None, tile: int | None, label: str = "") -> Estimate:
        """Denoise one image.

        Args:
            noisy: float32 (H, W, C).
            told: Its noise; `None` takes the contestant's own.
            tile: Largest side of a tile in pixels; `None` tiles large images only.
            label: Path of names that says which image it is, as from `Item.label`.

        Raises:
            ValueError: If the image, its noise or the tile does not fit.
        """
        ...

    def stop(self) -> None:
        """End what other threads wait for: their results are not wanted any more."""
        ...


class Model:
    """A trained model.

    Args:
        name: What the tables call it.
        path: Its `.keras` file.
        denoiser: The `Denoiser` itself.
        tta: Number of mirrored and turned copies whose results are averaged: 1, 2, 4 or 8.
    """

    workers = 1  # one image fills all cores

    def __init__(self, name: str, path: Path, denoiser: Any, tta: int = 1):
        self.name = name
        self.path = path
        self.denoiser = denoiser
        self._tta = tta
        self.method = str(denoiser.method.name)
        self.channels = int(denoiser.channels)
        self.scale = float(denoiser.scale)
        self.training = denoiser.provenance

    @property
    def protocol(self) -> str:
        """Say in words how it was trained, and whether copies were averaged."""
        words = training_in_words(self.denoiser.method, self.training)
        return f"{words}; mean of {self._tta} copies of each image" if self._tta > 1 else words

    def digest(self) -> str:
        """Return a checksum of the file, and the number of copies."""
        with self.path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        return f"{checksum}-{self._tta}" if self._tta > 1 else checksum

    def check(self, case: Case) -> None:
        """Refuse an image.

        Raises:
            ValueError: If it holds integers and the model is for floats, or the other way round; or its channels are
                independent and the model is a shipped one for RGB.
        """
        presets.check_channels(self.training, case.clean.shape[-1], case.independent_channels)
        if (case.levels is not None) != self.denoiser.fractional:
            kind = "integer" if self.denoiser.fractional else "float"
            raise ValueError(f"the model takes {kind} images: its units are {self.denoiser.units}.")

    def estimate(self, noisy: np.ndarray, told: Told | None, tile: int | None, label: str = "") -> Estimate:
        """Denoise; says as much beyond that as the method can."""
        denoiser, method = self._for_noise(told), self.denoiser.method
        options = {"tile": tile, "tta": self._tta}
        model = denoiser.noise
        if not (method.has_posterior or method.is_blind):
            # It has no use for the noise, and refuses what makes no sense all the same.
            unused = told.theta if told is not None and told.parameters == model.parameters else None
            return Estimate(denoiser.denoise(noisy, noise=unused, **options))
        if told is not None and told.parameters != model.parameters:
            raise ValueError(f"the noise is {told.kind}, and the model {self.name} knows {model.kind} noise.")
        if told is None:
            told_or_own = Told(model.kind, tuple(map(float, np.asarray(denoiser.own_noise(noisy[np.newaxis]))[0])))
        else:
            told_or_own = told
        theta, used = np.array(told_or_own.theta, np.float32), told_or_own.sigma
        if method.has_posterior:
            post = denoiser.posterior(noisy, noise=theta, **options)
            result = Estimate(post.denoised, post.mean, post.std, float(post.estimated_psnr), used)
        else:
            denoised = denoiser.denoise(noisy, noise=theta, **options)
            result = Estimate(denoised, denoised, None, self._stein_psnr(denoised, noisy, theta), used)
        was_estimated = told is None and not model.is_known
        return result._replace(estimated_psnr=None) if was_estimated else result

    def _for_noise(self, told: Told | None) -> Any:
        """Return the denoiser, made fit for noise that grows with the signal if that is what it is told."""
        if told is None or told.parameters == self.denoiser.noise.parameters or not self.denoiser.can_be_stabilized:
            return self.denoiser
        stabilized = self.denoiser.stabilized()
        return stabilized if told.parameters == stabilized.noise.parameters else self.denoiser

    def stop(self) -> None:
        """Do nothing: one image is denoised at a time."""

    def _stein_psnr(self, denoised: np.ndarray, noisy: np.ndarray, theta: np.ndarray) -> float:
        """Estimate the PSNR of a prediction that does not depend on the observed pixel: no variance is left to it."""
        denoiser = self.denoiser
        batch, noisy_batch = ((image[np.newaxis] - denoiser.offset) / self.scale for image in (denoised, noisy))
        shown = denoiser.noise.rescaled(np.float64(theta), denoiser.offset, self.scale)[np.newaxis]
        variance = denoiser.noise.variance(batch, shown)
        return float(posterior.estimate_psnr(batch, noisy_batch, batch, np.zeros_like(batch), variance)[0])


class Bm3d:
    """BM3D on images of so many channels.

    Args:
        name: What the tables call it.
        channels: 1 or 3.
        bm3d_filter: The filter with its cache.

    Raises:
        ValueError: If BM3D cannot do that many channels.
    """

    method = "bm3d"
    scale = 1.0
    training = None
    path = None
    protocol = "not trained, told sigma"

    def __init__(self, name: str, channels: int, bm3d_filter: bm3d.Bm3d):
        bm3d.check_channels(channels)
        self.name = name
        self.channels = channels
        self._filter = bm3d_filter
        self.workers = bm3d_filter.workers

    def digest(self) -> str:
        """Return a checksum of the package's version, its settings and the number of channels."""
        return f"{self._filter.digest()}-{self.channels}"

    def check(self, case: Case) -> None:
        """Refuse independent channels, which it would mix; units do not matter, since σ comes with them.

        Raises:
            ValueError: If there are such.
        """
        if case.independent_channels:
            raise ValueError("BM3D takes three channels for red, green and blue, and these are independent.")

    def estimate(self, noisy: np.ndarray, told: Told | None, tile: int | None, label: str = "") -> Estimate:
        """Denoise the whole image, without tiles, or find what was computed before."""
        sigma = None if told is None else told.sigma
        if sigma is None:
            raise ValueError(
                "BM3D must be told the noise level: it has none of its own. Give --sigma, or leave bm3d away."
            )
        denoised, seconds, notes = self._filter.denoise(noisy, sigma, label)
        return Estimate(denoised, sigma=sigma, seconds=seconds, notes=notes)

    def stop(self) -> None:
        """End the processes that compute."""
        self._filter.stop()


def open_contestants(
    models: Sequence[Path],
    methods: Sequence[str],
    cache: Path | None,
    load: Callable[[Path], Any],
    channels: int = RGB,
    tta: int = 1,
) -> list[Contestant]:
    """Load what is to be measured: the models in their order, then the methods in theirs.

    Args:
        models: `.keras` files, run folders that hold one, or names of presets.
        methods: Names of methods that need no training: "bm3d".
        cache: Folder for results of BM3D; `None` takes one in the user's cache.
        load: Gives the `Denoiser` of a path.
        channels: Channels for BM3D where there is no model. Beside models it has theirs, so that all are given the same
            noisy image; beside grey and colour models it takes part twice.
        tta: Copies of each image that models average.

    Raises:
        ValueError: If a method is unknown, or something is named twice or cannot be loaded.
        OSError: If the cache cannot be used.
    """
    check_names(models, methods)
    bm3d_filter = bm3d.Bm3d(cache) if methods else None  # first: it is quick to see that something is missing
    names = _names(models, methods)
    found: list[Contestant] = [
        Model(name, loading.find(path), load(path), tta) for name, path in zip(names, models, strict=True)
    ]
    if bm3d_filter is not None:
        counts = sorted({model.channels for model in found} or {channels})
        for count in counts:
            name = "bm3d" if len(counts) == 1 else f"bm3d, {count} channel{'s' if count > 1 else ''}"
            found.append(Bm3d(name, count, bm3d_filter))
    return found


def check_names(models: Sequence[Path], methods: Sequence[str]) -> None:
    """Refuse unknown methods, what is named twice, and nothing at all, before anything is loaded.

    Raises:
        ValueError: If so.
    """
    if not models and not methods:
        raise ValueError("Expected at least one --model, or --methods bm3d.")
    for method in methods:
        if method not in UNTRAINED:
            raise ValueError(
                f"--methods takes what needs no training: {', '.join(UNTRAINED)}. Trained models are given by --model. "
                f"Received: {method}."
            )
    if len(set(methods)) < len(methods):
        raise ValueError("--methods names a method twice.")
    if len(set(models)) < len(models):
        raise ValueError("A --model is given twice.")


def training_in_words(method: Any, training: dict[str, Any] | None) -> str:
    """Say how a model was trained, so that nobody compares what had different things to learn from.

    Args:
        method: A `bsdenoise.methods.Method`.
        training: The model's provenance.
    """
    if not training:
        return "the file does not say how it was trained"
    stages = presets.stages(training)
    alike = list(itertools.takewhile(lambda stage: _kind(stage) == _kind(training), stages))
    before = stages[len(alike) :]
    fixed, fresh = (training.get("corrupt") == kind for kind in ("fixed", "fresh"))
    if not method.has_noisy_target:
        words = "trained with clean targets" + (", one fixed realisation of the noise of each image" if fixed else "")
    elif method.num_copies > 1:
        words = "trained on pairs of noisy copies" + (", two fixed realisations of each image" if fixed else "")
    else:
        words = "trained on noisy images only" + (", one fixed realisation of each image" if fixed else "")
    if fresh:
        words += ", noise fresh at each visit"
    elif training.get("pairs"):
        words += ", real pairs"
    elif not fixed and "corrupt" in training:
        words += ", which were noisy already"
    words += _amount(alike)
    return f"{words}; before that: {training_in_words(method, before[0])}" if before else words


def _kind(training: dict[str, Any]) -> tuple:
    """Return what must be equal of two trainings to speak of them as of one."""
    return training.get("corrupt"), training.get("pairs"), training.get("source")


def _amount(stages: list[dict[str, Any]]) -> str:
    """Say how much was trained on, as far as the model's file tells."""
    crops = sum(stage.get("crops") or 0 for stage in stages)
    images = max(stage.get("images") or 0 for stage in stages)
    sides = [int(stage["crop"]) for stage in stages if stage.get("crop")]
    parts = []
    if crops:
        side = " to ".join(f"{side}×{side}" for side in sorted({min(sides), max(sides)})) if sides else ""
        parts.append(f"{crops:,} crops" + (f" of {side}" if side else ""))
    if images:
        parts.append(f"{images:,} images")
    return f" ({' from '.join(parts)})" if parts else ""


def _names(paths: Sequence[Path], taken: Sequence[str]) -> list[str]:
    """Name models by the last part of their paths; by the whole path where that is not enough."""
    short = [path.stem if path.suffix in (".keras", presets.SUFFIX) else path.resolve().name for path in paths]
    return short if len({*short, *taken}) == len(short) + len(taken) else [str(path) for path in paths]
