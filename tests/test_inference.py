"""Images of any size in the memory that there is: in one pass, in stages, in blocks, all with one result."""

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bsdenoise import Denoiser, GaussianNoise, blind_spot_network, unet
from bsdenoise.inference import engine, memory, tiling

SIGMA = 0.1
NOISE = GaussianNoise(SIGMA, SIGMA)
REACH = {1: 15, 2: 35, 3: 75}  # pixels to every side; test_network measures it


def randomize(network, seed=0):
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 25.0
        weight.assign(rng.standard_normal(weight.shape) / np.sqrt(fan_in))
    return network


def build(depth=1, **options):
    return Denoiser(randomize(blind_spot_network(width=4, depth=depth, **options)), NOISE)


def random_noisy(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype="float32")


@pytest.fixture(scope="module")
def denoiser():
    return build()


def give_memory(monkeypatch, denoiser, *, pass_pixels):
    """Leaves as much memory free as one pass over so many pixels needs, and chunks smaller than the least."""
    monkeypatch.setattr(engine, "MIN_CHUNK_PIXELS", 1600)
    per_pixel = engine.PASS_FACTOR * denoiser.network.get_layer("head_conv0").filters * 4
    monkeypatch.setattr(memory, "available_bytes", lambda: int(2 * per_pixel * (pass_pixels + 1)))


def record_passes(monkeypatch):
    """Collects the shapes of what is computed in one pass."""
    shapes = []
    in_one_pass = engine.Inference._with_theta

    def recorded(self, batch, theta, turns):
        shapes.append(batch.shape[:3])
        return in_one_pass(self, batch, theta, turns)

    monkeypatch.setattr(engine.Inference, "_with_theta", recorded)
    return shapes


def assert_same(one, other, atol=1e-5):
    for name, value in vars(one).items():
        np.testing.assert_allclose(vars(other)[name], value, atol=atol if name != "estimated_psnr" else 1e-3)


# --- stages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, depth",
    [((1, 90), 1), ((45, 67), 1), ((130, 31), 2), ((64, 48), 3), ((45, 67), 3), ((151, 67), 3), ((31, 300), 3)],
    ids=str,
)
def test_stages_equal_one_pass(size, depth, monkeypatch):
    denoiser = build(depth)
    noisy = random_noisy(*size, 3)
    whole = denoiser.posterior(noisy)
    shapes = record_passes(monkeypatch)
    monkeypatch.setattr(engine, "MAX_PASS_PIXELS", 30)
    monkeypatch.setattr(engine, "MAX_CHUNK_PIXELS", 400)
    assert_same(denoiser.posterior(noisy), whole)
    assert shapes == []


def test_stages_of_a_body_in_bfloat16(monkeypatch):
    """Nothing is rounded more than in one pass; what is between the stages stays in half the memory."""
    denoiser = build(2).in_precision("bfloat16")
    noisy = random_noisy(40, 52, 3)
    denoiser.denoise(np.zeros((200, 200, 3), "uint8"))  # compiled from here on, where rounding is another
    whole = denoiser.posterior(noisy)
    monkeypatch.setattr(engine, "MAX_PASS_PIXELS", 30)
    monkeypatch.setattr(engine, "MAX_CHUNK_PIXELS", 400)
    staged = denoiser.posterior(noisy)
    errors = np.abs(staged.denoised - whole.denoised)
    rounding = np.abs(whole.denoised - build(2).denoise(noisy))
    assert np.sqrt(np.mean(errors**2)) <= np.sqrt(np.mean(rounding**2))


def test_stages_show_no_seams(monkeypatch):
    """Errors along the borders of chunks are not larger than elsewhere: both are rounding."""
    denoiser = build(2)
    noisy = random_noisy(120, 120, 3)
    whole = denoiser.denoise(noisy)
    monkeypatch.setattr(engine, "MAX_PASS_PIXELS", 30)
    monkeypatch.setattr(engine, "MAX_CHUNK_PIXELS", 30 * 30)
    borders = []
    plan = tiling.plan

    def recorded(*arguments):
        pieces = list(plan(*arguments))
        borders.extend(piece.target for piece in pieces)
        return iter(pieces)

    monkeypatch.setattr(tiling, "plan", recorded)
    errors = np.abs(denoiser.denoise(noisy) - whole)
    inner = {target[0].start for target in borders} - {0}
    assert len(inner) > 2
    assert max(errors[row - 1 : row + 1].max() for row in inner) < 1e-5


