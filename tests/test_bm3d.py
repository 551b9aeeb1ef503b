"""BM3D and the folder of its results."""

import importlib
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bsdenoise.evaluation import bm3d

SIGMA = 0.1


def noisy_image(channels=1, seed=0, shape=(16, 12)):
    """Gives a smooth image with noise, and the image."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    clean = np.repeat((0.5 + 0.02 * rows - 0.02 * columns)[..., np.newaxis], channels, -1)
    noise = np.random.default_rng(seed).normal(0.0, SIGMA, clean.shape)
    return (clean + noise).astype("float32"), clean


@pytest.fixture
def method(tmp_path):
    return bm3d.Bm3d(tmp_path / "cache", workers=1)


@pytest.fixture
def calls(monkeypatch):
    """What was really computed, by something quicker than BM3D: a list of shapes."""
    shapes = []

    def shrink(noisy, sigma, profile):
        shapes.append(noisy.shape)
        return noisy * np.float32(1 - sigma), float(len(shapes))

    monkeypatch.setattr(bm3d, "run", shrink)
    return shapes


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "rgb"])
def test_it_is_the_packages_filter_on_the_whole_image(channels, method):
    package = importlib.import_module("bm3d")
    noisy, clean = noisy_image(channels)
    result = method.denoise(noisy, SIGMA)
    expected = package.bm3d(noisy[..., 0], SIGMA)[..., None] if channels == 1 else package.bm3d_rgb(noisy, SIGMA)
    assert (result.denoised.shape, result.denoised.dtype) == (noisy.shape, np.float32)
    np.testing.assert_allclose(result.denoised, expected, atol=2e-3)
    assert np.std(result.denoised - clean) < 0.6 * SIGMA
    assert result.seconds > 0


@pytest.mark.parametrize("scale, offset", [(1e-3, 0.0), (1e4, 1e3)], ids=["small", "large"])
def test_units_do_not_matter(scale, offset, method):
    noisy, _ = noisy_image()
    expected = method.denoise(noisy, SIGMA).denoised
    scaled = method.denoise(noisy * np.float32(scale) + np.float32(offset), SIGMA * scale).denoised
    np.testing.assert_allclose((scaled - offset) / scale, expected, atol=2e-3)


def test_a_result_is_computed_once_whatever_the_image_is_called(method, calls):
    noisy, _ = noisy_image()
    first = method.denoise(noisy, 25 / 255, "kodak/a.png/draw-0")
    again = bm3d.Bm3d(method.cache, workers=1).denoise(noisy.copy(), float(np.float32(25 / 255)), "a.png/draw-0")
    assert len(calls) == 1
    np.testing.assert_array_equal(again.denoised, first.denoised)
    assert again.seconds == first.seconds
    (path,) = method.cache.rglob("*.npz")
    assert path.parent == method.cache / "kodak" / "a.png" / "draw-0"


@pytest.mark.parametrize(
    "change",
    [
        lambda method, noisy: (noisy + np.float32(1e-6), SIGMA),
        lambda method, noisy: (noisy, SIGMA * 1.001),
        lambda method, noisy: (noisy.reshape(12, 16, 1), SIGMA),
        lambda method, noisy: setattr(method, "version", "bm3d 0.0.0") or (noisy, SIGMA),
    ],
    ids=["pixels", "sigma", "shape", "version"],
)
def test_what_has_changed_is_computed_again(change, method, calls):
    noisy, _ = noisy_image()
    method.denoise(noisy, SIGMA, "a.png")
    method.denoise(*change(method, noisy), "a.png")
    assert len(calls) == 2


def break_by_cutting(path):
    path.write_bytes(path.read_bytes()[:200])


def break_by_one_bit(path):
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def break_by_other_content(path):
    np.savez(path, denoised=np.zeros((3, 3), "float32"), seconds=1.0)


def break_by_missing_member(path):
    np.savez(path, seconds=1.0)


@pytest.mark.parametrize(
    "damage", [break_by_cutting, break_by_one_bit, break_by_other_content, break_by_missing_member]
)
def test_a_broken_file_is_computed_again_with_a_word(damage, method, calls):
    noisy, _ = noisy_image()
    first = method.denoise(noisy, SIGMA, "a.png")
    (path,) = method.cache.rglob("*.npz")
    damage(path)
    second = method.denoise(noisy, SIGMA, "a.png")
    assert len(calls) == 2
    np.testing.assert_array_equal(second.denoised, first.denoised)
    assert len(second.notes) == 1
    assert f"{path}: is broken" in second.notes[0]
    assert method.denoise(noisy, SIGMA, "a.png").notes == ()
    assert len(calls) == 2


@pytest.mark.parametrize(
    "label, folder",
    [
        ("/data/my set/a.png/draw-0", "data/my_set/a.png/draw-0"),
        ("../../x/./a.npy[3]", "x/a.npy[3]"),
        ("", "unnamed"),
        ("a:b*c\\d", "a_b_c_d"),
    ],
    ids=["absolute", "upwards", "empty", "strange"],
)
def test_labels_stay_below_the_folder(label, folder, method, monkeypatch):
    monkeypatch.setattr(bm3d, "run", lambda noisy, sigma, profile: (noisy, 1.0))
    method.denoise(noisy_image()[0], SIGMA, label)
    (path,) = method.cache.rglob("*.npz")
    assert path.parent == method.cache / folder


def test_other_processes_compute_the_same(method, tmp_path):
    """To rounding: its transforms depend on where arrays lie in memory, seen as 4e-7 on a machine under load."""
    noisy, _ = noisy_image()
    elsewhere = bm3d.Bm3d(tmp_path / "other", workers=2)
    expected = method.denoise(noisy, SIGMA).denoised
    np.testing.assert_allclose(elsewhere.denoise(noisy, SIGMA).denoised, expected, atol=2e-6)


@pytest.mark.parametrize("workers", [1, 2], ids=["here", "apart"])
def test_errors_of_the_package(workers, tmp_path, monkeypatch):
    monkeypatch.setattr(bm3d, "PROFILE", "no such profile")
    method = bm3d.Bm3d(tmp_path, workers)
    with pytest.raises(ValueError, match="BM3D cannot denoise this image: "):
        method.denoise(noisy_image()[0], SIGMA)


def die(sender, *job):
    """Stands for a process that the system ends."""
    os._exit(1)


def test_a_process_that_dies(tmp_path, monkeypatch):
    method = bm3d.Bm3d(tmp_path, workers=2)
    monkeypatch.setattr(bm3d, "_run_and_send", die)
    with pytest.raises(OSError, match=r"BM3D's process ended after \d+ s with no result"):
        method.denoise(noisy_image()[0], SIGMA)
    assert not list(tmp_path.rglob("*.npz"))


def hang(sender, noisy, sigma, profile):
    """Stands for a long computation; the "profile" names a file to write at its beginning."""
    Path(profile).touch()
    threading.Event().wait(100)


def test_a_computation_can_be_stopped(tmp_path, monkeypatch):
    begun = tmp_path / "begun"
    method = bm3d.Bm3d(tmp_path / "cache", workers=2)
    monkeypatch.setattr(bm3d, "_run_and_send", hang)
    monkeypatch.setattr(bm3d, "PROFILE", str(begun))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(method.denoise, noisy_image()[0], SIGMA)
        while not begun.exists() and not future.done():
            time.sleep(0.01)
        start = time.monotonic()
        method.stop()
        with pytest.raises(OSError, match="with no result"):
            future.result()
        assert time.monotonic() - start < 20
        with pytest.raises(OSError, match="with no result"):  # a thread that comes late
            method.denoise(noisy_image(seed=1)[0], SIGMA)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((12, 12, 2), r"grey \(1 channel\) and RGB images \(3\). Received: 2 channels"),
        ((8, 8, 1), "sides of at least 9 pixels. Received: 8×8"),
        ((3, 20, 3), "sides of at least 9 pixels. Received: 20×3"),
    ],
    ids=["channels", "small", "flat"],
)
def test_images_that_it_cannot_do(shape, message, method):
    with pytest.raises(ValueError, match=message):
        method.denoise(np.zeros(shape, "float32"), SIGMA)


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan")])
def test_sigma_must_be_positive(sigma, method):
    with pytest.raises(ValueError, match="BM3D needs a positive sigma. Received: "):
        method.denoise(noisy_image()[0], sigma)


def test_the_smallest_image(method):
    assert method.denoise(noisy_image(shape=(9, 9))[0], SIGMA).denoised.shape == (9, 9, 1)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(
        ValueError, match=r"pip install 'bsdenoise\[bm3d\]' \(its licence allows non-commercial use only\)"
    ):
        bm3d.Bm3d(tmp_path)


def test_a_package_that_cannot_be_loaded(tmp_path, monkeypatch):
    def refuse(name):
        raise ImportError("libopenblas.so.0: cannot open shared object file")

    monkeypatch.setattr(bm3d.extras, "check", lambda what: None)
    monkeypatch.setattr(bm3d.importlib, "import_module", refuse)
    with pytest.raises(ValueError, match=r"bm3d is installed and cannot be loaded: libopenblas.so.0: cannot open"):
        bm3d.Bm3d(tmp_path)


def test_a_cache_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/cache: cannot be a folder for results of BM3D: Not a directory"):
        bm3d.Bm3d(tmp_path / "file" / "cache")


def test_the_default_folder_is_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert tmp_path in bm3d.default_cache().parents
    assert "bsdenoise" in bm3d.default_cache().parts
