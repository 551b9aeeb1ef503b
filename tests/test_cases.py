"""Which images are measured with which noise."""

import numpy as np
import pytest
from PIL import Image

from bsdenoise import images
from bsdenoise.evaluation import cases


def pixels(seed=0, shape=(9, 7, 3), dtype="uint8"):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "kodak"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(["b.png", "a.png", "sub/c.png"]):
        Image.fromarray(pixels(seed)).save(folder / name)
    return folder


def clean_items(*folders, draws=(1,), every=(1,)):
    return cases.clean_items([str(folder) for folder in folders], draws, every)


def test_images_are_listed_in_order_with_their_draws(folder):
    items = clean_items(folder, draws=(2,))
    assert [(item.dataset, item.name, item.draw) for item in items] == [
        ("kodak", name, draw) for name in ("a.png", "b.png", "sub/c.png") for draw in (0, 1)
    ]
    assert [item.name for item in clean_items(folder, every=(2,))] == ["a.png", "sub/c.png"]


def test_each_set_has_its_own_number_of_draws(folder, tmp_path):
    other = tmp_path / "set14"
    other.mkdir()
    Image.fromarray(pixels(9)).save(other / "x.png")
    items = clean_items(folder, other, draws=(1, 3))
    assert [item.dataset for item in items].count("kodak") == 3
    assert [item.draw for item in items if item.dataset == "set14"] == [0, 1, 2]
    with pytest.raises(ValueError, match="--draws takes one number, or one for each of 2 --data. Received: 3"):
        clean_items(folder, other, draws=(1, 2, 3))
    with pytest.raises(ValueError, match="--draws must be at least 1. Received: 0"):
        clean_items(folder, draws=(0,))


def test_each_set_may_be_thinned_out_by_its_own_number(folder, tmp_path):
    other = tmp_path / "set14"
    other.mkdir()
    for name in "xyz":
        Image.fromarray(pixels(9)).save(other / f"{name}.png")
    items = clean_items(folder, other, every=(1, 2))
    assert [item.name for item in items] == ["a.png", "b.png", "sub/c.png", "x.png", "z.png"]
    with pytest.raises(ValueError, match="--every takes one number, or one for each of 2 --data. Received: 3"):
        clean_items(folder, other, every=(1, 2, 3))
    with pytest.raises(ValueError, match="--every must be at least 1. Received: 0"):
        clean_items(folder, every=(0,))


def test_folders_of_one_name_are_told_apart(folder, tmp_path):
    twin = tmp_path / "else" / "kodak"
    twin.mkdir(parents=True)
    Image.fromarray(pixels(9)).save(twin / "x.png")
    assert {item.dataset for item in clean_items(folder, twin)} == {str(folder), str(twin)}


def noise_of(item, channels=3, spec="gaussian:25"):
    case = cases.read_clean(item, channels, spec)
    return (case.noisy.astype(float) - case.clean) / case.sigma


def test_noise_belongs_to_the_image_and_the_draw(folder, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "renamed.png").write_bytes((folder / "b.png").read_bytes())
    first, second = [item for item in clean_items(folder, draws=(2,)) if item.name == "b.png"]
    alone, alone_second = clean_items(moved, draws=(2,))
    np.testing.assert_array_equal(noise_of(first), noise_of(alone))
    np.testing.assert_array_equal(noise_of(second), noise_of(alone_second))
    assert np.abs(np.corrcoef(noise_of(first).ravel(), noise_of(second).ravel())[0, 1]) < 0.4
    # The level only scales it.
    np.testing.assert_allclose(noise_of(first, spec="gaussian:50/255"), noise_of(first), atol=1e-5)


def test_noise_is_white_and_neither_clipped_nor_rounded(tmp_path):
    path = tmp_path / "black.png"
    Image.fromarray(np.zeros((200, 200, 3), "uint8")).save(path)
    (item,) = clean_items(path)
    case = cases.read_clean(item, 3, "gaussian:25")
    assert case.sigma == pytest.approx(25 / 255)
    assert case.noisy.std() == pytest.approx(25 / 255, rel=0.01)
    assert abs(case.noisy.mean()) < 0.001
    assert case.noisy.min() < -0.3
    assert (case.levels, case.peak) == (255, 1.0)
    assert np.mean(np.abs(case.noisy * 255 - np.rint(case.noisy * 255)) < 0.01) < 0.1
    flat = case.noisy.reshape(-1, 3)
    assert np.abs(np.corrcoef(flat.T) - np.eye(3)).max() < 0.02


def test_a_range_draws_sigma_for_each_draw(folder):
    sigmas = [cases.read_clean(item, 3, "gaussian:5-50").sigma * 255 for item in clean_items(folder, draws=(40,))]
    assert 5 <= min(sigmas) < 8
    assert 47 < max(sigmas) <= 50


