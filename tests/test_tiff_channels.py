"""Which channels of a TIFF file are colours: those of pages that are called RGB, and no others."""

import numpy as np
import pytest
import tifffile
from tiff_files import RGB, random_pixels, save

from bsdenoise import images

CONTIG, PLANAR = {"planarconfig": "contig"}, {"planarconfig": "separate"}
INDEPENDENT = {
    # name: shape, type, options of tifffile.imwrite
    "ome, CYX": ((3, 9, 8), "u2", {"ome": True, "metadata": {"axes": "CYX"}}),
    "ome, TCZYX": ((2, 3, 2, 9, 8), "u2", {"ome": True, "metadata": {"axes": "TCZYX"}}),
    "ome, three samples": ((9, 8, 3), "u1", {"ome": True, **CONTIG, "metadata": {"axes": "YXS"}}),
    "ome, three planes": ((3, 9, 8), "f4", {"ome": True, **PLANAR, "metadata": {"axes": "SYX"}}),
    "imagej, CYX": ((3, 9, 8), "u1", {"imagej": True, "metadata": {"axes": "CYX", "mode": "composite"}}),
    "imagej, TZCYX": ((2, 4, 3, 9, 8), "u2", {"imagej": True, "metadata": {"axes": "TZCYX"}}),
    "three samples": ((9, 8, 3), "u2", {**CONTIG, "metadata": None}),
    "three planes": ((3, 9, 8), "f4", {**PLANAR, "metadata": None}),
    "three samples, white is zero": ((9, 8, 3), "u2", {**CONTIG, "photometric": "miniswhite", "metadata": None}),
    "three samples and alpha": ((9, 8, 4), "u1", {**CONTIG, "extrasamples": [0, 0, 2], "metadata": None}),
    "shaped, CYX": ((3, 9, 8), "u2", {"metadata": {"axes": "CYX"}}),
    "shaped, TYXC": ((2, 9, 8, 3), "u2", {"metadata": {"axes": "TYXC"}}),
    "shaped, CYX, called RGB by default": ((3, 9, 8), "u2", {"photometric": None, "metadata": {"axes": "CYX"}}),
    "two channels": ((2, 9, 8), "u2", {"metadata": {"axes": "CYX"}}),
    "five samples": ((9, 8, 5), "u2", {**CONTIG, "metadata": None}),
}
COLOURS = {
    "rgb": ((9, 8, 3), "u1", {**RGB, "metadata": None}),
    "rgb in planes": ((3, 9, 8), "u2", {**RGB, **PLANAR}),
    "rgb, jpeg": ((16, 16, 3), "u1", {**RGB, "compression": "jpeg"}),
    "rgba": ((9, 8, 4), "u1", {**RGB, "extrasamples": ["unassalpha"]}),
    "ome": ((3, 9, 8, 3), "u1", {**RGB, "ome": True, "metadata": {"axes": "ZYXS"}}),
    "ome of colours beside channels": ((2, 9, 8, 3), "u1", {**RGB, "ome": True, "metadata": {"axes": "CYXS"}}),
    "imagej": ((3, 9, 8, 3), "u1", {**RGB, "imagej": True, "metadata": {"axes": "ZYXS"}}),
    "floats": ((9, 8, 3), "f4", RGB),
}


@pytest.mark.filterwarnings("ignore:.*stored as RGB:DeprecationWarning")
@pytest.mark.parametrize(("shape", "dtype", "options"), INDEPENDENT.values(), ids=INDEPENDENT)
def test_channels_that_are_no_rgb_are_independent(tmp_path, shape, dtype, options):
    save(tmp_path / "a.tif", shape, dtype, **options)
    with images.opened(tmp_path / "a.tif") as file:
        assert (file.independent_channels, file.is_rgb) == (True, False)
    picture = images.read(tmp_path / "a.tif")
    assert picture.independent_channels
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    again = images.read(tmp_path / "b.tif")
    assert again.independent_channels
    np.testing.assert_array_equal(again.array, picture.array)


@pytest.mark.parametrize(("shape", "dtype", "options"), COLOURS.values(), ids=COLOURS)
def test_what_a_file_calls_rgb_is_rgb(tmp_path, shape, dtype, options):
    save(tmp_path / "a.tif", shape, dtype, **options)
    with images.opened(tmp_path / "a.tif") as file:
        assert (file.independent_channels, file.is_rgb) == (False, True)
    picture = images.read(tmp_path / "a.tif")
    images.write(tmp_path / "b.tif", picture.array, like=picture)
    assert not images.read(tmp_path / "b.tif").independent_channels


@pytest.mark.parametrize("axes", ["YX", "ZYX"])
def test_one_channel_is_not_independent_of_anything(tmp_path, axes):
    save(tmp_path / "a.tif", (2, 9, 8)[-len(axes) :], "u2", metadata={"axes": axes})
    assert not images.read(tmp_path / "a.tif").independent_channels


def test_independent_channels_become_pages_of_a_new_file(tmp_path):
    pixels = random_pixels((9, 8, 3), "u2")
    like = images.Picture(pixels, "NPY", independent_channels=True)
    images.write(tmp_path / "a.tif", pixels, like=like)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert (tif.series[0].axes, tif.pages.first.photometric) == ("CYX", tifffile.PHOTOMETRIC.MINISBLACK)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), pixels.transpose(2, 0, 1))
    assert images.read(tmp_path / "a.tif").independent_channels
    images.write(tmp_path / "b.tif", pixels[..., 0], like=like)
    assert images.read(tmp_path / "b.tif").array.shape == (9, 8)
