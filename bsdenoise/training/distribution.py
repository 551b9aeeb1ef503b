"""Which devices train: the only module that names tf.distribute strategies."""

import tensorflow as tf


def choose_strategy() -> tf.distribute.Strategy:
    """Mirrors the network over all GPUs, or over all logical CPU devices if there are several; else one device."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def describe(strategy: tf.distribute.Strategy) -> str:
    """Says in a few words what trains."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    count = strategy.num_replicas_in_sync
    return f"{count} {kind}{'s' if count > 1 else ''}"
