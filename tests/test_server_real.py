import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bsdenoise.server import model_config, real
from bsdenoise.server.limits import Limits
from bsdenoise.server.versions import ModelSettings

# Prints its number, its arguments and the files that they name, then waits for a signal.
STAND_IN = """#!/bin/bash
trap 'echo stopped; exit 0' TERM
echo "pid $$"
printf 'argument %s\\n' "$@"
for argument in "$@"; do
  case "$argument" in *_config_file=*) cat "${argument#*=}"; cat "${argument#*=}";; esac
done
echo ready
while :; do sleep 0.05; done
"""
PLAIN = ModelSettings("den", Path("/models/with a space"))
COMMON = {
    "grpc_port": 8500,
    "rest_port": 8501,
    "limits": Limits(concurrency=3, timeout=1.5),
    "poll_seconds": 0.2,
    "retry_seconds": 2.5,
    "models_path": "/models.config",
    "monitoring_path": "/monitoring.config",
}
EXPECTED = [
    "--port=8500",
    "--rest_api_port=8501",
    "--model_name=den",
    "--model_base_path=/models/with a space",
    "--monitoring_config_file=/monitoring.config",
    "--enable_grpc_healthcheck_service=true",
    "--grpc_max_threads=12",
    "--rest_api_num_threads=12",
    "--rest_api_timeout_in_ms=1500",
    "--grpc_channel_arguments=grpc.max_receive_message_length=2147483647",
    "--file_system_poll_wait_seconds=1",
    "--num_load_threads=2",
    "--max_num_load_retries=5",
    "--load_retry_interval_micros=2500000",
]


def test_one_model_is_named_on_the_command_line():
    assert real.arguments([PLAIN], **COMMON) == EXPECTED


@pytest.mark.parametrize(
    "models",
    [
        [PLAIN, ModelSettings("other", Path("/other"))],
        [ModelSettings("den", Path("/models"), "all")],
        [ModelSettings("den", Path("/models"), num_versions=2)],
        [ModelSettings("den", Path("/models"), "specific", versions=frozenset({1}), labels={"stable": 1})],
    ],
    ids=["two", "all", "latest two", "labels"],
)
def test_anything_more_goes_by_a_file(models):
    which = ["--model_config_file=/models.config", "--allow_version_labels_for_unavailable_models=true"]
    assert real.arguments(models, **COMMON) == EXPECTED[:2] + which + EXPECTED[4:]


def test_the_binary_is_looked_for_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert real.find() is None
    binary = tmp_path / "tensorflow_model_server"
    binary.write_text(STAND_IN)
    assert real.find() is None  # not executable
    binary.chmod(0o755)
    assert real.find() == binary


def test_it_replaces_the_process(tmp_path):
    """Same process number; the files outlast the exec; signals reach it; nothing heavy was loaded before."""
    for version in (1, 2):
        (tmp_path / "models" / str(version)).mkdir(parents=True)
    binary = tmp_path / "bin" / "tensorflow_model_server"
    binary.parent.mkdir()
    binary.write_text(STAND_IN)
    binary.chmod(0o755)
    command = "serve models --labels stable=1 canary=2 --grpc-port 0 --rest-port 0 --host 127.0.0.1".split()
    program = "import sys; sys.modules['tensorflow'] = None; from bsdenoise import cli; sys.exit(cli.main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{binary.parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line == "ready\n":
            break
    process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=60)
    assert lines[0].startswith(f"starting {binary}: denoiser at http://127.0.0.1:"), errors
    assert lines[1] == f"pid {process.pid}"
    assert rest == "stopped\n"
    assert process.returncode == 0
    assert errors == "bsdenoise: tensorflow_model_server listens on all addresses, not on 127.0.0.1 alone\n"
    arguments = dict(line.removeprefix("argument --").split("=", 1) for line in lines if line.startswith("argument"))
    ports = int(arguments["port"]), int(arguments["rest_api_port"])
    assert all(1024 <= port <= 65535 for port in ports)
    assert lines[0].endswith(f":{ports[1]}/v1/models/denoiser and grpc://127.0.0.1:{ports[0]}/denoiser")
    text = "\n".join(line for line in lines if not line.startswith("argument"))
    assert text.count('path: "/monitoring/prometheus/metrics"') == 2  # each file can be read more than once
    config = text[text.index("model_config_list") : text.index("prometheus_config")]
    (tmp_path / "models.config").write_text(config[: config.index("model_config_list", 1)])
    (settings,) = model_config.from_file(tmp_path / "models.config")
    assert settings == ModelSettings(
        "denoiser", tmp_path / "models", "specific", 1, frozenset({1, 2}), {"stable": 1, "canary": 2}
    )
