"""A new process that opens a vector store and gives its first answer, for `benchmarks.content`.

python -m benchmarks._content_process FOLDER WIDTH K EXPECTED...
"""

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split
import json
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from actors.content.vectors.store import Store


def main() -> None:
    folder, width, k, *expected = sys.argv[1:]
    start = time.perf_counter()
    with Store(Path(folder), int(width)) as store:
        answers = store.search(np.load(Path(folder).with_suffix(".npy")), int(k), "c1", "p1")
        took = time.perf_counter() - start
    if answers[0].item_ids != expected:
        raise SystemExit(f"another answer than before the restart: {answers[0].item_ids}, {expected}")
    print(json.dumps({"open_s": took, "memory": psutil.Process().memory_info().rss}))


if __name__ == "__main__":
    main()
