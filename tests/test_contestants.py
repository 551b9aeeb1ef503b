"""What is measured, behind one face."""

import hashlib

import keras
import numpy as np
import pytest

from bsdenoise import methods
from bsdenoise.denoiser import Denoiser
from bsdenoise.evaluation import bm3d, contestants
from bsdenoise.evaluation.cases import Case, Told
from bsdenoise.noise import GaussianNoise

SIGMA = 25 / 255
POSTERIOR, STEIN, PLAIN = ("full", "per_component"), ("l2",), ("n2n", "n2c", "n2v")


def told(sigma):
    return Told("gaussian", (sigma,))


def make_denoiser(name="full", channels=3, high=SIGMA, **settings):
    keras.utils.set_random_seed(1)
    network = methods.get(name).network(channels, width=4, depth=1)
    return Denoiser(network, GaussianNoise(SIGMA, high), method=name, **settings)


@pytest.fixture(scope="module")
def models():
    """One contestant of each method."""
    return {name: contestants.Model(name, None, make_denoiser(name)) for name in methods.names()[:6]}


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    return (0.5 + SIGMA * rng.standard_normal((14, 12, 3))).astype("float32")


@pytest.mark.parametrize("name", POSTERIOR)
def test_models_with_a_posterior_say_it_all(name, models, noisy):
    estimate = models[name].estimate(noisy, told(0.1), None)
    post = models[name].denoiser.posterior(noisy, sigma=0.1)
    for attribute in ("denoised", "mean", "std", "estimated_psnr"):
        np.testing.assert_array_equal(getattr(estimate, attribute), getattr(post, attribute))
    assert estimate.sigma == 0.1


@pytest.mark.parametrize("sigma, used", [(0.1, 0.1), (None, SIGMA)], ids=["told", "own"])
def test_a_blind_prediction_has_steins_estimate(sigma, used, models, noisy):
    estimate = models["l2"].estimate(noisy, sigma and told(sigma), None)
    np.testing.assert_array_equal(estimate.denoised, models["l2"].denoiser.denoise(noisy))
    assert estimate.mean is estimate.denoised
    assert estimate.std is None
    mse = np.mean((estimate.denoised.astype("float64") - noisy) ** 2) - used**2
    assert mse > 0
    assert estimate.estimated_psnr == pytest.approx(-10 * np.log10(mse), abs=1e-3)
    assert estimate.sigma == pytest.approx(used)


def test_steins_estimate_is_for_the_models_own_scale(noisy):
    scale, offset = 200.0, 50.0
    small = contestants.Model("small", None, make_denoiser("l2"))
    large = contestants.Model("large", None, make_denoiser("l2", scale=scale, offset=offset, fractional=False))
    assert (small.scale, large.scale) == (1.0, scale)
    estimate = large.estimate(noisy * scale + offset, told(0.1 * scale), None)
    expected = small.estimate(noisy, told(0.1), None).estimated_psnr
    assert estimate.estimated_psnr == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", PLAIN)
def test_other_models_only_denoise(name, models, noisy):
    estimate = models[name].estimate(noisy, told(0.1), None)
    np.testing.assert_array_equal(estimate.denoised, models[name].denoiser.denoise(noisy))
    assert estimate[1:] == (None, None, None, None, None, ())


@pytest.mark.parametrize("name", POSTERIOR + STEIN)
def test_no_psnr_is_estimated_from_an_estimated_sigma(name, noisy):
    model = contestants.Model(name, None, make_denoiser(name, high=50 / 255))
    estimate = model.estimate(noisy, None, None)
    assert estimate.estimated_psnr is None
    assert estimate.sigma == pytest.approx(float(model.denoiser.own_sigma(noisy[None])[0]))
    assert model.estimate(noisy, told(0.1), None).estimated_psnr is not None


@pytest.mark.parametrize("name", methods.names()[:6])
def test_a_sigma_that_makes_no_sense_is_refused_by_all(name, models, noisy):
    with pytest.raises(ValueError, match="sigma"):
        models[name].estimate(noisy, told(-0.1), None)


@pytest.mark.parametrize("fractional, levels, kind", [(True, None, "integer"), (False, 255, "float")])
def test_images_in_other_units_than_the_models(fractional, levels, kind, noisy):
    model = contestants.Model("x", None, make_denoiser(fractional=fractional))
    model.check(Case(noisy, noisy, told(SIGMA), 255 if fractional else None))
    with pytest.raises(ValueError, match=f"the model takes {kind} images: its units are "):
        model.check(Case(noisy, noisy, told(SIGMA), levels))


class FakeFilter:
    """Stands for BM3D."""

    workers = 1

    def denoise(self, noisy, sigma, label):
        return bm3d.Result(noisy * sigma, 7.0, (label,))

    def digest(self):
        return "abc"


def test_bm3d(noisy):
    contestant = contestants.Bm3d("bm3d", 3, FakeFilter())
    estimate = contestant.estimate(noisy, told(0.5), None, "kodak/a.png")
    np.testing.assert_array_equal(estimate.denoised, noisy * 0.5)
    assert estimate[1:] == (None, None, None, 0.5, 7.0, ("kodak/a.png",))
    assert (contestant.method, contestant.training) == ("bm3d", None)
    assert contestant.digest() != contestants.Bm3d("bm3d", 1, FakeFilter()).digest()
    assert contestant.protocol == "not trained, told sigma"


