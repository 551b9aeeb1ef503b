"""The launch files in `cluster/`: their structure, their command lines, and when a SLURM job goes back to its queue."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bsdenoise import cli
from bsdenoise.config import TrainConfig

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
SLURM = CLUSTER / "slurm.sh"

# Starts two tasks as srun does: every word behind its own options is the task; it says how they ended, and its own exit
# code is the highest.
FAKE_SRUN = """#!{python}
import os, subprocess, sys
words = sys.argv[1:]
open("srun.options", "w").write(" ".join(word for word in words if word.startswith("--")))
while words[0].startswith("--"):
    words.pop(0)
step = {{"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2"}}
tasks = [subprocess.Popen(words, env=os.environ | step | {{"SLURM_PROCID": str(task)}}) for task in range(2)]
codes = [task.wait() for task in tasks]
for number, code in enumerate(codes):
    if code:
        print(f"srun: error: node{{number}}: task {{number}}: Exited with exit code {{code}}", file=sys.stderr)
sys.exit(max(codes))
"""
FAKE_TRAIN = """#!/bin/sh
echo "$SLURM_PROCID $*" >> "$SLURM_SUBMIT_DIR/started"
exit "$(echo "$CODES" | cut -d, -f$((SLURM_PROCID + 1)))"
"""


def parsed(words):
    """Gives the configuration that the real command line makes of the words behind `bsdenoise-train`."""
    name, settings = cli._parse(["train", *words])
    assert name == "train" and isinstance(settings, TrainConfig)
    return settings


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def submitted(tmp_path):
    """A function that runs the batch script with tasks that end with the given exit codes."""
    executable(tmp_path / "bin" / "srun", FAKE_SRUN.format(python=sys.executable))
    executable(tmp_path / "bin" / "scontrol", f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/scontrol.calls'\n")
    executable(tmp_path / "venv" / "bin" / "bsdenoise-train", FAKE_TRAIN)

    def submit(codes, *words, **more):
        environment = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "4711",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "BSDENOISE_VENV": str(tmp_path / "venv"),
            "CODES": codes,
            **more,
        }
        return subprocess.run(
            ["bash", str(SLURM), *words], env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    return submit


@pytest.mark.parametrize(
    ("codes", "code", "is_requeued"),
    [
        ("0,0", 0, False),
        ("2,2", 2, False),
        ("2,138", 2, False),  # the other worker missed the one that refused
        ("138,137", 138, True),
        ("143,143", 143, True),
        ("1,1", 1, False),
    ],
    ids=["done", "bad input", "bad input of one", "killed", "time limit", "other"],
)
def test_what_goes_back_to_the_queue(submitted, tmp_path, codes, code, is_requeued):
    words = ["/shared/my photos", "/shared/run", "--noise", "gaussian:25"]
    done = submitted(codes, *words)
    assert done.returncode == code, done.stderr
    calls = tmp_path / "scontrol.calls"
    assert (calls.read_text() if calls.exists() else "") == ("requeue 4711\n" if is_requeued else "")
    started = sorted((tmp_path / "started").read_text().splitlines())
    assert started == [f"{task} /shared/my photos --out /shared/run --noise gaussian:25" for task in range(2)]
    assert "--distribution=block" in (tmp_path / "srun.options").read_text()
    assert ("srun: error: node1" in done.stderr) == (code != 0)


def test_restarts_come_to_an_end(submitted, tmp_path):
    words = ("photos", "run", "--noise", "gaussian:25")
    assert submitted("138,138", *words, SLURM_RESTART_COUNT="20").returncode == 138
    assert submitted("138,138", *words, SLURM_RESTART_COUNT="2", MAX_RESTARTS="2").returncode == 138
    assert not (tmp_path / "scontrol.calls").exists()
    assert submitted("138,138", *words, SLURM_RESTART_COUNT="1", MAX_RESTARTS="2").returncode == 138
    assert (tmp_path / "scontrol.calls").exists()


def test_too_few_words(submitted):
    done = submitted("0,0", "photos")
    assert done.returncode == 2 and done.stderr.startswith("usage: sbatch cluster/slurm.sh SOURCE RUN")


def test_an_image_instead_of_an_environment(submitted, tmp_path):
    executable(tmp_path / "bin" / "apptainer", f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/apptainer.calls'\n")
    assert submitted("0,0", "photos", "run", BSDENOISE_IMAGE="training.sif").returncode == 0
    assert set((tmp_path / "apptainer.calls").read_text().splitlines()) == {
        "exec --nv training.sif bsdenoise-train photos --out run"
    }


def test_shellcheck():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "shellcheck"), str(SLURM)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert os.access(SLURM, os.X_OK)


def test_the_example_of_the_batch_script_can_be_parsed():
    (example,) = re.findall(r"cluster/slurm.sh (/\S+) (/\S+) (--.*)", SLURM.read_text())
    config = parsed([example[0], "--out", example[1], *example[2].split()])
    nodes, gpus = re.search(r"--nodes (\d+) --gpus-per-node (\d+) cluster/slurm.sh /", SLURM.read_text()).groups()
    assert config.batch % (int(nodes) * int(gpus)) == 0


def test_tfjob():
    job, claim = yaml.safe_load_all((CLUSTER / "tfjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    replicas = job["spec"]["tfReplicaSpecs"]
    assert replicas.keys() == {"Chief", "Worker"} and replicas["Chief"]["replicas"] == 1
    total = 0
    for spec in replicas.values():
        assert spec["restartPolicy"] == "ExitCode"
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        assert container["name"] == "tensorflow"  # or the operator sets no TF_CONFIG
        total += spec["replicas"] * container["resources"]["limits"]["nvidia.com/gpu"]
        config = parsed(container["args"])
        assert config.strategy == "workers" and str(config.out).startswith("/data/")
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert pod["terminationGracePeriodSeconds"] >= 60 and pod["securityContext"]["runAsNonRoot"]
    assert config.batch % total == 0
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_compose():
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    text = re.sub(
        r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}", lambda match: match[1] or "/given", (CLUSTER / "compose.yaml").read_text()
    )
    compose = yaml.safe_load(text)
    assert sorted(compose_spec.PyCompose.from_json(json.dumps(compose)).service_names()) == ["chief", "worker"]
    services = compose["services"]
    tasks = {name: json.loads(service["environment"]["TF_CONFIG"]) for name, service in services.items()}
    assert tasks["chief"]["cluster"] == tasks["worker"]["cluster"]
    for name, task in tasks.items():
        assert task["task"] == {"type": name, "index": 0}
        (address,) = task["cluster"][name]
        assert address == f"{services[name]['hostname']}:2222"
        config = parsed(services[name]["command"])
        assert config.strategy == "workers" and config.batch % 2 == 0
        assert services[name]["deploy"]["restart_policy"] == {"condition": "on-failure", "max_attempts": 5}
    assert (CLUSTER / services["chief"]["build"]["context"] / services["chief"]["build"]["dockerfile"]).exists()
