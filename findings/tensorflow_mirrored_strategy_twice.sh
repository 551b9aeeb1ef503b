#!/bin/sh
# TensorFlow 2.21.0, Keras 3.15.1, NumPy 2.4.6, on the CPU cut into two logical devices.
#
# Usual guess: a `tf.distribute.MirroredStrategy` stands for itself. Two trainings in one process, one after the other,
# may each make their own.
#
# Seen: each strategy numbers what its devices add up from the same number on, and the runtime remembers the shape that
# belongs to a number. So a second strategy whose variables have other shapes fails in its first step with
# InvalidArgumentError, "Shape mismatch in the collective instance"; the message asks for the program to be started again.
# The same two trainings with one strategy go through.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1 numpy==2.4.6
cd "$folder"
cat > train.py <<'PROGRAM'
import sys

import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def train(strategy, size):
    """Take one step with a kernel of `size` columns, mirrored on both devices."""
    with strategy.scope():
        kernel = tf.Variable(tf.ones((3, size)))
        optimizer = tf.keras.optimizers.SGD(0.1)
        optimizer.build([kernel])

    def replica():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.ones((1, 3)) @ kernel)
        optimizer.apply([tape.gradient(loss, kernel)])

    tf.function(lambda: strategy.run(replica))()


strategies = [tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) for _ in range(int(sys.argv[1]))]
try:
    for strategy, size in zip((strategies[0], strategies[-1]), (4, 5)):
        train(strategy, size)
    print("both went through")
except tf.errors.InvalidArgumentError as error:
    print("shapes differ" if "Shape mismatch in the collective instance" in error.message else error.message)
PROGRAM
shared=$(TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" train.py 1 2> /dev/null | tail -n 1)
own=$(TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" train.py 2 2> /dev/null | tail -n 1)
echo "one strategy for both: $shared; a strategy for each: $own"
[ "$shared" = "both went through" ] && [ "$own" = "shapes differ" ]
