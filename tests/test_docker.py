"""The images' scripts, run against stand-ins, and what linters say of docker/."""

import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tyro
import yaml

from bsdenoise import config
from bsdenoise.server import guard

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
ENTRYPOINT = DOCKER / "serving-entrypoint.sh"
HEALTH = DOCKER / "serving-health.sh"
STAND_IN = Path(__file__).with_name("stand_in_model_server.sh")
STAND_IN_CODE = 43  # what it ends with at SIGTERM
GIB = 2**30
PEM = "-----BEGIN {0}-----\nMIIB+abc/=\nzz\n-----END {0}-----\n"


class Machine:
    """A folder that stands for a container's files and programs."""

    def __init__(self, folder):
        self.folder = folder
        self.programs = self._made("bin")
        self.runtime = self._made("tmp")
        self.models = self._made("models")
        self._made("models/denoiser/1")
        (self.programs / "tensorflow_model_server").symlink_to(STAND_IN)
        self.write("proc/meminfo", "MemFree: 5 kB\nMemTotal:       67108864 kB\n")
        self.settings = {
            "PATH": f"{self.programs}:{os.defpath}",
            "SYSTEM_ROOT": str(folder),
            "RUNTIME_FOLDER": str(self.runtime),
            "MODEL_BASE_PATH": str(self.models),
            "MONITORING_CONFIG_FILE": str(ROOT / "serving" / "monitoring.config"),
            "STAND_IN_FOLDER": str(folder),
            "CPUS": "16",
        }

    def _made(self, name):
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, *arguments, **settings):
        command = ["/bin/bash", ENTRYPOINT, *arguments]
        environment = self.settings | settings
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, *arguments, **settings):
        """Gives the code, what was said, and the flags by their names."""
        process = self.start(*arguments, **settings)
        _, said = process.communicate(timeout=30)
        return process.returncode, said

    def arguments(self):
        return (self.folder / "arguments").read_text().split("\0")[:-1]

    def flags(self, **settings):
        code, said = self.run(**settings)
        assert code == 0, said
        return dict(argument.removeprefix("--").split("=", 1) for argument in self.arguments())

    def at_once(self, **settings):
        """Gives how many requests are computed at once over REST and gRPC."""
        flags = self.flags(**settings)
        return int(flags["rest_api_num_threads"]) - 1, int(flags["grpc_max_threads"]) - 1

    def shown(self):
        """Names the versions that the server is shown."""
        return sorted(path.name for path in (self.runtime / "models" / "denoiser").iterdir() if path.is_dir())

    def version(self, number, *, sums=True, model="denoiser", **memory):
        """Makes a version with all that belongs to one."""
        folder = self._made(f"models/{model}/{number}")
        for name, text in {
            "saved_model.pb": "graph",
            "variables/variables.index": "index",
            "variables/variables.data-00000-of-00001": "weights",
            "serving.json": json.dumps({"limits": {"max_pixels": 2**24}, "memory": memory}, indent=2),
        }.items():
            self.write(f"models/{model}/{number}/{name}", text)
        if sums:
            files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
            done = subprocess.run(["sha256sum", *files], cwd=folder, capture_output=True, text=True, check=True)
            (folder / "SHA256SUMS").write_text(done.stdout)
        return folder


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


# The entrypoint's defaults


def test_the_flags_by_default(machine):
    machine.version(1)
    message = "grpc.max_receive_message_length=1073741824,grpc.max_send_message_length=1073741824"
    assert machine.flags(MEMORY_MIB="16384") == {
        "port": "8500",
        "rest_api_port": "8501",
        "rest_api_timeout_in_ms": "120000",
        "rest_api_num_threads": str(2 + 1),
        "grpc_max_threads": str(1 + 1),
        "grpc_channel_arguments": f"{message},grpc.max_concurrent_streams=1",
        "enable_grpc_healthcheck_service": "true",
        "enable_batching": "false",
        "num_load_threads": "2",
        "max_num_load_retries": "2",
        "load_retry_interval_micros": "5000000",
        "file_system_poll_wait_seconds": "1",
        "monitoring_config_file": str(ROOT / "serving" / "monitoring.config"),
        "tensorflow_intra_op_parallelism": "16",
        "tensorflow_inter_op_parallelism": "16",
        "model_name": "denoiser",
        "model_base_path": str(machine.runtime / "models" / "denoiser"),
    }


def test_empty_settings_count_as_not_set(machine):
    names = re.findall(r"^#   ([A-Z][A-Z_]+)", ENTRYPOINT.read_text(), re.MULTILINE)
    empty = {name: "" for name in names if name not in machine.settings}
    assert len(empty) > 13
    assert machine.flags(MEMORY_MIB="16384") == machine.flags(**empty | {"MEMORY_MIB": "16384"})


