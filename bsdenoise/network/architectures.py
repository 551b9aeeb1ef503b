"""The networks: a U-Net, and the blind-spot network made of four turned copies of it (Laine et al. 2019, Section 3)."""

import itertools
from typing import NamedTuple

import keras
from keras import ops

from bsdenoise.network import base, blindness, context, layers, rotation

POOLING_FACTOR = 2
TURNS = base.TURNS  # of the branches
BANDS, BAND_ROWS = 4, 64  # of maps at most and at least, where one set of them becomes several
LEAKY_SLOPE = 0.1  # Laine et al. 2019, Appendix A
LAST_GAIN = 1.0  # the last layer is linear, so He's factor 2 for rectifiers becomes 1
NHWC = "channels_last"  # said to every layer of Keras: a user's keras.json may hold another default


def num_gaussian_outputs(channels: int) -> int:
    """Count the outputs of a C-variate Gaussian: C for the mean and C(C+1)/2 for a triangular factor."""
    return channels + channels * (channels + 1) // 2


def blind_spot_network(channels=3, width=48, depth=5, num_outputs=None, pooling="max", dtype=None, blind_spot=(1, 1)):
    """Build the network whose output at a pixel depends on all in reach but that pixel, or a rectangle around it.

    Args and errors as for `BlindSpotUNet`.

    Returns:
        A `BlindSpotUNet` from (B, H, W, C) to float32 (B, H, W, n), for any H and W ≥ 1.

    Example:
        >>> blind_spot_network(channels=3).count_params()
        1269129
    """
    return BlindSpotUNet(channels, width, depth, num_outputs, pooling, dtype=dtype, blind_spot=blind_spot)


def unet(channels=3, width=48, depth=5, num_outputs=None, pooling="max", dtype=None):
    """Build the same U-Net without shifts and rotations: the baseline, which sees the pixel itself.

    Args and errors as for `BlindSpotUNet`, but for `blind_spot`.

    Returns:
        A `UNet`, otherwise as `blind_spot_network`.
    """
    return UNet(channels, width, depth, num_outputs, pooling, dtype=dtype)


class _UNet(base.DenoisingNetwork):
    """What the two U-Nets have in common: their arguments, and a pooling grid.

    Args:
        image: Input of the network.
        outputs: Its outputs.
        sizes: Arguments of the constructor.
        dtype: Likewise.
        **kwargs: Arguments of `keras.Model`.
    """

    def __init__(self, image, outputs, sizes, dtype, **kwargs):
        super().__init__(image, outputs, channels=sizes.channels, **kwargs)
        self.width = sizes.width
        self.depth = sizes.depth
        self.num_outputs = sizes.num_outputs
        self.pooling = sizes.pooling
        self._policy = keras.dtype_policies.get(dtype).name

    @property
    def grid(self) -> int:
        """Spacing of the pooling grid in pixels, 2^depth."""
        return POOLING_FACTOR**self.depth

    @property
    def context(self) -> int:
        """Pixels that a tile is given around it: enough, but no more than is worth it."""
        return context.of_grid(self.grid)

    @property
    def sizes(self) -> dict:
        """The constructor's arguments but for `dtype`."""
        names = ("channels", "width", "depth", "num_outputs", "pooling", "input_channels")
        return {name: getattr(self, name) for name in names}

    def get_config(self):
        """Return the arguments from which the network can be made again."""
        return {**super().get_config(), **self.sizes, "dtype": self._policy}


