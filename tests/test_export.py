"""How a SavedModel is written, and the command that does it."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported import Server, export_some, make_denoiser, noisy_batch
from tensorflow_serving.apis import prediction_log_pb2

from bsdenoise import cli, config, export
from bsdenoise.denoiser import Denoiser
from bsdenoise.export import export_saved_model, saved_model, signatures, warm_up
from bsdenoise.export.description import describe
from bsdenoise.export.graph.tiles import Tiles
from bsdenoise.noise import GaussianNoise, PoissonGaussianNoise


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def denoiser():
    """One with few signatures."""
    return make_denoiser(2, GaussianNoise(25 / 255, 25 / 255), offset=100.0, scale=4000.0, fractional=False)


@pytest.fixture
def tried(monkeypatch):
    """Has exports tried before they are published; most tests leave that out (`conftest.py`)."""
    monkeypatch.setattr(saved_model, "_try", saved_model.tried)


@pytest.fixture
def one_signature(monkeypatch):
    """Has exports trace one signature, for tests of how files come and go."""
    table = saved_model.signatures
    monkeypatch.setattr(
        saved_model, "signatures", lambda *arguments: {"serving_default": table(*arguments)["serving_default"]}
    )


# How it is written


@pytest.fixture
def after_writing(monkeypatch):
    """Has something done when Keras has written, in its archive class: TensorFlow's own function may be made anew."""
    archive = type(keras.export.ExportArchive())
    write_out = archive.write_out

    def then(action):
        def write_and_act(self, folder, **kwargs):
            write_out(self, folder, **kwargs)
            action(folder)

        monkeypatch.setattr(archive, "write_out", write_and_act)

    return then


@pytest.mark.usefixtures("one_signature")
@pytest.mark.parametrize(
    "error, sentence",
    [
        (OSError("Input/output error"), "Input/output error"),
        (
            tf.errors.ResourceExhaustedError(None, None, "saved_model.pb; No space left on device"),
            "cannot be written: no space left on device: .*versions/1'",
        ),
    ],
    ids=["broken", "full"],
)
def test_a_failure_while_writing_leaves_nothing(error, sentence, denoiser, tmp_path, after_writing):
    target, seen = tmp_path / "versions" / "1", []

    def fail(folder):
        seen.extend(path.name for path in target.parent.iterdir())
        raise error

    after_writing(fail)
    with pytest.raises(OSError, match=sentence):
        export_saved_model(denoiser, target)
    assert len(seen) == 1 and not seen[0].isdigit()  # written elsewhere than where a server looks
    assert list(target.parent.iterdir()) == []