def test_bm3d_must_be_told_sigma(noisy):
    with pytest.raises(ValueError, match="BM3D must be told the noise level.*--sigma"):
        contestants.Bm3d("bm3d", 3, FakeFilter()).estimate(noisy, None, None)


FRESH = {"corrupt": "fresh", "crops": 8000, "crop": 80, "images": 400}
WORDS = {
    "full": (FRESH, "trained on noisy images only, noise fresh at each visit (8,000 crops of 80×80 from 400 images)"),
    "l2": (
        {"corrupt": "fixed", "crops": 20},
        "trained on noisy images only, one fixed realisation of each image (20 crops)",
    ),
    "n2v": ({"corrupt": None, "images": 3}, "trained on noisy images only, which were noisy already (3 images)"),
    "n2n": ({"corrupt": "fixed"}, "trained on pairs of noisy copies, two fixed realisations of each image"),
    "n2c": ({"corrupt": "fresh"}, "trained with clean targets, noise fresh at each visit"),
    "continued": (
        FRESH | {"started_from": FRESH | {"crops": 500, "crop": 64, "images": 410, "started_from": None}},
        "trained on noisy images only, noise fresh at each visit (8,500 crops of 64×64 to 80×80 from 410 images)",
    ),
    "continued on others": (
        {"corrupt": None, "crops": 20, "started_from": FRESH},
        "trained on noisy images only, which were noisy already (20 crops); before that: trained on noisy images only, "
        "noise fresh at each visit (8,000 crops of 80×80 from 400 images)",
    ),
    "begun with a stranger": (
        {"corrupt": "fresh", "started_from": {}},
        "trained on noisy images only, noise fresh at each visit; "
        "before that: the file does not say how it was trained",
    ),
    "per_component": (None, "the file does not say how it was trained"),
}
PAIRED = {"corrupt": None, "pairs": True}


@pytest.mark.parametrize(
    ("name", "words"),
    [("n2n", "trained on pairs of noisy copies, real pairs"), ("n2c", "trained with clean targets, real pairs")],
)
def test_training_on_real_pairs_in_words(name, words):
    assert contestants.training_in_words(methods.get(name), PAIRED) == words


@pytest.mark.parametrize("name", WORDS)
def test_how_it_was_trained(name):
    training, words = WORDS[name]
    method = methods.get(name if name in methods.names() else "full")
    assert contestants.training_in_words(method, training) == words


def test_old_files_say_less():
    assert (
        contestants.training_in_words(methods.get("full"), {"images": 4}) == "trained on noisy images only (4 images)"
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A place with two models' files, and something quick for BM3D."""
    for name in ("a.keras", "x/run/denoiser.keras", "y/run/denoiser.keras", "bm3d.keras"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(contestants.bm3d, "Bm3d", lambda cache: FakeFilter())
    return tmp_path


def open_in(folder, paths, methods_=(), channels=None, **settings):
    """Opens models that are not read: their number of channels is told by their file's name, or is three."""
    load = lambda path: make_denoiser(channels=(channels or {}).get(path.name, 3))  # noqa: E731
    return contestants.open_contestants([folder / path for path in paths], methods_, None, load, **settings)


def test_models_come_first_and_bm3d_has_their_channels(folder):
    model, other = open_in(folder, ["x/run"], ["bm3d"], {"run": 1})
    assert (model.name, model.method, model.channels) == ("run", "full", 1)
    assert model.path == folder / "x/run/denoiser.keras"
    assert model.digest() == hashlib.sha256(b"x/run/denoiser.keras").hexdigest()[:16]
    assert (other.name, other.method, other.channels) == ("bm3d", "bm3d", 1)


def test_bm3d_beside_grey_and_colour_models(folder):
    found = open_in(folder, ["x/run", "a.keras"], ["bm3d"], {"run": 1})
    assert [(one.name, one.channels) for one in found[2:]] == [("bm3d, 1 channel", 1), ("bm3d, 3 channels", 3)]


def test_bm3d_alone_has_the_channels_that_are_asked_for(folder):
    assert [one.channels for one in open_in(folder, [], ["bm3d"], channels=None)] == [3]
    with pytest.raises(ValueError, match="Received: 2 channels"):
        contestants.open_contestants([], ["bm3d"], None, None, 2)


@pytest.mark.parametrize(
    "paths, methods_, names",
    [
        (["a.keras", "x/run"], [], ["a", "run"]),
        (["x/run", "y/run"], [], ["{}/x/run", "{}/y/run"]),
        (["bm3d.keras"], ["bm3d"], ["{}/bm3d.keras", "bm3d"]),
    ],
    ids=["short", "same", "like_a_method"],
)
def test_names_are_unique(paths, methods_, names, folder):
    assert [one.name for one in open_in(folder, paths, methods_)] == [name.format(folder) for name in names]


@pytest.mark.parametrize(
    "paths, methods_, message",
    [
        ([], [], "Expected at least one --model, or --methods bm3d"),
        (["a.keras"], ["bm4d"], "--methods takes what needs no training: bm3d. Trained .* by --model. Received: bm4d"),
        ([], ["bm3d", "bm3d"], "--methods names a method twice"),
        (["a.keras", "a.keras"], [], "A --model is given twice"),
    ],
    ids=["nothing", "unknown", "method_twice", "model_twice"],
)
def test_mistakes(paths, methods_, message, folder):
    with pytest.raises(ValueError, match=message):
        open_in(folder, paths, methods_)
