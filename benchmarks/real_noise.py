"""Real noise: pairs of noisy images and averaged references, denoised as if noise were white and as it is.

A folder of pairs holds `noisy/NAME` and `ref/NAME`. As exposures of one field differ a little in gain and offset, the
reference is fitted to the noisy image by a line before the PSNR is computed. Nothing is told of the noise. Beside the
preset BM3D and non-local means, with the same transform and the same estimate of the noise.

Then photographs with white noise: how many look as if it grew with the signal, and what that costs.

    python -m benchmarks.real_noise confocal two-photon wide-field --photographs kodak24 --out benchmarks/real_noise.md
"""

import argparse
from pathlib import Path

import numpy as np
from skimage.restoration import denoise_nl_means
from tabulate import tabulate

from benchmarks.machine import describe
from bsdenoise import Denoiser, images
from bsdenoise.atomic import replacing
from bsdenoise.noise import StabilizedNoise
from bsdenoise.noise.anscombe import Stabilized

METHODS = ("noisy", "as white noise", "by itself", "BM3D, same transform", "nl-means, same transform")
SIGMAS = (0.0, 2.0, 5.0, 10.0, 25.0, 50.0)  # grey levels of 8 bits


def main(argv=None) -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="*", type=Path, help="folders with noisy/ and ref/, grey images")
    parser.add_argument("--photographs", type=Path, help="folder of clean photographs")
    parser.add_argument("--model", default="grey-gaussian5-50", help="preset for one channel and a range of noise")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    config = parser.parse_args(argv)
    white = Denoiser.from_preset(config.model)
    text = f"# Real noise\n\nPreset {config.model}; {describe()}.\n"
    for folder in config.pairs:
        text += f"\n## {folder.name}\n\n{measured_pairs(folder, white)}\n"
    if config.photographs:
        text += f"\n## White noise added to the photographs of {config.photographs.name}\n\n"
        text += f"{measured_photographs(config.photographs, white)}\n"
    print(text)
    if config.out:
        with replacing(config.out) as path:
            path.write_text(text)


def measured_pairs(folder: Path, white: Denoiser) -> str:
    """Return a table of PSNRs in dB, one row for each image, and their mean."""
    stabilized, rows = white.stabilized(), []
    for path in images.find(folder / "noisy"):
        noisy, reference = (unit(one) for one in (path, folder / "ref" / path.name))
        found = stabilized.posterior(noisy)
        results = (noisy, white.denoise(noisy), found.denoised, *others(noisy, found.noise))
        psnrs = [psnr(one, noisy, reference) for one in results]
        gain, sigma, pedestal = 255 * found.noise
        rows.append([path.stem, *psnrs, f"{gain:.2f}, {sigma:.2f}, {pedestal:.2f}", found.estimated_psnr])
        print(rows[-1], flush=True)
    rows.append(["**mean**", *np.mean([row[1 : 1 + len(METHODS)] for row in rows], axis=0), "", None])
    return table(rows, ["image", *METHODS, "gain, σ, pedestal (grey levels)", "estimated PSNR"])


def others(noisy: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Denoise with BM3D and non-local means what the transform makes of an image; NaN without BM3D's package."""
    fit = Stabilized(*(np.asarray(part) for part in StabilizedNoise(5 / 255, 50 / 255).fit(noisy[None], theta[None])))
    shown, sigma = fit.applied(noisy[None])[0, ..., 0], float(fit.scale[0] * fit.sigma[0])
    means = denoise_nl_means(shown, h=0.8 * sigma, sigma=sigma, patch_size=5, patch_distance=6)
    try:
        import bm3d

        blocks = bm3d.bm3d(shown, sigma)
    except ImportError:
        blocks = np.full_like(shown, np.nan)
    return tuple(fit.undone([one[None, ..., None].astype("float32")])[0][0] for one in (blocks, means))


def measured_photographs(folder: Path, white: Denoiser) -> str:
    """Return a table: how many photographs look as if their noise grew with the signal, and the difference in dB."""
    stabilized, rows = white.stabilized(), []
    clean = [unit(path) for path in images.find(folder)]
    for sigma in SIGMAS:
        seen, gained = [], []
        for image in clean:
            noisy = image + np.float32(sigma / 255) * np.random.default_rng(1).standard_normal(image.shape, np.float32)
            if np.asarray(stabilized.own_noise(noisy[None]))[0, 0] == 0.0:
                continue  # then both are the same
            seen.append(image)
            gained.append(decibels(stabilized.denoise(noisy), image) - decibels(white.denoise(noisy), image))
        differences = ", ".join(f"{one:+.2f}" for one in gained) or "–"
        rows.append([f"{sigma:g}", f"{len(seen)} of {len(clean)}", differences])
    return table(rows, ["σ (grey levels)", "look signal-dependent", "their PSNR against that as white noise (dB)"])


def unit(path: Path) -> np.ndarray:
    """Read an image as luminance, (H, W, 1), full scale 1."""
    return images.to_unit(images.to_channels(images.read_image(path).array, 1))


def psnr(image: np.ndarray, noisy: np.ndarray, reference: np.ndarray) -> float:
    """Compute the PSNR against a reference that a line fits to the noisy image."""
    line = np.polyfit(reference.ravel().astype(float), noisy.ravel().astype(float), 1)
    return decibels(image, np.polyval(line, reference))


def decibels(image: np.ndarray, expected: np.ndarray) -> float:
    """Compute the PSNR in dB for a peak of 1."""
    return float(-10.0 * np.log10(np.mean(np.square(image.astype(float) - expected))))


def table(rows, header) -> str:
    """Format rows as a Markdown table."""
    return tabulate(rows, header, tablefmt="github", floatfmt=".2f", missingval="withheld")


if __name__ == "__main__":
    main()
