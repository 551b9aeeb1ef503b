"""What is compared in speed computes the same thing."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import transcription
from bsdenoise import blind_spot_network
from bsdenoise.likelihood import GaussianLikelihood

SIGMA = 0.1


@pytest.fixture(scope="module")
def network():
    network = blind_spot_network(width=4, depth=3)
    rng = np.random.default_rng(0)
    for weight in network.weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 25.0
        weight.assign(rng.standard_normal(weight.shape) / np.sqrt(fan_in))
    return network


@pytest.fixture(scope="module")
def noisy():
    return tf.constant(np.random.default_rng(1).random((2, 16, 16, 3), dtype="float32"))


def test_network(network, noisy):
    np.testing.assert_allclose(transcription.Transcription(network)(noisy), network(noisy), rtol=1e-4, atol=1e-5)


def test_sides_that_differ_are_padded_to_a_square(network, noisy):
    """Zeros around the image are seen near its borders, so the middle alone can be compared."""
    outputs = transcription.Transcription(network)(noisy[:, :8])
    assert outputs.shape == (2, 8, 16, 9)
    assert np.isfinite(outputs).all()


def test_network_in_bfloat16(network, noisy):
    outputs = transcription.Transcription(network, "bfloat16")(noisy)
    assert outputs.dtype == tf.float32
    differences = np.abs(outputs - network(noisy))
    assert 1e-4 < differences.max() < 0.1 * np.std(network(noisy))


def test_likelihood_and_map(network, noisy):
    outputs = network(noisy)
    likelihood = GaussianLikelihood(3)
    np.testing.assert_allclose(
        transcription.nll(outputs, noisy, SIGMA), likelihood.nll(outputs, noisy, SIGMA), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        transcription.map_estimate(outputs, noisy, SIGMA),
        likelihood.map_estimate(outputs, noisy, SIGMA),
        rtol=1e-3,
        atol=1e-3,
    )


def test_training_step_learns(network, noisy):
    step = transcription.training_step(transcription.Transcription(network), SIGMA)
    losses = [float(step(noisy)) for _ in range(8)]
    np.testing.assert_allclose(losses[0], np.mean(GaussianLikelihood(3).nll(network(noisy), noisy, SIGMA)), rtol=1e-4)
    assert losses[-1] < losses[0]
