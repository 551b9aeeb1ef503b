"""Adapting a model to noisy images: what it gains, what it keeps, and what it refuses."""

import keras
import numpy as np
import pytest
from PIL import Image

import bsdenoise
from bsdenoise import adaptation, cli
from bsdenoise.noise import ImpulseNoise
from bsdenoise.noise.correlated import LAGS, CorrelatedNoise

SIGMA = 0.1


def stripes(height=96, width=96, channels=1):
    """Make stripes that a network can learn from, (H, W, C), of intensities from 0.2 to 0.8."""
    rows, columns = np.mgrid[:height, :width]
    image = 0.5 + 0.3 * np.sign(np.sin(1.1 * columns + 0.35 * rows))
    return np.repeat(image[..., np.newaxis], channels, axis=2).astype("float32")


def noisy(image, seed=0):
    return image + np.random.default_rng(seed).normal(0, SIGMA, image.shape).astype("float32")


def error(one, other):
    return float(np.mean((one - other) ** 2))


@pytest.fixture
def denoiser(tiny_denoiser_path):
    return bsdenoise.load(tiny_denoiser_path(1, 50 / 255))


@pytest.fixture
def quick(monkeypatch):
    """Takes small crops, which small networks learn from as well."""
    for name, value in (("CROP", 32), ("BLOCK", 16), ("TESTED", 12), ("MIN_PIXELS", 1024), ("RATE", 5e-3)):
        monkeypatch.setattr(adaptation, name, value)


def test_what_repeats_itself_is_learnt(denoiser, quick, tmp_path):
    clean = stripes()
    image = noisy(clean)
    shares = []
    adapted = denoiser.adapt(image, sigma=SIGMA, steps=6, report=shares.append)
    before, after = (error(one.denoise(image, sigma=SIGMA), clean) for one in (denoiser, adapted))
    assert after < 0.9 * before
    told = adapted.provenance["adapted"]
    assert (told["steps"], told["share"]) == (6, 1.0)
    # The gain is measured on a part of the image.
    assert told["gain_db"] == pytest.approx(10 * np.log10(before / after), abs=1.0)
    assert shares[-1] == 1.0 and shares == sorted(shares)
    assert denoiser.provenance is None
    # It is a model like any other.
    adapted.save(tmp_path / "adapted.keras")
    loaded = bsdenoise.load(tmp_path / "adapted.keras")
    assert loaded.provenance["adapted"] == told
    np.testing.assert_array_equal(loaded.denoise(image), adapted.denoise(image))


def test_seeds_decide(denoiser, quick):
    image = noisy(stripes())
    once, again, other = (
        denoiser.denoise(image, sigma=SIGMA, adapt=2),
        *(denoiser.adapt(image, sigma=SIGMA, steps=2, seed=seed).denoise(image, sigma=SIGMA) for seed in (0, 1)),
    )
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_an_adapter_begins_anew_each_time(denoiser, quick):
    adapter = adaptation.Adapter(denoiser)
    shown = denoiser.as_shown(noisy(stripes()), sigma=SIGMA)
    first, second = (adapter.adapted(shown, steps=2).weights for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("worse", "share"), [((), 1.0), ((2,), 0.5), ((2, 3), 0.0)])
def test_of_the_way_only_what_is_better_is_kept(denoiser, quick, monkeypatch, worse, share):
    ends, count = [], 0
    plain = adaptation.Adapter._risks

    def risks(self, *args):
        nonlocal count
        count += 1
        ends.append(self._network.get_weights())
        found = plain(self, *args)
        return found._replace(terms=found.terms + 10.0) if count in worse else found

    monkeypatch.setattr(adaptation.Adapter, "_risks", risks)
    found = adaptation.Adapter(denoiser).adapted(denoiser.as_shown(noisy(stripes()), sigma=SIGMA), steps=2)
    assert (found.steps, found.share) == (2, share)
    assert (found.gain > 0) == (share > 0)
    for start, end, kept in zip(ends[0], ends[1], found.weights, strict=True):
        np.testing.assert_allclose(kept, start + share * (end - start), atol=1e-6)


