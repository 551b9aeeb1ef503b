"""The figure: which part is shown, what is measured of it, how it is drawn."""

import threading

import numpy as np
import pytest
from PIL import Image

from bsdenoise.evaluation import figure, strip, window
from bsdenoise.evaluation.cases import Told
from bsdenoise.evaluation.contestants import Estimate
from bsdenoise.evaluation.records import Protocol
from bsdenoise.evaluation.window import Window

PROTOCOL = Protocol("gaussian:25")
FLOATS = Protocol("gaussian:0.1")


class Fake:
    """A contestant that moves every pixel by a fixed amount towards white."""

    scale, training, protocol, path = 1.0, None, "", None

    def __init__(self, name, method, channels=3, shift=0.0, workers=1, notes=()):
        self.name, self.method, self.channels, self.workers = name, method, channels, workers
        self.shift, self.notes, self.is_stopped, self.told = shift, notes, False, []

    def digest(self):
        return self.name

    def check(self, case):
        if case.levels is None and self.method == "integers":
            raise ValueError("the model takes integer images.")

    def estimate(self, noisy, told, tile, label=""):
        self.told.append((told, tile, label))
        return Estimate(noisy + np.float32(self.shift), sigma=told.sigma, notes=self.notes)

    def stop(self):
        self.is_stopped = True


