"""From flags to training images: checks, a look at the images, their noise and range, and what to say about them."""

import dataclasses
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tqdm import tqdm

import bsdenoise
from bsdenoise import methods
from bsdenoise import noise as noise_models
from bsdenoise.config import DataConfig, NetworkConfig, TrainConfig, flags
from bsdenoise.data.manifest import manifest
from bsdenoise.data.sources import Selection, Source, check_partners, open_source, select
from bsdenoise.data.survey import Sample, look_at
from bsdenoise.data.tfds_source import PREFIX as TFDS_PREFIX
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.images import missing
from bsdenoise.images.masks import Masks
from bsdenoise.methods import Method, NoiseToVoid
from bsdenoise.methods.masking import Masking
from bsdenoise.network import blindness
from bsdenoise.noise import NoiseModel
from bsdenoise.training import noise_words, own_network, unknown_noise
from bsdenoise.training.distribution import Place

_MASKING_FLAGS = ("n2v_fraction", "n2v_radius", "n2v_center")
MIN_HELD_OUT_RATIO = 5  # at most one image in so many is held out


def check(config: TrainConfig) -> None:
    """Look at the flags before anything is made.

    Raises:
        ValueError: If one is out of range, or some do not go together.
    """
    flags.check(config)
    _check_network(config)
    unknown_noise.check(config)
    _check_blind_spot(config, method_of(config))
    _check_sides(config)


def _check_network(config: NetworkConfig) -> None:
    """Look for a network of one's own, which has its own sizes."""
    if config.grow and config.init is None:
        raise ValueError("--grow makes the network of --init wider; there is no --init.")
    if config.network is None:
        return
    own_network.find(config.network)
    for name in ("width", "depth", "grow"):
        if getattr(config, name):
            raise ValueError(f"--{name} is for the networks of bsdenoise, not for one's own (--network).")


def _check_blind_spot(config: NetworkConfig, method: Method) -> None:
    """Refuse a blind spot that cannot be read, or that the method's network does not have."""
    if config.blind_spot is None:
        return
    if config.blind_spot != blindness.AUTO:
        blindness.of_flag(config.blind_spot)
    if not method.is_blind:
        raise ValueError(
            f"--blind-spot is for methods whose network has one, such as full. Received: --method {method.name}."
        )


def _check_sides(config: DataConfig) -> None:
    """Refuse sizes that no image can have."""
    least = max(config.crop, config.min_side or 1)
    if config.max_side is not None and config.max_side < least:
        raise ValueError(
            f"--max-side must be at least the side of a crop (--crop {config.crop}) and --min-side. "
            f"Received: {config.max_side}."
        )


def method_of(config: TrainConfig) -> Method:
    """Return the method, with its own settings.

    Raises:
        ValueError: If there is none of that name, a setting is out of range, or it needs what the flags do not give.
    """
    if config.method not in methods.names():
        raise ValueError(
            f"--method must be one of {', '.join(methods.names())}, or a method of one's own that is registered "
            f"(docs/methods.md). Received: {config.method}."
        )
    method = methods.get(config.method)
    if method.needs and bool(config.corrupt) == bool(config.targets):
        raise ValueError(
            f"--method {method.name} needs {method.needs}: either made from clean images by --corrupt fresh or fixed, "
            f"or given by --targets. Received: {'both' if config.targets else 'neither'}."
        )
    if config.targets and not method.needs:
        raise ValueError(f"--method {method.name} compares images with themselves: it takes no --targets.")
    foreign = [name for name in _MASKING_FLAGS if getattr(config, name) != getattr(TrainConfig, name)]
    if foreign and not isinstance(method, NoiseToVoid):
        raise ValueError(f"--{foreign[0].replace('_', '-')} is for --method n2v. Received: --method {method.name}.")
    if isinstance(method, NoiseToVoid):
        masking = Masking(config.n2v_fraction, config.n2v_radius, config.n2v_center)
        return dataclasses.replace(method, masking=masking)  # of whatever subclass it is
    return method


