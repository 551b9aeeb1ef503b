"""REST over a real socket: routes, limits, clients that misbehave. The model is a stand-in."""

import gzip
import json
import logging
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from rest_server import fake_server, wait_until

from bsdenoise.server import bodies, json_in

PREDICT = "/v1/models/double:predict"
LABELS = "/v1/models/double/labels/a%20b"
SMALL = 20_000  # bytes
DEEP = b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}"
INPUTS_FOUND = "inputs found in SignatureDef: goo.gle/debugproto  \ninputs {"
LONG_NUMBER = b'{"instances": [' + b"9" * 9000 + b"]}"


@pytest.fixture(scope="module")
def server():
    with fake_server(max_body_bytes=SMALL, concurrency=2, queue=70) as server:
        yield server


@pytest.fixture(autouse=True)
def one_line_at_most(caplog):
    """No test leaves more than a line in the log."""
    caplog.set_level(logging.INFO)
    yield
    ours = [record for record in caplog.records if record.name.startswith(("bsdenoise", "uvicorn.error", "asyncio"))]
    lines = [record for record in ours if record.levelno >= logging.WARNING]
    assert len(lines) <= 1 and not any(record.exc_info or "\n" in record.getMessage() for record in lines)


def body(value=1.5, **more):
    return json.dumps({"instances": [[value]]} | more).encode()


def error(answer):
    assert answer.headers["Content-Type"] == "application/json"
    (message,) = json.loads(answer.data).values()
    return message


@pytest.mark.parametrize(
    "path",
    [
        PREDICT,
        "/v1/models/double/versions/3:predict",
        LABELS + ":predict",
        "/V1/Models/double:predict",
        PREDICT + "?a=b",
        "/v1/models/d%6Fuble:predict",
    ],
)
def test_predictions_by_every_way(path, server):
    answer = server.call(path, body())
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/json"
    assert json.loads(answer.data) == {"predictions": [[3.0]]}


def test_columns_are_answered_in_columns(server):
    answer = server.call(body=b'{"inputs": {"x": [[1], [2]], "y": [[3], [4]]}, "signature_name": "two"}')
    assert json.loads(answer.data)["outputs"]["sum"] == [[4.0], [6.0]]
    assert b"NaN" in answer.data


def test_bytes_go_in_and_out(server):
    answer = server.call(body=b'{"instances": [{"b64": "AAH/"}], "signature_name": "files"}')
    assert json.loads(answer.data) == {"predictions": [{"b64": "AAH/"}]}


def test_status_and_metadata(server):
    for path in ("/v1/models/double", "/v1/models/double/versions/3", LABELS):
        (version,) = json.loads(server.call(path, method="GET").data)["model_version_status"]
        assert version == {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        metadata = json.loads(server.call(path + "/metadata", method="GET").data)
        assert metadata["model_spec"] == {"name": "double", "version": "3", "signature_name": ""}
        signature = metadata["metadata"]["signature_def"]["signature_def"]["two"]
        assert {name: info["dtype"] for name, info in signature["inputs"].items()} == {"x": "DT_FLOAT", "y": "DT_INT32"}


@pytest.mark.parametrize(
    "method, path, status, message",
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/versions/1", 400, "Missing model name in request."),
        ("GET", "/v1/models/", 400, "Malformed request: GET /v1/models/"),
        ("GET", "/v1/nothing", 400, "Malformed request: GET /v1/nothing"),
        ("GET", "/v1/models/a%3Ab/c", 400, "Malformed request: GET /v1/models/a%3Ab/c"),
        ("GET", PREDICT, 400, f"Malformed request: GET {PREDICT}"),
        ("DELETE", PREDICT, 400, f"Malformed request: DELETE {PREDICT}"),
        ("PATCH", "/v1/models/double", 400, "Malformed request: PATCH /v1/models/double"),
        ("POST", "/v1/models/double", 400, "Malformed request: POST /v1/models/double"),
        ("POST", "/v1/models/double:denoise", 400, "Malformed request: POST /v1/models/double:denoise"),
        ("GET", "/v1/models/nope", 404, "Could not find any versions of model nope"),
        ("POST", "/v1/models/nope:predict", 404, "Servable not found for request: nope None None"),
        ("POST", "/v1/models/double/versions/4:predict", 404, "Servable not found for request: double 4 None"),
        ("POST", "/v1/models/double/labels/b:predict", 404, "Servable not found for request: double None b"),
        ("GET", f"/v1/models/double/versions/{2**63}", 400, f"Failed to convert version: {2**63} to numeric."),
        ("POST", f"/v1/models/double/versions/{2**63}:predict", 400, f"Failed to convert version: {2**63} to numeric."),
    ],
)
def test_wrong_requests(method, path, status, message, server):
    answer = server.call(path, body() if method == "POST" else None, method)
    assert (answer.status, error(answer)) == (status, message)


