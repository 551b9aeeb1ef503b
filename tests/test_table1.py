"""The table as in the paper: order, averages, what is bold, and published numbers beside."""

import csv
import io
import json
import re

import numpy as np
import pytest

from bsdenoise.evaluation import references, table, table1
from bsdenoise.evaluation.records import Record

SIGMA = float(np.float32(25 / 255))
KNOWN = {"kodak": "kodak24", "bsd": "bsd300", "s14": "set14", "bsd68": "bsd68"}
IMAGES = {"kodak": 24, "bsd": 100, "s14": 14, "bsd68": 68, "mine": 2}
METHODS = ("full", "per_component", "l2", "n2n", "n2c", "bm3d", "n2v")


def records(model, dataset, psnr, images=None, channels=None, sigma=SIGMA):
    """Records of a set; their PSNRs lie around `psnr`, and the mean is that."""
    count = images or IMAGES[dataset]
    spread = np.linspace(-1, 1, count) if count > 1 else [0.0]
    channels = channels or (1 if dataset == "bsd68" else 3)
    values = {"draw": 0, "height": 8, "width": 8, "sigma": sigma, "sigma_used": sigma, "psnr_noisy": 20.0}
    values |= {"psnr_unrounded": 1.0, "psnr_mean": None, "ssim": None, "sure_psnr": None, "calibration": None}
    values |= {"sure_withheld": False}
    values |= {"seconds": 1.0, "model": model, "dataset": dataset, "channels": channels}
    return [Record(image=f"{i}", psnr=psnr + float(offset), **values) for i, offset in enumerate(spread)]


def make(*groups, contestants=None, known=KNOWN, noise="gaussian:25"):
    """The table of groups of records; without contestants, names are methods."""
    rows = table.summarise([record for group in groups for record in group])
    contestants = contestants or {row.model: row.model for row in rows}
    return table1.make(rows, contestants, known, noise)


def line(result, title):
    """Values of the row of that title, by column."""
    (found,) = [one for one in result.lines if one.title == title]
    return {column.name: value for column, value in zip(result.columns, found.psnr, strict=True) if value is not None}


def best(result, title):
    (found,) = [one for one in result.lines if one.title == title]
    return {column.name for column, is_best in zip(result.columns, found.best, strict=True) if is_best}


def titles(result):
    return [one.title for one in result.lines]


def test_rows_and_columns_are_in_the_order_of_the_paper():
    sets = ("bsd68", "mine", "s14", "bsd", "kodak")
    groups = [records(method, name, 30.0) for method in reversed(METHODS) for name in sets]
    result = make(*groups)
    assert tuple(column.name for column in result.columns) == METHODS
    measured = [one.set for one in result.lines if one.source is None]
    assert measured == ["Kodak", "BSD300", "Set14", "mine", "Average", "BSD68 grey"]


def test_other_methods_come_last_and_have_no_reference():
    result = make(*(records(model, "kodak", 30.0) for model in ("darker", "n2c", "full")))
    assert [column.name for column in result.columns] == ["full", "n2c", "darker"]
    assert line(result, "Kodak, paper") == {"full": 32.39, "n2c": 32.41}
    assert line(result, "Kodak, follow-up") == {"full": 32.45}
    assert titles(make(records("darker", "kodak", 30.0))) == ["Kodak"]


def test_contestants_of_one_method_each_have_a_column_and_the_reference():
    contestants = {"b": "l2", "narrow": "full", "wide": "full"}
    result = make(*(records(name, "kodak", 30.0) for name in contestants), contestants=contestants)
    assert result.heads == ["narrow", "wide", "l2"]
    assert line(result, "Kodak, paper") == {"narrow": 32.39, "wide": 32.39, "b": 30.58}


@pytest.mark.parametrize(
    ("loss", "is_best"),
    [
        pytest.param(0.0, True, id="equal"),
        pytest.param(0.05, True, id="at-the-limit"),
        pytest.param(0.0501, False, id="beyond"),
    ],
)
def test_best_is_within_a_twentieth_of_a_decibel_of_the_best_measured(loss, is_best):
    result = make(records("full", "kodak", 31.10), records("n2c", "kodak", 31.10 - loss), records("l2", "kodak", 29.0))
    assert best(result, "Kodak") == ({"full", "n2c"} if is_best else {"full"})
    assert not best(result, "Kodak, paper")  # though it is higher than all that was measured