def test_gains_are_those_of_the_image_as_it_is(quick):
    """Where noise grows with the signal, an error of a bright pixel is worth more than what the network is shown."""
    model, theta = model_of("stabilized")
    (shown,) = model.as_shown(stripes(), noise=theta)
    dark, bright = (np.full((1, 1, 1), shown.pixels[stripes() == level].mean(), "float32") for level in (0.2, 0.8))
    step = np.float32(1e-3)
    for level in (dark, bright):
        ends = (shown.fit.undone([(level + change)[np.newaxis]])[0] for change in (-step, step))
        slope = np.subtract(*ends)[0] / (2 * step)
        np.testing.assert_allclose(shown.worth(level), slope**2, rtol=1e-2)
    assert shown.worth(bright) > 2 * shown.worth(dark)


def test_held_out_pixels_are_no_targets(denoiser, quick, monkeypatch):
    """Of an eighth of the pixels the loss knows nothing, so their estimates stay unbiased."""
    seen = []
    plain = adaptation.Adapter._batch

    def watched(self, *args):
        seen.append(plain(self, *args))
        return seen[-1]

    monkeypatch.setattr(adaptation.Adapter, "_batch", watched)
    monkeypatch.setattr(keras.Model, "train_on_batch", lambda *_: None)
    image = noisy(stripes())
    image[5:9, 20:30] = np.nan
    (shown,) = denoiser.as_shown(image, sigma=SIGMA)
    adaptation.Adapter(denoiser).adapted([shown], steps=60)
    targets = {value for _, target in seen for value in target[..., 0].ravel() if np.isfinite(value)}
    is_target = np.isin(shown.pixels[..., 0], [*targets])
    assert not is_target[5:9, 20:30].any()
    held_out = ~is_target & np.isfinite(image[..., 0])
    blocks = held_out.reshape(6, 16, 6, 16).all(axis=(1, 3))
    assert 4 <= blocks.sum() <= 6
    assert all(np.isfinite(pixels).all() for pixels, _ in seen)


def model_of(kind):
    """Make a small model of some method and kind of noise, and give the noise of its images, if it is to be told."""
    keras.utils.set_random_seed(0)

    def network(outputs, channels=1):
        return bsdenoise.network.BlindSpotUNet(channels, 4, 2, outputs)

    white = bsdenoise.GaussianNoise(0.05, 0.2)
    if kind == "per_component":
        return bsdenoise.Denoiser(network(6, 3), white, kind), [0.1]
    if kind == "l2":
        return bsdenoise.Denoiser(network(1), white, kind), None
    if kind == "stabilized":
        return bsdenoise.Denoiser(network(2), white).stabilized(), [0.01, 0.05, 0.0]
    known = {
        "detector": bsdenoise.PoissonGaussianNoise((0.005, 0.005), (0.09, 0.09), (0.0, 0.0)),
        "impulse": ImpulseNoise((0.2, 0.2)),
        "estimated": white,
    }
    return bsdenoise.Denoiser(network(2), known[kind]), None


@pytest.mark.parametrize("kind", ["per_component", "l2", "stabilized", "detector", "impulse", "estimated"])
def test_methods_and_kinds_of_noise(kind, quick):
    model, theta = model_of(kind)
    clean = stripes(channels=model.channels)
    image = noisy(clean)
    adapted = model.adapt(image, noise=theta, steps=4)
    assert adapted.provenance["adapted"]["share"] > 0
    assert error(adapted.denoise(image, noise=theta), clean) < error(model.denoise(image, noise=theta), clean)


def test_correlated_noise_is_made_white_before(denoiser, quick):
    covariance = np.zeros((2 * LAGS + 1, 2 * LAGS + 1, 1))
    covariance[LAGS, LAGS], covariance[LAGS, LAGS + 1], covariance[LAGS, LAGS - 1] = 0.01, 0.005, 0.005
    one = denoiser.as_shown(stripes(), noise=CorrelatedNoise(covariance))
    assert len(one) == 2
    np.testing.assert_allclose(one[0].theta, one[1].theta)
    np.testing.assert_allclose((one[0].pixels + one[1].pixels) / 2, stripes(), atol=1e-5)
    adapted = denoiser.adapt([stripes()], noise=[CorrelatedNoise(covariance)], steps=1)
    assert adapted.provenance["adapted"]["steps"] == 1


