"""What the page says."""

import dataclasses
import html
import math
import re
from pathlib import Path

import numpy as np
import pytest

from bsdenoise.app import texts
from bsdenoise.app.facts import Denoised, Facts
from bsdenoise.app.steps import Step
from bsdenoise.likelihood import posterior

FACTS = Facts("cat.png", "PNG", (300, 451, 3), np.dtype(np.uint8), (), 25.0)
RESULT = Denoised(
    np.zeros((300, 451, 3), np.uint8),
    np.zeros((300, 451, 3), np.uint8),
    np.full((300, 451), 0.25),
    (25.0,),
    "known",
    31.24,
)


def rows(text):
    """The table as a dictionary."""
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    return {html.unescape(name): html.unescape(value) for name, value in found}


def changed(thing, **changes):
    return dataclasses.replace(thing, **changes)


def test_a_result_tells_size_depth_sigma_quality_and_time():
    assert rows(texts.describe_result(FACTS, RESULT, 1.26, 0)) == {
        "File": "cat.png (PNG): 451 × 300 pixels, RGB, 8 bits",
        "σ used": "25.0 grey levels, the model's own",
        "Estimated PSNR": "31.2 dB for a peak of 255: an RMS error of 7.0 grey levels; an approximation, "
        "because 8-bit files round and clip their noise",
        "Uncertainty": "0.25 σ at the median pixel",
        "Display": "full size",
        "Time": "1.3 s",
    }


def test_without_any_noise_there_is_no_uncertainty():
    told = rows(texts.describe_result(FACTS, changed(RESULT, origin="estimated", sigmas=(0.0,)), 1.0, 0))
    assert told["σ used"] == "0 grey levels, estimated from the image"
    assert told["Uncertainty"] == "none, because no noise was found"


def test_pixels_without_a_measurement_do_not_count_in_the_median():
    ratio = np.array([[np.nan, 0.2, 0.3, 0.9]])
    assert rows(texts.describe_result(FACTS, changed(RESULT, ratio=ratio), 1.0, 0))["Uncertainty"].startswith("0.30 σ")


def test_an_estimated_sigma_gives_no_psnr():
    result = changed(RESULT, origin="estimated", sigmas=(20.04, 26.0, 23.0), estimated_psnr=None)
    told = rows(texts.describe_result(FACTS, result, 1.0, 0))
    assert told["σ used"] == "20.0, 26.0, 23.0 grey levels, estimated from the image for each channel"
    assert told["Estimated PSNR"].startswith("withheld, because σ was estimated")


def test_a_float_stack_tells_its_window_and_which_image_is_shown():
    facts = changed(FACTS, name="s.npy", format="NPY", shape=(12, 3200, 10, 5), dtype=np.dtype(np.float32))
    pixels = np.linspace(0, 1000, 3200 * 10 * 5, dtype=np.float32).reshape(3200, 10, 5)
    result = changed(RESULT, noisy=pixels, denoised=pixels, sigmas=(0.12345,), origin="given")
    told = rows(texts.describe_result(facts, result, 1.0, 2))
    assert told["File"] == "s.npy (NPY): 12 images of 10 × 3200 pixels, 5 channels, 32-bit floats"
    assert told["Shown"] == "image 3 of 12"
    assert told["σ used"] == "0.1235 in the file's units, as given"
    assert told["Estimated PSNR"] == "31.2 dB for a peak of 1: an RMS error of 0.02742 in the file's units"
    assert re.fullmatch(
        r"shrunk to 50 % \(the download is not\), the mean of the channels, each from its own black to its own white",
        told["Display"],
    )


@pytest.mark.parametrize("psnr", [math.nan, math.inf])
def test_a_psnr_that_cannot_be_trusted_is_withheld_with_the_reason(psnr):
    told = rows(texts.describe_result(FACTS, changed(RESULT, estimated_psnr=psnr), 1.0, 0))["Estimated PSNR"]
    assert told == f"withheld, because {posterior.WITHHELD}"
    assert "dB" not in told


