"""The feature map on real tables and purchases: better than plain one-hot columns, better than popularity."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from actors.features.actions import actions
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from cluster.config import DataSettings, FeatureSettings
from cluster.importers.imported import Options
from cluster.importers.table import read_table
from cluster.importers.transactions import read_transactions
from cluster.records import Dataset, decode


def ridge(phi_ND: Floats, reward_N: Floats, strength: float) -> Floats:
    return np.linalg.solve(phi_ND.T @ phi_ND + strength * np.eye(phi_ND.shape[1]), phi_ND.T @ reward_N)


def accuracy(context_NX: Floats, arm_N: Ints, reward_N: Floats, label_N: Ints, test_N: Ints, fit_N: Ints) -> float:
    """One ridge regression an arm on the logged rewards of the fit rows; the share of labels that their best hits."""
    phi_ND = np.column_stack([np.ones(len(context_NX)), context_NX])
    weights = [ridge(phi_ND[r], reward_N[r], 1.0) for r in (fit_N[arm_N[fit_N] == a] for a in range(label_N.max() + 1))]
    return float(((phi_ND[test_N] @ np.stack(weights).T).argmax(axis=1) == label_N[test_N]).mean())


def plain_columns(events: pa.Table) -> Floats:
    """Every number standardised, every text one-hot."""
    rows = [decode(pairs) for pairs in events["context"].to_pylist()]
    columns = []
    for name in sorted({name for row in rows for name in row}):
        values = [row.get(name) for row in rows]
        if all(value is None or isinstance(value, int | float) for value in values):
            column = np.array([np.nan if value is None else value for value in values], float)
            columns.append(np.nan_to_num((column - np.nanmean(column)) / (np.nanstd(column) or 1.0)))
        else:
            columns += [
                np.array([value == level for value in values], float) for level in sorted(set(map(str, values)))
            ]
    return np.column_stack(columns)


@pytest.mark.parametrize(
    ("name", "exclude", "gain", "least"),
    [("adult", ("split",), 0.004, 0.845), ("shuttle", ("label_name",), 0.1, 0.99), ("pendigits", (), 0.08, 0.95)],
)
def test_arms_on_a_table_beat_plain_columns(
    data_folder: Path, name: str, exclude: tuple[str, ...], gain: float, least: float
) -> None:
    """On a uniform log, fitted on 40 % of the rows and scored on 20 % held out. Measured: adult 0.852 against 0.841,
    shuttle 0.997 against 0.869, pendigits 0.968 against 0.865."""
    path = data_folder / "classification" / f"{name}.parquet"
    data = read_table([path], Options(exclude=exclude), DataSettings(), 0).dataset
    assert data.truth is not None
    order = np.random.default_rng(1).permutation(len(data.events))
    test_N, fit_N = np.split(order, [len(order) // 5])
    fit_N = np.sort(fit_N[: len(fit_N) // 2])
    made = FeatureMap.fit(data, fit_N, FeatureSettings(), 0)
    assert made.joint is None
    place = {item: i for i, item in enumerate(made.item_ids)}
    truth = dict(zip(data.truth["event_id"].to_pylist(), data.truth["item_id"].to_pylist(), strict=True))
    label_N = np.array([place[truth[event]] for event in data.events["event_id"].to_pylist()])
    arm_N = np.array([place[item] for item in data.events["item_id"].to_pylist()])
    rest = (arm_N, data.events["reward"].to_numpy(), label_N, test_N, fit_N)
    ours = accuracy(made.batch(data.events).context_BX, *rest)
    assert ours >= least
    assert ours >= accuracy(plain_columns(data.events), *rest) + gain


def within_event(score_BK: Floats, bought_BK: np.ndarray) -> float:
    """Mean over events of the share of the other candidates that score below the bought one (ties half)."""
    own_B1 = score_BK[bought_BK][:, None]
    below_BK = (score_BK < own_B1) + 0.5 * (score_BK == own_B1)
    return float(((below_BK.sum(axis=1) - 0.5) / (score_BK.shape[1] - 1)).mean())


def test_purchases_rank_above_popularity(data_folder: Path) -> None:
    """online_retail, the last fifth by time held out. Measured: 0.763 against 0.749 for popularity."""
    path = data_folder / "online_retail" / "transactions.parquet"
    data = read_transactions([path], Options(client="Country"), DataSettings(), 0).dataset
    assert data.truth is not None
    start = len(data.events) * 4 // 5
    made = FeatureMap.fit(data, np.arange(start), FeatureSettings(), 0)
    assert made.kind == "joint"
    logged = actions(made, data.events.slice(0, start))
    weights = ridge(logged.phi_ND, data.events["reward"].to_numpy()[:start], 30.0)
    late = Dataset(data.format, data.events.slice(start), data.items, data.users)
    batch = made.batch(late.events)
    assert batch.mask_BK.all()
    truth = dict(zip(data.truth["event_id"].to_pylist(), data.truth["item_id"].to_pylist(), strict=True))
    place = {item: i for i, item in enumerate(made.item_ids)}
    bought_BK = batch.item_BK == np.array([place[truth[e]] for e in late.events["event_id"].to_pylist()])[:, None]
    assert (bought_BK.sum(axis=1) == 1).all()
    popularity = within_event(batch.phi_BKD[..., made.names.index("popularity")], bought_BK)
    assert within_event(batch.phi_BKD @ weights, bought_BK) >= popularity + 0.01
