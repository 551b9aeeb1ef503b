"""A widened network computes what the narrow one did, and its new maps learn."""

import keras
import numpy as np
import pytest
from keras import ops

from bsdenoise import blind_spot_network
from bsdenoise.methods.losses import GaussianNLL
from bsdenoise.network.widening import widened

SIGMA = 0.1


def trained(channels, width, depth=3, **options):
    """A network whose biases are not zero, as those of a fresh one are."""
    keras.utils.set_random_seed(width)
    network = blind_spot_network(channels, width, depth, **options)
    rng = np.random.default_rng(width)
    network.set_weights([weight + 0.05 * rng.standard_normal(weight.shape) for weight in network.get_weights()])
    return network


@pytest.mark.parametrize(("channels", "depth", "width"), [(1, 1, 5), (3, 3, 8), (2, 2, 9)])
def test_it_computes_the_same(channels, depth, width):
    narrow, wide = trained(channels, 4, depth), trained(channels, width, depth)
    image = np.random.default_rng(0).random((2, 21, 26, channels), np.float32)
    expected = ops.convert_to_numpy(narrow(image))
    assert np.abs(ops.convert_to_numpy(wide(image)) - expected).max() > 0.1
    wide.set_weights(widened(narrow, wide))
    np.testing.assert_allclose(ops.convert_to_numpy(wide(image)), expected, atol=1e-6)


def test_new_maps_have_weights_of_their_own_that_nothing_old_reads():
    narrow, wide = trained(1, 4), trained(1, 6)
    weights = dict(zip([weight.path for weight in wide.weights], widened(narrow, wide), strict=True))
    old = {weight.path: ops.convert_to_numpy(weight) for weight in narrow.weights}
    kernel = weights["dec_conv1a/kernel"]  # maps from below, 8 of which became 12, and behind them the image
    np.testing.assert_array_equal(kernel[:, :, [*range(8), 12], :8], old["dec_conv1a/kernel"])
    assert (kernel[:, :, 8:12, :8] == 0.0).all()
    assert (kernel[..., 8:] != 0.0).all()
    np.testing.assert_array_equal(weights["enc_conv0/bias"][:4], old["enc_conv0/bias"])


def test_all_weights_learn():
    """From the second step on: in the first, what reads the new maps is zero, so that nothing comes back to them."""
    narrow, wide = trained(1, 4), trained(1, 6)
    wide.set_weights(widened(narrow, wide))
    before = wide.get_weights()
    noisy = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    wide.compile(keras.optimizers.Adam(1e-3), loss=GaussianNLL(1, SIGMA))
    wide.fit(noisy, noisy, epochs=2, verbose=0)
    for weight, value in zip(wide.weights, before, strict=True):
        changed = ops.convert_to_numpy(weight) != value
        assert changed.mean() > 0.9, weight.path


def test_what_cannot_grow_is_refused():
    with pytest.raises(ValueError, match=r"cannot become narrower: enc_conv0/kernel is \(3, 3, 1, 4\)"):
        widened(trained(1, 4), trained(1, 3))
    with pytest.raises(ValueError, match="Only the width of a network can grow"):
        widened(trained(1, 4, 2), trained(1, 4, 3))
