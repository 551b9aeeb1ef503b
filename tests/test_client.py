"""The client's face: what is sent for which image, limits and tiles, many images, files."""

import io
import threading

import numpy as np
import pytest
import reference
from denoise_command import save_tiff
from fake_server import DESCRIPTION, SERVERS, FakeModel, halved
from PIL import Image

from bsdenoise import client, images

BOTH = pytest.mark.parametrize("protocol", SERVERS)
RNG = np.random.default_rng(0)
FLOATS = RNG.uniform(0, 1, (5, 7, 3)).astype("float32")
SMALL_LIMIT = {"limits": DESCRIPTION["limits"] | {"max_pixels": 256}}
KNOWN = {"noise": {"kind": "gaussian", "sigma_low": 0.1, "sigma_high": 0.1}}
GREY = {"channels": 1}


@pytest.fixture
def serve(protocol):
    """A function from changes of the description to a model and a client of it."""
    opened = []

    def start(**changes):
        model = FakeModel(**changes)
        server = SERVERS[protocol](model)
        connected = client.connect(server.__enter__())
        opened.append((server, connected))
        assert connected.channels == model.description["channels"]
        model.calls.clear()
        return model, connected

    yield start
    for server, connected in opened:
        connected.close()
        server.__exit__(None, None, None)


def signatures(model):
    return [name for name, _ in model.calls]


def pixels(dtype, shape=(5, 7, 3)):
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


# --- routes --------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 5, 7, 3), (4, 5, 7, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("sigma", [None, 0.2], ids=["own", "given"])
def test_floats_travel_as_they_are(serve, shape, dtype, sigma):
    model, connected = serve()
    noisy = RNG.uniform(-1e-3, 1, shape).astype(dtype)
    denoised = connected.denoise(noisy, sigma)
    single = noisy.astype("float32")
    # The division and the sum are exact up to one rounding: a lost digit on the wire would show.
    expected = (single / 2 + np.float32(0.1 if sigma is None else sigma) / 8).astype("float32")
    np.testing.assert_allclose(denoised, expected, rtol=3e-7)
    assert (denoised.dtype, denoised.shape) == (np.float32, shape)
    assert signatures(model) == ["serving_default" if sigma is None else "with_sigma"]


@pytest.mark.parametrize("protocol", ["rest"])
def test_every_float_survives_the_wire(serve):
    """Random bit patterns, the tiniest and the largest numbers that the model takes."""
    most = float(np.finfo(np.float32).max)
    limits = DESCRIPTION["limits"] | {"max_pixels": 10**6}
    model, connected = serve(pixels=DESCRIPTION["pixels"] | {"low": -most, "high": most}, channels=1, limits=limits)
    bits = RNG.integers(0, 2**32, 20000, np.uint32).view(np.float32)
    special = np.float32([0, -0.0, 1e-45, -1e-45, 3.4028235e38, 1 / 3, 0.1, 16777216, 0.99999994, 9.999999, 1e-4])
    noisy = np.concatenate([bits[np.isfinite(bits)], special])[None, :, None]
    seen = {}
    model.predict = lambda signature, inputs: seen.update(inputs) or {"denoised": inputs["image"]}
    np.testing.assert_array_equal(connected.denoise(noisy), noisy)
    np.testing.assert_array_equal(seen["image"][0], noisy)


@pytest.mark.parametrize("protocol", ["rest"])
@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 5, 7, 3), (5, 7)], ids=str)
@pytest.mark.parametrize("sigma", [None, 0.2], ids=["own", "given"])
def test_integers_travel_as_files_over_rest(serve, shape, sigma):
    model, connected = serve(channels=3 if shape[-1] == 3 else 1)
    noisy = pixels("uint8", shape)
    denoised = connected.denoise(noisy, sigma)
    expected = np.floor((noisy / 255 / 2 + (0.1 if sigma is None else sigma) / 8) * 255 + 0.5) / 255
    np.testing.assert_allclose(denoised, expected, rtol=1e-6)  # rounded to 8 bits
    assert denoised.dtype == np.float32
    count = 2 if len(shape) == 4 else 1
    assert signatures(model) == ["encoded" if sigma is None else "encoded_with_sigma"] * count


@BOTH
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_integers_of_other_channels_travel_as_floats(serve, dtype):
    model, connected = serve(channels=2, signatures=["serving_default", "with_sigma", "describe"])
    noisy = pixels(dtype, (5, 7, 2))
    np.testing.assert_allclose(connected.denoise(noisy), noisy / np.iinfo(dtype).max / 2 + 0.0125, rtol=1e-5)
    assert signatures(model) == ["serving_default"]


@BOTH
def test_one_sigma_per_image(serve):
    _, connected = serve()
    batch = np.stack([FLOATS] * 3)
    denoised = connected.denoise(batch, [0.1, 0.2, 0.4])
    np.testing.assert_allclose((denoised - batch / 2)[:, 0, 0, 0] * 8, [0.1, 0.2, 0.4], rtol=1e-5)


