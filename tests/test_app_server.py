"""Serving the page: what it gives away and to whom, and what it leaves behind. No browser is needed."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bsdenoise import images
from bsdenoise.app import server
from bsdenoise.app.denoising import Workshop

pytestmark = [
    pytest.mark.slow,
    # Gradio 6.31 sums up its queue, after some minutes, with options that pandas 3 is about to drop.
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
MAX_PIXELS = 1000


class HalvingDenoiser:
    """Stands for a model of colour images: halves what it gets."""

    channels = 3
    method = SimpleNamespace(name="full")
    has_posterior = True
    noise = SimpleNamespace(is_known=True, takes_sigma=True, least=(0.1,), greatest=(0.1,))
    scale = 1.0

    def own_sigma(self, image):
        return np.full(len(image), 0.1, np.float32)

    def posterior(self, noisy, sigma):
        sigma = 0.1 if sigma is None else sigma
        halved = images.to_unit(noisy) / 2
        return SimpleNamespace(denoised=halved, std=np.full_like(halved, sigma / 2), estimated_psnr=30.0, sigma=sigma)

    denoise = None  # not needed for single images


@pytest.fixture(scope="module")
def url():
    with server.running(Workshop(HalvingDenoiser(), MAX_PIXELS), "A model.", "127.0.0.1", 0) as address:
        yield address


def get(url, **headers):
    """Status and content of an answer."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def post(url, data, kind="application/json"):
    request = urllib.request.Request(url, data, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def upload(url, name, data):
    head = f'--line\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    (path,) = post(
        f"{url}/gradio_api/upload", head.encode() + data + b"\r\n--line--\r\n", "multipart/form-data; boundary=line"
    )
    return path


def call(url, function, *data):
    """Calls one of the page's functions as its own script does, and gives whether it went well, and the outputs."""
    config = json.loads(get(f"{url}/config")[1])
    (number,) = [found["id"] for found in config["dependencies"] if found["api_name"] == function]
    session = os.urandom(8).hex()
    body = {"data": data, "fn_index": number, "session_hash": session}
    post(f"{url}/gradio_api/queue/join", json.dumps(body).encode())
    with urllib.request.urlopen(f"{url}/gradio_api/queue/data?session_hash={session}", timeout=20) as stream:
        for line in stream:
            event = json.loads(line[len(b"data:") :]) if line.startswith(b"data:") else {}
            if event.get("msg") == "process_completed":
                return event["success"], event["output"].get("data")
    raise AssertionError("the stream ended without a result")


def as_file(path):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


@pytest.fixture
def picture(tmp_path):
    images.write(tmp_path / "a.png", np.full((4, 5, 3), 100, np.uint8))
    return (tmp_path / "a.png").read_bytes()


def test_an_upload_is_denoised_and_its_result_fetched(url, picture, tmp_path):
    path = upload(url, "a.png", picture)
    succeeded, outputs = call(url, "denoise", as_file(path), "", 1, False)
    assert succeeded
    status, data = get(f"{url}/gradio_api/file={outputs[-1]['value']['path']}")
    assert status == 200
    assert (images.decode(data, "result").array == 50).all()


def test_files_of_the_machine_cannot_be_read(url, picture, tmp_path):
    secret = tmp_path / "a.png"
    assert secret.exists()
    for path in (secret, Path(__file__), Path("setup.cfg").absolute(), "/etc/hostname", "../../setup.cfg"):
        assert get(f"{url}/gradio_api/file={path}")[0] in (403, 404), path


def test_files_of_the_machine_cannot_be_denoised(url, picture, tmp_path):
    succeeded, outputs = call(url, "denoise", as_file(tmp_path / "a.png"), "", 1, False)
    assert not succeeded
    assert outputs is None


def test_uploads_beyond_the_limit_are_refused(url, monkeypatch):
    with pytest.raises(urllib.error.HTTPError, match="413"):
        upload(url, "a.png", bytes(server.MIN_FILE_BYTES + 1))


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=http://example.com/", "/gradio_api/file=https://example.com/", "/gradio_api/proxy=http://x"],
)
def test_the_page_fetches_nothing_for_others(url, path):
    assert get(f"{url}{path}") == (404, b"Not found.")


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:80", 200), ("127.0.0.1", 200), ("[::1]:7860", 200), ("evil.example", 400), ("evil.example:7860", 400)],
)
def test_pages_that_pose_as_this_one_are_refused(url, host, status):
    assert get(url, Host=host)[0] == status