def test_the_average_counts_sets_once_and_takes_only_contestants_that_have_all():
    groups = [records("full", "kodak", 32.0), records("full", "bsd", 30.0), records("full", "bsd68", 20.0)]
    groups += [records("l2", "kodak", 31.0), records("l2", "bsd68", 19.0)]
    result = make(*groups)
    assert line(result, "BSD300").keys() == {"full"}
    assert line(result, "Average") == {"full": pytest.approx(31.0)}
    assert best(result, "Average") == {"full"}
    # Of the same sets, all of which the paper has for both methods.
    expected = {"full": pytest.approx((32.39 + 30.99) / 2), "l2": pytest.approx((30.58 + 28.61) / 2)}
    assert line(result, "Average, paper") == expected


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param([records("full", "kodak", 32.0)], id="one-set"),
        pytest.param([records("full", "kodak", 32.0), records("full", "bsd68", 29.0)], id="colour-and-grey"),
        pytest.param([records("full", "kodak", 32.0), records("full", "bsd68", 29.0, channels=3)], id="grey-as-colour"),
        pytest.param([records("full", "kodak", 32.0), records("l2", "bsd", 29.0)], id="nobody-has-both"),
    ],
)
def test_no_average_where_there_is_nothing_to_average(groups):
    assert not any("Average" in title for title in titles(make(*groups)))


def test_several_grey_sets_have_an_average_of_their_own():
    groups = [records("full", "bsd68", 29.0), records("full", "mine", 27.0, channels=1)]
    result = make(*groups)
    assert titles(result) == ["BSD68 grey", "BSD68 grey, paper", "mine", "Average, 1 channel"]
    assert line(result, "Average, 1 channel") == {"full": pytest.approx(28.0)}


def test_luminance_and_colour_of_a_set_are_two_rows_and_only_one_has_references():
    contestants = {"colour": "full", "grey": "full"}
    groups = [records("colour", "kodak", 32.0), records("grey", "kodak", 30.0, channels=1)]
    groups += [records("colour", "bsd68", 31.0, channels=3), records("grey", "bsd68", 29.0)]
    groups += [records("colour", "mine", 33.0), records("grey", "mine", 32.0, channels=1)]
    result = make(*groups, contestants=contestants)
    assert line(result, "Kodak") == {"colour": pytest.approx(32.0)}
    assert line(result, "Kodak, 1 channel") == {"grey": pytest.approx(30.0)}
    assert line(result, "BSD68 grey") == {"grey": pytest.approx(29.0)}
    assert line(result, "BSD68 grey, 3 channels") == {"colour": pytest.approx(31.0)}
    assert line(result, "mine, 3 channels") == {"colour": pytest.approx(33.0)}
    assert line(result, "mine, 1 channel") == {"grey": pytest.approx(32.0)}
    with_source = {one.set for one in result.lines if one.source}
    assert with_source == {"Kodak", "BSD68 grey"}


def test_two_folders_of_one_set_are_told_apart():
    groups = [records("full", name, 30.0, images=24) for name in ("kodak", "copy")]
    result = make(*groups, known={"kodak": "kodak24", "copy": "kodak24"})
    assert [one.set for one in result.lines if one.source is None] == ["Kodak (kodak)", "Kodak (copy)", "Average"]


@pytest.mark.parametrize(
    ("noise", "sigma", "is_shown"),
    [
        pytest.param("gaussian:25", SIGMA, True, id="grey-levels"),
        pytest.param("gaussian:25/255", SIGMA, True, id="fraction"),
        pytest.param("gaussian:25", float(np.float32(25 / 65535)), False, id="16-bit-files"),
        pytest.param("gaussian:24.9", float(np.float32(24.9 / 255)), False, id="weaker"),
        pytest.param("poisson:30", SIGMA, False, id="another-kind"),
        pytest.param(None, None, False, id="real-pairs"),
    ],
)
def test_references_are_for_the_noise_of_the_papers(noise, sigma, is_shown):
    result = make(records("full", "kodak", 30.0, sigma=sigma), noise=noise)
    assert titles(result) == (["Kodak", "Kodak, paper", "Kodak, follow-up"] if is_shown else ["Kodak"])
    assert any("Laine" in note for note in result.notes) == is_shown


def test_a_range_of_noise_has_no_references():
    group = records("full", "kodak", 30.0, images=12) + records("full", "kodak", 30.0, images=24, sigma=0.05)[12:]
    assert titles(make(group, noise="gaussian:5-50")) == ["Kodak"]


@pytest.mark.parametrize("known", [{}, {"kodak": "a set of another kind"}], ids=["unknown", "without-numbers"])
def test_sets_that_were_not_recognised_go_by_their_own_name(known):
    assert titles(make(records("full", "kodak", 30.0), known=known)) == ["kodak"]


def test_notes_say_that_a_part_is_compared_with_the_whole():
    result = make(records("full", "bsd", 30.0, images=25), records("full", "kodak", 32.0))
    (note,) = [note for note in result.notes if "part" in note]
    assert re.match("BSD300: 25 images were measured and 100 published", note)


def test_notes_say_that_columns_are_over_other_images():
    result = make(records("full", "mine", 30.0, images=3), records("l2", "mine", 29.0, images=2))
    assert result.notes == ("mine: the columns are not over the same images (2-3 of them)",)


def test_notes_name_only_the_publications_shown():
    result = make(records("n2v", "bsd68", 27.0))
    assert [note.partition(":")[0] for note in result.notes] == ["paper"]
    assert table1.as_dict(result)["references"].keys() == {"paper"}


