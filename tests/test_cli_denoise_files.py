"""`bsdenoise denoise` with many files: which becomes which, and what is never overwritten."""

from pathlib import Path

import denoise_command
import pytest
from denoise_command import denoise, grey, save, written

from bsdenoise import images
from bsdenoise.pipeline import file_plan

use_model = denoise_command.use_model


@pytest.fixture
def folder(tmp_path):
    for name in ("in/a.png", "in/sub/a.png", "in/sub/b.jpg"):
        save(tmp_path / name, grey())
    return tmp_path


def test_a_folder_keeps_its_structure(folder, use_model):
    use_model(1)
    assert denoise(folder / "in", "--out", folder / "out") == 0
    assert written(folder / "out") == ["a.png", "sub/a.png", "sub/b.jpg"]


def test_a_glob_keeps_the_structure_from_its_first_wildcard_on(folder, use_model):
    use_model(1)
    assert denoise(folder / "in/**/*.png", "--out", folder / "out") == 0
    assert written(folder / "out") == ["a.png", "sub/a.png"]


def test_a_bad_file_is_named_and_does_not_stop_the_others(folder, use_model, capsys):
    use_model(1)
    bad = folder / "in/broken.png"
    bad.write_text("no image")
    assert denoise(folder / "in", "--out", folder / "out") == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith(f"bsdenoise: error: {bad}: cannot be read")
    assert errors[1].startswith("3 written, 1 failed")
    assert len(errors) == 2
    assert len(written(folder / "out")) == 3


def test_an_error_of_the_model_does_not_stop_the_others(folder, use_model, capsys, monkeypatch):
    denoiser = use_model(1)
    real = denoiser.denoise
    save(folder / "in/sub/a.png", grey(250))

    def fail_for_bright_ones(noisy, sigma):
        if noisy.max() > 200:
            raise RuntimeError("out of memory")
        return real(noisy, sigma)

    monkeypatch.setattr(denoiser, "denoise", fail_for_bright_ones)
    assert denoise(folder / "in", "--out", folder / "out") == 2
    assert f"{folder / 'in/sub/a.png'}: RuntimeError: out of memory" in capsys.readouterr().err
    assert written(folder / "out") == ["a.png", "sub/b.jpg"]


def test_ctrl_c_stops_at_once(folder, use_model, monkeypatch):
    denoiser = use_model(1)

    def interrupt(noisy, sigma):
        raise KeyboardInterrupt

    monkeypatch.setattr(denoiser, "denoise", interrupt)
    assert denoise(folder / "in", "--out", folder / "out") == 130
    assert written(folder / "out") == []


def test_outputs_of_an_earlier_run_inside_the_folder_are_no_inputs(folder, use_model):
    use_model(1)
    for options in ([], ["--overwrite"]):
        assert denoise(folder / "in", "--out", folder / "in/clean", *options) == 0
    assert written(folder / "in/clean") == ["a.png", "sub/a.png", "sub/b.jpg"]


def test_a_file_given_twice_is_denoised_once(folder, use_model):
    denoiser = use_model(1)
    assert denoise(folder / "in/a.png", folder / "in/../in/a.png", "--out", folder / "out") == 0
    assert len(denoiser.shapes) == 1


def test_nothing_is_overwritten_unless_told(folder, use_model, capsys):
    use_model(1)
    source = folder / "in/a.png"
    before = source.read_bytes()
    assert denoise(source, "--out", folder / "in") == 2
    assert "would replace the input" in capsys.readouterr().err
    assert source.read_bytes() == before
    assert denoise(source, "--out", folder / "in", "--overwrite") == 0
    assert (images.read_array(source) == 50).all()
    assert denoise(source, "--out", folder / "in/sub") == 2
    assert "exists already; --overwrite replaces it" in capsys.readouterr().err
    assert denoise(source, "--out", folder / "in/sub", "--overwrite") == 0
    assert (images.read_array(folder / "in/sub/a.png") == 25).all()


def test_an_input_behind_a_link_is_not_overwritten(folder, use_model, capsys):
    use_model(1)
    (folder / "link").symlink_to(folder / "in")
    assert denoise(folder / "in/a.png", "--out", folder / "link") == 2
    assert "would replace the input" in capsys.readouterr().err


PLANS_REFUSED = {
    "no input": ([], "out", "at least one image file"),
    "missing": (["in/x.png"], "out", "in/x.png: no such file or folder"),
    "same name": (["in/a.png", "in/sub/a.png"], "out", "in/a.png and in/sub/a.png would both be written to out/a.png"),
    "out is a file": (["in"], "in/a.png", "in/a.png: --out must be a folder"),
    "out named like a file": (["in"], "new.png", "new.png: --out must be a folder"),
    "out of unknown kind": (["in/a.png"], "b.bmp", r"b.bmp: unknown kind of image file. Expected a folder, or"),
    "onto a folder": (["in/sub/b.jpg"], "folders", "folders/b.jpg: is a folder"),
    "another input": (["in/sub", "in"], "in", "would replace the input|would both be written"),
}


