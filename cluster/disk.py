"""What is on disk for good."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Wait until a file's bytes, or the names in a folder, would survive a power cut. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
