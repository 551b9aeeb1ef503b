"""Networks that are trained: those of the methods, and one's own, which `--network` names."""

import importlib
import operator
import sys
from collections.abc import Callable
from importlib import metadata
from inspect import signature
from typing import Any

import keras

from bsdenoise import network as networks
from bsdenoise.config import NetworkConfig
from bsdenoise.methods import Method

EXPECTED = "Expected MODULE:NAME, or the name of an entry point of the group bsdenoise.networks"
OWN = ("channels", "num_outputs")  # arguments of what makes a network


def name_of(network: Any) -> str | None:
    """Return what `TrainConfig.network` holds as text: a class or function by its module and name."""
    return network if network is None or isinstance(network, str) else f"{network.__module__}:{network.__qualname__}"


def find(network: Any) -> Callable[..., Any]:
    """Return the class or function that `TrainConfig.network` names, or is.

    Raises:
        ValueError: If there is none.
    """
    if not isinstance(network, str):
        found = network
    elif ":" in network:
        found = _imported(network)
    else:
        points = {point.name: point for point in metadata.entry_points(group=networks.ENTRY_POINTS)}
        if network not in points:
            known = ", ".join(sorted(points)) or "none"
            raise ValueError(f"--network {network}: there is no such network. {EXPECTED} ({known} installed).")
        found = points[network].load()
    if not callable(found):
        raise ValueError(f"--network {name_of(network)}: neither a class nor a function, but {type(found).__name__}.")
    return found


def build(
    config: NetworkConfig,
    method: Method,
    size: dict[str, int],
    precision: str,
    blind_spot: tuple[int, int] | None = None,
) -> keras.Model:
    """Build the network of a training.

    Args:
        config: The run's flags of the network.
        method: Its method.
        size: As `Start.size`: arguments of `Method.network`, or the number of channels for one's own.
        precision: "float32" or "bfloat16".
        blind_spot: Height and width of its blind spot; `None` for the one that it has.

    Raises:
        ValueError: If there is no such network, or it has no other precision or blind spot.
    """
    if config.network is None:
        return _blinded(method.network(**size, dtype=networks.POLICIES[precision]), blind_spot)
    make, channels = find(config.network), size["channels"]
    numbers = channels, method.estimator(channels).num_outputs
    # Of a class these two may be any of its arguments; a function may call them what it likes.
    by_name = set(OWN) <= set(signature(make).parameters)
    made = make(**dict(zip(OWN, numbers, strict=True))) if by_name else make(*numbers)
    if not isinstance(made, keras.Model):
        raise ValueError(f"--network {name_of(make)}: gave no Keras model. Received: {type(made).__name__}.")
    made = _blinded(made, blind_spot)
    return made if precision == "float32" else networks.described(made).with_dtype(networks.POLICIES[precision])


def _blinded(made: keras.Model, blind_spot: tuple[int, int] | None) -> keras.Model:
    """Return a network with a blind spot of a size, if it does not have that already."""
    if blind_spot is None or networks.described(made).blind_spot == blind_spot:
        return made
    return networks.described(made).with_blind_spot(blind_spot)


def _imported(network: str) -> Any:
    """Import MODULE:NAME; modules in the current folder are found too, as by `python -m`."""
    module, _, name = network.partition(":")
    sys.path.insert(0, "")
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"--network {network}: cannot be imported ({error}). {EXPECTED}.") from error
    finally:
        sys.path.remove("")
