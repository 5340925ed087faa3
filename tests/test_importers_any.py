"""Whatever the columns hold, an import ends in a data set that keeps the contract or in one clear error."""

import tempfile
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import DataSettings
from cluster.errors import DataError
from cluster.faults import event_faults
from cluster.importers.formats import FORMATS
from cluster.importers.imported import Options
from cluster.records import EVENTS

ROWS = 6
KINDS = {
    pa.int64(): st.integers(-(2**62), 2**62),
    pa.int8(): st.integers(0, 3),
    pa.float64(): st.floats(),
    pa.string(): st.sampled_from(["a", "b", "1", "2025-01-01", "", " ", "é", "nan", '["a"]', "{", "12/1/2010 8:26"]),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(date(1900, 1, 1), date(2200, 1, 1)),
    pa.timestamp("ns"): st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    pa.decimal128(6, 2): st.decimals(Decimal(0), Decimal(99), places=2),
    pa.list_(pa.string()): st.lists(st.sampled_from(["a", "b"]), max_size=3),
    pa.list_(pa.float64()): st.lists(st.floats(), max_size=2),
    pa.binary(): st.binary(max_size=3),
    pa.null(): st.none(),
}
NAMES = {
    "native": ["time", "item", "reward", "user", "propensity", "candidates", "position", "context", "x"],
    "table": ["label", "x", "y", "timestamp"],
    "transactions": ["invoice", "sku", "date", "customer_id", "quantity", "price", "title", "category", "x"],
    "open-bandit": ["timestamp", "item_id", "click", "propensity_score", "position", "user_item_affinity", "x"],
}


PLAUSIBLE = {
    "time": pa.timestamp("ns"),
    "timestamp": pa.date32(),
    "date": pa.int64(),
    "item": pa.string(),
    "item_id": pa.int8(),
    "sku": pa.int8(),
    "label": pa.bool_(),
    "reward": pa.float64(),
    "click": pa.bool_(),
    "propensity_score": pa.decimal128(6, 2),
    "invoice": pa.int8(),
    "candidates": pa.null(),
    "context": pa.null(),
}


@st.composite
def columns(draw: st.DrawFn, names: list[str]) -> pa.Table:
    """One column of any type at all, the others of one that can be read, so that many imports succeed."""
    arrays = []
    numbers = [pa.int8(), pa.float64(), pa.decimal128(6, 2), pa.null()]
    astray = draw(st.sampled_from(names))
    for name in names:
        fitting = [PLAUSIBLE[name]] if name in PLAUSIBLE else numbers
        kind = draw(st.sampled_from(list(KINDS) if name == astray else fitting))
        values = draw(st.lists(st.none() | KINDS[kind], min_size=ROWS, max_size=ROWS))
        arrays.append(pa.array(values, kind))
    return pa.table(arrays, names=names)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_columns(name: str, data: st.DataObject) -> None:
    table = data.draw(columns(NAMES[name]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.parquet"
        pq.write_table(table, path)
        try:
            imported = FORMATS[name]([path], Options(), DataSettings(candidates=3), 0)
        except DataError:
            return
    events = imported.dataset.events
    assert events.schema.equals(EVENTS)
    events.validate(full=True)
    assert event_faults(events, imported.dataset.items).good_N.all()
    assert len(imported.quarantine) + len(events) <= ROWS
