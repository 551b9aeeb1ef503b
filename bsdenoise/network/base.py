"""`DenoisingNetwork`: what the rest of the package knows of a network."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from bsdenoise.network import blindness, layers, measuring

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # precision of the body, and Keras' word for it
ENTRY_POINTS = "bsdenoise.networks"  # group of entry points that name networks of other packages
MAPS_OF_OTHERS = 384  # of networks whose layers do not tell: as many as the largest of ours
_BYTES = {"bfloat16": 2, "float16": 2}
_FLOAT32_BYTES = 4
TURNS = range(4)  # quarter turns of branches that are the same one, turned


class Parts(NamedTuple):
    """A network cut where its branches join.

    Attributes:
        branches: Models from images to the maps of one branch each.
        head: Model from a list of these maps to the outputs.
    """

    branches: list[keras.Model]
    head: keras.Model


class Levels(NamedTuple):
    """A network of four branches that are the same one turned, cut at each of its resolutions.

    So it is evaluated in chunks (`inference.exact_chunks`); and of a turned image the branches need not be computed
    again (`inference.self_ensemble`).

    Attributes:
        branch: Function from images and a number of quarter turns to the maps of that branch; it also has `depth`,
            `enter`, `below` and `leave`, as `architectures.Branch` has them.
        head: Function from the list of the branches' maps, and numbers of quarter turns, to the list of the outputs for
            the image turned counter-clockwise so often, each turned back.
        shift: By how many pixels it moves them at most.
    """

    branch: Any
    head: Callable
    shift: int = 1

    def outputs(self, image, turns) -> list:
        """Compute the outputs (B, H, W, n) for images (B, H, W, C) turned in several ways, each turned back.

        Args:
            image: The images as they are.
            turns: Numbers of quarter turns.
        """
        return self.head([self.branch(image, turn) for turn in TURNS], turns)


class _Measured(property):
    """A property that takes a measurement."""


@keras.saving.register_keras_serializable(package="bsdenoise")
class DenoisingNetwork(keras.Model):
    """A network from noisy images (B, H, W, C) to maps (B, H, W, n) that a method reads, for any H and W.

    It is a functional Keras model: `DenoisingNetwork(inputs, outputs)` takes what `keras.Model` takes. A subclass makes
    its layers in its constructor, and passes input and output on:

    >>> class Small(bsdenoise.network.DenoisingNetwork):
    ...     def __init__(self, channels=3, num_outputs=9, **kwargs):
    ...         image = keras.Input((None, None, channels))
    ...         maps = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    ...         super().__init__(image, keras.layers.Conv2D(num_outputs, 1)(maps), **kwargs)
    ...         self.num_outputs = num_outputs
    ...
    ...     def get_config(self):
    ...         return {**super().get_config(), "channels": self.channels, "num_outputs": self.num_outputs}

    Keras knows it by its module and name: to load a file of it, import its module. What a subclass does not say by
    overriding a property is measured when it is needed: `grid`, `reach` and `is_blind`.

    Args:
        inputs: A `keras.Input` (None, None, input channels).
        outputs: The outputs (B, H, W, n) computed from it.
        name: Name of the model.
        channels: How many channels are denoised; they come first in the input. `None` for all.
        **kwargs: Arguments of `keras.Model`, such as `trainable`.

    Raises:
        ValueError: If there are more channels to denoise than the input has.
    """

    # The arguments that Keras' functional models have, and in their order: so they are saved and loaded alike.
    def __init__(self, inputs, outputs, name=None, **kwargs):
        channels = kwargs.pop("channels", None)
        super().__init__(inputs, outputs, name=name, **kwargs)
        channels = self.input_channels if channels is None else channels
        if not isinstance(channels, int) or not 1 <= channels <= self.input_channels:
            raise ValueError(
                f"`channels` must be a positive integer, at most the {self.input_channels} channels of the input. "
                f"Received: channels={channels!r}."
            )
        self._channels = channels
        self._measured = measuring.Measured(self, channels)

    def __init_subclass__(cls, **kwargs):
        """Register subclasses with Keras, so that whoever has imported one can load its files."""
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package=cls.__module__)(cls)

    @property
    def channels(self) -> int:
        """Number of channels that are denoised: the first ones of the input."""
        return self._channels

    @property
    def input_channels(self) -> int:
        """Number of channels that the network is shown."""
        return int(self.inputs[0].shape[-1])

    @_Measured
    def is_blind(self) -> bool:
        """Whether the output at a pixel never depends on that pixel."""
        return self._measured.is_blind()

    @_Measured
    def grid(self) -> int:
        """Spacing of the pooling grid in pixels: images moved by so many give outputs moved by as many."""
        return self._measured.grid()

    @_Measured
    def reach(self) -> int:
        """Pixels to each side that an output looks at; if it is measured, up to a grid more."""
        return self._measured.reach()

    @_Measured
    def context(self) -> int:
        """Pixels that a tile is given around it, a multiple of the grid: the reach, unless a part of it will do."""
        return -(-self.reach // self.grid) * self.grid

    @property
    def blind_spot(self) -> tuple[int, int] | None:
        """Height and width of the blind spot in pixels, as layers `BlindSpot` open it; `None` if there are none."""
        sizes = [layer.size for layer in self.all_layers() if isinstance(layer, layers.BlindSpot)]
        return (min(size[0] for size in sizes), min(size[1] for size in sizes)) if sizes else None

    @property
    def map_bytes(self) -> int:
        """Bytes of one pixel of the greatest number of maps that a layer has, by which memory is estimated."""
        wide = (layer for layer in self.all_layers() if hasattr(layer, "filters"))
        sizes = (layer.filters * _BYTES.get(layer.compute_dtype, _FLOAT32_BYTES) for layer in wide)
        return max(sizes, default=MAPS_OF_OTHERS * _FLOAT32_BYTES)

    def all_layers(self) -> Iterator[keras.layers.Layer]:
        """Return all layers, those inside of nested models too."""
        waiting = [*self.layers]
        while waiting:
            layer = waiting.pop(0)
            yield layer
            waiting += layer.layers if isinstance(layer, keras.Model) else []

    # Methods, no properties: Keras would save what these give as if it were another part of the model.

    def parts(self) -> Parts | None:
        """Cut the network into its branches and its head; `None` if it has none."""
        return None

    def levels(self) -> Levels | None:
        """Cut the network at its resolutions, if it has four branches that are the same one turned; `None` if not."""
        return None

    def with_dtype(self, policy: str) -> "DenoisingNetwork":
        """Return the same network and weights in another precision.

        Args:
            policy: A dtype policy of Keras, such as "mixed_bfloat16".

        Raises:
            ValueError: If the constructor takes no `dtype`.
        """
        config = self.get_config()
        if type(self) is DenoisingNetwork or "dtype" not in config:
            raise ValueError(
                "Only a network that is a subclass of `bsdenoise.network.DenoisingNetwork` with an argument `dtype`, "
                f"as those of this package are, has other precisions. Received: a network named {self.name!r}."
            )
        return self._changed(config, dtype=policy)

    def with_blind_spot(self, size) -> "DenoisingNetwork":
        """Return the same network and weights with another blind spot, which has no weights.

        Args:
            size: Height and width in pixels, both odd: a pair, an integer, or text such as "3x3".

        Raises:
            ValueError: If `size` is none of these, or the constructor takes no `blind_spot`.
        """
        size = blindness.size_of(size)
        if "blind_spot" not in inspect.signature(type(self).__init__).parameters:
            raise ValueError(
                "Only a blind-spot network whose class has an argument `blind_spot`, as "
                f"`bsdenoise.network.BlindSpotUNet`, has other blind spots. Received: a network named {self.name!r}."
            )
        return self._changed(self.get_config(), blind_spot=size)

    def _changed(self, config: dict[str, Any], **changes) -> "DenoisingNetwork":
        """Return a network of the same weights and other arguments."""
        other = type(self).from_config({**config, **changes})
        other.set_weights(self.get_weights())
        return other

    def get_config(self):
        """Return the arguments from which the network can be made again; subclasses add theirs.

        Raises:
            NotImplementedError: If a subclass has arguments and does not say with which it was made.
        """
        if type(self) is DenoisingNetwork:
            return {**super().get_config(), "channels": self.channels}
        if type(self).get_config is DenoisingNetwork.get_config:
            parameters = inspect.signature(type(self).__init__).parameters.values()
            own = {one.name for one in parameters if one.kind is not one.VAR_KEYWORD} - {"self", "name", "trainable"}
            if own:
                raise NotImplementedError(
                    f"{type(self).__name__} must override `get_config` and add its arguments: {', '.join(sorted(own))}."
                )
        return {"name": self.name, "trainable": self.trainable}

    def __dir__(self):
        """Leave out what takes a measurement: Keras reads every attribute when it saves or loads a model."""
        return [name for name in super().__dir__() if not isinstance(getattr(type(self), name, None), _Measured)]


def described(network: keras.Model) -> DenoisingNetwork:
    """Return a network as one that can be asked: itself, or one of the same layers around it.

    Raises:
        ValueError: If it is no network from images of any size to maps of that size.
    """
    if isinstance(network, DenoisingNetwork):
        return network
    shape = getattr(network, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            "`network` must be a Keras model with one input (B, H, W, C) whose number of channels is known. "
            f"Received: {type(network).__name__} {getattr(network, 'name', None)!r} of input shape {shape}."
        )
    image = keras.Input(shape[1:])
    return DenoisingNetwork(image, network(image), name=network.name)
