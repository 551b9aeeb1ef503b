"""`bsdenoise denoise` with Zarr: images inside of stores, stores of several images, and where their results stand."""

import shutil

import denoise_command
import numpy as np
import pytest
import zarr
from denoise_command import denoise, grey, save
from zarr_files import pixels_of, save_ome

from bsdenoise import images
from bsdenoise.data.sources import open_source

use_model = denoise_command.use_model
SHAPES = [(45, 37), (30, 20), (16, 50)]


def inner(attributes, version):
    return {"ome": {"version": "0.5", **attributes}} if version == "0.5" else attributes


def save_layout(path, number, version="0.4", series=None):
    """What bioformats2raw writes: images root/0, root/1, …, each with the five axes, and OME-XML beside them."""
    zarr_format = 3 if version == "0.5" else 2
    root = zarr.create_group(
        str(path), zarr_format=zarr_format, attributes=inner({"bioformats2raw.layout": 3}, version)
    )
    ome = root.create_group("OME", attributes=inner({} if series is None else {"series": series}, version))
    assert ome.path == "OME"
    (path / "OME/METADATA.ome.xml").write_text("<OME/>")
    for index in range(number):
        name = str(index) if series is None else series[index]
        save_ome(name, pixels_of((1, 1, 2, *SHAPES[index]), seed=index), "tczyx", version, group=root)
    return path


def save_plate(path, version="0.4"):
    """A plate of two wells, the first of two fields."""
    zarr_format = 3 if version == "0.5" else 2
    plate = {"rows": [{"name": "A"}], "columns": [{"name": "1"}, {"name": "2"}]}
    wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}, {"path": "A/2", "rowIndex": 0, "columnIndex": 1}]
    attributes = inner({"plate": {**plate, "wells": wells, "version": "0.4"}}, version)
    root = zarr.create_group(str(path), zarr_format=zarr_format, attributes=attributes)
    row = root.create_group("A")
    for column, fields in (("1", ("0", "1")), ("2", ("0",))):
        listed = [{"path": field, "acquisition": 0} for field in fields]
        well = row.create_group(column, attributes=inner({"well": {"images": listed}}, version))
        for field in fields:
            save_ome(field, pixels_of((2, 45, 37), seed=int(column + field)), "cyx", version, group=well)
    return path


def check_result(source, result):
    """The result is an image with the axes of its source, half as bright."""
    before, after = (zarr.open_group(str(path), mode="r") for path in (source, result))
    assert dict(after.attrs) == dict(before.attrs)
    assert after["0"].shape == before["0"].shape and after["0"].chunks == before["0"].chunks
    np.testing.assert_allclose(after["0"][...], before["0"][...] / 2, atol=0.51)


