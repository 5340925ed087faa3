"""Purchases as decisions: what may be seen of them, what must not."""

import json
import os
import re
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import DataSettings
from cluster.errors import SchemaError, SourceError
from cluster.importers.baskets import candidate_sets, distinct_draws, earlier_items, on_sale
from cluster.importers.imported import Imported, Options
from cluster.importers.lineitems import commonest, medians, of_items
from cluster.importers.transactions import WORLD, read_transactions
from cluster.records import EVENTS
from tune import split

FIRST = datetime(2011, 3, 1, 9, 0, tzinfo=UTC)
lines_of = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 5), st.integers(0, 14)), min_size=1, max_size=60)


@given(lines_of)
def test_recent_against_a_loop(drawn: list[tuple[int, int, int]]) -> None:
    # invoice i belongs to customer i mod 4 - 1 and begins at hour i // 2, so some begin together
    invoices = [abs(customer * 7 + moment) for customer, moment, _ in drawn]
    customer_N = np.array([i % 4 - 1 for i in invoices])
    time_N = np.array([i // 2 for i in invoices])
    order = np.argsort(time_N, kind="stable")
    customer_N, time_N = customer_N[order], time_N[order]
    invoice_N, item_N = np.array(invoices)[order], np.array([item for _, _, item in drawn])[order]
    found = earlier_items(customer_N, invoice_N, item_N, time_N)
    for invoice in set(invoices):
        customer, begin = invoice % 4 - 1, invoice // 2
        if customer < 0:
            assert invoice not in found
            continue
        earlier = [
            (t, i, n)
            for n, (c, i, t) in enumerate(zip(customer_N, invoice_N, time_N, strict=True))
            if c == customer and t < begin
        ]
        items = [int(item_N[n]) for _, _, n in sorted(earlier)]
        distinct = list(dict.fromkeys(reversed(items)))
        assert found[invoice] == distinct[:10][::-1]


def test_on_sale_is_four_weeks_back_to_the_day_itself() -> None:
    day_N, item_N = np.array([0, 0, 5, 28, 40]), np.array([7, 8, 9, 7, 3])
    shelf = on_sale(day_N, item_N)
    assert [shelf(day).tolist() for day in (0, 27, 28, 32, 33, 40)] == [[7, 8], [7, 8, 9], [7, 9], [7, 9], [7], [3, 7]]


@pytest.mark.parametrize(("pool", "size"), [(5, 3), (30, 3), (3, 3), (4, 0)])
def test_draws_are_distinct_and_uniform(pool: int, size: int) -> None:
    drawn = distinct_draws(pool, 20_000, size, np.random.default_rng(0))
    assert drawn.shape == (20_000, size)
    assert all(len(set(row)) == size for row in drawn.tolist())
    for column in drawn.T:
        counts = np.bincount(column, minlength=pool)
        expected = 20_000 / pool
        chi2 = ((counts - expected) ** 2 / expected).sum()
        assert chi2 < pool - 1 + 5 * np.sqrt(2 * (pool - 1)) + 3  # past 5 standard deviations; seed fixed


def test_candidates_hold_the_bought_item_anywhere_and_none_of_the_same_invoice() -> None:
    rng = np.random.default_rng(1)
    n = 4_000
    day_N = np.sort(rng.integers(0, 60, n))
    invoice_N = day_N * 20 + rng.integers(0, 20, n)
    item_N = rng.integers(0, 50, n)
    lines = np.arange(1_000, n)
    sets = candidate_sets(lines, day_N, invoice_N, item_N, 10, rng)
    baskets, places = defaultdict(set), Counter()
    for invoice, item in zip(invoice_N.tolist(), item_N.tolist(), strict=True):
        baskets[invoice].add(item)
    shelf = on_sale(day_N, item_N)
    for line, found in zip(lines, sets, strict=True):
        assert len(set(found)) == len(found) == 10
        own = baskets[int(invoice_N[line])]
        assert set(found) & own == {item_N[line]}
        assert set(found) <= set(shelf(int(day_N[line])))
        places[found.tolist().index(item_N[line])] += 1
    assert all(abs(places[i] - 300) < 5 * np.sqrt(300 * 0.9) for i in range(10))


def test_few_items_on_sale_make_fewer_candidates() -> None:
    zeros = np.zeros(3, np.int64)
    sets = candidate_sets(np.arange(3), zeros, np.array([0, 0, 1]), np.array([4, 5, 6]), 10, np.random.default_rng(0))
    assert [set(found) for found in sets] == [{4, 6}, {5, 6}, {4, 5, 6}]


def test_commonest_and_median() -> None:
    groups, codes = np.array([0, 0, 0, 1, 1, 2]), np.array([2, 1, 2, 1, 0, -1])
    assert commonest(groups, codes, 4).tolist() == [2, 0, -1, -1]
    values = np.array([3.0, 1.0, 2.0, 5.0, np.nan, np.nan])
    assert medians(groups, values, 4).tolist()[:2] == [2.0, 5.0]
    assert np.isnan(medians(groups, values, 4)[2:]).all()


def test_whose_column_it_is() -> None:
    invoice_N, item_N = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1])
    assert of_items(np.array([3, 3, 4, 4, 4]), invoice_N, item_N)
    assert not of_items(np.array([3, 4, 3, 4, 4]), invoice_N, item_N)


