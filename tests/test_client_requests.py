"""Single requests over both protocols: retries, deadlines, errors, headers, TLS."""

import re
import socket
import ssl
import subprocess
import threading
import time

import numpy as np
import pytest
from fake_server import SERVERS, FakeModel

from bsdenoise import client
from bsdenoise.client import connecting, retries, rpc
from bsdenoise.client import rest as rest_module
from bsdenoise.client.rest import sentence

BOTH = pytest.mark.parametrize("protocol", SERVERS)
IMAGE = np.random.default_rng(0).uniform(0, 1, (5, 7, 3)).astype("float32")
# What each protocol calls the same thing.
CODES = {
    "bad input": {"rest": 400, "grpc": "INVALID_ARGUMENT"},
    "not found": {"rest": 404, "grpc": "NOT_FOUND"},
    "busy": {"rest": 429, "grpc": "RESOURCE_EXHAUSTED"},
    "unavailable": {"rest": 503, "grpc": "UNAVAILABLE"},
    "deadline": {"rest": 504, "grpc": "DEADLINE_EXCEEDED"},
    "internal": {"rest": 500, "grpc": "INTERNAL"},
    "precondition": {"rest": 412, "grpc": "FAILED_PRECONDITION"},
    "denied": {"rest": 403, "grpc": "PERMISSION_DENIED"},
    "lost": {"rest": "hang up", "grpc": "hang up"},
}


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)


@pytest.fixture
def served(protocol):
    """A model, its server's URL, and a client that has its description."""
    model = FakeModel()
    with SERVERS[protocol](model) as url, client.connect(url) as connected:
        assert connected.channels == 3
        model.calls.clear()
        yield model, url, connected


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


# --- retries -------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("kind", ["busy", "unavailable", "lost"])
def test_what_may_work_later_is_sent_again(served, protocol, kind):
    model, _, connected = served
    model.failures = [(CODES[kind][protocol], "come back")] * 3
    np.testing.assert_allclose(connected.denoise(IMAGE, 0.1), IMAGE / 2 + 0.0125, rtol=1e-6)
    assert model.failures == []
    assert [name for name, _ in model.calls] == ["with_sigma"]


@BOTH
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("bad input", client.RefusedError),
        ("not found", client.NotFoundError),
        ("deadline", client.DeadlineError),
        ("internal", client.ClientError),
        ("precondition", client.ClientError),
        ("denied", client.ClientError),
    ],
)
def test_what_would_fail_again_is_not_sent_again(served, protocol, kind, error):
    model, url, connected = served
    model.failures = [(CODES[kind][protocol], "the very words"), (500, "not reached")]
    with pytest.raises(error, match="the very words") as caught:
        connected.denoise(IMAGE)
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{url}{'/v1/models' if protocol == 'rest' else ''}/denoiser: ")
    assert len(model.failures) == 1


@BOTH
@pytest.mark.parametrize("kind", ["busy", "unavailable", "lost"])
def test_retries_end(protocol, kind):
    model = FakeModel()
    with SERVERS[protocol](model) as url, client.connect(url, retries=2) as connected:
        model.failures = [(CODES[kind][protocol], "come back")] * 9
        with pytest.raises(client.UnavailableError, match="/denoiser: .*(come back|connection was lost)"):
            connected.denoise(IMAGE)
    assert len(model.failures) == 6


@BOTH
def test_a_server_that_is_not_there(protocol):
    scheme = {"rest": "http", "grpc": "grpc"}[protocol]
    with (
        client.connect(f"{scheme}://127.0.0.1:{free_port()}", retries=1) as connected,
        pytest.raises(client.UnavailableError, match="/denoiser: the server cannot be reached: .*[Rr]efused"),
    ):
        connected.denoise(IMAGE)


@BOTH
def test_a_server_that_comes_back_is_found(protocol, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.05)
    model, results = FakeModel(), []
    with SERVERS[protocol](model) as url:
        connected = client.connect(url)
        connected.denoise(IMAGE)
    thread = threading.Thread(target=lambda: results.append(connected.denoise(IMAGE, 0.1)))
    thread.start()
    with SERVERS[protocol](model, port=int(url.rpartition(":")[2])), connected:
        thread.join(20)
    np.testing.assert_allclose(results[0], IMAGE / 2 + 0.0125, rtol=1e-6)


