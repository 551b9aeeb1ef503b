"""What is measured of one image, and what an interrupted evaluation keeps."""

import dataclasses
import itertools
import json
import threading
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tifffile
from PIL import Image

from bsdenoise.evaluation import cases, contestants, metrics, records

SPEC = "gaussian:25"


def gaussian(sigma):
    """What contestants are told, up to rounding."""
    return cases.Told("gaussian", pytest.approx((sigma,)))


@pytest.fixture
def model(tiny_denoiser_path):
    path = tiny_denoiser_path(3)
    return contestants.Model("tiny", path, keras.models.load_model(path))


@pytest.fixture
def items(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (13, 12, 3), "uint8")).save(folder / name)
    return cases.clean_items([str(folder)], (1,), (1,))


def measure(model, items, protocol=None, path=None, **listeners):
    def fail(item, error):
        raise AssertionError(item) from error

    protocol = protocol or records.Protocol(SPEC)
    return list(records.measure_all([model], items, protocol, records.Store(path), **({"failed": fail} | listeners)))


def test_a_record_holds_what_the_parts_say(model, items):
    record = measure(model, items)[0]
    case = cases.read_clean(items[0], 3, SPEC)
    post = model.denoiser.posterior(case.noisy, sigma=25 / 255)
    eight_bits = np.clip(post.denoised * 255 + 0.5, 0, 255).astype("uint8") / 255.0
    assert record.psnr == pytest.approx(metrics.psnr(eight_bits, case.clean, 1.0), abs=1e-5)
    assert record.psnr_unrounded == pytest.approx(metrics.psnr(post.denoised, case.clean, 1.0), abs=1e-5)
    assert record.psnr != pytest.approx(record.psnr_unrounded, abs=1e-4)
    assert record.psnr_noisy == pytest.approx(-20 * np.log10(25 / 255), abs=0.8)
    assert record.sure_psnr == pytest.approx(post.estimated_psnr, abs=1e-5)
    assert record.ssim == pytest.approx(metrics.ssim(eight_bits, case.clean, 1.0), abs=1e-5)
    expected = np.mean((post.denoised - case.clean) ** 2) / np.mean(post.std**2)
    assert record.calibration == pytest.approx(expected, rel=1e-4)
    assert (record.height, record.width, record.channels) == (13, 12, 3)
    assert record.seconds > 0


def test_which_sigma_the_model_is_told(model, items, tiny_denoiser_path):
    assert measure(model, items, records.Protocol(SPEC))[0].sigma_used == pytest.approx(25 / 255)
    assert measure(model, items, records.Protocol(SPEC, sigma="30"))[0].sigma_used == pytest.approx(30 / 255)
    path = tiny_denoiser_path(3, high=50 / 255)
    blind = contestants.Model("range", path, keras.models.load_model(path))
    record = measure(blind, items, records.Protocol("gaussian:40", own_sigma=True))[0]
    case = cases.read_clean(items[0], 3, "gaussian:40")
    assert record.sigma_used == pytest.approx(float(blind.denoiser.own_sigma(case.noisy[None])[0]))
    assert record.sigma == pytest.approx(40 / 255)
    assert record.sure_psnr is None  # worth nothing with an estimated sigma
    assert measure(blind, items, records.Protocol("gaussian:40"))[0].sure_psnr is not None


def test_real_pairs_take_the_models_own_sigma(model, tmp_path):
    rng = np.random.default_rng(0)
    clean = rng.integers(50, 200, (13, 12, 3), "uint8")
    for name, image in (("clean", clean), ("noisy", clean + rng.integers(0, 50, clean.shape, "uint8"))):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / "x.png")
    items = cases.paired_items(str(tmp_path / "noisy"), str(tmp_path / "clean"))
    (record,) = measure(model, items, records.Protocol(None))
    assert record.sigma is None
    assert record.sigma_used == pytest.approx(25 / 255)


class Constant:
    """A contestant that says what it was made with, and counts its calls."""

    method, channels, scale, workers = "own", 3, 1.0, 1

    def __init__(self, workers=1, **says):
        self.name, self.workers, self.says, self.calls = "constant", workers, says, []

    def digest(self):
        return "constant"

    def check(self, case):
        pass

    def estimate(self, noisy, told, tile, label=""):
        self.calls.append((told, tile, label))
        return contestants.Estimate(np.full_like(noisy, 0.5), **self.says)


