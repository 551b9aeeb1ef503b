"""A backend or package that is missing is named in one line, with what to do."""

import importlib.util
import json

import pytest

from bsdenoise import cli
from bsdenoise.cli import libraries


@pytest.fixture
def backend(monkeypatch, tmp_path):
    """Chooses a backend by the variable, or in keras.json."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)

    def choose(name, in_file=False):
        if in_file:
            (tmp_path / "keras.json").write_text(json.dumps({"backend": name}))
        else:
            monkeypatch.setenv("KERAS_BACKEND", name)

    return choose


@pytest.fixture
def without(monkeypatch):
    """Hides a package."""

    def hide(package):
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))

    return hide


@pytest.mark.parametrize("in_file", [False, True], ids=["variable", "keras.json"])
@pytest.mark.parametrize("command", ["train", "export"])
def test_what_needs_tensorflow(backend, in_file, command, tiny_denoiser_path, tmp_path, capsys):
    backend("jax", in_file)
    arguments = {
        "train": ["none", "--out", str(tmp_path / "run"), "--noise", "gaussian:25"],
        "export": [str(tiny_denoiser_path(1)), "--out", str(tmp_path / "served")],
    }
    assert cli.main([command, *arguments[command]]) == 2
    lines = capsys.readouterr().err.splitlines()
    where = f'"backend": "jax" in {tmp_path}/keras.json' if in_file else "KERAS_BACKEND=jax"
    words = f"{where}: `bsdenoise {command}` runs on TensorFlow alone: set KERAS_BACKEND=tensorflow."
    assert lines == [f"bsdenoise: error: {words}"]


def test_a_backend_that_is_not_installed(backend, without, tiny_denoiser_path, tmp_path, capsys):
    backend("torch")
    without("torch")
    arguments = [str(tmp_path / "a.png"), "--model", str(tiny_denoiser_path(1))]
    (tmp_path / "a.png").touch()
    assert cli.main(["denoise", *arguments]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "bsdenoise: error: KERAS_BACKEND=torch: this needs the package torch, which is not installed: "
        "pip install torch. Or: set KERAS_BACKEND=tensorflow."
    ]


def test_tensorflow_is_not_installed(backend, without):
    without("tensorflow")
    with pytest.raises(
        ValueError, match="needs the package tensorflow, which is not installed: pip install tensorflow$"
    ):
        libraries.check_backend()


def test_a_backend_that_does_not_exist(backend):
    backend("theano")
    with pytest.raises(ValueError, match="KERAS_BACKEND=theano: Keras has no such backend. Expected tensorflow, jax"):
        libraries.check_backend()


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"backend": 3}', '{"floatx": "float32"}'])
def test_a_file_that_names_no_backend(backend, tmp_path, content):
    (tmp_path / "keras.json").write_text(content)
    libraries.check_backend("train")


@pytest.mark.parametrize(
    ("module", "package"),
    [("imagecodecs", "imagecodecs"), ("PIL.Image", "pillow"), ("array_record.python", "array-record")],
)
def test_a_package_that_is_missing(module, package, monkeypatch, capsys):
    def run(*_):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(cli, "_run", run)
    assert cli.main(["presets"]) == 2
    words = f"this needs the package {package}, which is not installed: pip install {package}"
    assert capsys.readouterr().err == f"bsdenoise: error: {words}\n"


@pytest.mark.parametrize("main", [cli.main, cli.main_train])
def test_version(main, capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bsdenoise 0.")
