"""The networks: a U-Net, and the blind-spot network made of four rotations of it (Laine et al. 2019, Section 3)."""

import keras

from bsdenoise.layers import CropLike, PadToMultiple, RotateStack, RotateUnstack, ShiftConv2D, ShiftDownsample

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
    padded = PadToMultiple(2**depth, dtype=dtype, name="pad")(image)
    body = _unet_body(channels, width, depth, pooling, dtype, shifted=True)
    upright, sideways = RotateStack(dtype=dtype, name="rotate_stack")(padded)
    maps = RotateUnstack(dtype=dtype, name="rotate_unstack")((body(upright), body(sideways)))
    maps = _head(maps, (8 * width, 2 * width), num_outputs or num_gaussian_outputs(channels), dtype)
    return keras.Model(image, CropLike(dtype="float32", name="crop")((maps, image)), name="blind_spot_network")


def unet(channels=3, width=48, depth=5, num_outputs=None, pooling="max", dtype=None):
    """Builds the same U-Net without shifts and rotations: the baseline, which sees the pixel itself.

    Args and returns as for `blind_spot_network`.
    """
    image = _checked_input(channels, width, depth, num_outputs)
    padded = PadToMultiple(2**depth, dtype=dtype, name="pad")(image)
    maps = _unet_body(channels, width, depth, pooling, dtype, shifted=False)(padded)
    maps = _head(maps, (2 * width, 2 * width), num_outputs or num_gaussian_outputs(channels), dtype)
    return keras.Model(image, CropLike(dtype="float32", name="crop")((maps, image)), name="unet")


def _checked_input(channels, width, depth, num_outputs):
    """Makes the input node (B, H, W, C), after a look at the arguments."""
    sizes = {"channels": channels, "width": width, "depth": depth, "num_outputs": num_outputs}
    for name, value in sizes.items():
        if name == "num_outputs" and value is None:
            continue
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}.")
    return keras.Input((None, None, channels), name="image")


def _unet_body(channels, width, depth, pooling, dtype, shifted):
    """Builds the encoder and decoder, from (B, H, W, C) to (B, H, W, 2·width); H and W multiples of 2^depth."""
    pools = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}
    if pooling not in pools:
        raise ValueError(f"`pooling` must be 'max' or 'average'. Received: pooling={pooling!r}.")

    def conv(filters, name):
        activation = keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=dtype, name=f"{name}_relu")
        if shifted:
            layer = ShiftConv2D(filters, 3, dtype=dtype, name=name)
        else:
            layer = keras.layers.Conv2D(
                filters, 3, padding="same", kernel_initializer="he_normal", dtype=dtype, name=name
            )
        return lambda x: activation(layer(x))

    def downsample(name):
        if shifted:
            return ShiftDownsample(pooling, dtype=dtype, name=name)
        return pools[pooling](2, dtype=dtype, name=name)

    image = keras.Input((None, None, channels), name="body_input")
    maps = conv(width, "enc_conv0")(image)
    skips = [image]
    for level in range(1, depth + 1):
        maps = downsample(f"pool{level}")(conv(width, f"enc_conv{level}")(maps))
        skips.append(maps)
    maps = conv(width, f"enc_conv{depth + 1}")(maps)
    for level in range(depth, 0, -1):
        maps = keras.layers.UpSampling2D(2, dtype=dtype, name=f"upsample{level}")(maps)
        maps = keras.layers.Concatenate(dtype=dtype, name=f"concat{level}")([maps, skips[level - 1]])
        maps = conv(2 * width, f"dec_conv{level}a")(maps)
        maps = conv(2 * width, f"dec_conv{level}b")(maps)
    return keras.Model(image, maps, name="unet_body")


def _head(maps, widths, num_outputs, dtype):
    """Applies the 1×1 convolutions; the last one computes in float32, against banding."""
    for index, width in enumerate(widths):
        layer = keras.layers.Conv2D(width, 1, kernel_initializer="he_normal", dtype=dtype, name=f"head_conv{index}")
        maps = keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=dtype, name=f"head_relu{index}")(layer(maps))
    gain = keras.initializers.VarianceScaling(LAST_GAIN, mode="fan_in", distribution="untruncated_normal")
    return keras.layers.Conv2D(num_outputs, 1, kernel_initializer=gain, dtype="float32", name="outputs")(maps)
