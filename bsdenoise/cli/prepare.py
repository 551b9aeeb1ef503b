"""`bsdenoise prepare`: training images in, a folder of shards out."""

import re
import time

from tqdm import tqdm

from bsdenoise.config import PrepareConfig
from bsdenoise.data import packing
from bsdenoise.data.sources import open_source, select
from bsdenoise.images import missing

UNITS = {"MB": 10**6, "GB": 10**9}
LEAST, MOST = 10**6, 10**12  # bytes of a shard


def run(config: PrepareConfig) -> None:
    """Pack the images, and say how many there are.

    Raises:
        ValueError: If there are no such images, DIR is not empty, or SIZE cannot be read.
        OSError: If something cannot be written.
    """
    shard_bytes = parse_size(config.shard_size)
    packing.check_out(config.out)  # before anything takes long
    start = time.monotonic()
    no_data = missing.parse_no_data(config.no_data)
    found = open_source(config.source, config.axes, no_data, say=lambda line: tqdm.write(f"note: {line}"))
    source = select(found, config.min_side, config.max_side, _warn)
    if source is not found:
        tqdm.write(f"{len(source)} of {len(found)} images have sides within --min-side and --max-side")
    packed = packing.pack(source, config.out, shard_bytes, _warn, no_data)
    left_out = f" ({packed.left_out} left out)" if packed.left_out else ""
    parts = f"{packed.shards} file{'s' * (packed.shards != 1)}"
    print(
        f"{config.out}: {packed.images} images{left_out} in {parts}, {packed.bytes / 1e6:,.1f} MB, "
        f"{time.monotonic() - start:.0f} s"
    )


def parse_size(text: str) -> int:
    """Read a size such as 512MB, in bytes.

    Raises:
        ValueError: If it is none, or out of range.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(MB|GB)", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if not LEAST <= size <= MOST:
        raise ValueError(f"--shard-size must be a size from 1MB to 1000GB, such as 512MB. Received: {text!r}.")
    return size


def _warn(line: str) -> None:
    tqdm.write(f"warning: {line}")
