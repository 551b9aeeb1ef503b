"""The served model under attack: whatever is sent, the server answers with one sentence and goes on.

One server process for the module, as `bsdenoise serve` starts it, with an exported model whose graph holds the checks.
"""

import base64
import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
import urllib3
from exported import make_denoiser, png_file
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from bsdenoise.export import export_saved_model
from bsdenoise.noise import GaussianNoise

MAX_PIXELS = 20_000
MAX_BODY_MB = 4
PREDICT = "/v1/models/denoiser:predict"
pytestmark = pytest.mark.slow


class Served:
    """A server process and how to reach it."""

    def __init__(self, folder, *flags):
        self.folder = folder
        command = [sys.executable, "-m", "bsdenoise.cli", "serve", str(folder), "--rest-port", "0", "--grpc-port", "0"]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=self.log, text=True)
        ready = self.process.stdout.readline()
        assert "http://" in ready, self.said()
        self.rest = re.search(r"http://[\w.:]+", ready)[0]
        self.grpc = re.search(r"grpc://([\w.:]+)", ready)[1]
        self.pool = urllib3.PoolManager(retries=False, maxsize=64)
        self.channel = grpc.insecure_channel(self.grpc)
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def said(self):
        """Gives all that it has written to stderr."""
        self.log.seek(0)
        return self.log.read()

    def post(self, body, path=PREDICT, **kwargs):
        """Gives status and JSON of an answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.pool.request("POST", self.rest + path, body=data, timeout=60, **kwargs)
        return answer.status, json.loads(answer.data)

    def states(self):
        answer = self.pool.request("GET", self.rest + "/v1/models/denoiser")
        return {int(one["version"]): one for one in json.loads(answer.data)["model_version_status"]}

    def predict(self, signature="serving_default", name="denoiser", version=None, timeout=60, **inputs):
        """Gives the outputs of a gRPC call."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = name, signature
        if version is not None:
            request.model_spec.version.value = version
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        answer = self.stub.Predict(request, timeout=timeout)
        return {key: tf.make_ndarray(value) for key, value in answer.outputs.items()}

    def stop(self, number=signal.SIGTERM):
        self.channel.close()
        self.pool.clear()
        self.process.send_signal(number)
        self.process.stdout.close()
        return self.process.wait(60)


@pytest.fixture(scope="module")
def denoiser():
    return make_denoiser(3, GaussianNoise(25 / 255, 25 / 255))


