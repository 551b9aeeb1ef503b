"""Mistakes on the command line, and the table of what the user sees: `python tests/bad_input_cli.py` writes it.

`test_bad_input_cli.py` checks that docs/bad-input.md agrees with what the commands say.
"""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tifffile
from PIL import Image

from bsdenoise import cli

TABLE = Path(__file__).parent.parent / "docs" / "bad-input.md"
BEGIN, END = "<!-- The table of the commands: begin -->\n", "<!-- The table of the commands: end -->\n"
TRAIN = "--width 4 --depth 1 --crop 16 --images 8"


class Case(NamedTuple):
    """A mistake in words, and the command that makes it."""

    mistake: str
    command: str


CASES = (
    Case("a file that is not there", "denoise missing.png --model m.keras --out out"),
    Case("a file of another kind", "denoise notes.txt --model m.keras --out out"),
    Case("an empty file", "denoise empty.png --model m.keras --out out"),
    Case("text in a file named .png", "denoise text.png --model m.keras --out out"),
    Case("half of a PNG file", "denoise half.png --model m.keras --out out"),
    Case("half of a TIFF file", "denoise half.tif --model m.keras --out out"),
    Case("a file of 1 bit per pixel", "denoise bilevel.png --model m.keras --out out"),
    Case("a CMYK file", "denoise cmyk.jpg --model m.keras --out out"),
    Case("infinite pixels", "denoise infinite.npy --model m.keras --out out"),
    Case("signed integers", "denoise signed.tif --model m.keras --out out"),
    Case("a grey image for an RGB model", "denoise grey.png --model m.keras --out out"),
    Case("a sigma of zero", "denoise a.png --model m.keras --out out --sigma 0"),
    Case("a sigma that is no number", "denoise a.png --model m.keras --out out --sigma strong"),
    Case("a sigma above full scale", "denoise a.png --model m.keras --out out --sigma 300"),
    Case("a result that is there already", "denoise a.png --model m.keras --out a2.png"),
    Case("two results of one name", "denoise one two --model m.keras --out out"),
    Case("the input as output", "denoise a.png --model m.keras --out a.png"),
    Case("an unknown kind of output", "denoise a.png --model m.keras --out out.webp"),
    Case("no model", "denoise a.png --model missing.keras --out out"),
    Case("a model that is none", "denoise a.png --model a.png --out out"),
    Case("a flag that does not exist", "denoise a.png --model m.keras --out out --frobnicate 3"),
    Case("no training images", f"train missing --out run --noise gaussian:25 {TRAIN}"),
    Case("a folder without images", f"train texts --out run --noise gaussian:25 {TRAIN}"),
    Case("noise in no known words", f"train one --out run --noise strong {TRAIN}"),
    Case("noise of zero", f"train one --out run --noise gaussian:0 {TRAIN}"),
    Case("noise that images do not show, and nobody tells", f"train one --out run {TRAIN}"),
    Case("noise to be added that nobody tells", f"train one --out run --corrupt fresh {TRAIN}"),
    Case("more noise than the images have range", f"train dark.tif --out run --noise gaussian:3000 {TRAIN}"),
    Case("a range for images that are noisy already", f"train one --out run --noise gaussian:5-50 {TRAIN}"),
    Case("8 and 16 bits in one folder", f"train depths --out run --noise gaussian:25 {TRAIN}"),
    Case("integers and floats in one folder", f"train kinds --out run --noise gaussian:25/255 {TRAIN}"),
    Case("images smaller than a crop", "train one/a.png --out run --noise gaussian:25 --width 4 --depth 1 --crop 64"),
    Case("no image of the wanted size", f"train one --out run --noise gaussian:25 --min-side 256 {TRAIN}"),
    Case("a data set without split", f"train tfds:imagenet2012 --out run --noise gaussian:25 {TRAIN}"),
    Case("a learning rate that is no number", f"train one --out run --noise gaussian:25 --learning-rate fast {TRAIN}"),
    Case("a run folder that is a file", f"train one --out a.png --noise gaussian:25 {TRAIN}"),
    Case("nothing to export", "export missing --out served"),
    Case("a version below 1", "export m.keras --out served --version 0"),
    Case("a version that is there already", "export m.keras --out versions --version 3"),
    Case("no pixel allowed", "export m.keras --out served --max-pixels 0"),
    Case("noise without images", "evaluate --model m.keras --noise gaussian:25"),
    Case("images without noise", "evaluate --model m.keras --data one"),
    Case("a noisy image without a clean one", "evaluate --model m.keras --noisy one --clean two"),
    Case(
        "draws for other sets than there are",
        "evaluate --model m.keras --data one two --noise gaussian:25 --draws 1 2 3",
    ),
)


