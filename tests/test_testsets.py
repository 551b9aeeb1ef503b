"""Test sets that are known by their pixels: what is recognised, and what is said to be wrong."""

import dataclasses
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from bsdenoise.evaluation import deviations, references, testsets

SIZES = [(12, 8)] * 7 + [(8, 12)] * 3  # width and height


def pictures(seed, names, channels=3):
    rng = np.random.default_rng(seed)
    shapes = [(height, width, 3) if channels == 3 else (height, width) for width, height in SIZES]
    return {name: rng.integers(0, 256, shape, "uint8") for name, shape in zip(names, shapes, strict=False)}


COLOUR = pictures(1, [f"kodim{number:02}" for number in range(1, 11)])
PHOTOS = pictures(2, [f"{1000 + number}" for number in range(9)])
GREY = pictures(3, [f"test{number:03}" for number in range(1, 9)], channels=1)


def save(folder, arrays, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        Image.fromarray(array).save(folder / f"{name}{suffix}")
    return folder


def halves(arrays):
    return {name: array // 2 for name, array in arrays.items()}


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Small sets in the place of the real ones."""
    sets = {}
    for key, arrays in (("kodak24", COLOUR), ("bsd300", PHOTOS), ("bsd68", GREY)):
        measured = testsets.measure(str(save(tmp_path / "originals" / key, arrays)))
        original = testsets.known_sets()[key]
        variants = (((5, 5), "the cropped ones"),) if key == "kodak24" else ()
        sets[key] = dataclasses.replace(original, images=tuple(measured.images), variants=variants)
    monkeypatch.setattr(testsets, "known_sets", lambda: sets)
    return sets


@pytest.fixture
def folder(known, tmp_path):
    """A whole set of ten images."""
    return save(tmp_path / "photos", COLOUR)


def lines(folder, key):
    finding = testsets.recognise(str(folder))
    assert finding.key == key
    assert finding.title == references.SETS[key].title
    assert finding.is_complete == (not finding.lines)
    return finding.lines


@pytest.mark.parametrize(
    ("array", "checksum"),
    [  # of `printf '(1, 2, 3) uint8 \x01\x02\x03\x04\x05\x06' | sha256sum` and the like
        (np.array([[[1, 2, 3], [4, 5, 6]]], "uint8"), "ff0e77e523963bee"),
        (np.array([[1, 512]], "<u2"), "c50cd87b07bd849a"),
        (np.array([[1, 512]], ">u2"), "c50cd87b07bd849a"),
    ],
    ids=["colour", "grey, 16 bits", "other byte order"],
)
def test_checksums_are_those_of_another_program(array, checksum):
    assert testsets.checksum_of(array) == checksum
    assert testsets.checksum_of(np.asfortranarray(array)) == checksum


@pytest.mark.parametrize(
    ("key", "count", "shapes", "draws"),
    [
        ("kodak24", 24, {(768, 512, 3): 18, (512, 768, 3): 6}, 10),
        ("bsd300", 100, {(481, 321, 3), (321, 481, 3)}, 3),
        ("set14", 14, None, 20),
        ("bsd68", 68, {(481, 321, 1), (321, 481, 1)}, 4),
    ],
)
def test_the_real_sets(key, count, shapes, draws):
    one = testsets.known_sets()[key]
    assert len(one.images) == references.SETS[key].images == count
    assert len({image.checksum for image in one.images}) == count
    assert all(len(image.checksum) == testsets.NUM_CHECKSUM_DIGITS for image in one.images)
    assert {image.dtype for image in one.images} == {"uint8"}
    found = [(image.width, image.height, image.channels) for image in one.images]
    if isinstance(shapes, dict):
        assert {shape: found.count(shape) for shape in found} == shapes
    elif shapes:
        assert set(found) == shapes
    assert one.draws == draws


def test_the_real_sets_are_those_with_published_numbers():
    assert list(testsets.known_sets()) == list(references.SETS)


def test_only_one_image_of_set14_is_grey():
    images = testsets.known_sets()["set14"].images
    assert [image.name for image in images if image.channels == 1] == ["bridge.png"]


def test_a_whole_set(folder):
    assert lines(folder, "kodak24") == []


def test_names_folders_and_lossless_formats_do_not_matter(known, tmp_path):
    for number, array in enumerate(COLOUR.values()):
        path = tmp_path / "any" / str(number % 2) / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, array, photometric="rgb")
    assert lines(tmp_path / "any", "kodak24") == []


def test_a_glob_and_a_stack(folder, tmp_path):
    assert lines(folder / "*.png", "kodak24") == []
    upright = [array for array in COLOUR.values() if array.shape[0] == 8]
    np.save(tmp_path / "stack.npy", np.stack(upright))
    assert lines(tmp_path / "stack.npy", "kodak24") == [
        "7 of 10 images, missing: kodim08.png, kodim09.png, kodim10.png"
    ]


def test_missing_images_are_named(folder):
    (folder / "kodim02.png").unlink()
    (folder / "kodim09.png").unlink()
    assert lines(folder, "kodak24") == ["8 of 10 images, missing: kodim02.png, kodim09.png"]


@pytest.mark.parametrize(
    ("numbers", "names"),
    [((1, 2), "kodim01.png, kodim02.png"), ((1, 2, 3), "kodim01.png, kodim02.png and 1 more")],
    ids=["just fits", "one too many"],
)
def test_long_lists_are_cut(folder, monkeypatch, numbers, names):
    monkeypatch.setattr(deviations, "MOST_NAMES", 2)
    for number in numbers:
        (folder / f"kodim0{number}.png").unlink()
    assert lines(folder, "kodak24") == [f"{10 - len(numbers)} of 10 images, missing: {names}"]


@pytest.mark.parametrize("count", [2, 1], ids=["several", "one"])
def test_images_that_do_not_belong_to_the_set(folder, count):
    save(folder, dict(list(GREY.items())[:count]))
    names = "2 images are not of this set: test001.png, test002.png"
    assert lines(folder, "kodak24") == [names if count == 2 else "1 image is not of this set: test001.png"]


def test_images_that_are_there_twice(folder):
    shutil.copy(folder / "kodim03.png", folder / "z.png")
    assert lines(folder, "kodak24") == ["z.png: the same image as kodim03.png"]


def test_other_pixels_of_few_images(folder):
    save(folder, {"kodim04": COLOUR["kodim04"] ^ 1})
    assert lines(folder, "kodak24") == [
        "kodim04.png: same names and sizes, other pixels: re-encoded, or decoded differently"
    ]


def test_other_pixels_of_all_images(known, tmp_path):
    folder = save(tmp_path / "photos", COLOUR, ".jpg")
    assert lines(folder, "kodak24") == [
        "10 images, kodim01.jpg is the first: same names and sizes, other pixels: re-encoded, or decoded differently"
    ]


def test_other_names_and_pixels(known, tmp_path):
    folder = save(tmp_path / "photos", {f"{number}": array // 2 for number, array in enumerate(COLOUR.values())})
    (line,) = lines(folder, "kodak24")
    assert line == (
        "10 images, 7.png is the first: other names and pixels, same sizes: other images, or re-encoded, or decoded "
        "differently"
    )


@pytest.mark.parametrize("is_renamed", [False, True], ids=["own names", "other names"])
def test_versions_that_are_known_to_be_others(known, tmp_path, is_renamed):
    crops = {f"{name[-2:]}" if is_renamed else name: array[:5, :5] for name, array in COLOUR.items()}
    assert lines(save(tmp_path / "crops", crops), "kodak24") == [
        "10 images of 5×5: these are the cropped ones, the paper's are 12×8 and 8×12"
    ]


def test_one_image_of_such_a_version(folder):
    save(folder, {"kodim04": COLOUR["kodim04"][:5, :5]})
    assert lines(folder, "kodak24") == ["1 image of 5×5: these are the cropped ones, the paper's are 12×8 and 8×12"]


def test_other_sizes(known, tmp_path):
    folder = save(tmp_path / "photos", {name: array[:6, :6] for name, array in COLOUR.items()})
    assert lines(folder, "kodak24") == ["10 images have other sizes, the first is kodim01.png: 6×6 instead of 12×8"]


def test_turned_images(folder):
    save(folder, {"kodim04": np.rot90(COLOUR["kodim04"])})
    assert lines(folder, "kodak24") == ["kodim04.png: 8×12 instead of 12×8 (turned)"]


def test_grey_copies_of_colour_images(known, tmp_path):
    folder = save(tmp_path / "photos", {name: array[..., 0] for name, array in PHOTOS.items()})
    assert lines(folder, "bsd300") == ["9 images have other channels, the first is 1000.png: grey instead of colour"]


def test_colour_versions_of_a_grey_set_by_their_own_names(known, tmp_path):
    folder = save(tmp_path / "photos", dict(list(PHOTOS.items())[:8]))
    assert lines(folder, "bsd300") == [
        "8 of 9 images, missing: 1008.png",
        "BSD68 grey has as many images, of the same sizes: that is another set",
    ]


def test_colour_versions_of_a_grey_set_by_other_names(known, tmp_path):
    arrays = {f"a{name}": array // 2 for name, array in list(PHOTOS.items())[:8]}
    (line,) = lines(save(tmp_path / "photos", arrays), "bsd68")
    assert line.startswith("8 images have other channels") and line.endswith("colour instead of grey")


def test_other_types(folder):
    deep = COLOUR["kodim04"].astype("uint16") * 257
    (folder / "kodim04.png").unlink()
    tifffile.imwrite(folder / "kodim04.tif", deep, photometric="rgb")
    assert lines(folder, "kodak24") == ["kodim04.tif: uint16 instead of uint8"]


def test_broken_files_are_named_and_not_missing(folder):
    (folder / "kodim05.png").write_bytes(b"abc")
    assert lines(folder, "kodak24") == ["kodim05.png: cannot be read: its content is no image of a known kind."]


def test_a_small_part_of_a_set(known, tmp_path):
    folder = save(tmp_path / "photos", {name: COLOUR[name] for name in ("kodim03", "kodim09")})
    (line,) = lines(folder, "kodak24")
    assert line.startswith("2 of 10 images, missing: kodim01.png, kodim02.png, kodim04.png")


def test_the_set_with_most_images_there_is_meant(known, tmp_path):
    save(tmp_path / "photos", PHOTOS)
    (line,) = lines(save(tmp_path / "photos", COLOUR), "kodak24")
    assert line.startswith("9 images are not of this set: 1000.png")


def test_a_set_with_its_training_images(known, tmp_path):
    save(tmp_path / "all" / "test", PHOTOS)
    save(tmp_path / "all" / "train", {"777": PHOTOS["1000"] // 2, "778": PHOTOS["1001"] // 2})
    assert lines(tmp_path / "all", "bsd300") == ["2 images are not of this set: train/777.png, train/778.png"]


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"kodim01": COLOUR["kodim01"]}, "one image of a set alone"),
        (pictures(7, "abcde"), "photographs of the same sizes"),
        ({"kodim01": COLOUR["kodim01"]} | pictures(7, "abcde"), "one image of a set among others"),
        ({name: array[:3] for name, array in GREY.items()}, "names that anybody gives, other sizes"),
        ({name: array[:6] for name, array in list(COLOUR.items())[:3]}, "a few names, other sizes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_images_are_no_known_set(known, tmp_path, arrays, why):
    assert testsets.recognise(str(save(tmp_path / "photos", arrays))) is None


def test_broken_files_alone_are_no_known_set(known, tmp_path):
    (tmp_path / "a.png").write_bytes(b"abc")
    assert testsets.recognise(str(tmp_path / "a.png")) is None


def test_images_of_other_layouts_are_not_decoded(known, folder):
    save(folder, {"big": np.zeros((20, 20, 3), "uint8")})
    measured = testsets.measure(str(folder), {(12, 8, 3, "uint8")})
    decoded = {image.name for image in measured.images if image.checksum is not None}
    assert decoded == {f"kodim0{number}.png" for number in range(1, 8)}
    assert all(image.checksum for image in testsets.measure(str(folder)).images)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no image found there"):
        testsets.recognise(str(tmp_path))
