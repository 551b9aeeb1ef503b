#!/bin/sh
# bm3d 4.0.3, bm4d 4.2.5, NumPy 2.4.6.
#
# Usual guess: a package that installs beside NumPy 2 and denoises white noise with it does so for correlated noise too,
# where `bm3d` is given the noise's power spectrum instead of a standard deviation, as its documentation offers.
#
# Seen: given a spectrum, it calls `numpy.trapz`, which NumPy 2.4 has no more, and fails with an AttributeError. No bound
# of the packages keeps pip from that NumPy. With `numpy.trapz` set to `numpy.trapezoid` the same call goes through.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet bm3d==4.0.3 bm4d==4.2.5 numpy==2.4.6
cd "$folder"
cat > denoise.py <<'PROGRAM'
import bm3d
import numpy as np

size, sigma = 64, 0.1
image = np.tile(np.linspace(0, 1, size), (size, 1))
noisy = image + np.random.default_rng(0).normal(0, sigma, image.shape)
spectrum = np.full(image.shape, sigma**2 * image.size)
print("a standard deviation:", bm3d.bm3d(noisy, sigma).shape)
try:
    print("a spectrum:", bm3d.bm3d(noisy, spectrum).shape)
except AttributeError as error:
    print("a spectrum: AttributeError,", str(error).partition(".")[0])
np.trapz = np.trapezoid
print("a spectrum, with numpy.trapz:", bm3d.bm3d(noisy, spectrum).shape)
PROGRAM
"$folder/venv/bin/python" denoise.py > found
cat found
grep -q '^a standard deviation: (64, 64)$' found
grep -q "^a spectrum: AttributeError, module 'numpy' has no attribute 'trapz'" found
grep -q '^a spectrum, with numpy.trapz: (64, 64)$' found