def test_grey_and_colour(tmp_path):
    Image.fromarray(pixels(1, (9, 7))).save(tmp_path / "grey.png")
    Image.fromarray(pixels(2)).save(tmp_path / "rgb.png")
    grey, rgb = clean_items(tmp_path)
    case = cases.read_clean(grey, 3, "gaussian:25")
    assert case.notes == ("grey, taken as RGB with three equal channels",)
    assert (case.clean == case.clean[..., :1]).all()
    noise = case.noisy - case.clean
    assert np.abs(noise[..., 0] - noise[..., 1]).min() > 0  # independent in each channel
    case = cases.read_clean(rgb, 1, "gaussian:25")
    np.testing.assert_array_equal(case.clean, images.to_unit(images.to_channels(pixels(2), 1)))
    with pytest.raises(ValueError, match=r"3 channel\(s\) cannot be used where 5 are expected"):
        cases.read_clean(rgb, 5, "gaussian:25")


def test_images_of_a_stack(tmp_path):
    stack = np.random.default_rng(0).uniform(size=(3, 9, 7, 1)).astype("float32")
    np.save(tmp_path / "stack.npy", stack)
    items = clean_items(tmp_path / "stack.npy")
    assert [item.name for item in items] == ["stack.npy[0]", "stack.npy[1]", "stack.npy[2]"]
    case = cases.read_clean(items[2], 1, "gaussian:0.1")
    np.testing.assert_array_equal(case.clean, stack[2])
    assert case.levels is None
    assert case.peak == pytest.approx(float(np.ptp(stack[2])))


@pytest.fixture
def pairs(tmp_path):
    for name in ("noisy", "clean"):
        (tmp_path / name).mkdir()
    for seed, stem in enumerate("ab"):
        Image.fromarray(pixels(seed)).save(tmp_path / "clean" / f"{stem}.png")
        Image.fromarray(pixels(seed + 10)).save(tmp_path / "noisy" / f"{stem}.png")
    return tmp_path


def paired_items(folder):
    return cases.paired_items(str(folder / "noisy"), str(folder / "clean"))


def test_pairs_are_read_as_they_are(pairs):
    (pairs / "noisy" / "b.png").rename(pairs / "noisy" / "b.PNG")
    first, second = paired_items(pairs)
    assert (first.name, second.name) == ("a.png", "b.png")
    case = cases.read_pair(second, 3)
    np.testing.assert_array_equal(case.noisy * 255, pixels(11))
    np.testing.assert_array_equal(case.clean * 255, pixels(1))
    assert case.sigma is None


def test_pairs_that_do_not_fit(pairs):
    Image.fromarray(pixels(3, (9, 8, 3))).save(pairs / "noisy" / "a.png")
    first, second = paired_items(pairs)
    with pytest.raises(ValueError, match=r"a.png: its partner has another size or bit depth. Received: \(9, 8, 3\)"):
        cases.read_pair(first, 3)
    with pytest.raises(ValueError, match=r"b.png: has 3 channel\(s\); the model takes 1"):
        cases.read_pair(second, 1)
    with pytest.raises(ValueError, match=r"a.png: has no noisy partner"):
        cases.read_pair(clean_items(pairs / "clean")[0], 3)
    (pairs / "noisy" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"1 image\(s\) have no partner, the first is b in .*clean"):
        paired_items(pairs)


def test_every_must_be_positive_for_pairs_too(pairs):
    with pytest.raises(ValueError, match="--every must be at least 1. Received: 0"):
        cases.paired_items(str(pairs / "noisy"), str(pairs / "clean"), (0,))


def test_files_of_a_glob_are_told_apart_by_their_folders(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels(1)).save(tmp_path / name / "1.png")
    assert [item.name for item in cases.clean_items([f"{tmp_path}/**/*.png"])] == ["x/1.png", "y/1.png"]


def test_a_set_that_is_named_twice(folder):
    with pytest.raises(ValueError, match="--data names a set twice"):
        cases.clean_items([str(folder), f"{folder}/"])


def test_pairs_whose_names_are_not_unique(pairs):
    Image.fromarray(pixels(9)).save(pairs / "noisy" / "b.jpg")
    with pytest.raises(ValueError, match="b.jpg and .*b.png have the same name"):
        paired_items(pairs)


def test_labels_say_set_image_and_draw(folder):
    assert clean_items(folder, draws=(2,))[-1].label == "kodak/sub/c.png/draw-1"


def test_channels_that_most_images_have(tmp_path):
    rgb, grey = pixels(1), pixels(1)[..., 0]
    for name, array in {"a": rgb, "b": grey}.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    assert cases.usual_channels(clean_items(tmp_path, draws=(3,))) == 3  # a tie
    Image.fromarray(grey + 1).save(tmp_path / "c.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert cases.usual_channels(clean_items(tmp_path)) == 1


def test_channels_of_pairs_are_those_of_the_noisy_images(pairs):
    for name in "ab":
        Image.fromarray(pixels(1)[..., 0]).save(pairs / "noisy" / f"{name}.png")
    assert cases.usual_channels(paired_items(pairs)) == 1


@pytest.mark.parametrize(("spec", "sigma"), [("gaussian:25", 25.0), ("gaussian:25/255", 25 / 255)])
def test_noise_of_float_images_is_in_their_own_units(tmp_path, spec, sigma):
    np.save(tmp_path / "a.npy", np.full((60, 50, 3), 1000.0, np.float32))
    (item,) = cases.clean_items([str(tmp_path)])
    case = cases.read_clean(item, 3, spec)
    assert case.sigma == np.float32(sigma)
    assert np.std(case.noisy - case.clean) == pytest.approx(sigma, rel=0.02)
