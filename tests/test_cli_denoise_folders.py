"""`bsdenoise denoise` with folders of many images: batches, what overlaps, what is bounded, and how it ends."""

import re
import threading

import denoise_command
import numpy as np
import pytest
from denoise_command import OWN_SIGMA, denoise, grey, save, written

from bsdenoise import cli, images
from bsdenoise.cli import models
from bsdenoise.images import results
from bsdenoise.pipeline import local_files

use_model = denoise_command.use_model
WAIT = 20  # seconds, for what takes none
SHAPE, OTHER = (5, 7), (7, 5)


def save_all(folder, shapes, value=100, dtype=np.uint8, suffix=".png"):
    return [
        save(folder / f"{number}{suffix}", grey(value, dtype, shape)) for number, shape in enumerate(shapes, start=1)
    ]


# --- batches -------------------------------------------------------------------------------------------------------


def test_images_of_equal_shape_are_denoised_together(tmp_path, use_model):
    denoiser = use_model(1)
    save_all(tmp_path / "in", [SHAPE, OTHER, SHAPE, OTHER, SHAPE])
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert denoiser.batches == [3, 2]
    for path in written(tmp_path / "out"):
        assert (images.read_array(tmp_path / "out" / path) == 50).all()


def test_images_of_other_types_are_not(tmp_path, use_model):
    denoiser = use_model(1)
    save_all(tmp_path / "in", [SHAPE] * 2)
    save_all(tmp_path / "in/deep", [SHAPE] * 3, 1000, np.uint16)
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert denoiser.batches == [2, 3]
    assert (images.read_array(tmp_path / "out/deep/2.png") == 500).all()


@pytest.mark.parametrize(("pixels", "expected"), [(70, [2, 2, 1]), (104, [2, 2, 1]), (105, [3, 2]), (1, [1] * 5)])
def test_batches_have_few_pixels(tmp_path, use_model, monkeypatch, pixels, expected):
    denoiser = use_model(1)
    monkeypatch.setattr(local_files, "BATCH_PIXELS", pixels)
    save_all(tmp_path / "in", [SHAPE] * 5)
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert denoiser.batches == expected


