"""What a training starts from: random weights, or those of a trained model."""

from dataclasses import dataclass
from typing import Any

from bsdenoise import growing, presets, saved
from bsdenoise.config import TrainConfig
from bsdenoise.data.crops import TrainingImages


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        size: Arguments of `Method.network`: channels, width and depth.
        weights: The network's weights, as `get_weights` gives them; `None` for random ones.
        provenance: How they were trained, with the preset's name if they are one's; `None` if they are random.
    """

    size: dict[str, int]
    weights: list | None = None
    provenance: dict[str, Any] | None = None


def load(config: TrainConfig, data: TrainingImages) -> Start:
    """Gives what the flags say.

    Raises:
        ValueError: If the model of `config.init` cannot be loaded, or is another kind of model than the run makes.
    """
    size = {"channels": data.channels, "width": config.width, "depth": config.depth}
    if config.init is None:
        if config.grow:
            raise ValueError("--grow makes the network of --init wider; there is no --init.")
        return Start(size)
    denoiser = saved.load(config.init)
    width = next((layer.filters for layer in denoiser.network.layers if layer.name == "enc_conv0"), None)
    if width is None:
        raise ValueError(f"--init {config.init}: its network is none that bsdenoise builds.")
    its_size = {"channels": denoiser.channels, "width": width, "depth": denoiser.grid.bit_length() - 1}
    _check(config, size, its_size, denoiser)
    name = {"preset": config.init} if saved.find(config.init).parent == presets.FOLDER else {}
    provenance = name | (denoiser.provenance or {})
    if not config.grow:
        return Start(its_size, denoiser.network.get_weights(), provenance)
    if not denoiser.method.is_blind or config.width < width:
        raise ValueError(
            f"--grow makes a blind-spot network wider. Received: --width {config.width} for one of width {width}, "
            f"method {config.method}."
        )
    wide_size = its_size | {"width": config.width}
    weights = growing.widened(denoiser.network, denoiser.method.network(**wide_size, dtype="float32"))
    return Start(wide_size, weights, provenance)


def _check(config: TrainConfig, size: dict[str, int], its_size: dict[str, int], denoiser: Any) -> None:
    """Refuses a model that is of another kind than the run makes."""
    wanted = {**size, "method": config.method, "factor": config.factor}
    its = {**its_size, "method": denoiser.method.name, "factor": denoiser.factor}
    # What has its default was not asked for; --grow gives width a meaning of its own.
    left_open = {name for name in ("width", "depth") if size[name] == getattr(TrainConfig, name)}
    left_open |= {"width"} if config.grow else set()
    left_open |= set() if denoiser.has_posterior else {"factor"}
    for name in (name for name in its if name not in left_open):
        if its[name] != wanted[name]:
            raise ValueError(
                f"--init {config.init}: a model of {name} {its[name]} cannot start a training of {name} {wanted[name]}."
            )
