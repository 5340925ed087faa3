"""The floor of a game: errors of the best one-pass learner that sees the right arm of every row.

    python -m benchmarks._floors --data FOLDER      writes benchmarks/_floors.json

A ridge regression of every arm's reward, on linear, quadratic or random Fourier features (in the limit of infinitely
many) scaled in hindsight, predicts each row from all rows before it. Strength of the ridge, bandwidth and features are
chosen per table in hindsight too. All N predictions come from one factorisation: with ΦΦᵀ + λI = LLᵀ the prediction of
row t from the rows before it errs by L_tt·(L⁻¹Y)_t, since L⁻¹Y are the innovations of the Gaussian process of which Y
is a sample (Rasmussen & Williams 2006, §2.2).

Shapes: N rows, F columns, K arms.
"""

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from actors.features.columns import context_table, number_of
from actors.features.features import Floats, Ints
from benchmarks._games import TABLES, Game, game, read
from benchmarks._pairs import CONSOLE
from cluster.progress import bar

ROWS, SEEDS = 6_000, 5
FILE = Path(__file__).with_name("_floors.json")
RIDGES = (0.03, 0.3, 3.0)
QUADRATIC_RIDGES = (0.1, 1.0, 10.0)
BANDS = (0.15, 0.25, 0.4, 0.6, 1.0)
FINALISTS = 2
"""Kernels of a table that play all rows of the first seed; the others go by half of them."""

Kernel = tuple[str, float, float]
"""Features, bandwidth in median distances, ridge."""


def kernels() -> Iterator[Kernel]:
    yield from (("linear", 0.0, ridge) for ridge in (1.0, 10.0, 100.0))
    yield from (("quadratic", 0.0, ridge) for ridge in QUADRATIC_RIDGES)
    yield from (("fourier", band, ridge) for band, ridge in itertools.product(BANDS, RIDGES))


def columns(table: Game) -> Floats:
    """Numbers with mean 0 and variance 1, of heavy tails through a signed logarithm; levels one-hot; x_NF."""
    found = []
    for index_N, values in context_table(table.dataset.events["context"]).values():
        if any(isinstance(value, str) for value in values):
            codes_N = np.unique(np.array([*map(str, values), ""])[index_N], return_inverse=True)[1]
            found.append((codes_N[:, None] == np.arange(codes_N.max() + 1)).astype(np.float64))
        else:
            number_N = np.nan_to_num(np.array([*map(number_of, values), np.nan])[index_N])
            center, scale = np.median(number_N), np.std(number_N) or 1.0
            z_N = (number_N - center) / scale
            if np.abs(z_N).max() > 8:
                away = np.subtract(*np.quantile(number_N, [0.75, 0.25])) or scale
                z_N = np.arcsinh((number_N - center) / away)
            found.append(((z_N - z_N.mean()) / (z_N.std() or 1.0))[:, None])
    return np.concatenate(found, axis=1)


def gram(x_NF: Floats, kernel: Kernel) -> Floats:
    """Inner products of all rows' features, (N, N); of infinitely many Fourier features that is the Gaussian kernel."""
    features, band, _ = kernel
    product_NN = x_NF @ x_NF.T
    if features == "linear":
        return np.asarray(product_NN + 1.0)
    if features == "quadratic":
        return np.asarray((1.0 + product_NN / np.mean(np.diag(product_NN))) ** 2 * x_NF.shape[1])
    square_N = np.diag(product_NN)
    distance_NN = np.maximum(square_N[:, None] + square_N - 2 * product_NN, 0.0)
    near_NN = np.exp(distance_NN / (-2 * band**2 * float(np.median(distance_NN[: len(distance_NN) // 10]))))
    return np.asarray(10.0 * near_NN + 1.0 + product_NN / 10.0)


def errors(gram_NN: Floats, right_N: Ints, arms: int, ridge: float) -> int:
    """Rows whose right arm does not have the greatest prediction from the rows before."""
    target_NK = (right_N[:, None] == np.arange(arms)) - 1.0 / arms
    root_NN = cholesky(gram_NN + ridge * np.eye(len(gram_NN)), lower=True, check_finite=False)
    innovation_NK = solve_triangular(root_NN, target_NK, lower=True, check_finite=False)
    predicted_NK = target_NK - np.diag(root_NN)[:, None] * innovation_NK
    return int((predicted_NK.argmax(1) != right_N).sum())


def share(table: Game, x_NF: Floats, kernel: Kernel) -> float:
    """Errors with a kernel, in percent of those of uniform choices."""
    return table.share(errors(gram(x_NF, kernel), table.right_N, len(table.arms), kernel[2]))


def floor(name: str, folder: Path) -> dict[str, object]:
    """The floor of a table and how it came about; the kernel is chosen on the first seed."""
    dataset = read(name, folder)
    played = [game(name, dataset, ROWS, seed) for seed in range(SEEDS)]
    inputs = [columns(each) for each in played]
    half = played[0].first(ROWS // 2)
    finalists = sorted(kernels(), key=lambda kernel: share(half, inputs[0][: len(half)], kernel))[:FINALISTS]
    first = {kernel: share(played[0], inputs[0], kernel) for kernel in finalists}
    best = min(first, key=lambda kernel: first[kernel])
    by_seed = [first[best], *(share(*each, best) for each in zip(played[1:], inputs[1:], strict=True))]
    return {"floor": round(float(np.mean(by_seed)), 2), "kernel": best, "by_seed": np.round(by_seed, 2).tolist()}


def frozen(table: Game, seed: int) -> float:
    """The floor of a game as it was written; where that is of other rows or seeds, by the table's frozen kernel."""
    kept = json.loads(FILE.read_text())
    known = kept["tables"][table.name]
    if len(table) == kept["rows"] and seed < len(known["by_seed"]):
        return float(known["by_seed"][seed])
    features, band, ridge = known["kernel"]
    return share(table, columns(table), (features, band, ridge))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._floors", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDLEY_DATA"), help="folder of the tables")
    folder = parser.parse_args().data
    with bar(CONSOLE, "floors") as tell:
        found = {}
        for done, name in enumerate(TABLES):
            found[name] = floor(name, folder)
            tell(done + 1, len(TABLES))
    FILE.write_text(json.dumps({"rows": ROWS, "seeds": SEEDS, "tables": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
