"""Which file becomes which: inputs and outputs of a command, with every clash found before any work is done."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsdenoise import images, results

NUMBER_SUFFIXES = (".npy", ".tif", ".tiff", ".zarr")  # of formats that hold the uncertainty as numbers
PICTURE_SUFFIX = ".png"
STORE_SUFFIX = ".zarr"  # of folders that are one image
STORE_FILES = ("zarr.json", ".zarray", ".zgroup")  # of which each such folder has one: Zarr versions 3 and 2


@dataclass(frozen=True)
class Job:
    """One input file (or Zarr store), its output, and where asked for the file for its uncertainty."""

    source: Path
    target: Path
    std_target: Path | None = None

    @property
    def targets(self) -> tuple[Path, ...]:
        """All files that the job writes."""
        return (self.target,) if self.std_target is None else (self.target, self.std_target)

    @property
    def is_beside(self) -> bool:
        """Whether the names alone tell that the targets are results."""
        return self.target == _beside(self.source)


def plan(
    inputs: Sequence[str],
    out: Path | None,
    std: bool = False,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> list[Job]:
    """Decides which files to read and which to write.

    A folder keeps its structure below `out`, and so does a glob from its first wildcard on. Files below `out` are not
    taken as inputs of a folder that holds `out`: they are what an earlier run wrote. Nor are results of earlier runs
    taken beside other images, also where a shell has made a list of files out of a glob. A folder that ends in .zarr
    is one image, like a file.

    Args:
        inputs: Files, folders and globs.
        out: Folder for the outputs; a single input file may also name the output file. `None` for denoised-NAME
            beside each input file.
        std: Whether the uncertainty is written too.
        overwrite: Whether existing files may be replaced.
        say: Called with a line on each sort of files that are left out.

    Returns:
        One job per input file, each file once.

    Raises:
        ValueError: If an input is missing, two outputs clash, or a file would be replaced without `overwrite`.
    """
    if not inputs:
        raise ValueError("Expected at least one image file, folder or glob.")
    inputs = _without_results(inputs, say)
    if out is None:
        pairs = [(file, _beside(file)) for file in map(_single, inputs)]
    elif len(inputs) == 1 and (os.path.isfile(inputs[0]) or _is_store(Path(inputs[0]))):
        pairs = [(images.find(inputs[0])[0], _single_target(Path(inputs[0]), out))]
    else:
        if out.is_file() or images.is_supported(out):
            raise ValueError(f"{out}: --out must be a folder where a folder, a glob or several files are denoised.")
        pairs = [(file, out / relative) for source in inputs for file, relative in _files(source, out, say)]
    if out is not None:
        place = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
        if not place.is_dir() and place != out:
            raise ValueError(f"{out}: cannot be made, because {place} is a file.")
    jobs: dict[tuple[Path, Path], Job] = {}
    for source, target in pairs:
        jobs.setdefault((_key(source), _key(target)), Job(source, target, _std_target(target) if std else None))
    _check(list(jobs.values()), overwrite)
    return list(jobs.values())


def _without_results(inputs: Sequence[str], say: Callable[[str], object]) -> Sequence[str]:
    """Leaves results out where other files are named too."""
    files = [Path(source) for source in inputs if os.path.isfile(source) or _is_store(Path(source))]
    its_results = results.among(files) if len(files) > 1 else set()
    if not its_results or len(its_results) == len(set(files)):
        return inputs
    for line in images.LeftOut(len(its_results)).notes("the named files"):
        say(line)
    return [source for source in inputs if Path(source) not in its_results]


def _single(source: str) -> Path:
    """Gives the one file that an input names."""
    path = Path(source)
    if not (path.is_file() or _is_store(path)) and (path.is_dir() or images.find(source)):
        raise ValueError(f"{source}: a folder or a glob needs --out, the folder for the results.")
    (file,) = images.find(source)
    return file


def _beside(file: Path) -> Path:
    """Names the result of a file beside it, where there is no `--out`."""
    return file.with_name(f"{results.DENOISED}{file.name}")


def _files(source: str, out: Path, say: Callable[[str], object]) -> Iterator[tuple[Path, Path]]:
    """Gives the files of one input, and where each stands relative to that input."""
    path = Path(source)
    found = images.find(source, say)
    base = path.parent if _is_store(path) else images.base_of(source)
    if path.is_dir() and _key(path) in _key(out).parents:
        kept = [file for file in found if _key(out) not in _key(file).parents]
        if not kept:
            raise ValueError(f"{source}: no image found there but those in {out}, the folder for the results.")
        if len(kept) < len(found):
            say(f"{source}: left out {len(found) - len(kept)} of its images: they are in {out}, where results go")
        found = kept
    for file in found:
        yield file, file.relative_to(base)


def _single_target(source: Path, out: Path) -> Path:
    """Tells whether `out` names a file or a folder for it."""
    if (out.is_dir() and not _is_store(out)) or not out.suffix:
        return out / source.name
    if not images.is_supported(out):
        expected = ", ".join(images.SUFFIXES)
        raise ValueError(f"{out}: unknown kind of image file. Expected a folder, or a file ending in {expected}.")
    return out


def _std_target(target: Path) -> Path:
    """Names the uncertainty of a target, NAME-std; of a JPEG NAME.jpg-std.png, lest a.jpg and a.png have the same."""
    has_own = target.suffix.lower() in (*NUMBER_SUFFIXES, PICTURE_SUFFIX)
    return target.with_name(results.std_name(target.name, None if has_own else PICTURE_SUFFIX))


def _check(jobs: list[Job], overwrite: bool) -> None:
    """Refuses outputs that meet each other, an input, or a file that exists."""
    sources = {_key(job.source): job.source for job in jobs}
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
            inside = next((sources[parent] for parent in key.parents if parent in sources), None)
            if inside is not None:
                raise ValueError(f"{target}: the output would be inside the input {inside}.")
            if target.is_dir() and not _is_store(target):
                raise ValueError(f"{target}: is a folder; a file of that name would be written.")
            if target.is_dir() and not _is_plain_store(target):
                raise ValueError(f"{target}: is a folder that is no Zarr store; it would be replaced by one.")
            if target.exists() and not overwrite:
                raise ValueError(f"{target}: exists already; --overwrite replaces it.")


def _is_store(path: Path) -> bool:
    """Tells from its name whether a folder is one image."""
    return path.suffix.lower() == STORE_SUFFIX and path.is_dir()


def _is_plain_store(path: Path) -> bool:
    """Tells from its files whether a folder holds what its name says, lest another one be lost."""
    return any((path / name).is_file() for name in STORE_FILES)


def _key(path: Path) -> Path:
    """Gives one name to every way of writing a path, links resolved."""
    return Path(os.path.realpath(path))
