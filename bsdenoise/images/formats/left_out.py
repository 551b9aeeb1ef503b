"""What a search for image files leaves out, and how that is said: results, and images of kinds that cannot be read.

Texts, tables, sidecars and whatever else stands beside images is no loss; so kinds of images are known by their suffix.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from bsdenoise.images.results import DENOISED, LIST

MOST_KINDS = 8  # that are named
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")  # one file, whose own suffix stands before
_READABLE = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")  # unless compressed
# As Pillow, libraw, Bio-Formats, ITK and astropy list them; without those that are mostly used for something else.
_UNREADABLE = frozenset(
    suffix
    for suffixes in (
        # Photographs and pictures
        ".webp .avif .heic .heif .hif .jxl .jp2 .j2k .jpf .jpx .jxr .wdp .hdp .jpe .jfif .jif .mpo .jps .gif .apng",
        ".bmp .dib .tga .pcx .ppm .pgm .pbm .pnm .pam .pfm .exr .hdr .rgbe .dds .sgi .qoi .psd .psb .xcf .kra",
        # Raw files of cameras
        ".cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .ori .raf .rw2 .rwl .raw .pef .ptx .srw .x3f .3fr .fff .iiq",
        ".mos .mrw .kdc .dcr .k25 .erf .mef .gpr .eip",
        # Microscopes
        ".czi .zvi .lsm .lif .lof .xlef .nd2 .nd .oib .oif .oir .vsi .ets .ims .stk .dv .r3d .sld .flex .mea .mvd2",
        ".btf .tf2 .tf8 .svs .ndpi .ndpis .mrxs .scn .bif .qptiff .vms .afi .spe .sif .ipw .ics .ids .klb .dm3 .dm4",
        ".emd .ser .mrc .mrcs .rec .tvips .hspy .h5 .hdf5 .hdf .he5 .nc .l2d .xdce .c01 .spi",
        # Astronomy and medicine
        ".fits .fit .fts .fz .xisf .dcm .dicom .ima .nii .nrrd .nhdr .mha .mhd .img .minc .mnc",
        # Arrays, films, and archives of many files
        ".npz .mat .avi .mov .mp4 .m4v .mkv .webm .mpg .mpeg .wmv .mts .m2ts .mxf .zip .tar .tgz .7z .rar",
    )
    for suffix in suffixes.split()
)


def unreadable_kind(name: str) -> str | None:
    """Return the suffix of an image file that cannot be read, in lower case; `None` for files that are no images."""
    stem, suffix = os.path.splitext(name.lower())
    if suffix in _COMPRESSED:
        inner = os.path.splitext(stem)[1]
        return inner + suffix if inner in _UNREADABLE or inner in _READABLE else None
    return suffix if suffix in _UNREADABLE else None


@dataclass
class LeftOut:
    """Counts of what a search left out.

    Attributes:
        results: Number of results of this package.
        kinds: Number of image files that cannot be read, by suffix.
    """

    results: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, results: int, kinds: Mapping[str, int]) -> None:
        """Count what was left out of one folder.

        Args:
            results: How many results of this package.
            kinds: How many files that cannot be read, by their suffix.
        """
        self.results += results
        self.kinds.update(kinds)

    def notes(self, source: object) -> list[str]:
        """Say what was left out of a source, one thing a line."""
        lines = []
        if self.results:
            lines.append(
                f"{source}: left out {self.results} result{'s' * (self.results != 1)} of bsdenoise "
                f"({DENOISED}NAME beside NAME, or listed in {LIST})"
            )
        if self.kinds:
            lines.append(f"{source}: left out {self.kinds_in_words()}: these kinds cannot be read")
        return lines

    def kinds_in_words(self) -> str:
        """Say how many files of which kinds there are, the most frequent first; "" if there are none."""
        kinds = sorted(self.kinds.items(), key=lambda item: (-item[1], item[0]))
        words = [_files(count, kind) for kind, count in kinds[:MOST_KINDS]]
        if len(kinds) > MOST_KINDS:
            words.append(_files(sum(count for _, count in kinds[MOST_KINDS:]), "other image"))
        return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _files(count: int, kind: str) -> str:
    return f"{count} {kind} file{'s' * (count != 1)}"
