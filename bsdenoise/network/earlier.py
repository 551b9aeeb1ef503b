"""Files of earlier versions, which hold networks layer by layer: those of this package by the names that layers had."""

import keras

from bsdenoise.network import architectures

_CLASSES = {"blind_spot_network": architectures.BlindSpotUNet, "unet": architectures.UNet}
_NAMES = {"image", "enc_conv0", "pool1", "outputs"}  # layers that all of them had


def upgraded(config: dict) -> dict:
    """Translate the configuration of a network that an earlier version built, into that of a `DenoisingNetwork`.

    So it gets the layers of today, with the same weights in the same order.

    Args:
        config: As `keras.saving.serialize_keras_object` gives it for a network.

    Returns:
        The same for the class of today; what it was given if that is the configuration of any other network.
    """
    inner = config.get("config") or {}
    kind = _CLASSES.get(inner.get("name", ""))
    parts = {layer["config"].get("name"): layer["config"] for layer in inner.get("layers", [])}
    if kind is None or not _NAMES <= parts.keys():
        return config
    sizes = {
        "channels": parts["image"]["batch_shape"][-1],
        "width": parts["enc_conv0"]["filters"],
        "depth": sum(name.startswith("pool") for name in parts),
        "num_outputs": parts["outputs"]["filters"],
        "pooling": parts["pool1"].get("pooling") or _plain_pooling(inner),
    }
    policy = keras.dtype_policies.get(parts["enc_conv0"]["dtype"]).name
    return {
        "module": None,
        "class_name": kind.__name__,
        "registered_name": keras.saving.get_registered_name(kind),
        "config": {"name": inner["name"], **sizes, "dtype": policy},
    }


def _plain_pooling(inner: dict) -> str:
    """Tell how a plain U-Net pools, whose layers for that are those of Keras."""
    return "max" if any(layer["class_name"] == "MaxPooling2D" for layer in inner["layers"]) else "average"
