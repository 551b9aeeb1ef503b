#!/bin/sh
# imagecodecs 2026.3.6 (libpng 1.6.55), NumPy 2.4.6.
#
# Usual guess: an encoder that allocates its own output takes every image that its format holds.
#
# Seen: `png_encode` allocates as many bytes as the pixels have and some more, but not the byte that PNG puts before each
# row to name its filter. Pixels that cannot be compressed, as those of noise, need both: tall and narrow images of one
# to three samples a row end with "output stream too small", while the same pixels as one wide row are encoded. With
# `out=`, a number of bytes that has room for a byte or two per row, all are encoded and decoded to the same pixels.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet imagecodecs==2026.3.6 numpy==2.4.6
"$folder/venv/bin/python" - <<'PROGRAM'
import imagecodecs
import numpy as np

rng = np.random.default_rng(0)
as_seen = True
for shape, is_refused in {(1000, 1): True, (1000, 3): True, (1, 1000): False, (64, 64): False}.items():
    pixels = rng.integers(0, 256, shape, np.uint8)
    try:
        imagecodecs.png_encode(pixels)
        found = "encoded"
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    roomy = imagecodecs.png_encode(pixels, out=pixels.nbytes + 2 * shape[0] + 2**16)
    is_same = np.array_equal(imagecodecs.png_decode(roomy), pixels)
    print(f"{shape[0]} rows of {shape[1]}: {found}; with room for the filters' bytes the pixels come back: {is_same}")
    as_seen &= (found != "encoded") == is_refused and is_same
raise SystemExit(0 if as_seen else 1)
PROGRAM
