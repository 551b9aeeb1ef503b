"""Clients of models that only denoise (l2, n2n, n2c, n2v): through `serving_default` and `encoded`, σ is never sent."""

import io

import numpy as np
import pytest
from fake_server import DESCRIPTION, ONLY_DENOISES, SERVERS, FakeModel, halved
from PIL import Image

from bsdenoise import client, images
from bsdenoise.client.description import Described, ServedMethod

BOTH = pytest.mark.parametrize("protocol", SERVERS)
SIGMAS = pytest.mark.parametrize("sigma", [None, 0.2], ids=["none", "given"])
RNG = np.random.default_rng(0)
FLOATS = RNG.uniform(0, 1, (5, 7, 3)).astype("float32")
SMALL_LIMIT = {"limits": DESCRIPTION["limits"] | {"max_pixels": 256}}


@pytest.fixture
def serve(protocol):
    """A function from changes of the description to a model and a client of it."""
    opened = []

    def start(**changes):
        model = FakeModel(**ONLY_DENOISES | changes)
        server = SERVERS[protocol](model)
        connected = client.connect(server.__enter__())
        opened.append((server, connected))
        assert not connected.has_posterior
        model.calls.clear()
        return model, connected

    yield start
    for server, connected in opened:
        connected.close()
        server.__exit__(None, None, None)


def called(model):
    """Each signature that was called, with the names of what was sent."""
    return {(name, *sent) for name, sent in model.calls}


def pixels(shape=(5, 7, 3)):
    return RNG.integers(0, 256, shape, np.uint8)


def halved_pixels(noisy):
    """The fake model's answer to 8 bits: half, and an eighth of its own σ, 0.1."""
    return np.floor((noisy / 255 / 2 + 0.0125) * 255 + 0.5)


# --- what the model is ---------------------------------------------------------------------------------------------


def test_the_method_is_told_as_a_denoiser_tells_it():
    with SERVERS["rest"](FakeModel(**ONLY_DENOISES)) as url, client.connect(url) as connected:
        assert connected.method == ServedMethod("n2n", has_posterior=False)
        assert (connected.method.name, connected.has_posterior) == ("n2n", False)
    with SERVERS["rest"](FakeModel(method="per_component")) as url, client.connect(url) as connected:
        assert (connected.method.name, connected.has_posterior) == ("per_component", True)


def test_descriptions_from_before_there_were_methods():
    assert "method" not in DESCRIPTION
    assert Described(DESCRIPTION).method == ServedMethod("full", has_posterior=True)


# --- arrays --------------------------------------------------------------------------------------------------------


@BOTH
@SIGMAS
@pytest.mark.parametrize("shape", [(5, 7, 3), (4, 5, 7, 3)], ids=str)
def test_sigma_is_not_sent(serve, shape, sigma):
    model, connected = serve()
    noisy = np.broadcast_to(FLOATS, shape)
    np.testing.assert_allclose(connected.denoise(noisy, sigma), noisy / 2 + 0.0125, rtol=1e-6)
    assert called(model) == {("serving_default", "image")}


@BOTH
@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (0.0, "`sigma` must be positive"),
        (25.0, "`sigma` must be at most 1"),
        ([0.1, 0.2], "`sigma` must be a number or one per image"),
    ],
    ids=["zero", "units", "two"],
)
def test_sigma_is_checked_all_the_same(serve, sigma, message):
    model, connected = serve()
    with pytest.raises(ValueError, match=message):
        connected.denoise(FLOATS, sigma)
    with pytest.raises(ValueError, match=message):
        connected.denoise_bytes(file_of(pixels()), sigma)
    assert model.calls == []


@pytest.mark.parametrize("protocol", ["rest"])
@SIGMAS
def test_integers_travel_as_files_over_rest(serve, sigma):
    model, connected = serve()
    noisy = pixels()
    np.testing.assert_allclose(connected.denoise(noisy, sigma) * 255, halved_pixels(noisy), rtol=1e-5)
    assert called(model) == {("encoded", "image_bytes")}


