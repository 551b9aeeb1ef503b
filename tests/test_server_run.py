import gc
import json
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from bsdenoise.server.errors import ServingError
from bsdenoise.server.limits import Limits
from bsdenoise.server.run import LocalServer
from bsdenoise.server.servable import Servable
from bsdenoise.server.versions import ModelSettings

MODEL = Path(__file__).parent / "golden" / "model" / "den"
IMAGE = np.zeros((1, 4, 5, 1), "float32")
BODY = json.dumps({"instances": IMAGE.tolist()}).encode()
PATIENCE = 60.0


def publish(folder, version):
    """Adds a version as an export does: whole."""
    shutil.copytree(MODEL / "1", folder / f".{version}")
    (folder / f".{version}").rename(folder / str(version))


@pytest.fixture
def folder(tmp_path):
    publish(tmp_path, 1)
    return tmp_path


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return answer.status, answer.read()


def post(url, body=BODY):
    with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=PATIENCE) as answer:
        return answer.status, json.loads(answer.read())


def request(image=IMAGE):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "den"
    message.inputs["image"].CopyFrom(tf.make_tensor_proto(image))
    return message


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def newest(server):
    with server.models.borrow("den") as servable:
        return servable.version


def test_both_protocols_give_the_same(folder):
    image = np.random.default_rng(0).uniform(size=(2, 6, 7, 1)).astype("float32")
    with LocalServer({"den": folder}) as server:
        assert server.rest_url.startswith("http://127.0.0.1:")
        body = json.dumps({"instances": image.tolist()}).encode()
        _, over_rest = post(f"{server.rest_url}/v1/models/den:predict", body)
        with grpc.insecure_channel(server.grpc_address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            over_grpc = tf.make_ndarray(stub.Predict(request(image), timeout=PATIENCE).outputs["denoised"])
        text = get(f"{server.rest_url}/monitoring/prometheus/metrics")[1].decode()
    np.testing.assert_array_equal(np.array(over_rest["predictions"], "float32"), over_grpc)
    assert ':tensorflow:serving:request_count{model_name="den",status="OK"} 2.0' in text
    assert f'load_attempt_count{{model_path="{folder / "1"}",status="success"}} 1.0' in text


def test_versions_are_swapped_under_load_without_one_failed_request(folder):
    """Ten swaps; afterwards one version is in memory."""
    answers, failures, is_over = set(), [], threading.Event()

    def ask(call):
        while not is_over.is_set():
            try:
                answers.add(call())
            except Exception as error:
                failures.append(error)

    # Whether 50 ms or a second, versions are found the same way.
    with (
        LocalServer({"den": folder}, poll_seconds=0.05) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        url = f"{server.rest_url}/v1/models/den:predict"
        calls = [
            lambda: ("grpc", stub.Predict(request(), timeout=PATIENCE).model_spec.version.value),
            lambda: ("rest", post(url)[0]),
        ]
        threads = [threading.Thread(target=ask, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for version in range(2, 12):
            publish(folder, version)
            wait_for(lambda version=version: newest(server) == version and ("grpc", version) in answers)
        is_over.set()
        for thread in threads:
            thread.join(PATIENCE)
        wait_for(lambda: [state.state for state in server.models.status("den")].count("END") == 10)
        gc.collect()
        alive = [thing for thing in gc.get_objects() if isinstance(thing, Servable) and thing.name == "den"]
        assert [servable.version for servable in alive] == [11]
    assert failures == []
    assert answers == {("rest", 200)} | {("grpc", version) for version in range(1, 12)}


def test_a_corrupt_new_version_leaves_the_old_one_serving(folder):
    lines = []
    with LocalServer({"den": folder}, poll_seconds=0.02, report=lines.append) as server:
        (folder / ".2").mkdir()
        (folder / ".2" / "saved_model.pb").write_bytes(b"rubbish")
        (folder / ".2").rename(folder / "2")
        url = f"{server.rest_url}/v1/models/den"
        wait_for(lambda: len(json.loads(get(url)[1])["model_version_status"]) == 2)
        wait_for(lambda: json.loads(get(url)[1])["model_version_status"][0]["state"] == "END")
        failed, old = json.loads(get(url)[1])["model_version_status"]
        assert failed["version"] == "2"
        assert failed["status"]["error_code"] != "OK"
        assert "saved_model.pb" in failed["status"]["error_message"]
        assert old["state"] == "AVAILABLE"
        assert post(f"{url}:predict")[0] == 200
        publish(folder, 3)
        wait_for(lambda: newest(server) == 3)
    assert [line for line in lines if "version 2 cannot be loaded" in line]


def test_several_models_and_labels(tmp_path):
    for name in ("a", "b"):
        for version in (1, 2):
            publish_to = tmp_path / name
            publish_to.mkdir(exist_ok=True)
            publish(publish_to, version)
    settings = [
        ModelSettings("a", tmp_path / "a", "all", labels={"stable": 1}),
        ModelSettings("b", tmp_path / "b"),
    ]
    with LocalServer(settings) as server:
        for path in ("a", "a/versions/2", "a/labels/stable", "b"):
            assert post(f"{server.rest_url}/v1/models/{path}:predict")[0] == 200
        with pytest.raises(urllib.error.HTTPError, match="404"):
            post(f"{server.rest_url}/v1/models/b/versions/1:predict")


def test_stopping_finishes_what_was_taken_and_takes_nothing_new(folder, monkeypatch):
    leave, inside = threading.Event(), threading.Semaphore(0)
    predict = Servable.predict

    def slow(self, *args, **kwargs):
        inside.release()
        assert leave.wait(PATIENCE)
        return predict(self, *args, **kwargs)

    server = LocalServer({"den": folder})
    server.start()
    monkeypatch.setattr(Servable, "predict", slow)  # not before: there are warm-up requests
    channel = grpc.insecure_channel(server.grpc_address)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    health = health_pb2_grpc.HealthStub(channel)
    states = health.Watch(health_pb2.HealthCheckRequest())
    assert next(states).status == health_pb2.HealthCheckResponse.SERVING
    over_grpc = stub.Predict.future(request(), timeout=PATIENCE)
    over_rest = []
    rest = threading.Thread(target=lambda: over_rest.append(post(f"{server.rest_url}/v1/models/den:predict")))
    rest.start()
    for _ in range(2):
        assert inside.acquire(timeout=PATIENCE)
    stopped = []
    stopping = threading.Thread(target=lambda: stopped.append(server.stop(PATIENCE)))
    stopping.start()
    assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
    with grpc.insecure_channel(server.grpc_address) as other, pytest.raises(grpc.RpcError) as caught:
        prediction_service_pb2_grpc.PredictionServiceStub(other).Predict(request(), timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "The server is stopping"
    with pytest.raises(urllib.error.HTTPError, match="503"):
        post(f"{server.rest_url}/v1/models/den:predict")
    assert stopped == []
    leave.set()
    for thread in (stopping, rest):
        thread.join(PATIENCE)
    states.cancel()
    assert stopped == [True]
    assert tf.make_ndarray(over_grpc.result().outputs["denoised"]).shape == IMAGE.shape
    assert over_rest[0][0] == 200
    channel.close()
    with pytest.raises(urllib.error.URLError):
        get(f"{server.rest_url}/v1/models/den")


def test_stopping_waits_for_a_body_that_is_still_arriving(folder):
    server = LocalServer({"den": folder})
    server.start()
    host, port = server.rest_url.removeprefix("http://").split(":")
    head = f"POST /v1/models/den:predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(head + BODY[:10])
        with socket.create_connection((host, int(port)), timeout=PATIENCE):  # idle; holds nothing up
            wait_for(lambda: server.in_flight == 1)
            stopped = []
            stopping = threading.Thread(target=lambda: stopped.append(server.stop(PATIENCE)))
            stopping.start()
            with pytest.raises(urllib.error.HTTPError, match="503") as caught:
                wait_for(lambda: post(f"{server.rest_url}/v1/models/den:predict")[0] != 200)
            assert json.loads(caught.value.read()) == {"error": "The server is stopping"}
            connection.sendall(BODY[10:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")
            stopping.join(PATIENCE)
    assert stopped == [True]


def test_stopping_does_not_wait_longer_than_it_is_told(folder, monkeypatch):
    leave, inside = threading.Event(), threading.Event()

    def stay(self, *args, **kwargs):
        inside.set()
        assert leave.wait(PATIENCE)
        raise ServingError(grpc.StatusCode.ABORTED, "left")

    server = LocalServer({"den": folder})
    server.start()
    monkeypatch.setattr(Servable, "predict", stay)  # not before: there are warm-up requests
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict.future(request(), timeout=PATIENCE)
        assert inside.wait(PATIENCE)
        start = time.monotonic()
        assert not server.stop(0.05)
        assert time.monotonic() - start < PATIENCE / 2
        assert call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    leave.set()
    wait_for(lambda: server.stop(0.0))


@pytest.mark.parametrize("which", ["grpc_port", "rest_port"])
def test_a_port_in_use_is_an_error_before_anything_is_loaded(folder, which, monkeypatch):
    monkeypatch.setattr(Servable, "__init__", lambda *_: pytest.fail("a model was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: cannot be listened on: Address already in use"):
            LocalServer({"den": folder}, **{which: port}).start()


@pytest.mark.parametrize(
    ("host", "match"),
    [("192.0.2.1", "cannot be listened on"), ("no.such.host.invalid", "is no address to listen on")],
    ids=["foreign", "unknown"],
)
def test_an_address_that_is_not_ours(folder, host, match):
    with pytest.raises(OSError, match=match):
        LocalServer({"den": folder}, host=host).start()


def test_nothing_to_serve(tmp_path):
    server = LocalServer({"den": tmp_path}, limits=Limits(concurrency=1))
    with pytest.raises(ServingError, match="model den: no version found"):
        server.start()
    assert server.rest_url == ""


def test_the_ports_open_once_the_models_serve(folder, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [one.getsockname()[1], other.getsockname()[1]]
    load = Servable.__init__
    refused = []

    def knock_and_load(self, *args):
        for port in ports:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            refused.append(port)
        load(self, *args)

    monkeypatch.setattr(Servable, "__init__", knock_and_load)
    with LocalServer({"den": folder}, grpc_port=ports[0], rest_port=ports[1]) as server:
        assert refused == ports
        assert (server.grpc_address, server.rest_url) == (f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
        assert post(f"{server.rest_url}/v1/models/den:predict")[0] == 200


def test_loading_and_warming_up_are_measured():
    with LocalServer({"den": MODEL}) as server:
        with urllib.request.urlopen(server.rest_url + "/monitoring/prometheus/metrics") as answer:
            text = answer.read().decode()
    for name in ("cc:saved_model:load_latency", "serving:model_warmup_latency_sum"):
        (value,) = re.findall(rf"^:tensorflow:{name}{{.*}} (\S+)$", text, re.MULTILINE)
        assert float(value) > 1000  # microseconds: the model comes with warm-up requests
