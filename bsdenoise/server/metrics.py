"""Prometheus metrics under TensorFlow-Serving's own names, so that one dashboard shows both servers."""

import bisect
import itertools
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric

PATH = "/monitoring/prometheus/metrics"
REQUEST_COUNT = ":tensorflow:serving:request_count"
REQUEST_LATENCY = ":tensorflow:serving:request_latency"
RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency"
LOAD_ATTEMPTS = ":tensorflow:cc:saved_model:load_attempt_count"
WAITING = "bsdenoise_requests_waiting"
COMPUTING = "bsdenoise_requests_computing"
# Upper bounds in microseconds: 10 · 1.8ⁿ, as TensorFlow-Serving has them.
BOUNDS = tuple(10 * 1.8**power for power in range(33))
MICROSECONDS = 1e6


class Metrics:
    """Counts and times of one server.

    Args:
        requests: Gives how many requests wait and how many are computed.
    """

    def __init__(self, requests: Callable[[], tuple[int, int]] = lambda: (0, 0)):
        self._requests = requests
        self._lock = threading.Lock()
        self._counts: Counter = Counter()
        self._loads: Counter = Counter()
        self._latencies: dict = defaultdict(_Histogram)
        self._runtimes: dict = defaultdict(_Histogram)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def answered(self, model: str, status: str, entrypoint: str, seconds: float) -> None:
        """Counts a request, by its status such as "OK" and the protocol that it came by."""
        with self._lock:
            self._counts[model, status] += 1
            self._latencies[model, "predict", entrypoint].add(seconds)

    def computed(self, model: str, seconds: float) -> None:
        """Notes how long a computation took."""
        with self._lock:
            self._runtimes[model, "predict", "TF1"].add(seconds)

    def loaded(self, folder: str, is_loaded: bool) -> None:
        """Counts an attempt to load a version."""
        with self._lock:
            self._loads[folder, "success" if is_loaded else "fail"] += 1

    def text(self) -> bytes:
        """Gives all of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Gives the metrics to `prometheus_client`."""
        with self._lock:
            # `prometheus_client` would add "_total" to the names of counters.
            yield _untyped(REQUEST_COUNT, "Requests answered.", ("model_name", "status"), self._counts)
            yield _untyped(LOAD_ATTEMPTS, "Attempts to load a version.", ("model_path", "status"), self._loads)
            labels = ("model_name", "API", "entrypoint")
            yield _histogram(REQUEST_LATENCY, "Microseconds per request.", labels, self._latencies)
            labels = ("model_name", "API", "runtime")
            yield _histogram(RUNTIME_LATENCY, "Microseconds computed per request.", labels, self._runtimes)
        waiting, computing = self._requests()
        yield GaugeMetricFamily(WAITING, "Requests that wait for their turn.", waiting)
        yield GaugeMetricFamily(COMPUTING, "Requests that are computed.", computing)


class _Histogram:
    """Counts of times between the bounds, and their sum in microseconds."""

    def __init__(self):
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(BOUNDS, MICROSECONDS * seconds)] += 1
        self.total += MICROSECONDS * seconds


def _untyped(name, what, labels, counts) -> Metric:
    metric = Metric(name, what, "untyped")
    for values, count in counts.items():
        metric.add_sample(name, dict(zip(labels, values, strict=True)), count)
    return metric


def _histogram(name, what, labels, histograms) -> Metric:
    metric = HistogramMetricFamily(name, what, labels=labels)
    for values, histogram in histograms.items():
        bounds = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
        cumulated = itertools.accumulate(histogram.counts)
        metric.add_metric(values, list(zip(bounds, cumulated, strict=True)), sum_value=histogram.total)
    return metric