@pytest.fixture(scope="module")
def exported(denoiser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "1"
    return export_saved_model(denoiser, folder, max_pixels=MAX_PIXELS, warm_up=[(12, 17)])


@pytest.fixture(scope="module")
def models(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "denoiser"
    shutil.copytree(exported, folder / "1")
    return folder


@pytest.fixture(scope="module")
def server(models):
    server = Served(models, "--max-body", str(MAX_BODY_MB))
    yield server
    assert server.process.poll() is None, server.said()
    assert server.stop() == 0
    assert "Traceback" not in server.said()
    server.log.close()


@pytest.fixture(scope="module")
def good(denoiser):
    """A PNG file, and what the local model makes of it, in grey levels."""
    rng = np.random.default_rng(0)
    noisy = rng.integers(60, 200, (12, 17, 3)).astype(np.uint8)
    return png_file(noisy), 255 * denoiser.denoise(noisy)


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def encoded(*files):
    return {"signature_name": "encoded", "instances": [b64(file) for file in files]}


def is_right(answer, expected):
    status, content = answer
    if status != 200:
        return False
    denoised = tf.io.decode_png(base64.b64decode(content["predictions"][0]["b64"])).numpy()
    return np.abs(denoised - np.clip(expected, 0, 255)).max() <= 0.51


@pytest.fixture(autouse=True)
def still_right(request):
    """After each attack, a good request is answered rightly."""
    if "server" not in request.fixturenames:
        yield
        return
    server, (file, expected) = map(request.getfixturevalue, ("server", "good"))
    yield
    assert is_right(server.post(encoded(file)), expected)


# Requests that are refused


def png_header(height, width):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(160)


PIXEL = [[[0.5, 0.5, 0.5]]]
REFUSED_OVER_REST = {
    "wrong rank": ({"instances": [[[0.5, 0.5, 0.5]]]}, 400, "not compatible with expected shape"),
    "wrong channels": ({"instances": [[[[0.5]]]]}, 400, "not compatible with expected shape"),
    "wrong type": ({"instances": [[[["a", "b", "c"]]]]}, 400, "is not of expected type: float"),
    "NaN": (b'{"instances": [[[[NaN, 0.5, 0.5]]]]}', 400, "image holds NaN or infinite values"),
    "infinite": (b'{"instances": [[[[1e999, 0.5, 0.5]]]]}', 400, "."),
    "grey levels": ({"instances": [[[[128, 128, 128]]]]}, 400, "pixels from -16 to 16"),
    "empty list": ({"instances": []}, 400, "No values in 'instances' array"),
    "empty batch": ({"inputs": {"image": []}}, 400, "not compatible with expected shape|is empty"),
    "no pixels": ({"instances": [[]]}, 400, "not compatible with expected shape|is empty"),
    "too large": ({"instances": [[[[0, 0, 0]] * 201] * 100]}, 400, f"at most {MAX_PIXELS}"),
    "no sigma": ({"signature_name": "with_sigma", "inputs": {"image": [PIXEL]}}, 400, "Missing named input: sigma"),
    "sigma of another unit": (
        {"signature_name": "with_sigma", "inputs": {"image": [PIXEL], "sigma": [25]}}, 400, "sigma must be at most 1",
    ),
    "a bomb": (encoded(png_header(60_000, 60_000)), 400, "60000 rows and 60000 columns"),
    "truncated": (encoded(png_file(np.zeros((9, 9, 3), np.uint8))[:-20]), 400, r"image_bytes\[0\]"),
    "no image": (encoded(b"hello"), 400, "must be a PNG or JPEG file"),
    "no bytes": (encoded(b""), 400, "is empty"),
    "no base64": ({"signature_name": "encoded", "instances": [{"b64": "***"}]}, 400, "Unable to base64 decode"),
    "base64 unmarked": (
        {"signature_name": "encoded", "instances": [base64.b64encode(png_header(1, 1)).decode()]}, 400, "key b64",
    ),
    "no JSON": (b"{", 400, "JSON Parse error"),
    "no text": (b"\xff\xfe\x00", 400, "JSON Parse error"),
    "nothing": (b"", 400, "The document is empty"),
    "deep lists": (b'{"instances": ' + b"[" * 100_000, 400, "JSON Parse error|nested|size|rank"),
    "deep objects": (b'{"a":' * 100_000, 400, "JSON Parse error|nested|key"),
    "unknown signature": ({"signature_name": "nope", "instances": [PIXEL]}, 400, '"nope" not found in signature def'),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_OVER_REST)
def test_a_bad_request_over_rest_gets_one_sentence(case, server):
    body, status, sentence = REFUSED_OVER_REST[case]
    answered, content = server.post(body)
    assert answered == status
    assert list(content) == ["error"] and re.search(sentence, content["error"]), content


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/v1/models/nope:predict", 404, r"Latest\(nope\)"),
        ("/v1/models/denoiser/versions/99:predict", 404, r"Specific\(denoiser, 99\)"),
        ("/v1/models/denoiser/labels/nope:predict", 400, "nope"),
        ("/v1/models/denoiser/versions/99999999999999999999999:predict", 400, "."),
        ("/v1/models/denoiser:nope", 400, "Malformed request"),
    ],
)
def test_what_is_not_served(path, status, sentence, server):
    answered, content = server.post({"instances": [PIXEL]}, path)
    assert answered == status and re.search(sentence, content["error"])


def image(*shape, value=0.5, dtype="float32"):
    return np.full(shape, value, dtype)


SIGMA = np.array([0.1], "float32")
REFUSED_OVER_GRPC = {
    "rank 3": ("serving_default", {"image": image(5, 7, 3)}, "not compatible with expected shape"),
    "rank 5": ("serving_default", {"image": image(1, 1, 5, 7, 3)}, "not compatible with expected shape"),
    "scalar": ("serving_default", {"image": image()}, "not compatible with expected shape"),
    "channels": ("posterior", {"image": image(1, 5, 7, 4), "sigma": SIGMA}, "not compatible with expected shape"),
    "float64": ("serving_default", {"image": image(1, 5, 7, 3, dtype="float64")}, "float"),
    "uint8": ("serving_default", {"image": image(1, 5, 7, 3, value=1, dtype="uint8")}, "float"),
    "NaN": ("serving_default", {"image": image(1, 5, 7, 3, value=np.nan)}, "NaN or infinite"),
    "empty batch": ("serving_default", {"image": image(0, 5, 7, 3)}, "image is empty"),
    "no rows": ("own_sigma", {"image": image(1, 0, 7, 3)}, "image is empty"),
    "too large": ("serving_default", {"image": image(2, 101, 100, 3)}, f"at most {MAX_PIXELS} at once"),
    "sigma of rank 0": ("with_sigma", {"image": image(1, 5, 7, 3), "sigma": SIGMA[0]}, "not compatible"),
    "sigma negative": ("with_sigma", {"image": image(1, 5, 7, 3), "sigma": -SIGMA}, "must be positive"),
    "an input too many": ("serving_default", {"image": image(1, 5, 7, 3), "sigma": SIGMA}, "Sent extra: {sigma}"),
    "an input too few": ("with_sigma", {"image": image(1, 5, 7, 3)}, "Missing but required: {sigma}"),
    "no file": ("encoded", {"image_bytes": [b"no image"]}, "must be a PNG or JPEG file"),
    "no files": ("encoded", {"image_bytes": np.zeros(0, object)}, "is empty"),
    "format": ("describe", {"format": [b"xml"]}, "format must be json"),
    "signature": ("nope", {"image": image(1, 5, 7, 3)}, '"nope" not found in signature def'),
}


