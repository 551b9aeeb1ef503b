"""Published results, to be put beside one's own.

All are PSNRs in dB for additive Gaussian noise of σ = 25 grey levels, neither clipped nor rounded, with σ known to the
methods that need it: means over the images of a set of the PSNR over all channels, as `metrics.psnr` has it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

SIGMA = 25 / 255  # as a fraction of full scale, for all numbers below
NOISE = "gaussian"  # name in a noise SPEC


@dataclass(frozen=True)
class PublishedSet:
    """A set of test images as the papers used it.

    Attributes:
        title: The papers' name of it.
        images: Number of images.
        channels: Number of channels that were denoised together and compared.
    """

    title: str
    images: int
    channels: int


# By the keys of the test sets that this package recognises, in the order of the paper's table.
SETS = {
    "kodak24": PublishedSet("Kodak", 24, 3),
    "bsd300": PublishedSet("BSD300", 100, 3),
    "set14": PublishedSet("Set14", 14, 3),
    "bsd68": PublishedSet("BSD68 grey", 68, 1),
}


@dataclass(frozen=True)
class Source:
    """A publication with a table.

    Attributes:
        label: What rows call it.
        citation: What it is, and what it quotes from others.
        psnr: PSNR in dB by method and set.
    """

    label: str
    citation: str
    psnr: Mapping[str, Mapping[str, float]]


PAPER = Source(
    label="paper",
    citation=(
        "Laine, Lehtinen, Aila: Improved Self-Supervised Deep Image Denoising (2019), Table 1; "
        "BM3D and N2V as quoted there"
    ),
    psnr={
        "full": {"kodak24": 32.39, "bsd300": 30.99, "set14": 31.20, "bsd68": 29.27},
        "per_component": {"kodak24": 31.54, "bsd300": 29.87, "set14": 30.54, "bsd68": 29.27},
        "l2": {"kodak24": 30.58, "bsd300": 28.61, "set14": 29.51, "bsd68": 27.76},
        "n2n": {"kodak24": 32.39, "bsd300": 31.03, "set14": 31.17, "bsd68": 29.30},
        "n2c": {"kodak24": 32.41, "bsd300": 31.04, "set14": 31.17, "bsd68": 29.31},
        "bm3d": {"kodak24": 31.82, "bsd300": 30.34, "set14": 30.50, "bsd68": 28.59},
        "n2v": {"bsd68": 27.71},
    },
)
FOLLOW_UP = Source(
    label="follow-up",
    citation=(
        "Laine, Karras, Lehtinen, Aila: High-Quality Self-Supervised Deep Image Denoising (NeurIPS 2019), Table 1; "
        "BM3D as quoted there"
    ),
    psnr={
        "full": {"kodak24": 32.45, "bsd300": 31.03, "set14": 31.25},
        "per_component": {"kodak24": 31.60, "bsd300": 29.91, "set14": 30.58},  # there: diagonal covariance
        "l2": {"kodak24": 30.64, "bsd300": 28.65, "set14": 29.57},  # there: the mean alone
        "bm3d": {"kodak24": 31.82, "bsd300": 30.40, "set14": 30.68},
    },
)
SOURCES = (PAPER, FOLLOW_UP)
METHOD_ORDER = tuple(PAPER.psnr)  # the columns of the paper's table


def published(source: Source, method: str, key: str) -> float | None:
    """Return a published PSNR in dB; `None` where the source has none.

    Args:
        source: The publication.
        method: Name of the method.
        key: Key of the test set.
    """
    return source.psnr.get(method, {}).get(key)


def average(source: Source, method: str, keys: Collection[str]) -> float | None:
    """Average published PSNRs over sets, each counted once; `None` unless the source has all of them.

    Args:
        source: The publication.
        method: Name of the method.
        keys: Keys of the test sets.
    """
    values = [value for key in keys if (value := published(source, method, key)) is not None]
    return sum(values) / len(values) if values and len(values) == len(keys) else None