UNITS = {
    "8 bits": (np.uint8, None, 25.0, "25.0 grey levels"),
    "16 bits": (np.uint16, None, 300.0, "300.0 counts"),
    "packed 12 bits": (np.uint16, 12, 30.0, "30.0 counts"),
    "less than a count": (np.uint16, None, 0.25, "0.25 counts"),
    "float counts": (np.float32, None, 300.0, "300 in the file's units"),
    "tiny floats": (np.float32, None, 1.5e-20, "1.5e-20 in the file's units"),
}


@pytest.mark.parametrize(("dtype", "bits", "sigma", "expected"), UNITS.values(), ids=UNITS)
def test_sigma_is_told_in_the_units_in_which_it_was_declared(dtype, bits, sigma, expected):
    facts = changed(FACTS, dtype=np.dtype(dtype), bits=bits, own_sigma=sigma, trained=(sigma, 2 * sigma))
    result = changed(RESULT, denoised=np.zeros((3, 4, 3), dtype), origin="given", sigmas=(sigma,), given=f"{sigma:g}")
    told = rows(texts.describe_result(facts, result, 1.0, 0))
    number, unit = expected.split(" ", 1)
    assert told["σ used"] == f"{expected}, as given"
    assert re.fullmatch(rf"{re.escape(number)} to [\d.e-]+ {unit}", told["Model trained for σ"])
    assert texts.about_sigma(facts).endswith(f"Empty: the model's own, {expected}.")
    fraction = changed(result, given=" 25/255")
    told = rows(texts.describe_result(facts, fraction, 1.0, 0))
    assert told["σ used"] == f"25/255 of full scale ({expected}), as given"


@pytest.mark.parametrize(
    ("sigmas", "is_rescaled"),
    [((30.0,), True), ((1285.0,), False), ((2000.0, 30.0), True), ((15_000.0,), True), ((0.0,), False)],
)
def test_a_sigma_beyond_the_training_is_said_to_be_used_as_it_is(sigmas, is_rescaled):
    facts = changed(FACTS, dtype=np.dtype(np.uint16), trained=(1285.0, 12850.0))
    result = changed(RESULT, denoised=np.zeros((3, 4, 3), np.uint16), sigmas=sigmas)
    told = rows(texts.describe_result(facts, result, 1.0, 0))["Model trained for σ"]
    assert told.startswith("1285.0 to 12850.0 counts")
    assert ("intensities are rescaled" in told) == is_rescaled


@pytest.mark.parametrize(
    ("dtype", "bits", "expected"),
    [
        (np.uint8, None, "In grey levels (full scale is 255)"),
        (np.uint16, None, "In counts (full scale is 65535)"),
        (np.uint16, 12, "In counts (full scale is 4095)"),
        (np.float32, None, "In the file's own units"),
    ],
)
def test_the_field_of_sigma_names_its_units(dtype, bits, expected):
    assert texts.about_sigma(changed(FACTS, dtype=np.dtype(dtype), bits=bits)).startswith(expected)


def test_an_error_is_told_in_the_units_of_the_file_and_for_the_peak_of_the_model():
    facts = changed(FACTS, dtype=np.dtype(np.uint16), bits=12, peak=2000.0)
    result = changed(RESULT, denoised=np.zeros((3, 4, 3), np.uint16), estimated_psnr=40.0)
    told = rows(texts.describe_result(facts, result, 1.0, 0))["Estimated PSNR"]
    assert told == "40.0 dB for a peak of 2000: an RMS error of 20.0 counts"


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.uint16, "black is 64, white is 63935"), (np.float64, "black is 64, white is 6.394e+04")],
)
def test_black_and_white_are_told_as_the_file_holds_them(dtype, expected):
    pixels = np.linspace(0, 64_000, 100_000).reshape(1000, 100, 1).astype(dtype)
    facts = changed(FACTS, dtype=np.dtype(dtype), shape=(1000, 100))
    told = rows(texts.describe_result(facts, changed(RESULT, noisy=pixels, denoised=pixels), 1.0, 0))
    assert told["Display"] == f"full size, {expected}"


