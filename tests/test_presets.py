"""The shipped models: their files, what the index says of them, and a part of the table that is measured again."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

import bsdenoise
from benchmarks import pack_preset, patterns
from benchmarks import presets as measuring
from bsdenoise import cli, loading, presets

ALL = presets.names()
SMALL = "grey-gaussian25-small"
MAX_TOTAL_BYTES = 20e6
TOLERANCE_DB = 0.01


def test_the_set_is_whole():
    families = {
        f"{kind}-gaussian{sigma}{size}"
        for kind in ("rgb", "grey")
        for sigma in ("25", "5-50")
        for size in ("", "-small")
    }
    assert set(ALL) == families
    assert set(presets.DEFAULTS.values()) <= families
    assert {presets.get(name).channels for name in presets.DEFAULTS.values()} == set(presets.DEFAULTS)


def test_files_are_small_and_no_others_are_shipped():
    files = {path.name: path.stat().st_size for path in presets.FOLDER.glob("*.npz")}
    assert files.keys() == {f"{name}.npz" for name in ALL}
    assert sum(files.values()) < MAX_TOTAL_BYTES


@pytest.mark.parametrize("name", ALL)
def test_index_and_model_agree(name):
    preset, denoiser = presets.get(name), bsdenoise.Denoiser.from_preset(name)
    assert denoiser.network.count_params() == preset.parameters
    assert denoiser.channels == preset.channels == (3 if name.startswith("rgb") else 1)
    assert denoiser.method.name == "full"
    sigmas = [float(text) for text in name.removesuffix("-small").split("gaussian")[1].split("-")]
    assert preset.noise == (sigmas[0], sigmas[-1])
    assert (denoiser.noise.low, denoiser.noise.high) == pytest.approx((sigmas[0] / 255, sigmas[-1] / 255))
    assert presets.pixels_seen(denoiser.provenance) > 1e8
    assert denoiser.provenance["corrupt"] == "fresh"
    assert preset.measured["psnr"].keys() == ({"kodak24", "bsd300", "set14"} if preset.channels == 3 else {"bsd68"})


@pytest.mark.parametrize("name", ALL)
def test_part_of_the_table_is_measured_again(name):
    """One photograph, always the same noise: what the command that makes the table found there."""
    expected = presets.get(name).measured["check_psnr"]
    measured = measuring.check_psnr(bsdenoise.Denoiser.from_preset(name))
    assert measured == pytest.approx(expected, abs=TOLERANCE_DB)
    assert measured > 20.2 + 8  # the noisy image has 20.2 dB


@pytest.mark.parametrize("name", ALL)
def test_strong_regular_patterns_are_not_amplified(name):
    """Such as the checked cloth of Set14's barbara, on which one of the trainings had lost its hold."""
    preset = bsdenoise.Denoiser.from_preset(name).in_precision("bfloat16")  # in half the time
    assert patterns.worst_psnr(preset) > patterns.NOISY_PSNR


def test_two_models_are_averaged(tiny_denoiser_path, tmp_path):
    denoiser, other = (loading.load(tiny_denoiser_path(1)) for _ in range(2))
    other.network.set_weights([weight + 1 for weight in other.network.get_weights()])
    other.provenance = {"crops": 7}
    before = denoiser.network.get_weights()
    pack_preset.averaged(denoiser, other, 0.25)
    for own, mean in zip(before, denoiser.network.get_weights(), strict=True):
        np.testing.assert_allclose(mean, own + 0.25, rtol=1e-5, atol=1e-6)
    assert denoiser.provenance["averaged_with"] == {"share": 0.25, "provenance": {"crops": 7}}
    with pytest.raises(ValueError, match="must lie between 0 and 1. Received: 1.5"):
        pack_preset.averaged(denoiser, other, 1.5)
    with pytest.raises(ValueError, match="Only networks of equal size"):
        pack_preset.averaged(denoiser, loading.load(tiny_denoiser_path(3)), 0.5)


def test_what_spoils_a_pattern_is_found_and_not_packed(tiny_denoiser_path, tmp_path, monkeypatch, capsys):
    path = tiny_denoiser_path(1)
    denoiser = loading.load(path)
    halves = SimpleNamespace(channels=1, denoise=lambda noisy, sigma: noisy / 2)
    half = (np.square(patterns.patterns()).mean() + patterns.SIGMA**2) / 4
    assert patterns.worst_psnr(halves) == pytest.approx(-10 * np.log10(half), abs=0.5)
    monkeypatch.setattr(patterns, "DEGREES", (10, 60))
    monkeypatch.setattr("sys.argv", ["pack_preset", str(path), "tiny", "nothing", "--folder", str(tmp_path)])
    assert patterns.worst_psnr(denoiser) < patterns.NOISY_PSNR  # it is not trained
    assert pack_preset.main() == 2
    assert "worse than the noisy image on stripes and checks" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folder(tmp_path, tiny_denoiser_path):
    """A folder with a preset of a tiny network."""
    pack_preset.pack(loading.load(tiny_denoiser_path(1)), "tiny", "nothing", tmp_path)
    return tmp_path


