#!/usr/bin/env bash
# What a float32 model computes in OpenVINO on a processor that has bfloat16.
#
# openvino 2026.4.1 and numpy 2.4.6, Python 3.11, on a CPU with the flag avx512_bf16 or amx_bf16.
#
# The usual guess: a model whose weights, inputs and outputs are all float32 is computed in float32 by
# `compile_model(model, "CPU")`; less precision has to be asked for.
# Seen: on such processors OpenVINO computes convolutions in bfloat16 unasked, though inputs and outputs stay float32.
# The relative error is about 1e-2 to 1e-3 rather than 1e-7. INFERENCE_PRECISION_HINT=f32 has to be asked for.
#
# Ends with 1 if that is no longer so. On other processors there is nothing to see, and it ends with 0.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.6

"$folder/venv/bin/python" - <<'PROGRAM'
import sys
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

rng = np.random.default_rng(0)
image = rng.random((1, 16, 64, 64), np.float32)
kernel = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
source = ops.parameter([1, 16, 64, 64], np.float32)
model = ov.Model([ops.convolution(source, ops.constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1])], [source])


def error(settings):
    """The largest error, relative to the largest value, of a convolution that is checked in float64."""
    compiled = ov.compile_model(model, "CPU", settings)
    (given,) = compiled(image).values()
    windows = np.lib.stride_tricks.sliding_window_view(image[0].astype(float), (3, 3), axis=(1, 2))
    exact = np.einsum("ihwkl,oikl->ohw", windows, kernel.astype(float))
    hint = compiled.get_property("INFERENCE_PRECISION_HINT")
    print(f"{settings or 'no settings'}: computes in {hint}, relative error {np.abs(given[0] - exact).max() / np.abs(exact).max():.1e}")
    return np.abs(given[0] - exact).max() / np.abs(exact).max()


print("openvino", ov.__version__)
unasked, asked = error({}), error({"INFERENCE_PRECISION_HINT": "f32"})
flags = Path("/proc/cpuinfo").read_text().split()
if not {"avx512_bf16", "amx_bf16"} & set(flags):
    print("this processor has no bfloat16: nothing to see")
    sys.exit(0)
sys.exit(0 if unasked > 3e-4 and asked < 1e-5 else 1)
PROGRAM
