"""Nothing of the future or of held-out users reaches the generator; leaks planted here are found by the same check."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.features.feature_map import FeatureMap
from actors.features.features import Ints
from actors.generator.serialise import Serialiser
from actors.generator.tasks import contexts, user_keys
from actors.generator.train import train
from cluster.config import Settings
from cluster.records import Dataset, Value, decode, encode
from tests.compose_cases import changed, quick, two_kinds
from tests.leaks import altered, differing, leaks, reading, situations, told
from tests.test_importers_transactions import shop, transactions
from tune.groundwork import Groundwork
from tune.split import Parts, parts

DATA = two_kinds(users=120)
SPLIT = parts(DATA, 0)
HIDDEN = np.concatenate([SPLIT.select, SPLIT.confirm, SPLIT.world])
STEPS: dict[str, Any] = {"hidden": 16, "layers": 1, "tokens": 32, "codes": 2, "rank": 2}


def small(**generator: Any) -> Settings:
    return quick(Path("/nowhere"), generator=STEPS | {"backbone_steps": 3, "head_steps": 70} | generator)


def later(split: Parts) -> Ints:
    """Of the fit users' rows all but the first of each: what follows the context that a task is told by."""
    keys, seen = user_keys(DATA.events), set()
    found = []
    for row in split.fit:
        if keys[row] in seen:
            found.append(row)
        seen.add(keys[row])
    return np.asarray(found, np.int64)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_row_outside_fit_and_stop_changes_what_is_read(seed: int) -> None:
    assert leaks(lambda data: reading(data, small()), DATA, altered(DATA, HIDDEN, seed)) == set()


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_row_of_the_users_who_stop_a_training_changes_what_it_learns_from(seed: int) -> None:
    found = leaks(lambda data: reading(data, small()), DATA, altered(DATA, SPLIT.stop, seed))
    assert found
    assert all(name.startswith("stop ") for name in found), found


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_a_user_does_changes_no_text_and_no_feature_of_the_context_before_it(seed: int) -> None:
    work = Groundwork.of(DATA, small())
    serialiser = read_on(work, SPLIT.fit)
    other = altered(DATA, SPLIT.fit, seed, contexts=later(SPLIT))
    assert leaks(lambda data: situations(told(data, SPLIT.fit, work, serialiser)), DATA, other) == set()


@pytest.mark.parametrize("reader", ["numeric", "language"])
def test_a_generator_is_trained_to_the_same_bits_whatever_others_do(reader: str) -> None:
    def weights(dataset: Dataset) -> dict[str, Any]:
        own = small(reader=reader)
        work = Groundwork.of(dataset, own)
        generator = train(dataset, work.feature_map, work.split.fit, work.split.stop, own, progress=False)
        return {name: value.numpy() for name, value in generator.head.state_dict().items()}

    assert leaks(weights, DATA, altered(DATA, HIDDEN, seed=3)) == set()
    others = weights(altered(DATA, SPLIT.fit, seed=3))
    assert {"mean_scale", "shift_ADR"} <= differing(weights(DATA), others), "and it does learn from its own users"


def test_the_import_of_purchases_tells_nothing_of_later_ones(tmp_path: Path) -> None:
    """From the file to the texts: the lines of the last tenth buy other items, which earlier events know nothing of."""
    lines = shop()
    cut = sorted(lines["InvoiceDate"].to_pylist())[len(lines) * 9 // 10]
    late = np.flatnonzero(np.array([when >= cut for when in lines["InvoiceDate"].to_pylist()]))

    def before(table: pa.Table) -> dict[str, Any]:
        dataset = transactions(tmp_path, table).dataset
        rows = np.flatnonzero(np.array([when < cut for when in moments(dataset)]))
        events = dataset.events.take(pa.array(rows))
        own = small()
        work = Groundwork.of(dataset, own)
        mine = np.intersect1d(rows, work.split.fit)
        tasks = told(dataset, mine, work, read_on(work, mine))
        return {"context": events["context"].to_pylist(), "keys": tasks.keys, **situations(tasks)}

    mixed = np.arange(len(lines))
    mixed[late] = np.random.default_rng(0).permutation(late)
    other = lines
    for name in ("StockCode", "Description", "Price", "aisle"):
        other = other.set_column(lines.schema.get_field_index(name), name, lines[name].take(pa.array(mixed)))
    assert differing(before(lines), before(other)) == set()
    assert differing(before(lines), before(lines.slice(0, len(lines) // 2))), "and it would say so"


# Leaks planted by hand: each is found, so the checks above can fail.


def test_a_serialiser_that_tells_the_reward_of_the_event_itself_is_found() -> None:
    class Telling(Serialiser):
        """Knows how each hour of the log ended."""

        def text(self, context: Any, attributes: Any = None) -> str:
            return super().text({**context, "won": outcome[str(context)]}, attributes)

    outcome: dict[str, Value] = {}
    work = Groundwork.of(DATA, small())
    plain = read_on(work, SPLIT.fit)
    telling = Telling(plain.columns, plain.edges, plain.titles)

    def read(dataset: Dataset) -> dict[str, Any]:
        events = dataset.events.take(pa.array(SPLIT.fit))
        for pairs, reward in zip(events["context"].to_pylist(), events["reward"].to_pylist(), strict=True):
            outcome[str(decode(pairs))] = reward
        return situations(told(dataset, SPLIT.fit, work, telling))

    assert leaks(read, DATA, altered(DATA, SPLIT.fit, seed=1, contexts=later(SPLIT))) == {"texts"}


def test_a_column_that_tells_the_future_is_found() -> None:
    def told_ahead(dataset: Dataset) -> Dataset:
        keys, total = user_keys(dataset.events), dict[str, float]()
        for key, reward in zip(keys, dataset.events["reward"].to_pylist(), strict=True):
            total[key] = total.get(key, 0.0) + reward
        contexts = [decode(pairs) for pairs in dataset.events["context"].to_pylist()]
        return changed(dataset, context=[encode(c | {"total": total[k]}) for c, k in zip(contexts, keys, strict=True)])

    found = leaks(lambda data: reading(told_ahead(data), small()), DATA, altered(DATA, SPLIT.world, seed=1))
    assert {"features", "fit texts", "fit context_UX"} <= found


def test_statistics_of_users_who_are_held_out_are_found() -> None:
    everyone = np.arange(len(DATA.events))

    def read(dataset: Dataset) -> dict[str, Any]:
        work = Groundwork.of(dataset, small())
        greedy = replace(work, feature_map=FeatureMap.fit(dataset, everyone, work.settings.features, 0))
        tasks = told(dataset, SPLIT.fit, greedy, read_on(greedy, everyone))
        return {"features": greedy.feature_map.fingerprint, **situations(tasks)}

    assert leaks(read, DATA, altered(DATA, HIDDEN, seed=1)) == {"features", "texts", "context_UX"}


def read_on(work: Groundwork, rows: Ints) -> Serialiser:
    events = work.dataset.events.take(pa.array(rows))
    return Serialiser.fit(contexts(work.dataset, rows), user_keys(events), work.dataset.items)


def moments(dataset: Dataset) -> list[Any]:
    found: list[Any] = dataset.events["timestamp"].to_pylist()
    return found