def test_what_a_contestant_does_not_say_is_none(items):
    record = measure(Constant(), items)[0]
    missing = ("sigma_used", "psnr_mean", "sure_psnr", "calibration")
    assert [getattr(record, name) for name in missing] == [None] * 4 and not record.sure_withheld
    clean = cases.read_clean(items[0], 3, SPEC).clean
    assert record.psnr_unrounded == pytest.approx(metrics.psnr(np.full_like(clean, 0.5), clean, 1.0))


def test_an_estimate_that_is_withheld_is_no_number(items, tmp_path):
    path = tmp_path / "records.jsonl"
    contestant = Constant(sigma=0.2, estimated_psnr=float("nan"))
    (record, *_) = measure(contestant, items, path=path)
    assert (record.sure_psnr, record.sure_withheld) == (None, True)
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert measure(contestant, items, path=path)[0] == record and len(contestant.calls) == len(items)


def test_what_a_contestant_says_is_kept(items):
    lines = []
    contestant = Constant(seconds=9.0, sigma=0.2, estimated_psnr=20.0, notes=("look",))
    contestant.scale = 0.1
    first, second = measure(contestant, items, records.Protocol(SPEC, tile=64), note=lines.append)
    assert (first.seconds, first.sigma_used) == (9.0, 0.2)
    assert first.sure_psnr == pytest.approx(40.0)  # a peak ten times as high
    assert lines == ["look"]
    assert contestant.calls[0] == (gaussian(25 / 255), 64, "set/a.png/draw-0")


@pytest.mark.parametrize(
    "protocol, told",
    [
        (records.Protocol(SPEC), gaussian(25 / 255)),
        (records.Protocol(SPEC, sigma="51"), gaussian(0.2)),
        (records.Protocol(SPEC, own_sigma=True), None),
    ],
    ids=["added", "another", "own"],
)
def test_what_contestants_are_told(protocol, told, items):
    contestant = Constant()
    measure(contestant, items[:1], protocol)
    assert contestant.calls[0][0] == told


class Simultaneous(Constant):
    """Denoises two images at the same time, and the first of each pair last."""

    def __init__(self, fails=()):
        super().__init__(workers=2)
        self.barrier, self.second_done, self.fails = threading.Barrier(2, timeout=20), threading.Event(), fails

    def estimate(self, noisy, told, tile, label=""):
        self.barrier.wait()  # passes only if two are here
        if label == "set/a.png/draw-0":
            self.second_done.wait(20)
        else:
            self.second_done.set()
        if label in self.fails:
            raise ValueError(f"no {label}")
        return super().estimate(noisy, told, tile, label)


def test_several_at_the_same_time_stay_in_order(items):
    contestant = Simultaneous()
    assert [record.image for record in measure(contestant, items)] == ["a.png", "b.png"]
    assert [label for _, _, label in contestant.calls] == ["set/b.png/draw-0", "set/a.png/draw-0"]


def test_one_of_several_may_fail(items):
    failures = []
    contestant = Simultaneous(fails=("set/a.png/draw-0",))
    result = measure(contestant, items, failed=lambda item, error: failures.append((item.name, str(error))))
    assert [record.image for record in result] == ["b.png"]
    assert failures == [("a.png", "no set/a.png/draw-0")]


def test_others_are_stopped_when_nobody_wants_the_rest(items):
    class Stoppable(Simultaneous):
        def __init__(self):
            super().__init__()
            self.is_stopped, self.started = threading.Event(), itertools.count()

        def estimate(self, noisy, told, tile, label=""):
            if next(self.started) >= 2:
                self.is_stopped.wait(20)
                raise OSError("stopped")
            return super().estimate(noisy, told, tile, label)

        def stop(self):
            self.is_stopped.set()

    contestant = Stoppable()
    more = [dataclasses.replace(item, draw=draw) for draw in (0, 1, 2) for item in items]
    failures = []
    running = records.measure_all(
        [contestant], more, records.Protocol(SPEC), records.Store(None), lambda *failure: failures.append(failure)
    )
    next(running)
    running.close()
    assert contestant.is_stopped.is_set()
    assert len(contestant.calls) == 2
    assert failures == []


