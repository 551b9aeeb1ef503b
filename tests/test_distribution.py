import json
import socket
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from bsdenoise.training import distribution
from bsdenoise.training.distribution import Place, join

WORKERS = ["one.example:1234", "two.example:1234"]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


def tf_config(**content):
    return json.dumps(content)


@pytest.mark.parametrize("kind", ["auto", "one"])
def test_alone(kind):
    place = join(kind)
    assert (place.worker, place.workers, place.is_chief, place.replicas) == (0, 1, True, 1)
    assert str(place) == "1 CPU"
    np.testing.assert_array_equal(place.gather([3, -(2**62)]), [[3, -(2**62)]])


def test_mirrored_takes_one_device_too():
    assert join("mirrored").replicas == 1


def test_workers_need_a_cluster(monkeypatch):
    with pytest.raises(ValueError, match=r"--strategy workers needs a cluster.*srun"):
        join("workers")
    monkeypatch.setenv("TF_CONFIG", tf_config(cluster={"worker": WORKERS[:1]}, task={"type": "worker", "index": 0}))
    with pytest.raises(ValueError, match="Neither was found"):
        join("workers")
    assert join().workers == 1  # a cluster of one is none


@pytest.mark.parametrize("kind", ["one", "mirrored"])
def test_a_cluster_is_not_joined_against_the_flag(monkeypatch, kind):
    monkeypatch.setenv("TF_CONFIG", tf_config(cluster={"worker": WORKERS}, task={"type": "worker", "index": 0}))
    assert join(kind).workers == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG must be JSON such as"),
        ("[1]", "TF_CONFIG must be JSON such as"),
        (
            tf_config(cluster={"worker": WORKERS}, task={"type": "worker", "index": "x"}),
            "TF_CONFIG must be JSON such as",
        ),
        (
            tf_config(cluster={"worker": WORKERS}, task={"type": "ps", "index": 0}),
            "type chief or worker. Received: 'ps'",
        ),
        (
            tf_config(cluster={"worker": WORKERS}, task={"type": "worker", "index": 2}),
            "worker 2, which its cluster does",
        ),
        (tf_config(cluster={"worker": WORKERS}, task={"type": "chief", "index": 0}), "chief 0, which its cluster does"),
    ],
    ids=["no JSON", "list", "index", "role", "too high", "no chief"],
)
def test_wrong_tf_config(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message):
        join()


@pytest.mark.parametrize(
    ("cluster", "count"),
    [
        ({"worker": WORKERS}, 2),
        ({"chief": WORKERS[:1], "worker": WORKERS[1:]}, 2),
        ({"worker": WORKERS, "ps": ["three.example:1"]}, 2),
        ({}, 0),
    ],
    ids=["workers", "chief", "others", "none"],
)
def test_number_of_workers(monkeypatch, cluster, count):
    kind = "chief" if "chief" in cluster else "worker"
    monkeypatch.setenv("TF_CONFIG", tf_config(cluster=cluster, task={"type": kind, "index": 0}))
    assert distribution._num_in_tf_config() == count


def test_slurm(monkeypatch):
    """Three tasks on two nodes; two jobs on a node do not share ports. Ranks follow SLURM's order of nodes."""
    step = {"STEP_NUM_TASKS": "3", "STEP_NODELIST": "node[9-10]", "STEP_TASKS_PER_NODE": "2,1", "PROCID": "2"}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    addresses = []
    for job in ("1000", "1001"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        resolver, found = distribution._cluster()
        assert found == "SLURM" and (resolver.task_type, resolver.task_id) == ("worker", 2)
        addresses.append(resolver.cluster_spec().as_dict()["worker"])
    hosts = [address.split(":")[0] for address in addresses[0]]
    assert hosts == ["node9", "node9", "node10"]
    assert not set(addresses[0]) & set(addresses[1])
    ports = [int(address.split(":")[1]) for address in sum(addresses, [])]
    assert min(ports) >= 20_000 and max(ports) < 32_768  # below those that Linux gives to clients


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SLURM_STEP_NUM_TASKS", "many", "SLURM_STEP_NUM_TASKS must be a number. Received: 'many'"),
        ("SLURM_STEP_NODELIST", None, "The SLURM job step cannot be made out"),
        ("SLURM_STEP_NODELIST", "node[", "The SLURM job step cannot be made out"),
    ],
    ids=["tasks", "no nodes", "odd nodes"],
)
def test_wrong_slurm(monkeypatch, name, value, message):
    step = {"STEP_NUM_TASKS": "2", "STEP_NODELIST": "node[07-08]", "STEP_TASKS_PER_NODE": "1(x2)", "PROCID": "0"}
    for variable, content in step.items():
        monkeypatch.setenv(f"SLURM_{variable}", content)
    monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        join()


def test_a_batch_that_cannot_be_dealt_evenly():
    place = Place(SimpleNamespace(num_replicas_in_sync=4), worker=0, workers=2, found="TF_CONFIG")
    place.check_batch(8)
    with pytest.raises(ValueError, match="--batch must be a multiple of the number of devices of all workers, 4. Rec"):
        place.check_batch(6)
    Place(SimpleNamespace(num_replicas_in_sync=4)).check_batch(6)  # one process deals unevenly


@pytest.fixture
def taken_port():
    """A listener on a free port, and the port."""
    with socket.create_server(("", 0)) as listener:
        yield listener, listener.getsockname()[1]


def test_a_port_that_is_given_up_is_waited_for(taken_port, capsys):
    listener, port = taken_port
    threading.Timer(0.7, listener.close).start()
    distribution._wait_for_port(f"localhost:{port}")
    assert f"waiting for port {port}, which another process still uses" in capsys.readouterr().out
    distribution._wait_for_port(f"localhost:{port}")
    assert not capsys.readouterr().out


def test_a_port_that_is_kept_is_an_error(taken_port, monkeypatch):
    monkeypatch.setattr(distribution, "PORT_SECONDS", 0.2)
    port = taken_port[1]
    cluster = {"worker": [f"localhost:{port}", "localhost:1"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    with pytest.raises(ValueError, match=f"Port {port}, on which this worker must listen, is taken by another process"):
        join()


@pytest.mark.parametrize("address", ["nowhere", "a:b", "a:99999999", "a:-1"])
def test_what_is_no_port_is_left_to_tensorflow(address):
    distribution._wait_for_port(address)


@pytest.mark.parametrize("text", ["", "gain 3.61 ± 0.08", "x" * 1000])
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_text_of_the_chief_reaches_all_workers(text, is_refused):
    """Two workers in two threads, which exchange rows as collectives do."""
    rows, barrier, found = [None, None], threading.Barrier(2), {}

    class Worker(Place):
        def gather(self, numbers):
            rows[self.worker] = list(numbers)
            barrier.wait(10)
            assert len(rows[0]) == len(rows[1])
            gathered = np.array(rows, np.int64)
            barrier.wait(10)
            return gathered

    def make():
        if is_refused:
            raise ValueError(text)
        return text

    def work(number):
        try:
            found[number] = Worker(None, number, 2).from_chief(make if number == 0 else None)
        except ValueError as error:
            found[number] = f"refused: {error}"

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(2), f"refused: {text}" if is_refused else text)
