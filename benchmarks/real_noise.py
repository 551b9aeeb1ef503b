"""Real noise: pairs of noisy images and averaged references, denoised as if noise were white and as it is.

A folder of pairs holds `noisy/NAME` and `ref/NAME`. As exposures of one field differ a little in gain and offset, the
reference is fitted to the noisy image by a line before the PSNR is computed. Nothing is told of the noise. Beside the
preset BM3D and non-local means, with the same estimate of the noise: with the same transform where it grows with the
signal, and BM3D with its spectrum where neighbouring pixels share it. And BM3D that is told the true spectrum there,
which only the references tell.

Then photographs with white noise: how many look as if it grew with the signal, and what that costs; and how many clean
and noisy ones, some of them from JPEG files, look as if neighbouring pixels shared their noise.

    python -m benchmarks.real_noise confocal two-photon wide-field camera-srgb --photographs kodak24 --out FILE
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.restoration import denoise_nl_means
from tabulate import tabulate

from benchmarks.machine import describe
from bsdenoise import Denoiser, images
from bsdenoise.adaptation import Adapter, copy_of
from bsdenoise.atomic import replacing
from bsdenoise.noise import StabilizedNoise, verdicts
from bsdenoise.noise.anscombe import Stabilized
from bsdenoise.noise.correlated import LAGS

METHODS = (
    "noisy",
    "as white noise",
    "by itself",
)
OTHERS = (
    "BM3D, same estimate",
    "nl-means, same estimate",
    "BM3D, true spectrum",
)
QUALITIES = (95, 85, 75)
SIGMAS = (0.0, 2.0, 5.0, 10.0, 25.0, 50.0)  # grey levels of 8 bits


def main(argv=None) -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="*", type=Path, help="folders with noisy/ and ref/, grey or RGB images")
    parser.add_argument("--photographs", type=Path, nargs="*", default=[], help="folders of clean photographs")
    parser.add_argument("--model", default="gaussian5-50", help="preset for a range of noise, less its grey- or rgb-")
    parser.add_argument("--adapt", type=int, metavar="STEPS", help="also adapt the preset to each image by itself")
    parser.add_argument("--adapt-all", type=float, metavar="SECONDS", help="also train the preset on all of a folder")
    parser.add_argument("--without-others", action="store_true", help="leave out what is no method of this package")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    config = parser.parse_args(argv)
    presets = {1: f"grey-{config.model}", 3: f"rgb-{config.model}"}
    white = Denoiser.from_preset(presets[1])
    text = f"# Real noise\n\nPresets {' and '.join(presets.values())}; {describe()}.\n"
    for folder in config.pairs:
        first = images.read_image(images.find(folder / "noisy")[0]).array
        channels = first.shape[2] if first.ndim == 3 else 1
        text += f"\n## {folder.name}\n\n{measured_pairs(folder, Denoiser.from_preset(presets[channels]), config)}\n"
    for folder in config.photographs:
        text += f"\n## White noise added to the photographs of {folder.name}\n\n{measured_photographs(folder, white)}\n"
    if config.photographs:
        text += f"\n## Photographs that look as if neighbours shared noise\n\n{mistaken(config.photographs)}\n"
    print(text)
    if config.out:
        with replacing(config.out) as path:
            path.write_text(text)


def measured_pairs(folder: Path, white: Denoiser, config: argparse.Namespace) -> str:
    """Return a table of PSNRs in dB, one row for each image, and their mean."""
    stabilized, rows = white.stabilized(), []
    paths = images.find(folder / "noisy")
    pairs = [[unit(one, white.channels) for one in (path, folder / "ref" / path.name)] for path in paths]
    decisions = [verdicts.decide(noisy[np.newaxis], stabilized.noise) for noisy, _ in pairs]
    adapted = {}
    if config.adapt_all:
        adapted[f"trained on all, {config.adapt_all:g} s"] = trained_on_all(white, pairs, decisions, config.adapt_all)
    methods = [*METHODS, *(() if config.without_others else OTHERS), *adapted]
    if config.adapt:
        methods.append(f"adapted, {config.adapt} steps")
    for path, (noisy, reference), decision in zip(paths, pairs, decisions, strict=True):
        reference = fitted(reference, noisy)
        shared = None if decision.shared is None else decision.shared[0]
        found, estimate = denoised(white, noisy, shared), None
        if shared is not None:
            words = f"neighbours {shared.neighbours:.2f}"
        else:
            posterior = stabilized.posterior(noisy)
            estimate = posterior.estimated_psnr
            gain, sigma, pedestal = 255 * posterior.noise
            words = f"{gain:.2f}, {sigma:.2f}, {pedestal:.2f}"
        results = [noisy, white.denoise(noisy), found]
        if not config.without_others:
            results += (
                [*others(noisy, posterior.noise), None] if shared is None else correlated(noisy, reference, shared)
            )
        results += [denoised(one, noisy, shared) for one in adapted.values()]
        if config.adapt:
            body = white if shared is not None else stabilized
            found = body.adapt([noisy], noise=None if shared is None else [shared], steps=config.adapt)
            results.append(found.denoise(noisy) if shared is None else found.denoise_correlated(noisy, shared))
        psnrs = [None if one is None else decibels(one, reference) for one in results]
        rows.append([path.stem, *psnrs, words, estimate])
        print(rows[-1], flush=True)
    columns = zip(*(row[1 : 1 + len(methods)] for row in rows), strict=True)
    means = [None if None in column else np.mean(column) for column in columns]
    rows.append(["**mean**", *means, "", None])
    return table(rows, ["image", *methods, "gain, σ, pedestal (grey levels)", "estimated PSNR"])


def denoised(white: Denoiser, noisy: np.ndarray, shared) -> np.ndarray:
    """Denoise an image by what its noise looks like."""
    return white.stabilized().denoise(noisy) if shared is None else white.denoise_correlated(noisy, shared)


def trained_on_all(white: Denoiser, pairs, decisions, seconds: float) -> Denoiser:
    """Train a preset on the noisy images of a folder, each shown as it will be when it is denoised.

    One that does not look as most do, with shared noise or without, is left out.
    """
    is_shared = np.mean([decision.shared is not None for decision in decisions]) > 0.5
    body = white if is_shared else white.stabilized()
    shown = []
    for (noisy, _), decision in zip(pairs, decisions, strict=True):
        if (decision.shared is not None) == is_shared:
            shown += body.as_shown([noisy], noise=[decision.shared[0]] if is_shared else None)
    found = Adapter(body).adapted(shown, steps=None, seconds=seconds)
    print(found.in_words(), flush=True)
    network = copy_of(white.network)
    network.set_weights(found.weights)
    return white.with_network(network)


def correlated(noisy, reference, found) -> tuple[np.ndarray, ...]:
    """Denoise an image whose neighbouring pixels share noise by BM3D, nl-means, and BM3D told the truth."""
    sigma = float(np.sqrt(np.mean(found.sigma**2)))
    means = denoise_nl_means(noisy, h=0.8 * sigma, sigma=sigma, patch_size=5, patch_distance=6, channel_axis=-1)
    means = means.reshape(noisy.shape)  # of one channel it leaves the axis out
    size = noisy.shape[:2]
    power = [on_pixels(found.autocovariance[..., channel], size) for channel in range(noisy.shape[2])]
    difference = noisy - reference
    true = np.abs(np.fft.fft2(difference - difference.mean(axis=(0, 1)), axes=(0, 1))) ** 2 / np.prod(size)
    # The spectrum of one image is as rough as its noise: smoothed as the estimated one is.
    lags = np.fft.ifft2(true, axes=(0, 1)).real
    middle = np.roll(lags, (LAGS, LAGS), axis=(0, 1))[: 2 * LAGS + 1, : 2 * LAGS + 1]
    known = [on_pixels(middle[..., channel], size) for channel in range(noisy.shape[2])]
    return by_blocks(noisy, power), means, by_blocks(noisy, known)


def on_pixels(autocovariance: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the power spectrum of an image's noise, (H, W), as BM3D takes it: its mean is H · W times the variance."""
    taper = np.hanning(2 * LAGS + 3)[1:-1] ** 0.5
    kernel = np.zeros(size)
    kernel[: 2 * LAGS + 1, : 2 * LAGS + 1] = autocovariance * taper[:, None] * taper
    spectrum = np.maximum(np.fft.fft2(np.roll(kernel, (-LAGS, -LAGS), axis=(0, 1))).real, 0.0)
    return spectrum * np.prod(size)


