"""Draws stripes and checks to train on beside photographs: `python -m benchmarks.pattern_images FOLDER`.

Photographs have few large, strong, regular patterns, and a network that has seen none of them may amplify them
(`benchmarks/patterns.py`). Each image is a square of four patterns, in grey; direction, period, contrast, steepness and
distortion are drawn at random.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bsdenoise import atomic

SIDE = 128  # of a pattern in pixels; an image has two by two
PERIODS = (2.5, 24.0)  # pixels
STEEPNESS = (1.0, 0.5, 0.0)  # exponents: sine, steeper, square
MIN_CONTRAST = 0.3
MAX_BEND = 0.7  # periods by which a pattern is bent
SAMPLES = 4  # of a pixel in each direction, whose mean it is
EXIT_FAILED = 2


def pattern(rng: np.random.Generator) -> np.ndarray:
    """Draws a pattern: float32 (SIDE, SIDE) in 0 to 1."""
    places = (np.arange(SIDE * SAMPLES) + 0.5) / SAMPLES
    rows, columns = np.meshgrid(places, places, indexing="ij")
    angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(*np.log(PERIODS)))
    axes = (columns * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - columns * np.sin(angle))
    phases, bends, lengths = rng.uniform(0, 2 * np.pi, (2, 2)), rng.uniform(0, MAX_BEND, 2), rng.uniform(60, 240, 2)
    waves = [
        np.sin(2 * np.pi * (axis / period + bend * np.sin(2 * np.pi * other / length + bend_phase)) + phase)
        for axis, other, bend, length, (phase, bend_phase) in zip(axes, axes[::-1], bends, lengths, phases, strict=True)
    ]
    wave = waves[0] if rng.random() < 0.5 else waves[0] * waves[1]
    wave = np.sign(wave) * np.abs(wave) ** rng.choice(STEEPNESS)
    wave = wave.reshape(SIDE, SAMPLES, SIDE, SAMPLES).mean(axis=(1, 3))
    contrast = rng.uniform(MIN_CONTRAST, 1.0)
    darkest = rng.uniform(0.0, 1.0 - contrast)
    return (darkest + contrast * (wave + 1) / 2).astype(np.float32)


def image(rng: np.random.Generator) -> np.ndarray:
    """Draws an image of four patterns: uint8 (2 · SIDE, 2 · SIDE)."""
    rows = [np.concatenate([pattern(rng), pattern(rng)], axis=1) for _ in range(2)]
    return np.round(255 * np.concatenate(rows)).astype(np.uint8)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("folder", type=Path, help="where pattern-000.png and so on are written")
    parser.add_argument("--count", type=int, default=64, help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is random")
    arguments = parser.parse_args()
    try:
        if arguments.count < 1:
            raise ValueError(f"--count must be at least 1. Received: {arguments.count}.")
        if arguments.seed < 0:
            raise ValueError(f"--seed must not be negative. Received: {arguments.seed}.")
        rng = np.random.default_rng(arguments.seed)
        arguments.folder.mkdir(parents=True, exist_ok=True)
        for number in range(arguments.count):
            with atomic.replacing(arguments.folder / f"pattern-{number:03d}.png") as temporary:
                Image.fromarray(image(rng)).save(temporary)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(f"{arguments.folder}: {arguments.count} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
