"""What the page says."""

import dataclasses
import html
import re
from pathlib import Path

import numpy as np
import pytest

from bsdenoise.app import words
from bsdenoise.app.denoising import Denoised, Facts

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
    assert rows(words.describe_result(FACTS, RESULT, 1.26, 0)) == {
        "File": "cat.png (PNG): 451 × 300 pixels, RGB, 8 bits",
        "σ used": "25.0 grey levels, the model's own",
        "Estimated PSNR": "31.2 dB, an approximation for 8-bit files, whose noise is rounded and clipped",
        "Uncertainty": "0.25 σ at the median pixel",
        "Display": "full size",
        "Time": "1.3 s",
    }


def test_an_estimated_sigma_gives_no_psnr():
    result = changed(RESULT, origin="estimated", sigmas=(20.04, 26.0, 23.0), estimated_psnr=None)
    told = rows(words.describe_result(FACTS, result, 1.0, 0))
    assert told["σ used"] == "20.0 grey levels to 26.0 grey levels, estimated from the image"
    assert told["Estimated PSNR"] == "none where σ was estimated: it would be too high"


def test_a_float_stack_tells_its_window_and_which_image_is_shown():
    facts = changed(FACTS, name="s.npy", format="NPY", shape=(12, 3200, 10, 5), dtype=np.dtype(np.float32))
    pixels = np.linspace(0, 1000, 3200 * 10 * 5, dtype=np.float32).reshape(3200, 10, 5)
    result = changed(RESULT, noisy=pixels, denoised=pixels, sigmas=(0.12345,), origin="given")
    told = rows(words.describe_result(facts, result, 1.0, 2))
    assert told["File"] == "s.npy (NPY): 12 images of 10 × 3200 pixels, 5 channels, 32-bit floats"
    assert told["Shown"] == "image 3 of 12"
    assert told["σ used"] == "0.1235, as given"
    assert told["Estimated PSNR"] == "31.2 dB"
    assert re.fullmatch(
        r"shrunk to 50 % \(the download is not\), the mean of its channels, black is 1\.?\d*, white 999",
        told["Display"],
    )


def test_the_headers_alone_are_described_with_their_notes():
    facts = changed(FACTS, shape=(4, 5), dtype=np.dtype(np.uint16), notes=("its alpha channel is dropped",))
    assert rows(words.describe(facts)) == {
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
    assert words.about_sigma(facts).endswith(ending)


def test_what_comes_from_files_cannot_write_html():
    facts = changed(FACTS, name="<script>alert(1)</script>.png", notes=("<b>",))
    for text in (words.describe(facts), words.alert("<script>"), words.paragraph("<script>")):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


def test_the_legend_says_what_white_means():
    assert "White, 1: nothing was gained" in words.legend()
    assert words.legend().count("<span>") == 5


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
    told = words.sentence(error, Path("/tmp/x/a.png"))
    assert re.match(expected, told)
    assert "/tmp/x" not in told
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("error", "expected"), [(KeyError("x"), "KeyError: 'x'"), (MemoryError(), "MemoryError")])
def test_bugs_are_told_to_the_owner_too(capsys, error, expected):
    assert words.sentence(error) == expected
    assert capsys.readouterr().err.startswith(f"bsdenoise: error: {expected} (BSDENOISE_DEBUG=1")


def test_long_messages_are_cut(capsys):
    assert len(words.sentence(RuntimeError("word " * 1000))) <= words.MAX_SENTENCE


def test_tracebacks_are_shown_on_request(monkeypatch, capsys):
    monkeypatch.setenv("BSDENOISE_DEBUG", "1")
    words.sentence(ValueError("no"))
    assert "ValueError: no" in capsys.readouterr().err
