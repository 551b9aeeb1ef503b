"""Packs a trained denoiser as a preset: `python -m benchmarks.pack_preset RUN NAME DATA`."""

import argparse
import hashlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import patterns
from bsdenoise import atomic, presets
from bsdenoise.network import BlindSpotUNet

EXIT_FAILED = 2
SIGNIFICANT = 4  # digits of a noise level in the index


def pack(denoiser: Any, name: str, data: str, folder: Path = presets.FOLDER) -> presets.Preset:
    """Writes the weights of a denoiser in half precision, and enters it into the index; what was measured is dropped.

    Args:
        denoiser: A `Denoiser` of photographs (offset 0, scale 1) with a posterior.
        name: Name of the preset; one of that name is replaced.
        data: What images it was trained on, in words.
        folder: Where presets are.

    Returns:
        What the index says of it now.

    Raises:
        ValueError: If a preset cannot be made of such a denoiser, or a weight does not fit into half precision.
    """
    if not denoiser.fractional or (denoiser.offset, denoiser.scale) != (0.0, 1.0):
        raise ValueError("A preset is a model of photographs, of offset 0 and scale 1.")
    if denoiser.method.name != "full":
        raise ValueError(f"A preset is a model of method full. Received: one of method {denoiser.method.name}.")
    network = denoiser.network
    if not isinstance(network, BlindSpotUNet) or network.pooling != "max":
        raise ValueError("A preset is a network that bsdenoise train builds.")
    with np.errstate(over="ignore"):  # told below
        weights = {weight.path: np.asarray(weight, np.float32).astype(np.float16) for weight in network.weights}
    for path, values in weights.items():
        if not np.isfinite(values).all():
            raise ValueError(f"The weight {path} has values that half precision cannot hold.")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **weights)
    low, high = (
        float(f"{presets.LEVELS * sigma:.{SIGNIFICANT}g}") for sigma in (denoiser.noise.low, denoiser.noise.high)
    )
    preset = presets.Preset(
        name,
        sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        channels=denoiser.channels,
        width=network.width,
        depth=network.depth,
        parameters=network.count_params(),
        noise=(low, high),
        factor=denoiser.factor,
        data=data,
        provenance=denoiser.provenance or {},
        folder=folder,
    )
    with atomic.replacing(preset.path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    index = presets.read_index(folder) | {name: preset}
    presets.write_index(folder, dict(sorted(index.items(), key=_order)))
    return preset


def averaged(denoiser: Any, other: Any, share: float) -> None:
    """Gives a denoiser the mean of its weights and those of another one, from the same line of trainings.

    Args:
        denoiser: The `Denoiser` that is changed; its provenance says so.
        other: Another `Denoiser` with a network of the same size.
        share: Weight of the other one in the mean, 0 to 1.

    Raises:
        ValueError: If the networks differ, or there is no such share.
    """
    if denoiser.network.sizes != other.network.sizes:
        raise ValueError("Only networks of equal size can be averaged.")
    if not 0 <= share <= 1:
        raise ValueError(f"The share of the other model must lie between 0 and 1. Received: {share}.")
    pairs = zip(denoiser.network.get_weights(), other.network.get_weights(), strict=True)
    denoiser.network.set_weights([(1 - share) * own + share * its for own, its in pairs])
    denoiser.provenance = (denoiser.provenance or {}) | {
        "averaged_with": {"share": share, "provenance": other.provenance or {}}
    }


def _order(entry: tuple[str, presets.Preset]) -> tuple:
    """Sorts colour before grey, full size before compact, a known σ before a range."""
    preset = entry[1]
    return -preset.channels, -preset.width, preset.noise[1] - preset.noise[0], preset.name


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("model", type=Path, help="run folder or .keras file")
    parser.add_argument("name", help="name of the preset, such as rgb-gaussian25")
    parser.add_argument("data", help="what images it was trained on, in words")
    parser.add_argument("--average", type=Path, metavar="OTHER", help="another run, whose weights are averaged in")
    parser.add_argument("--share", type=float, default=0.5, help="weight of that one in the mean")
    parser.add_argument("--folder", type=Path, default=presets.FOLDER, help="where presets are")
    arguments = parser.parse_args()
    from bsdenoise import loading

    try:
        denoiser = loading.load(arguments.model)
        if arguments.average is not None:
            averaged(denoiser, loading.load(arguments.average), arguments.share)
        if (worst := patterns.worst_psnr(denoiser)) < patterns.NOISY_PSNR:
            raise ValueError(
                f"The model is worse than the noisy image on stripes and checks: {worst:.1f} dB, and "
                f"{patterns.NOISY_PSNR:.1f} dB with the noise. It must not be shipped; train it on."
            )
        preset = pack(denoiser, arguments.name, arguments.data, arguments.folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(f"{preset.path}: {preset.parameters:,} weights, {preset.path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