def by_blocks(noisy: np.ndarray, spectra: list[np.ndarray]) -> np.ndarray | None:
    """Denoise each channel with BM3D; `None` without its package."""
    try:
        import bm3d
    except ImportError:
        return None
    if not hasattr(np, "trapz"):  # BM3D asks for it where it is given a spectrum; NumPy has it by another name
        np.trapz = np.trapezoid
    return np.stack([bm3d.bm3d(noisy[..., channel], spectrum) for channel, spectrum in enumerate(spectra)], axis=-1)


def others(noisy: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Denoise with BM3D and non-local means what the transform makes of an image; without BM3D's package `None`."""
    fit = Stabilized(*(np.asarray(part) for part in StabilizedNoise(5 / 255, 50 / 255).fit(noisy[None], theta[None])))
    shown, sigma = fit.applied(noisy[None])[0], max(float(fit.scale[0] * fit.sigma[0]), 1e-6)
    means = denoise_nl_means(shown, h=0.8 * sigma, sigma=sigma, patch_size=5, patch_distance=6, channel_axis=-1)
    means = means.reshape(shown.shape)  # of one channel it leaves the axis out
    blocks = None
    try:
        import bm3d

        blocks = bm3d.bm3d(shown[..., 0], sigma)[..., None] if shown.shape[2] == 1 else bm3d.bm3d_rgb(shown, sigma)
    except ImportError:
        pass
    found = (None if one is None else fit.undone([one[None].astype("float32")])[0][0] for one in (blocks, means))
    return tuple(found)


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


def mistaken(folders: list[Path]) -> str:
    """Return a table: how many photographs, as they are, from JPEG files and with white noise, look correlated."""
    rows = []
    for folder in folders:
        found: dict[str, list[bool]] = {}
        for path in images.find(folder):
            clean = np.atleast_3d(images.read_image(path).array)
            clean = np.repeat(clean, 3, axis=-1) if clean.shape[2] == 1 else clean
            for name, array in variants(clean).items():
                found.setdefault(name, []).append(verdicts.looks_correlated(images.to_unit(array)[np.newaxis]))
        rows.append([folder.name, *(f"{sum(some)} of {len(some)}" for some in found.values())])
    return table(rows, ["photographs", *found])


def variants(clean: np.ndarray) -> dict[str, np.ndarray]:
    """Return a photograph of 8 bits as it is, as JPEG files of several qualities hold it, and with white noise."""
    made = {"as they are": clean}
    for quality in QUALITIES:
        file = io.BytesIO()
        Image.fromarray(clean).save(file, "JPEG", quality=quality)
        made[f"JPEG {quality}"] = np.asarray(Image.open(file))
    for sigma in SIGMAS[1:]:
        noisy = clean + sigma * np.random.default_rng(1).standard_normal(clean.shape)
        made[f"σ = {sigma:g}"] = np.rint(noisy).clip(0, 255).astype(np.uint8)
    return made


def unit(path: Path, channels: int = 1) -> np.ndarray:
    """Read an image, (H, W, channels), full scale 1; as luminance for one channel."""
    return images.to_unit(images.to_channels(images.read_image(path).array, channels))


def fitted(reference: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Fit a reference to the noisy image by a line."""
    line = np.polyfit(reference.ravel().astype(float), noisy.ravel().astype(float), 1)
    return np.polyval(line, reference)


def decibels(image: np.ndarray, expected: np.ndarray) -> float:
    """Compute the PSNR in dB for a peak of 1."""
    return float(-10.0 * np.log10(np.mean(np.square(image.astype(float) - expected))))


def table(rows, header) -> str:
    """Format rows as a Markdown table."""
    return tabulate(rows, header, tablefmt="github", floatfmt=".2f", missingval="–")


if __name__ == "__main__":
    main()
