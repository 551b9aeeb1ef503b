"""Which devices train, of this machine or of several: the only module that names tf.distribute strategies.

Every process of a cluster is a worker. All of them run the same steps; worker 0 is the chief, which alone writes files.
What the workers say to each other goes through the functions here: collectives, in which all must take part.
"""

import contextlib
import errno
import functools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

NVIDIA_DRIVER = Path("/proc/driver/nvidia")  # exists on Linux where the driver is loaded
TF_CONFIG = "TF_CONFIG"
# The job step's number of tasks: srun sets it, and a batch script without srun is one task.
SLURM_TASKS = "SLURM_STEP_NUM_TASKS"
# Jobs that share a node need ports of their own: the job's number gives the first, the tasks of a node follow it.
SLURM_FIRST_PORT, SLURM_PORTS, SLURM_PORTS_OF_JOB = 20_000, 12_000, 16
# The chief may still be reading the last message of a worker that has read all of the chief's.
SECONDS_TO_PART = 1.0
# A run that is started again as soon as it was stopped meets the ports of its own workers, which still take leave.
PORT_SECONDS, PORT_PAUSE_SECONDS = 60.0, 0.5
_WORKER_KINDS = ("chief", "worker")


# What TensorFlow says of collectives in which somebody no longer takes part; anything else is this worker's own fault.
LOST_PEER = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)


class PeerLostError(ConnectionError):
    """Another worker of the cluster is gone, or cannot be reached.

    Args:
        when: When it was noticed.
        error: What TensorFlow said.
    """

    def __init__(self, when: str, error: Exception):
        super().__init__(
            f"lost another worker {when} ({type(error).__name__}); start all of them again: they go on from the last "
            "checkpoint"
        )


