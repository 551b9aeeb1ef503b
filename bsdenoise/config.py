"""What each command can be told: one frozen dataclass per command, the only source of its flags and their help.

The help of a flag is the `#:` comment above its field, joined to one paragraph; a line of it that begins with anything
but a letter would start a new line in the terminal.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

# `--std` alone, without the twin `--no-std` that says what is so anyway.
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class TrainConfig:
    """Train a denoiser from noisy images only.

    The defaults are the paper's: 1.2 million crops of 256×256 pixels through the full network. Run again with the same
    flags, training goes on from the last checkpoint.
    """

    #: Training images: a folder (searched recursively), a quoted glob, an image file or TIFF stack (every image of a
    #: stack counts), an .npy file (N, H, W[, C]), or tfds:NAME[/CONFIG]:SPLIT for a data set of tensorflow_datasets,
    #: such as tfds:imagenet2012:validation; TFDS_DATA_DIR says where those are.
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]

    #: Run folder: configuration, log, checkpoints, samples and the trained denoiser.keras.
    out: Path

    #: Noise of the images: gaussian:25 (standard deviation in the files' own units: grey levels, counts of 16-bit
    #: files, whatever floats mean), gaussian:25/255 (a fraction of full scale), gaussian:5-50 (a range, drawn per
    #: image; with --corrupt).
    noise: str

    #: Add that noise to clean images: fresh at each visit, or one fixed realisation per image. Default: the images are
    #: noisy already.
    corrupt: Literal["fresh", "fixed"] | None = None

    #: Covariance of the predicted colour: full, or diagonal (per component).
    method: Literal["full", "per_component"] = "full"

    #: What the network's triangular factor stands for: covariance of the clean pixel, or precision of the noisy one.
    factor: Literal["prior", "precision"] = "prior"

    #: Channels of the model; 1 takes the luminance of RGB images. Default: what most of the images have.
    channels: int | None = None

    #: Use only images of which both sides have at least so many pixels; the paper takes 256.
    min_side: int | None = None

    #: Use only images of which both sides have at most so many pixels; the paper takes 512.
    max_side: int | None = None

    #: Maps per encoder convolution; 48 in the paper.
    width: int = 48

    #: How often the resolution is halved; 5 in the paper.
    depth: int = 5

    #: Number of crops shown.
    images: int = 1_200_000

    #: Crops per step, over all devices together.
    batch: int = 4

    #: Side of the square crops in pixels.
    crop: int = 256

    #: Mirror and turn the crops at random.
    augment: Switch = False

    #: Adam's learning rate between the ramps.
    learning_rate: float = 3e-4

    #: Adam's decay of squared gradients.
    beta_2: float = 0.99

    #: Fraction of the run in which the learning rate rises along a cosine.
    ramp_up: float = 0.1

    #: Fraction of the run in which it falls along a squared cosine.
    ramp_down: float = 0.3

    #: Decay per step of the moving average of the weights, which is what is validated and kept; 0 for none.
    ema: float = 0.999

    #: Arithmetic of the network's body in training; what is saved is float32.
    precision: Literal["float32", "bfloat16"] = "float32"

    #: Compile the training step with XLA.
    xla: Switch = False

    #: Seed of weights, order, crops and noise.
    seed: int = 0

    #: Images held out for validation, at most a fifth of all.
    validation_images: int = 16

    #: Largest side of the validation images; larger ones are cropped to their centre.
    validation_crop: int = 256

    #: Steps between validations.
    validate_every: int = 1000

    #: Steps between lines of the log.
    log_every: int = 50

    #: Minutes between checkpoints.
    checkpoint_minutes: float = 5.0

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return -(-self.images // self.batch)


@dataclass(frozen=True)
class DenoiseConfig:
    """Denoise image files, folders and globs.

    PNG (8 and 16 bits), JPEG, TIFF (8 and 16 bits, floats, stacks) and .npy files come out in the same bit depth, with
    ICC profile, EXIF and resolution; TIFF also with its axes and descriptions. Images of a stack are denoised one by
    one. A bad file is named and does not stop the others; the exit code is then 2.
    """

    #: Image files, folders (searched recursively), or quoted globs such as "scans/**/*.png".
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT [INPUT ...]")]

    #: Folder for the denoised images, which keeps the structure of the input folder. For one input file also a file
    #: name, whose suffix chooses the format.
    out: Path

    #: A .keras file, or a run folder that holds denoiser.keras.
    model: Path

    #: Noise standard deviation, in the files' own units (25 grey levels of 8-bit files, counts of 16-bit files, 25.0
    #: of float files) or as a fraction of full scale (25/255). By default the model's own, estimated per image if it
    #: was trained on a range. The estimates are printed.
    sigma: Annotated[str | None, tyro.conf.arg(metavar="S")] = None

    #: Also write the posterior standard deviation over sigma, where 1 means that nothing was gained over the noisy
    #: pixel. TIFF and .npy files get it as floats (NAME-std.tif, NAME-std.npy), others as an 8-bit picture with 1 in
    #: white (NAME-std.png for NAME.png, NAME.jpg-std.png for NAME.jpg).
    std: Switch = False

    #: Replace files that exist, the inputs themselves included.
    overwrite: Switch = False


@dataclass(frozen=True)
class ExportConfig:
    """Write a model as a TensorFlow SavedModel that holds the whole denoising step."""

    #: A .keras file, or a run folder that holds denoiser.keras.
    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]

    #: Folder of versions. The model is written to its sub-folder of the version's number.
    out: Path

    #: Version number. By default one more than the highest that is there.
    version: int | None = None

    #: Most pixels that one request may hold (batch × height × width), and each image file; the memory that a request
    #: takes grows with it.
    max_pixels: int = 2**26

    #: Largest side in pixels of the tiles in which images above a megapixel are computed; smaller ones need less
    #: memory. Default: 1024.
    tile: int | None = None


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure models on clean images with noise added, or on real pairs of noisy and clean images.

    Noise is added in floating point, neither clipped nor rounded, and depends on the image and the number of the draw
    alone, so that every model sees the same. Results are rounded to the bits of the files before they are compared.
    """

    #: A .keras file, or a run folder that holds denoiser.keras; repeat it to compare models.
    model: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction]

    #: Folders of clean images; each is a set of its own.
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR [DIR ...]")] = ()

    #: Noise to add: gaussian:25 (in the files' own units), gaussian:25/255 (a fraction of full scale), or a range like
    #: gaussian:5-50, from which each image and draw takes its own.
    noise: str | None = None

    #: How often noise is drawn for each image: one number, or one for each set.
    draws: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N [N ...]")] = (1,)

    #: Folder of noisy images, to be compared with --clean instead of --data.
    noisy: str | None = None

    #: Folder of clean images of the same names as those in --noisy.
    clean: str | None = None

    #: Noise level that the models are told, in the files' own units (25) or as a fraction of full scale (25/255).
    #: Default: the one that was added; for pairs the model's own.
    sigma: Annotated[str | None, tyro.conf.arg(metavar="S")] = None

    #: Do not tell the models the noise level: each takes its own, an estimate per image if it was trained on a range.
    own_sigma: Switch = False

    #: Take only every so many images of each set.
    every: int = 1

    #: Largest side of a tile in pixels. Default: large images in tiles.
    tile: int | None = None

    #: Folder for records.jsonl (one line per image, from which an interrupted evaluation goes on), results.json,
    #: table.md and table.csv.
    out: Path | None = None

    #: File for the results as JSON.
    json: Path | None = None
