"""Real processes on this machine: several workers train what one does, and what breaks is brought back."""

import itertools
import json
import signal

import numpy as np
import pytest

from benchmarks import cluster, faults
from benchmarks.cluster import Worker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return faults.Scene.set_up(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def without_export(monkeypatch):
    """Has trainings leave out the SavedModel at their end (`children/sitecustomize.py`), which takes seconds."""
    monkeypatch.setenv("BSDENOISE_TESTS_WITHOUT_EXPORT", "1")


def test_two_and_three_workers_train_as_one(scene, monkeypatch):
    """The same losses and weights, and every image once per epoch, whoever computes; two devices in one process too."""
    runs = [scene.undisturbed(3)]  # the only one that ends with an export
    monkeypatch.setenv("BSDENOISE_TESTS_WITHOUT_EXPORT", "1")
    runs = [scene.undisturbed(1), scene.undisturbed(2), *runs]
    assert (runs[2] / "export" / "1" / "saved_model.pb").exists()
    losses = [[line["loss"] for line in cluster.logged(run)] for run in runs]
    assert len(losses[0]) == faults.STEPS and losses[0][-1] < losses[0][0] - 1
    for other in losses[1:]:
        np.testing.assert_allclose(other[:40], losses[0][:40], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(other, losses[0], rtol=1e-3, atol=1e-3)
    validations = [cluster.logged(run, "validation")[-1]["held_out_psnr"] for run in runs]
    assert np.ptp(validations) < 0.01
    for run, other in itertools.combinations(runs, 2):
        assert 0 < faults.largest_difference(run, other) < 2e-3
    devices = [json.loads((run / "config.json").read_text())["machine"]["devices"] for run in runs]
    assert devices[0] == "1 CPU" and devices[2].startswith("3 CPUs of 3 workers (TF_CONFIG; this is worker 0")


@pytest.mark.usefixtures("without_export")
def test_killed_chief(scene):
    """The others end by themselves; all are started again, and nothing is lost beyond the last checkpoint."""
    seen = faults.killed(scene, 0)
    assert seen.exit_codes == (0,) and seen.seconds < faults.SECONDS_TO_NOTICE
    assert 0 < seen.resumed_at <= seen.broken_at + 5
    assert seen.deviation == 0 and seen.repeated == 0
    assert "starting again" in seen.said and f"going on at step {seen.resumed_at}" in seen.said
    assert ("lost another worker" in seen.said) and "Traceback" not in seen.said


@pytest.mark.usefixtures("without_export")
def test_worker_told_to_stop(scene):
    """All save at the same step and end; another number of workers goes on from there."""
    seen = faults.signalled(scene, 1, signal.SIGTERM)
    assert seen.exit_codes == (143, 143) and seen.seconds < faults.SECONDS_TO_NOTICE
    assert seen.broken_at <= seen.resumed_at <= seen.broken_at + 5
    assert f"stopped at step {seen.resumed_at}" in seen.said
    assert seen.deviation < 2e-3 and seen.repeated == 0


@pytest.mark.usefixtures("without_export")
def test_full_disk(scene):
    try:
        seen = faults.full_disk(scene)
    except PermissionError as error:
        pytest.skip(str(error))
    assert seen.exit_codes == (2,) and "no space left on device" in seen.said.lower()
    assert "Traceback" not in seen.said
    assert seen.resumed_at > 0 and seen.deviation == 0 and seen.repeated == 0


def test_workers_that_differ_are_refused(scene):
    workers = cluster.start(2, scene.flags("differ"), lambda index: ["--seed", str(index)])
    assert [worker.wait() for worker in workers] == [2, 2], workers[0].output()
    for worker in workers:
        assert "The workers of the cluster differ in their flags: worker 1" in worker.output()
        assert "Traceback" not in worker.output()


def test_a_worker_that_never_comes_is_not_waited_for_for_ever(scene):
    (port,) = cluster.free_ports(1)
    place = {"cluster": {"worker": [f"127.0.0.1:{port}", "127.0.0.1:9"]}, "task": {"type": "worker", "index": 0}}
    alone = Worker(scene.flags("alone", "--stall-minutes", "0.02"), {"TF_CONFIG": json.dumps(place)})
    assert alone.wait(60) == -signal.SIGALRM
    assert "waiting for all 2 workers" in alone.output()


@pytest.mark.usefixtures("without_export")
def test_slurm_job_step(scene):
    """Two tasks of a job step, as srun starts them on one node."""
    port = cluster.free_ports(1)[0]
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2"}
    flags = scene.flags("slurm", "--images", "24")
    workers = [
        Worker(flags, step | {"SLURM_PROCID": str(task), "SLURM_JOB_ID": str(port), "TF_CONFIG": None})
        for task in range(2)
    ]
    assert [worker.wait() for worker in workers] == [0, 0], workers[0].output()
    assert "2 CPUs of 2 workers (SLURM; this is worker 0)" in workers[0].output()
