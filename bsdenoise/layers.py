"""Keras layers of the blind-spot network (Laine et al. 2019, Section 3), written with `keras.ops` only.

A shifted layer looks upwards: its output at row i depends on input rows ≤ i alone. Four rotated copies of the
image pass through one upward-looking network; moving each result down by one row then takes the centre
pixel itself out of its receptive field, and the four half planes join to everything but that pixel.
"""

import keras
from keras import ops


def _pair(value, name: str) -> tuple[int, int]:
    """Reads an integer or a pair of integers as (height, width)."""
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(item, int) for item in pair):
        raise ValueError(f"`{name}` must be an integer or two integers. Received: {name}={value!r}.")
    return tuple(pair)


def shift_down(x, rows: int = 1):
    """Moves feature maps (B, H, W, C) down by `rows`; zeros come in at the top, the lowest rows fall out."""
    return ops.pad(x, ((0, 0), (rows, 0), (0, 0), (0, 0)))[:, : ops.shape(x)[1]]


def rotate(x, quarter_turns: int):
    """Rotates images (B, H, W, C) counter-clockwise by `quarter_turns` times 90°, as `numpy.rot90` does."""
    turns = quarter_turns % 4
    if turns == 0:
        return x
    if turns == 2:
        return ops.flip(x, axis=(1, 2))
    transposed = ops.transpose(x, (0, 2, 1, 3))
    return ops.flip(transposed, axis=1 if turns == 1 else 2)