def test_a_folder_called_average_is_a_set_like_any_other():
    result = make(records("full", "average", 30.0, images=2), records("full", "mine", 20.0))
    assert titles(result) == ["average", "mine", "Average"]
    assert line(result, "Average") == {"full": pytest.approx(25.0)}


def test_rows_of_strangers_are_refused():
    with pytest.raises(ValueError, match=r"one of l2\. Received: full\."):
        make(records("full", "kodak", 30.0), contestants={"l2": "l2"})


@pytest.fixture(scope="module")
def small():
    """Two columns, one cell empty."""
    groups = [records("full", "kodak", 32.385), records("l2", "kodak", 30.0), records("full", "bsd", 31.0, images=25)]
    return make(*groups)


def cells(text):
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("|")]


def test_markdown(small):
    head, _, *body = cells(table1.as_markdown(small))
    assert head == ["PSNR, dB", "full", "l2"]
    assert body[:3] == [
        ["Kodak", "**32.38**", "30.00"],
        ["Kodak, paper", "32.39", "30.58"],
        ["Kodak, follow-up", "32.45", "30.64"],
    ]
    assert ["BSD300", "**31.00**", ""] in body
    notes = [row for row in table1.as_markdown(small).splitlines() if row.startswith("- ")]
    assert notes[0] == "- bold: within 0.05 dB of the best measured one of its row"
    assert notes[1:] == [f"- {note}" for note in small.notes]


def test_text_marks_the_best_by_a_star_or_in_bold(small):
    starred, bold = table1.as_text(small, is_bold=False), table1.as_text(small, is_bold=True)
    rows = [row for row in starred.splitlines() if row.startswith("Kodak")]
    assert re.split(r"\s{2,}", rows[0]) == ["Kodak", "32.38*", "30.00"]
    assert len({row.index("3") for row in rows}) == 1  # digits stand below each other, stars or not
    assert "\n*: within 0.05 dB" in starred
    assert "\x1b" not in starred
    assert "\x1b[1m32.38\x1b[0m" in bold
    assert "*" not in bold
    lines = [re.sub(r"\x1b\[\d+m", "", row) for row in bold.splitlines()]
    assert len({row.find("30.") for row in lines if row.startswith("Kodak")}) == 1  # escapes take no room


@pytest.mark.parametrize(
    ("is_terminal", "no_color", "is_bold"),
    [
        pytest.param(True, None, True, id="terminal"),
        pytest.param(True, "1", False, id="terminal-without-colour"),
        pytest.param(False, None, False, id="pipe"),
    ],
)
def test_text_is_bold_on_a_terminal_only(small, monkeypatch, is_terminal, no_color, is_bold):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal, raising=False)
    assert table1.as_text(small) == table1.as_text(small, is_bold)


def test_csv_is_not_rounded(small):
    rows = list(csv.DictReader(io.StringIO(table1.as_csv(small))))
    assert list(rows[0]) == ["set", "source", "full", "l2"]
    assert [(row["set"], row["source"]) for row in rows[:3]] == [
        ("Kodak", "measured"),
        ("Kodak", "paper"),
        ("Kodak", "follow-up"),
    ]
    assert float(rows[0]["full"]) == pytest.approx(32.385, abs=1e-9)
    (empty,) = [row for row in rows if (row["set"], row["source"]) == ("BSD300", "measured")]
    assert (float(empty["full"]), empty["l2"]) == (pytest.approx(31.0), "")


def test_dict_goes_through_json(small):
    found = json.loads(json.dumps(table1.as_dict(small)))
    assert found["columns"] == [{"name": "full", "method": "full"}, {"name": "l2", "method": "l2"}]
    rows = {(row["set"], row["source"]): row for row in found["rows"]}
    assert rows["Kodak", "measured"]["best"] == ["full"]
    assert rows["BSD300", "measured"]["psnr"] == {"full": pytest.approx(31.0)}
    assert rows["BSD300", "measured"]["images"] == {"full": 25}
    assert rows["BSD300", "paper"]["images"] == {"full": 100, "l2": 100}
    assert rows["Average", "measured"]["images"] == {"full": 49}
    assert found["references"].keys() == {"paper", "follow-up"}
    assert found["notes"] == list(small.notes)


def test_published_averages_are_over_the_sets_asked_for():
    keys = ["kodak24", "bsd300", "set14"]
    assert references.average(references.FOLLOW_UP, "full", keys) == pytest.approx((32.45 + 31.03 + 31.25) / 3)
    assert references.average(references.PAPER, "bm3d", keys[1:]) == pytest.approx((30.34 + 30.50) / 2)


def test_published_numbers_are_missing_where_the_source_has_none():
    assert references.published(references.PAPER, "n2v", "bsd68") == 27.71
    assert references.published(references.PAPER, "n2v", "kodak24") is None
    assert references.average(references.PAPER, "n2v", ["kodak24", "bsd68"]) is None
    assert references.average(references.PAPER, "darker", ["kodak24"]) is None
