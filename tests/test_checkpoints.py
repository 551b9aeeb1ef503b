import pytest
import tensorflow as tf

from bsdenoise.training import checkpoints
from bsdenoise.training.checkpoints import Checkpoints


class Numbers:
    """Something to save."""

    def __init__(self, folder, names=("one", "two")):
        self.variables = {name: tf.Variable(tf.zeros(50)) for name in names}
        self.kept = Checkpoints(folder, self.variables)

    def save(self, *steps):
        for step in steps:
            for variable in self.variables.values():
                variable.assign(tf.fill([50], float(step)))
            self.kept.save(step)
        return self

    def values(self):
        return {float(value) for variable in self.variables.values() for value in variable}


def damage(folder, step, how):
    (data,) = folder.glob(f"ckpt-{step}.data*")
    content = bytearray(data.read_bytes())
    if how == "missing":
        data.unlink()
    elif how == "cut":
        data.write_bytes(content[: len(content) // 2])
    elif how == "one bit":
        content[100] ^= 1
        data.write_bytes(content)
    else:
        (folder / f"ckpt-{step}.index").write_bytes(b"")


def test_the_newest_two_are_kept(tmp_path):
    numbers = Numbers(tmp_path).save(10, 20, 30)
    assert checkpoints.steps(tmp_path) == [20, 30] and numbers.kept.latest() == str(tmp_path / "ckpt-30")
    again = Numbers(tmp_path)
    again.kept.restore_newest()
    assert again.values() == {30.0}
    again.save(40)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-40")
    assert checkpoints.steps(tmp_path) == [30, 40]  # rotation goes on over a restart


def test_nothing_there(tmp_path):
    numbers = Numbers(tmp_path / "none")
    numbers.kept.restore_newest()
    assert numbers.values() == {0.0} and numbers.kept.latest() is None


@pytest.mark.parametrize("how", ["missing", "cut", "one bit", "no index"])
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path, capsys, how):
    Numbers(tmp_path).save(10, 20)
    damage(tmp_path, 20, how)
    numbers = Numbers(tmp_path)
    numbers.kept.restore_newest()
    assert numbers.values() == {10.0}
    said = capsys.readouterr().out
    assert "ckpt-20: checkpoint cannot be read" in said and "Going on from step 10" in said
    assert checkpoints.steps(tmp_path) == [10] and list(tmp_path.glob("damaged-ckpt-20.*"))
    numbers.save(20)  # the step comes again, and is written
    assert checkpoints.steps(tmp_path) == [10, 20]


def test_none_can_be_read(tmp_path):
    Numbers(tmp_path).save(10, 20)
    for step in (10, 20):
        damage(tmp_path, step, "cut")
    with pytest.raises(ValueError, match="ckpt-20: checkpoint cannot be read"):
        Numbers(tmp_path).kept.restore_newest()
    assert checkpoints.steps(tmp_path) == [10, 20]  # nothing is put aside: it may be the reader who is wrong


def test_one_of_another_network_is_refused_and_stays(tmp_path):
    Numbers(tmp_path).save(10, 20)
    with pytest.raises(ValueError, match="ckpt-20: checkpoint cannot be read"):
        Numbers(tmp_path, names=("one", "two", "three")).kept.restore_newest()
    assert checkpoints.steps(tmp_path) == [10, 20]


def test_the_list_of_checkpoints_is_lost_or_old(tmp_path):
    Numbers(tmp_path).save(10, 20)
    (tmp_path / "checkpoint").unlink()
    numbers = Numbers(tmp_path)
    numbers.kept.restore_newest()
    assert numbers.values() == {20.0}
    numbers.save(30)
    assert checkpoints.steps(tmp_path) == [20, 30]


def test_a_step_is_saved_once(tmp_path):
    numbers = Numbers(tmp_path).save(10)
    before = (tmp_path / "ckpt-10.index").stat().st_mtime_ns
    numbers.save(10)
    assert (tmp_path / "ckpt-10.index").stat().st_mtime_ns == before


def test_one_that_another_machine_writes_is_waited_for(tmp_path, monkeypatch):
    numbers, other = Numbers(tmp_path), Numbers(tmp_path)
    monkeypatch.setattr(checkpoints.time, "sleep", lambda seconds: other.save(10))
    numbers.kept.restore(10, patience=60.0)
    assert numbers.values() == {10.0}
    with pytest.raises(ValueError, match="ckpt-77: checkpoint cannot be read"):
        numbers.kept.restore(77)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "full"), "no space left on device"),
        (tf.errors.UnknownError(None, None, "Input/output error\nmore"), r"ckpt-20: cannot be written \(Input/output"),
    ],
    ids=["full", "broken"],
)
def test_one_that_cannot_be_written_leaves_those_before(tmp_path, monkeypatch, error, message):
    numbers = Numbers(tmp_path).save(10)

    def fail(self, path):
        (tmp_path / "ckpt-20_temp").mkdir()
        (tmp_path / "ckpt-20_temp" / "part-00000-of-00001").write_bytes(b"half")
        raise error

    monkeypatch.setattr(tf.train.Checkpoint, "write", fail)
    with pytest.raises(OSError, match=message):
        numbers.save(20)
    assert checkpoints.steps(tmp_path) == [10] and not list(tmp_path.glob("*_temp"))