def pixels(shape=(40, 50, 3), dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "set" / "a.png"
    path.parent.mkdir()
    Image.fromarray(pixels()).save(path)
    return path


def rows_of(path, contestants, windows=(), draw=0, protocol=PROTOCOL, **settings):
    items = figure.items_of([str(path)], draw)
    subjects = figure.read(items, windows, contestants[0].channels, protocol)
    return figure.measure(contestants, subjects, protocol, **settings)


# Which part


@pytest.mark.parametrize(
    "text, expected",
    [("3,4,5", (3, 4, 5, 5)), ("3,4,5,6", (3, 4, 5, 6)), ("0, 0, 1", (0, 0, 1, 1))],
    ids=["square", "oblong", "spaces"],
)
def test_crops_are_read(text, expected):
    assert window.parse(text) == expected
    assert window.parse(str(window.parse(text))) == expected


@pytest.mark.parametrize("text", ["", "1,2", "1,2,0", "1,2,3,0", "-1,2,3", "1,2,3,4,5", "a,b,c", "1.5,2,3", "٣,4,5"])
def test_crops_that_cannot_be_read(text):
    with pytest.raises(ValueError, match="A crop reads LEFT,TOP,WIDTH or LEFT,TOP,WIDTH,HEIGHT"):
        window.parse(text)


def test_a_crop_is_cut_out():
    image = np.arange(5 * 7).reshape(5, 7, 1)
    np.testing.assert_array_equal(Window(4, 2, 3, 2).of(image)[..., 0], [[18, 19, 20], [25, 26, 27]])


@pytest.mark.parametrize("text", ["5,2,3", "4,4,1,2", "9,0,1"], ids=["right", "bottom", "beyond"])
def test_a_crop_outside_of_the_image(text):
    with pytest.raises(ValueError, match=f"outside of the image, which is 7×5 pixels. Received: {text}"):
        window.parse(text).of(np.zeros((5, 7, 1)))


def test_the_most_textured_square_is_chosen():
    image = np.zeros((300, 400, 3))
    image[:, 200:] = 1000.0  # an edge has the most variance, and little texture
    image[70:190, 130:250] += pixels((120, 120, 3), seed=3)
    assert window.most_textured(image) == (128, 64, 128, 128)


def test_the_first_of_equal_squares_is_chosen():
    assert window.most_textured(np.zeros((200, 300, 1))) == (0, 0, 128, 128)


def test_the_square_of_a_small_image():
    assert window.most_textured(np.zeros((30, 20, 1))) == (0, 0, 20, 20)


# What is measured


def decibels(image, clean, peak=1.0):
    """PSNR by the textbook."""
    return 20 * np.log10(peak) - 10 * np.log10(np.mean((image.astype("float64") - clean) ** 2))


def test_numbers_and_pictures(photo):
    part = Window(10, 5, 12, 8)
    contestant = Fake("run", "l2", shift=0.25)
    (row,) = rows_of(photo, [contestant], [part])
    noisy, denoised, clean = row.panels
    assert [panel.label for panel in row.panels] == ["noisy", "L2", "clean"]
    case = row.subject.case
    cut = (slice(5, 13), slice(10, 22))
    in_bytes = np.clip(np.floor((case.noisy.astype("float64") + 0.25) * 255 + 0.5), 0, 255)
    original = pixels().astype("float64")
    assert denoised.psnr == pytest.approx(decibels(in_bytes, original, 255), abs=1e-3)
    assert denoised.psnr_crop == pytest.approx(decibels(in_bytes[cut], original[cut], 255), abs=1e-3)
    assert noisy.psnr == pytest.approx(decibels(case.noisy, original / 255), abs=1e-3)
    assert (clean.psnr, clean.psnr_crop) == (None, None)
    np.testing.assert_array_equal(denoised.pixels, in_bytes[cut])
    np.testing.assert_array_equal(clean.pixels, original[cut])
    assert noisy.pixels.min() == 0 and noisy.pixels.max() == 255  # clipped to be shown, and only for that
    told = Told("gaussian", pytest.approx((25 / 255,), rel=1e-6))
    assert contestant.told == [(told, None, "set/a.png/draw-0")]


def test_the_draw_counts(photo):
    first, second = (rows_of(photo, [Fake("run", "l2")], draw=draw)[0].panels[0].pixels for draw in (0, 1))
    assert (first != second).mean() > 0.5


def test_facts(photo):
    (row,) = rows_of(photo, [Fake("run", "l2")], [Window(1, 2, 3, 4)], draw=2)
    facts = row.facts()
    assert facts["crop"] == {"left": 1, "top": 2, "width": 3, "height": 4}
    assert (facts["dataset"], facts["image"], facts["draw"], facts["height"]) == ("set", "a.png", 2, 40)
    panel = facts["panels"][1]
    assert panel == {
        "label": "L2",
        "name": "run",
        "method": "l2",
        "psnr": row.panels[1].psnr,
        "psnr_crop": row.panels[1].psnr_crop,
        "sigma_used": pytest.approx(25 / 255, rel=1e-6),
    }


def test_floats_are_stretched_and_integers_where_asked(tmp_path):
    path = tmp_path / "a.npy"
    array = np.linspace(-3, 7, 60, dtype="float32").reshape(6, 10, 1)
    np.save(path, array)
    (row,) = rows_of(path, [Fake("run", "l2", 1)], [Window(0, 0, 10, 3)], protocol=FLOATS)
    expected = np.floor((array[:3] - array.min()) / (array[:3].max() - array.min()) * 255 + 0.5)
    np.testing.assert_allclose(row.panels[-1].pixels, expected, atol=1)
    assert row.shown == (-3.0, pytest.approx(array[:3].max()))

    dark = np.linspace(100, 1100, 60).reshape(6, 10).astype("uint16")
    Image.fromarray(dark).save(tmp_path / "b.png")
    (row,) = rows_of(tmp_path / "b.png", [Fake("run", "l2", 1)])
    assert row.panels[-1].pixels.max() == round(1100 / 65535 * 255)
    (row,) = rows_of(tmp_path / "b.png", [Fake("run", "l2", 1)], [Window(0, 0, 10, 6)], stretch=True)
    assert (row.panels[-1].pixels.min(), row.panels[-1].pixels.max()) == (0, 255)


def test_an_even_part_can_be_stretched(tmp_path):
    np.save(tmp_path / "a.npy", np.full((5, 5, 1), 7, "float32"))
    (row,) = rows_of(tmp_path / "a.npy", [Fake("run", "l2", 1)], protocol=FLOATS)
    assert row.shown == (7.0, 8.0)


def test_order_is_that_of_the_paper():
    methods = ["own", "n2v", "n2c", "full", "per_component", "n2n", "full", "l2", "bm3d"]
    contestants = [Fake(str(number), method) for number, method in enumerate(methods)]
    ordered = figure.in_paper_order(contestants)
    expected = ["bm3d", "l2", "per_component", "full", "full", "n2n", "n2c", "n2v", "own"]
    assert [one.method for one in ordered] == expected
    assert [one.name for one in ordered if one.method == "full"] == ["3", "6"]


def test_names_are_added_where_two_share_a_method(photo):
    contestants = [Fake("a", "full"), Fake("b", "full"), Fake("c", "n2c"), Fake("d", "own")]
    (row,) = rows_of(photo, contestants)
    captions = [panel.caption for panel in row.panels]
    assert [caption[:-1] for caption in captions[:-1]] == [
        ("noisy",),
        ("full", "a"),
        ("full", "b"),
        ("N2C",),
        ("own",),
    ]
    assert captions[0][-1] == f"{row.panels[0].psnr:.2f} dB"
    assert captions[-1] == ("clean",)


def test_grey_and_colour_are_not_mixed(tmp_path):
    contestants = [Fake("a", "full", 3), Fake("b", "l2", 1), Fake("bm3d, 1 channel", "bm3d", 1)]
    for one in contestants[:2]:
        one.path = tmp_path
    with pytest.raises(ValueError, match=r"PSNR of luminance is not .* Received: a \(3\), b \(1\). Make two figures"):
        figure.check_channels(contestants)
    assert figure.check_channels(contestants[1:]) == 1
    with pytest.raises(ValueError, match="Only grey .* can be shown. Received: 2 channels"):
        figure.check_channels([Fake("a", "full", 2)])


def test_images_that_do_not_fit_are_named(tmp_path, photo):
    with pytest.raises(ValueError, match=r"a.png: the crop .* outside of the image, which is 50×40"):
        rows_of(photo, [Fake("run", "l2")], [Window(40, 0, 20, 20)])
    np.save(tmp_path / "x.npy", np.zeros((5, 5, 1), "float32"))
    with pytest.raises(ValueError, match="x.npy: the model takes integer images"):
        rows_of(tmp_path / "x.npy", [Fake("run", "integers", 1)], protocol=FLOATS)


def test_number_of_crops(tmp_path):
    for seed, name in enumerate("abc"):
        Image.fromarray(pixels(seed=seed)).save(tmp_path / f"{name}.png")
    one, two = Window(0, 0, 5, 5), Window(1, 1, 6, 6)
    rows = rows_of(tmp_path, [Fake("run", "l2")], [one])
    assert [row.subject.window for row in rows] == [one] * 3
    rows = rows_of(tmp_path, [Fake("run", "l2")], [one, two, one])
    assert [row.subject.window for row in rows] == [one, two, one]
    with pytest.raises(ValueError, match="--crop takes one crop, or one for each of 3 images. Received: 2"):
        rows_of(tmp_path, [Fake("run", "l2")], [one, two])


def test_images_at_the_same_time_stay_in_order(tmp_path):
    for seed, name in enumerate("abc"):
        Image.fromarray(pixels(seed=seed)).save(tmp_path / f"{name}.png")
    last_is_done = threading.Event()

    class Slow(Fake):
        def estimate(self, noisy, told, tile, label=""):
            if "c.png" in label:
                last_is_done.set()
            assert last_is_done.wait(10)
            return super().estimate(noisy, told, tile, label)

    done = []
    rows = rows_of(tmp_path, [Slow("run", "bm3d", workers=3, notes=("slow",))], done=lambda: done.append(1))
    assert len(done) == 3
    for row in rows:
        np.testing.assert_array_equal(row.panels[0].pixels, row.panels[1].pixels)
    assert rows[0].notes == ("slow",)


def test_others_are_stopped_after_a_failure(photo, tmp_path):
    class Broken(Fake):
        def estimate(self, noisy, told, tile, label=""):
            raise ValueError("broken.")

    contestant = Broken("run", "bm3d", workers=2)
    with pytest.raises(ValueError, match="a.png: broken"):
        rows_of(photo, [contestant])
    assert contestant.is_stopped


def test_images_are_listed(tmp_path, photo):
    np.save(tmp_path / "stack.npy", np.zeros((2, 5, 5, 1), "float32"))
    items = figure.items_of([str(tmp_path / "stack.npy"), str(photo)], 4)
    assert [item.name for item in items] == ["stack.npy[0]", "stack.npy[1]", "a.png"]
    assert items[-1].label == "set/a.png/draw-4"
    with pytest.raises(ValueError, match="a.png: is named twice"):
        figure.items_of([str(photo), str(photo.parent)], 0)
    with pytest.raises(ValueError, match="--draw counts from 0. Received: -1"):
        figure.items_of([str(photo)], -1)


# How it is drawn


def ink(image):
    """Tells which pixels are not white."""
    return (np.asarray(image) != 255).any(axis=-1)


def strip_of(num, text="x", shape=(60, 100, 3), **settings):
    pictures = [strip.Picture(pixels(shape, seed=seed) // 2, (text,)) for seed in range(num)]
    return pictures, np.asarray(strip.draw([strip.Row("", pictures)], **settings))


def test_pictures_stand_side_by_side_with_white_between():
    pictures, drawn = strip_of(3)
    assert drawn.shape[1] == 3 * 100 + 2 * strip.GAP
    for place, picture in enumerate(pictures):
        left = place * (100 + strip.GAP)
        np.testing.assert_array_equal(drawn[:60, left : left + 100], picture.pixels)
        assert ink(drawn[60:, left : left + 100]).any()
    assert not ink(drawn[:, 100 : 100 + strip.GAP]).any()


def test_zoom_makes_squares():
    array = pixels((5, 4, 1))
    np.testing.assert_array_equal(strip.enlarged(array, 3), np.kron(array, np.ones((3, 3, 1), "uint8")))
    pictures, drawn = strip_of(1, shape=(60, 100, 1), zoom=2)
    np.testing.assert_array_equal(drawn[:120:2, :200:2], np.repeat(pictures[0].pixels, 3, axis=-1))


def test_long_rows_are_continued_below():
    pictures, drawn = strip_of(5, columns=2)
    assert drawn.shape[1] == 2 * 100 + strip.GAP
    below = drawn.shape[0] // 3
    tops = [top for top in range(60, drawn.shape[0] - 60) if (drawn[top : top + 60, :100] == pictures[2].pixels).all()]
    assert len(tops) == 1 and abs(tops[0] - below) <= strip.ROW_GAP
    assert not ink(drawn[-60:, 100:]).any()  # no sixth picture


def text_height(drawn, top):
    lines = np.flatnonzero(ink(drawn[top:]).any(axis=1))
    return lines.max() - lines.min() + 1


@pytest.mark.parametrize("side, zoom", [(10, 1), (64, 1), (64, 4), (2000, 1)], ids=["tiny", "small", "zoomed", "huge"])
def test_labels_can_be_read(side, zoom):
    _, drawn = strip_of(1, "E", (20, side, 3), zoom=zoom)
    assert 9 <= text_height(drawn, 20 * zoom) <= 0.8 * strip.MAX_FONT  # a capital has 0.7 of the font's size


def test_columns_are_wide_enough_for_their_labels():
    _, drawn = strip_of(2, "per-component", (20, 20, 3))
    columns = np.flatnonzero(ink(drawn[20:]).any(axis=0))
    assert columns.min() >= 0 and columns.max() < drawn.shape[1]
    middle = drawn.shape[1] // 2
    assert not ink(drawn[:, middle - 1 : middle + 1]).any()
    assert drawn.shape[1] > 2 * 60


def test_long_names_are_wrapped_and_not_cut(monkeypatch):
    texts = []
    whole = strip._text
    monkeypatch.setattr(strip, "_text", lambda lines, font: texts.append(list(lines)) or whole(lines, font))
    name = "a/very/long/name/of-a-run/denoiser.keras"
    _, drawn = strip_of(1, name)
    assert "".join(texts[0]) == name and len(texts[0]) > 1
    assert drawn.shape[1] < 200


def test_rows_have_titles():
    picture = strip.Picture(pixels((30, 90, 3)), ("x",))
    plain = strip.draw([strip.Row("", [picture])] * 2)
    titled = strip.draw([strip.Row("a.png", [picture])] * 2)
    extra = (titled.height - plain.height) // 2
    assert extra >= strip.MIN_FONT
    assert ink(titled)[: extra - strip.PAD, :90].any()
    np.testing.assert_array_equal(np.asarray(titled)[extra : extra + 30, :90], picture.pixels)


def test_pillow_without_scalable_fonts(monkeypatch):
    monkeypatch.setattr(strip.ImageFont, "load_default", lambda size: object())
    with pytest.raises(ValueError, match="Labels need a Pillow that was built with FreeType"):
        strip_of(1)


def test_only_several_images_are_named(tmp_path):
    for seed, name in enumerate("ab"):
        Image.fromarray(pixels(seed=seed)).save(tmp_path / f"{name}.png")
    rows = rows_of(tmp_path, [Fake("run", "l2")])
    one, two = figure.draw(rows[:1]), figure.draw(rows)
    assert two.height > 2 * one.height + strip.ROW_GAP
