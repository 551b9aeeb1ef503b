"""The networks: a U-Net, and the blind-spot network made of four turned copies of it (Laine et al. 2019, Section 3)."""

import keras

from bsdenoise.network import layers

BLIND_SPOT = "blind_spot"  # name of the layer that joins the branches
POOLING_FACTOR = 2
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # precision of the body, and Keras' word for it
LEAKY_SLOPE = 0.1  # Laine et al. 2019, Appendix A
LAST_GAIN = 1.0  # the last layer is linear, so He's factor 2 for rectifiers becomes 1
NHWC = "channels_last"  # said to every layer of Keras: a user's keras.json may hold another default


def num_gaussian_outputs(channels: int) -> int:
    """Counts the outputs of a C-variate Gaussian: C for the mean and C(C+1)/2 for a triangular factor."""
    return channels + channels * (channels + 1) // 2


def blind_spot_network(channels=3, width=48, depth=5, num_outputs=None, pooling="max", dtype=None):
    """Builds the network whose output at a pixel depends on everything in reach but that pixel.

    Args:
        channels: Number C of image channels, ≥ 1.
        width: Number of maps of each encoder convolution; 48 in the paper.
        depth: Number of times the resolution is halved; 5 in the paper.
        num_outputs: Number n of output maps; `None` means C + C(C+1)/2: mean and triangular factor.
        pooling: "max" or "average".
        dtype: Dtype policy of the body, such as "float32" or "mixed_bfloat16"; `None` takes Keras' global
            policy. The last layer always computes in float32.

    Returns:
        A Keras model from (B, H, W, C) to float32 (B, H, W, n), for any H and W ≥ 1.

    Raises:
        ValueError: If a size is not a positive integer, or `pooling` is neither of the two.

    Example:
        >>> blind_spot_network(channels=3).count_params()
        1269129
    """
    image = _checked_input(channels, width, depth, num_outputs)
    branch = Branch.new(width, depth, pooling, dtype)
    maps = layers.BlindSpot(dtype=dtype, name=BLIND_SPOT)([branch(image, quarter_turns) for quarter_turns in range(4)])
    maps = _head(maps, (8 * width, 2 * width), num_outputs or num_gaussian_outputs(channels), dtype)
    return keras.Model(image, maps, name="blind_spot_network")


def unet(channels=3, width=48, depth=5, num_outputs=None, pooling="max", dtype=None):
    """Builds the same U-Net without shifts and rotations: the baseline, which sees the pixel itself.

    Args and returns as for `blind_spot_network`.
    """
    image = _checked_input(channels, width, depth, num_outputs)
    maps = _plain_body(image, width, depth, pooling, dtype)
    maps = _head(maps, (2 * width, 2 * width), num_outputs or num_gaussian_outputs(channels), dtype)
    return keras.Model(image, maps, name="unet")


def rebuilt(config: dict, dtype=None):
    """Builds the network that a configuration describes, by today's builders.

    So a network can be had in another precision; and files that were saved when it was made of other layers, but of the
    same weights in the same order, get the layers of today.

    Args:
        config: As `keras.saving.serialize_keras_object` gives it for a network of this module.
        dtype: Dtype policy of the body; `None` for the one that it had.

    Returns:
        The network, with fresh weights; `None` if the configuration is that of no network of this module.
    """
    builder = _BUILDERS.get(config["config"].get("name"))
    parts = {layer["config"].get("name"): layer["config"] for layer in config["config"].get("layers", [])}
    if builder is None or not {"image", "enc_conv0", "pool1", "outputs"} <= parts.keys():
        return None
    return builder(**_sizes(config, parts), dtype=dtype or keras.dtype_policies.get(parts["enc_conv0"]["dtype"]).name)


def sizes_of(network):
    """Gives the arguments with which a builder of this module made a network; `None` if none did.

    Args:
        network: A Keras model.

    Returns:
        A dictionary of channels, width, depth, num_outputs and pooling.
    """
    config = keras.saving.serialize_keras_object(network)
    if rebuilt(config) is None:
        return None
    return _sizes(config, {layer["config"]["name"]: layer["config"] for layer in config["config"]["layers"]})


def _sizes(config, parts):
    """Reads them from a configuration, and those of its layers by their names."""
    return {
        "channels": parts["image"]["batch_shape"][-1],
        "width": parts["enc_conv0"]["filters"],
        "depth": sum(name.startswith("pool") for name in parts),
        "num_outputs": parts["outputs"]["filters"],
        "pooling": parts["pool1"].get("pooling") or _plain_pooling(config),
    }


def _plain_pooling(config):
    """Tells how the plain U-Net of a configuration pools."""
    return "max" if any(layer["class_name"] == "MaxPooling2D" for layer in config["config"]["layers"]) else "average"


_BUILDERS = {"blind_spot_network": blind_spot_network, "unet": unet}


def _checked_input(channels, width, depth, num_outputs):
    """Makes the input node (B, H, W, C), after a look at the arguments."""
    sizes = {"channels": channels, "width": width, "depth": depth, "num_outputs": num_outputs}
    for name, value in sizes.items():
        if name == "num_outputs" and value is None:
            continue
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}.")
    return keras.Input((None, None, channels), name="image")