def test_every_documented_default_is_the_real_one():
    script = ENTRYPOINT.read_text()
    documented = dict(re.findall(r"^#   ([A-Z_]+) +(\S+)(?: {2,}.*)?$", script, re.MULTILINE))
    real = dict(re.findall(r'"\$\{([A-Z_]+):=([^$}]+)\}"', script))
    assert documented == real
    assert len(real) > 10


# How many images at once


@pytest.mark.parametrize(
    "files, settings, at_once",
    [
        ({}, {}, (7, 6)),  # (64 GiB - 2 GiB) / 4608 MiB
        ({"sys/fs/cgroup/memory.max": f"{12 * GIB}\n"}, {}, (1, 1)),
        ({"sys/fs/cgroup/memory.max": "max\n"}, {}, (7, 6)),
        ({"sys/fs/cgroup/memory.max": f"{999 * GIB}\n"}, {}, (7, 6)),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{16 * GIB}\n"}, {}, (2, 1)),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, {}, (7, 6)),
        ({"sys/fs/cgroup/memory.max": f"{12 * GIB}\n"}, {"MEMORY_MIB": "25600"}, (3, 2)),
        ({}, {"MEMORY_MIB": "16384", "MEMORY_PER_REQUEST_MIB": "1000", "MEMORY_RESERVE_MIB": "0"}, (8, 8)),
        ({}, {"MEMORY_MIB": "16384", "MEMORY_PER_REQUEST_MIB": "2000", "MEMORY_RESERVE_MIB": "384"}, (4, 4)),
        ({}, {"CPUS": "4"}, (2, 2)),
        ({}, {"CPUS": "1"}, (1, 1)),
        ({}, {"CPUS": "4", "REQUESTS_AT_ONCE": "010"}, (5, 5)),
        ({}, {"REQUESTS_AT_ONCE": "10", "GRPC_AT_ONCE": "9"}, (1, 9)),
    ],
    ids=[
        "machine",
        "v2",
        "v2-max",
        "v2-large",
        "v1",
        "v1-none",
        "told",
        "cpus",
        "per-request",
        "few-cpus",
        "one-cpu",
        "set",
        "shared",
    ],
)
def test_requests_at_once_are_bounded_by_memory(machine, files, settings, at_once):
    for name, text in files.items():
        machine.write(name, text)
    assert machine.at_once(**settings) == at_once


@pytest.mark.parametrize(
    "said, percent, at_once", [("24576\n16384\n", "0", (2, 1)), ("24576\n", "50", (1, 1)), ("[N/A]\n", "0", (7, 6))]
)
def test_requests_at_once_are_bounded_by_the_smallest_gpu(machine, said, percent, at_once):
    machine.write("said", said)
    machine.write("bin/nvidia-smi", f'#!/bin/bash\ncat "{machine.folder}/said"\n').chmod(0o755)
    assert machine.at_once(GPU_MEMORY_PERCENT=percent) == at_once


def test_without_grpc_all_is_for_rest(machine):
    flags = machine.flags(MEMORY_MIB="16384", GRPC_PORT="0")
    assert flags["rest_api_num_threads"] == str(3 + 1)
    assert (flags["port"], flags["grpc_socket_path"]) == ("0", str(machine.runtime / "grpc.socket"))
    assert "grpc_max_threads" not in flags


def test_threads_to_spare_are_added(machine):
    assert machine.flags(MEMORY_MIB="16384", REST_SPARE_THREADS="2")["rest_api_num_threads"] == str(2 + 1 + 2)


@pytest.mark.parametrize(
    "memory, settings, cures",
    [
        ({}, {"MEMORY_MIB": "4000", "GRPC_PORT": "0"}, "takes 4608 MiB.* give the container 6656 MiB\\.$"),
        ({}, {"MEMORY_MIB": "8000"}, "one request each; .* give the container 11264 MiB, or switch gRPC off with"),
        (
            {"request_mib": 10368, "tile_mib": 2688, "bytes_per_pixel": 120},
            {"MEMORY_MIB": "12288", "GRPC_PORT": "0"},
            "up to 16777216 pixels takes 10368 MiB, and of 12288 MiB 2048 .* give the container 12416 MiB, "
            "or export with --max-pixels 65981644\\.$",
        ),
        (
            {"request_mib": 7296, "tile_mib": 5376, "bytes_per_pixel": 120},
            {"MEMORY_MIB": "12288"},
            "give the container 16640 MiB, or switch gRPC off with GRPC_PORT=0\\.$",  # no size of images would do
        ),
    ],
    ids=["one", "two", "pixels", "tile"],
)
def test_limits_that_do_not_fit_the_memory_are_refused(machine, memory, settings, cures):
    machine.version(1, **memory)
    code, said = machine.run(**settings)
    assert code == 2 and said.count("\n") == 1
    assert re.search(cures, said.strip()), said
    assert not (machine.folder / "arguments").exists()


