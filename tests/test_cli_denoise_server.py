"""`bsdenoise denoise --server`: the files of the local model, several at once, and servers that fail."""

import os
import re
import signal
import subprocess
import sys
import threading

import imagecodecs
import numpy as np
import pytest
from denoise_command import grey, save, written
from fake_server import SERVERS, FakeModel, rest

from bsdenoise import cli, client, images
from bsdenoise.cli import models
from bsdenoise.client import retries

BOTH = pytest.mark.parametrize("protocol", SERVERS)
# A PNG header of 4 × 4 RGB pixels and the end chunk, with no pixels between.
DAMAGED_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000004000000040802000000269309290000000049454e44ae426082"
)
WAIT = 20  # seconds, for what takes none


def denoise(url, *arguments):
    return cli.main(["denoise", *map(str, arguments), "--server", url])


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)


@pytest.fixture
def folder(tmp_path):
    """Five grey files, of as many heights."""
    for number in range(1, 6):
        save(tmp_path / f"in/{number}.png", grey(40 * number, shape=(number, 7)))
    return tmp_path


# --- a real server -------------------------------------------------------------------------------------------------


HIGH = 0.3  # of the range of σ


@pytest.fixture(scope="module")
def local_server(tmp_path_factory, tiny_denoiser_path):
    """A server of a tiny model that takes 160 × 160 pixels at most; its tiles overlap by all that its network sees."""
    from bsdenoise import export
    from bsdenoise.server.run import LocalServer

    folder = tmp_path_factory.mktemp("denoiser")
    denoiser = models.load_denoiser(tiny_denoiser_path(3, HIGH))
    export.export_saved_model(denoiser, folder / "1", tile=160, max_pixels=160 * 160)
    with LocalServer({"denoiser": folder}) as server:
        yield {"rest": server.rest_url, "grpc": f"grpc://{server.grpc_address}"}


def save_noisy_files(folder, sigma_is_given):
    rng = np.random.default_rng(0)
    save(folder / "small.png", rng.integers(100, 160, (21, 34, 3), np.uint8))
    save(folder / "deep.png", rng.integers(0, 65536, (21, 34, 3), np.uint16))
    save(folder / "photo.jpg", rng.integers(0, 256, (16, 24, 3), np.uint8))
    save(folder / "stack.tif", rng.uniform(0.4, 0.6, (2, 21, 34, 3)).astype("float32"))
    if sigma_is_given:  # otherwise its σ would be estimated from its middle
        save(folder / "large.png", rng.integers(0, 256, (170, 200, 3), np.uint8))


def lines_but_progress(capsys):
    """What was said, without the lines that only a slow machine makes it say."""
    return [line for line in capsys.readouterr().err.splitlines() if not line.endswith("megapixels are denoised")]


@BOTH
@pytest.mark.parametrize("options", [["--std"], ["--sigma", "25/255"]], ids=["own", "given"])
def test_the_files_are_those_of_the_local_model(tmp_path, capsys, local_server, tiny_denoiser_path, protocol, options):
    save_noisy_files(tmp_path / "in", sigma_is_given="--sigma" in options)
    model = ["--model", str(tiny_denoiser_path(3, HIGH))]
    assert cli.main(["denoise", str(tmp_path / "in"), "--out", str(tmp_path / "local"), *model, *options]) == 0
    local_lines = lines_but_progress(capsys)
    assert denoise(local_server[protocol], tmp_path / "in", "--out", tmp_path / "remote", *options) == 0
    assert lines_but_progress(capsys) == local_lines
    assert written(tmp_path / "remote") == written(tmp_path / "local") != []
    for file in written(tmp_path / "local"):
        expected, result = (images.read_array(tmp_path / side / file) for side in ("local", "remote"))
        assert result.dtype == expected.dtype
        if result.dtype == np.float32:  # of -std, the squares: roots are wild near zero
            power = 2 if "-std" in file else 1
            np.testing.assert_allclose(result**power, expected**power, atol=1e-4 if "-std" in file else 1e-5)
        elif "-std" in file:  # a small difference of large numbers: here and there it is rounded the other way
            differences = np.abs(result.astype(int) - expected)
            assert differences.max() <= 1 and differences.mean() < 0.01
        else:
            np.testing.assert_array_equal(result, expected, err_msg=file)


@BOTH
def test_an_image_in_tiles_has_the_psnr_of_the_whole(local_server, tiny_denoiser_path, protocol):
    rng = np.random.default_rng(0)
    noisy = (0.5 + 0.1 * rng.standard_normal((170, 200, 3))).astype("float32")
    expected = models.load_denoiser(tiny_denoiser_path(3, HIGH)).posterior(noisy, 0.1)
    with client.connect(local_server[protocol]) as connected:
        found = connected.posterior(noisy, 0.1)
        assert connected.own_sigma(noisy) == pytest.approx(0.1, rel=0.03)
        with pytest.raises(client.RefusedError, match=r"/denoiser: image_bytes\[0\] .*PNG"):
            connected.denoise_bytes(DAMAGED_PNG)
    for name in ("denoised", "mean"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5)
    np.testing.assert_allclose(found.std**2, expected.std**2, atol=1e-6)  # variances: their roots are wild near zero
    assert found.estimated_psnr == pytest.approx(expected.estimated_psnr, abs=1e-3)


# --- which model ---------------------------------------------------------------------------------------------------


def test_a_model_or_a_server(folder, capsys):
    options = ["--model", "a.keras", "--server", "http://host:1"]
    assert cli.main(["denoise", str(folder / "in"), "--out", str(folder / "out"), *options]) == 2
    assert capsys.readouterr().err == "bsdenoise: error: --model and --server exclude each other.\n"


