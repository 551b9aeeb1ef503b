"""What the page does with files: the pixels of the command, the numbers of the model, refusals."""

import math
import threading

import numpy as np
import pytest
import tifffile
from PIL import Image

import bsdenoise
from bsdenoise import adaptation, cli, images
from bsdenoise.app.denoising import Workshop
from bsdenoise.cli import models

MANY = 2**20


def random_pixels(shape, dtype):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def save(path, pixels, **options):
    if options:
        tifffile.imwrite(path, pixels, **options)
    else:
        images.write(path, pixels)
    return path


@pytest.fixture(scope="module")
def model(tiny_denoiser_path):
    """A function from a number of channels, and the upper end of σ, to a model and its file; each is loaded once."""
    loaded = {}

    def load(channels, high=25 / 255):
        path = tiny_denoiser_path(channels, high)
        if path not in loaded:
            loaded[path] = models.load_denoiser(path)
        return loaded[path], path

    return load


FILES = {
    "8-bit PNG": ("a.png", (9, 12, 3), np.uint8, {}),
    "16-bit PNG": ("a.png", (9, 12, 3), np.uint16, {}),
    "grey PNG": ("a.png", (9, 12), np.uint8, {}),
    "JPEG": ("a.jpg", (9, 12, 3), np.uint8, {}),
    "16-bit TIFF": ("a.tif", (9, 12, 3), np.uint16, {"photometric": "rgb", "compression": "zlib"}),
    "float TIFF": ("a.tiff", (9, 12), np.float32, {"photometric": "minisblack"}),
    "OME-TIFF stack": ("a.ome.tif", (3, 9, 12), np.uint16, {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}),
    "NumPy stack": ("a.npy", (2, 9, 12, 3), np.float32, {}),
}


@pytest.mark.parametrize("sigma", [None, "25/255"], ids=["own", "given"])
@pytest.mark.parametrize(("name", "shape", "dtype", "options"), FILES.values(), ids=FILES)
def test_the_file_is_the_one_that_the_command_writes(tmp_path, model, name, shape, dtype, options, sigma):
    channels = 3 if shape[-1] == 3 else 1
    denoiser, path = model(channels, 60 / 255)
    source = save(tmp_path / name, random_pixels(shape, dtype), **options)
    facts, _, _ = Workshop(denoiser, MANY).denoise(source, tmp_path / f"page-{name}", sigma, facts_index(shape))
    flags = [] if sigma is None else ["--sigma", sigma]
    assert cli.main(["denoise", str(source), "--out", str(tmp_path / "out"), "--model", str(path), *flags]) == 0
    by_page, by_command = tmp_path / f"page-{name}", tmp_path / "out" / name
    if facts.count == 1:
        assert by_page.read_bytes() == by_command.read_bytes()
    else:  # of which the command computes several together, with another rounding
        assert by_page.stat().st_size == by_command.stat().st_size
        page, command = (images.read_array(path).astype("float64") for path in (by_page, by_command))
        np.testing.assert_allclose(page, command, rtol=0, atol=1 if np.issubdtype(dtype, np.integer) else 1e-5)
    assert (facts.name, facts.dtype) == (name, dtype)
    assert facts.size == (9, 12, channels)


@pytest.mark.op_by_op
def test_the_model_learns_from_the_image_as_the_command_has_it(tmp_path, model, monkeypatch):
    for name, value in (("STEPS", 3), ("CROP", 32), ("BLOCK", 16), ("RATE", 5e-3)):
        monkeypatch.setattr(adaptation, name, value)
    denoiser, path = model(1, 60 / 255)
    noise = np.random.default_rng(0).normal(0, 25, (64, 72))
    source = save(tmp_path / "a.png", (np.linspace(60, 200, 72) + noise).clip(0, 255).astype(np.uint8))
    workshop, seen = Workshop(denoiser, MANY), []
    assert workshop.can_learn
    _, chosen, _ = workshop.denoise(source, tmp_path / "page.png", "25", 0, seen.append, learns=True)
    shares = [step.share for step in seen if step.doing == "learning"]
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0.0, 1.0)
    assert chosen.learnt.startswith("3 steps")
    (result,) = bsdenoise.denoise_files(source, tmp_path / "b.png", model=path, sigma=25, adapt="each", adapt_steps=3)
    assert chosen.learnt in " ".join(result.notes)
    np.testing.assert_array_equal(images.read_array(tmp_path / "page.png"), images.read_array(tmp_path / "b.png"))
    # What was learnt last is kept; without learning the model is what it was.
    _, again, _ = workshop.look(source, "25", 0, learns=True)
    np.testing.assert_array_equal(again.denoised, chosen.denoised)
    _, plain, _ = workshop.look(source, "25", 0)
    assert plain.learnt is None and (plain.denoised != chosen.denoised).any()
    small = save(tmp_path / "small.png", random_pixels((20, 20), np.uint8))
    assert "pixels" in workshop.look(small, None, 0, learns=True)[1].learnt


