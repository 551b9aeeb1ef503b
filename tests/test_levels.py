"""How noise levels are written. What becomes of a SPEC as a noise model, test_noise.py looks at."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bsdenoise import noise
from bsdenoise.noise.spec import is_relative, parse_level


@pytest.mark.parametrize(
    ("spec", "full_scale", "expected"),
    [
        ("gaussian:25", 255, (25 / 255, 25 / 255)),
        ("gaussian:25/255", 65535, (25 / 255, 25 / 255)),
        ("gaussian:5-50", 255, (5 / 255, 50 / 255)),
        ("gaussian:5-50/100", 65535, (0.05, 0.5)),
        ("gaussian:50-5", 255, (50 / 255, 5 / 255)),  # whether that makes sense, the noise model says
    ],
)
def test_read(spec, full_scale, expected):
    declared = noise.read(spec, full_scale)
    assert declared.kind is noise.GaussianNoise
    assert (*declared.least, *declared.greatest) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spec", ["", "25", "gaussian:", "gaussian:-5", "gaussian:5-10-20", "poison:30"])
def test_unreadable_range(spec):
    with pytest.raises(ValueError, match=r"A noise SPEC reads gaussian:25 .* Received: '"):
        noise.read(spec, 255)


@pytest.mark.parametrize("read", [noise.read, parse_level])
def test_divisor_of_zero(read):
    with pytest.raises(ValueError, match="The number after the slash must be positive. Received: 0"):
        read("gaussian:25/0" if read is noise.read else "25/0", 255)


@pytest.mark.parametrize(
    "text, full_scale, sigma",
    [("25", 255, 25 / 255), ("25", 65535, 25 / 65535), ("25/255", 65535, 25 / 255), (" .1 ", 1, 0.1), ("2e-1", 1, 0.2)],
)
def test_parse_level(text, full_scale, sigma):
    assert parse_level(text, full_scale) == pytest.approx(sigma, rel=1e-12)


@pytest.mark.parametrize("text", ["", "a", "-5", "5-50", "gaussian:25", "25/", "nan", "/255"])
def test_unreadable_level(text):
    with pytest.raises(ValueError, match="A sigma reads 25 .* or 25/255. Received: "):
        parse_level(text, 255)


@pytest.mark.parametrize("text", ["0", "0.0/255", "0e5"])
def test_level_of_zero(text):
    with pytest.raises(ValueError, match="A sigma must be positive. Received: "):
        parse_level(text, 255)


@settings(deadline=None)
@given(st.floats(1e-6, 1.0))
def test_what_is_written_is_read(fraction):
    assert parse_level(repr(fraction), 1) == fraction


@pytest.mark.parametrize(
    "spec, relative", [("gaussian:25", False), ("gaussian:5-50", False), ("gaussian:25/255", True), ("25/255", True)]
)
def test_is_relative(spec, relative):
    assert is_relative(spec) == relative


def test_noise_offers_them_too():
    assert (noise.is_relative, noise.parse_level) == (is_relative, parse_level)


def test_no_neural_network_library_is_needed():
    program = (
        "import sys; sys.modules['keras'] = None; from bsdenoise.noise import spec; print(spec.parse_level('51', 255))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "0.2\n"
