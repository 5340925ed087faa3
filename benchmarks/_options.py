"""The command line of a benchmark on tables that are no part of the repository."""

import argparse
import os
from pathlib import Path


def options(name: str, about: str | None, quick: str, data: str) -> tuple[bool, list[Path]]:
    """Whether the quick form is wanted, and the folders of --data, or else that of MEDLEY_DATA.

    Args:
        about: docstring of the benchmark, whose first line is shown. quick, data: what the options mean.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=(about or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--data", type=Path, nargs="+", help=data)
    found = parser.parse_args()
    folders = found.data or [Path(folder) for folder in [os.environ.get("MEDLEY_DATA")] if folder]
    if not folders:
        parser.error("the tables are no part of the repository: give --data or set MEDLEY_DATA")
    return found.quick, folders
