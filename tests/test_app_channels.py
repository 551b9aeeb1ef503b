"""Which model takes a file on the page, in which units, and what is told while it works."""

import threading
from contextlib import nullcontext

import numpy as np
import pytest
import tifffile
from page_denoiser import PageDenoiser
from PIL import Image

from bsdenoise import images
from bsdenoise.app.denoising import Workshop
from bsdenoise.app.steps import Meter, Step

MANY = 2**20


FILES = {
    "OME-TIFF CYX": ({"photometric": "minisblack", "metadata": {"axes": "CYX"}}, (3, 16, 20), "a.ome.tif", False),
    "ImageJ CYX": ({"imagej": True, "metadata": {"axes": "CYX"}}, (3, 16, 20), "a.tif", False),
    "three grey samples": ({"photometric": "minisblack", "planarconfig": "contig"}, (16, 20, 3), "a.tif", False),
    "RGB": ({"photometric": "rgb"}, (16, 20, 3), "a.tif", True),
    "RGB in planes": ({"photometric": "rgb", "planarconfig": "separate"}, (3, 16, 20), "a.tif", True),
}


@pytest.mark.parametrize(("options", "shape", "name", "is_rgb"), FILES.values(), ids=FILES)
def test_only_what_the_file_calls_rgb_is_rgb(tmp_path, options, shape, name, is_rgb):
    pixels = np.random.default_rng(0).integers(0, 60_000, shape, np.uint16)
    tifffile.imwrite(tmp_path / name, pixels, **options)
    rgb, grey = PageDenoiser(3), PageDenoiser(1)
    facts, chosen, _ = Workshop(rgb, MANY, grey).denoise(tmp_path / name, tmp_path / f"out-{name}", None, 0)
    assert (rgb.shapes, grey.shapes) == (([(16, 20, 3)], []) if is_rgb else ([], [(16, 20, 1)] * 3))
    assert (facts.is_picture, facts.one_by_one, len(chosen.sigmas)) == (is_rgb, not is_rgb, 1 if is_rgb else 3)
    planes = pixels if shape[0] == 3 else np.moveaxis(pixels, -1, 0)
    np.testing.assert_allclose(np.moveaxis(chosen.denoised, -1, 0), planes / 2, atol=0.51)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / f"out-{name}").ravel() // 2, (pixels + 1).ravel() // 4)


