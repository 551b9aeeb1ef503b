#!/bin/bash
# tifffile gives a no-data value of 0 for GeoTIFFs whose GDAL_NODATA tag holds the lowest float32.
#
# Versions: tifffile 2026.3.3, NumPy 2.4.6; Python 3.11 on x86-64.
#
# The usual guess: `page.nodata` is the value of the tag GDAL_NODATA (42113) as a number of the pixels' type; for float
# rasters that is most often -3.4028234663852886e+38, the lowest float32, which float32 holds exactly.
#
# What is seen: for that value, in whatever digits (17 of them, NumPy's own -3.4028235e+38, or 15 as old GDAL wrote), a
# line in the log says "not castable to float32", and `page.nodata` is 0, the value for "none declared". Whoever compares
# pixels with it takes true zeros for missing pixels and -3.4e38 for measurements. Other values, such as -9999, are right.
# The tag itself holds the text as it was written.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/read.py" <<'PYTHON'
import io
import logging
import sys

import numpy as np
import tifffile

logging.disable(logging.CRITICAL)
print(f"tifffile {tifffile.__version__}, NumPy {np.__version__}")
lowest = np.finfo(np.float32).min
has_changed = False
for text, expected in (
    ("-3.4028234663852886e+38", 0),
    ("-3.4028235e+38", 0),
    ("-3.40282346638529e+38", 0),
    ("-9999", -9999),
):
    file = io.BytesIO()
    pixels = np.full((4, 5), float(text) if text == "-9999" else lowest, np.float32)
    tifffile.imwrite(file, pixels, extratags=[(42113, "s", 0, text, True)])
    file.seek(0)
    with tifffile.TiffFile(file) as tif:
        page = tif.pages[0]
        found, tag, array = page.nodata, page.tags[42113].value, page.asarray()
    print(f"GDAL_NODATA {tag}: page.nodata {found}, pixels {array[0, 0]}")
    has_changed |= found != expected or tag != text
sys.exit(has_changed)
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tifffile==2026.3.3 numpy==2.4.6
"$folder/venv/bin/python" "$folder/read.py"
