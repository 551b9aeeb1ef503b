"""The kinds of noise that are known, by what a SPEC begins with."""

from importlib import metadata
from typing import Any

from bsdenoise.noise.anscombe import StabilizedNoise
from bsdenoise.noise.base import Declared, NoiseModel
from bsdenoise.noise.gaussian import GaussianNoise
from bsdenoise.noise.impulse import ImpulseNoise
from bsdenoise.noise.poisson_gaussian import PoissonGaussianNoise, PoissonNoise
from bsdenoise.noise.spec import SPEC_READS

ENTRY_POINTS = "bsdenoise.noise"  # group in which a package names its `NoiseModel` subclasses
_KINDS: dict[str, type[NoiseModel]] = {}


def register(model: type[NoiseModel]) -> type[NoiseModel]:
    """Make a kind of noise known under its name: to SPECs, and to saved models.

    Args:
        model: The class. It can be used as a decorator.

    Raises:
        ValueError: If another one has that name.

    Example:
        >>> @bsdenoise.noise.register
        ... class Weaker(bsdenoise.GaussianNoise):
        ...     kind = "weaker"
    """
    if _KINDS.get(model.kind, model) is not model:
        raise ValueError(f"There is a kind of noise of that name already. Received: kind={model.kind!r}.")
    _KINDS[model.kind] = model
    return model


for _model in (GaussianNoise, PoissonGaussianNoise, PoissonNoise, ImpulseNoise, StabilizedNoise):
    register(_model)


def kinds() -> tuple[str, ...]:
    """Name the kinds of noise that are known."""
    return tuple(_KINDS)


def get(kind: str) -> type[NoiseModel]:
    """Return a kind of noise by its name; one that is not known is looked for among the entry points of `ENTRY_POINTS`.

    Raises:
        ValueError: If there is none.
    """
    if kind not in _KINDS:
        for point in metadata.entry_points(group=ENTRY_POINTS, name=kind):
            register(point.load())
    if kind not in _KINDS:
        raise ValueError(f"The kind of noise must be one of {', '.join(_KINDS)}. Received: {kind!r}.")
    return _KINDS[kind]


def read(spec: str, full_scale: float) -> Declared:
    """Read a noise SPEC, KIND:PARAMETERS, without asking whether its numbers make sense.

    So it reads noise of floats, whose full scale is 1 whatever they count, and which may be many.

    Args:
        spec: The SPEC, such as `gaussian:25`, `gaussian:25/255`, `gaussian:5-50`, `gaussian:5-50/255`. Numbers are in
            the units of the files, unless a full scale follows after a slash.
        full_scale: Greatest value of the files' pixel type (255, 65535, or 1 for float files).

    Raises:
        ValueError: If the SPEC cannot be read.
    """
    kind, colon, text = spec.strip().partition(":")
    if not colon or kind not in _KINDS and not metadata.entry_points(group=ENTRY_POINTS, name=kind):
        others = [known for known, model in _KINDS.items() if model.is_declared and model is not GaussianNoise]
        more = f" Other kinds: {', '.join(others)}." if others else ""
        raise ValueError(f"{SPEC_READS}{more} Received: {spec!r}.")
    model = get(kind)
    if not model.is_declared:
        raise ValueError(f"{kind} noise is no noise of images. Received: {spec!r}.")
    return model.read(text, full_scale)


def parse(spec: str, full_scale: float) -> NoiseModel:
    """Read a noise SPEC as a noise model, with fractions of full scale; args as for `read`.

    Raises:
        ValueError: If the SPEC cannot be read, or its numbers make no sense, such as a σ outside of (0, full scale].
    """
    return read(spec, full_scale).made()


def serialize(model: NoiseModel) -> dict[str, Any]:
    """Return a noise model as JSON values."""
    return {"kind": model.kind, "config": model.get_config()}


def deserialize(config: dict[str, Any]) -> NoiseModel:
    """Make a noise model from what `serialize` gave, or Keras in earlier versions.

    Raises:
        ValueError: If its kind is not known.
    """
    kind = config["kind"] if "kind" in config else GaussianNoise.kind
    return get(kind)(**config["config"])