def test_a_model_that_was_named_takes_the_channels_that_it_was_trained_for(tmp_path):
    """Whoever trained it on three channels of a microscope names it."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 16, 20), np.uint16), imagej=True, metadata={"axes": "CYX"})
    facts = Workshop(PageDenoiser(3), MANY).inspect(tmp_path / "a.tif")
    assert (facts.one_by_one, facts.is_picture) == (False, False)


@pytest.mark.parametrize(("preset", "is_refused"), [("rgb-gaussian5-50-small", True), ("of one's own", False)])
def test_a_shipped_model_for_rgb_refuses_other_channels(tmp_path, preset, is_refused):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 16, 20), np.uint16), imagej=True, metadata={"axes": "CYX"})
    model = PageDenoiser(3)
    model.provenance = {"preset": preset}
    with pytest.raises(ValueError, match=r"a\.tif: its 3 channels are independent") if is_refused else nullcontext():
        Workshop(model, MANY).inspect(tmp_path / "a.tif")


def test_what_the_denoised_file_cannot_keep_is_said_at_once(tmp_path):
    """A JPEG by its content, whose denoised copy is a PNG by its name."""
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png", "JPEG", comment="of a day in May")
    path = tmp_path / "a.png"
    data = path.read_bytes()
    extra = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x05\0\x03day"
    path.write_bytes(data[:2] + b"\xff\xed" + (len(extra) + 2).to_bytes(2, "big") + extra + data[2:])
    notes = Workshop(PageDenoiser(3), MANY).inspect(path).notes
    assert any("not kept in denoised-a.png" in note for note in notes)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_bits_have_a_full_scale_of_their_own(tmp_path, bits):
    """Half of the counts, and σ = a tenth of full scale in counts."""
    full = 2**bits - 1
    pixels = np.random.default_rng(0).integers(0, full, (16, 20), np.uint16, endpoint=True)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", bitspersample=bits)
    model = PageDenoiser(1)
    facts, chosen, _ = Workshop(model, MANY).denoise(tmp_path / "a.tif", tmp_path / "b.tif", None, 0)
    assert facts.full_scale == full
    assert facts.own_sigma == pytest.approx(0.1 * full)
    assert facts.trained == pytest.approx((0, full))
    assert facts.peak == pytest.approx(full)
    assert chosen.sigmas == pytest.approx((0.1 * full,))
    np.testing.assert_allclose(chosen.denoised[..., 0], pixels / 2, atol=0.51)
    _, chosen, _ = Workshop(model, MANY).look(tmp_path / "a.tif", "30", 0)
    assert model.sigmas[-1] == pytest.approx(30 / full)
    assert (chosen.sigmas, chosen.given) == (pytest.approx((30,)), "30")
    assert (images.read_array(tmp_path / "b.tif") == (pixels + 1) // 2).mean() > 0.99


def test_a_psnr_that_one_channel_withholds_is_withheld_for_all(tmp_path):
    np.save(tmp_path / "a.npy", np.full((16, 20, 3), 100, np.uint8))
    _, chosen, _ = Workshop(PageDenoiser(1, (30.0, np.nan, 30.0)), MANY).look(tmp_path / "a.npy", "10", 0)
    assert np.isnan(chosen.estimated_psnr)


def test_steps_are_told_from_the_first_to_the_last(tmp_path):
    np.save(tmp_path / "a.npy", np.full((4, 16, 20, 3), 100, np.uint8))
    told = []
    Workshop(PageDenoiser(1), MANY).denoise(tmp_path / "a.npy", tmp_path / "b.npy", "10", 2, told.append)
    assert [told[0].doing, told[-1].doing] == ["reading", "writing"]
    denoising = told[1:-1]
    assert {step.doing for step in denoising} == {"denoising"}
    shares = [step.share for step in denoising]
    assert shares == sorted(shares)
    assert set(np.round(np.multiply(shares, 12), 6)) >= set(range(13)), "four images of three channels each"
    assert {step.image for step in denoising} == {1, 2, 3, 4}


def test_blocks_within_an_image_are_told_by_a_model_that_counts_them(tmp_path):
    from bsdenoise import progress

    class Counting(PageDenoiser):
        def denoise(self, noisy, sigma, **options):
            for _ in range(5):
                progress.advance(16 * 20 / 5)
            return super().denoise(noisy, sigma, **options)

    np.save(tmp_path / "a.npy", np.full((16, 20, 2), 100, np.uint8))
    shares = []
    Workshop(Counting(1), MANY).look(tmp_path / "a.npy", "10", 0, lambda step: shares.append(step.share))
    assert set(np.round(np.multiply(shares[1:], 10), 6)) == set(range(11))


def test_a_wrong_sigma_is_told_before_anything_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.full((16, 20), 100, np.uint8))
    told = []
    with pytest.raises(ValueError, match="A sigma must be positive"):
        Workshop(PageDenoiser(1), MANY).look(tmp_path / "a.npy", "0", 0, told.append)
    assert told == []


def test_the_time_left_is_that_of_the_work_that_is_left(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    told = []
    meter = Meter(2, told.append)
    meter.advance(0.0)
    now = 110.0
    meter.advance(0.5)
    meter.next_image()
    now = 150.0
    meter.advance(0.6)
    assert told == [
        Step("denoising", 1, 2, 0.0, None),
        Step("denoising", 1, 2, 0.25, pytest.approx(30.0)),
        Step("denoising", 2, 2, 0.8, pytest.approx(12.5)),
    ]


def test_one_who_waits_for_another_is_told(tmp_path):
    np.save(tmp_path / "a.npy", np.full((16, 20), 100, np.uint8))
    workshop = Workshop(PageDenoiser(1), MANY)
    told, others = [], []

    def tell(step):
        told.append(step.doing)
        if step.doing == "denoising" and not others:
            waits = threading.Event()
            other = threading.Thread(
                target=workshop.look,
                args=(tmp_path / "a.npy", "10", 0, lambda step: (others.append(step.doing), waits.set())),
            )
            other.start()
            assert waits.wait(20)
            others.append(other)

    workshop.look(tmp_path / "a.npy", "10", 0, tell)
    others.pop(1).join(20)
    assert others[:2] == ["waiting", "reading"]