@pytest.mark.parametrize(("inputs", "out", "message"), PLANS_REFUSED.values(), ids=PLANS_REFUSED)
def test_plans_that_would_lose_something_are_refused(folder, monkeypatch, inputs, out, message):
    monkeypatch.chdir(folder)
    (folder / "folders/b.jpg").mkdir(parents=True)
    with pytest.raises(ValueError, match=message):
        file_plan.plan(inputs, Path(out), overwrite=True)


def test_the_uncertainty_picture_must_not_hit_another_output(tmp_path):
    for name in ("a.png", "a-std.png"):
        save(tmp_path / "in" / name, grey())
    with pytest.raises(ValueError, match="would both be written to .*a-std.png"):
        file_plan.plan([str(tmp_path / "in")], tmp_path / "out", std=True)
    assert len(file_plan.plan([str(tmp_path / "in")], tmp_path / "out")) == 2


def test_an_output_is_never_another_input_even_with_overwrite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "x/sub/a.png", grey())
    save(tmp_path / "x/a.png", grey())
    with pytest.raises(ValueError, match="x/a.png: the output would replace the input x/a.png"):
        file_plan.plan(["x/sub/a.png", "x"], Path("x"), overwrite=True)


# --- Zarr stores, folders that are one image -----------------------------------------------------------------------


@pytest.fixture
def stores(tmp_path, monkeypatch):
    """Folders as far as names tell; what is in them does not matter here."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.zarr", "in/sub/b.ome.zarr", "other/a.zarr"):
        (tmp_path / name / "0").mkdir(parents=True)
        (tmp_path / name / "zarr.json").write_text("{}")
    save(tmp_path / "in/c.png", grey())
    (tmp_path / "in/no.zarr").mkdir()
    monkeypatch.setattr(images, "find", lambda source, say=None: [Path(source)])


def targets(inputs, out, **options):
    return [[target.as_posix() for target in job.targets] for job in file_plan.plan(inputs, Path(out), **options)]


STORES = {
    "into a folder": (["in/a.zarr"], "out", {}, ["out/a.zarr"]),
    "with a name": (["in/a.zarr"], "out/b.zarr", {}, ["out/b.zarr"]),
    "as another format": (["in/a.zarr"], "b.tif", {}, ["b.tif"]),
    "of another format": (["in/c.png"], "b.zarr", {}, ["b.zarr"]),
    "uncertainty": (["in/sub/b.ome.zarr"], "out", {"std": True}, ["out/b.ome.zarr", "out/b.ome-std.zarr"]),
    "over itself": (["in/a.zarr"], "in", {"overwrite": True}, ["in/a.zarr"]),
    "over another": (["in/a.zarr"], "other/a.zarr", {"overwrite": True}, ["other/a.zarr"]),
    "over a file of the folder": (["in/c.png"], "other/a.zarr", {"overwrite": True}, ["other/a.zarr"]),
}


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize(("inputs", "out", "options", "expected"), STORES.values(), ids=STORES)
def test_a_store_is_planned_like_a_file(inputs, out, options, expected):
    assert targets(inputs, out, **options) == [expected]


@pytest.mark.usefixtures("stores")
def test_several_stores_stand_below_out():
    assert targets(["in/a.zarr", "in/sub/b.ome.zarr"], "out") == [["out/a.zarr"], ["out/b.ome.zarr"]]


STORES_REFUSED = {
    "exists": (["in/a.zarr"], "other", False, "other/a.zarr: exists already; --overwrite replaces it"),
    "itself": (["in/a.zarr"], "in", False, "would replace the input in/a.zarr; --overwrite allows it"),
    "several to one": (["in/a.zarr", "in/c.png"], "b.zarr", True, "b.zarr: --out must be a folder"),
    "inside an input": (
        ["in/a.zarr"],
        "in/a.zarr/0",
        True,
        "a.zarr/0/a.zarr: the output would be inside the input in/a",
    ),
    "no store": (["in/a.zarr"], "in/no.zarr", True, "in/no.zarr: is a folder that is no Zarr store"),
}


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize(("inputs", "out", "overwrite", "message"), STORES_REFUSED.values(), ids=STORES_REFUSED)
def test_stores_that_would_be_lost_are_refused(inputs, out, overwrite, message):
    with pytest.raises(ValueError, match=message):
        file_plan.plan(inputs, Path(out), overwrite=overwrite)
