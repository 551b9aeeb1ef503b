"""What is wrong with images is said once for all images of a stack."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from bsdenoise import cli
from bsdenoise.data import faults
from bsdenoise.data.faults import Faults, Reports


def test_the_same_fault_in_a_stack_is_told_once():
    told = Faults()
    first = told.new("in/a.tif[3]", ValueError("in/a.tif: pixels from 0 to 25.5e3 are too many"))
    assert (
        first
        == "in/a.tif[3]: pixels from 0 to 25.5e3 are too many (others of this stack with the same fault are not named)"
    )
    assert told.new("in/a.tif[4]", ValueError("in/a.tif: pixels from -1 to 9 are too many")) is None
    assert told.new("in/a.tif[4]", ValueError("in/a.tif: it holds NaN")) is not None
    assert told.new("in/b.tif[3]", ValueError("in/b.tif: pixels from 0 to 25.5e3 are too many")) is not None
    assert told.new("in/b[1].tif", ValueError("in/b[1].tif: it is empty")) == "in/b[1].tif: it is empty"
    assert told.new("in/b[2].tif", ValueError("in/b[2].tif: it is empty")) == "in/b[2].tif: it is empty"


def test_reports_come_to_an_end(monkeypatch):
    monkeypatch.setattr(faults, "MAX_REPORTS", 2)
    lines = []
    reports = Reports(lines.append)
    for name in ("a.tif[0]", "a.tif[1]", "b.tif", "c.tif", "d.tif"):
        reports.left_out(name, ValueError("bad"))
    assert [line.split(":")[0] for line in lines] == [
        "left out a.tif[0]",
        "left out b.tif",
        "whatever else is left out will not be named",
    ]


@pytest.fixture
def stack(tmp_path):
    """A folder with a good image, and a stack all of whose images are too small or hold infinite values."""
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 99, (48, 48)).astype("uint8")).save(tmp_path / "in/good.png")
    return tmp_path / "in"


def test_prepare_names_a_stack_once(stack, tmp_path, capsys):
    tifffile.imwrite(stack / "bad.tif", np.full((9, 20, 20), np.inf, "float32"), photometric="minisblack")
    assert cli.main(["prepare", str(stack), "--out", str(tmp_path / "out")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "bad.tif" in line]
    assert len(lines) == 1 and "bad.tif[0]: cannot be read as TIFF: it holds infinite values" in lines[0]


def test_evaluate_names_a_stack_once(stack, tiny_denoiser_path, capsys):
    values = np.random.default_rng(0).uniform(100, 300, (7, 20, 20)).astype("float32")
    tifffile.imwrite(stack / "bad.tif", values, photometric="minisblack")
    arguments = ["--data", str(stack), "--noise", "gaussian:25/255", "--model", str(tiny_denoiser_path(1))]
    assert cli.main(["evaluate", *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.count("bad.tif") == 1
    assert "7 of 8 measurements failed" in errors