@dataclass(frozen=True)
class Place:
    """The devices, and this process' place among the workers.

    Attributes:
        strategy: How the devices share a step.
        worker: Number of this process; 0 is the chief.
        workers: Number of processes.
        found: Where the cluster was found: "TF_CONFIG", "SLURM", or empty for a process alone.
    """

    strategy: tf.distribute.Strategy
    worker: int = 0
    workers: int = 1
    found: str = ""

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """Number of devices over all workers."""
        return self.strategy.num_replicas_in_sync

    def gather(self, numbers: list[int]) -> np.ndarray:
        """Return the numbers, int64, of all workers, (workers, n). All must call it: it waits for the last of them."""
        row = np.array([numbers], dtype=np.int64)
        if self.workers == 1:
            return row

        def in_its_row():
            me = tf.distribute.get_replica_context().replica_id_in_sync_group
            # Sums of 64-bit integers do not exist on every device: two halves of 32 bits.
            return tf.one_hot(me, self.replicas, dtype=tf.int32)[:, tf.newaxis] * row.view(np.int32)

        try:
            per_replica = self.strategy.run(tf.function(in_its_row))
            rows = self.strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None).numpy()
        except LOST_PEER as error:
            raise PeerLostError("while waiting for all", error) from error
        # Every device of a worker has given the same row.
        return np.ascontiguousarray(rows[:: self.replicas // self.workers]).view(np.int64)

    def from_chief(self, make: Callable[[], str]) -> str:
        """Return a text that the chief makes, to all workers, which all must call it.

        Raises:
            ValueError: If the chief met one, on all workers.
        """
        if self.workers == 1:
            return make()
        text, failure = "", 0
        if self.is_chief:
            try:
                text = make()
            except ValueError as error:
                text, failure = str(error), 1
        data = text.encode()
        size, failure = (int(number) for number in self.gather([len(data), failure])[0])
        row = np.zeros(-(-size // 8) * 8, np.uint8)
        if self.is_chief:
            row[:size] = list(data)
        rows = self.gather(row.view(np.int64).tolist()) if size else row[np.newaxis]
        text = rows[0].tobytes()[:size].decode()
        if failure:
            raise ValueError(text)
        return text

    def wait(self) -> None:
        """Wait until every worker is here."""
        self.gather([0])

    def part(self) -> None:
        """Wait until every worker has done its work, so that nobody misses one that has only finished."""
        if self.workers == 1:
            return
        try:
            self.wait()
        except PeerLostError:
            return  # it has gone already, and its work is done
        if not self.is_chief:
            time.sleep(SECONDS_TO_PART)

    def distributed(self, batches, batch: int) -> tf.distribute.DistributedDataset:
        """Deals global batches to the devices.

        Args:
            batches: A function of `worker`, `workers` and `size` to a `tf.data.Dataset` of that worker's part of every
                global batch, cut into pieces of `size`; `None` for the part as a whole.
            batch: Number of examples of a global batch.
        """
        if self.workers == 1:
            return self.strategy.experimental_distribute_dataset(batches(worker=0, workers=1, size=None))
        # Without the automatic sharding by files or elements: which examples are whose depends on nothing but numbers.
        size = batch // self.replicas
        return self.strategy.distribute_datasets_from_function(
            lambda context: batches(worker=self.worker, workers=self.workers, size=size)
        )

    def check_batch(self, batch: int) -> None:
        """Check that a global batch can be dealt evenly among several workers.

        Raises:
            ValueError: If not.
        """
        if self.workers > 1 and batch % self.replicas:
            raise ValueError(
                f"--batch must be a multiple of the number of devices of all workers, {self.replicas}. "
                f"Received: {batch}."
            )

    def __str__(self) -> str:
        """Say in a few words what trains."""
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        devices = f"{self.replicas} {kind}{'s' if self.replicas > 1 else ''}"
        if self.workers == 1:
            return devices
        return f"{devices} of {self.workers} workers ({self.found}; this is worker {self.worker})"


def join(kind: str = "auto", communication: str = "auto", patience: float = 0.0) -> Place:
    """Find the devices, and in a cluster the other workers; must come before TensorFlow computes anything.

    Args:
        kind: "auto" looks for a cluster in TF_CONFIG, then in the variables of a SLURM job step, then for several
            devices; "one" takes one device, "mirrored" all of this machine, "workers" needs a cluster.
        communication: How workers add up gradients: "ring" over the network with gRPC, "nccl" between NVIDIA GPUs,
            "auto" lets TensorFlow choose.
        patience: For how many seconds to wait for the other workers; 0 for ever. After that the process ends with
            SIGALRM, exit code 142 to a shell: TensorFlow lets no Python run meanwhile.

    Raises:
        ValueError: If there is no such cluster, or its description cannot be used.
    """
    cluster = None if kind in ("one", "mirrored") else _cluster()
    if cluster is not None:
        with _mortal(patience):
            return _join_cluster(*cluster, communication)
    if kind == "workers":
        raise ValueError(
            f"--strategy workers needs a cluster: a {TF_CONFIG} with several workers, or a SLURM job step (srun) with "
            "several tasks. Neither was found."
        )
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if kind == "mirrored" or (kind == "auto" and len(devices) > 1):
        return Place(_mirrored(tuple(device.name for device in devices)))
    return Place(tf.distribute.OneDeviceStrategy(devices[0].name) if len(devices) > 1 else tf.distribute.get_strategy())


def hint() -> str | None:
    """Say what to do where the machine has a GPU that TensorFlow does not see; `None` where nothing is amiss."""
    if NVIDIA_DRIVER.exists() and not tf.config.list_physical_devices("GPU"):
        return "this machine has an NVIDIA driver but TensorFlow sees no GPU: pip install 'bsdenoise[gpu]'"
    return None


def _cluster() -> tuple[tf.distribute.cluster_resolver.ClusterResolver, str] | None:
    """Return what resolves the cluster that the environment describes, and its name; `None` for a process alone."""
    if os.environ.get(TF_CONFIG):
        return (
            (tf.distribute.cluster_resolver.TFConfigClusterResolver(), TF_CONFIG) if _num_in_tf_config() > 1 else None
        )
    try:
        tasks = int(os.environ.get(SLURM_TASKS) or 1)
    except ValueError:
        raise ValueError(f"{SLURM_TASKS} must be a number. Received: {os.environ[SLURM_TASKS]!r}.") from None
    if tasks < 2:
        return None
    return _slurm_step(), "SLURM"


def _slurm_step() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Return the tasks of a SLURM job step as workers, by their ranks.

    TensorFlow's own resolver reads SLURM's lists of nodes and tasks, but sorts the nodes by name: node10 before node9,
    where SLURM counts ranks the other way round. So nothing but its reading is used. GPUs are given to tasks by SLURM.

    Raises:
        ValueError: If a variable is missing or unreadable.
    """
    try:
        port = SLURM_FIRST_PORT + int(os.environ.get("SLURM_JOB_ID") or 0) * SLURM_PORTS_OF_JOB % SLURM_PORTS
        read = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port, gpus_per_node=0, gpus_per_task=0, auto_set_gpu=False
        )
        tasks_of_nodes = read._task_configuration
        addresses = [f"{node}:{port + task}" for node, tasks in tasks_of_nodes.items() for task in range(tasks)]
        rank = int(os.environ["SLURM_PROCID"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"The SLURM job step cannot be made out: {error}") from error
    spec = tf.train.ClusterSpec({"worker": addresses})
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, task_type="worker", task_id=rank, rpc_layer="grpc"
    )


def _num_in_tf_config() -> int:
    """Check TF_CONFIG, and return its number of workers.

    Raises:
        ValueError: If it is not what TensorFlow documents, or names a role that there is not here.
    """
    text = os.environ[TF_CONFIG]
    try:
        content = json.loads(text)
        cluster, task = content.get("cluster", {}), content.get("task", {})
        addresses = {kind: cluster[kind] for kind in cluster if kind in _WORKER_KINDS}
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
        num_workers = sum(len(some) for some in addresses.values())
        is_there = not cluster or 0 <= index < len(addresses.get(kind, []))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{TF_CONFIG} must be JSON such as {{"cluster": {{"worker": ["host:port", …]}}, '
            f'"task": {{"type": "worker", "index": 0}}}}. Received: {text!r} ({error}).'
        ) from error
    if kind not in _WORKER_KINDS:
        raise ValueError(f"{TF_CONFIG} must give this task the type chief or worker. Received: {kind!r}.")
    if not is_there:
        raise ValueError(f"{TF_CONFIG} says that this is {kind} {index}, which its cluster does not list: {cluster}.")
    return num_workers


@contextlib.contextmanager
def _mortal(seconds: float) -> Iterator[None]:
    """Let SIGTERM, Ctrl-C and an alarm end the process without Python's help, which is held up in a long call."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to somebody else
        return
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in before.items():
            signal.signal(number, handler)


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """Make one strategy for the life of the process.

    TensorFlow numbers what devices add up, from the same number in each strategy, and remembers the shapes: a second
    strategy of a second training fails ("Shape mismatch in the collective instance").
    """
    return tf.distribute.MirroredStrategy(devices)


def _join_cluster(resolver, found, communication):
    """Wait for the other workers and join them."""
    implementation = tf.distribute.experimental.CommunicationImplementation[communication.upper()]
    spec = resolver.cluster_spec()
    num = {kind: spec.num_tasks(kind) for kind in _WORKER_KINDS if kind in spec.jobs}
    workers = sum(num.values())
    worker = resolver.task_id + (num.get("chief", 0) if resolver.task_type == "worker" else 0)
    _wait_for_port(spec.task_address(resolver.task_type, resolver.task_id))
    if worker == 0:
        tqdm.write(f"waiting for all {workers} workers ({found}) …")
    strategy = tf.distribute.MultiWorkerMirroredStrategy(
        resolver, tf.distribute.experimental.CommunicationOptions(implementation=implementation)
    )
    return Place(strategy, worker, workers, found)


def _wait_for_port(address: str) -> None:
    """Wait until nobody else listens on a port of this machine.

    Raises:
        ValueError: If somebody still does after `PORT_SECONDS`.
    """
    port = address.rpartition(":")[2]
    if not port.isdecimal():
        return  # TensorFlow knows best what is wrong with it
    start = time.monotonic()
    has_said = False
    while not _is_free(int(port)):
        if time.monotonic() - start > PORT_SECONDS:
            raise ValueError(f"Port {port}, on which this worker must listen, is taken by another process.")
        if not has_said:
            tqdm.write(f"waiting for port {port}, which another process still uses …")
            has_said = True
        time.sleep(PORT_PAUSE_SECONDS)


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OverflowError:
            return True  # no port at all: left to TensorFlow
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True