@pytest.mark.parametrize(
    ("host", "is_limited"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("pc", False)]
)
def test_names_are_free_where_others_are_to_reach_the_page(host, is_limited):
    assert bool(server._allowed_hosts(host)) == is_limited


def test_another_origin_is_not_let_in(url):
    own = f"http://{url.split('://')[1].rstrip('/')}"
    assert get(f"{url}/config", Origin=own)[0] == 200
    for origin in ("https://evil.example", "null", own + "1"):
        assert get(f"{url}/config", Origin=origin)[0] == 400
    request = urllib.request.Request(
        f"{url}/gradio_api/upload", b"--line--\r\n", {"Content-Type": "multipart/form-data; boundary=line"}
    )
    request.add_header("Origin", "https://evil.example")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=20)


def test_what_a_request_names_by_a_url_is_not_fetched(url):
    """Not even from this machine: a server here would notice."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(2)
        for host in ("127.0.0.1", "localhost"):
            address = f"http://{host}:{listening.getsockname()[1]}/a.png"
            succeeded, outputs = call(url, "denoise", as_file(address), "", 1, False)
            assert not succeeded and outputs is None
        with pytest.raises(TimeoutError):
            listening.accept()


def test_the_guard_against_urls():
    seen = []

    async def move(path):
        seen.append(path)

    guarded = server._uploads_only(move)
    asyncio.run(guarded("/tmp/a.png"))
    assert seen == ["/tmp/a.png"]
    for path in ("http://example.com/a.png", "HTTPS://example.com/a.png"):
        with pytest.raises(ValueError, match="must be uploaded"):
            asyncio.run(guarded(path))
    assert seen == ["/tmp/a.png"]


def test_the_page_names_no_other_machine(url):
    status, page = get(url)
    assert status == 200
    for place in (b"fonts.googleapis", b"cdn", b"analytics"):
        assert place not in page.replace(b'"analytics_enabled":false', b"").lower()


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1, port {port}: .*--port 0 picks a free port"),
            server.running(Workshop(HalvingDenoiser(), MAX_PIXELS), "", "127.0.0.1", port),
        ):
            pytest.fail("it started")


def test_a_start_that_fails_is_told(monkeypatch):
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    with (
        pytest.raises(OSError, match="The page could not be started"),
        server.running(Workshop(HalvingDenoiser(), MAX_PIXELS), "", "127.0.0.1", 0),
    ):
        pytest.fail("it started")


def test_a_host_that_is_unknown_is_told():
    with (
        pytest.raises(OSError, match="cannot listen on no.such.host.invalid, port 0"),
        server.running(Workshop(HalvingDenoiser(), MAX_PIXELS), "", "no.such.host.invalid", 0),
    ):
        pytest.fail("it started")


def test_nothing_is_left_in_the_end(tmp_path, monkeypatch, picture):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    before = dict(os.environ)
    with server.running(Workshop(HalvingDenoiser(), MAX_PIXELS), "A model.", "127.0.0.1", 0) as address:
        call(address, "denoise", as_file(upload(address, "a.png", picture)), "", 1, False)
        assert {path.name for path in (tmp_path / "temporary").rglob("*.png")} >= {"a.png", "denoised-a.png"}
    assert list((tmp_path / "temporary").iterdir()) == []
    assert dict(os.environ) == before
    with pytest.raises(OSError, match="refused"):
        get(address)


def test_a_page_before_a_server_needs_no_keras():
    program = (
        "import sys\n"
        "from bsdenoise.app import page, server\n"
        "print(sorted({'tensorflow', 'keras', 'skimage', 'scipy'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", "http://127.0.0.1:80"), ("0.0.0.0", "http://127.0.0.1:80"), ("::1", "http://[::1]:80")],
)
def test_the_address_can_be_opened(host, expected):
    assert server._url(host, 80) == expected
