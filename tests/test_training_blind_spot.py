"""Trainings with a larger blind spot, for noise that neighbouring pixels share, and the flag of other commands."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_runs
from own_networks import blind
from PIL import Image
from scipy import ndimage

from bsdenoise import Denoiser, GaussianNoise, blind_spot_network, cli, denoise_files, images, layers, loading
from bsdenoise.config import TrainConfig
from bsdenoise.network import DenoisingNetwork
from bsdenoise.pipeline import file_task
from bsdenoise.training import preparation, starting_point
from bsdenoise.training.loop import train
from bsdenoise.training.run_folder import RunFolder
from bsdenoise.training.step import TrainingState
from bsdenoise.training.validation import MEASURED, SURE, Validation

source, config, quick_export = training_runs.source, training_runs.full_config, training_runs.quick_export


def state_of(config):
    data, _ = preparation.open_data(config)
    return TrainingState(config, data, tf.distribute.get_strategy()), data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of another blind spot."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    Denoiser(blind_spot_network(3, 4, 1, blind_spot="5x1"), GaussianNoise(0.1, 0.1)).save(path)
    return path


# --- training ------------------------------------------------------------------------------------------------------


def test_a_run_keeps_its_blind_spot(config, monkeypatch):
    config = dataclasses.replace(config, blind_spot="3", images=24)
    with monkeypatch.context() as interrupting:
        training_runs.stop_at(interrupting, 2)
        assert train(config).step == 2
    for other, words in ((None, "None"), ("1", "'1x1'"), ("3x1", "'3x1'")):
        with pytest.raises(ValueError, match=f"blind_spot was '3x3', now {words}"):
            train(dataclasses.replace(config, blind_spot=other))
    assert train(dataclasses.replace(config, blind_spot="3x3")).finished
    assert loading.load(config.out).blind_spot == (3, 3)
    assert json.loads((config.out / "config.json").read_text())["config"]["blind_spot"] == "3x3"


def test_a_run_of_an_earlier_version_goes_on(config):
    """Its flags and facts know no blind spot."""
    (config.out / "checkpoints").mkdir(parents=True)
    (config.out / "checkpoints" / "ckpt-1.index").touch()
    old = dataclasses.asdict(config) | {"out": str(config.out)}
    del old["blind_spot"]
    (config.out / "config.json").write_text(json.dumps({"config": old}))
    RunFolder(config.out, config).close()
    with pytest.raises(ValueError, match="blind_spot was None, now '3x3'"):
        RunFolder(config.out, dataclasses.replace(config, blind_spot="3x3"))
    facts = {"size": {"channels": 3, "width": 4, "depth": 1}, "started_from": None, "checksum": None}
    assert starting_point.again(facts).blind_spot is None


@pytest.mark.parametrize(
    ("flag", "expected"), [(None, (5, 1)), ("3x3", (3, 3)), ("1", (1, 1)), ("5x1", (5, 1))], ids=str
)
def test_it_starts_from_a_model_of_another_blind_spot(trained, config, flag, expected):
    again = dataclasses.replace(config, init=str(trained), blind_spot=flag)
    state, data = state_of(again)
    assert state.denoiser.blind_spot == expected
    for weight, value in zip(state.network.weights, loading.load(trained).network.get_weights(), strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    facts = json.loads(json.dumps(state.start.facts()))
    assert starting_point.again(facts) == dataclasses.replace(state.start, weights=None)
    assert data.half_turns == (expected == (5, 1))


def test_that_is_said_in_one_line_and_it_goes_on(trained, config, monkeypatch, capsys, tmp_path):
    trained = shutil.copy(trained, tmp_path / "model.keras")
    again = dataclasses.replace(config, init=str(trained), blind_spot="3x3", images=24)
    with monkeypatch.context() as interrupting:
        training_runs.stop_at(interrupting, 2)
        train(again)
    line = f"with a blind spot of 3x3, where {trained} had 5x1: the weights are the same"
    assert capsys.readouterr().out.count(line) == 1
    trained.unlink()
    assert train(again).finished
    assert loading.load(again.out).blind_spot == (3, 3)


def test_a_network_grows_with_its_blind_spot(trained, config):
    state, _ = state_of(dataclasses.replace(config, init=str(trained), width=6, grow=True))
    assert state.denoiser.blind_spot == (5, 1)
    noisy = np.random.default_rng(0).random((1, 20, 17, 3), np.float32)
    np.testing.assert_allclose(state.denoiser.network(noisy), loading.load(trained).network(noisy), atol=1e-5)


class Own(DenoisingNetwork):
    """A network of one's own with an argument `blind_spot`."""

    def __init__(self, channels=3, num_outputs=9, blind_spot=1, **kwargs):
        image = keras.Input((None, None, channels))
        conv = layers.ShiftConv2D(4, 3, activation="relu")
        maps = layers.BlindSpot(blind_spot)([conv(image, quarter_turns=turns) for turns in range(4)])
        super().__init__(image, keras.layers.Conv2D(num_outputs, 1)(maps), **kwargs)
        self.num_outputs = num_outputs

    def get_config(self):
        own = {"channels": self.channels, "num_outputs": self.num_outputs, "blind_spot": self.blind_spot}
        return {**super().get_config(), **own}


