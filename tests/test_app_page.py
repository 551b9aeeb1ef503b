"""The page in a real browser: one server and one browser for all tests, each in a window of its own."""

import base64
import io
import re
import threading

import numpy as np
import pytest
import tifffile
from page_denoiser import PageDenoiser
from PIL import Image, ImageOps

from bsdenoise import cli, images
from bsdenoise.app.denoising import Workshop
from tests import browser

pytestmark = [
    pytest.mark.slow,
    # Gradio 6.31 sums up its queue, after some minutes, with options that pandas 3 is about to drop.
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
HOSTILE_NAME = "a<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def window():
    with browser.opened() as found:
        yield found


@pytest.fixture(scope="module")
def model_path(tiny_denoiser_path):
    return tiny_denoiser_path(3)


@pytest.fixture(scope="module")
def url(window, model_path):  # the browser first: without one nothing need be loaded
    from bsdenoise.app import server
    from bsdenoise.cli import models

    with server.running(Workshop(models.load_denoiser(model_path), 2**20), "A tiny model.", "127.0.0.1", 0) as address:
        yield address


@pytest.fixture
def watched(window, url):
    watched = browser.Watched(window, url, viewport={"width": 1200, "height": 900})
    yield watched
    watched.context.close()
    assert watched.complaints == []
    assert watched.foreign == []


def noisy_pixels(dtype=np.uint8, shape=(24, 40, 3)):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def save(path, pixels):
    images.write(path, pixels)
    return path


def drop(page, path):
    page.locator("input[type=file]").set_input_files(path)


def run(page, path):
    """Drops a file, denoises it, and waits for the result."""
    drop(page, path)
    page.locator("#start:enabled").click()
    page.locator("#download:enabled").wait_for()


def download(page, folder):
    with page.expect_download() as started:
        page.locator("#download").click()
    target = folder / started.value.suggested_filename
    started.value.save_as(target)
    return target


def shown(page, name):
    """The pixels of a picture on the page."""
    address = page.get_by_alt_text(name, exact=True).get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(address).body())))


def by_command(source, folder, model, *options):
    """The file that `bsdenoise denoise` writes."""
    arguments = ["denoise", str(source), "--out", str(folder), "--model", str(model), *options]
    assert cli.main(arguments) == 0
    return images.read_array(folder / source.name)


def divider(page):
    """Where the noisy image ends, in percent of the width."""
    style = page.locator("#slider .content img").nth(1).get_attribute("style")
    return float(re.search(r"clip-path: inset\([^)]* ([\d.]+)%\)", style)[1])


def test_a_dropped_photograph_is_denoised_shown_and_downloaded(watched, model_path, tmp_path):
    page, source = watched.page, save(tmp_path / "photo.png", noisy_pixels())
    dropped = page.evaluate_handle(
        """(text) => {
            const dropped = new DataTransfer();
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            dropped.items.add(new File([bytes], "photo.png", { type: "image/png" }));
            return dropped;
        }""",
        base64.b64encode(source.read_bytes()).decode(),
    )
    page.get_by_text("Drop File Here").dispatch_event("drop", {"dataTransfer": dropped})
    page.get_by_text("the model's own, 25.0 grey levels").wait_for()
    page.locator("#noise svg").wait_for()
    assert "Cannot tell: it is too small" in page.locator("#noise").inner_text()
    page.locator("#start:enabled").click()
    page.locator("#download:enabled").wait_for()
    facts = page.locator("#facts").inner_text()
    assert "photo.png (PNG): 40 × 24 pixels, RGB, 8 bits" in facts
    assert "25.0 grey levels, the model's own" in facts
    assert re.search(r"Estimated PSNR\s+(\d+\.\d dB for a peak of 255: an RMS error of|withheld, because)", facts)
    expected = by_command(source, tmp_path / "out", model_path)
    np.testing.assert_array_equal(shown(page, "Noisy image"), noisy_pixels())
    np.testing.assert_array_equal(shown(page, "Denoised image"), expected)
    assert shown(page, "Map of the uncertainty; the scale below says what its colours mean").shape == (24, 40, 3)
    result = download(page, tmp_path)
    assert result.name == "denoised-photo.png"
    np.testing.assert_array_equal(images.read_array(result), expected)


def test_a_photograph_of_a_phone_stands_upright(watched, model_path, tmp_path):
    page, source = watched.page, tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise
    Image.fromarray(noisy_pixels()).save(source, exif=exif)
    run(page, source)
    with Image.open(source) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(shown(page, "Noisy image"), expected)
    stored = by_command(source, tmp_path / "out", model_path)
    assert shown(page, "Denoised image").shape == (40, 24, 3)
    assert shown(page, "Map of the uncertainty; the scale below says what its colours mean").shape == (40, 24, 3)
    assert "turned clockwise by 90°" in page.locator("#facts").inner_text()
    result = download(page, tmp_path)
    with Image.open(result) as image:
        assert (image.size, image.getexif()[0x0112]) == ((40, 24), 6)
    np.testing.assert_array_equal(images.read_array(result), stored)


