import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from bsdenoise import cli, config
from bsdenoise.cli import serve
from bsdenoise.server import model_config
from bsdenoise.server.limits import Limits
from bsdenoise.server.versions import ModelSettings

MODEL = Path(__file__).parent / "golden" / "model" / "den"
PATIENCE = 120.0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with everything that can be named by mistake; `den` is in order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no tensorflow_model_server
    (tmp_path / "den" / "1").mkdir(parents=True)
    (tmp_path / "empty" / "v1").mkdir(parents=True)
    (tmp_path / "version").mkdir()
    (tmp_path / "version" / "saved_model.pb").touch()
    (tmp_path / "run" / "export" / "1").mkdir(parents=True)
    for name in ("notes.txt", "model.keras", "run/denoiser.keras"):
        (tmp_path / name).write_text("not a config {")
    return tmp_path


def config_file(folder, text):
    (folder / "models.config").write_text(f"model_config_list {{ {text} }}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Expected either a folder of versions or --models-config"),
        ("den --models-config models.config", "Expected either a folder of versions or --models-config"),
        ("--models-config models.config --name x", "--name and --labels are for a folder of versions"),
        ("missing", "missing: does not exist. Expected a folder of versions"),
        ("notes.txt", "notes.txt: is a file. Expected a folder of versions"),
        ("model.keras", "model.keras: is a model of Keras. Export it: bsdenoise export"),
        ("run", "run: is a run folder. Export it: bsdenoise export"),
        ("version", "version: is itself a version. Expected the folder that holds it:"),
        ("empty", "empty: holds no folder of a version. Expected sub-folders with plain numbers as names."),
        ("den --labels stable", "Labels are written LABEL=VERSION, such as stable=1. Received: 'stable'."),
        ("den --labels stable=one", "Labels are written LABEL=VERSION, such as stable=1. Received: 'stable=one'."),
        ("den --labels =1", "Labels are written LABEL=VERSION, such as stable=1. Received: '=1'."),
        ("den --labels a=1 a=2", "Each label stands for one version. Received: 'a' twice."),
        ("den --labels a=7", "den: holds no folder of the versions [7]."),
        ("den --name a/b", "--name must be a name without / and :, because it stands in URLs. Received: 'a/b'."),
        ("--models-config missing.config", "missing.config"),
        ("--models-config notes.txt", "notes.txt: not a ModelServerConfig: "),
        ("den --implementation tensorflow_model_server", "it is not on the PATH"),
        ("den --grpc-port 70000", "--grpc-port must be between 0 and 65535. Received: 70000."),
        ("den --rest-port -1", "--rest-port must be between 0 and 65535. Received: -1."),
        ("den --grpc-port 8501", "--grpc-port and --rest-port must differ. Received: 8501 for both."),
        ("den --concurrency 0", "--concurrency must be at least 1. Received: 0."),
        ("den --queue -1", "--queue must be at least 0. Received: -1."),
        ("den --max-message 2049", "--max-message must be between 1 and 2048. Received: 2049."),
        ("den --max-body 0", "--max-body must be at least 1. Received: 0."),
        ("den --max-pixels 0", "--max-pixels must be at least 1. Received: 0."),
        ("den --timeout nan", "--timeout must be above 0 and at most 86400. Received: nan."),
        ("den --timeout inf", "--timeout must be above 0 and at most 86400. Received: inf."),
        ("den --poll 0", "--poll must be above 0 and at most 86400. Received: 0.0."),
        ("den --retry -1", "--retry must be above 0 and at most 86400. Received: -1.0."),
        ("den --grace -1", "--grace must be at least 0. Received: -1.0."),
    ],
    ids=lambda value: value or "nothing",
)
def test_a_mistake_is_one_line_and_exit_2(folder, capsys, arguments, message):
    config_file(folder, 'config { name: "den" base_path: "den" }')
    assert cli.main(["serve", *arguments.split()]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert message in output.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no model. Expected model_config_list"),
        ('config { base_path: "den" }', "every model needs a name and a base_path. Received: ''."),
        ('config { name: "den" }', "every model needs a name and a base_path. Received: 'den'."),
        ('config { name: "den" base_path: "den" model_platform: "x" }', "model_platform must be 'tensorflow'"),
        (
            'config { name: "den" base_path: "den" } config { name: "den" base_path: "den" }',
            "names the model 'den' twice",
        ),
        (
            'config { name: "den" base_path: "den" model_version_policy { specific {} } }',
            "the policy `specific` names no version",
        ),
        ('config { name: "den" base_path: "empty" }', "empty: holds no folder of a version"),
    ],
    ids=["empty", "no name", "no folder", "platform", "twice", "specific", "no version"],
)
def test_a_mistake_in_the_models_config(folder, capsys, text, message):
    config_file(folder, text)
    assert cli.main(["serve", "--models-config", "models.config"]) == 2
    assert message in capsys.readouterr().err


