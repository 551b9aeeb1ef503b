"""What `bsdenoise train` can be told: six groups of flags, and `TrainConfig`, which is all of them.

A function that needs one group takes that group, such as `config: NetworkConfig`: a `TrainConfig` is one, so that users
write flat keywords and nothing is handed over twice.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from annotated_types import Gt, Le

from bsdenoise.config.flags import Count, Decay, Duration, Fraction, NonNegative, Switch

if TYPE_CHECKING:
    from collections.abc import Callable

    Network = str | Callable[..., Any]
else:
    Network = str  # what a command line can hold


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on, and where the run is kept."""

    #: Training images: a folder (searched recursively), a quoted glob, an image file or TIFF stack (every image of a
    #: stack counts), an .npy file (N, H, W[, C]), a folder that prepare has written, or tfds:NAME[/CONFIG]:SPLIT for a
    #: data set of tensorflow_datasets, such as tfds:imagenet2012:validation; TFDS_DATA_DIR says where those are.
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = field(kw_only=False)

    #: Run folder: configuration, log, checkpoints, samples and the trained denoiser.keras.
    out: Path = field(kw_only=False)

    #: For n2n and n2c with real images instead of --corrupt: what each image of SOURCE is compared with, a second noisy
    #: copy of it for n2n and a clean one for n2c. As many images as in SOURCE, under the same names (files may have
    #: other suffixes), or a stack in the same order.
    targets: str | None = None

    #: Value of pixels that hold no measurement, in the files' own units, such as 0, -9999 or -3.4e38 (--no-data=-9999).
    #: Default: what the files declare (GDAL_NODATA); nan for none. NaN in float files never is a measurement.
    no_data: Annotated[str | None, tyro.conf.arg(metavar="V")] = None

    #: Mask images: pixels where a mask is not zero (white) are ignored, those where it is zero (black) are used. One
    #: file for all images, or a folder with masks under the names of the images; images without one are used whole.
    mask: Annotated[str | None, tyro.conf.arg(metavar="FILE|DIR")] = None

    #: Axes of .npy files and of Zarr arrays without names, a letter each: Y rows, X columns, C channels or S colours;
    #: along others, such as T, Z and N, there is one image after the other. For example TZYX or NYXC. By default their
    #: shapes decide where little else can be meant, and the rest is refused.
    axes: Annotated[str | None, tyro.conf.arg(metavar="LETTERS")] = None

    #: Channels of the model; 1 takes the luminance of RGB images. Default: what most of the images have.
    channels: Count | None = None

    #: Use only images of which both sides have at least so many pixels; the paper takes 256.
    min_side: Count | None = None

    #: Use only images of which both sides have at most so many pixels; the paper takes 512.
    max_side: Count | None = None

    #: Side of the square crops in pixels.
    crop: Count = 256

    #: Mirror and turn the crops at random.
    augment: Switch = False

    #: Images held out for validation, at most a fifth of all.
    validation_images: Count = 16

    #: Largest side of the validation images; larger ones are cropped to their centre.
    validation_crop: Count = 256


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """How noisy the images are."""

    #: Noise of the images: gaussian:25 (standard deviation in the files' own units: grey levels, counts of 16-bit
    #: files, whatever floats mean), gaussian:25/255 (a fraction of full scale), gaussian:5-50 (a range, drawn per
    #: image; with --corrupt). Default: unknown, which measures it on some of the images, once for the whole run, and
    #: says what it found. With --corrupt it must be given.
    noise: Annotated[str | None, tyro.conf.arg(metavar="SPEC")] = field(default=None, kw_only=False)

    #: Add that noise to clean images: fresh at each visit, or one fixed realisation per image. Default: the images are
    #: noisy already.
    corrupt: Literal["fresh", "fixed"] | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What is learnt, by which network."""

    #: What is learnt, a column of the paper's Table 1: full (a colour distribution per pixel with full covariance),
    #: per_component (with diagonal covariance), l2 (its mean alone), all three from the surroundings of a pixel;
    #: n2n (from pairs of noisy copies), n2c (from noisy and clean), n2v (from noisy images with masked pixels), those
    #: with a plain U-Net. For n2n and n2c give --corrupt or --targets. Also a method of one's own that is registered,
    #: or named by an entry point of the group bsdenoise.methods (docs/methods.md).
    method: Annotated[str, tyro.conf.arg(metavar="NAME")] = "full"

    #: For full and per_component, what the network's triangular factor stands for: covariance of the clean pixel, or
    #: precision of the noisy one.
    factor: Literal["prior", "precision"] = "prior"

    #: For n2v, the fraction of pixels that are masked; 64 in a patch of 64×64 pixels in the paper of Krull et al.
    n2v_fraction: Annotated[float, Gt(0), Le(1)] = 1 / 64

    #: For n2v, how far away in rows and columns the pixel may be that a masked one is replaced by; 5 in the code of
    #: Krull et al.
    n2v_radius: Count = 5

    #: For n2v, let a masked pixel be replaced by itself too, as in the code of Krull et al.
    n2v_center: Switch = False

    #: Train a network of one's own instead of the method's: MODULE:NAME of a subclass of
    #: bsdenoise.network.DenoisingNetwork, or of a function that takes the numbers of channels and of outputs and gives
    #: a Keras model; or the name of an entry point of the group bsdenoise.networks (docs/networks.md). In Python also
    #: the class or function itself.
    network: Annotated[Network | None, tyro.conf.arg(metavar="MODULE:NAME")] = None

    #: For full, per_component and l2: height and width in pixels of what is not seen around a pixel, itself included;
    #: odd numbers such as 1, 3x3 or 5x1. Larger than 1 for noise that neighbouring pixels share: 3x3 if only direct
    #: neighbours do, 5x1 if pixels of a column do up to two apart; auto measures on some of the images which is needed.
    #: Cost and weights are the same. Default: 1, as in the paper; with --init that model's.
    blind_spot: Annotated[str | None, tyro.conf.arg(metavar="SIZE")] = None

    #: Start from the weights of a trained model instead of random ones: the name of a preset (bsdenoise presets lists
    #: them), a .keras file, or a run folder. Its method, factor and channels must be those of the run, its noise and
    #: its blind spot need not.
    init: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None

    #: With --init: train a wider network, of --width, that begins by computing what that model does.
    grow: Switch = False

    #: Maps per encoder convolution. Default: 48, as in the paper; with --init that model's.
    width: Count | None = None

    #: How often the resolution is halved. Default: 5, as in the paper; with --init that model's.
    depth: Count | None = None


@dataclass(frozen=True, kw_only=True)
class OptimisationConfig:
    """How long it is trained, by which steps."""

    #: Number of crops shown.
    images: Count = 1_200_000

    #: Crops per step, over all devices together.
    batch: Count = 4

    #: Crops that a device computes at a time, for the same result with less memory; the gradients of a step are added
    #: up. Default: all of its part of the batch.
    micro_batch: Count | None = None

    #: Compute the network's four branches a second time in the backward pass instead of keeping their maps: less memory
    #: for the same result, but slower. For full, per_component and l2.
    recompute: Switch = False

    #: What turns gradients into steps: adam, as in the paper, or muon, which makes the steps of whole kernels
    #: orthogonal and gets further than Adam with as many crops, at a higher rate (benchmarks/presets.md).
    optimizer: Literal["adam", "muon"] = "adam"

    #: Learning rate between the ramps. The paper's is for Adam; with muon 1e-3 to 2e-3 were best, for compact networks.
    learning_rate: Annotated[float, Gt(0)] = 3e-4

    #: Adam's decay of squared gradients; with muon for first and last layer and biases, which Adam trains there too.
    beta_2: Decay = 0.99

    #: Fraction of the run in which the learning rate rises along a cosine.
    ramp_up: Fraction = 0.1

    #: Fraction of the run in which it falls along a squared cosine.
    ramp_down: Fraction = 0.3

    #: Decay per step of the moving average of the weights, which is what is validated and kept; 0 for none.
    ema: Decay = 0.999

    #: Arithmetic of the network's body in training; what is saved is float32.
    precision: Literal["float32", "bfloat16"] = "float32"

    #: Compile the training step with XLA.
    xla: Switch = False

    #: The same flags and data give the same weights bit for bit on the same kind of device; slower on GPUs.
    deterministic: Switch = False

    #: Seed of weights, order, crops and noise.
    seed: NonNegative = 0

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return -(-self.images // self.batch)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Which devices and workers compute."""

    #: Which devices: auto finds the workers of a cluster in TF_CONFIG or in a SLURM job step, else takes all GPUs of
    #: this machine; one takes a single device, mirrored all of this machine, workers needs a cluster.
    strategy: Literal["auto", "one", "mirrored", "workers"] = "auto"

    #: How the workers of a cluster add up gradients: ring over the network, nccl between NVIDIA GPUs; auto lets
    #: TensorFlow choose.
    communication: Literal["auto", "ring", "nccl"] = "auto"

    #: Start so many workers on this machine, dividing its GPUs if it has any, and look after them.
    workers: Count | None = None

    #: How often to start the workers of this machine again after one has failed (without --workers: one worker). All
    #: go on from the last checkpoint.
    restarts: NonNegative = 0

    #: In a cluster, give up with exit code 138 when no step was finished for so long, as another worker hangs; longer
    #: than a validation takes. 0 waits for ever.
    stall_minutes: Duration = 15.0


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """How a run is watched."""

    #: Say what the run would be, timed on a few steps, and write nothing.
    dry_run: Switch = False

    #: What to do with a step whose loss or gradient is not a finite number, which never changes the weights: stop the
    #: training at the next line of the log, or skip the step and count it.
    on_nan: Literal["stop", "skip"] = "stop"

    #: Steps between validations.
    validate_every: Count = 1000

    #: Steps between lines of the log.
    log_every: Count = 50

    #: Minutes between checkpoints.
    checkpoint_minutes: Duration = 5.0


# The last base comes first.
@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoggingConfig, ClusterConfig, OptimisationConfig, NetworkConfig, NoiseConfig, DataConfig):
    """Train a denoiser from noisy images only.

    The defaults are the paper's: 1.2 million crops of 256×256 pixels through the full network. Run again with the same
    flags, training goes on from the last checkpoint.
    """