@pytest.mark.parametrize("case", REFUSED_OVER_GRPC)
def test_a_bad_request_over_grpc_gets_one_sentence(case, server):
    signature, inputs, sentence = REFUSED_OVER_GRPC[case]
    with pytest.raises(grpc.RpcError) as raised:
        server.predict(signature, **inputs)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence in raised.value.details()


@pytest.mark.parametrize(
    ("name", "version", "sentence"),
    [("nope", None, "Latest(nope)"), ("denoiser", 99, "Specific(denoiser, 99)")],
)
def test_what_is_not_served_over_grpc(name, version, sentence, server):
    with pytest.raises(grpc.RpcError) as raised:
        server.predict(name=name, version=version, image=image(1, 5, 7, 3))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND and sentence in raised.value.details()


def test_a_tensor_that_claims_gigabytes_takes_none(server):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "denoiser"
    proto = request.inputs["image"]
    proto.CopyFrom(tf.make_tensor_proto(image(1, 1, 1, 3)))
    for dim, size in zip(proto.tensor_shape.dim, (1, 60_000, 60_000, 3), strict=True):
        dim.size = size
    before = peak_mib(server.process.pid)
    with pytest.raises(grpc.RpcError) as raised:
        server.stub.Predict(request, timeout=60)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert peak_mib(server.process.pid) < before + 200


def peak_mib(pid):
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 1, 6, 3)], ids=str)
def test_the_smallest_images_are_denoised(shape, server, denoiser):
    noisy = np.random.default_rng(1).random(shape, "float32")
    answer = server.predict(image=noisy)["denoised"]
    np.testing.assert_allclose(answer, denoiser.denoise(noisy), atol=1e-5)
    status, content = server.post({"instances": noisy.tolist()})
    assert status == 200
    np.testing.assert_allclose(content["predictions"], answer, atol=1e-6)


# Bodies


def test_an_oversized_body_is_refused_while_it_comes(server):
    with contextlib.suppress(urllib3.exceptions.ProtocolError):  # it may stop listening before all is sent
        status, content = server.post(b" " * (MAX_BODY_MB * 2**20 + 1))
        assert status == 413 and "too large" in content["error"]


