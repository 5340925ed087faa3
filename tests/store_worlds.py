"""Entries, brute force and a process to kill, for the tests of the vector store.

    python -m tests.store_worlds FOLDER SEED

starts, for each line on stdin, a process that commits random changes for ever and checkpoints now and then. stdout has
its id, the last commit that it found, each one that was acknowledged, and "ended" once it was killed: a line each, by
one call of the kernel, so that a kill leaves no half line (print makes two calls where Python is unbuffered).
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from actors.content.vectors.entry import Change, Delete, Entry, Feedback, Move, Put, Vectors
from actors.content.vectors.memory import Memory
from actors.content.vectors.store import Store

WIDTH = 8


def vectors(count: int, seed: int, width: int = WIDTH) -> Vectors:
    found_NE = np.random.default_rng(seed).normal(size=(count, width))
    return (found_NE / np.linalg.norm(found_NE, axis=1, keepdims=True)).astype(np.float32)


def clustered(count: int, seed: int, groups: int = 100, width: int = 16) -> Vectors:
    """Around centres, as products of one kind are."""
    rng = np.random.default_rng(seed)
    centre_GE = np.random.default_rng(99).normal(size=(groups, width))
    found_NE = centre_GE[rng.integers(0, groups, count)] + 0.4 * rng.normal(size=(count, width))
    return (found_NE / np.linalg.norm(found_NE, axis=1, keepdims=True)).astype(np.float32)


def entries(
    vectors_NE: Vectors, providers: int = 5, clusters: int = 2, models: dict[str, float] | None = None
) -> list[Entry]:
    """Item n is of provider n mod `providers`, which is of the cluster of its own number mod `clusters`."""
    return [
        Entry(f"i{n}", f"p{n % providers}", f"c{n % providers % clusters}", vector_E, models or {})
        for n, vector_E in enumerate(vectors_NE)
    ]


def nearest(query_E: Vectors, among: Iterable[Entry], k: int) -> tuple[list[str], list[float]]:
    """By brute force in Python's own arithmetic."""
    q = query_E.tolist()
    scored = [(sum(a * b for a, b in zip(q, e.embedding_E.tolist(), strict=True)), e.item_id) for e in among]
    scored.sort(key=lambda pair: -pair[0])
    return [item_id for _, item_id in scored[:k]], [score for score, _ in scored[:k]]


def commit(seed: int, number: int) -> list[Change]:
    """The changes of a commit: several, so that half a commit would be seen. Item `last` says its number."""
    rng = np.random.default_rng([seed, number])
    found: list[Change] = []
    for vector_E in vectors(int(rng.integers(1, 6)), int(rng.integers(2**31))):
        item, provider = rng.integers(0, 40), rng.integers(0, 4)
        entry = Entry(f"i{item}", f"p{provider}", f"c{provider % 2}", vector_E, {"a": 0.25, "b": 0.75})
        drawn = rng.random()
        if drawn < 0.5:
            found.append(Put(entry))
        elif drawn < 0.75:
            found.append(Feedback(entry, "click", float(rng.integers(0, 2))))
        elif drawn < 0.95:
            found.append(Delete(f"i{item}"))
        else:
            found.append(Move(f"p{provider}", f"c{provider % 2}", f"c{1 - provider % 2}"))
    last = Entry("last", "p0", "c0", vectors(1, 0)[0], {f"number/{number}": 1.0})
    return [*found, Put(last)]


def number_of(store: Store) -> int:
    """The last commit that the store has; −1 where it has none."""
    found = store.get(["last"])
    return int(next(iter(found["last"].models)).removeprefix("number/")) if found else -1


def state(store: Store | Memory) -> dict[str, Entry]:
    return store.get([*(f"i{n}" for n in range(40)), "last"])


def say(line: object) -> None:
    os.write(1, f"{line}\n".encode())


def work(folder: Path, seed: int) -> None:
    with Store(folder, WIDTH) as store:
        number = number_of(store)
        say(f"{os.getpid()}\n{number}")
        while True:
            number += 1
            store.commit(commit(seed, number))
            say(number)
            if number % 20 == 19:
                store.checkpoint()


def main() -> None:
    """For each line on stdin a process by fork, which need not import anything."""
    pa.array(np.zeros(1))  # the first imports pandas
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            work(Path(sys.argv[1]), int(sys.argv[2]))
        os.waitpid(pid, 0)
        say("ended")


if __name__ == "__main__":
    main()