def facts_index(shape):
    """Number of the last image."""
    return shape[0] - 1 if len(shape) == 4 or shape == (3, 9, 12) else 0


def test_profile_and_metadata_are_kept(tmp_path, model):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    source = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6), (200, 100, 50)).save(source, exif=exif, dpi=(300, 300), icc_profile=b"profile")
    Workshop(model(3)[0], MANY).denoise(source, tmp_path / "b.jpg", None, 0)
    with Image.open(tmp_path / "b.jpg") as result:
        assert (result.size, result.info["dpi"], result.getexif()[0x0112]) == ((8, 6), (300, 300), 6)
        assert result.info["icc_profile"] == b"profile"


def test_the_chosen_image_is_described(tmp_path, model):
    denoiser, _ = model(1, 60 / 255)
    stack = random_pixels((3, 20, 24, 1), np.uint16)
    stack[1] //= 16  # less noise, so that the estimate tells the images apart
    source = save(tmp_path / "a.npy", stack)
    workshop = Workshop(denoiser, MANY)
    seen = []
    _, chosen, seconds = workshop.denoise(source, tmp_path / "b.npy", None, 1, seen.append)
    np.testing.assert_array_equal(chosen.noisy, stack[1])
    np.testing.assert_array_equal(chosen.denoised, images.read_array(tmp_path / "b.npy")[1])
    unit = stack[1].astype(np.float32) / 65535
    (sigma,) = np.asarray(denoiser.own_sigma(unit[np.newaxis]))
    posterior = denoiser.posterior(unit, sigma=sigma)
    np.testing.assert_allclose(chosen.ratio, np.asarray(posterior.std)[..., 0] / sigma, rtol=1e-5)
    assert chosen.sigmas == pytest.approx((sigma * 65535,))
    assert seconds > 0
    _, looked, _ = workshop.look(source, None, 1)
    np.testing.assert_array_equal(looked.denoised, chosen.denoised)


@pytest.mark.parametrize(
    ("high", "sigma", "origin", "has_psnr"),
    [
        (25 / 255, None, "known", True),
        (25 / 255, "20", "given", True),
        (60 / 255, "20", "given", True),
        (60 / 255, None, "estimated", False),
    ],
)
def test_no_psnr_is_claimed_from_an_estimated_sigma(tmp_path, model, high, sigma, origin, has_psnr):
    denoiser, _ = model(3, high)
    source = save(tmp_path / "a.png", random_pixels((16, 16, 3), np.uint8))
    _, chosen, _ = Workshop(denoiser, MANY).look(source, sigma, 0)
    assert (chosen.origin, chosen.estimated_psnr is not None) == (origin, has_psnr)
    if sigma:
        assert chosen.sigmas == pytest.approx((20,))
        expected = denoiser.posterior(random_pixels((16, 16, 3), np.uint8), sigma=20 / 255).estimated_psnr
        assert chosen.estimated_psnr == pytest.approx(expected, abs=1e-3)


def test_a_grey_model_takes_each_colour_by_itself(tmp_path, model):
    denoiser, _ = model(1)
    pixels = random_pixels((16, 16, 3), np.uint8)
    _, chosen, _ = Workshop(denoiser, MANY).look(save(tmp_path / "a.png", pixels), None, 0)
    parts = [denoiser.posterior(pixels[..., channel : channel + 1]) for channel in range(3)]
    std = np.mean([part.std[..., 0] for part in parts], axis=0)
    np.testing.assert_allclose(chosen.ratio, std / (25 / 255), rtol=1e-4)
    assert chosen.sigmas == pytest.approx((25, 25, 25))
    errors = [10 ** (-part.estimated_psnr / 10) for part in parts]
    assert chosen.estimated_psnr == pytest.approx(-10 * math.log10(sum(errors) / 3), abs=1e-3)


@pytest.mark.parametrize(
    ("dtype", "high", "expected"), [(np.uint8, 25 / 255, 25), (np.uint16, 25 / 255, 6425), (np.uint8, 60 / 255, None)]
)
def test_facts_tell_the_own_sigma_in_units_of_the_file(tmp_path, model, dtype, high, expected):
    source = save(tmp_path / "a.png", random_pixels((4, 5, 3), dtype))
    facts = Workshop(model(3, high)[0], MANY).inspect(source)
    assert facts.own_sigma == (None if expected is None else pytest.approx(expected, rel=1e-5))
    assert (facts.format, facts.shape, facts.dtype, facts.count, facts.notes) == ("PNG", (4, 5, 3), dtype, 1, ())