def test_an_oversized_body_in_chunks_is_refused(server):
    host, port = server.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(MAX_BODY_MB + 2):
                connection.sendall(b"100000\r\n" + bytes(2**20) + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_small_body_that_unpacks_to_a_huge_one_is_refused(server):
    before = peak_mib(server.process.pid)
    status, content = server.post(gzip.compress(bytes(200 * 2**20), 1), headers={"Content-Encoding": "gzip"})
    assert status == 413 and "too large" in content["error"]
    assert peak_mib(server.process.pid) < before + 100


def test_a_packed_body_is_taken(server, good):
    file, expected = good
    packed = gzip.compress(json.dumps(encoded(file)).encode())
    assert is_right(server.post(packed, headers={"Content-Encoding": "gzip"}), expected)
    status, content = server.post(packed[:-9], headers={"Content-Encoding": "gzip"})
    assert status == 400 and "gzip" in content["error"]


# Clients


def connected(server):
    host, port = server.rest.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_clients_that_hang_up_leave_nothing_behind(server, good):
    body = json.dumps(encoded(good[0])).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for _ in range(20):
        for part in (head, head + body[: len(body) // 2], head + body):
            with connected(server) as connection:
                connection.sendall(part)
    wait_for(lambda: is_idle(server))


def is_idle(server, seconds=1.0):
    """Tells whether no request is there for so long: those that were just sent may not have been taken yet."""
    end = time.monotonic() + seconds
    while not in_house(server):
        if time.monotonic() > end:
            return True
        time.sleep(0.05)
    return False


def in_house(server):
    text = server.pool.request("GET", server.rest + "/monitoring/prometheus/metrics").data.decode()
    numbers = re.findall(r"^bsdenoise_requests_(?:waiting|computing) (\S+)$", text, re.MULTILINE)
    assert len(numbers) == 2
    return sum(map(float, numbers))


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_64_clients_at_once(protocol, server, good, denoiser):
    file, expected = good
    noisy = np.random.default_rng(2).random((1, 12, 17, 3), "float32")
    denoised = denoiser.denoise(noisy)
    start = threading.Barrier(64)

    def client(_):
        start.wait()
        if protocol == "rest":
            return is_right(server.post(encoded(file)), expected)
        return np.abs(server.predict(image=noisy)["denoised"] - denoised).max() < 1e-5

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(client, range(64)))


def test_of_33_requests_the_bad_one_alone_fails(server, good):
    file, expected = good
    bodies = [encoded(file)] * 16 + [encoded(file[:-20])] + [encoded(file)] * 16
    with ThreadPoolExecutor(33) as pool:
        answers = list(pool.map(server.post, bodies))
    assert [is_right(answer, expected) for answer in answers] == [True] * 16 + [False] + [True] * 16
    assert answers[16][0] == 400


# Versions and processes


def publish(source, folder, version):
    """As `bsdenoise export` does: written under another name, then renamed."""
    temporary = folder / f".{version}.tmp"
    shutil.copytree(source, temporary)
    temporary.rename(folder / str(version))


def wait_for(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_versions_are_swapped_under_load_without_one_failed_request(server, models, exported, good):
    file, expected = good
    done, answers = threading.Event(), []

    def load():
        while not done.wait(0.05):
            answers.append(is_right(server.post(encoded(file)), expected))
            answers.append(server.predict(image=image(1, 9, 9, 3))["denoised"].shape == (1, 9, 9, 3))

    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load) for _ in range(2)]
        try:
            publish(exported, models, 2)
            wait_for(lambda: server.states().get(2, {}).get("state") == "AVAILABLE")
            shutil.rmtree(models / "2")  # back to the version before
            wait_for(lambda: server.states()[1]["state"] == "AVAILABLE" and server.states()[2]["state"] == "END")
        finally:
            done.set()
        for one in loads:
            one.result()
    assert len(answers) > 8 and all(answers)


def test_a_corrupt_version_leaves_the_old_one_serving(server, models, good):
    (models / "7").mkdir()
    (models / "7" / "saved_model.pb").write_bytes(b"no model")
    wait_for(lambda: server.states().get(7, {}).get("status", {}).get("error_code", "OK") != "OK")
    states = server.states()
    assert [version for version, one in states.items() if one["state"] == "AVAILABLE"] == [1]
    assert states[7]["state"] == "END" and states[7]["status"]["error_message"]
    assert is_right(server.post(encoded(good[0])), good[1])
    shutil.rmtree(models / "7")


def hold_up(server, file, expected):
    """A request that never ends: others are answered meanwhile, and it is told so when its time is up."""
    with connected(server) as slow:
        slow.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
        for _ in range(3):
            assert is_right(server.post(encoded(file)), expected)
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_a_slow_client_and_a_kill_and_a_stop_with_requests_in_flight(exported, tmp_path, good):
    """Three things that the common server would not live through, in two lives of another."""
    file, expected = good
    shutil.copytree(exported, tmp_path / "1", ignore=shutil.ignore_patterns("assets.extra"))  # no warm-up
    server = Served(tmp_path, "--timeout", "3")
    hold_up(server, file, expected)
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    server.log.close()
    server = Served(tmp_path, "--concurrency", "1")
    assert is_right(server.post(encoded(file)), expected)
    stop_in_flight(server)


def stop_in_flight(server):
    """What it has taken is finished when it stops; what came later is refused in a way that clients send again."""
    noisy = image(1, 100, 200, 3)
    server.predict(image=noisy)
    with ThreadPoolExecutor(24) as pool:
        calls = [pool.submit(server.predict, image=noisy) for _ in range(24)]
        wait_for(lambda: in_house(server) > 4)
        taken = in_house(server)
        os.kill(server.process.pid, signal.SIGTERM)
        errors = [call.exception() for call in calls]
    assert errors.count(None) >= taken - 1
    assert {error.code() for error in errors if error} <= {grpc.StatusCode.UNAVAILABLE}
    assert server.process.wait(60) == 0
    server.stop()
    server.log.close()
