"""Training of a network of one's own, named on the command line or given in Python."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import own_networks
import pytest
import tensorflow as tf
import training_runs

from bsdenoise import cli, loading
from bsdenoise.training import own_network, preparation, run_folder
from bsdenoise.training.loop import train

source, full_config = training_runs.source, training_runs.full_config
quick_export = training_runs.quick_export


@pytest.fixture
def config(full_config):
    return dataclasses.replace(full_config, width=None, depth=None, method="n2c", network=own_networks.Plain)


def command(config, network):
    flags = {"out": config.out, "noise": config.noise, "corrupt": "fresh", "method": "n2c", "network": network}
    sizes = {"crop": 16, "batch": 4, "images": 24, "validate-every": 6, "log-every": 2}
    words = [word for name, value in (flags | sizes).items() for word in (f"--{name}", str(value))]
    return ["train", config.source, *words]


@pytest.mark.real_export
def test_by_its_name_from_the_command_line_to_a_saved_model(config):
    assert cli.main(command(config, "own_networks:Plain")) == 0
    denoiser = loading.load(config.out)
    assert type(denoiser.network) is own_networks.Plain
    assert json.loads((config.out / "config.json").read_text())["config"]["network"] == "own_networks:Plain"
    noisy = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32)
    denoised = denoiser.denoise(noisy, tile=24, overlap=4)
    np.testing.assert_allclose(denoised, denoiser.denoise(noisy), atol=1e-5)
    served = tf.saved_model.load(str(config.out / "export" / "1")).signatures["serving_default"]
    np.testing.assert_allclose(served(image=noisy[np.newaxis])["denoised"][0], denoised, atol=1e-5)


def test_it_goes_on_where_it_stopped(config, monkeypatch):
    whole = dataclasses.replace(config, out=config.out.with_name("whole"))
    train(whole)
    with monkeypatch.context() as interrupting:
        training_runs.stop_at(interrupting, 3)
        assert train(config).step == 3
    with pytest.raises(ValueError, match="network was 'own_networks:Plain', now None"):
        train(dataclasses.replace(config, network=None))
    assert train(dataclasses.replace(config, network="own_networks:Plain")).finished
    one, two = (training_runs.checkpointed(folder) for folder in (config.out, whole.out))
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


def test_a_blind_function_with_the_likelihood(config):
    """A function that gives a plain Keras model: loaded without its module."""
    blind = dataclasses.replace(config, method="full", network=own_networks.blind, images=8)
    assert train(blind).finished
    denoiser = loading.load(blind.out)
    assert denoiser.network.name == "own" and denoiser.network.output_shape[-1] == 9
    assert np.isfinite(denoiser.posterior(np.zeros((9, 7, 3), "uint8")).std).all()


def test_it_starts_from_a_model_of_the_same_network(config):
    train(dataclasses.replace(config, images=8))
    again = dataclasses.replace(config, out=config.out.with_name("again"), init=str(config.out), images=8)
    assert train(again).finished
    assert loading.load(again.out).provenance["started_from"] == loading.load(config.out).provenance
    other = dataclasses.replace(again, out=config.out.with_name("other"), network=other_width)
    with pytest.raises(ValueError, match="its network has other weights than that of --network"):
        train(other)


def other_width(c, n):
    return own_networks.Plain(c, n, width=5)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("nowhere:Plain", r"cannot be imported \(No module named 'nowhere'\). Expected MODULE:NAME, or the name"),
        ("own_networks:Missing", "cannot be imported .* has no attribute 'Missing'"),
        ("own_networks:", "cannot be imported"),
        (":Plain", "cannot be imported"),
        ("mine", r"there is no such network. Expected MODULE:NAME, or .* \(none installed\)"),
        ("own_networks:__doc__", "neither a class nor a function, but str"),
    ],
)
def test_wrong_names_are_one_line(config, network, message, capsys):
    with pytest.raises(ValueError, match=f"--network {network}: {message}"):
        preparation.check(dataclasses.replace(config, network=network))
    assert cli.main(command(config, network)) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "l2"}, "Method 'l2' needs a network whose output at a pixel does not depend on that pixel"),
        ({"width": 4}, "--width is for the networks of bsdenoise"),
        ({"depth": 2}, "--depth is for the networks of bsdenoise"),
        ({"precision": "bfloat16"}, "Only a network that is a subclass .* has other precisions"),
        ({"network": lambda c, n: 3}, "gave no Keras model. Received: int"),
        ({"network": lambda c, n: own_networks.Plain(c, n + 1)}, "The network must have 3 outputs .* a network with 4"),
        ({"recompute": True}, "network 'plain.*' has none"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_does_not_fit_is_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(config, **change))


def test_a_network_that_takes_a_precision_is_trained_in_it(config):
    """Ours are such, and can be named like anybody's."""
    ours = dataclasses.replace(config, method="full", network=small_of_ours, precision="bfloat16", images=8)
    assert train(ours).finished
    assert loading.load(ours.out).network.get_config()["dtype"] == "float32"


def small_of_ours(channels, num_outputs):
    from bsdenoise import blind_spot_network

    return blind_spot_network(channels, 4, 1, num_outputs)


def test_entry_points_name_networks(config, monkeypatch, tmp_path):
    point = SimpleNamespace(name="mine", load=lambda: own_networks.Plain)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] * (group == "bsdenoise.networks"))
    assert own_network.find("mine") is own_networks.Plain
    with pytest.raises(ValueError, match=r"--network yours: there is no such network. .* \(mine installed\)"):
        own_network.find("yours")


def test_files_find_the_classes_of_entry_points(config, monkeypatch):
    """In a process that has not imported their module."""
    train(dataclasses.replace(config, images=8))
    known = keras.saving.get_custom_objects()
    name = keras.saving.get_registered_name(own_networks.Plain)
    monkeypatch.delitem(known, name)
    with pytest.raises(
        ValueError,
        match="its class Plain is not known here: import the module .* entry point of the group bsdenoise.networks",
    ):
        loading.load(config.out)
    point = SimpleNamespace(name="mine", load=lambda: known.update({name: own_networks.Plain}))
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] * (group == "bsdenoise.networks"))
    assert type(loading.load(config.out).network) is own_networks.Plain


def test_what_is_remembered_is_its_name(config):
    assert run_folder.plain(config)["network"] == "own_networks:Plain"
    assert run_folder.plain(dataclasses.replace(config, network=None))["network"] is None


def test_the_example_of_the_documentation(tmp_path, source, monkeypatch):
    """As it is printed, but with a tiny training."""
    module, use = re.findall(
        r"```python\n(.*?)```", (Path(__file__).parent.parent / "docs" / "networks.md").read_text(), re.DOTALL
    )
    (tmp_path / "my_networks.py").write_text(module)
    (tmp_path / "photos").symlink_to(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert "images=8000" in use
    names = {"noisy": np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype(np.uint8)}
    exec(use.replace("images=8000", "images=8, crop=16"), names)
    assert names["denoised"].shape == (40, 30, 3)
    network = names["denoiser"].described_network()
    assert (type(network).__name__, network.is_blind, network.grid, network.reach) == ("FourStacks", True, 1, 17)
