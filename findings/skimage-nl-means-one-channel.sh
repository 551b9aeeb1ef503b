#!/bin/sh
# scikit-image 0.26.0, NumPy 2.4.6.
#
# Usual guess: with `channel_axis`, `denoise_nl_means` gives back the shape that it was given, whatever the number of
# channels, as its documentation says ("same shape as image").
#
# Seen: of an image with one channel, (H, W, 1), comes (H, W). The difference to the image that was given is broadcast,
# of a square one to (H, H, H), and any error measured so is nonsense without a word. Two and three channels come back as they were.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scikit-image==0.26.0 numpy==2.4.6
cd "$folder"
cat > denoise.py <<'PROGRAM'
import numpy as np
from skimage.restoration import denoise_nl_means

noisy = np.random.default_rng(0).normal(0.5, 0.05, (40, 40, 3))
for channels in (1, 2, 3):
    image = noisy[..., :channels]
    denoised = denoise_nl_means(image, h=0.04, sigma=0.05, channel_axis=-1)
    print(channels, image.shape, "->", denoised.shape, "difference", (denoised - image).shape)
PROGRAM
"$folder/venv/bin/python" denoise.py > found
cat found
grep -q '^1 (40, 40, 1) -> (40, 40) difference (40, 40, 40)$' found
grep -q '^2 (40, 40, 2) -> (40, 40, 2)' found
grep -q '^3 (40, 40, 3) -> (40, 40, 3)' found
