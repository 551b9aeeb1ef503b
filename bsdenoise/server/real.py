"""Starts TensorFlow-Serving's own server in place of this package's, with flags that mean the same."""

import math
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bsdenoise.server import model_config, versions
from bsdenoise.server.limits import Limits
from bsdenoise.server.versions import LATEST, ModelSettings

BINARY = "tensorflow_model_server"
MONITORING = 'prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }\n'
THREADS_PER_COMPUTATION = 4  # its own default, for each core
LOAD_THREADS = 2  # so that a version which cannot be loaded, and is tried again, keeps no other waiting
_MICROSECONDS = 1e6
_ALL_ADDRESSES = ("0.0.0.0", "::", "")


def find() -> Path | None:
    """Return the binary, if it is on the PATH."""
    found = shutil.which(BINARY)
    return Path(found) if found else None


def arguments(
    models: Sequence[ModelSettings],
    *,
    grpc_port: int,
    rest_port: int,
    limits: Limits,
    poll_seconds: float,
    retry_seconds: float,
    models_path: str,
    monitoring_path: str,
) -> list[str]:
    """Return its command line, without the binary.

    It has no queue. Its threads bound what it takes on: beyond them, requests are refused over gRPC and wait over REST.

    Args:
        models: The models.
        grpc_port: The port for gRPC, > 0.
        rest_port: The port for REST, > 0.
        limits: Concurrency, message size and time are passed on; a body over REST is bounded by its own 100 MB.
        poll_seconds: Rounded up to whole seconds, because 0 would mean never again.
        retry_seconds: How long after a failed load it is tried again.
        models_path: File with the models, which is named if there is more to say than a name and a folder.
        monitoring_path: File with `MONITORING`.
    """
    model = models[0]
    is_plain = len(models) == 1 and (model.policy, model.num_versions) == (LATEST, 1) and not model.labels
    which = [f"--model_name={model.name}", f"--model_base_path={model.base_path}"]
    if not is_plain:
        which = [f"--model_config_file={models_path}", "--allow_version_labels_for_unavailable_models=true"]
    return [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        *which,
        f"--monitoring_config_file={monitoring_path}",
        "--enable_grpc_healthcheck_service=true",
        f"--grpc_max_threads={THREADS_PER_COMPUTATION * limits.concurrency}",
        f"--rest_api_num_threads={THREADS_PER_COMPUTATION * limits.concurrency}",
        f"--rest_api_timeout_in_ms={math.ceil(1000 * limits.timeout)}",
        f"--grpc_channel_arguments=grpc.max_receive_message_length={limits.max_message_bytes}",
        f"--file_system_poll_wait_seconds={max(1, math.ceil(poll_seconds))}",
        f"--num_load_threads={LOAD_THREADS}",
        f"--max_num_load_retries={versions.RETRIES}",
        f"--load_retry_interval_micros={math.ceil(_MICROSECONDS * retry_seconds)}",
    ]


def replace_process(
    binary: Path,
    models: Sequence[ModelSettings],
    *,
    host: str,
    grpc_port: int,
    rest_port: int,
    limits: Limits,
    poll_seconds: float,
    retry_seconds: float,
) -> NoReturn:
    """Become the real server: it has this process' number, gets its signals, and its exit code is this one's.

    Args:
        binary: The server.
        models: The models.
        host: The address that was asked for; the real server listens on all, which is said on stderr.
        grpc_port: The port for gRPC; 0 picks a free one.
        rest_port: The port for REST; 0 picks a free one.
        limits: As for `arguments`.
        poll_seconds: As for `arguments`.
        retry_seconds: As for `arguments`.
    """
    grpc_port, rest_port = (port or _free_port() for port in (grpc_port, rest_port))
    command = [
        str(binary),
        *arguments(
            models,
            grpc_port=grpc_port,
            rest_port=rest_port,
            limits=limits,
            poll_seconds=poll_seconds,
            retry_seconds=retry_seconds,
            models_path=_file_in_memory("models.config", model_config.to_text(models)),
            monitoring_path=_file_in_memory("monitoring.config", MONITORING),
        ),
    ]
    if host not in _ALL_ADDRESSES:
        print(f"bsdenoise: {BINARY} listens on all addresses, not on {host} alone", file=sys.stderr)
    for model in models:
        print(
            f"starting {binary}: {model.name} at http://{host}:{rest_port}/v1/models/{model.name} "
            f"and grpc://{host}:{grpc_port}/{model.name}",
            flush=True,
        )
    os.execv(binary, command)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _file_in_memory(name: str, text: str) -> str:
    """Make a file that lasts as long as the process, whatever program that becomes, and return its path."""
    descriptor = os.memfd_create(name, 0)  # 0: it stays open through exec
    os.write(descriptor, text.encode())
    return f"/proc/self/fd/{descriptor}"
