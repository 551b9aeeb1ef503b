"""Where should zeros go when sides are no multiple of 2^depth: around the image, or at each pooling?

The package pads the image once, at the bottom and on the right, before it is rotated, so that all four branches share
one pooling grid. The alternative pads a map by one row or column wherever a pooling meets an odd side, in each rotated
branch's own frame, and crops after upsampling. Both are run here with the same weights: crops for training are
multiples of 2^depth, for which the two do not differ. PSNR is that of the whole image, and that of a frame along its
four sides.

    python -m benchmarks.padding --model RUN --data bsd300 --noise gaussian:25
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tyro

from benchmarks import machine
from bsdenoise.layers import CropLike, PadToMultiple, RotateStack, RotateUnstack

POOLING_FACTOR = 2


@dataclass(frozen=True)
class Config:
    """Compares two ways to pad."""

    model: Path
    """A .keras file, or a run folder that holds denoiser.keras."""
    data: str
    """Folder of clean images."""
    noise: str = "gaussian:25"
    """Noise to add."""
    every: int = 1
    """Take only every so many images."""
    frame: int = 16
    """Width in pixels of the frame that is measured by itself."""


def padded_per_pooling(network: keras.Model) -> keras.Model:
    """Builds a network of the same layers, and so of the same weights, that pads at each pooling."""
    body = network.get_layer("unet_body")
    depth = sum(layer.name.startswith("pool") for layer in body.layers)

    def conv(name, maps):
        return body.get_layer(f"{name}_relu")(body.get_layer(name)(maps))

    image = keras.Input(body.input_shape[1:])
    maps, skips = conv("enc_conv0", image), [image]
    for level in range(1, depth + 1):
        maps = PadToMultiple(POOLING_FACTOR)(conv(f"enc_conv{level}", maps))
        maps = body.get_layer(f"pool{level}")(maps)
        skips.append(maps)
    maps = conv(f"enc_conv{depth + 1}", maps)
    for level in range(depth, 0, -1):
        maps = CropLike()((body.get_layer(f"upsample{level}")(maps), skips[level - 1]))
        maps = body.get_layer(f"concat{level}")([maps, skips[level - 1]])
        maps = conv(f"dec_conv{level}b", conv(f"dec_conv{level}a", maps))
    unpadded_body = keras.Model(image, maps)
    whole = keras.Input(network.input_shape[1:])
    upright, sideways = RotateStack()(whole)
    maps = RotateUnstack()((unpadded_body(upright), unpadded_body(sideways)))
    for name in ("head_conv0", "head_relu0", "head_conv1", "head_relu1", "outputs"):
        maps = network.get_layer(name)(maps)
    return keras.Model(whole, maps)


def run(config: Config) -> None:
    """Measures and prints."""
    from bsdenoise.cli.models import load_denoiser
    from bsdenoise.evaluation import cases
    from bsdenoise.evaluation.metrics import psnr
    from bsdenoise.evaluation.table import confidence_half_width

    denoiser = load_denoiser(config.model)
    networks = {"image": denoiser.network, "pooling": padded_per_pooling(denoiser.network)}
    _check_same_on_the_grid(networks, denoiser)
    results = {(way, part): [] for way in networks for part in ("whole", "frame")}
    for item in cases.clean_items([config.data], (1,), config.every):
        case = cases.read_clean(item, denoiser.channels, config.noise)
        frame = np.ones(case.clean.shape, bool)
        frame[config.frame : -config.frame, config.frame : -config.frame] = False
        for way, network in networks.items():
            outputs = network(case.noisy[None])
            sigma = np.full(1, case.sigma, "float32")
            denoised = np.asarray(denoiser.likelihood.map_estimate(outputs, case.noisy[None], sigma))[0]
            results[way, "whole"].append(psnr(denoised, case.clean, case.peak))
            results[way, "frame"].append(psnr(denoised[frame], case.clean[frame], case.peak))
    print(f"{config.model} on {config.data}, {config.noise}; {machine.describe()}")
    summary = {}
    for part in ("whole", "frame"):
        image, pooling = (np.array(results[way, part]) for way in ("image", "pooling"))
        gain = confidence_half_width(list(pooling - image))
        print(
            f"{part}: padded around the image {image.mean():.3f} dB, at each pooling {pooling.mean():.3f} dB, "
            f"difference {np.mean(pooling - image):+.4f} ± {gain:.4f} dB over {len(image)} images"
        )
        summary[part] = {"image": image.mean(), "pooling": pooling.mean(), "half_width": gain}
    print(json.dumps({"machine": machine.describe(), **summary}))


def _check_same_on_the_grid(networks: dict[str, keras.Model], denoiser) -> None:
    """Where nothing is padded, the two must give the same."""
    side = 2 * denoiser.grid
    image = np.random.default_rng(0).uniform(size=(1, side, side, denoiser.channels)).astype("float32")
    one, two = (np.asarray(network(image)) for network in networks.values())
    if not np.allclose(one, two, atol=1e-5):
        raise RuntimeError("The rebuilt network differs from the model on an image that needs no padding.")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run(tyro.cli(Config))