def test_finished_images_are_not_measured_again(model, items, tmp_path):
    path = tmp_path / "out" / "records.jsonl"
    first = measure(model, items[:1], path=path)
    path.write_text(path.read_text() + '{"key": "half a li')  # as a crash leaves it
    both = measure(model, items, path=path)
    assert both[0] == first[0]  # the time that it took included
    third = measure(model, items, path=path)
    assert third == both
    lines = path.read_text().splitlines()
    assert sum('"record"' in line for line in lines) == 2


def test_what_has_changed_is_measured_again(model, items, tmp_path):
    path = tmp_path / "records.jsonl"
    first = measure(model, items, path=path)
    other_noise = measure(model, items, records.Protocol("gaussian:30"), path=path)
    assert other_noise[0].psnr_noisy < first[0].psnr_noisy
    Image.fromarray(np.full((13, 12, 3), 100, "uint8")).save(items[0].path)
    again = measure(model, items, path=path)
    assert again[0].psnr_noisy != first[0].psnr_noisy
    assert again[1] == first[1]


def test_a_record_of_another_version_is_measured_again(model, items, tmp_path):
    path = tmp_path / "records.jsonl"
    measure(model, items[:1], path=path)
    entry = json.loads(path.read_text())
    del entry["record"]["ssim"]
    path.write_text(json.dumps(entry) + "\n")
    assert measure(model, items[:1], path=path)[0].ssim is not None


def test_a_bad_image_does_not_stop_the_others(model, items):
    items[0].path.write_bytes(b"no image")
    failures = []
    result = measure(model, items, failed=lambda item, error: failures.append((item, str(error))))
    assert [record.image for record in result] == ["b.png"]
    ((item, message),) = failures
    assert item is items[0]
    assert "a.png: cannot be read" in message


def test_conversions_are_noted_once(model, tmp_path):
    Image.fromarray(np.full((13, 12), 100, "uint8")).save(tmp_path / "grey.png")
    lines = []
    measure(model, cases.clean_items([str(tmp_path)], (2,), (1,)), note=lines.append)
    assert len(lines) == 1
    assert lines[0].endswith("grey.png: grey, taken as RGB with three equal channels")


def test_images_in_other_units_than_the_models(model, tmp_path):
    np.save(tmp_path / "float.npy", np.random.default_rng(0).uniform(size=(12, 13, 3)).astype("float32"))
    failures = []
    items = cases.clean_items([str(tmp_path)], (1,), (1,))
    measure(model, items, records.Protocol("gaussian:0.1"), failed=lambda _, error: failures.append(str(error)))
    assert failures == [
        "the model takes integer images: its units are fractions of full scale (25 grey levels of 8 bits are 0.098)."
    ]


def test_independent_channels_are_no_picture_in_colour(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 13, 12), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", metadata={"axes": "CYX"})
    (item,) = cases.clean_items([str(tmp_path)], (1,), (1,))
    assert len(measure(model, [item])) == 1  # a model of somebody's own may know such channels
    refused = []
    model.training = {"preset": "rgb-gaussian25"}
    measure(model, [item], failed=lambda item, error: refused.append(str(error)))
    assert len(refused) == 1
    assert "its 3 channels are independent, no RGB, which preset rgb-gaussian25 is for" in refused[0]
    with pytest.raises(ValueError, match=r"a\.tif: its 3 channels are independent and have no luminance"):
        records.read_case(item, 1, records.Protocol(SPEC))
    case = records.read_case(item, 3, records.Protocol(SPEC))
    with pytest.raises(ValueError, match="BM3D takes three channels for red, green and blue"):
        contestants.Bm3d("bm3d", 3, bm3d_filter=SimpleNamespace(workers=1)).check(case)
    contestants.Bm3d("bm3d", 3, bm3d_filter=SimpleNamespace(workers=1)).check(
        dataclasses.replace(case, independent_channels=False)
    )