def test_what_is_done_is_told_from_the_first_second(window, tmp_path):
    """By a model that takes its time: the bar is half full in the middle of its work."""
    from bsdenoise import progress
    from bsdenoise.app import server

    middle, end = threading.Event(), threading.Event()

    class Slow(PageDenoiser):
        def posterior(self, noisy, sigma=None):
            progress.advance(noisy.shape[0] * noisy.shape[1] / 2)
            middle.set()
            assert end.wait(60)
            return super().posterior(noisy, sigma)

    with server.running(Workshop(Slow(3), 2**20), "A slow model.", "127.0.0.1", 0) as address:
        watched = browser.Watched(window, address)
        page = watched.page
        drop(page, save(tmp_path / "photo.png", noisy_pixels()))
        page.locator("#start:enabled").click()
        assert middle.wait(30)
        page.get_by_text(re.compile(r"^\s*Denoising: about \d+ s left - 50.0%")).wait_for()
        assert page.get_by_text("Denoising").count() == 1
        end.set()
        page.locator("#download:enabled").wait_for()
        watched.context.close()
    assert (watched.complaints, watched.foreign) == ([], [])


def test_the_divider_moves_by_mouse_and_by_keyboard(watched, tmp_path):
    page = watched.page
    run(page, save(tmp_path / "photo.png", noisy_pixels()))
    handle = page.get_by_role("slider", name="Divider between noisy (left) and denoised (right)")
    handle.wait_for()
    assert divider(page) == pytest.approx(50, abs=2)
    line, picture = handle.locator(".inner").bounding_box(), page.locator("#slider .wrap").last.bounding_box()
    page.mouse.move(line["x"] + line["width"] / 2, line["y"] + 10)
    page.mouse.down()
    page.mouse.move(picture["x"] + 0.25 * picture["width"], line["y"] + 10)
    page.mouse.up()
    assert divider(page) == pytest.approx(25, abs=3)
    before = divider(page)
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert divider(page) == pytest.approx(before + 5, abs=1)
    page.keyboard.press("End")
    assert divider(page) == pytest.approx(100, abs=1)


def test_a_sigma_is_typed_and_16_bits_come_back(watched, model_path, tmp_path):
    page, source = watched.page, save(tmp_path / "DEEP.TIF", noisy_pixels(np.uint16))
    drop(page, source)
    page.locator("#start:enabled").wait_for()
    page.get_by_label("Noise standard deviation σ").fill("3000")
    page.get_by_label("Noise standard deviation σ").press("Enter")
    page.get_by_text("3000.0 counts, as given").wait_for()
    page.locator("#download:enabled").wait_for()
    expected = by_command(source, tmp_path / "out", model_path, "--sigma", "3000")
    result = images.read_array(download(page, tmp_path))
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, expected)


def test_of_a_stack_one_image_is_shown_and_all_are_downloaded(watched, model_path, tmp_path):
    page, source = watched.page, tmp_path / "stack.tif"
    tifffile.imwrite(source, noisy_pixels(shape=(4, 24, 40, 3)), photometric="rgb")
    run(page, source)
    assert "image 1 of 4" in page.locator("#facts").inner_text()
    number = page.get_by_role("spinbutton")
    number.fill("3")
    number.press("Tab")
    page.get_by_text("image 3 of 4").wait_for()
    expected = by_command(source, tmp_path / "out", model_path)
    np.testing.assert_array_equal(images.read_array(download(page, tmp_path)), expected)


def test_mistakes_are_one_sentence_and_the_page_goes_on(watched, tmp_path):
    page, alert = watched.page, watched.page.get_by_role("alert")
    (tmp_path / HOSTILE_NAME).write_text("no image")
    drop(page, tmp_path / HOSTILE_NAME)
    alert.wait_for()
    message = alert.inner_text()
    assert re.fullmatch(r"[^/]+\.png: cannot be read: its content is no image of a known kind\.", message)
    assert page.locator("#start").is_disabled()
    page.get_by_label("Clear").or_(page.get_by_label("Remove this file")).first.click()
    drop(page, save(tmp_path / "photo.png", noisy_pixels()))
    page.get_by_label("Noise standard deviation σ").fill("many")
    page.locator("#start:enabled").click()
    page.get_by_text("A sigma reads 25").wait_for()
    page.get_by_label("Noise standard deviation σ").fill("")
    page.locator("#start").click()
    page.locator("#download:enabled").wait_for()
    assert alert.count() == 0


