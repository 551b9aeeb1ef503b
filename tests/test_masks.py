"""Tests of mask images: what is not zero is ignored."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from bsdenoise import images
from bsdenoise.images.masks import Masks, opened


def _mask(shape=(20, 30)):
    return np.random.default_rng(0).random(shape) < 0.3


def _write(path, mask):
    if path.suffix == ".npy":
        np.save(path, mask)
    elif path.name == "bits.png":
        Image.fromarray(mask).save(path)
    elif path.name == "bits.tif":
        tifffile.imwrite(path, mask)
    elif path.name == "labels.tif":
        tifffile.imwrite(path, mask.astype("int32") * 70000)
    elif path.name == "marker.png":  # red alone
        Image.fromarray(np.stack([mask * np.uint8(255), mask * 0, mask * 0], axis=-1).astype("uint8")).save(path)
    else:
        images.write(path, mask.astype("uint8") * (255 if path.suffix == ".png" else 1))
    return path


@pytest.mark.parametrize(
    "name", ["a.png", "a.tif", "a.npy", "bits.png", "bits.tif", "labels.tif", "marker.png", "a.zarr"]
)
def test_files_of_many_kinds_are_masks(name, tmp_path):
    mask = _mask()
    path = _write(tmp_path / name, mask)
    np.testing.assert_array_equal(Masks(path).of("whatever.tif", (20, 30, 3)), mask[..., None])
    with opened(path, 0, (20, 30)) as window:
        np.testing.assert_array_equal(window(slice(3, 9), slice(2, 30)), mask[3:9, 2:, None])


def test_a_folder_has_masks_under_the_names_of_images(tmp_path):
    (tmp_path / "below").mkdir()
    _write(tmp_path / "a.png", _mask())
    _write(tmp_path / "below/a.tif", ~_mask())
    masks = Masks(tmp_path)
    np.testing.assert_array_equal(masks.of("a.tif", (20, 30))[..., 0], _mask())
    np.testing.assert_array_equal(masks.of("below/a.ome.png".replace(".ome", ""), (20, 30))[..., 0], ~_mask())
    assert masks.of("b.tif", (20, 30)) is None


def test_stacks(tmp_path):
    stack = _mask((3, 20, 30))
    np.save(tmp_path / "a.npy", stack)
    masks = Masks(tmp_path)
    np.testing.assert_array_equal(masks.of("a.tif[2]", (20, 30))[..., 0], stack[2])
    with pytest.raises(ValueError, match="holds 3 masks, and there is an image 3"):
        masks.of("a.tif[3]", (20, 30))
    np.save(tmp_path / "a.npy", stack[0])  # one for all images
    np.testing.assert_array_equal(Masks(tmp_path).of("a.tif[2]", (20, 30))[..., 0], stack[0])


def test_channels_of_their_own(tmp_path):
    mask = _mask((20, 30, 4))
    np.save(tmp_path / "a.npy", mask)
    np.testing.assert_array_equal(Masks(tmp_path).of("a", (20, 30, 4)), mask)
    np.testing.assert_array_equal(Masks(tmp_path).of("a", (20, 30, 2)), mask.any(axis=-1, keepdims=True))


def test_masks_that_do_not_fit(tmp_path):
    _write(tmp_path / "a.png", _mask())
    with pytest.raises(ValueError, match=r"a\.png: a mask must have the size of its image, 20×30 .*Received: 30×20"):
        Masks(tmp_path).of("a.tif", (30, 20))
    with pytest.raises(ValueError, match="no such file"):
        Masks(tmp_path / "nothing")
    (tmp_path / "bad").mkdir()
    Image.fromarray(np.zeros((4, 5), "uint8")).save(tmp_path / "bad/a.jpg")
    with pytest.raises(ValueError, match="a JPEG cannot be a mask"):
        Masks(tmp_path / "bad")
    (tmp_path / "broken.png").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"broken\.png: cannot be read"):
        Masks(tmp_path / "broken.png").of("a", (4, 5))
    (tmp_path / "broken.npy").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"broken\.npy: not a readable"):
        Masks(tmp_path / "broken.npy").of("a", (4, 5))