@keras.saving.register_keras_serializable(package="bsdenoise")
class BlindSpotUNet(_UNet):
    """The network whose output at a pixel depends on everything in reach but that pixel (Laine et al. 2019, Section 3).

    With a larger `blind_spot`, on everything but a rectangle around the pixel.

    Args:
        channels: Number C of channels that are denoised, ≥ 1.
        width: Number of maps of each encoder convolution; 48 in the paper.
        depth: Number of times the resolution is halved; 5 in the paper.
        num_outputs: Number n of output maps; `None` means C + C(C+1)/2: mean and triangular factor.
        pooling: "max" or "average".
        input_channels: Number of channels of the input, ≥ C, of which the first C are denoised; `None` means C. The
            network is blind to the pixel itself in all of them.
        dtype: Dtype policy of the body, such as "float32" or "mixed_bfloat16"; `None` takes Keras' global
            policy. The last layer always computes in float32.
        name: Name of the model.
        blind_spot: Height and width in pixels of what is not seen around a pixel, itself included; both odd and at
            most 31: a pair, an integer, or text such as "3x3". Larger ones are for noise that neighbouring pixels
            share. The weights are the same for all of them.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If a size is not a positive integer, the input has fewer channels than are denoised, `pooling` is
            neither of the two, or `blind_spot` is no such size.
    """

    def __init__(
        self,
        channels=3,
        width=48,
        depth=5,
        num_outputs=None,
        pooling="max",
        input_channels=None,
        dtype=None,
        name="blind_spot_network",
        blind_spot=(1, 1),
        **kwargs,
    ):
        sizes = _Sizes.checked(channels, width, depth, num_outputs, pooling, input_channels)
        image = keras.Input((None, None, sizes.input_channels), name="image")
        branch = Branch(width, depth, pooling, dtype)
        head = Head(width, sizes.num_outputs, dtype, blind_spot)
        outputs = head([branch(image, quarter_turns) for quarter_turns in TURNS])
        super().__init__(image, outputs, sizes, dtype, name=name, **kwargs)
        self._branch = branch
        self._head = head

    @property
    def is_blind(self) -> bool:
        """Whether the output at a pixel never depends on that pixel: it does not."""
        return True

    @property
    def reach(self) -> int:
        """Pixels to each side that an output looks at."""
        return 10 * self.grid - 6 + self._head.shift

    @property
    def context(self) -> int:
        """Pixels that a tile is given around it: enough, but no more than is worth it."""
        further = max(self.reach - context.REACH * self.grid, 0)  # over a large blind spot
        return super().context + -(-further // self.grid) * self.grid

    @property
    def sizes(self) -> dict:
        """The constructor's arguments but for `dtype`."""
        return {**super().sizes, "blind_spot": self.blind_spot}

    def parts(self) -> base.Parts:
        """Cut the network where its four branches join."""
        joints = self._head.joint.input
        return base.Parts([keras.Model(self.input, maps) for maps in joints], keras.Model(joints, self.output))

    def joined_maps(self) -> dict[str, tuple[int, ...]]:
        """Return the numbers of maps that the input of each convolution is joined of, by its layer's name."""
        joined: dict[str, tuple[int, ...]] = {}
        for layer in self.layers:
            if layer.weights:
                inputs, coarse = layer.kernel.shape[2], getattr(layer, "num_coarse", 0)
                joined[layer.name] = (coarse, inputs - coarse) if coarse else (inputs,)
        first = self._head.layers[0]
        joined[first.name] = (first.kernel.shape[2] // len(TURNS),) * len(TURNS)
        return joined

    def levels(self) -> base.Levels:
        """Cut the network at its resolutions."""
        return base.Levels(self._branch, self._head.turned, self._head.shift)


@keras.saving.register_keras_serializable(package="bsdenoise")
class UNet(_UNet):
    """The same U-Net without shifts and rotations: the baseline, which sees the pixel itself.

    Args and errors as for `BlindSpotUNet`, but for `blind_spot`.
    """

    def __init__(
        self,
        channels=3,
        width=48,
        depth=5,
        num_outputs=None,
        pooling="max",
        input_channels=None,
        dtype=None,
        name="unet",
        **kwargs,
    ):
        sizes = _Sizes.checked(channels, width, depth, num_outputs, pooling, input_channels)
        image = keras.Input((None, None, sizes.input_channels), name="image")
        maps = _plain_body(image, width, depth, pooling, dtype)
        for layer in _head_layers((2 * width, 2 * width), sizes.num_outputs, dtype):
            maps = layer(maps)
        super().__init__(image, maps, sizes, dtype, name=name, **kwargs)

    @property
    def is_blind(self) -> bool:
        """Whether the output at a pixel never depends on that pixel: it does."""
        return False

    @property
    def reach(self) -> int:
        """Pixels to each side that an output looks at."""
        return 5 * self.grid - 3


class _Sizes(NamedTuple):
    """Arguments of the networks, after a look at them."""

    channels: int
    width: int
    depth: int
    num_outputs: int
    pooling: str
    input_channels: int

    @classmethod
    def checked(cls, channels, width, depth, num_outputs, pooling, input_channels):
        """Fill in what was left out.

        Raises:
            ValueError: If a size is not a positive integer, or the input has fewer channels than are denoised.
        """
        sizes = {"channels": channels, "width": width, "depth": depth}
        sizes |= {} if num_outputs is None else {"num_outputs": num_outputs}
        for name, value in sizes.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}.")
        input_channels = channels if input_channels is None else input_channels
        if not isinstance(input_channels, int) or input_channels < channels:
            raise ValueError(
                f"`input_channels` must be an integer, at least the {channels} channels that are denoised. "
                f"Received: input_channels={input_channels!r}."
            )
        num_outputs = num_gaussian_outputs(channels) if num_outputs is None else num_outputs
        return cls(channels, width, depth, num_outputs, pooling, input_channels)


def _filters(width, depth):
    """Return the numbers of maps of encoder and decoder convolutions, by their names."""
    encoder = {f"enc_conv{level}": width for level in range(depth + 2)}
    decoder = {f"dec_conv{level}{part}": 2 * width for level in range(1, depth + 1) for part in "ab"}
    return encoder | decoder


def _halvings(depth):
    """Return how often the resolution is halved where encoder and decoder convolutions stand, by their names."""
    encoder = {f"enc_conv{level}": max(level - 1, 0) for level in range(depth + 2)}
    return encoder | {f"dec_conv{level}{part}": level - 1 for level in range(1, depth + 1) for part in "ab"}


class Branch:
    """The upward-looking U-Net, from (B, H, W, C) to (B, H, W, 2·width): its layers, shared by the four directions.

    A plain object, so that Keras lists the layers of the network once. `halvings` says how often the resolution is
    halved where a convolution stands, by its name.

    Where a pooling meets an odd side, the maps get one more row or column of zeros, which goes again after upsampling.
    (Zeros around the image, once for all poolings, are simpler, but seen as a black frame: `benchmarks/padding.py`.)
    """

    def __init__(self, width, depth, pooling, dtype):
        levels = range(1, depth + 1)
        self.halvings = _halvings(depth)
        self._convs = {name: self._conv(name, filters, dtype) for name, filters in _filters(width, depth).items()}
        self._pads = [layers.PadToMultiple(POOLING_FACTOR, dtype=dtype, name=f"pad{level}") for level in levels]
        self._pools = [layers.ShiftDownsample(pooling, dtype=dtype, name=f"pool{level}") for level in levels]

    @property
    def depth(self) -> int:
        """How often the resolution is halved."""
        return len(self._pools)

    def __call__(self, image, quarter_turns):
        """Return the maps of the branch that looks upwards after so many quarter turns, in the image's own frame."""
        coarse = self.below(self.enter(image, 0, quarter_turns), 1, quarter_turns)
        return self.leave(image, coarse, 0, quarter_turns)

    def enter(self, maps, level, quarter_turns):
        """Go from maps halved `level` times to the next level: (B, H, W, C) to (B, ⌈H/2⌉, ⌈W/2⌉, width)."""
        if level == 0:
            maps = self._apply("enc_conv0", maps, quarter_turns)
        return self._downsample(level + 1, maps, quarter_turns)

    def below(self, maps, level, quarter_turns):
        """Go from a level to the deepest and back: (B, H, W, width) to 2·width maps, width at the deepest itself."""
        if level == self.depth:
            return self._apply(f"enc_conv{level + 1}", maps, quarter_turns)
        coarse = self.below(self.enter(maps, level, quarter_turns), level + 1, quarter_turns)
        return self.leave(maps, coarse, level, quarter_turns)

    def leave(self, skip, coarse, level, quarter_turns):
        """Join maps (B, H, W, C) of a level with (B, ⌈H/2⌉, ⌈W/2⌉, D) from below it, to (B, H, W, 2·width)."""
        maps = self._apply(f"dec_conv{level + 1}a", skip, quarter_turns, coarse=coarse)
        return self._apply(f"dec_conv{level + 1}b", maps, quarter_turns)

    def _downsample(self, level, maps, quarter_turns):
        maps = self._apply(f"enc_conv{level}", maps, quarter_turns)
        return self._pools[level - 1](self._pads[level - 1](maps), quarter_turns=quarter_turns)

    def _apply(self, name, maps, quarter_turns, **coarse):
        conv, activation = self._convs[name]
        return activation(conv(maps, **coarse, quarter_turns=quarter_turns))

    @staticmethod
    def _conv(name, filters, dtype):
        """Make a 3×3 convolution and its leaky ReLU."""
        activation = keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=dtype, name=f"{name}_relu")
        return layers.ShiftConv2D(filters, 3, dtype=dtype, name=name), activation