# --- blocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth, size, pass_pixels", [(1, (130, 101), 1600), (2, (190, 250), 6000)], ids=str)
def test_blocks_are_chosen_from_the_free_memory(depth, size, pass_pixels, monkeypatch):
    """And give what one pass gives, as the overlap is the network's reach."""
    denoiser = build(depth)
    noisy = random_noisy(*size, 3)
    whole = denoiser.posterior(noisy)
    give_memory(monkeypatch, denoiser, pass_pixels=pass_pixels)
    pieces = list(denoiser._inference._plan(*size, None, None))
    assert len(pieces) >= 2
    blocks = [[side.stop - side.start for side in piece.window] for piece in pieces]
    # Seven images of three channels, and coarse maps of half a chunk's side and of two grids, all in float32.
    rows = math.sqrt(max(pass_pixels / 3, 1600)) / 2 + 2 * 2**depth
    needed = max(4 * width * (7 * 3 * height + denoiser.network.width * 8 * rows) for height, width in blocks)
    assert needed <= memory.available_bytes() / 2 * 2 / 3 * 1.01
    assert tiling.default_overlap(2**depth, tiling.TILE) >= REACH[depth]
    assert_same(denoiser.posterior(noisy), whole)


def test_little_memory_makes_small_passes(denoiser, monkeypatch):
    shapes = record_passes(monkeypatch)
    noisy = random_noisy(60, 50, 3)
    denoiser.denoise(noisy)
    assert shapes == [(1, 60, 50)]
    give_memory(monkeypatch, denoiser, pass_pixels=60 * 50)
    denoiser.denoise(noisy)
    assert shapes == [(1, 60, 50)] * 2
    give_memory(monkeypatch, denoiser, pass_pixels=60 * 50 - 10)
    denoiser.denoise(noisy)
    assert shapes == [(1, 60, 50)] * 2


@pytest.mark.parametrize("build", [unet, None], ids=["unet", "other"])
def test_networks_that_cannot_be_cut_are_tiled(build, monkeypatch):
    if build is unet:
        network = randomize(unet(channels=1, width=4, depth=1, num_outputs=1))
    else:
        image = keras.Input((None, None, 1))
        network = keras.Model(image, keras.layers.Conv2D(1, 5, padding="same")(image))
    denoiser = Denoiser(network, NOISE, method="n2n")
    noisy = random_noisy(150, 130)
    whole = denoiser.denoise(noisy)
    monkeypatch.setattr(tiling, "MAX_UNTILED_PIXELS", 60 * 60)
    shapes = record_passes(monkeypatch)
    np.testing.assert_allclose(denoiser.denoise(noisy), whole, atol=1e-5)
    assert len(shapes) > 4 and max(height * width for _, height, width in shapes) <= 60 * 60


def test_thin_images_count_as_what_they_are_padded_to(monkeypatch):
    """A row of pixels is as much work as the strip that the network fills it up to."""
    denoiser = Denoiser(randomize(unet(channels=1, width=4, depth=2, num_outputs=1)), NOISE, method="n2n")
    monkeypatch.setattr(tiling, "MAX_UNTILED_PIXELS", 400)
    shapes = record_passes(monkeypatch)
    denoiser.denoise(random_noisy(1, 100))
    assert shapes == [(1, 1, 100)]
    denoiser.denoise(random_noisy(1, 104))
    assert len(shapes) > 2


def test_large_batches_are_computed_image_by_image(denoiser, monkeypatch):
    """The memory is that of one image."""
    batch = random_noisy(5, 30, 20, 3)
    sigma = np.linspace(0.05, 0.2, 5)
    together = denoiser.denoise(batch, sigma=sigma)
    give_memory(monkeypatch, denoiser, pass_pixels=30 * 20 * 4)
    shapes = record_passes(monkeypatch)
    one_by_one = denoiser.denoise(batch, sigma=sigma)
    assert shapes == [(1, 30, 20)] * 5
    np.testing.assert_allclose(one_by_one, together, rtol=1e-5, atol=1e-6)


