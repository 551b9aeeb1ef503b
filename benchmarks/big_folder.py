"""How long does training look at a folder of a million files before it begins?

Used by `benchmarks.input_pipeline --files N`. The folder's files are hard links to a few photographs, 1,281 in each of
its folders, as ImageNet has them; each start is a process of its own. The files' headers come from the page cache: a
disk that has to be asked is slower at a first start, not at the others.

    python -m benchmarks.big_folder FOLDER --min-side 256      one start, as JSON
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks import machine
from bsdenoise.data import index

FILES_PER_FOLDER = 1281  # 1,281,167 files in 1,000 folders: ImageNet's training images
MOST_LINKS = 60_000  # to one file; ext4 allows 65,000
CLOCK_MARGIN = 1.0  # seconds beyond those after which a folder's time is trusted


@dataclass(frozen=True)
class Config:
    """Opens a folder as training does, and says how long that took."""

    source: Annotated[str, tyro.conf.Positional]
    """The folder."""
    min_side: int | None = None
    """As for `bsdenoise train`."""
    manifest: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Whether the checksum of the collection is asked for too."""


def start(config: Config) -> dict:
    """Opens a folder; gives seconds, images and MiB."""
    begin = time.perf_counter()
    from bsdenoise.data.manifest import manifest
    from bsdenoise.data.sources import open_source, select

    imported = time.perf_counter()
    source = open_source(config.source)
    opened = time.perf_counter()
    chosen = select(source, config.min_side, None)
    selected = time.perf_counter()
    if config.manifest:
        manifest(chosen)
    return {
        "import_s": imported - begin,
        "open_s": opened - imported,
        "select_s": selected - opened,
        "manifest_s": time.perf_counter() - selected,
        "images": len(chosen),
        "peak_mib": machine.peak_memory(),
    }


def make(folder: Path, photos: list[Path], number: int) -> None:
    """Makes a folder of so many files."""
    for first in range(0, number, FILES_PER_FOLDER):
        below = folder / f"n{first // FILES_PER_FOLDER:08}"
        below.mkdir(parents=True)
        for place in range(first, min(first + FILES_PER_FOLDER, number)):
            path = f"{below}/{below.name}_{place}.JPEG"
            if place % MOST_LINKS == 0:
                shutil.copy(photos[place // MOST_LINKS % len(photos)], path)
                original = path
            else:
                os.link(original, path)


def measure(photos: list[Path], number: int) -> dict:
    """Prints a table of starts."""
    starts = {
        "first": [],
        "second": [],
        "--min-side, first": ["--min-side", "64"],
        "--min-side, second": ["--min-side", "64"],
        "manifest, first": ["--manifest"],
        "manifest, second": ["--manifest"],
    }
    results = {}
    with tempfile.TemporaryDirectory() as root:
        make(Path(root, "folder"), photos, number)
        time.sleep(index.TICK_NS / 1e9 + CLOCK_MARGIN)
        print(f"starts on a folder of {number} files:")
        print(f"{'':20}{'list, s':>10}{'sizes, s':>10}{'manifest, s':>13}{'peak memory, MiB':>18}")
        for name, flags in starts.items():
            command = [sys.executable, "-m", "benchmarks.big_folder", str(Path(root, "folder")), *flags]
            environment = os.environ | {index.CACHE_VARIABLE: str(Path(root, "cache"))}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            result = json.loads(done.stdout.splitlines()[-1])
            results[name] = result
            print(f"{name:20}{result['open_s']:10.2f}{result['select_s']:10.2f}", end="")
            print(f"{result['manifest_s']:13.2f}{result['peak_mib']:18}")
        sizes = [path.stat().st_size for path in Path(root, "cache", "index").iterdir()]
        print(f"the index takes {sum(sizes) / 1e6:.1f} MB")
        results["index_bytes"] = sum(sizes)
    return results


if __name__ == "__main__":
    print(json.dumps(start(tyro.cli(Config))))
