"""Networks of one's own, as users write them: of layers of Keras, and of the public layers of this package."""

import keras

from bsdenoise import layers
from bsdenoise.network import DenoisingNetwork


def blind(channels, num_outputs, width=2, depth=3, kernel=5):
    """A blind-spot network of another kind than ours: a function from numbers to a functional model."""
    image = keras.Input((None, None, channels))
    down = [layers.ShiftConv2D(width, kernel, activation="leaky_relu") for _ in range(depth)]
    up = [layers.ShiftConv2D(width, kernel, activation="leaky_relu") for _ in range(depth)]
    pads = [layers.PadToMultiple(2) for _ in range(depth)]
    pools = [layers.ShiftDownsample("average") for _ in range(depth)]

    def branch(turns):
        maps, skips = image, []
        for level in range(depth):
            skips.append(down[level](maps, quarter_turns=turns))
            maps = pools[level](pads[level](skips[-1]), quarter_turns=turns)
        for level in reversed(range(depth)):
            maps = up[level](skips[level], coarse=maps, quarter_turns=turns)
        return maps

    # The name that the layer has in ours, whose other names are not there.
    maps = layers.BlindSpot(name="blind_spot")([branch(turns) for turns in range(4)])
    return keras.Model(image, keras.layers.Conv2D(num_outputs, 1)(maps), name="own")


class Plain(DenoisingNetwork):
    """A class of one's own that says nothing but how it is made."""

    def __init__(self, channels=3, num_outputs=3, width=4, **kwargs):
        image = keras.Input((None, None, channels))
        maps = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(image)
        maps = keras.layers.Conv2D(width, 3, padding="same", dilation_rate=2, activation="relu")(maps)
        super().__init__(image, keras.layers.Conv2D(num_outputs, 1)(maps), **kwargs)
        self.num_outputs = num_outputs
        self.width = width

    def get_config(self):
        own = {"channels": self.channels, "num_outputs": self.num_outputs, "width": self.width}
        return {**super().get_config(), **own}


def strided(step):
    """Pools over squares of any side."""
    image = keras.Input((None, None, 1))
    maps = layers.PadToMultiple(step)(image)
    maps = keras.layers.UpSampling2D(step)(keras.layers.AveragePooling2D(step)(maps))
    return keras.Model(image, layers.CropLike()((maps, image)))


def convolutions(kernel, dilation=1, number=1):
    image = maps = keras.Input((None, None, 1))
    for _ in range(number):
        maps = keras.layers.Conv2D(1, kernel, padding="same", dilation_rate=dilation)(maps)
    return keras.Model(image, maps)


def pooled_globally():
    image = keras.Input((None, None, 1))
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True)(image)
    return keras.Model(image, keras.layers.Add()([image, mean]), name="global")


def tells_where():
    """Outputs depend on where in the image a pixel is."""
    image = keras.Input((None, None, 1))
    ones = keras.ops.ones_like(image)
    return keras.Model(image, image + 1e-3 * keras.ops.cumsum(ones, axis=1), name="where")
