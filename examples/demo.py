"""The main job on real photographs, in a few minutes: noisy images in, denoised ones out, no clean image used.

Three photographs get noise of 25 grey levels. A small network is trained on these noisy images alone, exported
as a TensorFlow SavedModel, served on this machine, and called over REST. The clean photographs serve for one thing:
to measure the result.

    python -m examples.demo
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bsdenoise import cli, images
from bsdenoise.client import connect

OUT = Path("demo-output")
SIGMA = 25 / 255
CROP = 192  # side of the crops in the before/after picture
# Upper left corners of the crops: what is worth looking at in each photograph.
CORNERS = {"astronaut": (20, 130), "chelsea": (40, 90), "coffee": (60, 200)}
TRAINING = "--width 16 --depth 3 --crop 64 --batch 4 --images 3200 --learning-rate 2e-3 --ramp-up 0.05 --ramp-down 0.6"


def main() -> None:
    """Runs the demonstration."""
    start = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    clean = photographs()
    noisy = write_noisy(clean, OUT / "noisy")
    run = OUT / "run"
    command(f"train {OUT / 'noisy'} --out {run} --noise gaussian:25/255 {TRAINING} --validate-every 400")
    with served(run / "export") as url, connect(url) as client:
        denoised = {name: client.denoise(image) for name, image in noisy.items()}
    print(f"\n{'PSNR in dB':12}{'noisy':>8}{'denoised':>10}{'gain':>7}")
    for name in clean:
        before, after = psnr(noisy[name], clean[name]), psnr(denoised[name], clean[name])
        print(f"{name:12}{before:8.2f}{after:10.2f}{after - before:+7.2f}")
    write_picture(OUT / "before-after.png", noisy, denoised, clean)
    print(f"\nbefore, after and clean side by side: {OUT / 'before-after.png'}")
    print(f"took {time.monotonic() - start:.0f} s")


def command(line: str) -> None:
    """Runs a `bsdenoise` command as a user would, and stops if it fails."""
    print(f"$ bsdenoise {line}", flush=True)
    code = cli.main(line.split())
    if code:
        raise SystemExit(code)


def photographs() -> dict[str, np.ndarray]:
    """Loads three photographs of the scikit-image package, float32 (H, W, 3) in [0, 1]."""
    from skimage import data

    return {name: images.to_unit(getattr(data, name)()) for name in CORNERS}


def write_noisy(clean: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Adds noise, neither clipped nor rounded, and writes the files to train from."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    noisy = {name: image + rng.normal(0, SIGMA, image.shape).astype("float32") for name, image in clean.items()}
    for name, image in noisy.items():
        np.save(folder / f"{name}.npy", image)
    return noisy


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder of versions in a process of its own, and gives its URL for REST."""
    line = f"serve {folder} --rest-port 0 --grpc-port 0"
    print(f"$ bsdenoise {line}", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "bsdenoise.cli", *line.split()], stdout=subprocess.PIPE, text=True
    )
    try:
        ready = process.stdout.readline()
        print(ready, end="", flush=True)
        if not (url := re.search(r"http://\S+", ready)):
            raise SystemExit(process.wait())
        yield url[0]
    finally:
        process.terminate()
        process.communicate()


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    """Gives the PSNR in dB, peak 1."""
    return float(-10 * np.log10(np.mean((image - clean) ** 2)))


def write_picture(path: Path, *versions: dict[str, np.ndarray]) -> None:
    """Writes one row of crops per photograph: noisy, denoised, clean."""
    rows = [
        np.concatenate([version[name][top : top + CROP, left : left + CROP] for version in versions], axis=1)
        for name, (top, left) in CORNERS.items()
    ]
    images.write(path, images.from_unit(np.concatenate(rows), np.uint8))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