def test_stacks_and_colours_of_a_grey_model_share_batches(tmp_path, use_model):
    denoiser = use_model(1)
    pixels = np.arange(2 * 5 * 7 * 3).reshape(2, 5, 7, 3).astype(np.uint8) // 2 * 2
    save(tmp_path / "in/a.npy", pixels)
    save(tmp_path / "in/b.png", pixels[0])
    assert denoise(tmp_path / "in", "--out", tmp_path / "out", "--std") == 0
    assert denoiser.batches == [9]
    np.testing.assert_array_equal(images.read_array(tmp_path / "out/a.npy"), pixels // 2)
    np.testing.assert_array_equal(images.read_array(tmp_path / "out/b.png"), pixels[0] // 2)
    np.testing.assert_allclose(images.read_array(tmp_path / "out/a-std.npy"), pixels / 255, rtol=1e-5)
    np.testing.assert_allclose(images.read_array(tmp_path / "out/b-std.png"), pixels[0], atol=1)


def test_each_file_has_its_own_sigma_and_is_told_of_in_order(tmp_path, use_model, capsys):
    use_model(1, is_known=False)
    values = [0, 51, 102, 153, 255]
    shapes = [SHAPE, OTHER, SHAPE, SHAPE, OTHER]
    files = [
        save(tmp_path / f"in/{number}.png", grey(value, shape=shape))
        for number, (value, shape) in enumerate(zip(values, shapes, strict=True))
    ]
    bad = tmp_path / "in/2b.png"
    bad.write_text("no image")
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines.pop(3).startswith(f"bsdenoise: error: {bad}: cannot be read")
    sigmas = [255 * OWN_SIGMA * (1 + value / 255) for value in values]
    assert lines[:5] == [f"{file}: sigma {sigma:.1f} (estimated)" for file, sigma in zip(files, sigmas, strict=True)]
    assert lines[5:] == ["5 written, 1 failed; sigma 25.5 to 51.0 (estimated per image)"]


def without_notes(text):
    """Return the lines but those that say how an array was taken."""
    return [line for line in text.splitlines() if not line.startswith("bsdenoise: note: ")]


def test_a_stack_that_is_broken_inside_fails_alone(tmp_path, use_model, capsys):
    denoiser = use_model(1)
    stack = np.full((6, 5, 7, 1), 0.5, np.float32)
    stack[2, 1, 1] = np.inf
    for name in ("a", "b", "c"):
        save(tmp_path / f"in/{name}.npy", stack if name == "b" else np.full((3, 5, 7, 1), 0.5, np.float32))
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 2
    assert written(tmp_path / "out") == ["a.npy", "c.npy"]
    lines = without_notes(capsys.readouterr().err)
    assert re.fullmatch(r"bsdenoise: error: .*b\.npy: cannot be read as NPY: .*infinite.*", lines[0])
    assert lines[1:] == ["2 written, 1 failed; sigma 0.1 (the model's own)"]
    assert len(denoiser.shapes) <= 3 + 2 + 3


def test_a_stack_of_which_one_image_is_refused_fails_alone(tmp_path, use_model, capsys, monkeypatch):
    denoiser = use_model(1)
    monkeypatch.setattr(local_files, "BATCH_PIXELS", 70)
    monkeypatch.setattr(local_files, "LOOK_AHEAD_PIXELS", 70)
    stack = np.full((20, 5, 7, 1), 100, np.uint8)
    stack[3] = 250
    real = denoiser.denoise

    def fail_for_bright_ones(noisy, sigma):
        if noisy.max() > 200:
            raise ValueError("too bright")
        return real(noisy, sigma)

    monkeypatch.setattr(denoiser, "denoise", fail_for_bright_ones)
    save(tmp_path / "in/a.npy", stack)
    save(tmp_path / "in/b.npy", stack[:2])
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 2
    assert written(tmp_path / "out") == ["b.npy"]
    lines = without_notes(capsys.readouterr().err)
    assert lines == [
        f"bsdenoise: error: {tmp_path / 'in/a.npy'}: too bright",
        "1 written, 1 failed; sigma 25.5 (the model's own)",
    ]
    assert len(denoiser.shapes) == 3 + 2  # nothing of the stack after the image that failed


def test_a_real_model_gives_the_pixels_of_one_by_one(tmp_path, tiny_denoiser_path):
    rng = np.random.default_rng(0)
    shapes = [(24, 17, 3), (17, 24, 3), (24, 17, 3), (24, 17, 3), (17, 24, 3), (40, 9, 3)]
    noisy = {
        save(tmp_path / f"in/{number}.png", pixels).name: pixels
        for number, pixels in enumerate(rng.integers(80, 180, shape, np.uint8) for shape in shapes)
    }
    floats = rng.uniform(0.3, 0.7, (3, 24, 17, 3)).astype(np.float32)
    save(tmp_path / "in/stack.npy", floats)
    path = tiny_denoiser_path(3, 0.3)
    assert cli.main(["denoise", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--model", str(path)]) == 0
    denoiser = models.load_denoiser(path)
    for name, pixels in noisy.items():
        expected = images.from_unit(denoiser.denoise(pixels), np.uint8).astype(int)
        differences = np.abs(images.read_array(tmp_path / "out" / name) - expected)
        assert differences.max() <= 1 and differences.sum() <= 2
    for image, result in zip(floats, images.read_array(tmp_path / "out/stack.npy"), strict=True):
        np.testing.assert_allclose(result, denoiser.denoise(image), atol=1e-6)


# --- what overlaps -------------------------------------------------------------------------------------------------


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Each image is a batch of its own, computed as soon as it is there."""
    monkeypatch.setattr(local_files, "BATCH_PIXELS", 1)
    monkeypatch.setattr(local_files, "LOOK_AHEAD_PIXELS", 1)


def watch(monkeypatch, denoiser, before):
    """Calls `before` with the number of the call whenever the model is asked."""
    calls = []
    real = denoiser.denoise

    def denoise_after(noisy, sigma):
        before(len(calls))
        calls.append(noisy)
        return real(noisy, sigma)

    monkeypatch.setattr(denoiser, "denoise", denoise_after)


def test_next_files_are_read_and_last_ones_written_while_the_model_computes(
    tmp_path, use_model, monkeypatch, one_at_a_time
):
    denoiser = use_model(1)
    files = save_all(tmp_path / "in", [SHAPE] * 4)
    third_is_read, first_is_written = threading.Event(), threading.Event()
    note, write = local_files.Task.note, images.write

    def noted(task, file):
        note(task, file)
        if task.job.source == files[2]:
            third_is_read.set()

    def written_with_event(path, array, like=None):
        write(path, array, like)
        if path.name == "1.png":
            first_is_written.set()

    def before(number):
        if number == 0:
            assert third_is_read.wait(WAIT)
        if number == 2:
            assert first_is_written.wait(WAIT)

    monkeypatch.setattr(local_files.Task, "note", noted)
    monkeypatch.setattr(images, "write", written_with_event)
    watch(monkeypatch, denoiser, before)
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert written(tmp_path / "out") == [file.name for file in files]


def test_few_pixels_wait(tmp_path, use_model, monkeypatch, one_at_a_time):
    """Whether the model is slow, or what follows it."""
    denoiser = use_model(1)
    monkeypatch.setattr(local_files, "WRITERS", 1)
    monkeypatch.setattr(local_files, "LEAST_VALUES", 1)
    monkeypatch.setattr(local_files, "WAITING_VALUES", 70)  # of two images
    save_all(tmp_path / "in", [SHAPE] * 30)
    opened, is_placed = [], []
    note, place = local_files.Task.note, local_files.Collected.place
    most_read = most_computed = 0

    def noted(task, file):
        opened.append(task)
        note(task, file)

    def placed(collected, *arguments):
        threading.Event().wait(0.01)  # slower than the model: all else would be computed meanwhile
        is_placed.append(collected)
        return place(collected, *arguments)

    def before(number):
        nonlocal most_read, most_computed
        most_read = max(most_read, len(opened) - number)
        most_computed = max(most_computed, number - len(is_placed))

    monkeypatch.setattr(local_files.Task, "note", noted)
    monkeypatch.setattr(local_files.Collected, "place", placed)
    watch(monkeypatch, denoiser, before)
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert len(opened) == len(is_placed) == 30
    assert most_read <= 1 + 2
    assert most_computed <= 2


# --- how it ends ---------------------------------------------------------------------------------------------------


def test_ctrl_c_lets_a_file_be_finished_and_begins_no_other(tmp_path, use_model, monkeypatch, one_at_a_time):
    denoiser = use_model(1)
    monkeypatch.setattr(local_files, "WRITERS", 1)
    save_all(tmp_path / "in", [SHAPE] * 6)
    started, release = threading.Event(), threading.Event()
    write = images.write

    def slow_write(path, array, like=None):
        started.set()
        assert release.wait(WAIT)
        write(path, array, like)

    def interrupt(number):
        if number == 1:
            assert started.wait(WAIT)
            threading.Timer(0.1, release.set).start()
            raise KeyboardInterrupt

    monkeypatch.setattr(images, "write", slow_write)
    watch(monkeypatch, denoiser, interrupt)
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 130
    assert release.is_set()
    assert written(tmp_path / "out") == ["1.png"]
    assert (images.read_array(tmp_path / "out/1.png") == 50).all()
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [results.LIST]


def test_a_file_that_cannot_be_written_does_not_stop_the_others(tmp_path, use_model, capsys):
    use_model(1)
    for name in ("a/1.png", "b/1.png", "c/1.png"):
        save(tmp_path / "in" / name, grey())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b").write_text("in the way")
    assert denoise(tmp_path / "in", "--out", tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"bsdenoise: error: {tmp_path / 'in/b/1.png'}: ") and "File exists" in lines[0]
    assert lines[1] == "2 written, 1 failed; sigma 25.5 (the model's own)"
    assert written(tmp_path / "out") == ["a/1.png", "b", "c/1.png"]