def open_data(
    config: TrainConfig,
    earlier: dict[str, Any] | None = None,
    say: Callable[[str], None] = tqdm.write,
    place: Place | None = None,
) -> tuple[TrainingImages, Sample]:
    """Open the source, look at some of its images, and say what was found and what seems wrong.

    Where flags leave noise or blind spot to the images, what these told is the `measured` of the training images.

    Args:
        config: The run's flags.
        earlier: The facts of the run that goes on. Its offset, scale and noise hold: a network knows no others. A new
            fit would give the same only if nobody had touched the files.
        say: Called with each line of what was found. What training meets later, an image that cannot be read, is
            always written to the terminal.
        place: This process' place among workers that all call it; `None` if it is alone.

    Raises:
        ValueError: If the source or the noise SPEC cannot be used, or they do not fit each other.
    """
    source, targets = _open_selected(config, say)
    relative = config.noise is not None and noise_models.is_relative(config.noise)
    masks = None if config.mask is None else Masks(config.mask)
    sample = look_at(source, relative, masks)
    found = unknown_noise.find(config, method_of(config), source, sample.channels, masks, earlier, place)
    if found is not None:
        found.tell(config, bool(earlier and earlier.get("measured")), say)
        config = found.applied(config)
    assert config.noise is not None  # told or found
    offset, scale = sample.offset, sample.scale
    if earlier is not None:
        offset, scale = float(earlier.get("offset", 0.0)), float(earlier.get("scale", 1.0))
    noise = _normalised_noise(config.noise, sample, offset, scale)
    channels = sample.channels if config.channels is None else config.channels
    if not config.corrupt and channels == 1 and sample.channels == 3:
        raise ValueError(
            "--channels 1 takes the luminance, and the luminance of noisy colours has less noise than --noise says: "
            "convert the images first and declare the noise that they have then."
        )
    if not config.corrupt and not noise.is_known:
        raise ValueError(f"--noise {config.noise} draws sigma from a range, which needs --corrupt fresh or fixed.")
    for note, name in sample.notes.items():
        say(f"note: {name}: {note}; nothing more is said of others like it")
    data = TrainingImages(
        source,
        method_of(config),
        channels,
        noise,
        config.corrupt,
        config.crop,
        full_scale=None if relative else sample.full_scale,
        seed=config.seed,
        augment=config.augment,
        num_held_out=min(config.validation_images, len(source) // MIN_HELD_OUT_RATIO),
        targets=targets,
        report=_warn,
        offset=offset,
        scale=scale,
        fractional=sample.fractional,
        remark=_note,
        remarked=set(sample.notes),
        masks=masks,
        measured=None if found is None else dataclasses.asdict(found),
    )
    _announce_ignored(config, data, sample, say)
    _announce_range(data, sample, say)
    if found is None or found.noise is None:
        noise_words.say_what_is_wrong(config, data, sample, say)
    return data, sample


def facts(data: TrainingImages, sample: Sample) -> dict[str, Any]:
    """Say what was found out about the data, for config.json.

    `manifest` and `targets_manifest` tell whether another run saw the same images (docs/big-data.md says how surely).
    `offset`, `scale`, `noise` and `estimated_sigma` are pixel values: fractions of full scale where `fractional`.
    `measured` is what flags had left to the images, `None` if nothing.
    """
    return {
        "num_images": len(data.source),
        "manifest": manifest(data.source),
        "targets_manifest": manifest(data.targets) if data.targets is not None else None,
        "num_held_out": len(data.held_out),
        "channels": data.channels,
        "full_scale": sample.full_scale,
        "fractional": data.fractional,
        "offset": data.offset,
        "scale": data.scale,
        "noise": {
            parameter.name: [parameter.restored(end, data.offset, data.scale) for end in ends]
            for parameter, *ends in zip(data.noise.parameters, data.noise.least, data.noise.greatest, strict=True)
        },
        "estimated_sigma": sample.median_sigma,
        "measured": data.measured,
    }


def warn_of_changes(earlier: dict[str, Any] | None, now: dict[str, Any], say: Callable[[str], None]) -> None:
    """Say so if a run that goes on finds other images than it began with.

    Args:
        earlier: The facts of the run when it began; `None` if it begins now.
        now: Those of today.
        say: Called with the line.
    """
    if earlier is None:
        return
    before, count = earlier.get("num_images", now["num_images"]), now["num_images"]
    if before != count:
        say(f"warning: SOURCE had {before} images when this run began and has {count} now")
        return
    for name, words in (("manifest", "SOURCE"), ("targets_manifest", "--targets")):
        if earlier.get(name, now[name]) != now[name]:
            say(f"warning: the images of {words} are not those that this run began with: other names or other files")


def provenance(
    config: TrainConfig,
    data: TrainingImages,
    step: int,
    score: dict[str, float | None],
    started_from: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Say how a model came about, for whoever is given it: no paths, and of the source only a public name.

    Args:
        config: The run's flags, with what the images told in the place of what was left to them.
        data: The training images.
        step: The step of its weights.
        score: Its estimated PSNR in validation in dB, by the name of the estimate; `None` if that is withheld.
        started_from: How the weights that it started from had been trained; `None` if they were random.
    """
    return {
        "method": config.method,
        "source": config.source if config.source.startswith(TFDS_PREFIX) else None,
        "images": len(data.training),
        "noise": config.noise,
        "measured": data.measured,
        "corrupt": config.corrupt,
        "pairs": config.targets is not None,
        "crops": step * config.batch,
        "crop": config.crop,
        "optimizer": config.optimizer,
        "started_from": started_from,
        "precision": config.precision,
        "seed": config.seed,
        **{name: None if value is None else round(float(value), 3) for name, value in score.items()},
        "date": datetime.now(UTC).date().isoformat(),
        "package": f"bsdenoise {bsdenoise.__version__}",
    }


def _open_selected(config: DataConfig, say: Callable[[str], None]) -> tuple[Source, Source | None]:
    """Open the source, and what its images are compared with; keeps the images of the wanted sizes."""
    no_data = missing.parse_no_data(config.no_data)

    def opened(name: str) -> Source:
        return open_source(name, config.axes, no_data, say=lambda line: say(f"note: {line}"))

    found = opened(config.source)
    targets = opened(config.targets) if config.targets else None
    if targets is not None:
        check_partners(found, targets)
    source = select(found, config.min_side, config.max_side, lambda line: say(f"warning: {line}"))
    if source is not found:
        say(f"{len(source)} of {len(found)} images have sides within --min-side and --max-side")
    if targets is not None and isinstance(source, Selection):
        targets = Selection(targets, source.indices)
    return source, targets


def _normalised_noise(spec: str, sample: Sample, offset: float, scale: float) -> NoiseModel:
    """Read a noise SPEC in units of `scale`, a pixel value.

    Raises:
        ValueError: If it cannot be read, or the noise is more than `scale`: there would be nothing to see in it.
    """
    full_scale, fractional = sample.full_scale, sample.fractional
    declared = noise_models.read(spec, full_scale)
    rescaled = declared.rescaled(offset, scale)
    for parameter, value, shown in zip(declared.parameters, declared.greatest, rescaled.greatest, strict=True):
        if shown > parameter.high:
            cure = ""
            if not fractional and not noise_models.is_relative(spec):
                cure = " Of floats it is no grey level: of images from 0 to 1, 25 of 255 levels are gaussian:25/255."
            raise ValueError(
                f"--noise {spec} has a {parameter.name} of {value * full_scale:.5g}, and the images span only "
                f"{scale * full_scale:.5g} (from {offset * full_scale:.5g} to {(offset + scale) * full_scale:.5g}), "
                f"both in the files' own units.{cure}"
            )
    return rescaled.made()


def _announce_ignored(config: DataConfig, data: TrainingImages, sample: Sample, say: Callable[[str], None]) -> None:
    """Say how much of the images is ignored, and how many have a mask.

    Raises:
        ValueError: If there are masks and no image has one: their names do not fit.
    """
    if sample.ignored:
        say(f"{100 * sample.ignored:.3g} % of the pixels hold no measurement: they are left out")
    elif config.no_data is not None and not math.isnan(float(config.no_data)):
        say(f"warning: none of the images that were looked at has a pixel of --no-data {config.no_data}")
    if data.masks is None:
        return
    names = (data.source.short_name(index) for index in range(len(data.source)))
    count = sum(data.masks.path(name) is not None for name in names)
    if not count:
        raise ValueError(
            f"--mask holds no mask under the name of an image. Expected one such as {data.source.short_name(0)}, the "
            "suffix may be another."
        )
    say(f"{count} of {len(data.source)} images have a mask; where it is not zero, they are ignored")


def _announce_range(data: TrainingImages, sample: Sample, say: Callable[[str], None]) -> None:
    """Say in the files' own units what range of intensities was fitted, unless nothing was."""
    if (data.offset, data.scale) == (0.0, 1.0):
        return
    unit = sample.full_scale
    say(
        f"most pixels lie between {data.offset * unit:.5g} and {(data.offset + data.scale) * unit:.5g}, which the "
        f"network sees as 0 and 1; {data.noise.in_words(data.offset * unit, data.scale * unit)} (all in the files' "
        "own units)"
    )


def _warn(line: str) -> None:
    tqdm.write(f"warning: {line}")


def _note(line: str) -> None:
    tqdm.write(f"note: {line}")