def test_a_port_in_use(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        before = {number: signal.getsignal(number) for number in serve.STOPPING_SIGNALS}
        try:
            assert cli.main(["serve", "den", "--rest-port", str(port), "--grpc-port", "0"]) == 2
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    assert f"127.0.0.1:{port}: cannot be listened on: Address already in use" in capsys.readouterr().err


def test_a_models_config_says_all_that_tensorflow_serving_reads(folder):
    for version in (2, 3):
        (folder / "den" / str(version)).mkdir()
    config_file(
        folder,
        """
        config { name: "a" base_path: "den" model_platform: "tensorflow" }
        config { name: "b" base_path: "den" model_version_policy { all {} } }
        config { name: "c" base_path: "den" model_version_policy { latest { num_versions: 2 } } }
        config { name: "d" base_path: "den" model_version_policy { specific { versions: 1 versions: 3 } }
                 version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 3 } }
        """,
    )
    models = model_config.from_file(folder / "models.config")
    base = folder / "den"
    assert models == [
        ModelSettings("a", base),
        ModelSettings("b", base, "all"),
        ModelSettings("c", base, num_versions=2),
        ModelSettings("d", base, "specific", 1, frozenset({1, 3}), {"stable": 1, "canary": 3}),
    ]
    assert [sorted(model.wanted()) for model in models] == [[3], [1, 2, 3], [2, 3], [1, 3]]
    (folder / "again.config").write_text(model_config.to_text(models))
    assert model_config.from_file(folder / "again.config") == models


def test_settings_become_limits():
    settings = config.ServeConfig(concurrency=3, queue=4, timeout=5.0, max_body=6, max_message=7, max_pixels=8)
    assert serve._limits(settings) == Limits(
        max_body_bytes=6 * 2**20, max_message_bytes=7 * 2**20, max_pixels=8, concurrency=3, queue=4, timeout=5.0
    )
    assert serve._limits(config.ServeConfig()).max_message_bytes == 2**31 - 1


def test_a_second_signal_leaves_at_once(monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    stop = serve._StopSignals()
    stop._on_signal(signal.SIGINT, None)
    stop.wait()
    assert codes == []
    stop._on_signal(signal.SIGTERM, None)
    assert codes == [143]


def start(folder, *ports):
    """Starts the command; gives the process, its URL for REST and its address for gRPC."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bsdenoise.cli", *"serve den --name den --grpc-port".split(), ports[0], "--rest-port"]
        + [ports[1]],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parent.parent)]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ready = process.stdout.readline()
    if not ready.startswith("ready: den version 3 at http://127.0.0.1:"):
        process.kill()
        pytest.fail(f"{ready!r}: {process.communicate(timeout=PATIENCE)}")
    return process, ready.split()[5], ready.split()[7].removeprefix("grpc://").removesuffix("/den")


def state_of(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        (state,) = json.loads(answer.read())["model_version_status"]
    return state["version"], state["state"]


@pytest.mark.slow
def test_it_serves_until_it_is_told_to_stop_even_after_its_predecessor_was_killed(tmp_path):
    shutil.copytree(MODEL / "1", tmp_path / "den" / "3")
    process, url, address = start(tmp_path, "0", "0")
    assert state_of(url) == ("3", "AVAILABLE")
    with socket.create_connection((urllib.parse.urlsplit(url).hostname, urllib.parse.urlsplit(url).port)):
        process.kill()  # while somebody is connected
        process.communicate(timeout=PATIENCE)
    process, url_after, _ = start(tmp_path, address.split(":")[1], str(urllib.parse.urlsplit(url).port))
    assert url_after == url
    assert state_of(url) == ("3", "AVAILABLE")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE) == ("", "bsdenoise: stopping\n")
    assert process.returncode == 0


def test_a_version_that_cannot_be_loaded(folder, capsys):
    (folder / "den" / "1" / "saved_model.pb").write_bytes(b"rubbish")
    before = {number: signal.getsignal(number) for number in serve.STOPPING_SIGNALS}
    try:
        assert cli.main("serve den --rest-port 0 --grpc-port 0".split()) == 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    errors = capsys.readouterr().err
    assert errors.startswith("bsdenoise: error: model denoiser: ")
    assert "saved_model.pb" in errors
    assert errors.count("\n") == 1
