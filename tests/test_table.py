"""Means, confidence intervals and differences, by hand and against SciPy."""

import csv
import io

import numpy as np
import pytest
from scipy import stats

from bsdenoise.evaluation import table
from bsdenoise.evaluation.records import Record


def record(model="m", dataset="d", image="a", draw=0, psnr=30.0, **values):
    defaults = {"channels": 3, "height": 1000, "width": 500, "sigma": 0.1, "sigma_used": 0.1, "psnr_noisy": 20.0}
    defaults |= {"psnr_unrounded": psnr - 0.01, "psnr_mean": psnr - 2, "ssim": 0.9, "sure_psnr": psnr + 0.1}
    defaults |= {"calibration": 1.0, "seconds": 2.0, "sure_withheld": False}
    return Record(model=model, dataset=dataset, image=image, draw=draw, psnr=psnr, **(defaults | values))


def grid(psnrs, **values):
    """Records of images × draws."""
    return [record(image=f"i{i}", draw=j, psnr=p, **values) for i, row in enumerate(psnrs) for j, p in enumerate(row)]


def test_means_are_over_images_of_means_over_draws():
    (row,) = table.summarise([*grid([[30.0, 31.0]]), record(image="other", psnr=20.0, ssim=0.7, seconds=8.0)])
    assert (row.images, row.draws) == (2, 1)
    assert row.psnr == pytest.approx((30.5 + 20.0) / 2)
    assert row.ssim == pytest.approx((0.9 + 0.7) / 2)
    assert row.seconds_per_megapixel == pytest.approx((2 + 2 + 8) / 1.5)


def test_confidence_intervals_over_images_and_over_draws():
    psnrs = 30 + np.random.default_rng(0).standard_normal((5, 3))
    (row,) = table.summarise(grid(psnrs))
    for values, width in ((psnrs.mean(axis=1), row.psnr_ci_images), (psnrs.mean(axis=0), row.psnr_ci_draws)):
        low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
        assert width == pytest.approx((high - low) / 2)
        assert row.psnr == pytest.approx((high + low) / 2)


def test_one_image_or_one_draw_has_no_interval():
    (row,) = table.summarise([record()])
    assert row.psnr_ci_images is None
    assert row.psnr_ci_draws is None


def test_draws_that_lack_images_do_not_enter_their_interval():
    records = grid([[30.0, 31.0, 32.0], [30.0, 31.0, 32.0]])[:-1]  # the last draw lacks an image
    (row,) = table.summarise(records)
    assert row.draws == 2
    assert row.psnr_ci_draws == pytest.approx(table.confidence_half_width([30.0, 31.0]))


def test_the_average_counts_each_set_once():
    records = grid([[30.0], [31.0], [32.0]], dataset="large") + grid([[20.0], [21.0]], dataset="small")
    large, small, average = table.summarise(records)
    assert average.dataset == table.AVERAGE
    assert average.psnr == pytest.approx((31.0 + 20.5) / 2)
    assert average.images == 5
    assert average.psnr_ci_images == pytest.approx(np.hypot(large.psnr_ci_images, small.psnr_ci_images) / 2)
    assert average.psnr_ci_draws is None


def test_an_undefined_ssim_does_not_spoil_the_mean():
    (row,) = table.summarise([record(image="small", ssim=None), record(image="large", ssim=0.8)])
    assert row.ssim == pytest.approx(0.8)
    (row,) = table.summarise([record(ssim=None)])
    assert row.ssim is None


def test_what_a_method_does_not_have_stays_empty():
    own = {"psnr_mean": None, "sure_psnr": None, "calibration": None}
    records = [record(model="bm3d", dataset=name, **own) for name in ("d", "e")] + [record(model="full")]
    first, _, average, full = table.summarise(records)
    for row in (first, average):
        assert (row.psnr_mean, row.sure_psnr, row.calibration) == (None, None, None)
        assert row.psnr == pytest.approx(30.0)
    assert full.sure_psnr == pytest.approx(30.1)
    head, _, *body = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.as_text([first, full], "github").splitlines()
    ]
    assert [cells[head.index("SURE-PSNR")] for cells in body] == ["", "30.10"]
    parsed = list(csv.DictReader(io.StringIO(table.as_csv([first, full]))))
    assert [row["calibration"] for row in parsed] == ["", "1.0"]


def test_a_mean_that_lacks_withheld_estimates_is_withheld_itself():
    """The mean over the other images would stand beside the PSNR of all."""
    records = [record(image=name) for name in "ab"] + [record(image="c", sure_psnr=None, sure_withheld=True)]
    row, other, average = table.summarise([*records, record(dataset="e")])
    assert (row.sure_psnr, row.sure_withheld) == (None, 1)
    assert (other.sure_psnr, other.sure_withheld) == (pytest.approx(30.1), 0)
    assert (average.sure_psnr, average.sure_withheld) == (None, 1)
    head, _, *body = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.as_text([row, other, average], "github").splitlines()
    ]
    assert [cells[head.index("SURE-PSNR")] for cells in body] == ["–", "30.10", "–"]
    (line,) = table.footnotes([row, other, average])
    assert line.startswith("– SURE-PSNR is withheld: m on d (1 measured): the noise of the image is not what")
    assert table.footnotes([other]) == []


def test_rows_say_how_many_sets_channels_and_which_noise():
    same = table.summarise([record(dataset="d"), record(dataset="e")])
    assert [(row.sets, row.channels, row.sigma) for row in same] == [(1, 3, 0.1), (1, 3, 0.1), (2, 3, 0.1)]
    (mixed,) = table.summarise([record(), record(image="b", channels=1, sigma=0.2)])
    assert (mixed.sets, mixed.channels, mixed.sigma) == (1, None, None)


def test_differences_are_paired():
    rng = np.random.default_rng(1)
    easy = 30 + 5 * rng.standard_normal(6)  # images differ by far more than models do
    gain = 0.2 + 0.01 * rng.standard_normal(6)
    first = grid(easy[:, None], model="first")
    second = grid((easy + gain)[:, None], model="second") + [record(model="second", image="alone", psnr=99.0)]
    (difference,) = table.differences(first + second)
    assert (difference.model, difference.than, difference.images) == ("second", "first", 6)
    assert difference.psnr == pytest.approx(gain.mean())
    assert difference.psnr_ci_images == pytest.approx(table.confidence_half_width(list(gain)))
    assert difference.psnr_ci_images < 0.05
    assert table.differences(first) == []


def test_rendering():
    rows = table.summarise([record(dataset="kodak"), record(dataset="set14", image="b", psnr=31.239, ssim=None)])
    markdown = table.as_text(rows, "github")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    assert lines[0][:4] == ["model", "set", "images", "draws"]
    assert lines[3][lines[0].index("PSNR")] == "31.24"
    assert lines[3][lines[0].index("SSIM")] == ""
    assert lines[4][1] == "average"
    parsed = list(csv.DictReader(io.StringIO(table.as_csv(rows))))
    assert [float(row["psnr"]) for row in parsed] == [row.psnr for row in rows]
    (gain,) = table.differences([record(), record(model="n", psnr=30.1234)])
    assert "+0.123" in table.as_text([gain])


def test_luminance_is_not_compared_with_colour():
    colour, grey = grid([[30.0], [31.0]]), grid([[28.0], [29.0]], model="grey", channels=1)
    assert table.differences([*colour, *grey]) == []
