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
WARM_UP_LATENCY = ":tensorflow:serving:model_warmup_latency"
LOAD_ATTEMPTS = ":tensorflow:cc:saved_model:load_attempt_count"
LOAD_LATENCY = ":tensorflow:cc:saved_model:load_latency"
WAITING = "bsdenoise_requests_waiting"
COMPUTING = "bsdenoise_requests_computing"
# Upper bounds in microseconds: 10 · 1.8ⁿ, as TensorFlow-Serving has them.
BOUNDS = tuple(10 * 1.8**power for power in range(33))
MICROSECONDS = 1e6
# Names of models come from the callers, who may ask for any: beyond so many they are counted together.
MAX_MODELS = 100
OTHER_MODELS = "(others)"


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
        self._warm_ups: dict = defaultdict(_Histogram)
        self._load_times: Counter = Counter()
        self._models: set[str] = set()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def answered(self, model: str, status: str, entrypoint: str, seconds: float, method: str = "predict") -> None:
        """Count a request.

        Args:
            model: The model's name, as it was asked for.
            status: "OK", or the name of the error.
            entrypoint: The protocol that it came by, "REST" or "GRPC".
            seconds: How long it took.
            method: What was asked of the model.
        """
        with self._lock:
            if len(self._models) >= MAX_MODELS and model not in self._models:
                model = OTHER_MODELS
            self._models.add(model)
            self._counts[model, status] += 1
            self._latencies[model, method, entrypoint].add(seconds)

    def computed(self, model: str, seconds: float) -> None:
        """Note how long a computation took.

        Args:
            model: The model's name.
            seconds: How long it took.
        """
        with self._lock:
            self._runtimes[model, "predict", "TF1"].add(seconds)

    def loaded(self, folder: str, is_loaded: bool, seconds: float | None = None) -> None:
        """Count an attempt to load a version, and how long it took if that is known.

        Args:
            folder: Folder of the version.
            is_loaded: Whether the attempt succeeded.
            seconds: How long it took; `None` if that is not known.
        """
        with self._lock:
            self._loads[folder, "success" if is_loaded else "fail"] += 1
            if is_loaded and seconds is not None:
                self._load_times[folder,] += round(MICROSECONDS * seconds)

    def warmed_up(self, folder: str, status: str, seconds: float) -> None:
        """Note how long the warm-up requests of a version took, and how they ended, such as "OK".

        Args:
            folder: Folder of the version.
            status: The outcome, a name of gRPC's status codes.
            seconds: How long it took.
        """
        with self._lock:
            self._warm_ups[folder, status].add(seconds)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics to `prometheus_client`."""
        with self._lock:
            # `prometheus_client` would add "_total" to the names of counters.
            yield _untyped(REQUEST_COUNT, "Requests answered.", ("model_name", "status"), self._counts)
            yield _untyped(LOAD_ATTEMPTS, "Attempts to load a version.", ("model_path", "status"), self._loads)
            yield _untyped(LOAD_LATENCY, "Microseconds to load a version.", ("model_path",), self._load_times)
            of_warm_ups = ("model_path", "status")
            yield _histogram(WARM_UP_LATENCY, "Microseconds to warm a version up.", of_warm_ups, self._warm_ups)
            of_requests = ("model_name", "API", "entrypoint")
            yield _histogram(REQUEST_LATENCY, "Microseconds per request.", of_requests, self._latencies)
            of_runs = ("model_name", "API", "runtime")
            yield _histogram(RUNTIME_LATENCY, "Microseconds computed per request.", of_runs, self._runtimes)
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