def test_concurrency_must_be_positive(folder, capsys):
    assert denoise("http://host:1", folder / "in", "--out", folder / "out", "--concurrency", 0) == 2
    assert capsys.readouterr().err == "bsdenoise: error: --concurrency must be at least 1. Received: 0.\n"


def test_a_url_of_another_kind(folder, capsys):
    assert denoise("model.keras", folder / "in", "--out", folder / "out") == 2
    assert re.fullmatch(
        r"bsdenoise: error: A server's URL reads .* Received: 'model.keras'.\n", capsys.readouterr().err
    )


@BOTH
def test_a_server_without_the_model_is_one_line(folder, capsys, protocol):
    with SERVERS[protocol](FakeModel(channels=1)) as url:
        place = f"{url}/v1/models/other" if protocol == "rest" else f"{url}/other"
        assert denoise(place, folder / "in", "--out", folder / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"bsdenoise: error: {place}: Servable not found")
    assert len(lines) == 1


@BOTH
def test_a_server_that_is_not_there_is_one_line(folder, capsys, protocol):
    with SERVERS[protocol](FakeModel()) as url:
        pass
    assert denoise(url, folder / "in", "--out", folder / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"bsdenoise: error: {url}\S*: the server cannot be reached: .*[Rr]efused", lines[0])
    assert len(lines) == 1
    assert not (folder / "out").exists()


# --- several files at once -----------------------------------------------------------------------------------------


def test_one_bad_file_and_one_that_the_server_refuses(folder, capsys):
    model = FakeModel(channels=1)

    def is_bright(inputs):
        return "image_bytes" in inputs and imagecodecs.png_decode(inputs["image_bytes"][0]).mean() > 0.4 * 255

    model.fails_for = lambda signature, inputs: (400, "not this one") if is_bright(inputs) else None
    (folder / "in/3.png").write_text("no image")
    with rest(model) as url:
        assert denoise(url, folder / "in", "--out", folder / "out", "--concurrency", 3) == 2
    lines = capsys.readouterr().err.splitlines()
    assert written(folder / "out") == ["1.png", "2.png"]
    assert lines[0] == f"{folder / 'in/1.png'}: sigma 29.5 (estimated)"  # 0.1 + 0.1 · mean, of 255 grey levels
    assert lines[1] == f"{folder / 'in/2.png'}: sigma 33.5 (estimated)"
    assert lines[2].startswith(f"bsdenoise: error: {folder / 'in/3.png'}: cannot be read")
    for number in (4, 5):
        assert lines[number - 1] == (
            f"bsdenoise: error: {folder / f'in/{number}.png'}: {url}/v1/models/denoiser: not this one"
        )
    assert lines[5] == "2 written, 3 failed; sigma 29.5 to 33.5 (estimated per image)"


def test_several_files_are_in_flight_and_reported_in_order(folder, capsys):
    model = FakeModel(channels=1)
    together = threading.Barrier(5, timeout=WAIT)
    model.fails_for = lambda signature, inputs: together.wait() and None if "image_bytes" in inputs else None
    with rest(model) as url:
        assert denoise(url, folder / "in", "--out", folder / "out", "--concurrency", 5) == 0
    assert written(folder / "out") == [f"{number}.png" for number in range(1, 6)]
    named = [line.split(":")[0] for line in capsys.readouterr().err.splitlines()[:-1]]
    assert named == [str(folder / f"in/{number}.png") for number in range(1, 6)]


def test_a_server_that_goes_away_is_one_line_for_each_file(folder, capsys):
    model = FakeModel(channels=1)
    done = []
    model.fails_for = lambda signature, inputs: (
        ("hang up",) if len(done) >= 2 else done.append(1) if "image_bytes" in inputs else None
    )
    with rest(model) as url:
        assert denoise(url, folder / "in", "--out", folder / "out", "--sigma", 20, "--concurrency", 1) == 2
    lines = capsys.readouterr().err.splitlines()
    assert written(folder / "out") == ["1.png", "2.png"]
    for line, number in zip(lines, (3, 4, 5), strict=False):
        assert line.startswith(f"bsdenoise: error: {folder / f'in/{number}.png'}: {url}/v1/models/denoiser: the connec")
    assert lines[3:] == ["2 written, 3 failed"]


def test_ctrl_c_leaves_at_once_and_no_half_written_file(folder):
    """While the server does not answer; in a process of its own, which must end."""
    model = FakeModel(channels=1)
    asked = threading.Event()
    model.fails_for = lambda signature, inputs: asked.set() or ("wait",) if "image_bytes" in inputs else None
    # Python leaves Ctrl-C ignored where it was so from the beginning, as in the background of a shell.
    program = (
        "import signal, sys; from bsdenoise.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
    )
    with rest(model) as url:
        command = [sys.executable, "-c", program, "denoise", "in", "--out", "out", "--server", url, "--sigma", "20"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        assert asked.wait(WAIT)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT)  # the server still waits
    assert process.returncode == 130
    assert errors.splitlines() == ["", "bsdenoise: interrupted"]
    assert not (folder / "out").exists()


@BOTH
def test_tiles_smaller_than_the_model_s_own_are_told(folder, capsys, protocol):
    limits = {"max_pixels": 1024, "grid": 4, "tile": 64, "overlap": 8, "untiled_pixels": 4096}
    with SERVERS[protocol](FakeModel(channels=1, limits=limits)) as url:
        assert denoise(url, folder / "in", "--out", folder / "out") == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    assert note.startswith(f"bsdenoise: note: {url} takes at most 1024 pixels at once;") and "(64x64)" in note
