"""The one way from noisy files to denoised ones: what is read, by which model it is denoised, and what is written."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from bsdenoise import presets
from bsdenoise.config import DenoiseConfig, flags
from bsdenoise.images import missing
from bsdenoise.images.masks import Masks
from bsdenoise.network import blindness
from bsdenoise.noise.base import GAIN, SIGMA
from bsdenoise.parallel import in_order
from bsdenoise.pipeline import file_plan, local_files, served_files
from bsdenoise.pipeline.adapting import Adapting
from bsdenoise.pipeline.denoising_model import Model
from bsdenoise.pipeline.file_task import Task, Writes, surveyed

SURVEYORS = 4  # threads that read headers, which is mostly waiting for the disk
LOCAL_FLAGS = ("adapt", "tta", "blind_spot", "precision", "tile", "overlap")  # what a server decides by itself
_KINDS = {3: "RGB images", 1: "images that are not RGB"}


class Loader(Protocol):
    """Where models come from. `bsdenoise.cli.models` is another one, which keeps libraries from chattering."""

    def load_denoiser(self, model: str | Path) -> Any:
        """Load the `Denoiser` that is meant by a file, a run folder, or the name of a preset."""

    def load_preset(self, name: str) -> Any:
        """Load the `Denoiser` of a preset, whatever else has that name."""

    def connect(self, url: str) -> Any:
        """Connect to a served model, which has the face of a `Denoiser`."""


class Watcher:
    """Told of what happens. This one says nothing; whoever shows something overrides what it shows.

    All but `advance` is called in the thread that denoises.
    """

    def status(self, text: str) -> contextlib.AbstractContextManager[Any]:
        """Enclose something that takes its time, such as "reading headers"."""
        return contextlib.nullcontext()

    def note(self, line: str) -> None:
        """Tell whatever a user should know of the whole work."""

    def adapting(self, text: str) -> contextlib.AbstractContextManager[Callable[[float], object]]:
        """Enclose an adaptation; gives who is told how much of it is done, from 0 to 1."""
        return contextlib.nullcontext(lambda share: None)

    def at_work(self, tasks: Sequence[Task]) -> contextlib.AbstractContextManager[Any]:
        """Enclose the denoising of files."""
        return contextlib.nullcontext()

    def advance(self, task: Task, pixels: float) -> None:
        """Count pixels of a file that are denoised; in any thread."""

    def end(self, task: Task) -> None:
        """Tell that a file is written, or failed with its `error`."""


@dataclass(frozen=True)
class DenoisedFile:
    """What became of one file.

    Attributes:
        source: The noisy file.
        target: The denoised one.
        std_target: The file of its uncertainty, if that was asked for.
        sigmas: σ of each image where it was the model's own, in the units of the file; empty for other noise.
        noise: Noise parameters of each image where they were the model's own, by name, in the units of the file.
        notes: What there is to know of it, a line each.
        error: Why it could not be denoised; `None` if it was.
    """

    source: Path
    target: Path
    std_target: Path | None
    sigmas: tuple[float, ...]
    noise: tuple[dict[str, float], ...]
    notes: tuple[str, ...]
    error: BaseException | None


def denoise_files(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    model: Any = None,
    sigma: float | str | None = None,
    noise: str | None = None,
    std: bool = False,
    axes: str | None = None,
    no_data: float | str | None = None,
    mask: str | Path | None = None,
    tta: Literal[1, 2, 4, 8] = 1,
    adapt: Literal["each", "all"] | None = None,
    adapt_steps: int | None = None,
    adapt_seconds: float | None = None,
    adapt_seed: int = 0,
    blind_spot: int | str | tuple[int, int] | None = None,
    precision: Literal["float32", "bfloat16"] | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    overwrite: bool = False,
    report: Callable[[DenoisedFile], object] = lambda file: None,
    say: Callable[[str], object] = lambda line: None,
) -> list[DenoisedFile]:
    """Denoise image files, folders and globs, as `bsdenoise denoise` does.

    One bad file does not stop the others: its `error` says what is wrong.

    Args:
        inputs: Image files, folders (searched recursively) or globs; of a Zarr store also an image in it.
        out: Folder for the denoised images, which keeps the structure of an input folder; for one input file also the
            name of a file. `None` writes denoised-NAME beside each input file.
        model: A `Denoiser`, a `.keras` file, a run folder, the name of a preset, or a served model as
            `bsdenoise.client.connect` gives it. `None` takes the presets for noise of unknown strength.
        sigma: Noise standard deviation in the files' own units, or as text such as "25/255". `None` takes the model's
            own, estimated for each image if it was trained on a range.
        noise: Noise SPEC instead of `sigma`, such as "poisson-gaussian:gain=8.9,sigma=3,pedestal=6.5" in the files' own
            units. `None` finds out whether noise grows with the signal.
        std: Whether the posterior standard deviation over that of the noise is written too, to NAME-std.
        axes: Letters of the axes of arrays without names, such as "TZYX".
        no_data: Value of pixels that hold no measurement, in the files' own units; `None` takes what files declare.
        mask: A mask image for all inputs, or a folder with masks under their names.
        tta: Number of copies of each image that are denoised and averaged (test-time augmentation).
        adapt: Whether the model first goes on learning from the noisy files themselves, as `Denoiser.adapt` does:
            "each" from each file by itself, "all" from all of them together, up to 32 images. `None` for neither.
        adapt_steps: Number of steps of that; `None` for 64, or for as many as there is time for.
        adapt_seconds: Time for the steps; `None` for as long as they take.
        adapt_seed: Of what is random in it.
        blind_spot: Another blind spot for the network, as for `Denoiser.with_blind_spot`; "auto" shrinks that of the
            model to what the noise of each file needs; `None` for that of the model.
        precision: Arithmetic of the network's body; `None` for that of the model.
        tile: Largest side of tiles in pixels; `None` for as large as memory allows.
        overlap: Context in pixels that a tile has on every inner side; `None` for the reach of the network.
        overwrite: Whether existing files are replaced.
        report: Called with each file as soon as it is done.
        say: Called with a line on whatever there is to know of the whole work.

    Returns:
        One entry per input file, in their order.

    Raises:
        ValueError: If nothing can be done at all: no input, clashing outputs, no model, or one that cannot do what is
            asked for.
        ClientError: If a server does not answer or has no such model.

    Example:
        >>> results = bsdenoise.denoise_files("scans", "denoised", sigma=25)  # doctest: +SKIP
        >>> [result.source for result in results if result.error is not None]  # doctest: +SKIP
        []
    """
    is_named = isinstance(model, (str, Path))
    config = DenoiseConfig(
        inputs=tuple(map(str, [inputs] if isinstance(inputs, (str, Path)) else inputs)),
        out=None if out is None else Path(out),
        model=Path(model) if is_named else None,
        axes=axes,
        sigma=None if sigma is None else str(sigma),
        noise=noise,
        std=std,
        no_data=None if no_data is None else str(no_data),
        mask=None if mask is None else str(mask),
        tta=tta,
        adapt=adapt,
        adapt_steps=adapt_steps,
        adapt_seconds=adapt_seconds,
        adapt_seed=adapt_seed,
        blind_spot=blind_spot
        if blind_spot in (None, blindness.AUTO)
        else blindness.in_words(blindness.size_of(blind_spot)),
        precision=precision,
        tile=tile,
        overlap=overlap,
        overwrite=overwrite,
    )
    watcher = _Reporter(report, say)
    for _ in denoised(config, watcher, given=None if is_named else model):
        pass
    return watcher.in_order()


def denoised(
    config: DenoiseConfig,
    watcher: Watcher,
    loader: Loader | None = None,
    given: Any = None,
    tells_noise: bool = True,
) -> Iterator[Task]:
    """Denoise all files of a configuration.

    Args:
        config: What to denoise, how, and where to.
        watcher: Told of what happens.
        loader: Where models come from.
        given: A `Denoiser` or a `Client` instead of the model that `config` names.
        tells_noise: As for `Model`.

    Yields:
        The files in their order, written, or with their `error`.

    Raises:
        ValueError: If nothing can be done at all.
        ClientError: If the server does not answer or has no such model.
    """
    loader = _Library() if loader is None else loader
    _check_flags(config)
    with watcher.status("looking for images"):
        jobs = file_plan.plan(
            config.inputs,
            config.out,
            std=config.std,
            overwrite=config.overwrite,
            axes=config.axes,
            no_data=missing.parse_no_data(config.no_data),
            masks=None if config.mask is None else Masks(config.mask),
            say=watcher.note,
        )
    if config.mask is not None and not any(job.mask for job in jobs):
        raise ValueError(f"{config.mask}: holds no mask under the name of an input, such as {jobs[0].source.name}.")
    if given is None and config.server is not None:
        given = loader.connect(config.server)
    elif given is None and config.model is not None:
        given = loader.load_denoiser(config.model)
    named = None if given is None else _checked(given, config, watcher, tells_noise)
    with watcher.status("reading headers"):
        tasks = [future.result() for _, future in in_order(surveyed, jobs, SURVEYORS)]
    groups = [(named, tasks)] if named is not None else _by_default(config, tasks, watcher, loader)
    work: Iterator[tuple[Model, list[Task]]] = iter(groups)
    if config.adapt is not None:
        adapting = [(Adapting(model, config, watcher.adapting, watcher.note), its) for model, its in groups]
        work = (group for one, its_tasks in adapting for group in one.groups(its_tasks))
    is_served = named is not None and named.is_served
    writes = Writes(config.concurrency if is_served else local_files.WRITERS)
    with watcher.at_work(tasks), writes.ended_with():
        for model, its_tasks in work:
            for task in (
                served_files.run(its_tasks, model, config.concurrency, watcher.advance, writes)
                if is_served
                else local_files.Local(model, watcher.advance, writes).run(its_tasks)
            ):
                task.is_noise_estimated = model.estimates_noise
                watcher.end(task)
                yield task


class _Library:
    """Models as the library itself loads them."""

    def connect(self, url: str) -> Any:
        raise ValueError(f"{url}: connect to it first, and give the client as the model.")

    def load_denoiser(self, model: str | Path) -> Any:
        from bsdenoise import loading

        return loading.load(model)

    def load_preset(self, name: str) -> Any:
        from bsdenoise.denoiser import Denoiser

        return Denoiser.from_preset(name)


class _Reporter(Watcher):
    """Keeps what became of each file."""

    def __init__(self, report: Callable[[DenoisedFile], object], say: Callable[[str], object]):
        self.files: list[DenoisedFile] = []
        self._report = report
        self._say = say
        self._places: dict[tuple[Path, Path], int] = {}

    def in_order(self) -> list[DenoisedFile]:
        """Return the files in the order of the inputs; of two presets, the files of one are done before the other's."""
        return sorted(self.files, key=lambda file: self._places[file.source, file.target])

    def at_work(self, tasks: Sequence[Task]) -> contextlib.AbstractContextManager[Any]:
        self._places = {(task.job.source, task.job.target): place for place, task in enumerate(tasks)}
        return super().at_work(tasks)

    def note(self, line: str) -> None:
        self._say(line)

    def end(self, task: Task) -> None:
        noise = tuple(task.in_its_units(task.thetas))
        is_white = all(SIGMA in found and not found.get(GAIN) for found in noise)
        sigmas = tuple(found[SIGMA] for found in noise) if is_white else ()
        job = task.job
        self.files.append(
            DenoisedFile(job.source, job.target, job.std_target, sigmas, noise, tuple(task.lines), task.error)
        )
        self._report(self.files[-1])