def test_the_cures_that_are_told_do_help(machine):
    machine.version(1, request_mib=10368, tile_mib=2688, bytes_per_pixel=120)
    assert machine.flags(MEMORY_MIB="12416", GRPC_PORT="0")["rest_api_num_threads"] == "2"
    pixels = 65981644
    machine.version(1, request_mib=2688 + -(-120 * pixels // 2**20), tile_mib=2688, bytes_per_pixel=120)
    assert machine.flags(MEMORY_MIB="12288", GRPC_PORT="0")["rest_api_num_threads"] == "2"


def test_the_version_that_needs_most_decides(machine):
    machine.version(1, request_mib=1000)
    machine.version(2, request_mib=6000)
    machine.version(3, request_mib=2000)
    assert machine.at_once(MEMORY_MIB=str(2048 + 4 * 6000)) == (2, 2)
    config = machine.write("models.config", f'config {{ base_path: "{machine.models}/other" }}\n')
    machine.version(1, model="other", request_mib=3000)
    assert machine.at_once(MEMORY_MIB=str(2048 + 4 * 3000), MODEL_CONFIG_FILE=str(config)) == (2, 2)


@pytest.mark.parametrize("quota, cpus", [("150000 100000", 2), ("1000 100000", 1), ("max 100000", os.cpu_count())])
def test_threads_follow_the_control_group(machine, quota, cpus):
    machine.write("sys/fs/cgroup/cpu.max", f"{quota}\n")
    expected = str(min(cpus, len(os.sched_getaffinity(0))))
    assert machine.flags(CPUS="")["tensorflow_intra_op_parallelism"] == expected


# No merging of requests


@pytest.mark.parametrize(
    "argument",
    [
        "--enable_batching",
        "--enable_batching=true",
        "--enable_batching=1",
        "-enable_batching",
        "--batching_parameters_file=/own.txt",
        "--enable_per_model_batching_parameters=true",
        "--enable_per_model_batching_parameters",
        "--platform_config_file=/platform.txt",
    ],
)
def test_batching_cannot_be_switched_on_by_arguments(machine, argument):
    code, said = machine.run("--flag=1", argument)
    assert code == 2
    assert f"{argument} would let the server merge requests, which this image does not do." in said
    assert not (machine.folder / "arguments").exists()


@pytest.mark.parametrize("name", ["BATCHING_PARAMETERS_FILE", "ENABLE_BATCHING"])
def test_batching_cannot_be_switched_on_by_the_environment(machine, name):
    code, said = machine.run(**{name: "/x"})
    assert code == 2
    assert f"{name} is no setting: requests are never merged. Received: '/x'." in said


def test_what_belongs_to_batching_is_said_to_have_no_effect(machine):
    machine.version(1)
    machine.write("models/denoiser/1/batching_params.pbtxt", "max_batch_size { value: 8 }")
    code, said = machine.run("--enable_batching=false", MAX_IMAGES_PER_REQUEST="8", REQUESTS_WAITING="9")
    assert code == 0
    assert f"{machine.models}/denoiser/1/batching_params.pbtxt has no effect: requests are never merged." in said
    assert "MAX_IMAGES_PER_REQUEST has no effect" in said and "REQUESTS_WAITING has no effect" in said
    batching = [argument for argument in machine.arguments() if "batching" in argument.split("=")[0]]
    assert set(batching) == {"--enable_batching=false"}


# Versions that are broken


BREAKAGES = {
    "weights cut": lambda folder: (folder / "variables" / "variables.data-00000-of-00001").write_text("wei"),
    "graph changed": lambda folder: (folder / "saved_model.pb").write_text("grapf"),
    "graph gone": lambda folder: (folder / "saved_model.pb").unlink(),
    "weights gone": lambda folder: (folder / "variables" / "variables.data-00000-of-00001").unlink(),
    "graph empty": lambda folder: (folder / "saved_model.pb").write_text(""),
    "sums cut": lambda folder: (folder / "SHA256SUMS").write_text("0123"),
}


@pytest.mark.parametrize("breaks", BREAKAGES.values(), ids=BREAKAGES)
def test_a_broken_newest_version_is_left_aside(machine, breaks):
    machine.version(1)
    breaks(machine.version(2))
    code, said = machine.run()
    assert code == 0
    assert re.search(rf"{machine.models}/denoiser/2 is left aside: .*(is missing|is not what was exported)\n", said)
    assert said.count("left aside") == 1
    assert machine.shown() == ["1"]
    assert (machine.runtime / "models" / "denoiser" / "1" / "saved_model.pb").read_text() == "graph"


def test_versions_of_before_are_judged_by_their_files(machine):
    machine.version(1, sums=False)
    (machine.version(2, sums=False) / "variables" / "variables.index").unlink()
    (machine.version(3, sums=False) / "saved_model.pb").write_text("")
    (machine.version(4, sums=False) / "variables" / "variables.data-00000-of-00001").write_text("")
    machine.version("notes")
    code, said = machine.run()
    assert code == 0 and said.count("left aside") == 3
    assert machine.shown() == ["1"]


def test_versions_come_and_go_while_it_serves(machine):
    machine.version(1)
    shown = machine.runtime / "models" / "denoiser"
    process = machine.start(STAND_IN_WAITS="1")
    try:
        wait_for(machine.folder / "pid", process)
        assert machine.shown() == ["1"]
        for number in (2, 3):
            hidden = machine.version(f".{number}.tmp")
            if number == 3:
                BREAKAGES["weights cut"](hidden)  # still on its way
            hidden.rename(hidden.with_name(str(number)))
        broken = machine.models / "denoiser" / "3"
        until(lambda: machine.shown() == ["1", "2"])
        (broken / "variables" / "variables.data-00000-of-00001").write_text("weights")
        until(lambda: machine.shown() == ["1", "2", "3"])
        broken.rename(broken.with_name("bad-3"))
        until(lambda: not (shown / "3").is_symlink())
        broken.with_name("bad-3").rename(broken)
        until(lambda: machine.shown() == ["1", "2", "3"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)  # whoever looks for versions ends with the server
    assert process.returncode == STAND_IN_CODE


def test_a_broken_version_in_the_models_config_is_said(machine):
    machine.version(1)
    BREAKAGES["graph gone"](machine.version(2))
    config = machine.write("models.config", f'config {{ base_path: "{machine.models}/denoiser" }}\n')
    code, said = machine.run(MODEL_CONFIG_FILE=str(config))
    assert code == 0
    assert f"{machine.models}/denoiser/2 must not be named in {config}: saved_model.pb is missing." in said


# Further settings


def test_settings_reach_the_server(machine):
    flags = machine.flags(
        GRPC_PORT="1234",
        REST_PORT="1235",
        REST_TIMEOUT_SECONDS="7",
        GRPC_MAX_MESSAGE_MIB="1",
        GPU_MEMORY_PERCENT="8",
        MODEL_NAME="other",
        FILE_SYSTEM_POLL_SECONDS="30",
    )
    assert (flags["port"], flags["rest_api_port"]) == ("1234", "1235")
    assert flags["rest_api_timeout_in_ms"] == "7000"
    assert flags["grpc_channel_arguments"].startswith("grpc.max_receive_message_length=1048576,")
    assert flags["per_process_gpu_memory_fraction"] == "0.08"
    assert (flags["model_name"], flags["model_base_path"]) == ("other", str(machine.runtime / "models" / "other"))
    assert flags["file_system_poll_wait_seconds"] == "30"


def test_all_of_a_gpu(machine):
    assert machine.flags(GPU_MEMORY_PERCENT="100")["per_process_gpu_memory_fraction"] == "1.00"


def test_files_that_take_the_place_of_settings(machine):
    models = machine.write("a models.config", "")
    flags = machine.flags(MODEL_CONFIG_FILE=str(models))
    assert flags["model_config_file"] == str(models)
    assert flags["model_config_file_poll_wait_seconds"] == "10"
    assert flags["allow_version_labels_for_unavailable_models"] == "true"
    assert "model_name" not in flags and "model_base_path" not in flags
    assert list(machine.runtime.iterdir()) == []


def test_tensorflow_is_told_about_tuning(machine):
    machine.flags(TF_CUDNN_USE_AUTOTUNE="0")
    assert (machine.folder / "autotune").read_text() == "0"


def test_further_arguments_come_last_and_whole(machine):
    further = ["--model_name=two words", "--flag=*", "", '--quoted="a b"']
    code, _ = machine.run(*further)
    assert code == 0
    assert machine.arguments()[-4:] == further


def test_a_model_that_is_not_there_yet_is_waited_for(machine):
    code, said = machine.run(MODEL_NAME="later")
    assert code == 0
    assert f"{machine.models}/later is not there yet" in said


@pytest.mark.parametrize("with_authority", [False, True], ids=["server", "mutual"])
def test_tls(machine, with_authority):
    key, certificate = machine.write("key", PEM.format("KEY")), machine.write("cert", PEM.format("CERTIFICATE") * 2)
    settings = {"TLS_KEY_FILE": str(key), "TLS_CERTIFICATE_FILE": str(certificate)}
    if with_authority:
        settings["TLS_CLIENT_CA_FILE"] = str(machine.write("ca", PEM.format("AUTHORITY")))
    path = Path(machine.flags(**settings)["ssl_config_file"])
    fields = dict(line.split(": ", 1) for line in path.read_text().splitlines())
    assert json.loads(fields["server_key"]) == PEM.format("KEY")  # quoted as JSON does
    assert json.loads(fields["server_cert"]) == PEM.format("CERTIFICATE") * 2
    assert ("custom_ca" in fields, fields.get("client_verify")) == (with_authority, "true" if with_authority else None)
    assert path.stat().st_mode & 0o777 == 0o600


def test_grpc_takes_the_tls_that_was_written(machine):
    """The server itself does nothing else with these texts."""
    import grpc

    key, certificate = machine.folder / "key", machine.folder / "certificate"
    made = lint(
        "openssl",
        *"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -addext subjectAltName=DNS:x".split(),
        "-keyout",
        key,
        "-out",
        certificate,
    )
    assert made.returncode == 0, made.stderr
    settings = {"TLS_KEY_FILE": str(key), "TLS_CERTIFICATE_FILE": str(certificate)}
    text = Path(machine.flags(**settings)["ssl_config_file"]).read_text()
    fields = {name: json.loads(value).encode() for name, value in (line.split(": ", 1) for line in text.splitlines())}
    server = grpc.server(ThreadPoolExecutor(1))
    pair = (fields["server_key"], fields["server_cert"])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        trust = grpc.ssl_channel_credentials(certificate.read_bytes())
        options = [("grpc.ssl_target_name_override", "x")]
        with grpc.secure_channel(f"127.0.0.1:{port}", trust, options) as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
    finally:
        server.stop(None).wait()


# What is refused


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"GRPC_PORT": "http"}, "GRPC_PORT must be a whole number from 0 to 65535. Received: 'http'."),
        ({"REST_PORT": "0"}, "REST_PORT must be a whole number from 1 to 65535. Received: '0'."),
        ({"REST_PORT": "8500"}, "GRPC_PORT and REST_PORT must differ. Received: 8500 for both."),
        ({"REQUESTS_AT_ONCE": "-1"}, "REQUESTS_AT_ONCE must be a whole number from 2 to 1024. Received: '-1'."),
        ({"GRPC_AT_ONCE": "13"}, "GRPC_AT_ONCE must be a whole number from 1 to 12. Received: '13'."),
        ({"REST_SPARE_THREADS": "x"}, "REST_SPARE_THREADS must be a whole number from 0 to 64. Received: 'x'."),
        ({"GRPC_PORT": "0", "TLS_KEY_FILE": str(STAND_IN)}, "TLS is for gRPC, which GRPC_PORT=0 switches off."),
        ({"REQUESTS_AT_ONCE": "a[$(touch here)]"}, "Received: 'a[$(touch here)]'."),
        ({"MEMORY_MIB": "12g"}, "MEMORY_MIB must be a whole number from 1 to 999999999. Received: '12g'."),
        ({"MEMORY_PER_REQUEST_MIB": "0"}, "MEMORY_PER_REQUEST_MIB must be a whole number from 1 to"),
        ({"GRPC_MAX_MESSAGE_MIB": "2048"}, "GRPC_MAX_MESSAGE_MIB must be a whole number from 1 to 2047."),
        ({"GPU_MEMORY_PERCENT": "0.9"}, "GPU_MEMORY_PERCENT must be a whole number from 0 to 100. Received: '0.9'."),
        ({"REST_TIMEOUT_SECONDS": "99999999999999999999"}, "REST_TIMEOUT_SECONDS must be a whole number from 1 to"),
        ({"TF_CUDNN_USE_AUTOTUNE": "no"}, "TF_CUDNN_USE_AUTOTUNE must be 0 or 1. Received: 'no'."),
        ({"MODEL_NAME": "a/b"}, "MODEL_NAME must be made of letters, digits, _, . and -"),
        ({"MODEL_CONFIG_FILE": "/none"}, "MODEL_CONFIG_FILE must be a file that can be read. Received: '/none'."),
        ({"MONITORING_CONFIG_FILE": "/none"}, "MONITORING_CONFIG_FILE must be a file that can be read."),
        ({"RUNTIME_FOLDER": "/none"}, "RUNTIME_FOLDER must be a folder that can be written. Received: '/none'."),
        ({"TLS_KEY_FILE": str(STAND_IN)}, "TLS_CERTIFICATE_FILE must be a file that can be read. Received: ''."),
        ({"TLS_CLIENT_CA_FILE": str(STAND_IN)}, "TLS_KEY_FILE must be a file that can be read. Received: ''."),
        (
            {"TLS_KEY_FILE": str(STAND_IN), "TLS_CERTIFICATE_FILE": str(STAND_IN)},
            f"TLS_KEY_FILE must be a PEM file. Received: '{STAND_IN}'.",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_nonsense_is_refused_with_one_line(machine, settings, sentence):
    code, said = machine.run(**settings)
    assert code == 2
    assert said.startswith("entrypoint: ") and said.count("\n") == 1
    assert sentence in said
    assert not (machine.folder / "arguments").exists()  # nothing was started


def test_a_version_in_place_of_the_folder_of_versions_is_refused(machine):
    machine.write("models/denoiser/saved_model.pb", "")
    code, said = machine.run()
    assert code == 2
    assert "is itself a version of a model. Expected the folder of versions that holds it." in said


# Signals


def until(is_so):
    for _ in range(3000):
        if is_so():
            return
        time.sleep(0.01)
    pytest.fail("it did not come")


def wait_for(path, process):
    for _ in range(1000):
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        assert process.poll() is None
        time.sleep(0.01)
    pytest.fail(f"{path} did not come")


def test_sigterm_reaches_the_server(machine):
    process = machine.start(STAND_IN_WAITS="1")
    assert int(wait_for(machine.folder / "pid", process)) == process.pid  # no shell is left between
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == STAND_IN_CODE
    process.communicate()


def test_sigterm_reaches_the_server_as_in_a_container(machine):
    """There the server would be the first process, from which the kernel keeps signals that it has no handler for."""
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tini = shutil.which("tini")
    if not tini or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("needs tini, and a user who may make process namespaces")
    machine.write("plain", "#!/bin/bash\nexec sleep 60\n").chmod(0o755)
    (machine.programs / "tensorflow_model_server").unlink()
    (machine.programs / "tensorflow_model_server").symlink_to(machine.folder / "plain")  # no handler, as the real one

    def stop(*init):
        command = [*namespace, *init, "/bin/bash", ENTRYPOINT]
        process = subprocess.Popen(command, env=machine.settings, stderr=subprocess.PIPE)
        process.stderr.readline()  # what it was set to: now it starts the server
        time.sleep(0.2)
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        try:
            process.wait(timeout=1)
        finally:
            process.kill()
            process.wait()
            process.stderr.close()

    with pytest.raises(subprocess.TimeoutExpired):
        stop()
    stop(tini, "--")


# The health check


class Status(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(200 if self.server.text else 404)
        self.end_headers()
        self.wfile.write(self.server.text.encode())
        if self.server.holds:  # the connection stays open until the test is over
            self.server.released.wait(30)

    def log_message(self, *_):
        pass


@pytest.fixture
def status_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Status)
    server.asked, server.text, server.holds, server.released = [], "", False, threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def status(*states):
    """What the real server says."""
    versions = [
        {"version": str(number), "state": state, "status": {"error_code": "OK", "error_message": ""}}
        for number, state in enumerate(states, start=1)
    ]
    return json.dumps({"model_version_status": versions}, indent=1)


def check_health(port, **settings):
    environment = {"PATH": os.defpath, "REST_PORT": str(port)} | settings
    done = subprocess.run(["/bin/bash", HEALTH], env=environment, capture_output=True, text=True, timeout=30)
    assert done.stdout.count("\n") + done.stderr.count("\n") == 1
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "text, code",
    [
        (status("AVAILABLE"), 0),
        (status("AVAILABLE", "LOADING"), 0),
        (status("LOADING"), 1),
        (status("UNLOADING", "END"), 1),
        ('{"error": "no AVAILABLE version"}', 1),
        ("", 1),
    ],
    ids=["available", "next-loading", "loading", "gone", "error", "not-found"],
)
def test_health_is_read_from_the_status(status_server, text, code):
    status_server.text = text
    given, said = check_health(status_server.server_port, MODEL_NAME="den")
    assert given == code
    assert ("healthy: den" if code == 0 else "unhealthy: no version of den is available") in said
    assert status_server.asked == ["/v1/models/den"]


def test_health_where_nothing_listens():
    with socket.socket() as bound:  # the port is taken, but nobody answers there
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert check_health(port) == (1, f"unhealthy: nothing listens on port {port}\n")


def test_health_of_a_server_that_hangs_up():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        hanging_up = threading.Thread(target=lambda: listening.accept()[0].close())
        hanging_up.start()
        answer = check_health(listening.getsockname()[1])
        hanging_up.join()
    assert answer == (1, "unhealthy: no version of denoiser is available\n")


@pytest.mark.parametrize("text, code", [(status("AVAILABLE"), 0), (status("LOADING"), 1)])
def test_health_of_a_server_that_keeps_the_connection_open(status_server, text, code):
    status_server.text, status_server.holds = text, True
    assert check_health(status_server.server_port, HEALTH_TIMEOUT_SECONDS="0.3")[0] == code


# Linters


def lint(program, *arguments):
    """Runs a program of this environment, or of the system."""
    path = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not path:
        pytest.skip(f"{program} is not installed")
    return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize("path", sorted(DOCKER.glob("*.Dockerfile")), ids=lambda path: path.name)
def test_hadolint(path):
    done = lint("hadolint", path)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    "path",
    [ENTRYPOINT, HEALTH, STAND_IN, ROOT / "serving" / "clients" / "denoise.sh"],
    ids=lambda path: path.name,
)
def test_shellcheck(path):
    done = lint("shellcheck", path)
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_finds_something(tmp_path):
    script = tmp_path / "bad.sh"
    script.write_text("#!/bin/bash\nrm $1/*\n")
    assert lint("shellcheck", script).returncode == 1


