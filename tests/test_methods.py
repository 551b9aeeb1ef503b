"""Tests of the methods: what each shows the network, what it compares with, by which loss, on which network."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bsdenoise import methods
from bsdenoise.likelihood import GaussianLikelihood
from bsdenoise.methods import Crop, registry
from bsdenoise.methods.masking import Masking
from bsdenoise.noise import GaussianNoise
from tests import reference

NAMES = ("full", "per_component", "l2", "n2n", "n2c", "n2v")
SIGMA = np.float32(0.1)
NOISE = GaussianNoise(0.1, 0.1)


def _crop(channels=3, seed=0, is_noisy_already=False):
    """A crop whose clean pixels and two copies all differ."""
    rng = np.random.default_rng(seed)
    clean = rng.uniform(size=(8, 8, channels)).astype("float32")
    copies = [clean + SIGMA * rng.standard_normal(clean.shape).astype("float32") for _ in range(2)]
    return Crop(
        copies.__getitem__, None if is_noisy_already else clean, np.array([SIGMA]), np.random.default_rng(seed)
    ), copies


def _twin_loss(name, channels, target, outputs):
    """The loss of each method, pixel by pixel in float64, averaged over one image."""
    target, outputs = np.asarray(target, float), np.asarray(outputs, float)
    losses = []
    for place in np.ndindex(*target.shape[:2]):
        seen, predicted = target[place], outputs[place]
        if name in ("full", "per_component"):
            mean, _, noisy_cov = reference.covariances(
                predicted[None], channels, "prior", np.array([seen[channels]]), name == "per_component"
            )
            residual = seen[:channels] - mean[0]
            precise = np.linalg.inv(noisy_cov[0])
            losses.append(0.5 * residual @ precise @ residual + 0.5 * np.log(np.linalg.det(noisy_cov[0])))
        elif name == "n2v":
            if seen[channels]:
                losses.append(sum((seen[c] - predicted[c]) ** 2 for c in range(channels)) / channels)
        else:
            losses.append(sum((seen[c] - predicted[c]) ** 2 for c in range(channels)) / channels)
    return np.mean(losses)


def test_names_are_those_of_the_table():
    assert methods.names() == NAMES
    assert [method for method in map(methods.get, NAMES) if method.has_posterior] == list(map(methods.get, NAMES[:2]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_loss_equals_a_twin(name, channels):
    method = methods.get(name)
    pairs = [method.example(_crop(channels, seed)[0]) for seed in range(3)]
    num_outputs = method.estimator(channels).num_outputs
    outputs = 0.3 * np.random.default_rng(5).standard_normal((3, 8, 8, num_outputs)).astype("float32")
    targets = np.stack([target for _, target in pairs])
    assert targets.shape[-1] == channels + method.num_extra(NOISE)
    per_pixel = np.asarray(method.loss(channels, "prior", NOISE).call(targets, outputs))
    assert per_pixel.shape == (3, 8, 8)
    expected = [_twin_loss(name, channels, *pair) for pair in zip(targets, outputs, strict=True)]
    np.testing.assert_allclose(per_pixel.mean(axis=(1, 2)), expected, rtol=2e-5)
    assert float(method.loss(channels, "prior", NOISE)(targets, outputs)) == pytest.approx(np.mean(expected), rel=2e-5)


def test_n2v_has_no_gradient_from_unmasked_pixels():
    """Neither outputs nor targets outside of the mask matter; at every masked pixel both do."""
    method = methods.get("n2v")
    targets = np.stack([method.example(_crop(seed=seed)[0])[1] for seed in range(2)])
    outputs = tf.constant(np.random.default_rng(0).standard_normal((2, 8, 8, 3)), tf.float32)
    noisy, mask = tf.constant(targets[..., :3]), tf.constant(targets[..., 3:])
    with tf.GradientTape() as tape:
        tape.watch([outputs, noisy])
        loss = method.loss(3, "prior", NOISE)(tf.concat([noisy, mask], axis=-1), outputs)
    is_masked = np.broadcast_to(targets[..., 3:] == 1, outputs.shape)
    assert 0 < is_masked.sum() < is_masked.size / 8
    for gradient in tape.gradient(loss, [outputs, noisy]):
        np.testing.assert_array_equal(gradient.numpy() != 0, is_masked)


def test_n2v_without_a_masked_pixel_is_zero_not_undefined():
    target = np.concatenate([np.ones((1, 4, 4, 2)), np.zeros((1, 4, 4, 1))], axis=-1).astype("float32")
    assert float(methods.get("n2v").loss(2, "prior", NOISE)(target, np.zeros((1, 4, 4, 2), "float32"))) == 0.0


def test_n2v_loss_errors_and_config():
    loss = methods.get("n2v").loss(3, "prior", NOISE)
    with pytest.raises(ValueError, match=r"must have 4 channels: those of the image, then the mask.*\(1, 4, 4, 3\)"):
        loss(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 3)))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()


@pytest.mark.parametrize("name", ["full", "per_component", "l2"])
def test_blind_methods_look_at_one_copy(name):
    crop, (noisy, _) = _crop(is_noisy_already=True)
    shown, target = methods.get(name).example(crop)
    np.testing.assert_array_equal(shown, noisy)
    np.testing.assert_array_equal(target[..., :3], noisy)
    if name != "l2":
        np.testing.assert_array_equal(target[..., 3], SIGMA)


def test_n2n_looks_at_both_copies_either_way_round():
    firsts = set()
    for seed in range(20):
        crop, copies = _crop(seed=seed)
        shown, target = methods.get("n2n").example(crop)
        first = int(np.array_equal(shown, copies[1]))
        np.testing.assert_array_equal(shown, copies[first])
        np.testing.assert_array_equal(target, copies[1 - first])
        firsts.add(first)
    assert firsts == {0, 1}


def test_n2c_compares_with_the_clean_image():
    crop, (noisy, _) = _crop()
    shown, target = methods.get("n2c").example(crop)
    np.testing.assert_array_equal(shown, noisy)
    np.testing.assert_array_equal(target, crop.clean)


def test_n2v_compares_with_the_noisy_image_where_it_was_masked():
    crop, (noisy, _) = _crop(is_noisy_already=True)
    shown, target = methods.NoiseToVoid(Masking(fraction=1 / 4, radius=1)).example(crop)
    np.testing.assert_array_equal(target[..., :3], noisy)
    np.testing.assert_array_equal((shown != noisy).all(axis=-1), target[..., 3] == 1)
    assert target[..., 3].sum() == 16


@pytest.mark.parametrize("name", NAMES)
def test_only_blind_networks_are_blind(name):
    """Each output's derivative with respect to its own pixel: zero everywhere, or not."""
    method = methods.get(name)
    network = method.network(2, width=4, depth=2)
    assert network.output_shape[-1] == method.estimator(2).num_outputs
    image = tf.constant(np.random.default_rng(0).uniform(size=(1, 6, 7, 2)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(image)
        outputs = network(image)
        sums = tf.reduce_sum(outputs, axis=-1)[0]
    jacobian = tape.jacobian(sums, image).numpy()[:, :, 0]
    own = np.array([np.abs(jacobian[i, j, i, j]).max() for i in range(6) for j in range(7)])
    neighbour = np.array([np.abs(jacobian[i, j, i - 1, j]).max() for i in range(1, 6) for j in range(7)])
    assert (neighbour > 0).all()
    assert (own == 0).all() if method.is_blind else (own > 0).all()


@pytest.mark.parametrize("factor", ["prior", "precision"])
def test_full_is_per_component_on_one_channel(factor):
    """Bit for bit: outputs are read alike, so weights from the same seed stay the same."""
    rng = np.random.default_rng(0)
    outputs = rng.standard_normal((2, 5, 4, 2)).astype("float32")
    noisy = rng.uniform(size=(2, 5, 4, 1)).astype("float32")
    full, diagonal = (GaussianLikelihood(1, factor, diagonal) for diagonal in (False, True))
    assert full.num_outputs == diagonal.num_outputs == 2
    np.testing.assert_array_equal(full.nll(outputs, noisy, SIGMA), diagonal.nll(outputs, noisy, SIGMA))
    for one, other in zip(full.moments(outputs, noisy, SIGMA), diagonal.moments(outputs, noisy, SIGMA), strict=True):
        np.testing.assert_array_equal(one, other)


def test_own_method(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    class Halved(methods.L2):
        name = "halved"

        def example(self, crop):
            shown, target = super().example(crop)
            return shown, target / 2

    methods.register(Halved())
    assert methods.names()[-1] == "halved" and isinstance(methods.get("halved"), Halved)
    with pytest.raises(ValueError, match="a method of that name already.*'halved'"):
        methods.register(Halved())


def test_unknown_method():
    with pytest.raises(ValueError, match=r"`method` must be one of \('full', .*'n2v'\). Received: method='n2w'"):
        methods.get("n2w")
