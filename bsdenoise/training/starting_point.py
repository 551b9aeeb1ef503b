"""What a training starts from: random weights, or those of a trained model."""

import hashlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bsdenoise import loading, network
from bsdenoise.config import NetworkConfig, TrainConfig
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.methods import Method
from bsdenoise.network import blindness, widening
from bsdenoise.training import own_network

PAPER_SIZE = {"width": 48, "depth": 5}  # Laine et al. 2019, Appendix A

MIDDLE = 0.5  # of the range of intensities, which is fitted to lie between 0 and 1


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        size: Arguments of `Method.network`: channels, width and depth. Of a network of one's own the channels alone.
        weights: The network's weights, as `get_weights` gives them; `None` for random ones.
        provenance: How they were trained, empty if nobody said; `None` if they are random.
        checksum: Of the model's file; `None` if they are random.
        blind_spot: Height and width of the network's blind spot; `None` for that of the network as it is built.
        its_blind_spot: That of the model whose weights they are, likewise.
    """

    size: dict[str, int]
    weights: list | None = None
    provenance: dict[str, Any] | None = None
    checksum: str | None = None
    blind_spot: tuple[int, int] | None = None
    its_blind_spot: tuple[int, int] | None = None

    def facts(self) -> dict[str, Any]:
        """Say it for config.json, from which `again` makes it without the model's file."""
        spots = {"blind_spot": self.blind_spot, "its_blind_spot": self.its_blind_spot}
        return {"size": self.size, "started_from": self.provenance, "checksum": self.checksum, **spots}


def again(facts: dict[str, Any]) -> Start:
    """Return what a run that goes on once started from; its weights are in its checkpoints."""
    # Runs of earlier versions know one blind spot only.
    spots = (facts.get(name) for name in ("blind_spot", "its_blind_spot"))
    spots = (None if spot is None else blindness.size_of(spot) for spot in spots)
    return Start(facts["size"], None, facts["started_from"], facts["checksum"], *spots)


def load(config: TrainConfig, data: TrainingImages) -> Start:
    """Return what the flags say.

    Raises:
        ValueError: If the model of `config.init` cannot be loaded, or is another kind of model than the run makes.
    """
    wanted = {"channels": data.channels, "width": config.width, "depth": config.depth}
    if config.network is not None:
        return _own(config, data)
    if config.init is None:
        sizes = {name: PAPER_SIZE[name] if size is None else size for name, size in wanted.items()}
        return Start(sizes, blind_spot=_blind_spot(config))
    denoiser = loading.load(config.init)
    its = denoiser.network
    if not isinstance(its, network.BlindSpotUNet | network.UNet) or its.pooling != "max":
        raise ValueError(f"--init {config.init}: its network is none that bsdenoise train builds.")
    size = {name: getattr(its, name) for name in wanted}
    _check(config, wanted, size, denoiser)
    weights = denoiser.network.get_weights()
    if config.grow:
        weights, size = _grown(config, denoiser.network, denoiser.method, size)
    return _trained(config, denoiser, size, weights)


def _own(config: TrainConfig, data: TrainingImages) -> Start:
    """Return what the flags say of a network of one's own."""
    size = {"channels": data.channels}
    if config.init is None:
        return Start(size, blind_spot=_blind_spot(config))
    denoiser = loading.load(config.init)
    _check(config, size, {"channels": denoiser.channels}, denoiser)
    weights = denoiser.network.get_weights()
    made = own_network.build(config, data.method, size, "float32")
    if [weight.shape for weight in made.get_weights()] != [weight.shape for weight in weights]:
        raise ValueError(f"--init {config.init}: its network has other weights than that of --network.")
    return _trained(config, denoiser, size, weights)


def _trained(config: TrainConfig, denoiser: Any, size: dict[str, int], weights: list) -> Start:
    """Return a start from the weights of `--init`, with its blind spot unless there is a flag for that."""
    assert config.init is not None
    checksum = hashlib.sha256(loading.find(config.init).read_bytes()).hexdigest()
    its = denoiser.blind_spot
    return Start(size, weights, denoiser.provenance or {}, checksum, _blind_spot(config) or its, its)


def _blind_spot(config: NetworkConfig) -> tuple[int, int] | None:
    """Return the blind spot that the flags ask for, if they do."""
    return None if config.blind_spot is None else blindness.of_flag(config.blind_spot)


def _check(config: TrainConfig, wanted: dict[str, Any], size: dict[str, int], denoiser: Any) -> None:
    """Refuse a model that is of another kind than the run makes; what has no flag is left to the model."""
    wanted = wanted | {"method": config.method, "factor": config.factor}
    its = size | {"method": denoiser.method.name, "factor": denoiser.factor}
    left_open = {"width"} if config.grow else set()
    left_open |= set() if denoiser.has_posterior else {"factor"}
    for name, value in wanted.items():
        if value is not None and name not in left_open and its[name] != value:
            raise ValueError(
                f"--init {config.init}: a model of {name} {its[name]} cannot start a training of {name} {value}."
            )


def _grown(config: TrainConfig, narrow: Any, method: Method, size: dict[str, int]) -> tuple[list, dict[str, int]]:
    """Return the weights of a wider network that computes the same, and its size."""
    if not method.is_blind or config.width is None or config.width <= size["width"]:
        raise ValueError(
            f"--grow makes a blind-spot network wider. Received: --width {config.width} for one of width "
            f"{size['width']}, method {config.method}."
        )
    size = size | {"width": config.width}
    keras.utils.set_random_seed(config.seed)
    return widening.widened(narrow, method.network(**size, dtype="float32")), size


def begin_in_the_middle(network: Any, channels: int) -> None:
    """Let a new network predict the middle of the range of intensities before it has learnt anything.

    He initialisation starts at 0, black, and the first hundreds of steps would go into leaving it.

    Args:
        network: A Keras model; its first outputs are the predicted colour, and without a bias there it stays as it is.
        channels: Number C of image channels.
    """
    bias = getattr(network.layers[-1], "bias", None)
    if bias is not None and tuple(bias.shape) == network.output_shape[-1:]:
        values = np.array(keras.ops.convert_to_numpy(bias))
        values[:channels] = MIDDLE
        bias.assign(values)
