"""Axes of arrays: what is taken by the shape, what is said of it, what is refused, and what `--axes` names."""

import numpy as np
import pytest
import zarr
from denoise_command import HalvingDenoiser, denoise, grey, save

from bsdenoise import images
from bsdenoise.cli import models
from bsdenoise.data.manifest import manifest
from bsdenoise.data.packing import pack
from bsdenoise.data.sources import open_source
from bsdenoise.images import axes

SIZES = {"y": 20, "x": 24, "t": 2, "z": 5, "c": 3, "s": 3, "n": 4}


@pytest.fixture
def use_model(monkeypatch):
    def use(channels):
        denoiser = HalvingDenoiser(channels)
        monkeypatch.setattr(models, "load_denoiser", lambda path: denoiser)
        return denoiser

    return use


def numbered(letters):
    """An array in which each pixel has a value of its own."""
    shape = tuple(SIZES[letter] for letter in letters.lower())
    return np.arange(np.prod(shape), dtype="uint16").reshape(shape)


def expected_images(array, letters):
    """The images of an array one by one, found by loops over its axes."""
    letters = letters.lower().replace("s", "c")
    outer = [axis for axis, letter in enumerate(letters) if letter not in "yxc"]
    found = []
    for place in np.ndindex(*[array.shape[axis] for axis in outer]):
        image = np.zeros((SIZES["y"], SIZES["x"], SIZES["c"] if "c" in letters else 1), array.dtype)
        for row in range(SIZES["y"]):
            for channel in range(image.shape[2]):
                numbers = dict(zip(outer, place, strict=True))
                index = tuple(
                    numbers.get(axis, {"y": row, "x": slice(None), "c": channel}.get(letter))
                    for axis, letter in enumerate(letters)
                )
                image[row, :, channel] = array[index]
        found.append(image)
    return found


LETTERS = ["TZYX", "NYXC", "TCZYX", "tzcyx", "CYX", "SYX", "YXS", "ZXY", "XYCT", "TYX", "YX", "ZCXYT"]


@pytest.mark.parametrize("kind", ["npy", "npy in Fortran's order", "zarr"])
@pytest.mark.parametrize("letters", LETTERS)
def test_named_axes_give_their_images(tmp_path, letters, kind):
    array = numbered(letters)
    path = tmp_path / ("a.zarr" if kind == "zarr" else "a.npy")
    if kind == "zarr":
        zarr.create_array(str(path), data=array, chunks=(3,) * array.ndim)
    else:
        np.save(path, array if kind == "npy" else np.asfortranarray(array))
    expected = expected_images(array, letters)
    with images.opened(path, letters) as file:
        assert len(file) == len(expected)
        for index, image in enumerate(expected):
            np.testing.assert_array_equal(file.read(index).reshape(image.shape), image)
            window = file.read_window(index, slice(3, 9), slice(5, 24))
            np.testing.assert_array_equal(window.reshape(6, 19, -1), image[3:9, 5:24])
        is_colour = "s" in letters.lower() or letters.lower().endswith("c")
        assert file.is_rgb == (file.channels == 3 and is_colour)


@pytest.mark.parametrize("letters", ["TZYX", "TCZYX", "CYX", "ZXY"])
@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_results_have_the_axes_of_the_input(tmp_path, use_model, letters, suffix):
    use_model(1)
    array = numbered(letters)
    path = tmp_path / f"a{suffix}"
    np.save(path, array) if suffix == ".npy" else zarr.create_array(str(path), data=array)
    for target in (".npy", ".zarr"):
        assert denoise(path, "--out", tmp_path / f"out/b{target}", "--sigma", 9, "--axes", letters) == 0
        result = tmp_path / f"out/b{target}"
        found = np.load(result) if target == ".npy" else zarr.open_array(str(result), mode="r")
        assert found.shape == array.shape
        np.testing.assert_allclose(found[...], array / 2, atol=0.51)
    assert found.metadata.dimension_names == tuple(letters.lower())
    np.testing.assert_array_equal(images.read(result).array, images.read(tmp_path / "out/b.npy", letters).array)