def refused(tmp_path, case):
    """Makes a file that is refused by its headers, and gives it with the number of the model's channels."""
    if case == "text":
        (tmp_path / "a.png").write_text("no image")
        return tmp_path / "a.png", 3
    if case == "suffix":
        (tmp_path / "a.txt").write_text("no image")
        return tmp_path / "a.txt", 3
    if case == "grey":
        return save(tmp_path / "a.png", random_pixels((4, 5), np.uint8)), 3
    if case == "channels":
        return save(tmp_path / "a.npy", random_pixels((4, 5, 5), np.uint8)), 3
    return save(tmp_path / "a.npy", random_pixels((3, 4, 5, 3), np.uint8)), 3


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("text", "its content is no image of a known kind"),
        ("suffix", "not an image file that can be read. Expected one of .png"),
        ("grey", "a grey image cannot be denoised by a model for 3 channels"),
        ("channels", "an image with 5 channels cannot be denoised by a model for 3 channels"),
        ("large", r"3 × 4 × 5 pixels are more than the 59 that this page takes \(--max-pixels\)"),
    ],
)
def test_what_cannot_be_denoised_is_refused_by_its_headers(tmp_path, model, case, message):
    path, channels = refused(tmp_path, case)
    with pytest.raises(ValueError, match=message):
        Workshop(model(channels)[0], 59).inspect(path)


def test_the_limit_itself_is_allowed(tmp_path, model):
    source = save(tmp_path / "a.npy", random_pixels((3, 4, 5, 3), np.uint8))
    assert Workshop(model(3)[0], 60).inspect(source).count == 3


@pytest.mark.parametrize(
    ("sigma", "index", "message"),
    [
        ("many", 0, "A sigma reads 25"),
        ("300", 0, "`sigma` must be at most 1"),
        (None, 1, "there is no image 1, it holds 1"),
        (None, -1, "there is no image -1"),
    ],
)
def test_mistakes_leave_no_file(tmp_path, model, sigma, index, message):
    source = save(tmp_path / "a.png", random_pixels((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=message):
        Workshop(model(3)[0], MANY).denoise(source, tmp_path / "b.png", sigma, index)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_stack_is_left_when_the_page_ends(tmp_path, model):
    source = save(tmp_path / "a.npy", random_pixels((3, 4, 5, 3), np.uint8))
    workshop = Workshop(model(3)[0], MANY)
    seen = []

    def end(step):
        if step.share:
            seen.append((step.image, step.count))
            workshop.end()

    with pytest.raises(ValueError, match="This page has been ended"):
        workshop.denoise(source, tmp_path / "b.npy", None, 0, end)
    assert set(seen) == {(1, 3)}
    assert not (tmp_path / "b.npy").exists()


def test_one_computation_runs_at_a_time(tmp_path, model):
    """Also where the page has given up on the first one, which Gradio's own queue does not see."""

    class Counting:
        has_posterior = True

        def __init__(self, denoiser):
            self.channels, self.noise, self.own_sigma = denoiser.channels, denoiser.noise, denoiser.own_sigma
            self.scale = denoiser.scale
            self.inner, self.running, self.most = denoiser, 0, 0
            self.changing, self.met = threading.Lock(), threading.Event()

        def posterior(self, noisy, sigma=None):
            with self.changing:
                self.running += 1
                self.most = max(self.most, self.running)
                if self.running > 1:
                    self.met.set()
            self.met.wait(0.2)  # gives the other a chance to come in
            result = self.inner.posterior(noisy, sigma=sigma)
            with self.changing:
                self.running -= 1
            return result

    source = save(tmp_path / "a.png", random_pixels((4, 5, 3), np.uint8))
    counting = Counting(model(3)[0])
    workshop = Workshop(counting, MANY)
    threads = [threading.Thread(target=workshop.look, args=(source, None, 0)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counting.most == 1


@pytest.mark.parametrize(("channels", "is_other"), [(3, False), (1, True), (5, True)])
def test_a_second_denoiser_takes_what_the_first_does_not(tmp_path, model, channels, is_other):
    rgb, grey = model(3)[0], model(1)[0]
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, channels), np.uint8)
    source = save(tmp_path / "a.npy", pixels)
    workshop = Workshop(rgb, MANY, grey)
    assert workshop.inspect(source).size == (6, 7, channels)
    facts, chosen, _ = workshop.denoise(source, tmp_path / "b.npy", "25", 0)
    _, expected, _ = Workshop(grey if is_other else rgb, MANY).look(source, "25", 0)
    np.testing.assert_array_equal(chosen.denoised, expected.denoised)
    np.testing.assert_array_equal(images.read_array(tmp_path / "b.npy"), expected.denoised)
    assert len(chosen.sigmas) == (channels if is_other else 1)
