"""How much memory some work takes (Linux)."""

from collections.abc import Callable
from pathlib import Path


def peak_bytes(work: Callable[[], object]) -> int:
    """Growth of this process's resident memory at its greatest, while `work` runs.

    What was freed before and kept by the allocator is not seen again: measure in a fresh process, or start it with
    MALLOC_MMAP_THRESHOLD_=65536 so that large arrays go back to the system.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