# The images and the compose file


def instructions(name):
    """Gives a Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / name).read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line]


def last(name, keyword):
    return [rest for word, rest in instructions(name) if word == keyword][-1]


@pytest.mark.parametrize("name", ["serving.Dockerfile", "training.Dockerfile", "guard.Dockerfile"])
def test_images_run_as_a_user_without_rights(name):
    words = [word for word, _ in instructions(name)]
    assert "RUN" not in words[words.index("USER") :]
    user = last(name, "USER").split(":")[0]
    assert user.isdigit() and int(user) > 0  # a number: Kubernetes cannot judge a name


@pytest.mark.parametrize("name", ["serving.Dockerfile", "training.Dockerfile", "guard.Dockerfile"])
def test_what_images_copy_is_there_and_let_through(name):
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = []
    for word, rest in instructions(name):
        if word == "COPY":
            sources += [part for part in rest.split()[:-1] if not part.startswith("--")]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(Path(source).match(pattern) for pattern in allowed), source


def test_the_serving_image_starts_the_scripts_that_it_copied():
    copied = {rest.split()[-1] for word, rest in instructions("serving.Dockerfile") if word == "COPY"}
    entrypoint = json.loads(last("serving.Dockerfile", "ENTRYPOINT"))
    assert entrypoint[0].endswith("tini") and entrypoint[-1] in copied
    health = last("serving.Dockerfile", "HEALTHCHECK")
    assert json.loads(health[health.index("[") :])[0] in copied
    assert "/etc/bsdenoise/monitoring.config" in copied  # the entrypoint's default
    assert "MONITORING_CONFIG_FILE    /etc/bsdenoise/monitoring.config" in ENTRYPOINT.read_text()


def test_the_base_image_does_not_name_the_model():
    """It sets MODEL_NAME=model, which would win over the entrypoint's default."""
    image = dict(setting.split("=") for setting in last("serving.Dockerfile", "ENV").split())
    defaults = dict(re.findall(r'"\$\{([A-Z_]+):=([^$}]+)\}"', ENTRYPOINT.read_text()))
    assert image.items() <= defaults.items()
    assert {"MODEL_NAME", "MODEL_BASE_PATH"} <= image.keys()