def make_files(folder, model):
    """Makes the files that the commands name; `model` is a small RGB denoiser."""
    rng = np.random.default_rng(0)
    folder = Path(folder)
    (folder / "m.keras").write_bytes(Path(model).read_bytes())
    rgb = rng.integers(0, 255, (20, 20, 3), "uint8")
    for name in ("one", "two", "texts", "depths", "kinds", "versions/3"):
        (folder / name).mkdir(parents=True)
    for name in ("a.png", "a2.png", "one/a.png", "one/b.png", "two/a.png", "depths/a.png", "kinds/a.png"):
        Image.fromarray(rgb).save(folder / name)
    Image.fromarray(rgb[..., 0]).save(folder / "grey.png")
    Image.fromarray(rgb[..., 0] > 127).save(folder / "bilevel.png")
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:300])
    tifffile.imwrite(folder / "half.tif", rgb, photometric="rgb")
    (folder / "half.tif").write_bytes((folder / "half.tif").read_bytes()[:600])
    tifffile.imwrite(folder / "signed.tif", rgb.astype("int16"), photometric="rgb")
    tifffile.imwrite(folder / "dark.tif", rng.integers(100, 200, (4, 20, 20), "uint16"), photometric="minisblack")
    tifffile.imwrite(folder / "depths" / "b.tif", rgb.astype("uint16"), photometric="rgb")
    np.save(folder / "kinds" / "b.npy", rgb.astype("float32"))
    np.save(folder / "infinite.npy", np.full((20, 20, 3), np.inf, "float32"))
    (folder / "empty.png").write_bytes(b"")
    for name in ("text.png", "notes.txt", "texts/notes.txt", "versions/3/saved_model.pb"):
        (folder / name).write_text("no image")


def run(case):
    """Runs a command in the current folder, and gives its exit code and what it writes to stderr."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            code = cli.main(case.command.split())
        except SystemExit as stop:
            code = stop.code
    return code, errors.getvalue()


def sentence(errors):
    """Gives the line of the error."""
    (line,) = [line for line in errors.splitlines() if line.startswith("bsdenoise: error: ")]
    return line.removeprefix("bsdenoise: error: ")


def row(case, errors):
    """Gives the line of the table."""
    command, _, rest = case.command.partition(" ")
    short = rest.replace(f" {TRAIN}", "")
    return f"| {case.mistake} | `{command} {short}` | {sentence(errors).replace('|', chr(92) + '|')} |\n"


def main(model):
    """Writes the rows between the two marks; the rest of the file is written by hand."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_files(folder, model)
        rows = [row(case, run(case)[1]) for case in CASES]
    before, rest = TABLE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    head = "| mistake | command | what the user sees |\n| --- | --- | --- |\n"
    TABLE.write_text(before + BEGIN + head + "".join(rows) + END + after)


def make_model(folder):
    """Writes a small untrained RGB denoiser."""
    from bsdenoise.denoiser import Denoiser
    from bsdenoise.network import blind_spot_network
    from bsdenoise.noise import GaussianNoise

    path = Path(folder) / "model.keras"
    Denoiser(blind_spot_network(width=4, depth=2), GaussianNoise(25 / 255, 25 / 255)).save(path)
    return path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as models:
        sys.exit(main(make_model(models)))
