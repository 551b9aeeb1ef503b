"""What the tests of REST share: an application on a real socket, and a model that does as it is told."""

import contextlib
import threading
import time

import grpc
import numpy as np
import urllib3
import uvicorn
from tensorflow.core.protobuf import meta_graph_pb2

from bsdenoise.server.errors import ServingError
from bsdenoise.server.limits import Gate, Limits
from bsdenoise.server.metrics import Metrics
from bsdenoise.server.prediction import House
from bsdenoise.server.rest import make_app
from bsdenoise.server.versions import VersionStatus


@contextlib.contextmanager
def listening(app):
    """Gives the host and port that an application answers on."""
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, access_log=False)
    server, socket = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield "127.0.0.1", socket.getsockname()[1]
    server.should_exit = True
    thread.join(timeout=30)
    socket.close()


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


class FakeServable:
    """A model that doubles, or waits until it may, or fails."""

    name, version = "double", 3

    def __init__(self):
        self.signature_defs = {}
        self.entered, self.go_on = threading.Semaphore(0), threading.Event()
        for signature in ("serving_default", "waiting", "broken", "late", "two", "files"):
            definition = self.signature_defs[signature] = meta_graph_pb2.SignatureDef()
            definition.inputs["x"].dtype = 7 if signature == "files" else 1  # string, float
            if signature == "two":
                definition.inputs["y"].dtype = 3  # int32

    def signature(self, name):
        name = name or "serving_default"
        if name not in self.signature_defs:
            raise ServingError(
                grpc.StatusCode.INVALID_ARGUMENT, f'Serving signature name: "{name}" not found in signature def'
            )
        return name, self.signature_defs[name]

    def predict(self, signature, inputs, outputs=(), timeout=None):
        if signature == "waiting":
            self.entered.release()
            assert self.go_on.wait(30)
        if signature == "broken":
            raise RuntimeError("first line\nsecond line")
        if signature == "late":
            raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out waiting for notification")
        if signature == "files":
            return {"y_bytes": inputs["x"]}
        if signature == "two":
            return {"sum": inputs["x"] + inputs["y"], "nan": np.full_like(inputs["x"], np.nan)}
        return {"y": 2 * inputs["x"]}


class FakeModels:
    """One model, "double", with one version, 3, labelled "a b"."""

    def __init__(self):
        self.servable = FakeServable()
        self.users = 0

    @contextlib.contextmanager
    def borrow(self, name, version=None, label=None):
        if name != "double" or version not in (None, 3) or label not in (None, "a b"):
            raise ServingError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {name} {version} {label}")
        self.users += 1
        try:
            yield self.servable
        finally:
            self.users -= 1

    def status(self, name, version=None, label=None):
        if name != "double":
            raise ServingError(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        return [VersionStatus(3, "AVAILABLE")]


@contextlib.contextmanager
def fake_server(**limits):
    """Gives a server on a socket with the fake model inside."""
    limits = Limits(**{"timeout": 20.0} | limits)
    house = House(FakeModels(), Gate(limits), limits, Metrics())
    with listening(make_app(house)) as address, urllib3.PoolManager(maxsize=80, retries=False) as pool:
        yield FakeServer(house, address, pool)


class FakeServer:
    """A running server: its parts, its address, and a way to call it."""

    def __init__(self, house, address, pool):
        self.house, self.address, self._pool = house, address, pool
        self.servable = house.models.servable
        self.url = "http://{}:{}".format(*address)

    def call(self, path="/v1/models/double:predict", body=None, method="POST", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._pool.request(method, self.url + path, body=body, headers=headers, timeout=30)