@pytest.mark.parametrize("path", [ENTRYPOINT, HEALTH], ids=lambda path: path.name)
def test_scripts_can_be_executed(path):
    assert os.access(path, os.X_OK)


def interpolated(text):
    """Puts the defaults in the place of a compose file's variables, and a path where one must be given."""
    return re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}", lambda match: "/given" if match[1] is None else match[1], text)


@pytest.fixture
def compose():
    return yaml.safe_load(interpolated((DOCKER / "compose.yaml").read_text()))


def test_the_compose_file_is_one(compose):
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    names = compose_spec.PyCompose.from_json(json.dumps(compose)).service_names()
    assert sorted(names) == ["grafana", "guard", "prometheus", "server", "server-gpu"]
    compose["services"]["server"]["cap_drop"] = {"ALL": 3}
    with pytest.raises(ValueError, match="expected a set"):
        compose_spec.PyCompose.from_json(json.dumps(compose))


def test_rest_is_reached_through_the_guard_alone(compose):
    published = {name: service["ports"] for name, service in compose["services"].items()}
    assert published["server"] == published["server-gpu"] == ["127.0.0.1:8500:8500"]
    assert published["guard"] == ["127.0.0.1:8501:8080"]
    settings = tyro.cli(config.GuardConfig, args=compose["services"]["guard"]["command"])
    assert settings.server == "http://model-server:8501"
    spare = compose["services"]["server"]["environment"]["REST_SPARE_THREADS"]
    assert spare == guard.STATUS_THREADS


