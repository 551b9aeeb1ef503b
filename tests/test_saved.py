"""Which saved model is meant by a file, a folder or a name."""

import pytest

from bsdenoise import loading, presets

NAME = "grey-gaussian25-small"


def test_a_file_or_folder_wins_over_a_preset(tmp_path, monkeypatch, tiny_denoiser_path):
    monkeypatch.chdir(tmp_path)
    assert loading.find(NAME) == presets.get(NAME).path
    (tmp_path / NAME).mkdir()
    with pytest.raises(ValueError, match=f"{NAME}/denoiser.keras: no such model"):
        loading.find(NAME)
    tiny = tiny_denoiser_path(1)
    (tmp_path / NAME / loading.MODEL_NAME).write_bytes(tiny.read_bytes())
    assert str(loading.find(NAME)) == f"{NAME}/{loading.MODEL_NAME}"
    assert loading.load(NAME).network.count_params() == loading.load(tiny).network.count_params()


def test_unknown_names_are_told_where_presets_are_listed():
    with pytest.raises(ValueError, match="rgb-gaussian26: no such model. .*bsdenoise presets lists them"):
        loading.load("rgb-gaussian26")


def test_presets_load_by_name():
    denoiser = loading.load(NAME)
    assert (denoiser.channels, denoiser.noise.is_known) == (1, True)