def test_every_control_has_a_name_and_is_reached_by_keyboard(watched, tmp_path):
    page = watched.page
    run(page, save(tmp_path / "photo.png", noisy_pixels()))
    page.locator("#slider [role=slider]").wait_for()
    names = page.evaluate(
        """() => [...document.querySelectorAll('.gradio-container :is(button, input, a, [role=slider])')]
            .filter((e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
            .map((e) => (e.ariaLabel || e.innerText || [...(e.labels || [])].map((l) => l.innerText).join()
              || e.querySelector('img')?.alt || e.title || '').trim() || e.outerHTML)"""
    )
    assert len(names) > 5
    assert [name for name in names if name.startswith("<")] == []
    reached = set()
    page.locator("body").click(position={"x": 1, "y": 1})
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.ariaLabel || document.activeElement.id"))
    assert {"start", "download", "Divider between noisy (left) and denoised (right)"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_needs_no_sideways_scrolling_and_is_readable(window, url, tmp_path, scheme):
    watched = browser.Watched(window, url, viewport={"width": 360, "height": 800}, color_scheme=scheme)
    page = watched.page
    run(page, save(tmp_path / "photo.png", noisy_pixels()))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#noise svg").wait_for()
    for selector in ("#noise p", "#facts dt", "#facts dd", "#legend p", "#about p", "#sigma span"):
        assert contrast(page, selector) >= 4.5, selector  # WCAG 2, level AA
    watched.context.close()
    assert (watched.complaints, watched.foreign) == ([], [])


def contrast(page, selector):
    """Contrast of a text and what is behind it, by the formula of WCAG 2."""
    text, behind = page.locator(selector).first.evaluate(
        """(element) => {
            const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
            const rgba = (colour) => {
                canvas.clearRect(0, 0, 1, 1);
                canvas.fillStyle = colour;
                canvas.fillRect(0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data];
            };
            let behind = [255, 255, 255, 255];
            for (let e = element; e; e = e.parentElement) {
                const colour = rgba(getComputedStyle(e).backgroundColor);
                if (colour[3] === 255) { behind = colour; break; }
            }
            return [rgba(getComputedStyle(element).color), behind];
        }"""
    )
    lights = []
    for colour in (text, behind):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour[:3])]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_two_users_at_once_both_get_their_own_result(window, url, tmp_path):
    users = [browser.Watched(window, url) for _ in range(2)]
    for number, user in enumerate(users):
        path = save(tmp_path / f"{number}.png", np.full((8, 8, 3), 100 * number, np.uint8))
        drop(user.page, path)
        user.page.locator("#start:enabled").wait_for()
    for user in users:
        user.page.locator("#start").click()
    for number, user in enumerate(users):
        user.page.locator("#download:enabled").wait_for()
        with Image.open(download(user.page, tmp_path)) as result:
            assert result.size == (8, 8)
        assert f"{number}.png" in user.page.locator("#facts").inner_text()
        user.context.close()
        assert (user.complaints, user.foreign) == ([], [])


@pytest.fixture(scope="module")
def only_denoises(window, tmp_path_factory):
    """The file of a model without a posterior, and its page's address."""
    import keras

    from bsdenoise import methods
    from bsdenoise.app import server
    from bsdenoise.cli import models
    from bsdenoise.denoiser import Denoiser
    from bsdenoise.noise import GaussianNoise

    path = tmp_path_factory.mktemp("models") / "n2n.keras"
    keras.utils.set_random_seed(0)
    Denoiser(methods.get("n2n").network(3, width=4, depth=1), GaussianNoise(0.05, 0.2), method="n2n").save(path)
    with server.running(Workshop(models.load_denoiser(path), 2**20), "A tiny model.", "127.0.0.1", 0) as address:
        yield path, address


def test_a_model_that_only_denoises_is_shown_without_what_it_cannot_tell(window, only_denoises, tmp_path):
    model, address = only_denoises
    watched = browser.Watched(window, address, viewport={"width": 1200, "height": 900})
    page, source = watched.page, tmp_path / "stack.tif"
    tifffile.imwrite(source, noisy_pixels(shape=(3, 24, 40, 3)), photometric="rgb")
    assert "Method: n2n, Noise2Noise" in page.locator("#about").inner_text()
    run(page, source)
    assert page.get_by_label("Noise standard deviation σ").is_disabled()
    assert "This model does not use it." in page.locator("#sigma").inner_text()
    facts = page.locator("#facts").inner_text()
    assert "image 1 of 3" in facts
    assert not [word for word in ("σ", "PSNR", "Uncertainty") if word in facts]
    assert page.locator("#uncertainty").count() == page.locator("#legend").count() == 0
    expected = by_command(source, tmp_path / "out", model)
    np.testing.assert_array_equal(shown(page, "Denoised image"), expected[0])
    number = page.get_by_role("spinbutton")
    number.fill("3")
    number.press("Tab")
    page.get_by_text("image 3 of 3").wait_for()
    assert page.get_by_role("alert").count() == 0
    np.testing.assert_array_equal(images.read_array(download(page, tmp_path)), expected)
    watched.context.close()
    assert (watched.complaints, watched.foreign) == ([], [])