def test_the_guards_image_needs_no_tensorflow():
    """Its list of packages: what `test_server_guard` runs without, and no more than setup.cfg bounds."""
    lines = (ROOT / "requirements-guard.txt").read_text().splitlines()
    needed = {line for line in lines if not line.startswith("#")}
    assert needed <= {line.strip() for line in (ROOT / "setup.cfg").read_text().splitlines()}
    assert not any(name in line for line in needed for name in ("tensorflow", "keras"))
    command = json.loads(last("guard.Dockerfile", "ENTRYPOINT"))
    assert command[:2] == ["bsdenoise", "guard"] and last("guard.Dockerfile", "EXPOSE") == str(config.GuardConfig.port)


def test_what_the_compose_file_mounts_is_there(compose):
    mounts = [
        mount.split(":")
        for service in compose["services"].values()
        for mount in service.get("volumes", [])
        if isinstance(mount, str)
    ]
    files = [DOCKER / source for source, *_ in mounts if source.startswith(".")]
    assert len(files) == 5
    assert [path for path in files if not path.is_file()] == []
    assert all(rest[-1] == "ro" for source, *rest in mounts if source.startswith("."))


def test_ports_open_on_this_machine_only(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_asks_the_server_that_runs(compose):
    config = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())
    (scrape,) = config["scrape_configs"]
    ((target,),) = (entry["targets"] for entry in scrape["static_configs"])
    for name in ("server", "server-gpu"):
        assert target.split(":")[0] in compose["services"][name]["networks"]["default"]["aliases"]
    assert target.endswith(":8501")
    assert scrape["metrics_path"] in (ROOT / "serving" / "monitoring.config").read_text()
    assert compose["services"]["server"]["profiles"] != compose["services"]["server-gpu"]["profiles"]