@BOTH
def test_the_deadline_covers_all_attempts(protocol, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.2)
    model = FakeModel()
    with SERVERS[protocol](model) as url, client.connect(url, timeout=0.5, retries=1000) as connected:
        assert connected.channels == 3
        model.failures = [(CODES["unavailable"][protocol], "come back")] * 1000
        start = time.monotonic()
        with pytest.raises(client.UnavailableError, match="come back"):
            connected.denoise(IMAGE)
        assert time.monotonic() - start < 2
    assert len(model.failures) > 990


@BOTH
def test_a_server_that_never_answers(protocol):
    model = FakeModel()
    with SERVERS[protocol](model) as url, client.connect(url, timeout=0.3) as connected:
        model.failures = [("wait",)]
        with pytest.raises(client.DeadlineError, match=r"/denoiser: no answer within 0\.3 s"):
            connected.denoise(IMAGE)
        model.go.set()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"timeout": 0}, "`timeout` must be positive, in seconds. Received: timeout=0"),
     ({"retries": -1}, "`retries` must not be negative. Received: retries=-1")],
)  # fmt: skip
def test_wrong_patience_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        client.connect("http://host", **options)


# --- waiting -------------------------------------------------------------------------------------------------------


@BOTH
def test_waiting_until_a_version_is_available(served, protocol):
    model, _, connected = served
    model.states = ["END", "AVAILABLE"]
    model.failures = [(CODES["not found"][protocol], "not yet"), (CODES["unavailable"][protocol], "starting")]
    connected.wait_until_ready(20)
    assert model.failures == []


@BOTH
@pytest.mark.parametrize(
    ("states", "failures", "message"),
    [
        (["LOADING", "END"], 0, "its versions are LOADING, END"),
        ([], 0, "its versions are none"),
        ([], 99999, "not yet"),
    ],
)
def test_waiting_ends(served, protocol, states, failures, message):
    model, _, connected = served
    model.states = states
    model.failures = [(CODES["not found"][protocol], "not yet")] * failures
    with pytest.raises(client.DeadlineError, match=rf"/denoiser: {message} \(not ready after 0\.1 s\)"):
        connected.wait_until_ready(0.1)


# --- answers that are none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["rest"])
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ((200, b"<html>hello"), "not the answer of a model server: status 200, <html>hello"),
        ((302, b""), "not the answer of a model server: status 302, empty"),
        ((413, b"too big"), "not the answer of a model server: status 413, too big"),
        ((200, b'{"outputs": [1, 2]}'), "denoised of shape .1, 5, 7, 3. is expected. Received: shape=.2,."),
        ((200, b'{"outputs": {"other": [1]}}'), "the answer of 'with_sigma' lacks 'denoised'"),
    ],
)
def test_answers_of_something_else(served, failure, message):
    model, _, connected = served
    model.failures = [failure]
    with pytest.raises(client.ClientError, match=message):
        connected.denoise(IMAGE, 0.1)


@BOTH
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "cannot be used by this version of the client: format 1 is expected. Received: format 2"),
        ({"limits": {}}, "cannot be used by this version of the client: KeyError: 'max_pixels'"),
        ({"channels": "three"}, "cannot be used by this version of the client: ValueError: invalid literal"),
    ],
)
def test_descriptions_that_cannot_be_used(protocol, changes, message):
    with SERVERS[protocol](FakeModel(**changes)) as url, client.connect(url) as connected:
        with pytest.raises(client.RefusedError, match=f"/denoiser: what the model says of itself {message}"):
            _ = connected.description


@BOTH
def test_a_model_that_does_not_describe_itself(protocol):
    model = FakeModel()
    with SERVERS[protocol](model) as url, client.connect(url) as connected:
        code = CODES["bad input" if protocol == "rest" else "precondition"][protocol]
        model.failures = [(code, 'Serving signature name: "describe" not found in signature def')]
        with pytest.raises(client.RefusedError, match='"describe" not found .*; export it again'):
            _ = connected.channels


@BOTH
def test_the_description_is_asked_for_once(served):
    model, _, connected = served
    assert connected.description == model.description
    assert (connected.noise.low, connected.noise.high, connected.noise.is_known) == (0.05, 0.2, False)
    assert model.calls == []