def _plain_body(image, width, depth, pooling, dtype):
    """Apply the same U-Net without shifts, made of Keras' own layers."""
    filters = _filters(width, depth)
    pools = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}
    if pooling not in pools:
        raise ValueError(f"`pooling` must be 'max' or 'average'. Received: pooling={pooling!r}.")

    def convolve(name, maps):
        kind = {"padding": "same", "kernel_initializer": "he_normal", "data_format": NHWC, "dtype": dtype, "name": name}
        maps = keras.layers.Conv2D(filters[name], 3, **kind)(maps)
        return keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=dtype, name=f"{name}_relu")(maps)

    maps = convolve("enc_conv0", image)
    skips = [image]
    for level in range(1, depth + 1):
        maps = convolve(f"enc_conv{level}", maps)
        maps = layers.PadToMultiple(POOLING_FACTOR, dtype=dtype, name=f"pad{level}")(maps)
        maps = pools[pooling](2, data_format=NHWC, dtype=dtype, name=f"pool{level}")(maps)
        skips.append(maps)
    maps = convolve(f"enc_conv{depth + 1}", maps)
    for level in range(depth, 0, -1):
        skip = skips[level - 1]
        maps = keras.layers.UpSampling2D(2, data_format=NHWC, dtype=dtype, name=f"upsample{level}")(maps)
        maps = layers.CropLike(dtype=dtype, name=f"crop{level}")((maps, skip))
        maps = keras.layers.Concatenate(dtype=dtype, name=f"concat{level}")([maps, skip])
        maps = convolve(f"dec_conv{level}b", convolve(f"dec_conv{level}a", maps))
    return maps


