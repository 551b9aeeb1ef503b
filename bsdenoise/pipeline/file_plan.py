"""Which file becomes which: inputs and outputs of a command, with every clash found before any work is done."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsdenoise import images
from bsdenoise.images import filled_files, results
from bsdenoise.images.masks import Masks

NUMBER_SUFFIXES = (".npy", ".tif", ".tiff", ".zarr")  # of formats that hold the uncertainty as numbers
PICTURE_SUFFIX = ".png"
STORE_SUFFIX = ".zarr"  # of the stores that are written


@dataclass(frozen=True)
class Job:
    """One input file (or Zarr store), its output, and where asked for the file for its uncertainty."""

    source: Path
    target: Path
    std_target: Path | None = None
    axes: str | None = None
    no_data: float | None = None
    mask: Path | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[filled_files.FilledFile]:
        """Open the input, as `images.opened` does, with the axes that were named for it; gaps in it are filled."""
        with (
            images.opened(self.source, self.axes, self.no_data) as file,
            filled_files.filled(file, self.mask) as filled,
        ):
            yield filled

    @property
    def targets(self) -> tuple[Path, ...]:
        """All files that the job writes."""
        return (self.target,) if self.std_target is None else (self.target, self.std_target)

    @property
    def is_beside(self) -> bool:
        """Whether the names alone tell that the targets are results."""
        return self.target.parent == self.source.parent and self.target.name == f"{results.DENOISED}{self.source.name}"


def plan(
    inputs: Sequence[str],
    out: Path | None,
    std: bool = False,
    overwrite: bool = False,
    axes: str | None = None,
    no_data: float | None = None,
    masks: Masks | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> list[Job]:
    """Decide which files to read and which to write.

    A folder keeps its structure below `out`, and so does a glob from its first wildcard on. Files below `out` are not
    taken as inputs of a folder that holds `out`: they are what an earlier run wrote. Nor are results of earlier runs
    taken beside other images, also where a shell has made a list of files out of a glob. A folder that ends in .zarr
    is one image, like a file; an image in a store gets a store of its own, scan.zarr/0 the name scan-0.zarr.

    Args:
        inputs: Files, folders and globs.
        out: Folder for the outputs; a single input file may also name the output file. `None` for denoised-NAME
            beside each input file.
        std: Whether the uncertainty is written too.
        overwrite: Whether existing files may be replaced.
        axes: Letters of the axes of `.npy` files and plain Zarr arrays; `None` goes by their names and shapes.
        no_data: Value of pixels that hold no measurement, as for `images.opened`.
        masks: The masks of the inputs, by their places below the folder or glob that names them, or their names alone.
        say: Called with a line on each sort of files that are left out.

    Returns:
        One job per input file, each file once.

    Raises:
        ValueError: If an input is missing, two outputs clash, or a file would be replaced without `overwrite`.
    """
    if not inputs:
        raise ValueError("Expected at least one image file, folder or glob.")
    images.check_axes(axes)
    inputs = without_results(inputs, say)
    if out is None:
        pairs = [(file, _beside(file)) for source in inputs for file in _named(source)]
    elif len(inputs) == 1 and _is_single(inputs[0]):
        (file,) = images.find(inputs[0])
        pairs = [(file, _single_target(file, out))]
    else:
        if out.is_file() or images.is_supported(out):
            for name in inputs:
                images.find(name)  # what is not there is the likelier mistake
            raise ValueError(f"{out}: --out must be a folder where a folder, a glob or several files are denoised.")
        pairs = [(file, out / relative) for source in inputs for file, relative in _files(source, out, say)]
    if out is not None:
        place = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
        if not place.is_dir() and place != out:
            raise ValueError(f"{out}: cannot be made, because {place} is a file.")
    jobs: dict[tuple[Path, Path], Job] = {}
    for source, target in pairs:
        mask = None if masks is None else _mask(masks, source, target, out)
        job = Job(source, target, _std_target(target) if std else None, axes, no_data, mask)
        jobs.setdefault((_key(source), _key(target)), job)
    _check(list(jobs.values()), overwrite)
    return list(jobs.values())


def _mask(masks: Masks, source: Path, target: Path, out: Path | None) -> Path | None:
    """Find the mask of an input by where its output stands below `out`, which is where it stood, or by its name."""
    below = target.relative_to(out).as_posix() if out is not None and target.is_relative_to(out) else ""
    return masks.path(below) or masks.path(_name(source))


def without_results(inputs: Sequence[str], say: Callable[[str], object]) -> Sequence[str]:
    """Leave results out where other files are named too."""
    places = {source: _place(Path(source)) for source in inputs if _is_file_or_store(Path(source))}
    its_results = results.among(set(places.values())) if len(places) > 1 else set()
    if not its_results or its_results.issuperset(places.values()):
        return inputs
    for line in images.LeftOut(len(its_results)).notes("the named files"):
        say(line)
    return [source for source in inputs if places.get(source) not in its_results]


def _is_file_or_store(path: Path) -> bool:
    return path.is_file() or images.is_store(path)


def _is_single(source: str) -> bool:
    """Tell whether an input is one file, or a store of one image."""
    path = Path(source)
    return path.is_file() or (images.is_store(path) and len(images.find(path)) == 1)


def _named(source: str) -> list[Path]:
    """Return the file that an input names, or the images of the store."""
    path = Path(source)
    if not _is_file_or_store(path) and (path.is_dir() or images.find(source)):
        raise ValueError(f"{source}: a folder or a glob needs --out, the folder for the results.")
    return images.find(source)


def _beside(file: Path) -> Path:
    """Name the result of a file beside it, or beside the store that it is in, where there is no `--out`."""
    return _place(file).with_name(f"{results.DENOISED}{_name(file)}")


def _place(source: Path) -> Path:
    """Return the file, or the whole store that an input is in."""
    return images.store_root(source) or source


def _name(source: Path) -> str:
    """Name the result of an input like it; that of an image in a store by the store and its path there."""
    root = images.store_root(source)
    if root is None or (root == source and source.suffix.lower() == STORE_SUFFIX):
        return source.name
    stem = root.name[: -len(STORE_SUFFIX)] if root.suffix.lower() == STORE_SUFFIX else root.name
    # Both without links and "..", so that the one is below the other.
    inner = Path(os.path.abspath(source)).relative_to(os.path.abspath(root)).parts
    return "-".join((stem, *inner)) + STORE_SUFFIX


def _files(source: str, out: Path, say: Callable[[str], object]) -> Iterator[tuple[Path, Path]]:
    """Return the files of one input, and where each stands relative to that input."""
    path = Path(source)
    found = images.find(source, say)
    base = images.base_of(source)
    if path.is_dir() and _key(path) in _key(out).parents:
        kept = [file for file in found if _key(out) not in _key(file).parents]
        if not kept:
            raise ValueError(f"{source}: no image found there but those in {out}, the folder for the results.")
        if len(kept) < len(found):
            say(f"{source}: left out {len(found) - len(kept)} of its images: they are in {out}, where results go")
        found = kept
    for file in found:
        place = _place(file).parent
        below = place.relative_to(base) if place.is_relative_to(base) else Path()
        yield file, below / _name(file)


def _single_target(source: Path, out: Path) -> Path:
    """Tell whether `out` names a file or a folder for it."""
    if (out.is_dir() and not images.is_store(out)) or not out.suffix:
        return out / _name(source)
    if not images.is_supported(out):
        expected = ", ".join(images.SUFFIXES)
        raise ValueError(f"{out}: unknown kind of image file. Expected a folder, or a file ending in {expected}.")
    return out


def _std_target(target: Path) -> Path:
    """Name the uncertainty of a target, NAME-std; of a JPEG NAME.jpg-std.png, lest a.jpg and a.png have the same."""
    has_own = target.suffix.lower() in (*NUMBER_SUFFIXES, PICTURE_SUFFIX)
    return target.with_name(results.std_name(target.name, None if has_own else PICTURE_SUFFIX))


def _check(jobs: list[Job], overwrite: bool) -> None:
    """Refuse outputs that meet each other, an input, or a file that exists."""
    sources = {_key(job.source): job.source for job in jobs}
    stores = {_key(_place(job.source)): _place(job.source) for job in jobs}
    writers: dict[Path, Path] = {}
    for job in jobs:
        for target in job.targets:
            key = _key(target)
            if key in writers:
                raise ValueError(f"{writers[key]} and {job.source} would both be written to {target}.")
            writers[key] = job.source
            if key in sources and not (overwrite and key == _key(job.source)):
                advice = "; --overwrite allows it" if key == _key(job.source) else ""
                raise ValueError(f"{target}: the output would replace the input {sources[key]}{advice}.")
            if key in stores.keys() - sources.keys():
                raise ValueError(f"{target}: the output would replace the store {stores[key]}, which holds the input.")
            inside = next((stores[parent] for parent in key.parents if parent in stores), None)
            if inside is not None:
                raise ValueError(f"{target}: the output would be inside the input {inside}.")
            if target.is_dir() and target.suffix.lower() != STORE_SUFFIX:
                raise ValueError(f"{target}: is a folder; a file of that name would be written.")
            if target.is_dir() and not images.has_metadata(target):
                raise ValueError(f"{target}: is a folder that is no Zarr store; it would be replaced by one.")
            if target.exists() and not overwrite:
                raise ValueError(f"{target}: exists already; --overwrite replaces it.")


def _key(path: Path) -> Path:
    """Return one name for every way of writing a path, links resolved."""
    return Path(os.path.realpath(path))
