#!/bin/bash
# tifffile writes packed 10-, 12- and 14-bit integers wrongly into big-endian files, and reads its own file back
# differently.
#
# Versions: tifffile 2026.3.3, imagecodecs 2026.3.6, NumPy 2.4.6; Python 3.11 on x86-64.
#
# The usual guess: `byteorder` changes how a file is laid out and not what is read from it; and bits that are packed have
# no byte order at all (TIFF 6.0: the most significant bit first, whatever the header says), so the packed bytes of a
# big-endian file are those of a little-endian one.
#
# What is seen: with byteorder=">" the bytes of each 16-bit number are swapped before its lower bits are packed. What is
# read back has other values, within the range of the type and without an error. A big-endian file that is packed as the
# specification says is read right. So a program that keeps the byte order of its input, as a careful one does, destroys
# the pixels of packed files; little-endian files are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import struct
import sys

import numpy as np
import tifffile

path = f"{sys.argv[1]}/a.tif"


def by_hand(pixels, bits):
    """A big-endian file of one strip, packed as the specification says: each row padded to whole bytes."""
    rows = ("".join(f"{value:0{bits}b}" for value in row) for row in pixels)
    data = b"".join(int(row + "0" * (-len(row) % 8), 2).to_bytes(-(-len(row) // 8), "big") for row in rows)
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack(">HHII", code, 4, 1, value) for code, value in tags.items())
    return struct.pack(">2sHI", b"MM", 42, 8 + len(data)) + data + struct.pack(">H", len(tags)) + entries + bytes(4)


print(f"tifffile {tifffile.__version__}")
has_changed = False
for bits in (10, 12, 14):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (5, 7)).astype("uint16")
    found = {}
    for byteorder in ("<", ">"):
        tifffile.imwrite(path, pixels, bitspersample=bits, byteorder=byteorder, photometric="minisblack", metadata=None)
        found[f"written {byteorder}"] = np.array_equal(tifffile.imread(path), pixels)
    with open(path, "wb") as file:
        file.write(by_hand(pixels, bits))
    found["by hand >"] = np.array_equal(tifffile.imread(path), pixels)
    print(bits, "bits: read as written?", found)
    has_changed |= found != {"written <": True, "written >": False, "by hand >": True}
sys.exit(has_changed)
PYTHON
echo "as described above"
