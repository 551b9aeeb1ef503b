"""The benchmarks can be imported, and count the work of the network as the paper has it."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import work
from bsdenoise import blind_spot_network

FOLDER = Path(__file__).parents[1] / "benchmarks"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_can_be_imported(name):
    assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_multiplications_of_the_full_network():
    """By hand from the paper's table of layers: four branches and the head, per pixel of an image."""
    convolutions = work.convolutions(blind_spot_network())
    encoder = 9 * 48 * (3 + 48 * (1 + 1 / 4 + 1 / 16 + 1 / 64 + 1 / 256 + 1 / 1024))
    first = {5: 96, 4: 144, 3: 144, 2: 144, 1: 99}
    decoder = sum(9 * 96 * (maps + 96) / 4 ** (level - 1) for level, maps in first.items())
    head = 384 * 384 + 384 * 96 + 96 * 9
    assert sum(conv.nominal() for conv in convolutions) == pytest.approx(4 * (encoder + decoder) + head)
    coarse = {5: 48, 4: 96, 3: 96, 2: 96, 1: 96}
    saved = sum((9 - 4) * 96 * maps / 4 ** (level - 1) for level, maps in coarse.items())
    assert sum(conv.done() for conv in convolutions) == pytest.approx(4 * (encoder + decoder - saved) + head)


def test_multiplications_of_squares():
    convs = work.convolutions(blind_spot_network(width=4, depth=2))
    body = sum(conv.nominal() for conv in convs if conv.is_in_branch)
    head = sum(conv.nominal() for conv in convs if not conv.is_in_branch)
    assert head == 32 * 32 + 32 * 8 + 8 * 9
    assert sum(conv.squared(20, 30, 4) for conv in convs) == pytest.approx(body * 32**2 / 600 + head)


def test_peak_memory_is_that_of_this_process():
    """And not that of the one that started it."""
    code = "from benchmarks import machine; a = bytearray(300 * 2**20); del a; print(machine.peak_memory())"
    ballast = bytearray(600 * 2**20)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER.parent)
    del ballast
    assert 300 <= int(answer.stdout) <= 400
