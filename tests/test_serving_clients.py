"""The clients in serving/clients/, and the proxy, against the local server."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SERVING = Path(__file__).parents[1] / "serving"
CLIENTS = SERVING / "clients"
HEIGHT, WIDTH = 20, 24
SIGMA = 50 / 255


@pytest.fixture(scope="module")
def model(tiny_denoiser_path):
    """A model for σ of 25 to 100 grey levels, so that telling it a σ makes a difference."""
    import keras

    import bsdenoise  # noqa: F401, registers the model

    return keras.models.load_model(tiny_denoiser_path(3, 100 / 255))


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    from bsdenoise.export import export_saved_model
    from bsdenoise.server.run import LocalServer

    folder = tmp_path_factory.mktemp("models") / "denoiser"
    export_saved_model(model, folder / "1")
    with LocalServer({"denoiser": folder}) as server:
        yield server


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def png(image, tmp_path):
    path = tmp_path / "noisy image.png"
    Image.fromarray(image).save(path)
    return path


def run(*command, **environment):
    return subprocess.run(
        [*map(str, command)], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def assert_denoised(path, model, image, sigma=None):
    """Compares an 8-bit file with what the model gives in this process."""
    expected = np.round(np.clip(model.denoise(image / np.float32(255), sigma=sigma), 0, 1) * 255)
    with Image.open(path) as result:
        assert result.format == "PNG"
        given = np.array(result).astype(np.float32)
    assert given.shape == expected.shape
    assert np.abs(given - expected).max() <= 1
    assert np.abs(given - image).max() > 1  # something was done


# curl


def test_curl(server, model, image, png, tmp_path):
    result = tmp_path / "denoised.png"
    done = run(CLIENTS / "denoise.sh", f"{server.rest_url}/v1/models/denoiser", png, result)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert_denoised(result, model, image)


def test_curl_says_what_the_server_says(server, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no image")
    url = f"{server.rest_url}/v1/models/denoiser"
    done = run(CLIENTS / "denoise.sh", url, tmp_path / "no.png", tmp_path / "result.png")
    assert done.returncode == 1
    assert url in done.stderr and '"error"' in done.stderr
    assert not (tmp_path / "result.png").exists()


@pytest.mark.parametrize(
    "arguments, sentence", [((), "usage: denoise.sh"), (("http://localhost", "/none.png", "x"), "cannot be read")]
)
def test_curl_refuses(arguments, sentence):
    done = run(CLIENTS / "denoise.sh", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


# Python over REST


@pytest.mark.parametrize("sigma", [None, SIGMA], ids=["own-sigma", "sigma"])
def test_python_over_rest(server, model, image, png, tmp_path, sigma):
    result = tmp_path / "denoised.png"
    options = [] if sigma is None else ["--sigma", sigma]
    # -I: it must do with the standard library
    done = run(
        sys.executable,
        "-I",
        CLIENTS / "denoise_rest.py",
        f"{server.rest_url}/v1/models/denoiser",
        png,
        result,
        *options,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert_denoised(result, model, image, sigma)


def test_python_over_rest_says_what_the_server_says(server, png, tmp_path):
    url = f"{server.rest_url}/v1/models/nobody"
    done = run(sys.executable, CLIENTS / "denoise_rest.py", url, png, tmp_path / "result.png")
    assert done.returncode == 1
    assert f"{url}: 404: " in done.stderr and "nobody" in done.stderr
    assert "Traceback" not in done.stderr


# Python over gRPC


@pytest.fixture(scope="module")
def grpc_client():
    sys.path.insert(0, str(CLIENTS))
    try:
        import denoise_grpc
    finally:
        sys.path.remove(str(CLIENTS))
    return denoise_grpc


@pytest.mark.parametrize("sigma", [None, SIGMA], ids=["own-sigma", "sigma"])
@pytest.mark.parametrize("is_batch", [False, True], ids=["image", "batch"])
def test_python_over_grpc(server, model, image, grpc_client, tmp_path, monkeypatch, sigma, is_batch):
    noisy = image / np.float32(255)
    if is_batch:
        noisy = np.stack([noisy, noisy[::-1]])
    np.save(tmp_path / "noisy.npy", noisy)
    options = [] if sigma is None else ["--sigma", str(sigma)]
    paths = [str(tmp_path / "noisy.npy"), str(tmp_path / "denoised.npy")]
    monkeypatch.setattr(sys, "argv", ["denoise_grpc.py", server.grpc_address, *paths, *options])
    assert grpc_client.main() == 0
    given = np.load(tmp_path / "denoised.npy")
    expected = model.denoise(noisy, sigma=sigma)
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert np.abs(given - noisy).max() > 0.01


def test_python_over_grpc_says_what_the_server_says(server, image, grpc_client, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "noisy.npy", image[..., :1])
    paths = [str(tmp_path / "noisy.npy"), str(tmp_path / "denoised.npy")]
    monkeypatch.setattr(sys, "argv", ["denoise_grpc.py", server.grpc_address, *paths])
    assert grpc_client.main() == 1
    assert capsys.readouterr().err.startswith(f"{server.grpc_address}: INVALID_ARGUMENT: ")


def test_both_forms_of_tensors_are_read(grpc_client):
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    proto = grpc_client.to_proto(array)
    np.testing.assert_array_equal(grpc_client.from_proto(proto), array)
    proto.tensor_content = b""
    proto.float_val.extend(range(6))
    np.testing.assert_array_equal(grpc_client.from_proto(proto), array)


def test_no_client_needs_this_package():
    for path in CLIENTS.glob("*.py"):
        assert "import bsdenoise" not in path.read_text() and "from bsdenoise" not in path.read_text()


# The proxy


@pytest.fixture
def proxy(server, tmp_path):
    """Runs nginx.conf with ports and files of this test; gives its URL and certificate."""
    if not shutil.which("nginx") or not shutil.which("openssl"):
        pytest.skip("nginx or openssl is not installed")
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = run(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        key,
        "-out",
        certificate,
        *subject,
    )
    assert made.returncode == 0, made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (SERVING / "nginx.conf").read_text()
    for old, new in [
        ("/etc/nginx/tls", str(tmp_path)),
        ("127.0.0.1:8501", server.rest_url.removeprefix("http://")),
        ("listen 8443", f"listen 127.0.0.1:{port}"),
        ("/tmp/nginx", f"{tmp_path}/nginx"),
        ("/dev/stdout", str(tmp_path / "access.log")),
        ("/dev/stderr", str(tmp_path / "error.log")),
        ("worker_processes auto;", "worker_processes 1;"),
    ]:
        assert old in text
        text = text.replace(old, new)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(text)
    checked = run("nginx", "-t", "-c", configuration)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(
        ["nginx", "-c", configuration, "-g", "daemon off;"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.01)
    yield f"https://localhost:{port}", certificate
    process.terminate()
    process.wait(timeout=30)


def test_rest_with_tls_through_the_proxy(proxy, model, image, png, tmp_path):
    url, certificate = proxy
    result = tmp_path / "denoised.png"
    done = run(CLIENTS / "denoise.sh", f"{url}/v1/models/denoiser", png, result, "--cacert", certificate)
    assert (done.returncode, done.stderr) == (0, "")
    assert_denoised(result, model, image)

    def status(path, *options):
        return run(
            "curl",
            "--silent",
            "--cacert",
            certificate,
            "--output",
            os.devnull,
            "--write-out",
            "%{http_code}",
            *options,
            url + path,
        ).stdout

    assert status("/v1/models/denoiser") == "200"
    assert status("/monitoring/prometheus/metrics") == "404"
    assert status("/v1/models/denoiser", "--request", "DELETE") == "403"
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(101 * 2**20)
    assert status("/v1/models/denoiser:predict", "--data-binary", f"@{large}") == "413"