@pytest.mark.parametrize("path", ["/", "/v2/models/double", "/monitoring/prometheus/metrics/", "/V1"])
def test_other_pages_are_not_there(path, server):
    answer = server.call(path, method="GET")
    assert (
        answer.status == 404 and answer.headers["Content-Type"] == "text/html" and b"<H1>Not Found</H1>" in answer.data
    )


def test_options_are_refused_without_words(server):
    answer = server.call(method="OPTIONS")
    assert (answer.status, answer.data) == (400, b"")


@pytest.mark.parametrize(
    "text, status, message",
    [
        (b"", 400, "JSON Parse error: The document is empty"),
        (b"{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
        (b'{"instances": ' + b"[" * 10_000 + b"]" * 9_000, 400, "JSON Parse error: The document is nested too deeply."),
        (DEEP, 400, "Lists must be nested less than 64 deep. Received: 899"),
        (LONG_NUMBER, 400, "JSON Parse error: Number too big to be stored in double. at offset: 15"),
        (body(signature_name="zzz"), 400, 'Serving signature name: "zzz" not found in signature def'),
        (body(signature_name="late"), 504, "Timed out waiting for notification"),
        (body("a"), 400, "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
         'JSON Value: "a" Type: String is not of expected type: float'),
    ],
    ids=lambda value: str(value[:16]) if isinstance(value, bytes) else None,
)  # fmt: skip
def test_wrong_bodies(text, status, message, server):
    answer = server.call(body=text)
    assert (answer.status, error(answer)) == (status, message)


@pytest.mark.parametrize(
    "method, text, message",
    [
        ("classify", b"{", "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("regress", b"{}", "JSON Value: {} When method is regress, key 'examples' is expected and was not found"),
        ("classify", b'{"examples": [{}]}', f"No classification {INPUTS_FOUND}"),
        ("regress", b'{"examples": [{}]}', f"No regression {INPUTS_FOUND}"),
    ],
)  # fmt: skip
def test_what_a_denoiser_does_not_do(method, text, message, server):
    answer = server.call(f"/v1/models/double:{method}", text)
    assert answer.status == 400 and error(answer).startswith(message)


def test_a_fault_of_the_server_is_one_line(server, caplog):
    answer = server.call(body=body(signature_name="broken"))
    assert (answer.status, error(answer)) == (500, "The server failed: RuntimeError")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "bsdenoise.server.rest"]
    assert line == "POST /v1/models/double:predict: RuntimeError: first line second line"


@pytest.mark.parametrize("host", ["[::1", "a b", ""])
def test_a_strange_host_is_no_matter(host, server):
    assert server.call("/v1/models/double", method="GET", Host=host).status == 200


@pytest.mark.parametrize("packing", ["gzip", "GZIP", "identity"])
def test_packed_bodies(packing, server):
    text = body() if packing == "identity" else gzip.compress(body())
    assert server.call(body=text, Content_Encoding=packing).status == 200


@pytest.mark.parametrize(
    "text, packing, message",
    [
        (b"no gzip at all", "gzip", "The body is no gzip: Error -3"),
        (gzip.compress(body())[:-9], "gzip", "The body is no gzip: it is cut off"),
        (b"", "gzip", "The body is no gzip: it is cut off"),
        (gzip.compress(body()) + b"more", "gzip", "The body is no gzip: something follows it"),
        (
            zlib.compress(body()),
            "deflate",
            "The body must be packed with gzip or not at all. Received: Content-Encoding",
        ),
    ],
    ids=["other", "cut", "empty", "more", "deflate"],
)
def test_wrong_packing(text, packing, message, server):
    answer = server.call(body=text, Content_Encoding=packing)
    assert answer.status == 400 and error(answer).startswith(message)


def test_a_body_of_the_very_limit_is_taken(server):
    text = body() + b" " * (SMALL - len(body()))
    assert server.call(body=text).status == 200
    assert server.call(body=gzip.compress(text), Content_Encoding="gzip").status == 200
    assert server.call(body=text + b" ").status == 413
    assert server.call(body=gzip.compress(text + b" "), Content_Encoding="gzip").status == 413


def connected(server):
    connection = socket.create_connection(server.address, timeout=30)
    return connection


def sent(connection, text, **headers):
    """Sends the head of a prediction and the beginning of its body."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    connection.sendall((f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\n" + "".join(lines) + "\r\n").encode() + text)


def answered(connection):
    """Reads until the server hangs up."""
    text = b""
    while part := connection.recv(65536):
        text += part
    return text


TOO_LARGE = f"The body is too large: this server takes at most {SMALL} bytes, unpacked.".encode()


def test_too_large_a_body_is_refused_before_it_is_sent(server):
    with connected(server) as connection:
        sent(connection, b"", Content_Length=10**12, Expect="100-continue")
        text = answered(connection)
    assert text.startswith(b"HTTP/1.1 413") and TOO_LARGE in text


def test_the_refusal_reaches_a_client_that_still_sends(server):
    assert server.call(body=b" " * 5_000_000).status == 413
    assert server.call(body=iter([b" " * 100_000] * 50)).status == 413


def test_a_client_that_sends_on_after_the_refusal_is_not_cut_off(server):
    with connected(server) as connection:
        sent(connection, b" ", Content_Length=3_000_001)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        for _ in range(30):
            connection.sendall(b" " * 100_000)  # a reset would come here
        answered(connection)  # or here


def test_a_client_that_never_ends_is_hung_up_on(server, monkeypatch):
    monkeypatch.setattr(bodies, "LINGER_SECONDS", 0.5)
    with connected(server) as connection, pytest.raises(OSError):
        sent(connection, b"", Content_Length=10**12)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            connection.sendall(b" " * 1000)


def test_too_large_a_body_in_chunks_is_refused_while_it_comes(server):
    with connected(server) as connection:
        sent(connection, (b"%x\r\n" % (SMALL + 1)) + b" " * (SMALL + 1) + b"\r\n", Transfer_Encoding="chunked")
        text = answered(connection)  # the end of the body was never sent
    assert text.startswith(b"HTTP/1.1 413") and TOO_LARGE in text


def test_chunks_are_put_together(server):
    with connected(server) as connection:
        text = body()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in text)
        sent(connection, chunks + b"0\r\n\r\n", Transfer_Encoding="chunked", Connection="close")
        assert b'"predictions": [[3.0]]' in answered(connection)


def test_what_unpacks_to_more_than_the_limit_is_cut_off(server):
    bomb = gzip.compress(b" " * 10**7)
    assert len(bomb) < SMALL
    answer = server.call(body=bomb, Content_Encoding="gzip")
    assert answer.status == 413 and TOO_LARGE.decode() == error(answer)


def test_rubbish_behind_a_gzip_is_bounded_too(server):
    text = gzip.compress(body()) + b" " * SMALL
    assert server.call(body=text, Content_Encoding="gzip").status == 413


def test_a_slow_client_is_sent_away():
    with fake_server(timeout=0.3) as server, connected(server) as connection:
        sent(connection, b"{", Content_Length=100)
        text = answered(connection)
        assert text.startswith(b"HTTP/1.1 408") and b"The body did not arrive within 0.3 seconds, or" in text
        assert server.call(body=body()).status == 200


@pytest.fixture
def impatient(monkeypatch):
    """A server that waits for the next bytes for a second."""
    monkeypatch.setattr(bodies, "IDLE_SECONDS", 1.0)
    with fake_server(concurrency=1, queue=0) as server:
        yield server


@pytest.mark.parametrize("first", [b"", b"{"], ids=["nothing", "a part"])
def test_a_client_that_pauses_frees_its_place(impatient, first):
    with connected(impatient) as connection:
        sent(connection, first, Content_Length=100)
        text = answered(connection)
        assert text.startswith(b"HTTP/1.1 408") and b"within 20 seconds, or paused for 1." in text
    assert impatient.call(body=body()).status == 200


def test_a_client_that_sends_little_by_little_is_served(impatient):
    """It takes longer than a pause may, without one."""
    text, start = body(), time.monotonic()
    with connected(impatient) as connection:
        sent(connection, b"", Content_Length=len(text), Connection="close")
        for byte in text:
            time.sleep(0.06)
            connection.sendall(bytes([byte]))
        assert b'"predictions": [[3.0]]' in answered(connection)
    assert time.monotonic() - start > 1.0


def test_a_client_is_not_blamed_where_the_server_was_held_up(impatient, monkeypatch):
    """What it sent in time lies there."""
    entered, text = threading.Event(), body()
    real = impatient.house.metrics.text
    # Metrics are written in the event loop's own thread.
    monkeypatch.setattr(impatient.house.metrics, "text", lambda: entered.set() or time.sleep(1.4) or real())
    with connected(impatient) as connection:
        sent(connection, text[:5], Content_Length=len(text), Connection="close")
        wait_until(lambda: impatient.call("/v1/models/double", method="GET").status == 200)
        with ThreadPoolExecutor(1) as thread:
            held_up = thread.submit(impatient.call, "/monitoring/prometheus/metrics", method="GET")
            assert entered.wait(30)
            connection.sendall(text[5:])
            assert b'"predictions": [[3.0]]' in answered(connection)
        assert held_up.result().status == 200


def test_a_client_that_hangs_up_while_it_sends_is_forgotten():
    with fake_server(concurrency=1, queue=0) as server:
        for _ in range(3):
            with connected(server) as connection:
                sent(connection, b"{", Content_Length=100)
        wait_until(lambda: server.call(body=body()).status == 200)


def test_a_client_that_hangs_up_while_it_waits_is_not_computed():
    with fake_server(concurrency=1, queue=5) as server, connected(server) as first, connected(server) as second:
        text = body(signature_name="waiting")
        sent(first, text, Content_Length=len(text), Connection="close")
        assert server.servable.entered.acquire(timeout=30)
        sent(second, text, Content_Length=len(text))
        wait_until(lambda: server.house.gate.waiting == 1)
        second.close()
        assert server.call("/v1/models/double", method="GET").status == 200  # the loop has turned since
        server.servable.go_on.set()
        assert b'"predictions": [[3.0]]' in answered(first)
        wait_until(lambda: server.house.models.users == server.house.gate.computing == server.house.gate.waiting == 0)
        assert not server.servable.entered.acquire(blocking=False)
        assert b'status="CANCELLED"' in server.house.metrics.text()


def test_status_and_metrics_answer_while_predictions_run():
    with fake_server(concurrency=2) as server, ThreadPoolExecutor(4) as pool:
        text = body(signature_name="waiting")
        answers = [pool.submit(server.call, body=text) for _ in range(4)]
        assert all(server.servable.entered.acquire(timeout=30) for _ in range(2))
        assert server.call("/v1/models/double", method="GET").status == 200
        metrics = server.call("/monitoring/prometheus/metrics", method="GET")
        assert metrics.status == 200 and metrics.headers["Content-Type"].startswith("text/plain")
        server.servable.go_on.set()
        assert [answer.result().status for answer in answers] == [200] * 4


def test_documents_are_not_held_while_predictions_wait(monkeypatch):
    held, most = [], []
    parse, arrays = json_in.parse, json_in.arrays

    def counting_parse(text):
        held.append(text)
        most.append(len(held))
        return parse(text)

    def counting_arrays(document, definition):
        inputs = arrays(document, definition)
        held.pop()
        return inputs

    monkeypatch.setattr(json_in, "parse", counting_parse)
    monkeypatch.setattr(json_in, "arrays", counting_arrays)
    with fake_server(concurrency=1, queue=20) as server, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(server.call, body=body(signature_name="waiting")) for _ in range(8)]
        wait_until(lambda: server.house.gate.waiting == 7)  # all but one have been read
        server.servable.go_on.set()
        assert [answer.result().status for answer in answers] == [200] * 8
    assert len(most) == 8 and set(most) == {1}


def test_a_full_queue_refuses_at_once():
    with fake_server(concurrency=1, queue=1) as server, ThreadPoolExecutor(2) as pool:
        text = body(signature_name="waiting")
        answers = [pool.submit(server.call, body=text) for _ in range(2)]
        assert server.servable.entered.acquire(timeout=30)
        wait_until(lambda: server.house.gate.waiting == 1)
        answer = server.call(body=text)
        assert answer.status == 503 and error(answer).startswith("The batch scheduling queue")
        server.servable.go_on.set()
        assert [answer.result().status for answer in answers] == [200] * 2


def test_64_clients_at_once(server):
    start = threading.Barrier(64)

    def client(number):
        start.wait(30)
        return json.loads(server.call(body=body(number)).data)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(client, range(64)))
    assert answers == [{"predictions": [[2.0 * number]]} for number in range(64)]