def test_a_network_of_ones_own(config):
    own = dataclasses.replace(config, network=Own, width=None, depth=None, blind_spot="3x1", images=8)
    assert train(own).finished
    denoiser = loading.load(own.out)
    assert (denoiser.blind_spot, denoiser.with_blind_spot(5).blind_spot) == ((3, 1), (5, 5))
    without = dataclasses.replace(own, network=blind, out=config.out.with_name("other"))
    with pytest.raises(ValueError, match="Only a blind-spot network whose class has an argument `blind_spot`"):
        train(without)
    state, _ = state_of(dataclasses.replace(without, blind_spot="1"))
    assert state.denoiser.blind_spot == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blind_spot": "2"}, "--blind-spot must be odd numbers of pixels from 1 to 31, .* Received: '2'."),
        ({"blind_spot": "3x3x3"}, "--blind-spot must be odd numbers"),
        ({"method": "n2c"}, "--blind-spot is for methods whose network has one, such as full. Received: --method n2c."),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_anything_is_made(config, change, message):
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(config, **{"blind_spot": "3x3", **change}))
    assert not config.out.exists()


@pytest.mark.parametrize("half_turns", [False, True])
def test_crops_are_turned_so_that_rows_of_noise_stay_rows(config, half_turns):
    config = dataclasses.replace(config, augment=True, corrupt=None, crop=40, source=f"{config.source}/0.png")
    data, _ = preparation.open_data(config)
    plain, _ = preparation.open_data(dataclasses.replace(config, augment=False))
    data.half_turns = half_turns
    seen = set()
    for number in range(60):
        turned = data.example(number)[0]
        upright = plain.example(number)[0]
        ways = ((flip, turns) for flip in (1, -1) for turns in range(4))
        seen |= {way for way in ways if np.array_equal(np.rot90(upright[:, :: way[0]], way[1]), turned)}
    turns = (0, 2) if half_turns else range(4)
    assert seen == {(flip, turn) for flip in (1, -1) for turn in turns}


