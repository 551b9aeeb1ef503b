"""Metrics: the names, labels and bounds of TensorFlow-Serving, in text that Prometheus' own parser reads."""

import math

import pytest
from prometheus_client import parser

from bsdenoise.server.metrics import MAX_MODELS, Metrics


def samples(metrics):
    """Gives what a scrape would see: {(name, labels): value}."""
    families = parser.text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(metrics, name, **labels):
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def test_requests_are_counted_by_model_and_status():
    metrics = Metrics()
    for status in ("OK", "OK", "NOT_FOUND"):
        metrics.answered("a", status, "REST", 0.002)
    metrics.answered('b"\\\n', "OK", "GRPC", 0.5)
    name = ":tensorflow:serving:request_count"
    assert value(metrics, name, model_name="a", status="OK") == 2
    assert value(metrics, name, model_name="a", status="NOT_FOUND") == 1
    assert value(metrics, name, model_name='b"\\\n', status="OK") == 1


def test_latencies_are_histograms_in_microseconds():
    metrics = Metrics()
    times = [0.000_01, 0.002, 0.002, 10_000.0]
    for seconds in times:
        metrics.answered("a", "OK", "REST", seconds)
        metrics.computed("a", seconds)
    for name, labels in {
        ":tensorflow:serving:request_latency": {"API": "predict", "entrypoint": "REST", "model_name": "a"},
        ":tensorflow:serving:runtime_latency": {"API": "predict", "runtime": "TF1", "model_name": "a"},
    }.items():
        buckets = {
            dict(found)["le"]: count
            for (sample, found), count in samples(metrics).items()
            if sample == name + "_bucket" and dict(found).items() >= labels.items()
        }
        assert len(buckets) == 34  # 33 bounds from 10 µs on, each 1.8 times the last, and the rest
        bounds = sorted(map(float, buckets))
        assert bounds[:2] == [10, 18] and bounds[-1] == math.inf
        assert bounds[32] == pytest.approx(10 * 1.8**32, rel=1e-4)
        for bound, count in buckets.items():
            assert count == sum(1e6 * seconds <= float(bound) * 1.0001 for seconds in times)
        assert value(metrics, name + "_count", **labels) == 4
        assert value(metrics, name + "_sum", **labels) == pytest.approx(1e6 * sum(times))


def test_methods_are_told_apart():
    metrics = Metrics()
    metrics.answered("a", "INVALID_ARGUMENT", "REST", 0.1, "classify")
    name = ":tensorflow:serving:request_latency_count"
    assert value(metrics, name, API="classify", entrypoint="REST", model_name="a") == 1


def test_loads_and_warm_ups():
    metrics = Metrics()
    metrics.loaded("/m/1", True, 0.25)
    metrics.loaded("/m/2", False, 9.0)
    metrics.loaded("/m/3", True)
    metrics.warmed_up("/m/1", "OK", 0.5)
    attempts, latency = (f":tensorflow:cc:saved_model:load_{what}" for what in ("attempt_count", "latency"))
    assert value(metrics, attempts, model_path="/m/1", status="success") == 1
    assert value(metrics, attempts, model_path="/m/2", status="fail") == 1
    assert value(metrics, latency, model_path="/m/1") == 250_000
    assert [dict(labels)["model_path"] for name, labels in samples(metrics) if name == latency] == ["/m/1"]
    warm_up = ":tensorflow:serving:model_warmup_latency_sum"
    assert value(metrics, warm_up, model_path="/m/1", status="OK") == 500_000


def test_the_queue_is_seen_as_it_is_now():
    state = [3, 2]
    metrics = Metrics(lambda: tuple(state))
    assert value(metrics, "bsdenoise_requests_waiting") == 3
    state[:] = [0, 1]
    assert value(metrics, "bsdenoise_requests_waiting") == 0
    assert value(metrics, "bsdenoise_requests_computing") == 1


def test_servers_count_by_themselves():
    one, other = Metrics(), Metrics()
    one.answered("a", "OK", "REST", 1.0)
    assert not any(name.startswith(":tensorflow") for name, _ in samples(other))


def test_callers_cannot_fill_the_memory_with_names():
    metrics = Metrics()
    for number in range(3 * MAX_MODELS):
        metrics.answered(f"model {number}", "NOT_FOUND", "REST", 1.0)
    metrics.answered("model 0", "OK", "REST", 1.0)
    name = ":tensorflow:serving:request_count"
    counts = {labels: count for (sample, labels), count in samples(metrics).items() if sample == name}
    assert len(counts) == MAX_MODELS + 2 and sum(counts.values()) == 3 * MAX_MODELS + 1
    assert value(metrics, name, model_name="(others)", status="NOT_FOUND") == 2 * MAX_MODELS
    assert value(metrics, name, model_name="model 0", status="OK") == 1
