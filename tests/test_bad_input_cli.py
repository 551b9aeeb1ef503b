"""Whatever is asked of a command, it answers a mistake with one line and exit code 2, and writes nothing."""

import bad_input_cli
import pytest
from bad_input_cli import CASES, TABLE


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_denoiser_path):
    bad_input_cli.make_files(tmp_path, tiny_denoiser_path(3))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def rows():
    text = TABLE.read_text().split(bad_input_cli.BEGIN)[1].split(bad_input_cli.END)[0]
    return text.splitlines(keepends=True)[2:]


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.mistake for case in CASES])
def test_the_command_says_what_the_table_says(number, folder, rows):
    """The table is written by `python tests/bad_input_cli.py`."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, errors = bad_input_cli.run(CASES[number])
    assert code == 2
    assert "Traceback" not in errors
    assert bad_input_cli.row(CASES[number], errors) == rows[number]
    for path, content in before.items():
        assert path.read_bytes() == content
    assert not [path for path in folder.rglob("*.keras") if path.name != "m.keras"]


def test_the_table_has_no_other_rows(rows):
    assert len(rows) == len(CASES)
