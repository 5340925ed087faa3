"""Run every benchmark and write docs/benchmarks.md: `python -m benchmarks [--quick] [NAME ...]`, or `make bench`.

A benchmark that fails is named in the table with its exit code, and the others still run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ray", "torch", "transformers", "numpy", "pyarrow", "scikit-learn", "vowpalwabbit", "mabwiser")


def names() -> list[str]:
    """The benchmarks: modules of this folder that do not begin with an underscore."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def run(name: str, quick: bool) -> dict[str, Any]:
    """Run one benchmark; its JSON line, or {"benchmark", "failed"} where it ended with an error."""
    words = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
    start = time.monotonic()
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        return {"benchmark": name, "failed": done.returncode}
    return {**json.loads(lines[-1]), "seconds": time.monotonic() - start}


def render(results: list[dict[str, Any]], quick: bool) -> str:
    """The page, in Markdown."""
    lines = ["# Benchmarks", "", f"`make bench`{' (quick)' if quick else ''}, {datetime.now(UTC):%Y-%m-%d}, on:", ""]
    lines += [f"- {fact}" for fact in machine()]
    for result in results:
        lines += ["", f"## {result['benchmark']}", ""]
        if "failed" in result:
            lines.append(f"Failed with exit code {result['failed']}: `python -m benchmarks.{result['benchmark']}`")
            continue
        lines += [
            "| measure | ours | peer | | ratio or difference | interval | unit |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_row(measure) for measure in result["measures"]]
        lines += ["", f"{result['seconds']:.0f} s: `python -m benchmarks.{result['benchmark']}`"]
    return "\n".join(lines) + "\n"


def machine() -> list[str]:
    """Processor, memory, and the versions that matter."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{name} {found}" for name in PACKAGES if (found := _version(name))]
    return [f"{os.cpu_count()} x {cpu}, {memory:.0f} GiB", f"Python {platform.python_version()}", ", ".join(versions)]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _row(measure: dict[str, Any]) -> str:
    compared = measure.get("ratio", measure.get("difference"))
    interval = measure.get("interval")
    cells = [
        f"`{measure['name']}`",
        _number(measure.get("ours")),
        _number(measure.get("peer")),
        measure.get("peer_name") or "",
        _number(compared),
        f"{_number(interval[0])} to {_number(interval[1])}" if interval else "",
        measure.get("unit") or "",
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Run benchmarks, write docs/benchmarks.md."
    )
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(names())}; default all")
    parser.add_argument("--quick", action="store_true", help="the smallest useful size of each")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="where the page goes")
    options = parser.parse_args()
    unknown = set(options.names) - set(names())
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    results = []
    for name in options.names or names():
        print(f"== {name}", file=sys.stderr, flush=True)
        results.append(run(name, options.quick))
        options.out.write_text(render(results, options.quick))
    failed = [result["benchmark"] for result in results if "failed" in result]
    print(f"{options.out}: {len(results)} benchmarks" + (f", failed: {', '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