def test_images_of_any_sizes(denoiser, quick):
    images = [noisy(stripes(40, 90)), noisy(stripes(64, 33))[..., 0], np.full((8, 8), 0.5, "float32")]
    shown = denoiser.as_shown(images, sigma=[SIGMA, 0.15, 0.12])
    np.testing.assert_allclose([one.theta[0] for one in shown], [SIGMA, 0.15, 0.12], rtol=1e-6)
    assert denoiser.adapt(images, sigma=[SIGMA, 0.15, 0.12], steps=1).provenance["adapted"]["steps"] == 1
    assert denoiser.adapt([noisy(stripes(20, 90))], sigma=SIGMA, steps=1).provenance["adapted"]["steps"] == 1


def test_time_ends_the_steps(denoiser, quick):
    told = denoiser.adapt(noisy(stripes()), sigma=SIGMA, steps=None, seconds=1e-9).provenance["adapted"]
    assert told["steps"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"seconds": -1.0}, "seconds"),
        ({"sigma": 3.0}, "sigma"),
        ({"noise": [0.1, 0.1]}, "noise"),
    ],
)
def test_what_cannot_be_done_is_refused(denoiser, quick, options, words):
    with pytest.raises(ValueError, match=words):
        denoiser.adapt(noisy(stripes()), **options)


def test_images_that_are_too_small_are_refused(denoiser):
    with pytest.raises(ValueError, match="4096 pixels"):
        denoiser.adapt(noisy(stripes(30, 40)), sigma=SIGMA)


def test_networks_that_see_the_pixel_are_refused():
    model = bsdenoise.Denoiser(bsdenoise.unet(1, 4, 2, 1), bsdenoise.GaussianNoise(0.1, 0.1), "n2n")
    with pytest.raises(ValueError, match="n2n"):
        model.adapt(noisy(stripes()))


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for seed, name in enumerate("ab"):
        pixels = np.rint(255 * noisy(stripes(), seed)).clip(0, 255).astype("uint8")
        Image.fromarray(pixels[..., 0]).save(tmp_path / f"in/{name}.png")
    (tmp_path / "in/broken.png").write_bytes(b"")
    return tmp_path


def test_files_are_adapted_to_one_by_one(folder, denoiser, quick):
    lines = []
    results = bsdenoise.denoise_files(
        folder / "in", folder / "out", model=denoiser, sigma=25, adapt="each", adapt_steps=4, say=lines.append
    )
    assert [result.error is None for result in results] == [True, True, False]
    assert not results[2].notes  # its error says all
    assert all("adapted: 4 steps" in " ".join(result.notes) for result in results[:2]) and lines == []
    noisy_image = np.asarray(Image.open(folder / "in/b.png"))
    expected = denoiser.denoise(noisy_image, sigma=25 / 255, adapt=4)
    np.testing.assert_allclose(np.asarray(Image.open(folder / "out/b.png")) / 255, expected.clip(0, 1), atol=0.6 / 255)


def test_the_command_adapts_to_all_files_together(folder, tiny_denoiser_path, quick, capsys):
    flags = ["--model", tiny_denoiser_path(1, 50 / 255), "--adapt", "all", "--adapt-steps", 2]
    assert cli.main(["denoise", *map(str, [folder / "in", "--out", folder / "out", *flags])]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "adapted" in line] == [line for line in lines if "2 steps" in line] != []
    assert len([line for line in lines if "2 steps" in line]) == 1
    assert sorted(path.name for path in (folder / "out").glob("*.png")) == ["a.png", "b.png"]


def test_files_too_small_to_learn_from_are_denoised_as_they_are(tmp_path, denoiser):
    Image.new("L", (20, 20), 99).save(tmp_path / "a.png")
    (result,) = bsdenoise.denoise_files(tmp_path / "a.png", model=denoiser, sigma=25, adapt="each")
    assert result.error is None and "not adapted" in " ".join(result.notes)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--adapt", "each", "--server", "http://127.0.0.1:1"], "--adapt needs a model here"),
        (["--adapt-steps", "3"], "--adapt each"),
        (["--adapt", "all", "--blind-spot", "auto"], "--blind-spot"),
        (["--adapt", "each", "--adapt-seconds", "0"], "--adapt-seconds"),
    ],
)
def test_flags_that_do_not_go_together(folder, capsys, flags, words):
    assert cli.main(["denoise", str(folder / "in/a.png"), "--out", str(folder / "out.png"), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