TAKEN = {
    "grey": ((20, 24), (20, 24), None),
    "colour": ((20, 24, 3), (20, 24, 3), None),
    "one channel": ((20, 24, 1), (20, 24, 1), None),
    "channels": (
        (20, 24, 5),
        (20, 24, 5),
        "taken as Y, X, C: 20 rows, 24 columns and 5 channels; --axes says otherwise",
    ),
    "greys": ((4, 20, 24), (4, 20, 24, 1), None),
    "perhaps colours first": ((3, 20, 24), (3, 20, 24, 1), "taken as 3 images of one channel; --axes SYX says that"),
    "colour images": (
        (2, 20, 24, 3),
        (2, 20, 24, 3),
        "taken as N, Y, X, C: 2 images of 20 rows, 24 columns and 3 channels",
    ),
    "grey images": (
        (2, 20, 24, 1),
        (2, 20, 24, 1),
        "taken as N, Y, X, C: 2 images of 20 rows, 24 columns and 1 channel;",
    ),
    "images": ((2, 20, 24, 4), (2, 20, 24, 4), "taken as N, Y, X, C: 2 images of 20 rows, 24 columns and 4 channels"),
    "one image": ((1, 20, 24, 2), (1, 20, 24, 2), "taken as N, Y, X, C: 1 image of 20 rows, 24 columns and 2 channels"),
}


@pytest.mark.parametrize(("shape", "taken", "note"), TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_what_shapes_are_taken_for_is_said(tmp_path, shape, taken, note, suffix):
    path = tmp_path / f"a{suffix}"
    array = np.zeros(shape, "uint8")
    np.save(path, array) if suffix == ".npy" else zarr.create_array(str(path), data=array)
    with images.opened(path) as file:
        assert file.shape == taken
        assert [note in said for note, said in zip([note] if note else [], file.notes, strict=True)] == [True] * bool(
            note
        )


REFUSED = {
    "TZYX": (2, 5, 40, 48),
    "TCYX": (2, 3, 40, 48),
    "channels of spectra": (2, 40, 48, 17),
    "TCZYX": (2, 3, 4, 40, 48),
    "TZYXC": (2, 4, 40, 48, 3),
    "six": (1, 2, 3, 4, 40, 48),
}


@pytest.mark.parametrize("shape", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_what_may_be_anything_is_refused(tmp_path, use_model, capsys, shape, suffix):
    use_model(1)
    path = tmp_path / f"a{suffix}"
    array = np.zeros(shape, "uint8")
    np.save(path, array) if suffix == ".npy" else zarr.create_array(str(path), data=array)
    assert denoise(path, "--out", tmp_path / "out") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "--axes" in line and str(shape) in line
    if suffix == ".npy":
        with pytest.raises(ValueError, match=r"a\.npy: .*--axes"):
            open_source(str(path))


@pytest.mark.parametrize("letters", ["TZY", "YX1", "TTYX", "CSYX", "", "T YX", "xy×"])
def test_letters_that_are_no_axes(tmp_path, use_model, capsys, letters):
    use_model(1)
    path = save(tmp_path / "a.npy", grey())
    assert denoise(path, "--out", tmp_path / "out", "--axes", letters) == 2
    assert "--axes must name every axis by a letter of its own" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--axes must name"):
        open_source(str(path), letters)


def test_letters_of_another_array(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 20, 24), "uint8"))
    with pytest.raises(ValueError, match=r"a\.npy: .*--axes TZYX names 4 axes, and it has 3: \(2, 20, 24\)"):
        images.read(tmp_path / "a.npy", "TZYX")


def test_other_files_say_what_their_axes_are(tmp_path, use_model, capsys):
    use_model(1)
    for name in ("a.png", "a.tif"):
        save(tmp_path / name, grey())
        assert denoise(tmp_path / name, "--out", tmp_path / "out", "--axes", "XY") == 0
        assert f"note: {tmp_path / name}: --axes is not used" in capsys.readouterr().err


NAMED = {
    "letters": (("t", "z", "y", "x"), "TZYX", False),
    "words": (("time", "channel", "row", "column"), "TCYX", False),
    "geography": (("band", "lat", "lon"), "CYX", False),
    "colours last": (("y", "x", "c"), "YXS", True),
    "samples first": (("s", "y", "x"), "SYX", True),
    "bands last": (("y", "x", "band"), "YXC", False),
    "others": (("position", "y", "x"), "TYX", False),
}


