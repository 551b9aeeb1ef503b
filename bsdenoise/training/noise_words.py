"""What training says of the noise that images show, where it is not the noise that was declared."""

from collections.abc import Callable

from bsdenoise.config import TrainConfig
from bsdenoise.data.survey import Sample
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.network import blindness
from bsdenoise.noise import noise_floor, spec

FORGOTTEN_CORRUPT_RATIO = 0.5  # less noise in the images than this part of the declared σ looks like clean images
# More than this times the declared σ in three quarters of the images' blocks is more than estimates are wrong by.
TOO_LITTLE_DECLARED_RATIO = 1.25
# Noise of the quietest parts over what --corrupt adds, above which images are hardly clean. Clean photographs have
# 0.5 to 1.5 grey levels there, fine texture everywhere up to 3.
ALREADY_NOISY_RATIO = 0.3


def say_what_is_wrong(config: TrainConfig, data: TrainingImages, sample: Sample, say: Callable[[str], None]) -> None:
    """Say so if the noise that the images show is not what the flags say of it.

    What is seen of noise is an estimate, which fine texture raises; so the quiet parts of images speak for there being
    noise, and whole images for there being little.

    Args:
        config: The run's flags.
        data: The training images, for the noise that is declared.
        sample: What a look at some images told.
        say: Called with the line, if there is one.
    """
    floor = noise_floor.median(sample.floors)
    # Pairs of noisy copies may have whatever noise they like, as long as their noises are two.
    is_correlated = data.targets is None and noise_floor.is_correlated(sample.floors, data.scale)
    unit, noise = sample.full_scale, data.noise
    if config.corrupt:
        added = 0.5 * (noise.usual_sigma(noise.least) + noise.usual_sigma(noise.greatest)) * data.scale
        if floor is not None and max(floor.quiet, floor.shared * is_correlated) > ALREADY_NOISY_RATIO * added:
            say(
                f"warning: the images look noisy already (sigma of about {floor.low * unit:.3g}), and --corrupt "
                f"{config.corrupt} adds noise to them: the model will take the noise that they have for image content. "
                "To train on them as they are, leave --corrupt out (--corrupt None where --config sets it), and say "
                "by --noise what noise they have."
            )
        return
    declared = noise.usual_sigma(noise.least) * data.scale
    declares = f"--noise {config.noise} says {declared * unit:.3g}"
    if config.blind_spot is not None and max(blindness.of_flag(config.blind_spot)) > 1:
        # What neighbours do not share of their noise tells little of the noise.
        if floor is not None and is_correlated:
            say(
                f"note: the noise that neighbouring pixels share has a sigma of about {floor.shared * unit:.3g}, "
                f"measured on every third pixel; {declares}"
            )
        return
    if floor is not None and is_correlated:
        say(
            "warning: neighbouring pixels seem to share their noise, as in camera JPEGs, scaled or compressed images "
            f"(sigma of about {floor.low * unit:.3g} pixel by pixel and {floor.shared * unit:.3g} on every third "
            f"pixel; {declares}). White noise does not describe it, and a model that is trained so keeps most of it. "
            "Use the unprocessed images, or a larger --blind-spot: auto chooses one (docs/detector-noise.md)."
        )
    elif sample.detector is not None and noise.takes_sigma:
        gain, sigma, pedestal = sample.detector * unit
        say(
            f"warning: the noise of the images grows with the signal, as that of detectors, and --noise {config.noise} "
            f"says that it is the same everywhere. Declare --noise poisson-gaussian:gain={gain:.3g},sigma={sigma:.3g},"
            f"pedestal={pedestal:.3g}, or leave --noise out: then it is measured."
        )
    elif sample.median_sigma is not None and sample.median_sigma < FORGOTTEN_CORRUPT_RATIO * declared:
        say(
            f"warning: the images show noise of about {sample.median_sigma * unit:.3g} where {declares}. If they are "
            "clean, add --corrupt fresh; if they are noisy, declare what they have."
        )
    elif floor is not None and floor.low > TOO_LITTLE_DECLARED_RATIO * declared:
        say(
            f"warning: the images show noise of about {floor.low * unit:.3g} where {declares}. If that is no fine "
            f"texture, the model will keep the rest of the noise: declare what they have{_in_own_units(config, data)}."
        )


def _in_own_units(config: TrainConfig, data: TrainingImages) -> str:
    """Say what a fraction means of floats, whose full scale is 1 whatever they count."""
    if data.fractional or not spec.is_relative(str(config.noise)):
        return ""
    return ", without a slash: the full scale of floats is 1, and these have units of their own"