def test_a_message_larger_than_the_server_takes_is_not_sent_again():
    model = FakeModel()
    with SERVERS["grpc"](model) as url, client.connect(url) as connected:
        assert connected.channels == 3
        model.failures = [("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)")] * 2
        with pytest.raises(client.RefusedError, match="Received message larger than max"):
            connected.denoise(IMAGE)
        assert len(model.failures) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("assertion failed: [image is empty]\n\t [[{{node a}}]]", "image is empty"),
        ("assertion failed: [at [1, 2] = [3]]", "at [1, 2] = [3]"),
        ("XLA compilation disabled\n\t [[{{f}}]]", "XLA compilation disabled"),
        ("plain\nwords", "plain words"),
    ],
)
def test_what_tensorflow_puts_around_a_sentence_is_taken_away(text, expected):
    assert sentence(text) == expected


# --- headers and TLS -----------------------------------------------------------------------------------------------


@BOTH
def test_headers_go_with_every_request(protocol):
    model = FakeModel()
    headers = {"Authorization": "Bearer secret"}
    with SERVERS[protocol](model) as url, client.connect(url, headers=headers) as connected:
        connected.denoise(IMAGE)
    assert len(model.headers) == 2
    assert all(seen["authorization"] == "Bearer secret" for seen in model.headers)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody else trusts, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    extension = "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem"
    subprocess.run([*command.split(), *extension.split()], cwd=folder, check=True, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"


def tls_server(protocol, certificate):
    if protocol == "rest":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        return context
    pair = (certificate[1].read_bytes(), certificate[0].read_bytes())
    return rpc.grpc.ssl_server_credentials([pair])


@BOTH
def test_tls_with_an_own_certificate(protocol, certificate):
    model = FakeModel()
    with SERVERS[protocol](model, tls=tls_server(protocol, certificate)) as url:
        with client.connect(url, ca_file=certificate[0]) as connected:
            np.testing.assert_allclose(connected.denoise(IMAGE, 0.1), IMAGE / 2 + 0.0125, rtol=1e-6)
        with client.connect(url, retries=0) as distrustful, pytest.raises(client.ClientError, match="[Cc]ertificate"):
            distrustful.denoise(IMAGE)


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_missing_certificate_is_named(tmp_path, scheme):
    with pytest.raises(OSError, match="none.pem"):
        client.connect(f"{scheme}://host:1", ca_file=tmp_path / "none.pem")


def test_grpc_without_its_package_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bsdenoise.client.rpc", None)
    with pytest.raises(ValueError, match="gRPC needs tensorflow-serving-api, .*: install it, or use http://"):
        client.connect("grpc://host:1")
    assert connecting.connect("http://host:1") is not None


def test_the_errors_are_of_the_kinds_that_python_knows():
    assert issubclass(client.RefusedError, ValueError)
    assert issubclass(client.UnavailableError, ConnectionError)
    assert issubclass(client.DeadlineError, TimeoutError)
    kinds = [client.RefusedError, client.UnavailableError, client.DeadlineError, client.NotFoundError]
    assert all(issubclass(kind, client.ClientError) for kind in kinds)
    assert re.search("words", str(client.UnavailableError("the words")))


def test_a_time_out_of_the_server_says_what_can_be_done():
    for said in ("Timed out", "Timed out waiting for notification\n\t [[{{node x}}]]"):
        assert "--timeout" in sentence(said)
    assert sentence("assertion failed: [sigma must be positive]") == "sigma must be positive"


def test_a_port_that_speaks_no_http_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            with listening.accept()[0] as connection:
                connection.recv(100)
                connection.sendall(b"\x00\x00\x12\x04\x00 no HTTP\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with client.connect(f"http://127.0.0.1:{listening.getsockname()[1]}", retries=0) as model:
            with pytest.raises(client.UnavailableError, match="the answer is not HTTP; is this the port for REST?"):
                model.description  # noqa: B018
        thread.join()


def test_an_answer_that_trickles_is_not_waited_for_beyond_the_end():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            with listening.accept()[0] as connection:
                connection.recv(2**16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n")
                try:
                    for _ in range(400):
                        connection.sendall(b" ")
                        time.sleep(0.02)
                except OSError:
                    pass  # the client has gone

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with client.connect(url, retries=0, timeout=0.5) as model:
            start = time.monotonic()
            with pytest.raises(client.DeadlineError):
                model.description  # noqa: B018
            assert time.monotonic() - start < 3
        thread.join()


def test_a_large_body_has_more_time_to_be_sent():
    """urllib3 sends within the time that it has for connecting."""
    assert rest_module._sending_seconds(None) == rest_module.CONNECT_SECONDS
    assert rest_module._sending_seconds(bytes(2**22)) == rest_module.CONNECT_SECONDS + 32
