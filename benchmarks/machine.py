"""Names the machine that a figure was measured on."""

import os
import platform
from importlib import metadata
from pathlib import Path


def describe() -> str:
    """Gives processor, cores and package versions in one line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    extension = " with AVX-512 bf16" if "avx512_bf16" in flags else ""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("tensorflow", "keras"))
    return f"{model}{extension}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, {versions}"


def peak_memory() -> int:
    """Gives the peak memory of this process in MiB; unlike that of `getrusage`, without its parent's before `exec`."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) // 1024