@pytest.mark.parametrize(("names", "letters", "is_rgb"), NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("version", [2, 3])
def test_dimension_names_of_zarr_are_used(tmp_path, names, letters, is_rgb, version):
    array = numbered(letters)
    options = {"dimension_names": names} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": names}}
    zarr.create_array(str(tmp_path / "a.zarr"), data=array, zarr_format=version, **options)
    with images.opened(tmp_path / "a.zarr") as file:
        for index, image in enumerate(expected_images(array, letters)):
            np.testing.assert_array_equal(file.read(index).reshape(image.shape), image)
        assert file.is_rgb == is_rgb
    picture = images.read(tmp_path / "a.zarr")
    images.write(tmp_path / "b.zarr", picture.array, picture)
    written = zarr.open_array(str(tmp_path / "b.zarr"), mode="r")
    np.testing.assert_array_equal(written[...], array)
    found = written.metadata.dimension_names if version == 3 else written.attrs["_ARRAY_DIMENSIONS"]
    assert tuple(found) == names and written.metadata.zarr_format == version


def test_names_that_say_nothing_count_as_none(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.zeros((4, 20, 24), "uint8"), dimension_names=("a", "b", None))
    assert images.read(tmp_path / "a.zarr").shape == (4, 20, 24, 1)
    with pytest.raises(ValueError, match="are not those of images"):
        axes.of_names(("y", "y", "x"), (2, 20, 24))


def test_an_empty_array_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 20, 24), "uint8"))
    with pytest.raises(ValueError, match="nothing empty"):
        images.read(tmp_path / "a.npy")


def test_independent_channels_stay_so_in_a_new_store(tmp_path):
    pixels = numbered("YXC")
    like = images.Picture(pixels, "TIFF", independent_channels=True)
    images.write(tmp_path / "a.zarr", pixels, like)
    with images.opened(tmp_path / "a.zarr") as file:
        assert not file.is_rgb
        np.testing.assert_array_equal(file.read(0), pixels)
    images.write(tmp_path / "b.zarr", pixels)
    with images.opened(tmp_path / "b.zarr") as file:
        assert file.is_rgb


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("letters", ["TZYX", "TCZYX", "CYX"])
def test_training_sources_take_named_axes(tmp_path, letters, is_folder):
    array = numbered(letters)
    np.save(tmp_path / "a.npy", array)
    source = open_source(str(tmp_path if is_folder else tmp_path / "a.npy"), letters)
    expected = expected_images(array, letters)
    assert len(source) == len(expected)
    for index, image in enumerate(expected):
        found = source.read(index)
        np.testing.assert_array_equal(found.array.reshape(image.shape), image)
        assert found.independent_channels == ("C" in letters)
        assert source.size(index) == (SIZES["y"], SIZES["x"])
    assert len(pack(source, tmp_path / "packed", 10**6, print).__dict__) and source.content(0) is None
    packed = open_source(str(tmp_path / "packed"))
    np.testing.assert_array_equal(packed.read(len(expected) - 1).array, source.read(len(expected) - 1).array)
    with pytest.raises(ValueError, match="--axes names the axes of .npy files"):
        open_source(str(tmp_path / "packed"), letters)


def test_what_is_known_of_a_folder_holds_for_the_same_axes(tmp_path, monkeypatch):
    monkeypatch.setenv("BSDENOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("bsdenoise.data.index.FEWEST_FILES", 1)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in/a.npy", numbered("TZYX"))
    assert [len(open_source(str(tmp_path / "in"), letters)) for letters in ("TZYX", "CTYX", "TZYX")] == [10, 5, 10]


def test_axes_are_part_of_what_a_source_is(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 20, 24), "uint8"))
    for source in (tmp_path / "a.npy", tmp_path):
        sums = [manifest(open_source(str(source), letters)) for letters in (None, "TYX", "tyx", "CYX")]
        assert sums[1] == sums[2] and len(set(sums)) == 3