def _filters(width, depth):
    """Gives the numbers of maps of encoder and decoder convolutions, by their names."""
    encoder = {f"enc_conv{level}": width for level in range(depth + 2)}
    decoder = {f"dec_conv{level}{part}": 2 * width for level in range(1, depth + 1) for part in "ab"}
    return encoder | decoder


class Branch:
    """The upward-looking U-Net, from (B, H, W, C) to (B, H, W, 2·width): its layers, shared by the four directions.

    Where a pooling meets an odd side, the maps get one more row or column of zeros, which goes again after upsampling.
    (Zeros around the image, once for all poolings, are simpler, but seen as a black frame: `benchmarks/padding.py`.)
    """

    def __init__(self, convs, pads, pools):
        self.convs = convs
        self.pads = pads
        self.pools = pools

    @classmethod
    def new(cls, width, depth, pooling, dtype):
        """Makes the layers."""
        levels = range(1, depth + 1)
        return cls(
            {name: cls._conv(name, filters, dtype) for name, filters in _filters(width, depth).items()},
            [layers.PadToMultiple(POOLING_FACTOR, dtype=dtype, name=f"pad{level}") for level in levels],
            [layers.ShiftDownsample(pooling, dtype=dtype, name=f"pool{level}") for level in levels],
        )

    @classmethod
    def of(cls, network):
        """Takes the layers of a blind-spot network."""
        parts = {layer.name: layer for layer in network.layers}
        levels = range(1, 1 + sum(name.startswith("pool") for name in parts))
        return cls(
            {name: (parts[name], parts[f"{name}_relu"]) for name in parts if f"{name}_relu" in parts},
            [parts[f"pad{level}"] for level in levels],
            [parts[f"pool{level}"] for level in levels],
        )

    @property
    def depth(self) -> int:
        """How often the resolution is halved."""
        return len(self.pools)

    def __call__(self, image, quarter_turns):
        """Gives the maps of the branch that looks upwards after so many quarter turns, in the image's own frame."""
        coarse = self.below(self.enter(image, 0, quarter_turns), 1, quarter_turns)
        return self.leave(image, coarse, 0, quarter_turns)

    def enter(self, maps, level, quarter_turns):
        """Goes from maps halved `level` times to the next level: (B, H, W, C) to (B, ⌈H/2⌉, ⌈W/2⌉, width)."""
        if level == 0:
            maps = self._apply("enc_conv0", maps, quarter_turns)
        return self._downsample(level + 1, maps, quarter_turns)

    def below(self, maps, level, quarter_turns):
        """Goes from a level to the deepest and back: (B, H, W, width) to 2·width maps, width at the deepest itself."""
        if level == self.depth:
            return self._apply(f"enc_conv{level + 1}", maps, quarter_turns)
        coarse = self.below(self.enter(maps, level, quarter_turns), level + 1, quarter_turns)
        return self.leave(maps, coarse, level, quarter_turns)

    def leave(self, skip, coarse, level, quarter_turns):
        """Joins maps (B, H, W, C) of a level with (B, ⌈H/2⌉, ⌈W/2⌉, D) from below it, to (B, H, W, 2·width)."""
        maps = self._apply(f"dec_conv{level + 1}a", skip, quarter_turns, coarse=coarse)
        return self._apply(f"dec_conv{level + 1}b", maps, quarter_turns)

    def _downsample(self, level, maps, quarter_turns):
        maps = self._apply(f"enc_conv{level}", maps, quarter_turns)
        return self.pools[level - 1](self.pads[level - 1](maps), quarter_turns=quarter_turns)

    def _apply(self, name, maps, quarter_turns, **coarse):
        conv, activation = self.convs[name]
        return activation(conv(maps, **coarse, quarter_turns=quarter_turns))

    @staticmethod
    def _conv(name, filters, dtype):
        """Makes a 3×3 convolution and its leaky ReLU."""
        activation = keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=dtype, name=f"{name}_relu")
        return layers.ShiftConv2D(filters, 3, dtype=dtype, name=name), activation


def _plain_body(image, width, depth, pooling, dtype):
    """Applies the same U-Net without shifts, made of Keras' own layers."""
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


def _head(maps, widths, num_outputs, dtype):
    """Applies the 1×1 convolutions; the last one computes in float32, against banding."""
    for index, width in enumerate(widths):
        kind = {"kernel_initializer": "he_normal", "data_format": NHWC, "dtype": dtype}
        maps = keras.layers.Conv2D(width, 1, name=f"head_conv{index}", **kind)(maps)
        maps = keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=dtype, name=f"head_relu{index}")(maps)
    gain = keras.initializers.VarianceScaling(LAST_GAIN, mode="fan_in", distribution="untruncated_normal")
    kind = {"kernel_initializer": gain, "data_format": NHWC, "dtype": "float32"}
    return keras.layers.Conv2D(num_outputs, 1, name="outputs", **kind)(maps)
