"""Tests of a numbered set of images → training crops."""

import numpy as np
import pytest
from PIL import Image

from bsdenoise import methods
from bsdenoise.data.faults import MAX_REPORTS
from bsdenoise.data.sources import FileSource, open_source
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.images import Picture
from bsdenoise.images.masks import Masks
from bsdenoise.noise import GaussianNoise

NOISE = GaussianNoise(25 / 255, 25 / 255)
RANGE = GaussianNoise(5 / 255, 50 / 255)


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """Seven RGB images of different sizes, one of them in a sub-folder; pixel values tell where they come from."""
    (tmp_path / "more").mkdir()
    for number in range(7):
        height, width = 40 + number, 50 - number
        rows, columns = np.mgrid[:height, :width]
        array = np.stack([rows * 3, columns * 3, np.full_like(rows, number * 20)], axis=-1).astype("uint8")
        Image.fromarray(array).save((tmp_path / "more" if number == 6 else tmp_path) / f"image{number}.png")
    return tmp_path


def _images(folder, **kwargs):
    settings = {
        "method": methods.get("full"),
        "channels": 3,
        "noise": NOISE,
        "corrupt": None,
        "crop": 16,
        "report": lambda line: None,
    }
    return TrainingImages(open_source(str(folder)), **(settings | kwargs))


def _noisy_and_sigma(data, number):
    """Reads an example of the method `full`: σ travels behind the channels of the target."""
    noisy, target = data.example(number)
    np.testing.assert_array_equal(target[..., :-1], noisy)
    assert np.ptp(target[..., -1]) == 0
    return noisy, target[0, 0, -1]


def _validation(data, index, side):
    crop = data.validation_crop(index, side)
    return crop.noisy(0), crop.theta, crop.clean


def _place(crop):
    """Gives the number of the image and the place of its upper left pixel that a clean crop came from."""
    corner = np.rint(crop[0, 0] * 255).astype(int)
    return corner[2] // 20, corner[0] // 3, corner[1] // 3


def test_every_image_once_an_epoch(folder):
    data = _images(folder)
    for epoch in range(3):
        seen = [_place(data.example(epoch * 7 + k)[0])[0] for k in range(7)]
        assert sorted(seen) == list(range(7))
    orders = {tuple(_place(data.example(epoch * 7 + k)[0])[0] for k in range(7)) for epoch in range(6)}
    assert len(orders) > 1


def test_examples_are_functions_of_seed_and_number(folder):
    one, two = _images(folder, corrupt="fresh"), _images(folder, corrupt="fresh")
    for number in (0, 5, 123, 4):
        np.testing.assert_array_equal(one.example(number)[0], two.example(number)[0])
    other = _images(folder, corrupt="fresh", seed=1)
    assert any(np.any(one.example(k)[0] != other.example(k)[0]) for k in range(3))


def test_crops_reach_every_corner(folder):
    data = _images(folder / "image0.png", crop=39)  # of 40×50 pixels: 2×12 places
    places = {_place(data.example(number)[0])[1:] for number in range(400)}
    assert places == {(row, column) for row in range(2) for column in range(12)}


def test_fresh_noise_differs_at_each_visit_and_has_its_sigma(folder):
    clean, noisy = _images(folder), _images(folder, corrupt="fresh")
    residuals = [noisy.example(number)[0] - clean.example(number)[0] for number in range(200)]
    assert np.std(residuals) == pytest.approx(NOISE.low, rel=0.01)
    assert abs(np.mean(residuals)) < 1e-3
    assert not np.allclose(residuals[0], residuals[7])


def test_fixed_noise_belongs_to_the_image(folder):
    """Overlapping crops agree on their common pixels, whatever epoch, run or seed they come from."""
    clean = [_images(folder, crop=32, noise=RANGE, seed=seed) for seed in (0, 1)]
    noisy = [_images(folder, crop=32, corrupt="fixed", noise=RANGE, seed=seed) for seed in (0, 1)]
    seen: dict = {}
    compared = 0
    for run in (0, 1):
        for number in range(60):
            image, top, left = _place(clean[run].example(number)[0])
            crop, sigma = _noisy_and_sigma(noisy[run], number)
            before = seen.setdefault(image, (np.full((60, 60, 3), np.nan, "float32"), sigma))
            assert sigma == before[1]
            known = before[0][top : top + 32, left : left + 32]
            overlap = ~np.isnan(known)
            compared += overlap.sum()
            np.testing.assert_array_equal(crop[overlap], known[overlap])
            known[...] = crop
    assert compared > 100_000
    assert len({float(sigma) for _, sigma in seen.values()}) == 7


