"""The command lines that fit what was found."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from bsdenoise.config import InspectConfig
from bsdenoise.inspection.records import Collection
from bsdenoise.noise import verdicts

MOST_NAMED = 4  # inputs that a command line repeats; of more it names a glob or their folder


def recommended(config: InspectConfig, collection: Collection | None) -> dict[str, str | None]:
    """Recommend command lines for what was found.

    Args:
        config: What was looked at.
        collection: What was found; `None` if nothing could be read.

    Returns:
        "denoise" and "train", `None` where there is none, and "advice", why so.
    """
    if collection is None:
        return {"denoise": None, "train": None, "advice": None}
    several = len(config.inputs) > 1 or Path(config.inputs[0]).is_dir() or not Path(config.inputs[0]).exists()
    options = [f"--axes {shlex.quote(config.axes)}"] if config.axes else []
    options += [f"--no-data={shlex.quote(config.no_data)}"] if config.no_data else []
    options += [f"--mask {shlex.quote(config.mask)}"] if config.mask else []
    names = _named(config.inputs)
    denoise = " ".join(["bsdenoise denoise", *names, *options, *(["--out denoised"] if several else [])])
    noise, advice = _noise(collection), _advice(collection)
    if len(names) > 1:
        names = [shlex.quote(_folder(config.inputs))]
    train = None if noise is None else " ".join(["bsdenoise train", *names, *options, "--out run --noise", noise])
    return {"denoise": denoise, "train": train, "advice": advice}


def noise_spec(collection: Collection) -> str | None:
    """Write the noise of images as `--noise` of a training takes it, in the files' own units.

    Args:
        collection: What was found of the images.

    Returns:
        The SPEC: of detectors gain, σ and pedestal, else σ. `None` where there is no noise, or it cannot be told.
    """
    is_told = collection.verdict not in (verdicts.NONE, verdicts.UNCLEAR)
    if not is_told or not collection.have_one_unit or collection.sigma is None:
        return None
    if collection.verdict == verdicts.SIGNAL_DEPENDENT and collection.gain is not None and collection.gain.value > 0:
        parts = [("gain", collection.gain), ("sigma", collection.at_black), ("pedestal", collection.pedestal)]
        told = ",".join(f"{name}={one.value:.4g}" for name, one in parts if one is not None)
        return f"poisson-gaussian:{told}"
    return f"gaussian:{collection.sigma.value:.4g}" if collection.sigma.value > 0 else None


def _noise(collection: Collection) -> str | None:
    """Return what follows `--noise` for training, if there is anything."""
    if collection.have_one_unit and collection.verdict == verdicts.NONE:
        return "gaussian:5-50/255 --corrupt fresh"
    spec = noise_spec(collection)
    if spec is None or collection.verdict != verdicts.CORRELATED:
        return spec
    if collection.correlation is None:
        return None
    return f"{spec} --blind-spot {'x'.join(map(str, verdicts.blind_spot(collection.verdict, collection.correlation)))}"


def _advice(collection: Collection) -> str:
    """Say why these commands, and what else there is to do."""
    by_itself = "denoise finds the noise of each image by itself"
    if not collection.have_one_unit:
        return f"{by_itself}; to train, take files of one bit depth"
    if collection.verdict == verdicts.CORRELATED:
        return (
            "denoise makes such noise white first, which a short training with a larger blind spot does not reach; "
            "unprocessed images, or binned ones, train better"
        )
    if collection.verdict == verdicts.NONE:
        return "there is little to denoise; clean images train with noise added"
    if collection.verdict == verdicts.UNCLEAR:
        return f"{by_itself}; how strong it is for training, a flat part of an image would tell"
    return by_itself


def _named(inputs: Sequence[str]) -> list[str]:
    """Name inputs as a command line does; of many, a glob or their folder."""
    if len(inputs) <= MOST_NAMED:
        return [shlex.quote(one) for one in inputs]
    return [shlex.quote(_folder(inputs))]


def _folder(inputs: Sequence[str]) -> str:
    """Name many inputs at once: by a glob if they differ in their stems alone, else by the folder of all."""
    paths = [Path(one) for one in inputs]
    parents, suffixes = {path.parent for path in paths}, {path.suffix for path in paths}
    if len(parents) == len(suffixes) == 1 and suffixes != {""}:
        return str(parents.pop() / f"*{suffixes.pop()}")
    return os.path.commonpath([os.path.abspath(one) for one in inputs])