# --- what is refused before it is sent -----------------------------------------------------------------------------

BAD_INPUT = {
    "32-bit integers": (np.zeros((5, 7, 3), "int32"), None),
    "text": (np.full((5, 7, 3), "a"), None),
    "rank": (np.zeros(3), None),
    "grey": (np.zeros((5, 7)), None),
    "channels": (np.zeros((5, 7, 4), "uint8"), None),
    "empty": (np.zeros((0, 7, 3)), None),
    "empty batch": (np.zeros((0, 5, 7, 3)), None),
    "infinite": (np.full((5, 7, 3), np.inf), None),
    "overflow": (np.full((5, 7, 3), 1e300), None),
    "units": (np.full((5, 7, 3), 300.0), None),
    "sigma of zero": (FLOATS, 0.0),
    "sigma of nan": (FLOATS, float("nan")),
    "sigma above one": (FLOATS, 25.0),
    "two sigmas": (FLOATS, [0.1, 0.2]),
}


@pytest.fixture(scope="module")
def local_denoiser():
    from bsdenoise.denoiser import Denoiser
    from bsdenoise.network import blind_spot_network
    from bsdenoise.noise import GaussianNoise

    return Denoiser(blind_spot_network(channels=3, width=4, depth=1), GaussianNoise(0.05, 0.2))


@pytest.mark.parametrize("protocol", ["rest"])
@pytest.mark.parametrize(("noisy", "sigma"), BAD_INPUT.values(), ids=BAD_INPUT)
@pytest.mark.parametrize("method", ["denoise", "posterior"])
def test_bad_input_is_refused_as_the_denoiser_does_it(serve, local_denoiser, noisy, sigma, method):
    pixels = DESCRIPTION["pixels"] | {"units": local_denoiser.units}
    model, connected = serve(pixels=pixels)
    with pytest.raises(ValueError) as expected:
        getattr(local_denoiser, method)(noisy, sigma=sigma)
    with pytest.raises(ValueError) as caught:
        getattr(connected, method)(noisy, sigma=sigma)
    assert str(caught.value) == str(expected.value)
    assert model.calls == []


@pytest.mark.parametrize("protocol", ["rest"])
def test_integers_are_refused_by_a_model_of_floats(serve):
    _, connected = serve(pixels=DESCRIPTION["pixels"] | {"fractional": False})
    with pytest.raises(ValueError, match="This model takes float images: .* Received: dtype=uint8"):
        connected.denoise(pixels("uint8"))


# --- limits --------------------------------------------------------------------------------------------------------


@BOTH
def test_a_batch_beyond_the_limit_is_sent_in_groups(serve):
    model, connected = serve(**SMALL_LIMIT)
    batch = RNG.uniform(0, 1, (5, 8, 12, 3)).astype("float32")
    np.testing.assert_allclose(connected.denoise(batch, 0.1), batch / 2 + 0.0125, rtol=1e-6)
    assert [shapes["image"][0] for _, shapes in model.calls] == [2, 2, 1]


@BOTH
@pytest.mark.parametrize("changes", [{}, KNOWN], ids=["range", "known"])
def test_the_sigma_of_an_image_in_tiles_is_that_of_the_whole(serve, changes):
    """Estimated once, from the middle if the whole exceeds the limit."""
    model, connected = serve(**SMALL_LIMIT, **changes)
    rows = np.linspace(0, 1, 40, dtype="float32")
    image = np.broadcast_to(rows[:, None, None], (40, 20, 3))
    used = (connected.denoise(image) - image / 2) * 8
    # 0.1 + 0.1 · mean; tiles at the top and at the bottom would give 0.11 and 0.19.
    np.testing.assert_allclose(used, 0.1 if changes else 0.15, rtol=0.02)
    assert np.ptp(used) < 1e-6
    sizes = [np.prod(shapes["image"][:3]) for _, shapes in model.calls]
    assert max(sizes) <= 256 and len(sizes) > 4
    assert signatures(model)[0] == ("with_sigma" if changes else "own_sigma")
    assert set(signatures(model)[1:]) == {"with_sigma"}


@pytest.mark.parametrize("protocol", ["rest"])
def test_files_beyond_the_limit_are_sent_in_tiles(serve):
    model, connected = serve(**SMALL_LIMIT)
    noisy = pixels("uint8", (40, 20, 3))
    expected = np.floor((noisy / 255 / 2 + 0.2 / 8) * 255 + 0.5) / 255
    np.testing.assert_allclose(connected.denoise(noisy, 0.2), expected, rtol=1e-6)
    assert set(signatures(model)) == {"encoded_with_sigma"} and len(model.calls) > 4


