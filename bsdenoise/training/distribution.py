"""Which devices train: the only module that names tf.distribute strategies."""

from pathlib import Path

import tensorflow as tf

NVIDIA_DRIVER = Path("/proc/driver/nvidia")  # exists on Linux where the driver is loaded


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


def hint() -> str | None:
    """Says what to do where the machine has a GPU that TensorFlow does not see; `None` where nothing is amiss."""
    if NVIDIA_DRIVER.exists() and not tf.config.list_physical_devices("GPU"):
        return "this machine has an NVIDIA driver but TensorFlow sees no GPU: pip install 'bsdenoise[gpu]'"
    return None
