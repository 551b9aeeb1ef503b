"""The guard before a model server's REST port: what it sends on, and what it keeps away."""

import contextlib
import gzip
import http.client
import http.server
import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from bsdenoise import cli
from bsdenoise.server import guard
from bsdenoise.server.json_text import Refusal

PREDICT = "/v1/models/den:predict"
# The guard must work where there is no TensorFlow.
PROGRAM = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None
from bsdenoise import cli
sys.exit(cli.main())
"""


class Behind(http.server.BaseHTTPRequestHandler):
    """Stands in for the model server: keeps what it is sent."""

    protocol_version = "HTTP/1.1"

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.seen.append((self.command, self.path, body, dict(self.headers)))
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        self.server.go.wait(30)
        with self.server.lock:
            self.server.now -= 1
        content = b'{"predictions": [1]}'
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def behind():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Behind)
    server.lock, server.go = threading.Lock(), threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.go.set()
    server.shutdown()
    thread.join()
    server.server_close()


@contextlib.contextmanager
def running(*arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "guard", *arguments, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        yield int(line.split(" at http://127.0.0.1:")[1].split(":")[0])
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
        process.stdout.close()
    assert code == 0


@pytest.fixture(scope="module")
def port(behind):
    url = f"http://127.0.0.1:{behind.server_port}"
    with running(url, "--at-once", "2", "--queue", "1", "--max-body", "1", "--timeout", "20") as port:
        yield port


@pytest.fixture(autouse=True)
def fresh(request):
    if "behind" in request.fixturenames or "port" in request.fixturenames:
        server = request.getfixturevalue("behind")
        server.seen, server.now, server.most, server.status = [], 0, 0, 200
        server.go.set()


def ask(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def nested(depth):
    """A request whose lists are so deep."""
    return b'{"instances": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


# What goes on


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [{"image_bytes": {"b64": "AAAA"}}], "signature_name": "encoded"},
        {"inputs": {"image": [[[[0.5, 1e-7, -3, 16777217]]]], "sigma": [0.1]}},
        {"instances": ["json", 'a "quoted" [text] \\ {here}', "grün"], "signature_name": "describe"},
        {"instances": [[[[1.0]], [[2.5]]]]},
    ],
    ids=["file", "columns", "strings", "numbers"],
)
def test_requests_arrive_with_what_they_said(port, behind, body):
    text = json.dumps(body, indent=3, ensure_ascii=False).encode()
    assert ask(port, "POST", PREDICT, text, Content_Type="text/plain", X_Own="1") == (200, b'{"predictions": [1]}')
    ((method, path, sent, headers),) = behind.seen
    assert (method, path, json.loads(sent)) == ("POST", PREDICT, body)
    assert sent != text and sent.isascii()  # written anew
    assert "X-Own" not in headers and headers["Content-Type"] == "application/json"


def test_a_name_that_comes_twice_goes_on_once(port, behind):
    assert ask(port, "POST", PREDICT, b'{"instances": [1], "instances": [2]}')[0] == 200
    assert behind.seen[0][2].count(b"instances") == 1


def test_packed_bodies_are_unpacked(port, behind):
    assert ask(port, "POST", PREDICT, gzip.compress(b'{"instances": [1]}'), Content_Encoding="gzip")[0] == 200
    assert json.loads(behind.seen[0][2]) == {"instances": [1]}
    assert "Content-Encoding" not in behind.seen[0][3]


@pytest.mark.parametrize(
    "path", ["/v1/models/den", "/v1/models/den/versions/3", "/v1/models/den/labels/stable/metadata"]
)
def test_status_and_metadata_pass(port, behind, path):
    assert ask(port, "GET", path)[0] == 200
    assert [seen[:2] for seen in behind.seen] == [("GET", path)]


@pytest.mark.parametrize("status", [400, 404, 503])
def test_what_the_server_says_comes_back(port, behind, status):
    behind.status = status
    assert ask(port, "POST", PREDICT, b'{"instances": [1]}') == (status, b'{"predictions": [1]}')


# What does not


@pytest.mark.parametrize(
    "body, sentence",
    [
        (nested(guard.MAX_DEPTH + 1), "nested at most 12 deep. Received: 13"),
        (b'{"a": ' * 40 + b"1" + b"}" * 40, "nested at most 12 deep. Received: 40"),
        (b"[" * 20, "nested at most 12 deep. Received: 20"),
        (b"", "The document is empty"),
        (b"{", "JSON Parse error"),
        (b"[1]", "Is not object"),
        (b'{"instances": [1e999]}', "JSON Parse error"),
        (b'{"instances": ["\xff"]}', "JSON Parse error"),
        (b'{"instances": [1], "inputs": [1]}', "either instances or inputs"),
        (b'{"signature_name": "encoded"}', "either instances or inputs"),
        (b'{"instances": {"a": 1}}', "instances must be a list"),
        (b'{"instances": [1], "signature_name": ["x"]}', "signature_name must be a short text"),
        (b'{"instances": [1], "other": 1}', "Received: 'other'"),
        (b'{"instances": [{"": 1}]}', "Names of inputs must have"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_a_bad_body_never_reaches_the_server(port, behind, body, sentence):
    status, answer = ask(port, "POST", PREDICT, body)
    assert status == 400 and sentence in json.loads(answer)["error"]
    assert behind.seen == []


def test_the_deepest_that_is_taken(port, behind):
    assert ask(port, "POST", PREDICT, nested(guard.MAX_DEPTH))[0] == 200
    assert len(behind.seen) == 1


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/monitoring/prometheus/metrics"),
        ("GET", "/v1/models"),
        ("POST", "/v1/models/den:classify"),
        ("POST", "/v1/models/den%2f:predict"),
        ("POST", "/v1/models/den/versions/x:predict"),
        ("POST", f"/v1/models/{'a' * 200}:predict"),
        ("DELETE", "/v1/models/den"),
        ("GET", "/v1/models/../../etc/passwd"),
    ],
)
def test_other_addresses_do_not_pass(port, behind, method, path):
    assert ask(port, method, path, b"{}" if method == "POST" else None)[0] == 404
    assert behind.seen == []


@pytest.mark.parametrize("packed", [False, True])
def test_a_large_body_is_cut_off(port, behind, packed):
    body = b'{"instances": ["' + b"a" * 2**21 + b'"]}'
    headers = {"Content_Encoding": "gzip"} if packed else {}
    status, answer = ask(port, "POST", PREDICT, gzip.compress(body) if packed else body, **headers)
    assert status == 413 and b"at most 1048576 bytes" in answer
    assert behind.seen == []


def test_depth_is_that_of_brackets_outside_of_texts():
    assert guard.deepest(b'{"a": [[]], "[[[[\\"[[": "{{{{"}') == 3
    assert guard.deepest(b'"[[[[') == guard.deepest(b"1") == 0
    assert guard.deepest(b'"\\') == guard.deepest(b"]]]") == 0


@pytest.mark.parametrize("text", [b'"\\"', b'"[', b'"\\\\', b'"""'], ids=str)
def test_the_look_at_depth_takes_time_in_proportion(text):
    start = time.process_time()
    guard.deepest(b'{"a": "' + text * 300_000)
    assert time.process_time() - start < 5