def test_settings_of_the_compose_file_exist(compose):
    documented = ENTRYPOINT.read_text()
    for name in compose["services"]["server"]["environment"]:
        assert re.search(rf"^#   {name} ", documented, re.MULTILINE), name


def test_promtool_reads_the_configuration(tmp_path):
    shutil.copy(DOCKER / "prometheus.yaml", tmp_path)
    shutil.copy(ROOT / "serving" / "alerts.yaml", tmp_path)
    done = lint("promtool", "check", "config", tmp_path / "prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


# The dashboard


@pytest.fixture
def dashboard():
    return json.loads((DOCKER / "grafana" / "dashboard.json").read_text())


def test_the_dashboard_asks_the_source_that_is_provided(dashboard):
    (source,) = yaml.safe_load((DOCKER / "grafana" / "datasources.yaml").read_text())["datasources"]
    expected = {"type": source["type"], "uid": source["uid"]}
    places = [*dashboard["panels"], *dashboard["templating"]["list"]]
    places += [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert [place["datasource"] for place in places] == [expected] * len(places)


def test_the_dashboard_lies_where_it_is_looked_for(compose):
    (provider,) = yaml.safe_load((DOCKER / "grafana" / "dashboards.yaml").read_text())["providers"]
    mounts = dict(mount.split(":")[:2] for mount in compose["services"]["grafana"]["volumes"])
    assert mounts["./grafana/dashboard.json"].startswith(provider["options"]["path"] + "/")
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounts["./grafana/dashboard.json"] == home


def test_panels_have_numbers_of_their_own_and_do_not_overlap(dashboard):
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers) > 8
    cells = set()
    for panel in dashboard["panels"]:
        x, y, width, height = (panel["gridPos"][key] for key in "xywh")
        assert x + width <= 24
        own = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
        assert not cells & own
        cells |= own


def test_promtool_reads_the_panels(dashboard, tmp_path):
    """Each question of the dashboard, as if it were a rule."""
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "1m").replace("$model", ".*")}
        for number, text in enumerate(expressions)
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = lint("promtool", "check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
