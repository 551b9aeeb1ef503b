"""The models that a command is pointed at, and what loading them prints."""

import os
import re
import zipfile

import pytest

from bsdenoise.cli import libraries, models


def test_missing_and_wrong_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere.keras: no such model"):
        models.load_denoiser(tmp_path / "nowhere.keras")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'denoiser.keras'}: no such model")):
        models.load_denoiser(tmp_path)
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(ValueError, match="text.keras: not a .keras file"):
        models.load_denoiser(tmp_path / "text.keras")


def test_the_innermost_of_nested_keras_errors_is_shown_in_short(tmp_path, monkeypatch):
    import keras

    def fail(*arguments, **options):
        raise TypeError("could not. config={...}\n\nException encountered: no class 'Pad'. " + "word " * 1000)

    zipfile.ZipFile(tmp_path / "a.keras", "w").close()
    monkeypatch.setattr(keras.models, "load_model", fail)
    with pytest.raises(ValueError, match="a.keras: cannot be read as a Keras model: no class 'Pad'. word") as caught:
        models.load_denoiser(tmp_path / "a.keras")
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


def test_start_up_chatter_is_held_back_unless_loading_fails(capfd, monkeypatch):
    monkeypatch.delenv("BSDENOISE_DEBUG", raising=False)
    with libraries.held_back_stderr():
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError, match="no"), libraries.held_back_stderr():
        os.write(2, b"useful\n")
        raise ImportError("no")
    assert capfd.readouterr().err == "useful\n"
    monkeypatch.setenv("BSDENOISE_DEBUG", "1")
    with libraries.held_back_stderr():
        os.write(2, b"shown\n")
    assert capfd.readouterr().err == "shown\n"


def test_a_model_that_is_no_denoiser_is_refused(tmp_path):
    import keras

    keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="expected a bsdenoise Denoiser. Received a model of type Sequential"):
        models.load_denoiser(tmp_path / "other.keras")