@BOTH
def test_messages_are_bounded(protocol):
    model = FakeModel()
    limit = {"rest": 20_000, "grpc": 2**16 + 6_000}[protocol]
    with SERVERS[protocol](model) as url, client.connect(url, max_message_bytes=limit) as connected:
        noisy = RNG.uniform(0, 1, (30, 30, 3)).astype("float32")
        np.testing.assert_allclose(connected.denoise(noisy, 0.1), noisy / 2 + 0.0125, rtol=1e-6)
        tiles = len(model.calls) - 1
        connected.posterior(noisy, 0.1)
    assert tiles > 1
    # Answered by three pictures: over gRPC the answer is what is bounded.
    assert (len(model.calls) - 1 - tiles > 2 * tiles) == (protocol == "grpc")
    if protocol == "rest":
        assert max(int(headers.get("content-length", 0)) for headers in model.headers) <= limit


# --- posterior and sigma -------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 5, 7, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_posterior(serve, shape, dtype):
    model, connected = serve()
    noisy = FLOATS if dtype == "float32" else pixels(dtype)
    noisy = np.broadcast_to(noisy, shape)
    unit = noisy.astype("float32") / (1 if dtype == "float32" else 255)
    found = connected.posterior(noisy, 0.2)
    np.testing.assert_allclose(found.denoised, unit / 2 + 0.025, rtol=1e-6)
    np.testing.assert_allclose(found.mean, unit / 4, rtol=1e-6)
    np.testing.assert_allclose(found.std, np.full(shape, 0.1), rtol=1e-6)
    if len(shape) == 3:
        assert found.estimated_psnr == 20.0 and isinstance(found.estimated_psnr, float)
    else:
        np.testing.assert_array_equal(found.estimated_psnr, [20, 21])
    assert signatures(model) == ["posterior"]


@BOTH
def test_the_psnr_of_tiles_is_computed_from_the_joined_maps(serve):
    _, connected = serve(**SMALL_LIMIT, pixels=DESCRIPTION["pixels"] | {"scale": 2.0})
    batch = RNG.uniform(0, 1, (2, 20, 24, 3)).astype("float32")
    sigma = np.array([0.2, 0.6])
    found = connected.posterior(batch, sigma)
    for index in range(2):
        noisy = batch[index].astype(float) / 2  # full scale is 2
        denoised, std = noisy / 2 + sigma[index] / 16, np.full(noisy.shape, sigma[index] / 4)
        expected = reference.estimated_psnr(denoised, noisy, std, sigma[index] / 2)
        assert found.estimated_psnr[index] == pytest.approx(expected, abs=1e-3, nan_ok=True)
    assert np.isnan(found.estimated_psnr[1]) and np.isfinite(found.estimated_psnr[0])


@BOTH
@pytest.mark.parametrize(("changes", "expected"), [({}, 0.15), (KNOWN, 0.1)], ids=["range", "known"])
def test_own_sigma(serve, changes, expected):
    model, connected = serve(**changes)
    image = np.full((5, 7, 3), 0.5)
    assert connected.own_sigma(image) == pytest.approx(expected)
    together = connected.own_sigma(np.stack([image, image]))
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, [expected] * 2, rtol=1e-6)
    assert len(model.calls) == (0 if changes else 3)


# --- many ----------------------------------------------------------------------------------------------------------


@BOTH
def test_many_images_one_of_them_bad(serve):
    model, connected = serve()
    bad = {"rest": (400, "no"), "grpc": ("INVALID_ARGUMENT", "no")}
    model.fails_for = lambda signature, inputs: (
        bad["grpc" if "grpc" in repr(connected) else "rest"] if inputs["image"].shape[1] == 2 else None
    )
    noisy = [FLOATS, np.zeros((2, 2, 3)), np.zeros(3), FLOATS[:3]]
    outcomes = list(connected.denoise_many(iter(noisy), 0.1, concurrency=2))
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3]
    assert isinstance(outcomes[1].error, client.RefusedError) and outcomes[1].denoised is None
    assert isinstance(outcomes[2].error, ValueError) and "Received: shape=(3,)" in str(outcomes[2].error)
    for index in (0, 3):
        assert outcomes[index].error is None
        np.testing.assert_allclose(outcomes[index].denoised, noisy[index] / 2 + 0.0125, rtol=1e-6)


@BOTH
def test_many_requests_are_in_flight(serve):
    model, connected = serve()
    together = threading.Barrier(4, timeout=20)
    model.fails_for = lambda signature, inputs: together.wait() and None  # fewer than four at once would never pass
    outcomes = list(connected.denoise_many([FLOATS] * 8, 0.1, concurrency=4))
    assert [outcome.error for outcome in outcomes] == [None] * 8
    assert model.most_running == 4