class Head:
    """The layers behind the branches: from the list of their maps to the outputs (B, H, W, n)."""

    def __init__(self, width, num_outputs, dtype, blind_spot):
        self.joint = layers.BlindSpot(blind_spot, dtype=dtype, name="blind_spot")
        self.layers = _head_layers((8 * width, 2 * width), num_outputs, dtype)

    @property
    def shift(self) -> int:
        """By how many pixels maps are moved at most."""
        return max(blindness.shifts(self.joint.size))

    def __call__(self, maps):
        """Return the outputs."""
        return self._applied(self.layers, self.joint(maps))

    def turned(self, maps, turns):
        """Return the outputs for an image turned counter-clockwise in several ways, each turned back.

        A turned image has the same branches in another order, so all of these are of one set of maps. The first layer
        computes a turn and the opposite one together, in as many products as either of them: where the maps of
        branches 0 and 1 are f, those of 2 and 3 b, and its kernel is (F, B), they are

            F f + B b = e + o,    F b + B f = e − o    with    e = ½ (F + B) (f + b),    o = ½ (F − B) (f − b).

        Args:
            maps: Those of the branches of the image as it is.
            turns: Numbers of quarter turns, of 0 to 3.
        """
        if tuple(turns) == (0,):
            return [self(maps)]
        first, *others = self.layers
        moved = self.joint.moved(maps)
        front, back = (ops.concatenate(half, axis=-1) for half in (moved[:2], moved[2:]))
        even, odd = front + back, front - back
        kernels = {turn: self._kernels(turn) for turn in sorted({turn % 2 for turn in turns})}
        height, width = ops.shape(even)[1:3]
        bands = []
        for start, rows in _bands(height):
            # Of height 0, which a graph for any height may have, they would be none that layers take.
            computed = max(rows, 1) if isinstance(rows, int) else ops.maximum(rows, 1)
            parts = [rotation.window(maps, start, 0, computed, width) for maps in (even, odd)]
            outputs = self._of_band(parts[0], parts[1], kernels)
            bands.append({turn: rotation.window(outputs[turn], 0, 0, rows, width) for turn in turns})
        return [ops.concatenate([band[turn] for band in bands], axis=1) for turn in turns]

    def _kernels(self, turn):
        """Return ½ (F + B) and ½ (F − B) of the first layer, for images turned by 0 or 1 quarters."""
        kernel = ops.convert_to_tensor(self.layers[0].kernel)
        front, back = ops.split(ops.roll(kernel, turn * (kernel.shape[2] // len(TURNS)), axis=2), 2, axis=2)
        return 0.5 * (front + back), 0.5 * (front - back)

    def _of_band(self, even, odd, kernels):
        """Return the outputs of some rows by turn, from sums and differences of their maps; args as in `turned`."""
        first, *others = self.layers
        outputs = {}
        for turn, (even_kernel, odd_kernel) in kernels.items():
            own = _convolved(even, even_kernel) + ops.cast(first.bias, even.dtype)
            other = _convolved(odd, odd_kernel)
            outputs[turn] = self._applied(others, own + other)
            outputs[turn + 2] = self._applied(others, own - other)
        return outputs

    @staticmethod
    def _applied(some, maps):
        """Apply layers one after the other."""
        for layer in some:
            maps = layer(maps)
        return maps


def _bands(height):
    """Cut rows into bands, so that what is computed of one of them takes a part of the memory.

    Args:
        height: Number of rows; in a graph a tensor.

    Returns:
        Where each starts, and how many rows it has.
    """
    number = min(BANDS, -(-height // BAND_ROWS)) if isinstance(height, int) else BANDS
    edges = [height * index // number for index in range(number + 1)]
    return [(start, stop - start) for start, stop in itertools.pairwise(edges)]


def _convolved(maps, kernel):
    """Apply the kernel of a 1×1 convolution in the precision of the maps."""
    return ops.conv(maps, ops.cast(kernel, maps.dtype), padding="valid", data_format=NHWC)


def _head_layers(widths, num_outputs, dtype):
    """Make the 1×1 convolutions; the last one computes in float32, against banding."""
    made = []
    for index, width in enumerate(widths):
        kind = {"kernel_initializer": "he_normal", "data_format": NHWC, "dtype": dtype}
        made.append(keras.layers.Conv2D(width, 1, name=f"head_conv{index}", **kind))
        made.append(keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=dtype, name=f"head_relu{index}"))
    gain = keras.initializers.VarianceScaling(LAST_GAIN, mode="fan_in", distribution="untruncated_normal")
    kind = {"kernel_initializer": gain, "data_format": NHWC, "dtype": "float32"}
    return [*made, keras.layers.Conv2D(num_outputs, 1, name="outputs", **kind)]
