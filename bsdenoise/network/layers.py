"""Keras layers of the blind-spot network (Laine et al. 2019, Section 3), written with `keras.ops` only.

A shifted layer looks upwards: its output at row i depends on input rows ≤ i alone. In the paper four rotated copies
of the image pass through one upward-looking network; moving each result down by one row then takes the centre
pixel itself out of its receptive field, and the four half planes join to everything but that pixel. Moved by s rows,
they join to everything but 2s − 1 rows and columns, which hides noise that pixels less than s apart share.

Here nothing but kernels is rotated: turning the image by t quarter turns, applying a layer, and turning the result
back is the same as applying the layer with its kernel and its padding turned back. That is what `quarter_turns` asks
of a layer.
"""

import keras
from keras import ops

from bsdenoise.network import blindness, rotation, upsampled_convolution


def _pair(value, name: str) -> tuple[int, int]:
    """Read an integer or a pair of integers as (height, width)."""
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(item, int) for item in pair):
        raise ValueError(f"`{name}` must be an integer or two integers. Received: {name}={value!r}.")
    return tuple(pair)


@keras.saving.register_keras_serializable(package="bsdenoise")
class ShiftConv2D(keras.layers.Layer):
    """2D convolution whose receptive field reaches only upwards, the centre row included.

    Equal to a "same" convolution with zero padding, moved down by ⌊h/2⌋ rows (Laine et al. 2019, Section 3);
    computed as one "valid" convolution of the input padded by h−1 rows on top, none below, and ⌊w/2⌋
    columns on either side.

    With `coarse`, maps at half the resolution are upsampled by repeating pixels, cropped at the bottom and on the
    right to the size of the input, and put in front of it: a decoder's upsampling, concatenation and convolution in
    one. It takes 4/9 of the multiplications for those maps (`bsdenoise.network.upsampled_convolution`).

    Args:
        filters: Number of output maps, ≥ 1.
        kernel_size: Odd height and width of the kernel: an integer, or a pair (h, w).
        activation: Activation of the output: a Keras name, or a callable; `None` for none.
        use_bias: Whether a bias is added.
        kernel_initializer: Initializer of the kernel (h, w, C, filters).
        bias_initializer: Initializer of the bias (filters,).
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Maps (B, H, W, C).
        coarse: Maps (B, ⌈H/2⌉, ⌈W/2⌉, D); `None` for none.
        quarter_turns: The layer is applied to the images turned counter-clockwise so often, and its result turned back.

    Input shape: (B, H, W, C), any H and W ≥ 1, known or not.
    Output shape: (B, H, W, filters).

    Raises:
        ValueError: If `filters` is not a positive integer, or the kernel's height or width not a positive odd one.

    Example:
        >>> y = ShiftConv2D(48, 3, activation="relu")(keras.ops.ones((1, 5, 7, 3)))
        >>> tuple(y.shape)
        (1, 5, 7, 48)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        activation=None,
        use_bias=True,
        kernel_initializer="he_normal",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(filters, int) or filters < 1:
            raise ValueError(f"`filters` must be a positive integer. Received: filters={filters!r}.")
        self.filters = filters
        self.kernel_size = _pair(kernel_size, "kernel_size")
        if any(size < 1 or size % 2 == 0 for size in self.kernel_size):
            raise ValueError(f"`kernel_size` must be odd and positive. Received: kernel_size={kernel_size!r}.")
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, inputs_shape, coarse_shape=None):
        """Create the kernel (h, w, D + C, filters) and the bias (filters,)."""
        channels = inputs_shape[-1]
        self.num_coarse = 0 if coarse_shape is None else coarse_shape[-1]
        if channels is None or self.num_coarse is None:
            raise ValueError(f"The number of input channels must be known. Received: input_shape={inputs_shape}.")
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, self.num_coarse + channels, self.filters),
            initializer=self.kernel_initializer,
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=self.bias_initializer)

    def call(self, inputs, coarse=None, quarter_turns=0):
        """Convolves (B, H, W, C), and (B, ⌈H/2⌉, ⌈W/2⌉, D) if given, to (B, H, W, filters)."""
        height, width = self.kernel_size
        padding = rotation.Padding(height - 1, width // 2, 0, width // 2).turned_back(quarter_turns)
        kernel = ops.convert_to_tensor(self.kernel)
        if coarse is not None:
            coarse_kernel, kernel = ops.split(kernel, [self.num_coarse], axis=2)
        kernel = rotation.turn_kernel_back(kernel, quarter_turns)
        outputs = ops.conv(rotation.pad(inputs, padding), kernel, padding="valid", data_format="channels_last")
        if self.use_bias:
            outputs = outputs + self.bias
        if coarse is not None:
            size = ops.shape(inputs)[1:3]
            outputs = outputs + upsampled_convolution.convolve_upsampled(
                coarse, coarse_kernel, padding, quarter_turns, *size
            )
        return self.activation(outputs)

    def compute_output_shape(self, inputs_shape, coarse_shape=None):
        """Return (B, H, W, filters)."""
        return (*inputs_shape[:-1], self.filters)

    def get_config(self):
        """Return the arguments from which the layer can be made again."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


