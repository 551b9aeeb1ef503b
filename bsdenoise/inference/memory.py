"""How much memory there is."""

from pathlib import Path

import psutil

# Limit and use of the container that the process runs in, if it runs in one (control groups, versions 2 and 1).
_CONTAINER_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_bytes() -> int:
    """Count the bytes of memory that can still be used without swapping."""
    return min([psutil.virtual_memory().available, *_left_in_container()])


def peak_bytes() -> int:
    """Return the most memory that this process has held at any time; outside of Linux what it holds now."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return psutil.Process().memory_info().rss
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _left_in_container() -> list[int]:
    """Count what the container's limit leaves, if there is one."""
    for limit_file, use_file in _CONTAINER_FILES:
        try:
            limit, use = (Path(name).read_text().strip() for name in (limit_file, use_file))
            return [max(int(limit) - int(use), 0)]
        except (OSError, ValueError):  # no such file; or "max", for no limit
            continue
    return []