@BOTH
@SIGMAS
@pytest.mark.parametrize("kind", ["integers", "floats"])
def test_tiles_need_no_sigma_of_the_whole(serve, sigma, kind):
    model, connected = serve(**SMALL_LIMIT)
    noisy = pixels((40, 20, 3)) if kind == "integers" else RNG.uniform(0, 1, (40, 20, 3))
    denoised = connected.denoise(noisy, sigma)
    scaled = noisy / 255 if kind == "integers" else noisy
    np.testing.assert_allclose(denoised, scaled / 2 + 0.0125, atol=0.51 / 255 if kind == "integers" else 1e-6)
    assert len(model.calls) > 4
    assert {name for name, *_ in called(model)} <= {"encoded", "serving_default"}
    assert not any("sigma" in sent for _, sent in model.calls)


@BOTH
def test_batches_beyond_the_limit(serve):
    model, connected = serve(**SMALL_LIMIT)
    batch = RNG.uniform(0, 1, (5, 8, 12, 3)).astype("float32")
    np.testing.assert_allclose(connected.denoise(batch), batch / 2 + 0.0125, rtol=1e-6)
    assert [sent["image"][0] for _, sent in model.calls] == [2, 2, 1]


@BOTH
@SIGMAS
def test_many(serve, sigma):
    model, connected = serve()
    outcomes = list(connected.denoise_many([FLOATS, np.zeros(3), FLOATS[:3]], sigma, concurrency=2))
    assert isinstance(outcomes[1].error, ValueError)
    for index, noisy in ((0, FLOATS), (2, FLOATS[:3])):
        np.testing.assert_allclose(outcomes[index].denoised, noisy / 2 + 0.0125, rtol=1e-6)
    assert called(model) == {("serving_default", "image")}


# --- what it cannot tell -------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model: model.posterior(FLOATS), "A model of method 'n2n' has no posterior: it only denoises."),
        (lambda model: model.posterior(FLOATS, 0.1), "A model of method 'n2n' has no posterior: it only denoises."),
        (
            lambda model: model.own_sigma(FLOATS),
            "A model of method 'n2n' does not use `sigma`: it has none of its own.",
        ),
    ],
    ids=["posterior", "posterior of a sigma", "own sigma"],
)
def test_what_it_does_not_know_is_refused_before_anything_is_sent(serve, ask, message):
    model, connected = serve()
    with pytest.raises(ValueError) as caught:
        ask(connected)
    assert str(caught.value) == message
    assert model.calls == []


# --- files ---------------------------------------------------------------------------------------------------------


def file_of(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@BOTH
@SIGMAS
def test_the_bytes_of_a_file(serve, sigma):
    model, connected = serve()
    data = file_of(pixels())
    assert connected.denoise_bytes(data, sigma) == halved(data, 0.1)
    assert called(model) == {("encoded", "image_bytes")}


@BOTH
def test_the_bytes_of_a_file_beyond_the_limit(serve):
    model, connected = serve(**SMALL_LIMIT)
    noisy = pixels((40, 20, 3))
    denoised = np.asarray(Image.open(io.BytesIO(connected.denoise_bytes(file_of(noisy), 0.2))))
    np.testing.assert_array_equal(denoised, halved_pixels(noisy))
    assert len(model.calls) > 4


@pytest.mark.parametrize("protocol", ["rest"])
def test_without_encoded_all_travels_as_floats(serve):
    """As for a model of two channels, or of float images."""
    model, connected = serve(signatures=["serving_default", "describe"])
    noisy = pixels()
    denoised = np.asarray(Image.open(io.BytesIO(connected.denoise_bytes(file_of(noisy)))))
    np.testing.assert_array_equal(denoised, halved_pixels(noisy))
    assert called(model) == {("serving_default", "image")}


@BOTH
@SIGMAS
def test_files(serve, tmp_path, sigma):
    """A grey model takes each colour of a file by itself."""
    model, connected = serve(channels=1)
    noisy = pixels()
    images.write(tmp_path / "a.png", noisy)
    connected.denoise_file(tmp_path / "a.png", tmp_path / "b.png", sigma)
    np.testing.assert_array_equal(images.read_array(tmp_path / "b.png"), halved_pixels(noisy))
    assert len(model.calls) == 3 and not any("sigma" in sent for _, sent in model.calls)
