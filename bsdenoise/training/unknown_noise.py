"""Noise and blind spot that flags leave to the images: measured on some of them, once for a run.

What is measured, and how, is what `bsdenoise inspect` says of a collection. It is then used as if it had been declared,
and kept among the facts of the run: whoever continues it, and every worker, has the very same numbers.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bsdenoise.config import TrainConfig
from bsdenoise.data.sources import Source
from bsdenoise.data.survey import SAMPLE_SIZE
from bsdenoise.images.masks import Masks
from bsdenoise.inspection import collection, commands, words
from bsdenoise.inspection.channels import MIN_SHARE_OF_RANGE
from bsdenoise.inspection.measuring import Measured, measure_picture
from bsdenoise.inspection.records import Collection, InspectedFile
from bsdenoise.methods import Method
from bsdenoise.network import blindness
from bsdenoise.noise import verdicts
from bsdenoise.noise.spec import UNKNOWN
from bsdenoise.training.distribution import Place

MAX_SPREAD = 1.3  # of the greatest gain or σ over the least; those of equal images differ by some percent


@dataclass(frozen=True)
class Found:
    """What the images told.

    Attributes:
        noise: The noise SPEC; `None` where a flag says it.
        blind_spot: The size that was asked for by auto, such as "3x3"; `None` where it was not.
        needed_blind_spot: The smallest size that hides the neighbours that share noise.
        verdict: One of `bsdenoise.noise.verdicts`.
        in_words: What noise it is, with standard errors.
        spread: How much it differs from image to image, in words; `None` if it does not.
        images: How many told it.
    """

    noise: str | None
    blind_spot: str | None
    needed_blind_spot: str
    verdict: str
    in_words: str
    spread: str | None
    images: int

    def applied(self, config: TrainConfig) -> TrainConfig:
        """Return flags with what was found in the place of what was left to the images."""
        noise, blind_spot = self.noise or config.noise, self.blind_spot or config.blind_spot
        return dataclasses.replace(config, noise=noise, blind_spot=blind_spot)

    def tell(self, config: TrainConfig, is_earlier: bool, say: Callable[[str], None]) -> None:
        """Say it, and what is to be done about it.

        Args:
            config: The run's flags.
            is_earlier: Whether it was found when the run began, which goes on now.
            say: Called with each line.
        """
        pairs = (("--noise", self.noise), ("--blind-spot", self.blind_spot))
        flags = " ".join(f"{flag} {value}" for flag, value in pairs if value is not None)
        when = ", found when this run began" if is_earlier else ""
        say(f"noise of {self.images} images{when}: {self.in_words} (in the files' own units); taken as {flags}")
        if self.noise is not None and self.spread is not None:
            say(
                f"warning: it differs from image to image, {self.spread}, and one is taken for all: where there is "
                "more, the model keeps some. Images that are alike train better by themselves."
            )
        if self.needed_blind_spot != "1x1" and config.blind_spot is None and config.init is None:
            say(
                "warning: neighbouring pixels share that noise, and a blind spot of 1 sees it there: --blind-spot auto "
                f"takes {self.needed_blind_spot} (docs/detector-noise.md)"
            )


def is_unknown(config: TrainConfig) -> bool:
    """Tell whether flags leave the noise to the images."""
    return config.noise is None or config.noise.strip() == UNKNOWN


def check(config: TrainConfig) -> None:
    """Refuse to measure noise that is yet to be added.

    Raises:
        ValueError: If flags ask for that.
    """
    if config.corrupt and is_unknown(config):
        raise ValueError(f"--corrupt {config.corrupt} needs --noise, the noise that is added, such as gaussian:25.")
    if config.corrupt and config.blind_spot == blindness.AUTO:
        raise ValueError(
            f"--blind-spot auto measures noise that the images have, and --corrupt {config.corrupt} adds other noise, "
            "which pixels do not share: leave one of them out."
        )


def known(config: TrainConfig, measured: dict[str, Any] | None) -> TrainConfig:
    """Return flags with what the images told in the place of what was left to them.

    Args:
        config: The run's flags.
        measured: A `Found` as JSON values; `None` if nothing was left to the images.
    """
    return config if measured is None else Found(**measured).applied(config)


def find(
    config: TrainConfig,
    method: Method,
    source: Source,
    channels: int,
    masks: Masks | None = None,
    earlier: dict[str, Any] | None = None,
    place: Place | None = None,
) -> Found | None:
    """Measure what flags leave to the images, unless that was done when the run began.

    Args:
        config: The run's flags.
        method: What is trained.
        source: The images.
        channels: How many channels the images have that are trained on.
        masks: Which of their pixels are to be ignored.
        earlier: The facts of the run that goes on, whose numbers hold; `None` if it begins now.
        place: This process' place among workers that all call it; `None` if it is alone.

    Returns:
        What was found; `None` if flags leave nothing to the images.

    Raises:
        ValueError: If the noise is left to them, the method needs it, and it cannot be told.
    """

    def made() -> str:
        if not is_unknown(config) and config.blind_spot != blindness.AUTO:
            return json.dumps(None)
        if earlier is not None and earlier.get("measured") is not None:
            return json.dumps(earlier["measured"])
        return json.dumps(dataclasses.asdict(_found(config, method, _looked_at(source, channels, masks))))

    # Workers with other flags take part as well: that these differ, they are told next.
    found = json.loads(made() if place is None else place.from_chief(made))
    return None if found is None else Found(**found)


def _looked_at(source: Source, channels: int, masks: Masks | None) -> list[Measured]:
    """Look at some images; those that cannot be used, training meets later."""
    found = []
    for index in np.unique(np.linspace(0, len(source) - 1, SAMPLE_SIZE).astype(int)):
        try:
            picture = source.read(int(index))
            mask = None if masks is None else masks.of(source.short_name(int(index)), picture.shape)
            one = measure_picture(source.name(int(index)), picture, mask)
        except (ValueError, OSError):
            continue
        if len(one.file.channels) == channels:
            found.append(Measured(one.file, one.floors, np.empty(0), np.empty(0)))  # pixels are no longer needed
    return found


def _found(config: TrainConfig, method: Method, images: list[Measured]) -> Found:
    if not images:
        raise ValueError("None of the images tells what noise it has: say it by --noise, such as gaussian:25.")
    whole = collection.together(images)
    size = blindness.in_words(verdicts.blind_spot(whole.verdict, whole.correlation))
    return Found(
        noise=_spec(method, whole, images) if is_unknown(config) else None,
        blind_spot=size if config.blind_spot == blindness.AUTO else None,
        needed_blind_spot=size,
        verdict=whole.verdict,
        in_words=words.of_collection(whole),
        spread=_spread(whole, [one.file for one in images]),
        images=len(images),
    )


def _spread(whole: Collection, files: Sequence[InspectedFile]) -> str | None:
    """Say how far gains or standard deviations of single images are apart, if that is more than estimates are."""
    alike = [file for file in files if file.verdict == whole.verdict]
    if whole.verdict == verdicts.SIGNAL_DEPENDENT:
        name, values = "gain", [float(file.theta[:, 0].max()) for file in alike]
    else:
        name, values = "sigma", [float(np.median([one.sigma.value for one in file.channels])) for file in alike]
    if not values or max(values) <= MAX_SPREAD * min(values):
        return None
    return f"{name} {min(values):.3g} to {max(values):.3g}"


def _spec(method: Method, whole: Collection, images: list[Measured]) -> str:
    """Return the noise SPEC; for methods that use it for no more than a PSNR, an upper bound if need be.

    Raises:
        ValueError: If there is none that can be told, and the method needs it.
    """
    spec = commands.noise_spec(whole)
    if spec is not None:
        return spec
    if not method.has_posterior and whole.sigma is not None:
        clipping = [channel.clipping for one in images for channel in one.file.channels]
        span = max(one.greatest - one.least for one in clipping) or images[0].file.full_scale
        return f"gaussian:{max(whole.sigma.value, span * MIN_SHARE_OF_RANGE):.4g}"
    _, colon, told = words.of_collection(whole).partition(": ")
    if not whole.have_one_unit:
        raise ValueError(
            "The images have different bit depths, so no number tells the noise of all: say it by --noise as a "
            "fraction of full scale, such as gaussian:25/255."
        )
    if whole.verdict == verdicts.UNCLEAR:
        raise ValueError(
            f"What noise {len(images)} images have cannot be told: {told}. Say it by --noise, such as gaussian:25; "
            "bsdenoise inspect looks at each of them."
        )
    raise ValueError(
        f"No noise was found in {len(images)} images{colon}{told}. If they are clean, add some by --noise gaussian:25 "
        "--corrupt fresh; if not, say by --noise what they have."
    )
