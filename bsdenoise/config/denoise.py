"""What `bsdenoise denoise` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bsdenoise.config.flags import Count, NonNegative, Seconds, Switch


@dataclass(frozen=True)
class DenoiseConfig:
    """Denoise image files, folders and globs.

    PNG (8 and 16 bits), JPEG, TIFF (8 and 16 bits, floats, stacks) and .npy files come out in the same bit depth, with
    ICC profile, EXIF and resolution; TIFF also with its axes and descriptions, Zarr and OME-Zarr with all that their
    metadata say. Images of a stack are denoised one by one; files of more than 32 megapixels window by window, in
    bounded memory. A bad file is named and
    does not stop the others; the exit code is then 2.
    """

    #: Image files, folders (searched recursively), or quoted globs such as "scans/**/*.png"; of a Zarr store also an
    #: image in it, such as scan.zarr/0.
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT [INPUT ...]")]

    #: Folder for the denoised images, which keeps the structure of the input folder. For one input file also a file
    #: name, whose suffix chooses the format. By default denoised-NAME beside each input file; folders and globs need
    #: it.
    out: Path | None = None

    #: A .keras file, a run folder that holds denoiser.keras, or the name of a preset (bsdenoise presets lists them). By
    #: default the preset for noise of unknown strength, of colour for RGB images, of grey for all others.
    model: Path | None = None

    #: Instead of --model: where the model is served, http(s)://HOST:PORT or grpc(s)://HOST:PORT, of a model that is not
    #: named denoiser http(s)://HOST:PORT/v1/models/NAME or grpc(s)://HOST:PORT/NAME. With http neither TensorFlow nor
    #: Keras is needed here; grpc is quicker for floats, for --std, and where sigma is estimated.
    server: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None

    #: With --server, how many files are worked on at once.
    concurrency: Count = 2

    #: Axes of .npy files and of Zarr arrays without names, a letter each: Y rows, X columns, C channels or S colours;
    #: along others, such as T, Z and N, there is one image after the other. For example TZYX or NYXC. By default their
    #: shapes decide where little else can be meant, and the rest is refused.
    axes: Annotated[str | None, tyro.conf.arg(metavar="LETTERS")] = None

    #: Noise standard deviation, in the files' own units (25 grey levels of 8-bit files, counts of 16-bit files, 25.0
    #: of float files) or as a fraction of full scale (25/255). By default the model's own, estimated per image if it
    #: was trained on a range. The estimates are printed. Models
    #: of methods l2, n2n, n2c and n2v do not use it.
    sigma: Annotated[str | None, tyro.conf.arg(metavar="S")] = None

    #: Noise of the files instead of --sigma, where it grows with the signal as that of detectors does:
    #: poisson-gaussian:gain=8.9,sigma=3,pedestal=6.5 (intensity per photo-electron, read noise, black level, in the
    #: files' own units) or poisson:30 (photo-electrons of a fully lit pixel). By default it is found out, per image.
    #: For models that were trained for such noise, or for white noise of a range, as the presets are.
    noise: Annotated[str | None, tyro.conf.arg(metavar="SPEC")] = None

    #: Also write the posterior standard deviation over that of the noise, where 1 means that nothing was gained over
    #: the noisy pixel. TIFF and .npy files get it as floats (NAME-std.tif, NAME-std.npy), others as an 8-bit picture
    #: with 1 in white (NAME-std.png for NAME.png, NAME.jpg-std.png for NAME.jpg). It needs a model of method full or
    #: per_component.
    std: Switch = False

    #: Value of pixels that hold no measurement, in the files' own units, such as 0, -9999 or -3.4e38 (--no-data=-9999).
    #: They do not spoil their neighbours and are written as they were read. Default: what the files declare
    #: (GDAL_NODATA); nan for none. NaN in float files never is a measurement.
    no_data: Annotated[str | None, tyro.conf.arg(metavar="V")] = None

    #: Mask images: pixels where a mask is not zero (white) are ignored, those where it is zero (black) are denoised.
    #: One file for all inputs, or a folder with masks under their names; inputs without one are denoised whole.
    mask: Annotated[str | None, tyro.conf.arg(metavar="FILE|DIR")] = None

    #: Self-ensemble: denoise as many copies of each image, mirrored and turned, and average them. A little better; 2, 4
    #: and 8 copies take about 2, 2.3 and 2.8 times as long, and as many times as they are where the network has no
    #: blind spot. With --model only, like the four that follow.
    tta: Literal[1, 2, 4, 8] = 1

    #: Let the model go on learning from the noisy files themselves before it denoises them: each adapts it to each file
    #: by itself, all to all of them together, which costs less where they are alike. What it learns is kept only if it
    #: is better on pixels that were held out. Most for images in which a pattern repeats itself.
    adapt: Literal["each", "all"] | None = None

    #: With --adapt, the number of steps, of a crop of 128x128 pixels each. By default 64, or as many as
    #: --adapt-seconds has time for.
    adapt_steps: Count | None = None

    #: With --adapt, the time for the steps in seconds. The result then depends on the machine.
    adapt_seconds: Seconds | None = None

    #: With --adapt, the seed of what is random in it.
    adapt_seed: NonNegative = 0

    #: Another blind spot for the network than it was trained with: odd numbers of pixels, height x width, such as 1,
    #: 3x3 or 5x1. Of a model that was trained with a large one, a smaller one may keep more detail. auto shrinks it for
    #: each file to what the noise of its first image needs: neighbours that share some are still hidden.
    blind_spot: Annotated[str | None, tyro.conf.arg(metavar="SIZE")] = None

    #: Arithmetic of the network's body: bfloat16 is quicker where the processor has it. By default that of the model.
    precision: Literal["float32", "bfloat16"] | None = None

    #: Largest side in pixels of the tiles of large images, a multiple of the model's pooling grid (of 32 pixels at the
    #: full depth of 5). By default as large as half of the free memory allows.
    tile: Count | None = None

    #: Context in pixels that a tile has on every inner side, a multiple of the pooling grid and less than half a tile.
    #: By default as far as the model looks, but at most 160 and a quarter of a tile.
    overlap: int | None = None

    #: Replace files that exist, the inputs themselves included.
    overwrite: Switch = False
