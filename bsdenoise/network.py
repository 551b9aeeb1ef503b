"""The networks: a U-Net, and the blind-spot network made of four rotations of it (Laine et al. 2019, Section 3)."""

import keras

from bsdenoise.layers import CropLike, PadToMultiple, RotateStack, RotateUnstack, ShiftConv2D, ShiftDownsample

POOLING_FACTOR = 2
LEAKY_SLOPE = 0.1  # Laine et al. 2019, Appendix A
LAST_GAIN = 1.0  # the last layer is linear, so He's factor 2 for rectifiers becomes 1


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
    body = _UNetBody(width, depth, pooling, dtype, shifted=True)
    upright, sideways = RotateStack(dtype=dtype, name="rotate_stack")(image)
    stacks = body(upright, RotateStack.UPRIGHT, "_upright"), body(sideways, RotateStack.SIDEWAYS, "_sideways")
    maps = RotateUnstack(dtype=dtype, name="rotate_unstack")(stacks)
    maps = _head(maps, (8 * width, 2 * width), num_outputs or num_gaussian_outputs(channels), dtype)
    return keras.Model(image, maps, name="blind_spot_network")


def unet(channels=3, width=48, depth=5, num_outputs=None, pooling="max", dtype=None):
    """Builds the same U-Net without shifts and rotations: the baseline, which sees the pixel itself.

    Args and returns as for `blind_spot_network`.
    """
    image = _checked_input(channels, width, depth, num_outputs)
    maps = _UNetBody(width, depth, pooling, dtype, shifted=False)(image, (0,), "")
    maps = _head(maps, (2 * width, 2 * width), num_outputs or num_gaussian_outputs(channels), dtype)
    return keras.Model(image, maps, name="unet")


def _checked_input(channels, width, depth, num_outputs):
    """Makes the input node (B, H, W, C), after a look at the arguments."""
    sizes = {"channels": channels, "width": width, "depth": depth, "num_outputs": num_outputs}
    for name, value in sizes.items():
        if name == "num_outputs" and value is None:
            continue
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}.")
    return keras.Input((None, None, channels), name="image")


class _UNetBody:
    """Encoder and decoder, from (B, H, W, C) to (B, H, W, 2·width): their layers, to be applied to several stacks.

    Where a pooling meets an odd side, the maps get one more row or column of zeros, which goes again after upsampling.
    (Zeros around the image, once for all poolings, are simpler, but seen as a black frame: `benchmarks/padding.py`.)
    """

    def __init__(self, width, depth, pooling, dtype, shifted):
        pools = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}
        if pooling not in pools:
            raise ValueError(f"`pooling` must be 'max' or 'average'. Received: pooling={pooling!r}.")
        self.dtype = dtype
        levels = range(1, depth + 1)
        encoder = {f"enc_conv{level}": width for level in range(depth + 2)}
        decoder = {f"dec_conv{level}{part}": 2 * width for level in levels for part in "ab"}
        self.convs = {name: self._conv(name, filters, shifted) for name, filters in (encoder | decoder).items()}
        if shifted:
            self.pools = [ShiftDownsample(pooling, dtype=dtype, name=f"pool{level}") for level in levels]
        else:
            self.pools = [pools[pooling](2, dtype=dtype, name=f"pool{level}") for level in levels]
        self.upsamplings = [keras.layers.UpSampling2D(2, dtype=dtype, name=f"upsample{level}") for level in levels]

    def __call__(self, image, turns, suffix):
        """Applies the layers to a stack of images, turned by so many quarter turns; `suffix` marks its own layers."""
        dtype, depth = self.dtype, len(self.pools)
        maps = self._apply("enc_conv0", image)
        skips = [image]
        for level in range(1, depth + 1):
            maps = self._apply(f"enc_conv{level}", maps)
            maps = PadToMultiple(POOLING_FACTOR, turns, dtype=dtype, name=f"pad{level}{suffix}")(maps)
            maps = self.pools[level - 1](maps)
            skips.append(maps)
        maps = self._apply(f"enc_conv{depth + 1}", maps)
        for level in range(depth, 0, -1):
            skip = skips[level - 1]
            maps = self.upsamplings[level - 1](maps)
            maps = CropLike(turns, dtype=dtype, name=f"crop{level}{suffix}")((maps, skip))
            maps = keras.layers.Concatenate(dtype=dtype, name=f"concat{level}{suffix}")([maps, skip])
            maps = self._apply(f"dec_conv{level}b", self._apply(f"dec_conv{level}a", maps))
        return maps

    def _conv(self, name, filters, shifted):
        """Makes a 3×3 convolution and its leaky ReLU."""
        activation = keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=self.dtype, name=f"{name}_relu")
        if shifted:
            return ShiftConv2D(filters, 3, dtype=self.dtype, name=name), activation
        kind = {"padding": "same", "kernel_initializer": "he_normal", "dtype": self.dtype, "name": name}
        return keras.layers.Conv2D(filters, 3, **kind), activation

    def _apply(self, name, maps):
        conv, activation = self.convs[name]
        return activation(conv(maps))


def _head(maps, widths, num_outputs, dtype):
    """Applies the 1×1 convolutions; the last one computes in float32, against banding."""
    for index, width in enumerate(widths):
        layer = keras.layers.Conv2D(width, 1, kernel_initializer="he_normal", dtype=dtype, name=f"head_conv{index}")
        maps = keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=dtype, name=f"head_relu{index}")(layer(maps))
    gain = keras.initializers.VarianceScaling(LAST_GAIN, mode="fan_in", distribution="untruncated_normal")
    return keras.layers.Conv2D(num_outputs, 1, kernel_initializer=gain, dtype="float32", name="outputs")(maps)
