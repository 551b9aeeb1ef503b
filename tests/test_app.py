"""`bsdenoise app`: its flags, and what it says where it cannot start."""

import contextlib
import importlib.util
import subprocess
import sys
import threading
import types
import webbrowser

import pytest

from bsdenoise import cli
from bsdenoise.cli import models

OWN_FLAGS = ["--port", "0", "--no-browser"]


def app(*arguments):
    return cli.main(["app", *map(str, arguments)])


@pytest.fixture
def served(monkeypatch):
    """Puts a stand-in in the place of the server, ended by Ctrl-C at once; remembers what it was asked to serve."""
    calls = []

    @contextlib.contextmanager
    def running(workshop, *arguments):
        calls.append((workshop.denoiser, workshop.max_pixels, *arguments))
        yield "http://127.0.0.1:1234"
        calls.append("stopped")

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "bsdenoise.app.server", types.SimpleNamespace(running=running))
    monkeypatch.setattr("bsdenoise.app.server", sys.modules["bsdenoise.app.server"], raising=False)
    monkeypatch.setattr(threading, "Event", Interrupted)
    monkeypatch.setattr(models, "load_denoiser", lambda path: f"model of {path}")
    monkeypatch.setattr(models, "load_preset", lambda name: f"preset {name}")
    monkeypatch.setattr(webbrowser, "open", lambda url: calls.append(f"opened {url}"))
    return calls


def test_without_gradio_it_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert app("--model", "run") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'bsdenoise[app]'" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "run", "--server", "http://localhost:8501"], "--model and --server exclude each other"),
        (["--model", "run", "--port", "70000"], "--port must be between 0 and 65535. Received: 70000"),
        (["--model", "run", "--max-pixels", "0"], "--max-pixels must be at least 1. Received: 0"),
        (["--model", "missing"], "missing: no such model"),
    ],
)
def test_mistakes_are_one_line(capsys, flags, message):
    pytest.importorskip("gradio")
    assert app(*flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_the_page_is_opened_and_ctrl_c_ends_it(served, capsys):
    pytest.importorskip("gradio")
    assert app("--model", "run", "--port", "81", "--host", "0.0.0.0", "--max-pixels", "5") == 0
    about = "Model: run. Nothing leaves the machine that this page runs on."
    assert served == [("model of run", 5, about, "0.0.0.0", 81), "opened http://127.0.0.1:1234", "stopped"]
    assert capsys.readouterr().out == "http://127.0.0.1:1234  (Ctrl-C ends it)\n"


def test_whoever_waits_at_a_terminal_is_told_what_is_done(served, capsys, monkeypatch):
    pytest.importorskip("gradio")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert app("--model", "run", "--no-browser") == 0
    assert capsys.readouterr().err == "bsdenoise: loading the model …\nbsdenoise: starting the page …\n"


def test_the_browser_is_left_alone_on_request(served):
    pytest.importorskip("gradio")
    assert app("--model", "run", "--no-browser") == 0
    assert not [call for call in served if str(call).startswith("opened")]


def test_without_a_model_it_takes_a_preset_for_rgb_and_one_for_all_others(served):
    pytest.importorskip("gradio")
    assert app("--no-browser") == 0
    assert served[0][0] == "preset rgb-gaussian5-50"
    assert served[0][2].startswith(
        "Models: rgb-gaussian5-50 for RGB images, grey-gaussian5-50 for all others, channel by channel."
    )


def test_a_server_is_connected_and_left(served, monkeypatch):
    pytest.importorskip("gradio")
    log = []

    class Client:
        channels = 3

        def __enter__(self):
            return self

        def __exit__(self, *_):
            log.append("closed")

    client = types.SimpleNamespace(connect=lambda url: log.append(url) or Client())
    monkeypatch.setitem(sys.modules, "bsdenoise.client", client)
    monkeypatch.setattr("bsdenoise.client", client, raising=False)
    assert app("--server", "http://localhost:8501") == 0
    assert log == ["http://localhost:8501", "closed"]
    assert served[0][2].startswith("Model: http://localhost:8501. Images are sent there")


def test_the_flags_need_neither_gradio_nor_tensorflow():
    program = (
        "import sys\n"
        "from bsdenoise import cli\n"
        "try:\n"
        "    cli.main(['app', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(sorted({'gradio', 'tensorflow', 'keras', 'numpy'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--max-pixels" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"