# --- windows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile, overlap", [(None, None), (80, 16)], ids=str)
def test_windows_are_what_denoise_gives(denoiser, tile, overlap):
    noisy = (255 * random_noisy(110, 90, 3)).astype("uint8")
    expected = denoiser.posterior(noisy)
    result = [np.full(noisy.shape, np.nan, "float32") for _ in range(3)]
    count, tops, asked = np.zeros(noisy.shape[:2], int), [], []

    def read(rows, columns):
        asked.append((rows.stop - rows.start, columns.stop - columns.start))
        return noisy[rows, columns]

    for window, moments in denoiser.windows(read, noisy.shape, tile=tile, overlap=overlap):
        assert len(moments) == 3
        for whole, part in zip(result, moments, strict=True):
            whole[window] = part
        count[window] += 1
        tops.append((window[0].start, window[1].start))
    np.testing.assert_array_equal(count, 1)
    assert tops == sorted(tops)
    assert max(max(size) for size in asked) == (tile or 110)
    for array, name in zip(result, ("denoised", "mean", "std"), strict=True):
        np.testing.assert_allclose(array, getattr(expected, name), atol=1e-5)


def test_windows_estimate_sigma_in_the_middle(monkeypatch):
    denoiser = Denoiser(randomize(blind_spot_network(channels=1, width=4, depth=1)), GaussianNoise(0.02, 0.5))
    noisy = 0.5 + 0.3 * np.random.default_rng(0).standard_normal((90, 80, 1)).astype("float32")
    noisy[30:60, 25:55] = 0.5 + (noisy[30:60, 25:55] - 0.5) / 5
    monkeypatch.setattr(tiling, "MIDDLE", 30)
    sigma = float(denoiser.own_sigma(noisy[None, 30:60, 25:55])[0])
    expected = denoiser.denoise(noisy, sigma=sigma)
    ((_, moments),) = denoiser.windows(lambda rows, columns: noisy[rows, columns], noisy.shape)
    np.testing.assert_allclose(moments[0], expected, atol=1e-5)
    assert np.abs(moments[0] - denoiser.denoise(noisy)).max() > 1e-3


def test_windows_refuse_what_denoise_refuses(denoiser):
    noisy = np.full((20, 20, 3), np.inf, "float32")
    with pytest.raises(ValueError, match="infinite"):
        list(denoiser.windows(lambda *window: noisy[window], noisy.shape))
    with pytest.raises(ValueError, match="`tta` must be one of"):
        denoiser.windows(lambda *window: noisy[window], noisy.shape, tta=3)
    with pytest.raises(ValueError, match="`sigma` must be"):
        denoiser.windows(lambda *window: noisy[window], noisy.shape, sigma=-1)


# --- compilation ---------------------------------------------------------------------------------------------------


def test_larger_images_are_computed_by_a_compiled_function(monkeypatch):
    """One trace serves the sizes that follow, and the results are those of eager computation."""
    images = [random_noisy(*size, 3) for size in ((20, 30), (21, 30), (22, 26), (35, 18), (40, 40))]
    eager = [build().posterior(image) for image in images]
    traced = []
    moments = Denoiser.shown_moments

    def recorded(self, image, sigma, turns):
        traced.append(isinstance(image, tf.Tensor) and not hasattr(image, "numpy"))
        return moments(self, image, sigma, turns)

    monkeypatch.setattr(Denoiser, "shown_moments", recorded)
    monkeypatch.setattr(engine, "MAX_EAGER_PIXELS", 20 * 20)
    denoiser = build()
    for image, expected in zip(images, eager, strict=True):
        assert_same(denoiser.posterior(image), expected, atol=1e-5)
    assert 1 <= len(traced) <= 3 and all(traced)
    assert len(denoiser.weights) == len(denoiser.network.weights)


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limit, use, expected", [("1000", "300", 700), ("1000", "1300", 0), ("max", "300", None), (None, None, None)]
)
def test_limit_of_a_container(limit, use, expected, monkeypatch, tmp_path):
    for name, text in (("max", limit), ("current", use)):
        if text is not None:
            (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(memory, "_CONTAINER_FILES", ((str(tmp_path / "max"), str(tmp_path / "current")),))
    available = memory.available_bytes()
    if expected is None:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":") for line in file)
        total = 1024 * int(lines["MemTotal"].split()[0])
        assert 2**24 < available < total
    else:
        assert available == expected


# --- imports -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["network.rotation", "network.layers", "inference.exact_chunks", "inference.rolling_maps"]
)
def test_any_module_may_be_imported_first(module):
    """`import keras` in it loads the denoiser, and so the module itself again, while it is half loaded."""
    subprocess.run([sys.executable, "-c", f"import bsdenoise.{module}, bsdenoise; bsdenoise.Denoiser"], check=True)