def test_range_draws_sigma_per_visit(folder):
    data = _images(folder, corrupt="fresh", noise=RANGE)
    sigmas = np.array([_noisy_and_sigma(data, number)[1] for number in range(300)])
    assert RANGE.low <= sigmas.min() < 8 / 255 and 47 / 255 < sigmas.max() <= RANGE.high


def test_augmentation_gives_all_eight_orientations(folder):
    data = _images(folder / "image0.png", augment=True, crop=40)
    upright = _images(folder / "image0.png", crop=40)
    seen = set()
    for number in range(100):
        plain = upright.example(number)[0]
        turned = data.example(number)[0]
        matches = [
            (flip, turns)
            for flip in (False, True)
            for turns in range(4)
            if np.array_equal(np.rot90(plain[:, ::-1] if flip else plain, turns), turned)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 8


def test_unusable_images_are_named_once_and_replaced(folder):
    (folder / "broken.png").write_bytes(b"no image at all")
    Image.fromarray(np.zeros((8, 8, 3), "uint8")).save(folder / "tiny.png")
    lines = []
    data = _images(folder, report=lines.append)
    crops = [data.example(number)[0] for number in range(40)]
    assert all(crop.shape == (16, 16, 3) for crop in crops)
    assert len(lines) == 2
    assert any("broken.png" in line for line in lines) and any("8×8 pixels are less" in line for line in lines)
    again = _images(folder)
    np.testing.assert_array_equal(again.example(33)[0], crops[33])


def test_no_usable_image(folder):
    data = _images(folder, crop=64)
    with pytest.raises(ValueError, match="None of the 7 images can be used"):
        data.example(0)
    assert data.failure is not None


def test_held_out_images_are_not_trained_on(folder):
    data = _images(folder, num_held_out=2)
    assert len(data.held_out) == 2 and not set(data.held_out) & set(data.training)
    trained = {_place(data.example(number)[0])[0] for number in range(50)}
    held = {int(FileSource.name(data.source, i)[-5]) for i in data.held_out}
    assert not trained & held and len(trained) == 5


def test_validation_crop(folder):
    data = _images(folder, corrupt="fresh", num_held_out=2)
    noisy, sigma, clean = _validation(data, data.held_out[0], 20)
    assert noisy.shape == clean.shape == (20, 20, 3) and sigma == np.float32(NOISE.low)
    assert np.std(noisy - clean) == pytest.approx(NOISE.low, rel=0.1)
    np.testing.assert_array_equal(noisy, _validation(data, data.held_out[0], 20)[0])
    image = data.source.read(data.held_out[0]).array
    top, left = (image.shape[0] - 20) // 2, (image.shape[1] - 20) // 2
    np.testing.assert_allclose(clean * 255, image[top : top + 20, left : left + 20], atol=1e-4)
    assert _validation(_images(folder), 0, 20)[2] is None


def _residuals(folder, number, **settings):
    """What the network is shown and its target, less the clean crop, for a method that compares two images."""
    shown, target = _images(folder, **settings).example(number)
    clean = _images(folder, method=methods.get("l2")).example(number)[0]
    return shown - clean, target - clean


def test_two_copies_of_fresh_noise_are_independent(folder):
    noises = [_residuals(folder, k, method=methods.get("n2n"), corrupt="fresh") for k in range(40)]
    shown, target = (np.concatenate([pair[k].ravel() for pair in noises]) for k in (0, 1))
    for noise in (shown, target):
        assert np.std(noise) == pytest.approx(NOISE.low, rel=0.02)
    assert abs(np.corrcoef(shown, target)[0, 1]) < 0.02


def test_fixed_noise_has_exactly_two_copies(folder):
    """Whatever the seed and the visit, an image's pixel is one of two numbers, each of them shown and compared with."""
    seen = {}
    settings = {"method": methods.get("n2n"), "corrupt": "fixed", "noise": RANGE}
    for seed in (0, 1):
        data = _images(folder / "image2.png", seed=seed, **settings)
        plain = _images(folder / "image2.png", seed=seed, method=methods.get("l2"), noise=RANGE)
        for number in range(60):
            shown, target = data.example(number)
            _, top, left = _place(plain.example(number)[0])
            for role, crop in (("shown", shown), ("target", target)):
                for (row, column), value in np.ndenumerate(crop[..., 0]):
                    seen.setdefault((top + row, left + column), {}).setdefault(float(value), set()).add(role)
    counts = [len(values) for values in seen.values()]
    assert set(counts) == {2}
    roles = [roles for values in seen.values() for roles in values.values()]
    assert sum(len(role) == 2 for role in roles) > 0.9 * len(roles)


def test_the_first_fixed_copy_is_that_of_the_other_methods(folder):
    for number in range(3):
        alone = _images(folder, corrupt="fixed").example(number)[0]
        pair = _images(folder, corrupt="fixed", method=methods.get("n2n")).example(number)
        assert sum(np.array_equal(alone, copy) for copy in pair) == 1


def test_both_copies_are_turned_alike(folder):
    settings = {"method": methods.get("n2c"), "corrupt": "fresh", "noise": GaussianNoise(1e-4, 1e-4)}
    for number in range(12):
        shown, target = _images(folder, augment=True, **settings).example(number)
        np.testing.assert_allclose(shown, target, atol=1e-3)


def test_luminance_and_wrong_channels(folder):
    lines = []
    assert _images(folder, channels=1, corrupt="fresh").example(0)[0].shape == (16, 16, 1)
    Image.fromarray(np.zeros((40, 40), "uint8")).save(folder / "a_grey.png")
    data = _images(folder, report=lines.append)
    for number in range(8):
        data.example(number)
    assert len(lines) == 1 and "a_grey.png" in lines[0]


def test_luminance_of_noisy_images_is_refused(folder):
    """Its noise would not be the declared one."""
    lines = []
    data = _images(folder, channels=1, corrupt=None, report=lines.append)
    with pytest.raises(ValueError, match="None of the 7"):
        data.example(0)
    assert all("luminance would change its noise" in line for line in lines) and len(lines) == 7


def test_reports_of_images_left_out_come_to_an_end(tmp_path):
    for number in range(MAX_REPORTS + 5):
        Image.fromarray(np.zeros((8, 8, 3), "uint8")).save(tmp_path / f"{number}.png")
    lines = []
    with pytest.raises(ValueError, match="None of the"):
        _images(tmp_path, report=lines.append).example(0)
    assert len(lines) == MAX_REPORTS + 1 and "not be named" in lines[-1]


def test_batches_are_the_examples_in_order_wherever_they_start(folder):
    data = _images(folder, corrupt="fresh", noise=RANGE)
    batches = list(data.batches(3, first=4, last=7))
    assert len(batches) == 3
    for place, (noisy, target) in enumerate(batches):
        expected = [data.example((4 + place) * 3 + k) for k in range(3)]
        np.testing.assert_array_equal(noisy, [image for image, _ in expected])
        np.testing.assert_array_equal(target, [target for _, target in expected])


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("pieces", [1, 2], ids=["whole parts", "halves"])
def test_workers_parts_are_the_global_batches(folder, workers, pieces):
    """Side by side, what the workers make is what one process makes; in an epoch every image comes once."""
    data = _images(folder, corrupt="fresh", noise=RANGE)
    batch = 12
    size = batch // workers // pieces
    parts = [list(data.batches(batch, 2, 9, worker=worker, workers=workers, size=size)) for worker in range(workers)]
    assert {len(part) for part in parts} == {7 * pieces} and {len(shown) for part in parts for shown, _ in part} == {
        size
    }
    for step, (shown, target) in enumerate(data.batches(batch, 2, 9)):
        own = [part[step * pieces + piece] for part in parts for piece in range(pieces)]
        np.testing.assert_array_equal(np.concatenate([noisy for noisy, _ in own]), shown)
        np.testing.assert_array_equal(np.concatenate([one for _, one in own]), target)


def test_every_image_comes_once_per_epoch_whoever_shows_it(folder, monkeypatch):
    data = _images(folder, corrupt="fresh")
    read = []
    original = type(data.source).read
    monkeypatch.setattr(type(data.source), "read", lambda self, index: read.append(index) or original(self, index))
    workers, batch = 2, len(data.training) * 2  # two epochs to a batch, one per worker
    for worker in range(workers):
        list(data.batches(batch, 0, 1, worker=worker, workers=workers))
    assert sorted(read) == sorted([*data.training] * 2) and sorted(read[: len(data.training)]) == sorted(data.training)


def test_bit_depths_that_differ_are_left_out(folder):
    np.save(folder / "deep.npy", np.zeros((40, 40, 3), "uint16"))
    lines = []
    data = _images(folder, full_scale=255.0, report=lines.append)
    for number in range(8):
        data.example(number)
    assert len(lines) == 1 and "bit depth" in lines[0]


@pytest.mark.parametrize("fractional", [True, False], ids=["integers", "floats"])
def test_other_kind_of_numbers_is_left_out(folder, fractional):
    np.save(folder / "floats.npy", np.zeros((40, 40, 3), "float32"))
    lines = []
    data = _images(folder, fractional=fractional, report=lines.append)
    for number in range(8):
        data.example(number)
    assert len(lines) == (1 if fractional else 7)
    assert all(("floats.npy" in line) == fractional and "no common units" in line for line in lines)


@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_examples_are_in_units_of_the_range(tmp_path, dtype):
    """Pixels and noise against a twin that goes back to the files' own units."""
    rng = np.random.default_rng(0)
    stack = (100 + 4000 * rng.uniform(size=(3, 24, 20, 2))).astype(dtype)
    np.save(tmp_path / "stack.npy", stack)
    full = 65535 if dtype == "uint16" else 1
    settings = {"channels": 2, "noise": GaussianNoise(0.05, 0.05), "offset": 100 / full, "scale": 4000 / full}
    lines = []
    settings |= {"fractional": dtype == "uint16", "crop": 16, "remark": lines.append}
    data = _images(tmp_path / "stack.npy", num_held_out=1, **settings)
    for number in range(4):
        crop, sigma = _noisy_and_sigma(data, number)
        assert sigma == np.float32(0.05)
        counts = crop * 4000.0 + 100.0
        windows = np.lib.stride_tricks.sliding_window_view(stack, (16, 16), (1, 2)).transpose(0, 1, 2, 4, 5, 3)
        assert np.abs(windows - counts).max(axis=(3, 4, 5)).min() < 1e-2
    noisy = _images(tmp_path / "stack.npy", corrupt="fresh", **settings)
    clean = _images(tmp_path / "stack.npy", **settings)
    residuals = [noisy.example(number)[0] - clean.example(number)[0] for number in range(60)]
    assert np.std(residuals) == pytest.approx(0.05, rel=0.02)
    noisy, sigma, clean = _validation(_images(tmp_path / "stack.npy", corrupt="fixed", **settings), 1, 99)
    np.testing.assert_allclose(clean * 4000.0 + 100.0, stack[1], atol=1e-2)
    assert np.std(noisy - clean) == pytest.approx(0.05, rel=0.1)
    assert all("taken as N, Y, X, C: 3 images of 24 rows, 20 columns and 2 channels" in line for line in lines)


def test_eight_bits_are_not_touched(folder):
    """Bit for bit the pixels over 255 in float32."""
    data = _images(folder)
    clean = _validation(data, 0, 99)[0]
    np.testing.assert_array_equal(clean, data.source.read(0).array.astype("float32") / np.float32(255))


def test_changes_on_reading_are_named_once_per_kind():
    class Noted:
        """Images with two kinds of notes; the first kind was said before."""

        def __len__(self):
            return 6

        def name(self, index):
            return f"image {index}"

        def read(self, index):
            return Picture(np.zeros((20, 20), "uint8"), "PNG", notes=("said", "new") if index % 2 else ("said",))

    lines = []
    data = TrainingImages(Noted(), methods.get("l2"), 1, NOISE, None, 16, remark=lines.append, remarked={"said"})
    for number in range(12):
        data.example(number)
    assert len(lines) == 1 and ": new;" in lines[0] and int(lines[0].split(":")[0][-1]) % 2 == 1


# --- pixels that were not measured ----------------------------------------------------------------------------------


class _Pictures:
    """A source of pictures."""

    def __init__(self, *pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def name(self, index):
        return f"picture {index}"

    def short_name(self, index):
        return f"{index}.tif"

    def read(self, index):
        return self.pictures[index]


def _with_gaps(source, **kwargs):
    settings = {"method": methods.get("full"), "channels": 1, "noise": NOISE, "corrupt": None, "crop": 16}
    return TrainingImages(source, **(settings | {"report": lambda line: None} | kwargs))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("corrupt", [None, "fresh", "fixed"])
def test_no_data_values_are_no_targets_and_not_shown(dtype, corrupt):
    array = np.full((40, 50), 100, dtype)
    array[10:30, 20:40] = 0
    data = _with_gaps(_Pictures(Picture(array, "TIFF", no_data=0)), corrupt=corrupt, fractional=dtype != "float32")
    level = 100 / np.iinfo(dtype).max if dtype != "float32" else 100
    found = []
    for number in range(30):
        shown, target = data.example(number)
        assert shown.dtype == target.dtype == np.float32 and np.isfinite(shown).all()
        holes = np.isnan(target[..., 0])
        found.append(holes.mean())
        np.testing.assert_allclose(shown, level, atol=0.5 if corrupt else 1e-6 * level)
        np.testing.assert_array_equal(shown[~holes], target[..., :1][~holes])
        assert np.isfinite(target[..., 1]).all()  # σ
    assert max(found) > 0.4 and min(found) == 0


@pytest.mark.parametrize("name", ["full", "per_component", "l2", "n2n", "n2c", "n2v"])
def test_every_method_is_shown_numbers_and_compared_with_measurements(name):
    array = np.random.default_rng(0).normal(500, 20, (40, 50, 3)).astype("float32")
    array[10:30, 20:40, 1] = np.nan
    corrupt = "fresh" if methods.get(name).needs else None
    data = _with_gaps(
        _Pictures(Picture(array, "TIFF")), method=methods.get(name), channels=3, fractional=False, corrupt=corrupt
    )
    for number in range(10):
        shown, target = data.example(number)
        assert np.isfinite(shown).all()
        assert np.isnan(target[..., :3]).sum() in range(257)  # of one channel alone


def test_crops_of_which_little_was_measured_are_drawn_again():
    """Half of the crops of this image would hold nothing; the second draw is the same whenever it is asked for."""
    array = np.full((64, 128), np.nan, "float32")
    array[:, :40] = np.random.default_rng(0).normal(0, 1, (64, 40))
    data = _with_gaps(_Pictures(Picture(array, "TIFF")), fractional=False)
    shares = [1 - np.isnan(data.example(number)[1][..., 0]).mean() for number in range(40)]
    assert min(shares) >= 0.25
    np.testing.assert_array_equal(data.example(7)[1], data.example(7)[1])
    sparse = np.full((64, 64), np.nan, "float32")
    sparse[::8, ::8] = 1.0  # no crop has more
    shown, target = _with_gaps(_Pictures(Picture(sparse, "TIFF")), fractional=False).example(0)
    assert np.isfinite(shown).all() and 0 < np.isfinite(target[..., 0]).sum() <= 9


def test_images_without_a_measurement_are_left_out_and_named():
    lines = []
    empty = Picture(np.full((40, 50), 65535, "uint16"), "TIFF", no_data=65535)
    good = Picture(np.full((40, 50), 300, "uint16"), "TIFF", no_data=65535)
    data = _with_gaps(_Pictures(empty, good, empty), report=lines.append)
    for number in range(6):
        assert np.isfinite(data.example(number)[1]).all()
    assert sorted(lines) == [f"left out picture {k}: none of its pixels holds a measurement" for k in (0, 2)]
    with pytest.raises(ValueError, match="none of its pixels"):
        data.validation_crop(0, 16)


def test_whatever_stands_there_may_be_too_large():
    array = np.full((40, 50), 100.0)
    array[10:30] = -1.7976931348623157e308
    data = _with_gaps(_Pictures(Picture(array, "TIFF", no_data=-1.7976931348623157e308)), fractional=False)
    assert np.nanmin([data.example(k)[1] for k in range(10)]) > 0
    with pytest.raises(ValueError, match="None of the 1"):
        _with_gaps(_Pictures(Picture(array, "TIFF")), fractional=False).example(0)


def test_the_luminance_of_a_pixel_needs_all_its_channels():
    array = np.full((40, 50, 3), 90, "uint8")
    array[5, 6, 1] = 0
    data = _with_gaps(_Pictures(Picture(array, "TIFF", no_data=0)), corrupt="fresh", crop=40)
    holes = np.isnan(data.validation_crop(0, 40).clean)
    assert holes.shape == (40, 40, 1) and np.argwhere(holes).tolist() == [[5, 1, 0]]


def test_validation_looks_where_something_was_measured():
    array = np.full((200, 100), np.nan, "float32")
    array[20:50, 60:90] = 5.0
    data = _with_gaps(_Pictures(Picture(array, "TIFF")), fractional=False)
    assert np.isfinite(data.validation_crop(0, 32).noisy(0)).mean() > 0.8


def test_masks_are_obeyed(tmp_path):
    mask = np.zeros((40, 50), "uint8")
    mask[:, :25] = 255
    Image.fromarray(mask).save(tmp_path / "1.png")
    picture = Picture(np.random.default_rng(0).integers(0, 256, (40, 50)).astype("uint8"), "TIFF")
    data = _with_gaps(_Pictures(picture, picture), masks=Masks(tmp_path), crop=40)
    np.testing.assert_array_equal(np.isnan(data.validation_crop(1, 50).noisy(0))[..., 0], mask != 0)
    assert not np.isnan(data.validation_crop(0, 50).noisy(0)).any()
