"""What a model is, as JSON: `serving.json` beside the SavedModel, and what the graph's signature `describe` answers.

Whoever is given a folder or the address of a server learns from it what to send and what to expect.
"""

import math

import numpy as np

import bsdenoise
from bsdenoise.export.signatures import names_of

FILE_NAME = "serving.json"
FORMAT = 1  # raised when a key changes its meaning or goes; new ones may come at any time
MIB = 2**20
# Memory of a request, as measured with the compact network (benchmarks/README.md): what is computed in one pass takes
# 3.5 times the bytes of the greatest number of maps that a layer has; request, answer and what lies between them 40
# bytes for each channel of each pixel.
PASS_FACTOR = 3.5
BYTES_PER_CHANNEL = 40
DEFAULT_NAME = "denoiser"  # under which it is served, unless the server is told another


def describe(denoiser, max_pixels, tiles, tta) -> dict:
    """Describe a model and the limits it is exported with.

    Args:
        denoiser: The denoiser.
        max_pixels: Largest B·H·W of a request, and H·W of an image file.
        tiles: How large images are cut.
        tta: How many copies of each image are averaged.

    Returns:
        A dictionary of JSON values: `method`, and `factor`, `None` without a posterior; `channels`; `noise`, whose
        parameters are in the units of the pixels; `stabilized`, the same of noise that grows with the signal, `None` if
        the model takes none; `pixels`, with their units, the range that is accepted and the fitted
        `offset` and `scale`; `limits`; the `memory` that a request of `max_pixels` is expected to take beside the
        loaded model, and of that the part of a tile; the names of the signatures; the size of the `network`, height and
        width of its `blind_spot`, `None` if it has none, and how many copies of each image are averaged (`tta`); and
        how it was trained, as far as that is known.
    """
    scale = denoiser.scale
    low, high = denoiser.intensities
    return {
        "format": FORMAT,
        "package": f"bsdenoise {bsdenoise.__version__}",
        "name": DEFAULT_NAME,
        "method": denoiser.method.name,
        "factor": denoiser.factor if denoiser.has_posterior else None,
        "channels": denoiser.channels,
        "noise": _noise(denoiser),
        "stabilized": _noise(denoiser.stabilized()) if denoiser.can_be_stabilized else None,
        "pixels": {
            "units": denoiser.units,
            "fractional": denoiser.fractional,
            "offset": denoiser.offset,
            "scale": scale,
            "low": low,
            "high": high,
        },
        "limits": {"max_pixels": max_pixels} | tiles._asdict(),
        "memory": _memory(denoiser, max_pixels, tiles),
        "signatures": [*names_of(denoiser)],
        "network": {
            "parameters": denoiser.network.count_params(),
            "depth": denoiser.grid.bit_length() - 1,
            "blind_spot": denoiser.blind_spot and [*denoiser.blind_spot],
            "tta": tta,
        },
        "training": denoiser.provenance,
    }


def _noise(denoiser) -> dict:
    """Describe the noise: its kind, and its parameters with the range of the training."""
    model = denoiser.noise
    ends = (model.restored(np.array(end), denoiser.offset, denoiser.scale) for end in (model.least, model.greatest))
    parameters = [
        {"name": parameter.name, "unit": parameter.unit, "low": float(low), "high": float(high)}
        for parameter, low, high in zip(model.parameters, *ends, strict=True)
    ]
    described = {"kind": model.kind, "parameters": parameters}
    if model.takes_sigma:  # readers of earlier versions look for these
        described |= {"sigma_low": parameters[0]["low"], "sigma_high": parameters[0]["high"]}
    return described


def _memory(denoiser, max_pixels, tiles) -> dict:
    """Estimate what a request takes at most; the container is sized by it."""
    computed = max(tiles.tile**2, tiles.untiled_pixels)
    tile_mib = math.ceil(PASS_FACTOR * denoiser.described_network().map_bytes * computed / MIB)
    bytes_per_pixel = BYTES_PER_CHANNEL * denoiser.channels
    return {
        "request_mib": tile_mib + math.ceil(bytes_per_pixel * max_pixels / MIB),
        "tile_mib": tile_mib,
        "bytes_per_pixel": bytes_per_pixel,
    }
