"""What a terminal shows of `bsdenoise denoise`, and what a log gets."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios

import denoise_command
import numpy as np
import pytest
from denoise_command import denoise, grey, save

from bsdenoise import images, progress
from bsdenoise.cli import denoise_progress
from bsdenoise.cli.denoise_progress import Progress
from bsdenoise.pipeline import file_plan, file_task

use_model = denoise_command.use_model  # a fixture
BAR = re.compile(r"(?P<name>[^\r:]*): +(?P<percent>\d+)%\|[^|]*\| (?P<done>[\d.]+[kMG]?)/(?P<total>[\d.]+[kMG]?) \[")


def _open_terminal():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    return ours, theirs


@contextlib.contextmanager
def _terminal(monkeypatch):
    """Puts a pseudo-terminal in the place of stderr; gives what was written to it once the block has ended."""
    ours, theirs = _open_terminal()
    shown = []
    with open(theirs, "w") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        yield shown
    with contextlib.suppress(OSError):  # Linux' way to say that the other end is closed
        while part := os.read(ours, 2**16):
            shown.append(part.decode())
    os.close(ours)


def _tasks(tmp_path, *shapes):
    tasks = []
    for number, shape in enumerate(shapes):
        path = tmp_path / f"{number}.npy"
        tasks.append(file_task.Task(file_plan.Job(path, path), shape))
    return tasks


def test_one_file_has_one_bar_in_pixels(tmp_path, monkeypatch):
    (task,) = _tasks(tmp_path, (3000, 4000, 3))
    with _terminal(monkeypatch) as text, Progress([task]) as shown:
        for _ in range(4):
            shown.advance(task, 3e6)
        shown.end(task)
    bars = [match.groupdict() for match in BAR.finditer("".join(text))]
    assert bars[0] == {"name": "0.npy", "percent": "0", "done": "0.00", "total": "12.0M"}
    assert bars[-1] == {"name": "0.npy", "percent": "100", "done": "12.0M", "total": "12.0M"}
    assert {bar["name"] for bar in bars} == {"0.npy"}


def test_of_several_files_a_large_one_has_a_bar_of_its_own(tmp_path, monkeypatch):
    small, large, broken = tasks = _tasks(tmp_path, (1000, 1000), (2, 2000, 2000, 1), (500, 2000))
    with _terminal(monkeypatch) as text, Progress(tasks) as shown:
        shown.advance(small, 1e6)
        shown.end(small)
        for _ in range(16):
            shown.advance(large, 5e5)
        shown.end(large)
        shown.end(broken)
    bars = [match.groupdict() for match in BAR.finditer("".join(text))]
    assert [bar["name"] for bar in bars if bar["name"].endswith("npy")]
    assert {bar["name"] for bar in bars} <= {"1.npy", *(f"{number} of 3 files" for number in range(4))}
    assert {bar["total"] for bar in bars if bar["name"] == "1.npy"} == {"8.00M"}
    assert bars[-1] == {"name": "3 of 3 files", "percent": "100", "done": "10.0M", "total": "10.0M"}


def test_nothing_counts_twice(tmp_path, monkeypatch):
    (task,) = _tasks(tmp_path, (10, 10))
    with _terminal(monkeypatch), Progress([task]) as shown:
        shown.advance(task, 70)
        shown.advance(task, 70)
        shown.end(task)
    assert task.done == 100


def test_a_log_gets_a_line_at_times(tmp_path, monkeypatch, capsys):
    (task,) = _tasks(tmp_path, (1000, 4000))
    with Progress([task]) as shown:
        shown.advance(task, 1e6)
        monkeypatch.setattr(denoise_progress, "SECONDS_BETWEEN_LINES", 0)
        shown.advance(task, 1e6)
        shown.advance(task, 2e6)
        shown.end(task)
    assert capsys.readouterr().err == "bsdenoise: note: 2.0 of 4.0 megapixels are denoised\n"


def test_lines_stand_beside_the_bar(tmp_path, use_model, monkeypatch):
    use_model(1)
    save(tmp_path / "in/a.png", grey())
    (tmp_path / "in/b.png").write_text("no image")
    (tmp_path / "in/c.webp").write_text("no image")
    with _terminal(monkeypatch) as text:
        assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 2
    lines = [line.rpartition("\r")[2] for line in "".join(text).replace("\r\n", "\n").split("\n")]
    assert f"bsdenoise: note: {tmp_path / 'in'}: left out 1 .webp file: these kinds cannot be read" in lines
    assert any(line.startswith(f"bsdenoise: error: {tmp_path / 'in/b.png'}: cannot be read") for line in lines)
    assert lines[-2] == "1 written, 1 failed; sigma 25.5 (the model's own)"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("is_large", [False, True], ids=["whole", "in windows"])
def test_what_the_network_counts_moves_the_bar(tmp_path, use_model, monkeypatch, is_large, channels):
    """An image of channels that a grey model takes one by one counts once, in all."""
    denoiser = use_model(1)
    if is_large:
        monkeypatch.setattr(file_task, "STREAMED_PIXELS", 10)
    real = denoiser.denoise

    def count(noisy, sigma, **options):
        progress.advance(noisy[..., 0].size)
        return real(noisy, sigma, **options)

    monkeypatch.setattr(denoiser, "denoise", count)
    steps = []
    monkeypatch.setattr(Progress, "advance", lambda self, task, pixels: steps.append(pixels))
    save(tmp_path / "a.npy", np.zeros((8, 8, channels), np.float32))
    assert denoise(tmp_path / "a.npy", "--out", tmp_path / "out") == 0
    assert sum(steps) == pytest.approx(64)


@pytest.mark.slow
def test_the_program_says_from_the_start_what_it_does(tmp_path, tiny_denoiser_path):
    images.write(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (1200, 1000)).astype("uint8"))
    ours, theirs = _open_terminal()
    command = [sys.executable, "-m", "bsdenoise.cli", "denoise", "a.png", "--model", str(tiny_denoiser_path(1))]
    with subprocess.Popen(command, cwd=tmp_path, stderr=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 2**16):
                shown += part
        except OSError:  # Linux' way to say that the other end is closed
            pass
        assert process.wait() == 0
        assert process.stdout.read() == b""
    os.close(ours)
    text = shown.decode()
    assert text.index("looking for images …") < text.index("loading the model …") < text.index("a.png:   0%|")
    assert len({match["percent"] for match in BAR.finditer(text)}) > 5
    assert "1.20M/1.20M" in text
    assert text.rstrip().endswith("(the model's own)")
