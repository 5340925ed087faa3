"""Estimates block by block against the whole log in memory, and the memory that reading takes."""

import re
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from actors.features.feature_map import FeatureMap
from actors.features.features import FeatureBatch, Floats
from cluster.config import FeatureSettings, RewardKind
from cluster.errors import EvidenceError, SourceError
from cluster.records import EVENTS, Dataset
from tests.compose_cases import changed
from tests.features_samples import labelled, shop
from tune.estimators import METHODS
from tune.log import Log, read
from tune.offpolicy.cross_fit import cross_fit, folds_of
from tune.offpolicy.estimate import estimate
from tune.offpolicy.streaming import Roster, Stream, blocks
from tune.offpolicy.totals import Totals
from tune.split import task_codes


def uniform(_events: pa.Table, log: Log, _batch: FeatureBatch) -> Floats:
    return np.asarray(log.mask_NK / log.mask_NK.sum(1, keepdims=True))


def leaning(_events: pa.Table, log: Log, batch: FeatureBatch) -> Floats:
    """By item, whatever block it comes in."""
    weight_NK = np.where(log.mask_NK, 1.0 + batch.item_BK % 3, 0.0)
    return np.asarray(weight_NK / weight_NK.sum(1, keepdims=True))


def saved(dataset: Dataset, folder: Path) -> tuple[Dataset, list[Path]]:
    """With the true propensities of a uniform draw, in two files of small row groups."""
    shares = [1 / len(listed or range(len(dataset.items))) for listed in dataset.events["candidates"].to_pylist()]
    dataset = changed(dataset, propensity=shares)
    paths = [folder / "one.parquet", folder / "two.parquet"]
    half = len(dataset.events) // 2
    for path, part in zip(paths, (dataset.events.slice(0, half), dataset.events.slice(half)), strict=True):
        pq.write_table(part, path, row_group_size=90)
    return dataset, paths


@pytest.mark.parametrize("sample", [shop, labelled])
def test_a_stream_gives_the_estimates_of_memory(sample, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    dataset, paths = saved(sample(), tmp_path)
    kind, rows = RewardKind(), np.arange(len(dataset.events))
    found = FeatureMap.fit(dataset, rows, FeatureSettings(), 0)
    log, batch = read(dataset.events, found.item_ids, kind), found.batch(dataset.events)
    q_NK = cross_fit(log, batch, found.arms, fold_N=folds_of(dataset.events, seed=4)).q_NK
    stream = Stream(paths, found, kind, budget_bytes=2**16)
    assert len(list(stream.parts())) > 5
    streamed = stream.totals([uniform, leaning], METHODS, seed=4)
    for policy, totals in zip((uniform, leaning), streamed, strict=True):
        whole = Totals(METHODS)
        whole.add(log.user_N, log, policy(dataset.events, log, batch), q_NK)
        for method in METHODS:
            for interval in ("bootstrap", "sequence"):
                one, two = (estimate(each, method, interval=interval, resamples=200) for each in (totals, whole))
                assert (one.method, one.parameter, one.note) == (two.method, two.parameter, two.note)
                for name in ("value", "low", "high", "bias", "effective_events", "unsupported_share", "tail"):
                    assert getattr(one, name) == pytest.approx(getattr(two, name), abs=1e-9)


@given(st.lists(st.integers(0, 59), max_size=4), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_where_blocks_end_changes_nothing(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = 60, 3
    p_NK, policy_NK = rng.dirichlet(np.ones(k), n) * 0.9 + 0.1 / k, rng.dirichlet(np.ones(k), n)
    action_N, user_N = rng.integers(0, k, n), rng.integers(0, 7, n)
    log = Log(action_N, rng.random(n), p_NK[np.arange(n), action_N], user_N, np.ones((n, k), bool))
    q_NK = rng.random((n, k))
    whole, pieces = Totals(METHODS), Totals(METHODS)
    whole.add(user_N, log, policy_NK, q_NK)
    for rows in np.split(np.arange(n), sorted(cuts)):
        pieces.add(user_N[rows], log.take(rows), policy_NK[rows], q_NK[rows])
    for method in METHODS:
        for parameter in whole.parameters(method) or (None,):
            one, two = whole.sums(method, parameter), pieces.sums(method, parameter)
            for name in ("above_U", "below_U", "count_U", "weight_U", "ratio_U", "square", "largest"):
                np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12, atol=1e-12)


def test_a_user_is_one_user_in_every_block() -> None:
    events = shop(200).events
    roster = Roster()
    found = np.concatenate([roster.codes(events.slice(start, 37)) for start in range(0, 200, 37)])
    np.testing.assert_array_equal(found, task_codes(events))


def test_reading_keeps_to_its_budget(tmp_path: Path) -> None:
    """18 MB of events in one row group, read with 1 MB: no block is larger, and Arrow never holds half of them."""
    n = 40_000
    rng = np.random.default_rng(0)
    text = [bytes(row).hex() for row in rng.integers(0, 256, (n, 200), dtype=np.uint8)]
    columns = {"event_id": text, "timestamp": np.arange(n), "client_id": ["c"] * n, "item_id": ["i"] * n}
    table = pa.table(
        [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in EVENTS], schema=EVENTS
    )
    path = tmp_path / "events.parquet"
    pq.write_table(table, path, row_group_size=n)
    size = table.nbytes
    assert size > 16 * 2**20
    del table, columns
    pool, rows, peak = pa.default_memory_pool(), 0, 0
    before = pool.bytes_allocated()
    for block in blocks([path], 2**20, row_bytes=500):
        assert block.nbytes <= 2**20
        rows, peak = rows + len(block), max(peak, pool.bytes_allocated() - before)
    assert rows == n
    assert peak < size / 2


def test_bad_files_and_lone_users_are_named(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match=r"events\.parquet: cannot be read as Parquet"):
        list(blocks([path]))
    dataset = changed(shop(50), user_id=["ann"] * 50)
    pq.write_table(dataset.events, path)
    found = FeatureMap.fit(dataset, np.arange(50), FeatureSettings(), 0)
    with pytest.raises(EvidenceError, match="at least 2 users"):
        Stream([path], found, RewardKind()).reward_model()


def test_an_error_says_in_which_block_its_event_is(tmp_path: Path) -> None:
    dataset, paths = saved(shop(300), tmp_path)
    found = FeatureMap.fit(dataset, np.arange(300), FeatureSettings(), 0)

    def broken(events: pa.Table, log: Log, batch: FeatureBatch) -> Floats:
        policy_NK = uniform(events, log, batch)
        policy_NK[np.array(events["event_id"].to_pylist()) == "e257"] = np.nan
        return policy_NK

    with pytest.raises(
        EvidenceError, match=r"begins with event (\d+) of the log: event (\d+): policy has NaN"
    ) as raised:
        Stream(paths, found, RewardKind(), 2**16).totals([broken], ["ips"])
    block, event = (int(word) for word in re.findall(r"event (\d+)", str(raised.value)))
    assert block > 0
    assert block + event == 257