@pytest.fixture
def use_folder(folder, monkeypatch):
    """Puts it in the place of the shipped ones."""

    def use():
        index = presets.read_index(folder)
        monkeypatch.setattr(presets, "_index", lambda: index)
        return index["tiny"]

    return use


def test_half_precision_changes_little(folder, use_folder, tiny_denoiser_path):
    use_folder()
    noisy = np.random.default_rng(0).random((24, 31, 1), np.float32)
    expected = loading.load(tiny_denoiser_path(1)).denoise(noisy)
    np.testing.assert_allclose(bsdenoise.Denoiser.from_preset("tiny").denoise(noisy), expected, atol=2e-3)


def test_a_damaged_file_is_noticed(use_folder):
    preset = use_folder()
    data = bytearray(preset.path.read_bytes())
    data[len(data) // 2] ^= 1
    preset.path.write_bytes(data)
    with pytest.raises(ValueError, match=r"tiny.npz: damaged, its checksum is not that of preset tiny"):
        bsdenoise.Denoiser.from_preset("tiny")
    preset.path.unlink()
    with pytest.raises(ValueError, match=r"tiny.npz: cannot be read \(No such file"):
        bsdenoise.Denoiser.from_preset("tiny")


def test_weights_of_another_network_are_noticed(folder, monkeypatch, use_folder):
    preset = dataclasses.replace(use_folder(), width=5)
    monkeypatch.setattr(presets, "_index", lambda: {"tiny": preset})
    with pytest.raises(ValueError, match="weights of another network than its index says"):
        bsdenoise.Denoiser.from_preset("tiny")


def test_packing_anew_drops_what_was_measured(folder, tiny_denoiser_path):
    index = presets.read_index(folder)
    presets.write_index(folder, {"tiny": dataclasses.replace(index["tiny"], measured={"check_psnr": 1.0})})
    assert presets.read_index(folder)["tiny"].measured == {"check_psnr": 1.0}
    pack_preset.pack(loading.load(tiny_denoiser_path(1)), "tiny", "nothing", folder)
    pack_preset.pack(loading.load(tiny_denoiser_path(3)), "tiny-rgb", "nothing", folder)
    again = presets.read_index(folder)
    assert [*again] == ["tiny-rgb", "tiny"]  # colour first
    assert again["tiny"].measured == {}
    assert again["tiny"] == index["tiny"]


def test_what_cannot_be_a_preset_is_refused(tmp_path, tiny_denoiser_path):
    denoiser = loading.load(tiny_denoiser_path(1))
    denoiser.scale = 2.0
    with pytest.raises(ValueError, match="a model of photographs"):
        pack_preset.pack(denoiser, "tiny", "nothing", tmp_path)
    denoiser.scale = 1.0
    denoiser.network.set_weights([weight * 1e9 for weight in denoiser.network.get_weights()])
    with pytest.raises(ValueError, match="half precision cannot hold"):
        pack_preset.pack(denoiser, "tiny", "nothing", tmp_path)
    assert not list(tmp_path.iterdir())


def test_there_is_no_other(capsys):
    with pytest.raises(ValueError, match="There is no preset of that name; there are rgb-gaussian25,"):
        bsdenoise.Denoiser.from_preset("rgb-gaussian26")
    assert cli.main(["presets", "rgb-gaussian26"]) == 2
    assert "error: There is no preset of that name" in capsys.readouterr().err


def test_the_command_lists_them(capsys, tmp_path):
    assert cli.main(["presets", "--json", str(tmp_path / "presets.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(ALL)]] == [*ALL]
    assert lines[3 + len(ALL)].endswith("78.64")
    assert lines[2 + len(ALL)].split()[-4:] == ["31.82", "30.34", "30.50", "28.59"]  # BM3D, as the paper quotes it
    assert "trained on noisy copies, fresh at each visit, of 782 photographs of ImageNet" in lines[-2]
    assert lines[0].split()[:2] == ["preset", "channels"]
    written = json.loads((tmp_path / "presets.json").read_text())
    assert [row["name"] for row in written] == [*ALL]
    assert "folder" not in written[0]
    assert cli.main(["presets", "--json", str(tmp_path)]) == 2
    assert "is a folder; --json names a file" in capsys.readouterr().err


def test_the_command_tells_all_of_one(capsys):
    assert cli.main(["presets", SMALL]) == 0
    said = capsys.readouterr().out
    preset = presets.get(SMALL)
    for words in (
        "grey images",
        f"{preset.parameters:,} parameters",
        "trained: ",
        "BSD68 grey, sigma 25",
        "paper 29.27",
    ):
        assert words in said