def results(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.zarr"))


@pytest.fixture
def at(tmp_path, monkeypatch, use_model):
    use_model(1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMED = {
    "its root": ("scan.zarr", "denoised-scan.zarr"),
    "the image": ("scan.zarr/0", "denoised-scan-0.zarr"),
    "the image, with a slash": ("scan.zarr/0/", "denoised-scan-0.zarr"),
    "the image in a folder": ("./sub/../scan.zarr/0", "denoised-scan-0.zarr"),
}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("source", "result"), NAMED.values(), ids=NAMED)
def test_the_only_image_of_a_store(at, capsys, source, result, version):
    (at / "sub").mkdir()
    save_layout(at / "scan.zarr", 1, version)
    assert denoise(source, "--sigma", 9) == 0
    assert results(at) == [result, "scan.zarr"]
    check_result("scan.zarr/0", result)
    assert ("of the store its image 0 is taken" in capsys.readouterr().err) == (source == "scan.zarr")


def test_an_array_of_an_image(at):
    """It has the axes of its image, and becomes an array that names them."""
    save_layout(at / "scan.zarr", 1)
    assert denoise("scan.zarr/0/0", "--sigma", 9) == 0
    found = zarr.open_array("denoised-scan-0-0.zarr", mode="r")
    assert found.shape == (1, 1, 2, 45, 37) and found.attrs["_ARRAY_DIMENSIONS"] == list("tczyx")
    np.testing.assert_allclose(found[...], zarr.open_array("scan.zarr/0/0", mode="r")[...] / 2, atol=0.51)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("series", [None, ["0", "second", "2"]], ids=["by numbers", "listed"])
def test_every_image_of_a_store_is_an_input(at, version, series):
    save_layout(at / "scan.zarr", 3, version, series)
    names = series or ["0", "1", "2"]
    assert denoise("scan.zarr", "--sigma", 9) == 0
    assert results(at) == sorted(["scan.zarr", *(f"denoised-scan-{name}.zarr" for name in names)])
    (at / "in").mkdir()
    (at / "scan.zarr").rename(at / "in/scan.zarr")
    for source, out in (("in", "1"), ("in/scan.zarr", "2"), ("in/scan.zarr/*", "3"), ("in/*.zarr", "4")):
        assert denoise(source, "--out", out, "--sigma", 9) == 0
        assert results(at / out) == [f"scan-{name}.zarr" for name in sorted(names)]
        for name in names:
            check_result(f"in/scan.zarr/{name}", f"{out}/scan-{name}.zarr")
    assert denoise("in/scan.zarr", "--out", "b.zarr") == 2
    assert len(open_source("in/scan.zarr")) == 6


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plates_and_wells(at, version):
    save_plate(at / "plate.zarr", version)
    for source, out, expected in (
        ("plate.zarr", "1", ["A-1-0", "A-1-1", "A-2-0"]),
        ("plate.zarr/A/1", "2", ["A-1-0", "A-1-1"]),
        ("plate.zarr/A/1/1", "3", ["A-1-1"]),
        ("plate.zarr/A/2", "4", ["A-2"]),
        ("plate.zarr/*/*/0", "5", ["A-1-0", "A-2-0"]),
    ):
        assert denoise(source, "--out", out, "--sigma", 9) == 0
        assert results(at / out) == [f"plate-{name}.zarr" for name in expected]
    check_result("plate.zarr/A/1/1", "1/plate-A-1-1.zarr")
    check_result("plate.zarr/A/2/0", "4/plate-A-2.zarr")
    assert denoise("plate.zarr/A", "--out", "6") == 2


def test_several_images_are_named_where_one_is_expected(tmp_path):
    save_layout(tmp_path / "scan.zarr", 3)
    with pytest.raises(ValueError, match=r"it holds 3 images; name one of them, such as .*scan\.zarr/0 \(0, 1, 2\)"):
        images.read(tmp_path / "scan.zarr")


@pytest.mark.parametrize("name", ["scan", "a.ome", "with.dots.in"])
def test_a_folder_of_another_name_is_a_store_by_its_files(at, name):
    save_ome(at / name, pixels_of((45, 37)), "yx")
    assert denoise(name, "--sigma", 9) == 0
    check_result(name, f"denoised-{name}.zarr")
    assert denoise(f"{name}/0", "--out", "out", "--sigma", 9) == 0
    assert results(at / "out") == [f"{name}-0.zarr"]


def test_from_inside_of_a_store(at, monkeypatch):
    save_layout(at / "scan.zarr", 1)
    monkeypatch.chdir(at / "scan.zarr/0")
    assert denoise(".", "--sigma", 9) == denoise("0", "--sigma", 9) == 0
    assert results(at) == ["denoised-scan-0-0.zarr", "denoised-scan-0.zarr", "scan.zarr"]


def test_a_group_above_changes_no_names(at):
    """A folder of stores may be a group itself; a store in it is named as everywhere."""
    zarr.create_group("all")
    save_ome(at / "all/a.zarr", pixels_of((45, 37)), "yx")
    assert denoise("all/a.zarr", "--sigma", 9) == 0
    assert results(at) == ["all/a.zarr", "all/denoised-a.zarr"]


def test_images_of_a_store_as_other_formats(at):
    save_layout(at / "scan.zarr", 1)
    assert denoise("scan.zarr/0", "--out", "b.tif", "--sigma", 9) == 0
    np.testing.assert_array_equal(images.read("b.tif").array.reshape(2, 45, 37), images.read("b.tif").array[..., 0])
    expected = zarr.open_array("scan.zarr/0/0", mode="r")[0, 0] / 2
    np.testing.assert_allclose(images.read("b.tif").array[..., 0], expected, atol=0.51)


LOST = {
    "the store around it": (["scan.zarr/0"], "scan.zarr", "the output would replace the store scan.zarr, which holds"),
    "beside it": (["scan.zarr/0"], "scan.zarr/b.zarr", "the output would be inside the input scan.zarr"),
    "into its group": (["scan.zarr/0"], "scan.zarr/OME", "the output would be inside the input scan.zarr"),
    "itself": (["scan.zarr/0"], "scan.zarr/0", "the output would be inside the input scan.zarr"),
    "of another": (["a.png", "scan.zarr/0"], "scan.zarr", "--out must be a folder"),
}


@pytest.mark.parametrize(("inputs", "out", "message"), LOST.values(), ids=LOST)
def test_results_never_stand_in_the_store_of_an_input(at, capsys, inputs, out, message):
    save_layout(at / "scan.zarr", 1)
    save(at / "a.png", grey())
    before = sorted(path for path in at.rglob("*"))
    assert denoise(*inputs, "--out", out, "--overwrite", "--sigma", 9) == 2
    assert message in capsys.readouterr().err
    assert sorted(path for path in at.rglob("*")) == before


def test_two_images_of_one_name(at, capsys):
    save_layout(at / "scan.zarr", 1)
    shutil.copytree("scan.zarr/0", "scan-0.zarr")
    assert denoise("scan.zarr/0", "scan-0.zarr", "--out", "out") == 2
    assert "scan.zarr/0 and scan-0.zarr would both be written to out/scan-0.zarr" in capsys.readouterr().err


def test_a_plate_that_names_what_is_not_in_it(at, capsys):
    plate = {"wells": [{"path": "../other"}]}
    zarr.create_group("plate.zarr", zarr_format=2, attributes={"plate": plate})
    assert denoise("plate.zarr", "--out", "out") == 2
    assert "plate.zarr: cannot be read as Zarr: it names '../other', which is no path inside of it" in (
        capsys.readouterr().err
    )