# --- noise that neighbours share -----------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path):
    """Noisy images, each pixel's noise the mean of four, as of 2×2 boxes that overlap; σ is 20 grey levels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "shared"
    folder.mkdir()
    for number in range(6):
        white = rng.standard_normal((81, 81))
        noise = 10 * (white[1:, 1:] + white[:-1, 1:] + white[1:, :-1] + white[:-1, :-1])
        clean = training_runs.smooth(80, 80, number)[..., 0]
        Image.fromarray(np.clip(clean + noise, 0, 255).astype("uint8")).save(folder / f"{number}.png")
    return folder


def test_validation_measures_noise_on_pixels_that_share_none(shared, config, capsys):
    """Else what neighbours do not share would be taken for all the noise that there is."""
    config = dataclasses.replace(config, source=str(shared), corrupt=None, noise="gaussian:20")
    found = {}
    for size in ("1", "3x3"):
        state, data = state_of(dataclasses.replace(config, blind_spot=size))
        found[size] = Validation(state.denoiser, data, 16, 80)
    assert (found["1"].score, found["3x3"].score) == (MEASURED, SURE)
    assert found["1"].noise_range[1] * 255 < 12


def test_what_is_said_of_shared_noise(shared, config, capsys):
    config = dataclasses.replace(config, source=str(shared), corrupt=None, noise="gaussian:20")
    preparation.open_data(config)
    assert "or a larger --blind-spot: auto chooses one" in capsys.readouterr().out
    preparation.open_data(dataclasses.replace(config, blind_spot="3x3"))
    said = capsys.readouterr().out
    assert "note: the noise that neighbouring pixels share has a sigma of about" in said
    assert "warning" not in said


# --- commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "train photos --out run --noise gaussian:25 --blind-spot 2x3",
        "denoise a.png --model model.keras --blind-spot 2x3",
        "export model.keras --out models --blind-spot 2x3",
    ],
    ids=lambda command: command.split()[0],
)
def test_sizes_that_cannot_be_read_are_one_line(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) == 2
    assert capsys.readouterr().err == (
        "bsdenoise: error: --blind-spot must be odd numbers of pixels from 1 to 31, height x width, such as 1, 3x3 or "
        "5x1. Received: '2x3'.\n"
    )


def test_config_files_have_it(tmp_path):
    from bsdenoise.cli import config_file

    (tmp_path / "a.toml").write_text('blind_spot = "3x3"')
    assert config_file.read(TrainConfig, str(tmp_path / "a.toml")) == {"blind_spot": "3x3"}


def test_denoise_takes_another_one(trained, tmp_path, capsys):
    noisy = np.random.default_rng(0).uniform(0.2, 0.8, (40, 28, 3)).astype(np.float32)
    images.write(tmp_path / "a.npy", noisy)
    command = ["denoise", str(tmp_path / "a.npy"), "--out", str(tmp_path / "out"), "--model", str(trained)]
    assert cli.main([*command, "--blind-spot", "3x3", "--tta", "8"]) == 0
    denoiser = loading.load(trained)
    found = images.read_array(tmp_path / "out/a.npy")
    np.testing.assert_allclose(found, denoiser.with_blind_spot(3).denoise(noisy, tta=8), atol=1e-6)
    capsys.readouterr()
    assert cli.main([*command, "--overwrite", "--tta", "8"]) == 2
    assert "`tta` must be at most 4 for a blind spot that is no square" in capsys.readouterr().err
    server = [*command[:4], "--server", "http://localhost:1", "--blind-spot", "3x3"]
    assert cli.main(server) == 2
    assert "--blind-spot needs a model here" in capsys.readouterr().err


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model of a large blind spot, and images whose noise needs all of it, some, and none."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("wide")
    Denoiser(blind_spot_network(1, 4, 1, blind_spot=(3, 5)), GaussianNoise(0.1, 0.1)).save(folder / "wide.keras")
    white = np.random.default_rng(0).standard_normal((100, 100))
    (folder / "noisy").mkdir()
    kinds = {"white": white, "some": white[:, 1:] + white[:, :-1], "all": ndimage.gaussian_filter(white, 2.0)}
    for name, noise in kinds.items():
        pixels = (0.5 + 0.1 * noise[:96, :96] / noise.std())[..., None].astype(np.float32)
        images.write(folder / "noisy" / f"{name}.npy", pixels)
    return folder


@pytest.mark.parametrize("is_large", [False, True], ids=["whole", "in windows"])
def test_denoise_shrinks_it_to_what_the_noise_needs(wide, tmp_path, capsys, monkeypatch, is_large):
    monkeypatch.setattr(file_task, "STREAMED_PIXELS", 0 if is_large else 2**25)
    command = ["denoise", str(wide / "noisy"), "--out", str(tmp_path / "out"), "--model", str(wide / "wide.keras")]
    assert cli.main([*command, "--blind-spot", "auto"]) == 0
    said = capsys.readouterr().err
    denoiser = loading.load(wide / "wide.keras")
    for name, size in {"white": (1, 1), "some": (1, 3), "all": (3, 5)}.items():
        expected = denoiser.with_blind_spot(size).denoise(images.read_array(wide / "noisy" / f"{name}.npy"))
        np.testing.assert_allclose(images.read_array(tmp_path / f"out/{name}.npy"), expected, atol=1e-5)
        words = f"{name}.npy: denoised with a blind spot of {size[0]}x{size[1]}"
        assert (words in said) == (size != (3, 5))
    assert cli.main([*command, "--overwrite"]) == 0  # by default it stays that of the model
    expected = denoiser.denoise(images.read_array(wide / "noisy/white.npy"))
    np.testing.assert_allclose(images.read_array(tmp_path / "out/white.npy"), expected, atol=1e-5)


def test_a_blind_spot_of_one_pixel_cannot_shrink(wide, tmp_path):
    """Nor can that of a network that has none; what neighbours share is made white, as ever."""
    grey = Denoiser(blind_spot_network(1, 4, 1), GaussianNoise(0.02, 0.2))
    for flag in (None, "auto"):
        (done,) = denoise_files(wide / "noisy/all.npy", tmp_path / str(flag), model=grey, blind_spot=flag)
        assert done.error is None and "neighbouring pixels share its noise" in done.notes[0]
    one, other = (images.read_array(tmp_path / str(flag) / "all.npy") for flag in (None, "auto"))
    np.testing.assert_array_equal(one, other)


def test_export_takes_another_one(trained, tmp_path, monkeypatch):
    exported = []

    def export(denoiser, folder, **options):
        exported.append(denoiser.blind_spot)
        folder.mkdir(parents=True)
        (folder / "serving.json").write_text('{"signatures": []}')

    monkeypatch.setattr("bsdenoise.export.export_saved_model", export)
    for number, flags in enumerate(([], ["--blind-spot", "3"])):
        assert cli.main(["export", str(trained), "--out", str(tmp_path / str(number)), *flags]) == 0
    assert exported == [(5, 1), (3, 3)]


def test_networks_without_one_are_refused(tmp_path, config, capsys):
    from bsdenoise import unet

    Denoiser(unet(1, 2, 1, 1), GaussianNoise(0.1, 0.1), method="n2n").save(tmp_path / "plain.keras")
    images.write(tmp_path / "a.png", np.zeros((8, 8), "uint8"))
    for command in (["denoise", str(tmp_path / "a.png"), "--model"], ["export", "--out", str(tmp_path / "models")]):
        assert cli.main([*command, str(tmp_path / "plain.keras"), "--blind-spot", "3"]) == 2
        assert "Only a blind-spot network whose class has an argument" in capsys.readouterr().err
