#!/bin/bash
# Pillow swaps the bytes of compressed big-endian TIFF files of floats and signed integers, without a word.
#
# Versions: Pillow 12.3.0 and 13.0.0, tifffile 2026.3.3, imagecodecs 2026.3.6, NumPy 2.4.6, opencv-python-headless
# 5.0.0.93, imageio 2.38.1; Python 3.11 on x86-64.
#
# The usual guess: a TIFF says in its first two bytes which byte order it has, so every reader that opens a file gives
# the numbers that were written; a byte order that a reader does not know is an error.
#
# What is seen: of float32 (mode F) and int32 (mode I) files, big-endian and compressed by deflate, LZW or PackBits,
# Pillow gives numbers with their four bytes in the wrong order. libtiff decodes to the machine's own order, and Pillow,
# which hands compressed data to libtiff, swaps once more. Uncompressed files, little-endian ones and uint16 are right.
# imageio reads through Pillow if told to. tifffile and OpenCV read all of them right. The pixels are finite numbers, so
# nothing fails: 1.0 is read as 4.6e-41.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/read.py" <<'PYTHON'
import sys

import cv2
import imageio.v3 as imageio
import numpy as np
import PIL
import tifffile
from PIL import Image

folder = sys.argv[1]
readers = {
    "Pillow": lambda path: np.asarray(Image.open(path)),
    "imageio (Pillow)": lambda path: imageio.imread(path, plugin="pillow"),
    "tifffile": tifffile.imread,
    "OpenCV": lambda path: cv2.imread(path, cv2.IMREAD_UNCHANGED),
}
print(f"Pillow {PIL.__version__}, tifffile {tifffile.__version__}")
has_changed = False
for dtype in ("float32", "int32", "uint16"):
    pixels = np.arange(1, 49).reshape(6, 8).astype(dtype)
    for byteorder in ("<", ">"):
        for compression in (None, "zlib", "lzw", "packbits"):
            path = f"{folder}/a.tif"
            tifffile.imwrite(path, pixels, byteorder=byteorder, compression=compression, photometric="minisblack", metadata=None)
            found = {}
            for name, read in readers.items():
                array = read(path)
                if np.array_equal(array, pixels):
                    found[name] = "right"
                else:
                    found[name] = "swapped" if np.array_equal(array.byteswap(), pixels) else "other"
            print(dtype, {"<": "little-endian", ">": "big-endian"}[byteorder], compression, found)
            is_wrong = byteorder == ">" and compression is not None and dtype != "uint16"
            expected = dict.fromkeys(readers, "right")
            if is_wrong:
                expected["Pillow"] = expected["imageio (Pillow)"] = "swapped"
            has_changed |= found != expected
sys.exit(has_changed)
PYTHON
python3 -m venv "$folder/venv"
for pillow in 12.3.0 13.0.0; do
    "$folder/venv/bin/pip" install -q pillow==$pillow tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6 \
        opencv-python-headless==5.0.0.93 imageio==2.38.1
    "$folder/venv/bin/python" "$folder/read.py" "$folder"
done
echo "as described above"