def _check_flags(config: DenoiseConfig) -> None:
    """Refuse flags that are out of range, or do not go together."""
    flags.check(config)
    if config.sigma is not None and config.noise is not None:
        raise ValueError("--sigma is for white noise, --noise for other kinds: give one of them.")
    if config.model is not None and config.server is not None:
        raise ValueError("--model and --server exclude each other.")
    if config.blind_spot not in (None, blindness.AUTO):
        blindness.of_flag(config.blind_spot)
    if config.adapt is not None and config.blind_spot == blindness.AUTO:
        raise ValueError("--adapt trains one network: with it, give --blind-spot a size instead of auto.")
    if config.adapt is None and (config.adapt_steps, config.adapt_seconds) != (None, None):
        raise ValueError("--adapt-steps and --adapt-seconds are for --adapt each and --adapt all.")
    if config.server is None:
        return
    default = DenoiseConfig(inputs=(), out=config.out)
    for flag in LOCAL_FLAGS:
        value, name = getattr(config, flag), flag.replace("_", "-")
        if value != getattr(default, flag):
            raise ValueError(
                f"--{name} needs a model here: what a server computes was fixed when its model was exported. "
                f"Received: --{name} {value} with --server {config.server}."
            )


def _by_default(
    config: DenoiseConfig, tasks: list[Task], watcher: Watcher, loader: Loader
) -> list[tuple[Model, list[Task]]]:
    """Load the presets that files of these kinds need where no model is named; give each with its files."""
    readable = [task for task in tasks if task.shape is not None] or tasks
    groups: dict[int, list[Task]] = {}
    for task in tasks:
        alike = task if task.shape is not None else readable[0]  # it will fail, with whatever model
        # The preset for RGB, else the one that takes each channel by itself.
        channels = alike.joint_channels if alike.joint_channels in presets.DEFAULTS else 1
        groups.setdefault(channels, []).append(task)
    models = []
    for channels in sorted(groups):
        name = presets.DEFAULTS[channels]
        watcher.note(f"no --model: preset {name} for {_KINDS[channels]}")
        models.append((_checked(loader.load_preset(name), config, watcher), groups[channels]))
    return models


def _checked(denoiser: Any, config: DenoiseConfig, watcher: Watcher, tells_noise: bool = True) -> Model:
    """Check that a model can do what is asked for."""
    if config.blind_spot not in (None, blindness.AUTO):
        denoiser = denoiser.with_blind_spot(blindness.of_flag(config.blind_spot))
    if config.precision is not None:
        denoiser = denoiser.in_precision(config.precision)
    # Whoever does not say that noise is white may have noise that grows with the signal. Of that a server tells no
    # posterior.
    is_told = config.std and hasattr(denoiser, "description")
    if config.sigma is None and not is_told and getattr(denoiser, "can_be_stabilized", False):
        denoiser = denoiser.stabilized()
    model = Model(denoiser, config, watcher.note, tells_noise)
    model.check()
    return model