@pytest.mark.slow
def test_a_disk_that_is_really_full(run_folder, tmp_path):
    """A file system of a quarter of a megabyte, in a namespace of its own."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["unshare", "--user", "--mount", "--map-root-user", "sh", "-ec"]
    full = f"mount -t tmpfs -o size=250k none '{small}'"
    try:
        subprocess.run([*mount, full], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets nobody but root mount file systems")
    export_there = f"'{sys.executable}' -m bsdenoise.cli export '{run_folder}' --out '{small}'"
    command = f"{full}; {export_there} || echo rc $?; ls -A '{small}'"
    result = subprocess.run([*mount, command], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert f"bsdenoise: error: [Errno 28] cannot be written: no space left on device: '{small / '1'}'" in result.stderr
    assert result.stdout == "rc 2\n"


def cut(path, *, keep):
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda folder: cut(folder / "saved_model.pb", keep=1000), ""),
        (lambda folder: (folder / "saved_model.pb").unlink(), "saved_model.pb"),
        (lambda folder: cut(folder / "variables" / "variables.data-00000-of-00001", keep=40), ""),
        (lambda folder: (folder / "variables" / "variables.index").unlink(), ""),
    ],
    ids=["graph cut", "no graph", "weights cut", "no index"],
)
@pytest.mark.usefixtures("tried", "one_signature")
def test_what_does_not_load_is_not_published(damage, sentence, denoiser, tmp_path, after_writing):
    after_writing(lambda folder: damage(Path(folder)))
    with pytest.raises(
        ValueError, match=f"(?s)1: not published, because what was written cannot be used: .*{sentence}"
    ) as caught:
        export_saved_model(denoiser, tmp_path / "1")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("tried")
def test_what_does_not_answer_is_not_published(tmp_path):
    """Weights that are no numbers load well."""
    denoiser = make_denoiser(1, GaussianNoise(0.1, 0.1))
    denoiser.network.set_weights([np.full_like(value, np.nan) for value in denoiser.network.get_weights()])
    with pytest.raises(ValueError, match="cannot be used: .*'denoised' is not finite"):
        export_saved_model(denoiser, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_check_sums_tell_what_belongs_to_a_version(denoiser, tmp_path):
    folder = export_saved_model(denoiser, tmp_path / "1", warm_up=[(8, 8)])
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=folder, capture_output=True).returncode == 0
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert listed == files - {"SHA256SUMS"} and "assets.extra/tf_serving_warmup_requests" in listed
    cut(folder / "variables" / "variables.data-00000-of-00001", keep=40)
    assert subprocess.run(check, cwd=folder, capture_output=True).returncode == 1


def test_what_exists_is_not_touched(denoiser, tmp_path):
    target = tmp_path / "1"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="1: exists already"):
        export_saved_model(denoiser, target)
    assert [path.name for path in target.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="notes.txt: exists already"):
        export_saved_model(denoiser, target / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@pytest.mark.usefixtures("one_signature")
def test_a_version_that_appears_meanwhile_is_not_touched(denoiser, tmp_path, after_writing):
    target = tmp_path / "1"

    def another(_):
        target.mkdir()
        (target / "saved_model.pb").write_bytes(b"other")

    after_writing(another)
    with pytest.raises(ValueError, match="exists already"):
        export_saved_model(denoiser, target)
    assert (target / "saved_model.pb").read_bytes() == b"other"
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@pytest.mark.usefixtures("one_signature")
def test_an_empty_folder_is_taken_and_readable_by_others(denoiser, tmp_path):
    target = tmp_path / "1"
    target.mkdir()
    assert export_saved_model(denoiser, str(target)) == target
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    reference = tmp_path / "plain"
    reference.mkdir()
    assert target.stat().st_mode == reference.stat().st_mode  # a server runs as another user


def test_a_network_in_bfloat16_is_refused(tmp_path):
    denoiser = make_denoiser(1, GaussianNoise(0.1, 0.1), dtype="mixed_bfloat16")
    with pytest.raises(ValueError, match="computes in float32.*mixed_bfloat16"):
        export_saved_model(denoiser, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_the_global_dtype_policy_changes_nothing(denoiser, server, tmp_path):
    image, sigma = noisy_batch(denoiser, (2, 9, 7))
    expected = denoiser.posterior(image, sigma)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        copy = Denoiser(denoiser.network, denoiser.noise, offset=denoiser.offset, scale=denoiser.scale)
        folder = export_some(copy, tmp_path / "1", "posterior")
    finally:
        keras.config.set_dtype_policy(before)
    served = server.call(folder, "posterior", image=image, sigma=sigma)
    for key in ("denoised", "mean"):
        np.testing.assert_allclose(served[key], getattr(expected, key), rtol=1e-5, atol=1e-5 * denoiser.scale)


def test_another_backend_is_refused(denoiser, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow.*backend=jax"):
        export_saved_model(denoiser, tmp_path / "1")


def test_the_next_version_is_one_more_than_the_highest(tmp_path):
    assert export.next_version(tmp_path / "missing") == 1
    assert export.next_version(tmp_path) == 1
    for name in ("2", "10", "notes", ".11.tmp", "²"):
        (tmp_path / name).mkdir()
    (tmp_path / "12").write_text("a file, no version")
    assert export.next_version(tmp_path) == 11


# Old versions


def make_versions(folder, *names):
    for name in names:
        (folder / name / "variables").mkdir(parents=True)
        (folder / name / "saved_model.pb").write_bytes(b"")


def test_old_versions_are_retired_by_number(tmp_path):
    make_versions(tmp_path, "1", "2", "9", "10", "11")
    (tmp_path / "3").mkdir()  # something else
    (tmp_path / "notes").mkdir()
    assert export.retire(tmp_path, 2) == [tmp_path / "1", tmp_path / "2", tmp_path / "9"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "11", "3", "notes"]
    assert export.retire(tmp_path, 2) == []


def test_a_version_can_be_spared(tmp_path):
    make_versions(tmp_path, "1", "2", "3")
    assert export.retire(tmp_path, 2, but=1) == [tmp_path / "2"]
    assert export.retire(tmp_path, 1, but=1) == [tmp_path / "3"]
    with pytest.raises(ValueError, match="`keep` must be at least 1. Received: keep=0"):
        export.retire(tmp_path, 0)


def test_a_version_vanishes_whole(tmp_path, monkeypatch):
    """A server that looks while files are deleted finds no version with some of them missing."""
    make_versions(tmp_path, "1", "2")
    seen = []
    monkeypatch.setattr("shutil.rmtree", lambda path: seen.extend(path.parent.iterdir()))
    export.retire(tmp_path, 1)
    assert sorted(path.name.isdigit() for path in seen) == [False, True]
    assert {path.name for path in seen if path.name.isdigit()} == {"2"}


# Warm-up


def warm_up_requests(folder):
    """Reads the requests as a model server does: TFRecords of PredictionLog."""
    records = tf.data.TFRecordDataset(str(folder / "assets.extra" / "tf_serving_warmup_requests"))
    for record in records.as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        yield request.model_spec.signature_name, inputs, len(record)


def test_warm_up_requests_are_what_the_model_takes(server, tmp_path):
    denoiser = make_denoiser(1, GaussianNoise(25 / 255, 25 / 255))
    sizes = [(14, 10), (8, 6), (20, 12), (8, 6)]
    folder = export_saved_model(denoiser, tmp_path / "1", warm_up=sizes)
    requests = list(warm_up_requests(folder))
    called = [name for name, _, _ in requests]
    expected = {*signatures.names_of(denoiser)} - {"describe"}
    assert called[: len(expected)] != called and set(called) == expected
    images = [inputs["image"].shape for name, inputs, _ in requests if name == "with_sigma"]
    assert images == [(1, 8, 6, 1), (1, 14, 10, 1), (1, 20, 12, 1)]
    assert sum(length for _, _, length in requests) < 5000  # whatever the sizes
    for name, inputs, _ in requests:
        assert server.call(folder, name, **inputs)


@pytest.mark.parametrize(
    "noise", [GaussianNoise(5 / 255, 50 / 255), PoissonGaussianNoise((0.01, 0.02))], ids=["sigma", "gain"]
)
def test_every_signature_that_takes_images_is_warmed_up(noise):
    """Of models that have most of them, with inputs that they take."""
    denoiser, tiles = make_denoiser(3, noise), Tiles(2, 64, 16, 4096)
    table = signatures.signatures(denoiser, 4096, tiles, "", 1)
    requests = dict(warm_up.first_requests((8, 6), describe(denoiser, 4096, tiles, 1)))
    assert {*requests, "describe"} == {*table}
    for name, inputs in requests.items():
        specs = {spec.name: spec for spec in table[name][1]}
        assert specs.keys() == inputs.keys()
        for key, spec in specs.items():
            value = tf.make_tensor_proto(tf.make_ndarray(inputs[key]))
            assert spec.shape.is_compatible_with(tf.TensorShape(value.tensor_shape))
            assert value.dtype == spec.dtype.as_datatype_enum


@pytest.mark.usefixtures("one_signature")
def test_no_warm_up_is_written_unasked(denoiser, tmp_path):
    folder = export_saved_model(denoiser, tmp_path / "1")
    assert not (folder / "assets.extra").exists()


def test_a_warm_up_that_the_model_refuses_is_not_published(denoiser, tmp_path, monkeypatch):
    """It would keep a server from loading the version."""
    monkeypatch.setattr("bsdenoise.export.warm_up.check_sizes", lambda *_: None)
    with pytest.raises(ValueError, match="refuses its own warm-up request for serving_default.*at most 70 at once"):
        export_saved_model(denoiser, tmp_path / "1", max_pixels=70, warm_up=[(8, 9)])
    assert list(tmp_path.iterdir()) == []


def test_too_many_sizes(denoiser, tmp_path):
    with pytest.raises(ValueError, match="at most 1000 warm-up requests. Received: 1000 sizes"):
        export_saved_model(denoiser, tmp_path / "1", warm_up=[(1, 1)] * 1000)


# The command


@pytest.fixture(scope="module")
def run_folder(denoiser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    denoiser.save(folder / "denoiser.keras")
    return folder


@pytest.mark.usefixtures("tried")
def test_the_command_writes_numbered_versions(run_folder, denoiser, server, tmp_path, capsys):
    out = tmp_path / "models" / "denoiser"
    (out / "4").mkdir(parents=True)
    assert cli.main(["export", str(run_folder), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{out / '5'}: 2 channel(s); its own sigma 392.2",  # 25 / 255 of the scale of 4000
        f"units of pixels and noise: {denoiser.units}",
        "signatures: serving_default, with_sigma, posterior, own_sigma, describe",
        "limit: 16777216 pixels per request and per image file",
    ]
    assert cli.main(["export", str(run_folder / "denoiser.keras"), "--out", str(out), "--version", "3"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["3", "4", "5"]
    image, _ = noisy_batch(denoiser, (2, 9, 7))
    for version in ("3", "5"):
        served = server.call(out / version, "serving_default", image=image)["denoised"]
        np.testing.assert_allclose(served, denoiser.denoise(image), rtol=1e-5, atol=4e-2)


@pytest.mark.parametrize(
    ("out", "arguments", "sentence"),
    [
        ("new", ["--version", "0"], "--version must be at least 1"),
        ("new", ["--keep", "0"], "--keep must be at least 1"),
        ("new", ["--warm-up", "64"], "reads HEIGHTxWIDTH, such as 480x640. Received: '64'"),
        ("new", ["--warm-up", "8x8", "0x8"], "Received: '0x8'"),
        ("new", ["--max-pixels", "100", "--warm-up", "8x8", "10x11"], "1 to 100 pixels.*Received: 10x11"),
        ("new", ["--max-pixels", "0"], "--max-pixels must be at least 1. Received: 0."),
        ("new", ["--tile", "31"], "`tile` and `overlap` must be multiples of 2"),
        ("file", [], "is a file"),
        ("version", [], "is itself an exported version"),
        ("taken", ["--version", "1"], "exists already"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(out, arguments, sentence, run_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for name in ("version", "taken/1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").write_text("")
    assert cli.main(["export", str(run_folder), "--out", str(tmp_path / out), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bsdenoise: error: ") and (sentence in line or re.search(sentence, line))
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("tried")
def test_the_steps_are_told_to_a_terminal_alone(run_folder, tmp_path, capsys, monkeypatch):
    assert cli.main(["export", str(run_folder), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert cli.main(["export", str(run_folder), "--out", str(tmp_path), "--warm-up", "8x8"]) == 0
    shown = capsys.readouterr().err
    steps = re.findall("tracing the signatures|writing the graph|loading what was written|trying the requests", shown)
    assert list(dict.fromkeys(steps)) == [
        "tracing the signatures",
        "writing the graph",
        "loading what was written",
        "trying the requests",
    ]
    assert "%|" in shown and shown.endswith("\r") and "\n" not in shown  # nothing of it stays


def test_the_command_names_a_model_that_is_missing(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path / "no.keras"), "--out", str(tmp_path / "out")]) == 2
    assert "no.keras: no such model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("one_signature")
def test_the_command_passes_its_limits_on(run_folder, denoiser, server, tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--max-pixels", "200", "--tile", "8"]
    assert cli.main(["export", str(run_folder), *arguments]) == 0
    assert "limit: 200 pixels" in capsys.readouterr().out
    image, _ = noisy_batch(denoiser, (1, 20, 10))
    served = server.call(tmp_path / "1", "serving_default", image=image)["denoised"]
    tiled, whole = denoiser.denoise(image, tile=8), denoiser.denoise(image)
    np.testing.assert_allclose(served, tiled, rtol=1e-5, atol=4e-2)
    assert np.abs(tiled - whole).max() > 1
    with pytest.raises(ValueError, match="at most 200 at once"):
        server.call(tmp_path / "1", "serving_default", image=np.zeros((1, 201, 1, 2), "float32"))


def test_the_command_warms_up_and_keeps_few(run_folder, tmp_path, capsys):
    make_versions(tmp_path, "1", "2", "7")
    arguments = ["--out", str(tmp_path), "--warm-up", "8x6", "9x9", "--keep", "2"]
    assert cli.main(["export", str(run_folder), *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [f"removed: {tmp_path / '1'}", f"removed: {tmp_path / '2'}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7", "8"]
    assert len(list(warm_up_requests(tmp_path / "8"))) == 5


def test_the_default_limit_is_the_same_for_both():
    assert config.ExportConfig.max_pixels == export.DEFAULT_MAX_PIXELS
    default = inspect.signature(export_saved_model).parameters["max_pixels"].default
    assert default == export.DEFAULT_MAX_PIXELS < export.MOST_PIXELS
