"""What becomes of images with little noise: how σ is estimated, and whether denoising ever makes them worse.

A model that was trained for a range of noise is given photographs with less, at the full range of intensities and, as
counts of 12 bits in 16-bit images, at 6 % of it. The error of each is compared with that of the noisy image.

    python -m benchmarks.weak_noise PHOTOGRAPHS
"""

import argparse
import json

import numpy as np

from benchmarks.machine import describe
from bsdenoise import Denoiser, images

SIGMAS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 25.0, 50.0)  # grey levels of 8 bits
COUNTS = 4095 / 65535  # full scale of 12 bits in that of 16
SIDE = 192  # pixels; from the middle of each photograph


def main(argv=None) -> None:
    """Measure, and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", help="folder or glob")
    parser.add_argument("--model", default="grey-gaussian5-50-small", help="name of a preset for a range of noise")
    parser.add_argument("--most", type=int, default=8, help="number of photographs")
    config = parser.parse_args(argv)
    denoiser = Denoiser.from_preset(config.model)
    clean = [middle(path, denoiser.channels) for path in images.find(config.photographs)[: config.most]]
    rows = [row(denoiser, clean, sigma, fill) for fill in (1.0, COUNTS) for sigma in SIGMAS]
    print("rms errors in grey levels of the range; ratio: worst of all images, denoised over noisy")
    print(f"{'fill':>5} {'sigma':>6} {'found':>6} {'noisy':>6} {'denoised':>9} {'told':>6} {'ratio':>6}")
    for one in rows:
        print(
            f"{one['fill']:5.2f} {one['sigma']:6.1f} {one['found']:6.2f} {one['noisy']:6.2f} {one['denoised']:9.3f} "
            f"{one['told']:6.3f} {one['worst_ratio']:6.3f}"
        )
    print(json.dumps({"model": config.model, "images": len(clean), "rows": rows, "machine": describe()}))


def middle(path, channels) -> np.ndarray:
    """Read the middle of a photograph in colour or as luminance, (H, W, C) in [0, 1]."""
    image = images.to_unit(images.to_channels(images.read_image(path).array, channels))
    top, left = (max(side - SIDE, 0) // 2 for side in image.shape[:2])
    return image[top : top + SIDE, left : left + SIDE]


def row(denoiser, clean, sigma, fill) -> dict[str, float]:
    """Measure one σ, in grey levels, where the photographs take so much of full scale."""
    rng = np.random.default_rng(0)
    errors = []
    for image in clean:
        noisy = (fill * (image + sigma / 255 * rng.standard_normal(image.shape))).astype("float32")
        found, level = denoiser.denoise_with_noise(noisy)
        told = denoiser.denoise(noisy, sigma=max(fill * sigma / 255, 1e-6))
        errors.append([255 / fill * float(level[0, 0]), *(rms(one / fill - image) for one in (noisy, found, told))])
    found, noisy, denoised, told = np.mean(errors, axis=0)
    ratios = [error[2] / error[1] for error in errors if sigma > 0]
    return {
        "fill": fill,
        "sigma": sigma,
        "found": found,
        "noisy": noisy,
        "denoised": denoised,
        "told": told,
        "worst_ratio": max(ratios, default=float("nan")),
    }


def rms(difference) -> float:
    """Compute the root mean square in grey levels."""
    return 255 * float(np.sqrt(np.mean(np.square(difference))))


if __name__ == "__main__":
    main()
