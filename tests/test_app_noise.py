"""The noise of a file on the page: the verdict of `inspect` in words, and the curve as a drawing."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from page_denoiser import PageDenoiser

import bsdenoise
from bsdenoise import images
from bsdenoise.app import noise_plot
from bsdenoise.app.denoising import Workshop
from bsdenoise.inspection import words

SIDE, GAIN = 160, 3.0
RAMP = np.tile(np.linspace(20.0, 200.0, SIDE), (SIDE, 1))
MANY = 2**20


def detector(clean=RAMP):
    return np.rint(GAIN * np.random.default_rng(0).poisson(clean / GAIN)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def looked(tmp_path):
    """Writes pixels to a file; gives what the page shows of its noise, and what `inspect` finds."""

    def run(pixels, name="a.png"):
        images.write(tmp_path / name, pixels)
        found = Workshop(PageDenoiser(3), MANY, grey=PageDenoiser(1)).noise(tmp_path / name)
        (expected,) = bsdenoise.inspect_files(tmp_path / name).readable
        return noise_plot.drawn(found), expected

    return run


def drawing(html):
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", html)[0])


def test_the_verdict_is_that_of_inspect_and_all_points_are_drawn(looked):
    html, expected = looked(detector())
    said = words.of_file(expected)
    assert said.startswith("noise that grows with the signal") and said[1:] in html
    svg = drawing(html)
    curve = expected.channels[0].curve
    places = np.array([[float(point.get(name)) for name in ("cx", "cy")] for point in svg.iter("circle")])
    # Places are linear in mean and variance, both axes in the directions of a plot.
    for values, place, sign in ((curve.mean, places[:, 0], 1), (curve.variance, places[:, 1], -1)):
        slope, start = np.polyfit(values, place, 1)
        assert sign * slope > 0
        np.testing.assert_allclose(slope * values + start, place, atol=0.1)
    line = np.array([pair.split(",") for pair in svg.find("polyline").get("points").split()], float)
    assert np.diff(line[:, 0]).min() > 0 and np.diff(line[:, 1]).max() < 0  # it rises
    _, _, width, height = map(float, svg.get("viewBox").split())
    everything = np.concatenate([places, line])
    assert (everything > 0).all() and (everything < [width, height]).all()
    texts = [text.text for text in svg.iter("text")]
    assert {"mean (grey levels)", "variance (grey levels squared)"} <= set(texts)
    assert f"variance = {curve.gain.value:.4g} · (mean −" in svg.get("aria-label")


def test_colours_have_curves_of_their_own(looked):
    noisy = np.stack([RAMP, RAMP.T, 0.5 * RAMP + 50], axis=-1) + 8 * np.random.default_rng(0).standard_normal(
        (SIDE, SIDE, 3)
    )
    html, expected = looked(np.rint(noisy).astype(np.uint8))
    assert "White noise: sigma" in html
    svg = drawing(html)
    assert len({line.get("stroke") for line in svg.iter("polyline")}) == 3
    assert len(list(svg.iter("circle"))) == sum(len(channel.curve.mean) for channel in expected.channels)


def test_where_both_span_much_the_axes_are_logarithmic(looked):
    clean = np.tile(np.geomspace(2.0, 5000.0, SIDE), (SIDE, 1))
    html, expected = looked(np.random.default_rng(0).poisson(clean).astype(np.uint16), "a.tif")
    curve = expected.channels[0].curve
    places = np.array([[float(point.get(name)) for name in ("cx", "cy")] for point in drawing(html).iter("circle")])
    for values, place in ((curve.mean, places[:, 0]), (curve.variance, places[:, 1])):
        slope, start = np.polyfit(np.log(values), place, 1)
        np.testing.assert_allclose(slope * np.log(values) + start, place, atol=0.1)


def test_a_file_without_flat_parts_has_words_alone(looked):
    html, expected = looked(np.zeros((8, 9), np.uint8))
    assert expected.channels[0].curve is None
    assert "No noise found" in html and "<svg" not in html


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (3.0, 3.0), (1e-9, 1e-7), (20.0, 200.0), (0.0, 65535.0)])
@pytest.mark.parametrize("is_log", [False, True])
def test_ticks(low, high, is_log):
    low = max(low, 1e-12) if is_log else low
    place, ticks = noise_plot._axis(low, high, 10.0, 100.0, is_log)
    assert place(low) == pytest.approx(10) and place(max(high, low)) <= 100 + 1e-9
    assert ticks == sorted(ticks) and all(low <= tick <= max(high, 2 * low) + 1e-9 for tick in ticks)
    if not is_log:
        assert 2 <= len(ticks) <= noise_plot.MOST_TICKS + 1


def test_of_a_served_model_nothing_is_computed_here(tmp_path, monkeypatch):
    monkeypatch.setattr("bsdenoise.inspection.measuring.measure", None)
    images.write(tmp_path / "a.png", detector())
    served = PageDenoiser(1)
    served.description = {"pixels": {"scale": 1.0, "fractional": True}, "training": None}
    assert Workshop(served, MANY).noise(tmp_path / "a.png") is None


def test_handlers_show_it_and_hide_what_cannot_be_used(tmp_path):
    page = pytest.importorskip("bsdenoise.app.page")
    handlers = page.Handlers(Workshop(PageDenoiser(1), MANY), tmp_path)
    images.write(tmp_path / "a.png", detector())
    (tmp_path / "bad.png").write_text("no image")
    shown = handlers.noise(str(tmp_path / "a.png"))
    assert shown["visible"] and "<svg" in shown["value"]
    for name in (None, str(tmp_path / "bad.png"), str(tmp_path / "gone.png")):
        assert not handlers.noise(name)["visible"]
    *_, noise, _, _, _, _ = handlers.take(str(tmp_path / "a.png"))
    assert noise["visible"] and "Looking" in noise["value"]
    *_, noise, _, _, _, _ = handlers.take(str(tmp_path / "bad.png"))
    assert not noise["visible"]