def shop(days: int = 40, seed: int = 0) -> pa.Table:
    """Invoices of five customers and some without; item-7 costs 7; the aisle is the item's, the shop the invoice's."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for invoice in range(days * 4):
        customer = int(rng.integers(6))
        for item in rng.choice(30, size=rng.integers(1, 5), replace=False).tolist():
            rows.append(
                {
                    "Invoice": f"I{invoice}",
                    "StockCode": f"item-{item}",
                    "Description": f"thing {item}" if rng.random() < 0.9 else None,
                    "Quantity": 1,
                    "InvoiceDate": FIRST + timedelta(hours=6 * invoice),
                    "Price": float(item) + 0.5,
                    "Customer ID": None if customer == 5 else 100.0 + customer,
                    "aisle": f"aisle {item % 3}",
                    "shop": f"shop {invoice % 2}",
                    "till_line": int(rng.integers(9)),
                }
            )
    return pa.Table.from_pylist(rows)


def transactions(
    tmp_path: Path, table: pa.Table, options: Options | None = None, seed: int = 0, **data: Any
) -> Imported:
    pq.write_table(table, tmp_path / "lines.parquet")
    return read_transactions([tmp_path / "lines.parquet"], options or Options(), DataSettings(**data), seed)


def test_only_returns_or_only_one_item_is_told(tmp_path) -> None:
    lines = {"invoice": [1, 2], "date": ["2011-03-01"] * 2, "customer": ["u", "v"]}
    with pytest.raises(SourceError, match=r"lines.parquet: none of 2 rows can be used; 2 are cancelled"):
        transactions(tmp_path, pa.table({**lines, "sku": ["a", "b"], "qty": [-1, 0]}))
    with pytest.raises(SchemaError, match=r"every line buys 'a'; expected two items or more; .* --map item_id=COLUMN"):
        transactions(tmp_path, pa.table({**lines, "sku": ["a", "a"]}))


def contexts(imported: Imported) -> list[dict[str, Any]]:
    return [{k: json.loads(v) for k, v in row} for row in imported.dataset.events["context"].to_pylist()]


def test_every_purchase_line_is_one_event(tmp_path) -> None:
    table = shop()
    imported = transactions(tmp_path, table)
    data = imported.dataset
    assert data.truth is not None
    assert data.events.schema.equals(EVENTS)
    assert len(data.events) == len(table)
    assert data.truth["item_id"].to_pylist() == table["StockCode"].to_pylist()
    assert data.events["session_id"].to_pylist() == table["Invoice"].to_pylist()
    assert data.events["user_id"].to_pylist() == [c and str(int(c)) for c in table["Customer ID"].to_pylist()]
    chosen, bought = data.events["item_id"].to_pylist(), data.truth["item_id"].to_pylist()
    assert data.events["reward"].to_pylist() == [float(a == b) for a, b in zip(chosen, bought, strict=True)]
    sizes = [len(c) for c in data.events["candidates"].to_pylist()]
    assert data.events["propensity"].to_pylist() == [1 / size for size in sizes]
    assert max(sizes) == 10
    assert all(a in c for a, c in zip(chosen, data.events["candidates"].to_pylist(), strict=True))
    rewards = np.array(data.events["reward"].to_pylist())
    expected = np.mean([1 / size for size in sizes])
    assert abs(rewards.mean() - expected) < 4 * np.sqrt(expected / len(rewards))


def test_the_context_tells_the_invoice_and_not_the_item(tmp_path) -> None:
    imported = transactions(tmp_path, shop())
    told = contexts(imported)
    assert set().union(*told) == {"recent", "hour", "weekday", "shop"}
    assert told[0] | {"hour": 9, "weekday": "Tuesday"} == told[0]
    assert dict(imported.dataset.items.to_pylist()[7]["attributes"])["aisle"] in ('"aisle 0"', '"aisle 1"', '"aisle 2"')
    assert imported.dataset.facts["columns_left_out"] == {
        "till_line": "changes within an invoice: it may tell which item was bought"
    }
    users = imported.dataset.events["user_id"].to_pylist()
    assert ["recent" in context for context in told] == [user is not None for user in users]


def test_items_have_their_commonest_text_and_median_price(tmp_path) -> None:
    items = {row["item_id"]: row for row in transactions(tmp_path, shop()).dataset.items.to_pylist()}
    assert (items["item-7"]["title"], items["item-7"]["price"]) == ("thing 7", 7.5)
    assert dict(items["item-7"]["attributes"]) == {"aisle": '"aisle 1"'}


def test_what_is_said_of_items_is_not_from_the_lines_that_are_held_out(tmp_path) -> None:
    assert WORLD == split.WORLD
    plain, changed = shop().to_pylist(), shop().to_pylist()
    held_out = round(0.8 * (len(changed) + 1))
    for row in changed[held_out:]:
        row |= {"Description": "sold out", "Price": 999.0}
    new = changed[-1] | {"StockCode": "item-new", "Invoice": "last", "Description": "new thing"}
    found = [transactions(tmp_path, pa.Table.from_pylist([*rows, new])).dataset for rows in (plain, changed)]
    assert found[0].items.equals(found[1].items)
    told = found[1].items.to_pylist()[[row["item_id"] for row in found[1].items.to_pylist()].index("item-new")]
    assert (told["title"], told["price"]) == ("new thing", 999.0)
    assert transactions(tmp_path, pa.Table.from_pylist([*plain, new]), max_events=50).dataset.items.num_rows == 31


def test_cancellations_and_corrections_are_counted_not_kept(tmp_path) -> None:
    rows = shop().to_pylist()
    rows[0]["Quantity"], rows[1]["Quantity"], rows[2]["Price"] = -1, 0, 0.0
    rows[3]["Price"] = float("nan")
    rows[4]["StockCode"] = None
    imported = transactions(tmp_path, pa.Table.from_pylist(rows))
    assert imported.dataset.facts["lines_left_out"] == {"cancelled": 2, "without a price": 1}
    assert imported.quarantine["reason"].to_pylist() == [
        "price: expected a finite number, found nan",
        "item_id: expected a value, found none",
    ]
    assert len(imported.dataset.events) == len(rows) - 5


def test_what_was_left_out_is_told_in_words(tmp_path) -> None:
    rows = shop().to_pylist()
    rows[0]["Quantity"] = -1
    remarks = transactions(tmp_path, pa.Table.from_pylist(rows), max_events=30).remarks()
    assert remarks[0] == "1 lines left out: cancelled"
    assert "column 'till_line' left out: changes within an invoice: it may tell which item was bought" in remarks
    assert any(re.fullmatch(r"\d+ older events left out \(max_events\)", remark) for remark in remarks)


def test_recent_is_of_the_whole_history_when_only_the_last_events_are_kept(tmp_path) -> None:
    whole = transactions(tmp_path, shop())
    last = transactions(tmp_path, shop(), max_events=30)
    assert contexts(last) == contexts(whole)[-30:]
    assert last.dataset.events["event_id"].to_pylist() == whole.dataset.events["event_id"].to_pylist()[-30:]
    assert last.dataset.facts["older_left_out"] == len(whole.dataset.events) - 30


def test_the_seed_decides_the_draws(tmp_path) -> None:
    first, same, other = (transactions(tmp_path, shop(), seed=seed).dataset.events for seed in (0, 0, 1))
    assert first.equals(same)
    assert not first["candidates"].equals(other["candidates"])


def test_the_full_catalogue(tmp_path) -> None:
    data = transactions(tmp_path, shop(), candidates="all").dataset
    assert data.events["candidates"].null_count == len(data.events)
    assert set(data.events["propensity"].to_pylist()) == {1 / 30}
    assert data.facts["candidates"] == "all"


def test_the_client_column_is_no_longer_context(tmp_path) -> None:
    imported = transactions(tmp_path, shop(), Options(client="shop"))
    assert set(imported.dataset.events["client_id"].to_pylist()) == {"shop 0", "shop 1"}
    assert "shop" not in set().union(*contexts(imported))


def test_lines_out_of_order_are_sorted(tmp_path) -> None:
    table = shop()
    backwards = table.take(pa.array(np.arange(len(table))[::-1]))
    data = transactions(tmp_path, backwards).dataset
    assert data.events["timestamp"].to_pylist() == sorted(table["InvoiceDate"].to_pylist())
    assert data.facts["out_of_order"] > 0


def test_without_invoices_a_customer_and_a_moment_are_one(tmp_path) -> None:
    data = transactions(tmp_path, shop().drop_columns("Invoice")).dataset
    named = [
        (u, t, s)
        for u, t, s in zip(*(data.events[n].to_pylist() for n in ("user_id", "timestamp", "session_id")), strict=True)
    ]
    assert len({s for _, _, s in named}) == len({(u, t) for u, t, _ in named})


@pytest.mark.parametrize(
    ("column", "renamed", "message"),
    [
        ("StockCode", "StokCode", "no column for item_id; the nearest is 'StokCode'; say --map item_id=StokCode"),
        ("InvoiceDate", "when", "no column for timestamp; columns: .*; say --map timestamp=COLUMN"),
    ],
)
def test_a_missing_column(tmp_path, column: str, renamed: str, message: str) -> None:
    table = shop()
    with pytest.raises(SchemaError, match=message):
        transactions(tmp_path, table.rename_columns([renamed if c == column else c for c in table.column_names]))


def test_neither_invoice_nor_customer(tmp_path) -> None:
    with pytest.raises(SchemaError, match="no column for the invoice nor the customer"):
        transactions(tmp_path, shop().drop_columns(["Invoice", "Customer ID"]))


@pytest.mark.skipif("MEDLEY_DATA" not in os.environ, reason="set MEDLEY_DATA to the folder of real data")
def test_online_retail() -> None:
    path = Path(os.environ["MEDLEY_DATA"]) / "online_retail" / "transactions.parquet"
    begin = time.process_time()
    imported = read_transactions([path], Options(client="Country"), DataSettings(), 0)
    assert time.process_time() - begin < 20
    data, raw = imported.dataset, pq.read_table(path)
    assert data.truth is not None
    assert (len(data.events), len(imported.quarantine)) == (50_000, 0)
    quantity, price = raw["Quantity"].to_numpy(), raw["UnitPrice"].to_numpy()
    usable = np.flatnonzero((quantity > 0) & (price > 0))
    kept = usable[-50_000:]  # the file is in time order
    assert data.truth["item_id"].to_pylist() == raw["StockCode"].take(pa.array(kept)).to_pylist()
    assert data.events["client_id"].to_pylist() == raw["Country"].take(pa.array(kept)).to_pylist()
    assert data.facts["lines_left_out"] == {
        "cancelled": int((quantity <= 0).sum()),
        "without a price": int(((quantity > 0) & (price <= 0)).sum()),
    }
    history = defaultdict(list)
    for customer, invoice, item in zip(
        *(raw[n].take(pa.array(usable)).to_pylist() for n in ("CustomerID", "InvoiceNo", "StockCode")), strict=True
    ):
        history[customer].append((invoice, item))
    for row in (0, 20_000, 40_000, 49_999):
        event = data.events.slice(row, 1).to_pylist()[0]
        if event["user_id"] is None:
            continue
        mine = history[int(event["user_id"])]
        place = next(i for i, (invoice, _) in enumerate(mine) if invoice == event["session_id"])
        distinct = list(dict.fromkeys(item for _, item in reversed(mine[:place])))
        assert json.loads(dict(event["context"])["recent"]) == distinct[:10][::-1]
    baskets = defaultdict(set)
    for event, item in zip(data.events["session_id"].to_pylist(), data.truth["item_id"].to_pylist(), strict=True):
        baskets[event].add(item)
    for row in range(0, 50_000, 97):
        event = data.events.slice(row, 1).to_pylist()[0]
        bought = data.truth["item_id"][row].as_py()
        assert len(set(event["candidates"])) == 10
        assert set(event["candidates"]) & baskets[event["session_id"]] == {bought}