def test_numbers_and_texts_keep_their_values():
    values = [0.1, 1e-45, 3.4028234663852886e38, -0.0, 2**53 + 1, "\u2028\x00", "\U0001f600"]
    body = json.dumps({"instances": values}).encode()
    written = json.loads(guard.rewritten(body))["instances"]
    assert written[:3] == pytest.approx(values[:3], rel=1e-15, abs=0) and written[3:] == values[3:]
    assert np.float32(written[2]) == np.finfo(np.float32).max  # a digit more would be too much for the server
    with pytest.raises(Refusal, match="nested at most"):
        guard.rewritten(nested(20))


# How many at once


def test_no_more_go_on_at_once_than_the_server_computes(port, behind):
    """Two at once and one that waits; a fourth is turned away, and status is answered all the while."""
    behind.go.clear()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(port, "POST", PREDICT, b'{"instances": [1]}')[0]))
        for _ in range(3)
    ]
    for number, thread in enumerate(threads):
        thread.start()
        end = time.monotonic() + 30
        while len(behind.seen) < min(number + 1, 2) and time.monotonic() < end:
            time.sleep(0.01)
    time.sleep(0.3)  # for the third, which is seen nowhere
    assert ask(port, "POST", PREDICT, b'{"instances": [1]}')[0] == 503
    status = threading.Thread(target=ask, args=(port, "GET", "/v1/models/den"))
    status.start()
    end = time.monotonic() + 30
    while len(behind.seen) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert [seen[0] for seen in behind.seen] == ["POST", "POST", "GET"]
    behind.go.set()
    for thread in [*threads, status]:
        thread.join(30)
    assert answers == [200] * 3
    assert sum(seen[0] == "POST" for seen in behind.seen) == 3


def test_a_server_that_is_not_there(tmp_path):
    with running("http://127.0.0.1:9", "--timeout", "5") as port:
        status, answer = ask(port, "POST", PREDICT, b'{"instances": [1]}')
        assert (status, json.loads(answer)) == (503, {"error": "The model server does not answer"})


# The command


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["localhost:8501"], "URL must read http://HOST:PORT, without a path. Received: 'localhost:8501'"),
        (["http://a:1/v1"], "URL must read"),
        (["http://u:p@a:1"], "URL must read"),
        (["http://a:1", "--port", "70000"], "--port must be between 0 and 65535. Received: 70000."),
        (["http://a:1", "--at-once", "0"], "--at-once must be between 1 and 1024. Received: 0."),
        (["http://a:1", "--queue", "-1"], "--queue must be between 0 and 10000. Received: -1."),
        (["http://a:1", "--max-body", "0"], "--max-body must be between 1 and 2048. Received: 0."),
        (["http://a:1", "--timeout", "nan"], "--timeout must be between 1 and 86400. Received: nan."),
        (["http://a:1", "--host", "256.1.1.1"], "is no address to listen on"),
    ],
)
def test_mistakes_are_one_line(arguments, sentence, capsys):
    assert cli.main(["guard", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
