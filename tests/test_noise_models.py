"""A kind of noise that the package does not know: σ of each channel by itself. All that is there must work with it."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_runs

import bsdenoise
from bsdenoise import cli, client, export, images, loading, noise
from bsdenoise.config import TrainConfig
from bsdenoise.noise import registry
from bsdenoise.server.run import LocalServer
from bsdenoise.training.loop import train

LEAST, GREATEST = (5 / 255, 20 / 255, 40 / 255), (10 / 255, 30 / 255, 60 / 255)
TOLD = np.array([0.02, 0.1, 0.2], np.float32)
NAMES = ("sigma_red", "sigma_green", "sigma_blue")


def documented():
    """The class of docs/noise-models.md; registered for the tests of this module only."""
    text = (Path(__file__).parent.parent / "docs" / "noise-models.md").read_text()
    (code,) = re.findall(r"```python\n# channel_noise.py\n(.*?)```", text, re.DOTALL)
    module, before = ModuleType("channel_noise"), dict(registry._KINDS)
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    registry._KINDS = before
    return module.ChannelNoise


ChannelNoise = documented()


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    noise.register(ChannelNoise)


@pytest.fixture(scope="module")
def clean():
    rows, columns = np.mgrid[:48, :52] / 52
    return np.stack([0.5 + 0.3 * np.sin(7 * rows + 5 * columns * number) for number in (1, 2, 3)], -1).astype("float32")


@pytest.fixture
def denoiser():
    keras.utils.set_random_seed(0)
    return bsdenoise.Denoiser(bsdenoise.blind_spot_network(width=4, depth=1), ChannelNoise(LEAST, GREATEST))


def noisy_of(clean, seed=0):
    return clean + TOLD * np.random.default_rng(seed).standard_normal(clean.shape).astype("float32")


def test_posterior_is_that_of_its_variances(denoiser, clean):
    """Pixel by pixel with plain matrices, x̂ = x̃ − N (Σ_p + N)⁻¹ (x̃ − μ)."""
    noisy = noisy_of(clean)
    outputs = np.asarray(denoiser.network(noisy[None]))[0].astype(float)
    found = denoiser.posterior(noisy, noise=TOLD)
    factor = np.zeros((*noisy.shape[:2], 3, 3))
    factor[..., *np.tril_indices(3)] = outputs[..., 3:]
    factor += 0.1 * np.eye(3)
    own = np.diag(np.square(TOLD.astype(float)))
    gain = own @ np.linalg.inv(factor @ np.swapaxes(factor, -1, -2) + own)
    expected = noisy - np.einsum("hwij,hwj->hwi", gain, noisy - outputs[..., :3])
    np.testing.assert_allclose(found.denoised, expected, atol=2e-5)
    variance = np.einsum("hwij,jk->hwik", np.eye(3) - gain, own)
    np.testing.assert_allclose(found.std, np.sqrt(np.diagonal(variance, axis1=-2, axis2=-1)), atol=2e-5)
    assert found.sigma is None
    np.testing.assert_array_equal(found.noise, TOLD)
    # Stein's estimate, by a loop over channels.
    error = np.mean([
        np.mean(np.square(expected - noisy)[..., c] - own[c, c] + 2 * variance[..., c, c]) for c in range(3)
    ])  # fmt: skip
    assert (
        np.isnan(found.estimated_psnr) if error <= 0 else found.estimated_psnr == pytest.approx(-10 * np.log10(error))
    )


def test_likelihood_is_that_of_its_variances(clean):
    noisy = noisy_of(clean)[None]
    outputs = 0.3 * np.random.default_rng(1).standard_normal((1, 48, 52, 9)).astype("float32")
    target = np.concatenate([noisy, np.broadcast_to(TOLD, noisy.shape)], axis=-1)
    loss = bsdenoise.losses.NoiseNLL(3, ChannelNoise(LEAST, GREATEST))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    factor = np.zeros((48, 52, 3, 3))
    factor[..., *np.tril_indices(3)] = outputs[0, ..., 3:]
    factor += 0.1 * np.eye(3)
    covariance = factor @ np.swapaxes(factor, -1, -2) + np.diag(np.square(TOLD.astype(float)))
    residual = noisy[0] - outputs[0, ..., :3].astype(float)
    expected = 0.5 * np.einsum("hwi,hwij,hwj->hw", residual, np.linalg.inv(covariance), residual)
    expected += 0.5 * np.linalg.slogdet(covariance)[1]
    for one in (loss, again):
        np.testing.assert_allclose(np.asarray(one.call(target, outputs))[0], expected, rtol=1e-4, atol=1e-4)


def test_noise_is_told_in_the_units_of_the_model(clean):
    keras.utils.set_random_seed(0)
    network = bsdenoise.blind_spot_network(width=4, depth=2)
    plain = bsdenoise.Denoiser(network, ChannelNoise(LEAST, GREATEST))
    scaled = bsdenoise.Denoiser(network, ChannelNoise(LEAST, GREATEST), offset=100.0, scale=400.0, fractional=False)
    noisy = noisy_of(clean)
    expected = plain.posterior(noisy, noise=TOLD)
    found = scaled.posterior(100.0 + 400.0 * noisy, noise=400.0 * TOLD)
    np.testing.assert_allclose((found.denoised - 100.0) / 400.0, expected.denoised, atol=1e-4)
    np.testing.assert_allclose(found.noise, 400.0 * TOLD, rtol=1e-6)
    np.testing.assert_allclose(
        scaled.own_noise(100.0 + 400.0 * noisy[None]), 400.0 * np.asarray(plain.own_noise(noisy[None])), rtol=1e-3
    )
    np.testing.assert_allclose(found.std, 400.0 * expected.std, rtol=1e-3, atol=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"sigma": 0.1},
            "channels noise, which has no `sigma`: tell its parameters, sigma_red, sigma_green, sigma_blue",
        ),
        ({"noise": [0.1, 0.2]}, r"`noise` must hold sigma_red, .*, or a row of them per image. Received: shape=\(2,\)"),
        ({"noise": [0.1, 1.5, 0.1]}, "`noise`: sigma_green must lie between 0 and 1. Received: "),
        ({"noise": [0.1, np.nan, 0.1]}, "`noise`: sigma_green must lie between 0 and 1"),
        ({"noise": TOLD, "sigma": 0.1}, "`sigma` is a short form of `noise`: give one of them"),
    ],
)
def test_refusals(denoiser, clean, options, words):
    with pytest.raises(ValueError, match=words):
        denoiser.denoise(clean, **options)


def test_own_sigma_is_refused(denoiser, clean):
    with pytest.raises(ValueError, match="which has no `sigma`"):
        denoiser.own_sigma(clean[None])


def test_saved_and_loaded(denoiser, clean, tmp_path):
    noisy = noisy_of(clean)
    denoiser.save(tmp_path / "a.keras")
    loaded = loading.load(tmp_path / "a.keras")
    assert loaded.noise == denoiser.noise and type(loaded.noise) is ChannelNoise
    np.testing.assert_array_equal(loaded.denoise(noisy), denoiser.denoise(noisy))
    np.testing.assert_array_equal(loaded.denoise(noisy, noise=TOLD), denoiser.denoise(noisy, noise=TOLD))


def test_a_file_of_noise_that_nobody_knows_says_what_to_do(denoiser, tmp_path):
    denoiser.save(tmp_path / "a.keras")
    del registry._KINDS["channels"]
    with pytest.raises(ValueError, match="kind of noise must be one of gaussian.* Received: 'channels'"):
        loading.load(tmp_path / "a.keras")


def test_tiles_windows_and_copies_are_of_the_same_noise(denoiser, clean):
    noisy = noisy_of(np.tile(clean, (2, 2, 1)))
    whole = denoiser.denoise(noisy, noise=TOLD)
    np.testing.assert_allclose(denoiser.denoise(noisy, noise=TOLD, tile=96, overlap=40), whole, atol=1e-5)
    blocks = denoiser.windows(lambda *window: noisy[window], noisy.shape, noise=TOLD, tile=96, overlap=40)
    for window, maps in blocks:
        np.testing.assert_allclose(maps[0], whole[window], atol=1e-5)
    assert denoiser.denoise(noisy, noise=TOLD, tta=2).shape == noisy.shape


def test_gaps_do_not_count(denoiser, clean):
    noisy = noisy_of(clean)
    noisy[10:20, 5:15] = np.nan
    found = denoiser.posterior(noisy)
    assert np.isnan(found.denoised[10:20, 5:15]).all() and np.isfinite(found.denoised[:10]).all()
    nothing = denoiser.posterior(np.full((3, 4, 3), np.nan, "float32"))
    assert nothing.noise.shape == (3,) and np.isnan(nothing.noise).all()


@pytest.mark.op_by_op
@pytest.mark.parametrize("corrupt", ["fresh", "fixed", None])
def test_trained_by_the_command_line(clean, tmp_path, corrupt, capsys, monkeypatch):
    training_runs.replace_export(monkeypatch)  # there is a test of it below
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        pixels = np.roll(clean, 3 * number, axis=0) if corrupt else noisy_of(clean, number)
        images.write(folder / f"{number}.png", images.from_unit(pixels, np.uint8))
    told = "channels:5,20,40-10,30,60" if corrupt else "channels:5,25,51"
    flags = [str(folder), "--out", tmp_path / "run", "--noise", told, "--images", "2", "--batch", "2", "--crop", "32"]
    flags += ["--width", "4", "--depth", "1", "--validate-every", "2", "--log-every", "1", "--validation-crop", "32"]
    flags += ["--corrupt", corrupt] if corrupt else []
    assert cli.main(["train", *map(str, flags)]) == 0
    loaded = loading.load(tmp_path / "run")
    assert type(loaded.noise) is ChannelNoise
    np.testing.assert_allclose(
        loaded.noise.least, [5 / 255, 20 / 255 if corrupt else 25 / 255, 40 / 255 if corrupt else 0.2]
    )
    facts = json.loads((tmp_path / "run/config.json").read_text())
    assert "sigma_green" in json.dumps(facts)
    assert loaded.denoise(clean).shape == clean.shape
    # and used by the command, with a map of uncertainty
    capsys.readouterr()
    assert (
        cli.main(
            [
                "denoise",
                str(folder / "0.png"),
                "--out",
                str(tmp_path / "o.png"),
                "--model",
                str(tmp_path / "run"),
                "--std",
            ]
        )
        == 0
    )
    words = capsys.readouterr().err
    assert "sigma_red" in words and "sigma_blue" in words
    assert (tmp_path / "o-std.png").exists()


def test_too_strong_noise_is_refused_in_its_own_words(clean, tmp_path):
    images.write(tmp_path / "a.png", images.from_unit(clean, np.uint8))
    config = TrainConfig(
        source=str(tmp_path / "a.png"), out=tmp_path / "run", noise="channels:5,300,7", corrupt="fresh"
    )
    with pytest.raises(ValueError, match="has a sigma_green of 300, and the images span only 255"):
        train(config)


def test_exported_and_served(denoiser, clean, tmp_path):
    export.export_saved_model(denoiser, tmp_path / "m" / "1")
    description = json.loads((tmp_path / "m/1/serving.json").read_text())
    assert [one["name"] for one in description["noise"]["parameters"]] == list(NAMES)
    assert description["noise"]["kind"] == "channels" and "sigma_low" not in description["noise"]
    assert description["signatures"] == [
        "serving_default", "with_noise", "encoded", "encoded_with_noise", "posterior", "own_noise", "describe",
    ]  # fmt: skip
    noisy = noisy_of(clean)
    expected, own = denoiser.posterior(noisy, noise=TOLD), np.asarray(denoiser.own_noise(noisy[None]))[0]
    served = tf.saved_model.load(tmp_path / "m/1").signatures
    answer = served["posterior"](image=noisy[None], noise=TOLD[None])
    for name in ("denoised", "mean", "std"):
        np.testing.assert_allclose(answer[name][0], getattr(expected, name), atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="noise: sigma_green must lie between 0 and 1"):
        served["with_noise"](image=noisy[None], noise=np.float32([[0.1, 2, 0.1]]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"of each image. Received: 2 row\(s\) for 1 image"):
        served["with_noise"](image=noisy[None], noise=np.float32([TOLD, TOLD]))
    with LocalServer({"denoiser": tmp_path / "m"}) as server:
        for address in (server.rest_url, f"grpc://{server.grpc_address}"):
            with client.connect(address) as model:
                assert model.noise.least == pytest.approx(LEAST) and not model.noise.takes_sigma
                np.testing.assert_allclose(model.denoise(noisy, noise=TOLD), expected.denoised, atol=1e-5)
                np.testing.assert_allclose(model.denoise(noisy), denoiser.denoise(noisy), atol=1e-5)
                np.testing.assert_allclose(model.own_noise(noisy), own, rtol=1e-4)
                found = model.posterior(noisy, noise=TOLD)
                np.testing.assert_allclose(found.std, expected.std, atol=1e-5)
                assert found.sigma is None
                eight_bit = images.from_unit(clean, np.uint8)
                np.testing.assert_allclose(
                    model.denoise(eight_bit, noise=TOLD).clip(0, 1),
                    denoiser.denoise(eight_bit, noise=TOLD).clip(0, 1),
                    atol=0.51 / 255,
                )
                with pytest.raises(ValueError, match="which has no `sigma`"):
                    model.denoise(noisy, sigma=0.1)
                with pytest.raises(ValueError, match="which has no `sigma`"):
                    model.own_sigma(noisy)


def test_a_spec_of_nothing_known_names_the_kinds():
    with pytest.raises(
        ValueError, match=r"A noise SPEC reads gaussian:25 .* Other kinds: .*channels.*\. Received: 'chanel:3'"
    ):
        noise.parse("chanel:3", 255)


def test_two_kinds_of_one_name_are_refused():
    class Other(ChannelNoise):
        kind = "channels"

    with pytest.raises(ValueError, match="a kind of noise of that name already"):
        noise.register(Other)
    assert noise.register(ChannelNoise) is ChannelNoise  # again


def test_evaluated(denoiser, clean, tmp_path, capsys):
    denoiser.save(tmp_path / "a.keras")
    (tmp_path / "set").mkdir()
    images.write(tmp_path / "set/a.png", images.from_unit(clean, np.uint8))
    common = ["evaluate", "--model", str(tmp_path / "a.keras"), "--data", str(tmp_path / "set")]
    assert cli.main([*common, "--noise", "channels:5,20,40"]) == 0
    assert "SURE-PSNR" in capsys.readouterr().out
    assert cli.main([*common, "--noise", "gaussian:25"]) == 2
    assert "the noise is gaussian, and the model a knows channels noise" in capsys.readouterr().err