def test_channels_that_are_no_colours_are_said_to_be_none():
    facts = changed(FACTS, independent_channels=True, one_by_one=True, dtype=np.dtype(np.uint16))
    pixels = np.zeros((9, 9, 3), np.uint16) + np.array([10, 200, 3000], np.uint16)
    pixels[0] += 100
    result = changed(RESULT, noisy=pixels, denoised=pixels, sigmas=(1.0, 2.0, 3.0))
    told = rows(texts.describe_result(facts, result, 1.0, 0))
    assert "3 channels, 16 bits" in told["File"] and "RGB" not in told["File"]
    assert told["Channels"] == "each denoised by itself"
    assert told["Display"].startswith(
        "full size, false colours: channel 1 in red (10 to 110), channel 2 in green (200 "
    )
    together = rows(texts.describe(changed(facts, one_by_one=False)))
    assert together["Channels"] == "all denoised together, as the model was trained"
    assert "Channels" not in rows(texts.describe(FACTS))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Step("waiting"), "Waiting for another image"),
        (Step("reading"), "Reading the pixels"),
        (Step("denoising", share=0.0), "Denoising"),
        (Step("denoising", share=0.5, seconds_left=3.2), "Denoising: about 4 s left"),
        (Step("denoising", 2, 7, 0.5, 61.0), "Denoising image 2 of 7: about 2 min left"),
        (Step("writing"), "Writing the file"),
    ],
)
def test_what_is_being_done_is_told(step, expected):
    assert texts.progress(step) == expected


def test_the_headers_alone_are_described_with_their_notes():
    facts = changed(FACTS, shape=(4, 5), dtype=np.dtype(np.uint16), notes=("its alpha channel is dropped",))
    assert rows(texts.describe(facts)) == {
        "File": "cat.png (PNG): 5 × 4 pixels, grey, 16 bits",
        "Note": "its alpha channel is dropped",
    }


@pytest.mark.parametrize(
    ("facts", "ending"),
    [
        (None, "Empty: the model's own."),
        (FACTS, "Empty: the model's own, 25.0 grey levels."),
        (changed(FACTS, dtype=np.dtype(np.uint16), own_sigma=6425.0), "Empty: the model's own, 6425.0 counts."),
        (changed(FACTS, own_sigma=None), "Empty: estimated from the image."),
    ],
)
def test_the_meaning_of_no_sigma_is_told(facts, ending):
    assert texts.about_sigma(facts).endswith(ending)


def test_what_comes_from_files_cannot_write_html():
    facts = changed(FACTS, name="<script>alert(1)</script>.png", notes=("<b>",))
    for text in (texts.describe(facts), texts.alert("<script>"), texts.paragraph("<script>")):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


def test_the_legend_says_what_white_means():
    assert "White, 1: nothing was gained" in texts.legend()
    assert texts.legend().count("<span>") == 5


class ClientError(Exception):
    """As `bsdenoise.client` has it."""


ClientError.__module__ = "bsdenoise.client.errors"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("/tmp/x/a.png: cannot be\nread."), "a.png: cannot be read."),
        (FileNotFoundError(2, "gone", "/tmp/x/a.png"), "The file is no longer here.*drop it again"),
        (ClientError("http://h: no answer"), "http://h: no answer"),
    ],
)
def test_errors_are_one_sentence_without_paths(capsys, error, expected):
    told = texts.sentence(error, Path("/tmp/x/a.png"))
    assert re.match(expected, told)
    assert "/tmp/x" not in told
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("error", "expected"), [(KeyError("x"), "KeyError: 'x'"), (MemoryError(), "MemoryError")])
def test_bugs_are_told_to_the_owner_too(capsys, error, expected):
    assert texts.sentence(error) == expected
    assert capsys.readouterr().err.startswith(f"bsdenoise: error: {expected} (BSDENOISE_DEBUG=1")


def test_long_messages_are_cut(capsys):
    assert len(texts.sentence(RuntimeError("word " * 1000))) <= texts.MAX_SENTENCE


def test_tracebacks_are_shown_on_request(monkeypatch, capsys):
    monkeypatch.setenv("BSDENOISE_DEBUG", "1")
    texts.sentence(ValueError("no"))
    assert "ValueError: no" in capsys.readouterr().err
