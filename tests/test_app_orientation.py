"""Photographs stand upright on the page and stay as they are in the file; Pillow says which way is up."""

import itertools

import numpy as np
import pytest
import tifffile
from page_denoiser import PageDenoiser
from PIL import Image, ImageOps

from bsdenoise import images
from bsdenoise.app import orientation
from bsdenoise.app.denoising import Workshop

TAG = 0x0112
ALL = range(1, 9)


def picture():
    """Pixels of which no turned or mirrored copy is the same; smooth, so that JPEG keeps them."""
    rows, columns = np.mgrid[:24, :40]
    return np.stack([5 * rows, 5 * columns, 60 + rows + columns], axis=-1).astype(np.uint8)


def save(path, number, pixels):
    """Writes a file that declares an orientation."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, extratags=[(TAG, 3, 1, number, True)])
        return path
    exif = Image.Exif()
    exif[TAG] = number
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


def by_pillow(path):
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize(("suffix", "number"), [*itertools.product((".jpg", ".png", ".tif"), ALL)])
def test_pictures_stand_upright(tmp_path, suffix, number):
    path = save(tmp_path / f"a{suffix}", number, picture())
    facts = Workshop(PageDenoiser(3), 10_000).inspect(path)
    assert facts.orientation == number
    upright = orientation.upright(images.read_array(path), facts.orientation)
    np.testing.assert_array_equal(upright, by_pillow(path))
    is_as_stored = upright.shape == picture().shape and np.abs(upright - picture().astype(float)).max() <= 3
    assert is_as_stored == (number == 1)


@pytest.mark.parametrize(("suffix", "number"), [*itertools.product((".jpg", ".png", ".tif"), (3, 6))])
def test_all_views_are_turned_and_the_file_is_not(tmp_path, suffix, number):
    pytest.importorskip("gradio")
    from bsdenoise.app import page

    path = save(tmp_path / f"a{suffix}", number, picture())
    stored = images.read_array(path)
    handlers = page.Handlers(Workshop(PageDenoiser(3), 10_000), tmp_path)
    _, facts, (noisy, denoised), uncertainty, download = handlers.denoise(str(path), "", 1)
    upright = by_pillow(path)
    np.testing.assert_array_equal(noisy, upright)
    assert np.abs(denoised - upright / 2.0).max() <= 3  # JPEG rounds
    # The stand-in's uncertainty is its denoised image, brighter: darkest where the picture is.
    luminance = uncertainty.astype(float) @ [0.299, 0.587, 0.114]
    assert np.corrcoef(luminance.ravel(), upright.mean(axis=-1).ravel())[0, 1] > 0.9
    assert ("turned by 180°" if number == 3 else "turned clockwise by 90°") in facts["value"]
    result = images.read(download["value"])
    assert result.shape == stored.shape
    assert np.abs(result.array - stored / 2.0).max() <= 3
    np.testing.assert_array_equal(by_pillow(download["value"]).shape, upright.shape)


def exif_block(value):
    exif = Image.Exif()
    exif[TAG] = value
    return exif.tobytes()


def test_broken_exif_is_passed_over_silently(recwarn):
    """Of this block Pillow warns."""
    assert orientation.read({"exif": b"MM\0*" + b"\xff" * 20}) == 1
    assert list(recwarn) == []


@pytest.mark.parametrize(
    "block",
    [b"", b"no EXIF", b"II*\0\xff\xff\xff\xff", exif_block(0), exif_block(9), exif_block(65535), exif_block(6)[:12]],
)
def test_what_declares_nothing_that_makes_sense_is_left_as_it_is(block):
    assert orientation.read({"exif": block} if block else {}) == 1


def test_stacks_and_other_channels_are_turned_as_well():
    pixels = np.random.default_rng(0).random((3, 5, 4))
    np.testing.assert_array_equal(orientation.upright(pixels, 6), np.rot90(pixels, -1))
    np.testing.assert_array_equal(orientation.upright(pixels[..., 0], 8), np.rot90(pixels[..., 0]))
