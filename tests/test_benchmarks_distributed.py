"""The model of scaling on paper, against sums done by hand."""

import dataclasses

import pytest

from benchmarks import scaling_model
from benchmarks.scaling_model import Config

CONFIG = Config(
    parameters=1_000_000, share=0.1, peak_tflops=100.0, overhead_ms=2.0, gbits=8.0, local_gbits=80.0, latency_us=10.0
)


def test_ring():
    """4 MB over two GPUs of a machine: 4 MB each at 10 GB/s, and two messages; over four machines at 1 GB/s."""
    assert scaling_model.allreduce_seconds(CONFIG, 1) == 0
    assert scaling_model.allreduce_seconds(CONFIG, 2) == pytest.approx(4e6 / 10e9 + 2 * 10e-6)
    assert scaling_model.allreduce_seconds(CONFIG, 32) == pytest.approx(2 * 31 / 32 * 4e6 / 1e9 + 62 * 10e-6)


def test_step_and_efficiency():
    """100 GFLOP per crop at 10 TFLOP/s: 10 ms a crop."""
    one, two = (scaling_model.step_seconds(CONFIG, gpus, 4, 100.0) for gpus in (1, 2))
    assert one == pytest.approx(0.042) and two == pytest.approx(0.042 + 0.00042)
    assert scaling_model.efficiency(CONFIG, 2, 4, 100.0) == pytest.approx(42 / 42.42)
    assert scaling_model.efficiency(CONFIG, 1000, 4, 100.0) < scaling_model.efficiency(CONFIG, 1000, 32, 100.0) < 1
    faster = dataclasses.replace(CONFIG, gbits=80.0)
    assert scaling_model.efficiency(faster, 1000, 4, 100.0) > scaling_model.efficiency(CONFIG, 1000, 4, 100.0)


@pytest.mark.slow
def test_operations_of_the_papers_network():
    """Three times the forward pass, which `benchmarks.work` counts from the shapes of the weights."""
    from benchmarks import work
    from bsdenoise.network import blind_spot_network

    forward = 2 * 256 * 256 * sum(one.done() for one in work.convolutions(blind_spot_network())) / 1e9
    assert scaling_model.counted_gflop() == pytest.approx(3 * forward, rel=0.1)
