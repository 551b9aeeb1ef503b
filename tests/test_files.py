"""Tests of writing files whole or not at all."""

import errno

import pytest

from bsdenoise.atomic import replacing


def test_a_file_is_replaced_once_it_is_complete(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("before")
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".keras" and temporary.name.startswith(".")
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(143)], ids=repr)
def test_after_an_error_all_is_as_before(tmp_path, error):
    path = tmp_path / "log.txt"
    path.write_text("before")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_reported_with_the_file(tmp_path):
    path = tmp_path / "log.txt"
    with (
        pytest.raises(OSError, match=r"cannot be written: No space left.*log\.txt") as caught,
        replacing(path) as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