@keras.saving.register_keras_serializable(package="bsdenoise")
class ShiftConv2D(keras.layers.Layer):
    """2D convolution whose receptive field reaches only upwards, the centre row included.

    Equal to a "same" convolution with zero padding, moved down by ⌊h/2⌋ rows (Laine et al. 2019, Section 3);
    computed as one "valid" convolution of the input padded by h−1 rows on top, none below, and ⌊w/2⌋
    columns on either side.

    Args:
        filters: Number of output maps, ≥ 1.
        kernel_size: Odd height and width of the kernel: an integer, or a pair (h, w).
        activation: Activation of the output: a Keras name, or a callable; `None` for none.
        use_bias: Whether a bias is added.
        kernel_initializer: Initializer of the kernel (h, w, C, filters).
        bias_initializer: Initializer of the bias (filters,).
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Input shape: (B, H, W, C), any H and W ≥ 1, known or not.
    Output shape: (B, H, W, filters).

    Raises:
        ValueError: If `filters` is not a positive integer, or the kernel's height or width not a positive odd one.

    Example:
        >>> y = ShiftConv2D(48, 3, activation="relu")(keras.ops.ones((1, 5, 7, 3)))
        >>> y.shape
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

    def build(self, input_shape):
        """Creates the kernel (h, w, C, filters) and the bias (filters,)."""
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(f"The number of input channels must be known. Received: input_shape={input_shape}.")
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, channels, self.filters),
            initializer=self.kernel_initializer,
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=self.bias_initializer)

    def call(self, inputs):
        """Convolves (B, H, W, C) to (B, H, W, filters)."""
        height, width = self.kernel_size
        padded = ops.pad(inputs, ((0, 0), (height - 1, 0), (width // 2, width // 2), (0, 0)))
        outputs = ops.conv(padded, self.kernel, padding="valid", data_format="channels_last")
        if self.use_bias:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape):
        """Gives (B, H, W, filters)."""
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        """Gives the arguments from which the layer can be made again."""
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

    def call(self, inputs):
        """Pools (B, H, W, C) to (B, H // 2, W // 2, C)."""
        pool = self._POOLING[self.pooling]
        return pool(shift_down(inputs), 2, strides=2, padding="valid", data_format="channels_last")

    def compute_output_shape(self, input_shape):
        """Gives (B, H // 2, W // 2, C)."""
        batch, height, width, channels = input_shape
        return (batch, height and height // 2, width and width // 2, channels)

    def get_config(self):
        """Gives the arguments from which the layer can be made again."""
        return {**super().get_config(), "pooling": self.pooling}


@keras.saving.register_keras_serializable(package="bsdenoise")
class RotateStack(keras.layers.Layer):
    """Makes the four rotations of each image, without padding it to a square.

    Input shape: (B, H, W, C).
    Output shape: A pair: (2B, H, W, C) with the images at 0° then at 180°, and (2B, W, H, C) with the images at
        90° then at 270°.
    """

    UPRIGHT = (0, 2)  # quarter turns in the first stack
    SIDEWAYS = (1, 3)  # and in the second

    def call(self, inputs):
        """Gives the upright pair and the sideways pair of rotations."""
        stacks = ([rotate(inputs, turns) for turns in pair] for pair in (self.UPRIGHT, self.SIDEWAYS))
        return tuple(ops.concatenate(stack, axis=0) for stack in stacks)

    def compute_output_shape(self, input_shape):
        """Gives the shapes of the two stacks."""
        batch, height, width, channels = input_shape
        twice = batch and 2 * batch
        return (twice, height, width, channels), (twice, width, height, channels)


@keras.saving.register_keras_serializable(package="bsdenoise")
class RotateUnstack(keras.layers.Layer):
    """Opens the blind spot: moves each rotated result down by one row, turns it back, and concatenates all four.

    Input shape: The pair that `RotateStack` gives: (2B, H, W, F) and (2B, W, H, F).
    Output shape: (B, H, W, 4F).
    """

    def call(self, inputs):
        """Joins the two stacks to (B, H, W, 4F)."""
        upright, sideways = (shift_down(stack) for stack in inputs)
        batch = ops.shape(upright)[0] // 2
        parts = [
            upright[:batch],
            rotate(sideways[:batch], -1),
            rotate(upright[batch:], -2),
            rotate(sideways[batch:], -3),
        ]
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, input_shape):
        """Gives (B, H, W, 4F)."""
        batch, height, width, features = input_shape[0]
        return (batch and batch // 2, height, width, 4 * features)


def _checked_turns(turns) -> tuple[int, ...]:
    """Reads numbers of quarter turns."""
    if not isinstance(turns, tuple | list) or not turns or not all(turn in range(4) for turn in turns):
        raise ValueError(f"`turns` must be quarter turns from 0 to 3, one or more. Received: turns={turns!r}.")
    return tuple(turns)


def _by_turns(inputs, turns, function):
    """Applies `function(maps, rows_at_end, columns_at_end)` to each rotation in a stack.

    The two flags say where the bottom and the right of the image are after so many quarter turns: at the end of the
    maps' rows, and of their columns, or at the beginning. (A single quarter turn takes the right to the top and the
    bottom to the right.)
    """
    batch = ops.shape(inputs)[0] // len(turns)
    parts = [
        function(inputs[index * batch : (index + 1) * batch], turn in (0, 3), turn in (0, 1))
        for index, turn in enumerate(turns)
    ]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)


@keras.saving.register_keras_serializable(package="bsdenoise")
class PadToMultiple(keras.layers.Layer):
    """Pads with zeros at the bottom and on the right of the image until both sides are multiples of a number.

    Zeros, not reflection: a reflected border would show the network a pixel's own noise next to that pixel. In a stack
    of rotations each map is padded where the image's bottom and right have gone, so that all share one pooling grid.

    Args:
        multiple: The number, ≥ 1.
        turns: Quarter turns of the images that are stacked along the batch, in equal parts.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Input shape: (B, H, W, C).
    Output shape: (B, ⌈H/m⌉m, ⌈W/m⌉m, C).

    Raises:
        ValueError: If `multiple` is not positive, or `turns` are not from 0 to 3.
    """

    def __init__(self, multiple, turns=(0,), **kwargs):
        super().__init__(**kwargs)
        if not isinstance(multiple, int) or multiple < 1:
            raise ValueError(f"`multiple` must be a positive integer. Received: multiple={multiple!r}.")
        self.multiple = multiple
        self.turns = _checked_turns(turns)

    def call(self, inputs):
        """Pads (B, H, W, C)."""
        rows, columns = (-size % self.multiple for size in ops.shape(inputs)[1:3])
        if isinstance(rows, int) and isinstance(columns, int) and rows == columns == 0:
            return inputs  # known beforehand: no copy

        def pad(maps, rows_at_end, columns_at_end):
            row_padding = (0, rows) if rows_at_end else (rows, 0)
            column_padding = (0, columns) if columns_at_end else (columns, 0)
            return ops.pad(maps, ((0, 0), row_padding, column_padding, (0, 0)))

        return _by_turns(inputs, self.turns, pad)

    def compute_output_shape(self, input_shape):
        """Gives the padded shape; an unknown side stays unknown."""
        batch, height, width, channels = input_shape
        padded = (side and side + -side % self.multiple for side in (height, width))
        return (batch, *padded, channels)

    def get_config(self):
        """Gives the arguments from which the layer can be made again."""
        return {**super().get_config(), "multiple": self.multiple, "turns": self.turns}


@keras.saving.register_keras_serializable(package="bsdenoise")
class CropLike(keras.layers.Layer):
    """Undoes `PadToMultiple`: crops maps to the size of a reference at the bottom and on the right of the image.

    Args:
        turns: Quarter turns of the images that are stacked along the batch, in equal parts.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Input shape: A pair: maps (B, H', W', F) and the reference (B, H, W, C), with H' ≥ H and W' ≥ W.
    Output shape: (B, H, W, F).

    Raises:
        ValueError: If `turns` are not from 0 to 3.
    """

    def __init__(self, turns=(0,), **kwargs):
        super().__init__(**kwargs)
        self.turns = _checked_turns(turns)

    def call(self, inputs):
        """Crops the first of the pair to the size of the second."""
        maps, reference = inputs
        height, width = ops.shape(reference)[1:3]
        rows, columns = ops.shape(maps)[1] - height, ops.shape(maps)[2] - width
        if isinstance(rows, int) and isinstance(columns, int) and rows == columns == 0:
            return maps

        def crop(part, rows_at_end, columns_at_end):
            top, left = 0 if rows_at_end else rows, 0 if columns_at_end else columns
            return part[:, top : top + height, left : left + width]

        return _by_turns(maps, self.turns, crop)

    def compute_output_shape(self, input_shape):
        """Gives (B, H, W, F)."""
        maps, reference = input_shape
        return (*reference[:3], maps[-1])

    def get_config(self):
        """Gives the arguments from which the layer can be made again."""
        return {**super().get_config(), "turns": self.turns}