@keras.saving.register_keras_serializable(package="bsdenoise")
class ShiftDownsample(keras.layers.Layer):
    """Halves the resolution and keeps the receptive field upwards only.

    Moves the maps down by one row, then pools 2×2 (Laine et al. 2019, Section 3): an output row then holds
    nothing from below the upper one of the two rows that it will cover again after upsampling.

    Call arguments:
        inputs: Maps (B, H, W, C).
        quarter_turns: The layer is applied to the images turned counter-clockwise so often, and its result turned back.

    Args:
        pooling: "max" (as in the U-Net of Noise2Noise), or "average" (the paper's bilinear example).
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Input shape: (B, H, W, C). An odd last row or column is dropped.
    Output shape: (B, H // 2, W // 2, C).

    Raises:
        ValueError: If `pooling` is neither of the two.
    """

    _POOLING = {"max": ops.max_pool, "average": ops.average_pool}

    def __init__(self, pooling="max", **kwargs):
        super().__init__(**kwargs)
        if not isinstance(pooling, str) or pooling not in self._POOLING:
            raise ValueError(f"`pooling` must be 'max' or 'average'. Received: pooling={pooling!r}.")
        self.pooling = pooling
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs, quarter_turns=0):
        """Pools (B, H, W, C) to (B, H // 2, W // 2, C)."""
        height, width = ops.shape(inputs)[1:3]
        moved = rotation.Padding(1, 0, 0, 0).turned_back(quarter_turns)
        # Where the zeros come in at the bottom, the uppermost row leaves: it gets a zero of its own and goes with it.
        padding = rotation.Padding(moved.top + moved.bottom, moved.right, moved.bottom, moved.left + moved.right)
        pool = self._POOLING[self.pooling]
        pooled = pool(rotation.pad(inputs, padding), 2, strides=2, padding="valid", data_format="channels_last")
        return rotation.window(pooled, moved.bottom, moved.right, height // 2, width // 2)

    def compute_output_shape(self, input_shape):
        """Return (B, H // 2, W // 2, C)."""
        batch, height, width, channels = input_shape
        return (batch, height and height // 2, width and width // 2, channels)

    def get_config(self):
        """Return the arguments from which the layer can be made again."""
        return {**super().get_config(), "pooling": self.pooling}


@keras.saving.register_keras_serializable(package="bsdenoise")
class BlindSpot(keras.layers.Layer):
    """Opens the blind spot: moves the maps of each branch away from where it looks, and concatenates them.

    For a blind spot of one pixel they are moved by one pixel. A larger one hides noise that neighbouring pixels share:
    branches that look up and down are moved by (height + 1) / 2 pixels, the others by (width + 1) / 2.

    Args:
        size: Height and width of the blind spot in pixels, both odd and at most 31: a pair, an integer, or text such
            as "3x3".
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Input shape: As many (B, H, W, F) as there are branches; number t looks upwards after t quarter turns.
    Output shape: (B, H, W, F times the number of branches).

    Raises:
        ValueError: If `size` is none of these.
    """

    def __init__(self, size=(1, 1), **kwargs):
        super().__init__(**kwargs)
        self.size = blindness.size_of(size)

    def call(self, inputs):
        """Join the branches."""
        return ops.concatenate(self.moved(inputs), axis=-1)

    def moved(self, inputs):
        """Return the maps of each branch moved away from where it looks."""
        shifts = blindness.shifts(self.size)
        return [
            rotation.shift(maps, quarter_turns, shifts[quarter_turns % 2]) for quarter_turns, maps in enumerate(inputs)
        ]

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, F times the number of branches)."""
        return (*input_shape[0][:-1], sum(shape[-1] for shape in input_shape))

    def get_config(self):
        """Return the arguments from which the layer can be made again."""
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="bsdenoise")
class PadToMultiple(keras.layers.Layer):
    """Pads with zeros at the bottom and on the right until both sides are multiples of a number.

    Zeros, not reflection: a reflected border would show the network a pixel's own noise next to that pixel.

    Args:
        multiple: The number, ≥ 1.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Input shape: (B, H, W, C).
    Output shape: (B, ⌈H/m⌉m, ⌈W/m⌉m, C).

    Raises:
        ValueError: If `multiple` is not positive.
    """

    def __init__(self, multiple, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(multiple, int) or multiple < 1:
            raise ValueError(f"`multiple` must be a positive integer. Received: multiple={multiple!r}.")
        self.multiple = multiple

    def call(self, inputs):
        """Pad (B, H, W, C)."""
        rows, columns = (-size % self.multiple for size in ops.shape(inputs)[1:3])
        if isinstance(rows, int) and isinstance(columns, int) and rows == columns == 0:
            return inputs  # known beforehand: no copy
        return rotation.pad(inputs, rotation.Padding(0, columns, rows, 0))

    def compute_output_shape(self, input_shape):
        """Return the padded shape; an unknown side stays unknown."""
        batch, height, width, channels = input_shape
        padded = (side and side + -side % self.multiple for side in (height, width))
        return (batch, *padded, channels)

    def get_config(self):
        """Return the arguments from which the layer can be made again."""
        return {**super().get_config(), "multiple": self.multiple}


@keras.saving.register_keras_serializable(package="bsdenoise")
class CropLike(keras.layers.Layer):
    """Undoes `PadToMultiple`: crops maps to the size of a reference at the bottom and on the right.

    Input shape: A pair: maps (B, H', W', F) and the reference (B, H, W, C), with H' ≥ H and W' ≥ W.
    Output shape: (B, H, W, F).
    """

    def call(self, inputs):
        """Crop the first of the pair to the size of the second."""
        maps, reference = inputs
        return rotation.window(maps, 0, 0, *ops.shape(reference)[1:3])

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, F)."""
        maps, reference = input_shape
        return (*reference[:3], maps[-1])