@BOTH
def test_one_client_in_many_threads(serve):
    _, connected = serve()
    results = {}

    def work(number):
        image = np.full((4, 4, 3), number / 16, "float32")
        results[number] = connected.denoise(image, 0.1)

    threads = [threading.Thread(target=work, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for number in range(16):
        np.testing.assert_allclose(results[number], number / 32 + 0.0125, rtol=1e-6)


# --- files ---------------------------------------------------------------------------------------------------------


def file_of(array, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


@BOTH
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("sigma", [None, 0.2], ids=["own", "given"])
def test_the_bytes_of_a_file(serve, kind, sigma):
    model, connected = serve()
    data = file_of(pixels("uint8"), kind)
    assert connected.denoise_bytes(data, sigma) == halved(data, sigma or 0.1)
    assert signatures(model) == ["encoded" if sigma is None else "encoded_with_sigma"]


@BOTH
def test_the_bytes_of_a_file_beyond_the_limit(serve):
    model, connected = serve(**SMALL_LIMIT)
    noisy = pixels("uint8", (40, 20, 3))
    denoised = np.asarray(Image.open(io.BytesIO(connected.denoise_bytes(file_of(noisy), 0.2))))
    np.testing.assert_array_equal(denoised, np.floor((noisy / 255 / 2 + 0.025) * 255 + 0.5))
    assert len(model.calls) > 4


@pytest.mark.parametrize("protocol", ["rest"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expected the bytes of a PNG or JPEG file. Received: 0 bytes"),
        (b"GIF89a", "Expected the bytes of a PNG or JPEG file. Received: 6 bytes"),
        (b"\x89PNG\r\n\x1a\n", "The image file cannot be read: it does not begin with a PNG header"),
    ],
)
def test_the_bytes_of_something_else(serve, data, message):
    model, connected = serve()
    with pytest.raises(ValueError, match=message):
        connected.denoise_bytes(data)
    assert model.calls == []


@BOTH
def test_files_keep_their_type_and_their_stack(serve, tmp_path):
    _, connected = serve(**GREY)
    noisy = save_tiff(tmp_path / "a.tif", (3, 5, 7), np.uint8)
    connected.denoise_file(tmp_path / "a.tif", tmp_path / "new/b.tif", 0.2)
    result = images.read_array(tmp_path / "new/b.tif")
    np.testing.assert_array_equal(result[..., 0], np.floor((noisy / 255 / 2 + 0.025) * 255 + 0.5))
    assert result.dtype == np.uint8


@BOTH
def test_a_grey_model_takes_each_colour_of_a_file(serve, tmp_path):
    _, connected = serve(**GREY)
    noisy = pixels("uint8")
    images.write(tmp_path / "a.png", noisy)
    connected.denoise_file(tmp_path / "a.png", tmp_path / "b.png", 0.2)
    result = images.read_array(tmp_path / "b.png")
    np.testing.assert_array_equal(result, np.floor((noisy / 255 / 2 + 0.025) * 255 + 0.5))


@BOTH
def test_a_file_takes_one_request_where_the_model_estimates(serve, tmp_path):
    model, connected = serve(noise={"kind": "gaussian", "sigma_low": 0.05, "sigma_high": 0.2})
    noisy = pixels("uint8")
    images.write(tmp_path / "a.png", noisy)
    connected.denoise_file(str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    (name,) = [name for name, _ in model.calls if name != "describe"]
    assert name in ("encoded", "serving_default")
    np.testing.assert_array_equal(
        images.read_array(tmp_path / "b.png"), np.floor((noisy / 255 / 2 + 0.0125) * 255 + 0.5)
    )


@pytest.mark.parametrize("protocol", ["rest"])
def test_files_that_do_not_fit_are_refused_before_they_are_sent(serve, tmp_path):
    model, connected = serve()
    images.write(tmp_path / "grey.png", pixels("uint8", (5, 7)))
    with pytest.raises(ValueError, match="a grey image cannot be denoised by a model for 3 channels"):
        connected.denoise_file(tmp_path / "grey.png", tmp_path / "b.png")
    images.write(tmp_path / "float.npy", FLOATS)
    with pytest.raises(ValueError, match="b.png: PNG holds"):
        connected.denoise_file(tmp_path / "float.npy", tmp_path / "b.png")
    images.write(tmp_path / "colour.png", pixels("uint8"))
    with pytest.raises(ValueError, match="b: unknown kind of image file"):
        connected.denoise_file(tmp_path / "colour.png", tmp_path / "b", np.float32(0.1))
    with pytest.raises(ValueError, match="nothing.png: no such file"):
        connected.denoise_file(tmp_path / "nothing.png", tmp_path / "b.png")
    with pytest.raises(ValueError, match="A sigma"):
        connected.denoise_file(tmp_path / "colour.png", tmp_path / "b.png", -0.1)
    assert model.calls == [] and not (tmp_path / "b.png").exists()
