import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.config import DataSettings
from cluster.errors import SchemaError
from cluster.importers.imported import Imported, Options
from cluster.importers.open_bandit import read_open_bandit

HEADER = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1," + ",".join(
    f"user-item_affinity_{k}" for k in range(3)
)
LOG = f"""{HEADER}
0,2019-11-24 00:00:20.000000+00:00,2,3,0,0.3333,abc,def,0.0,0.0,0.0
1,2019-11-24 00:00:18.000000+00:00,0,1,1,0.25,abc,ghi,1.0,0.0,3.0
2,2019-11-24 00:00:30.000000+00:00,9,1,1,0.25,abc,ghi,0.0,0.0,0.0
"""
ITEMS = """,item_id,item_feature_0,item_feature_1
0,0,-0.5,aa
1,1,0.25,bb
2,2,1.5,aa
"""


def published(tmp_path: Path, log: str = LOG) -> Path:
    (tmp_path / "men.csv").write_text(log)
    (tmp_path / "item_context.csv").write_text(ITEMS)
    return tmp_path / "men.csv"


def bandit(*paths: Path) -> Imported:
    return read_open_bandit(paths, Options(), DataSettings(), 0)


def test_the_published_layout(tmp_path) -> None:
    imported = bandit(published(tmp_path))
    events = imported.dataset.events
    assert events["item_id"].to_pylist() == ["0", "2"]
    assert events["position"].to_pylist() == [1, 3]
    assert events["propensity"].to_pylist() == [0.25, 0.3333]
    assert events["reward"].to_pylist() == [1.0, 0.0]
    assert events["candidates"].to_pylist() == [["0", "1", "2"]] * 2
    context = [{k: json.loads(v) for k, v in row} for row in events["context"].to_pylist()]
    assert context == [
        {"user_feature_0": "abc", "user_feature_1": "ghi", "affinity": ["0", "2"]},
        {"user_feature_0": "abc", "user_feature_1": "def"},
    ]
    assert imported.dataset.items["attributes"].to_pylist()[1] == [
        ("item_feature_0", "0.25"),
        ("item_feature_1", '"bb"'),
    ]
    assert imported.quarantine["reason"].to_pylist() == ["item_id: expected an item of the catalogue, found '9'"]
    assert imported.dataset.facts["out_of_order"] == 1


def test_a_log_without_its_items(tmp_path) -> None:
    path = published(tmp_path)
    (tmp_path / "item_context.csv").unlink()
    imported = bandit(path)
    assert imported.dataset.items["item_id"].to_pylist() == ["0", "2", "9"]
    assert "no table of items" in imported.dataset.facts["notes"][-1]


def test_propensities_are_needed(tmp_path) -> None:
    log = LOG.replace("propensity_score", "propensty_scor")
    with pytest.raises(SchemaError, match="no column for propensity; the nearest is 'propensty_scor'"):
        bandit(published(tmp_path, log))


@pytest.mark.skipif("MEDLEY_DATA" not in os.environ, reason="set MEDLEY_DATA to the folder of real data")
@pytest.mark.parametrize(("name", "clicks"), [("random_men", 46), ("bts_men", 69)])
def test_the_parquet_beside_the_design(name: str, clicks: int) -> None:
    folder = Path(os.environ["MEDLEY_DATA"]) / "open_bandit"
    imported = bandit(folder / f"{name}.parquet", folder / "items_men.parquet")
    raw = pq.read_table(folder / f"{name}.parquet")
    events, items = imported.dataset.events, imported.dataset.items
    assert (len(events), len(items), len(imported.quarantine)) == (10_000, 34, 0)
    assert sum(events["reward"].to_pylist()) == clicks
    assert events["propensity"].to_pylist() == raw["propensity_score"].to_pylist()
    assert events["position"].cast(pa.int8()).equals(raw["position"])
    liked = [[str(k) for k, v in enumerate(row) if v] for row in raw["user_item_affinity"].to_pylist()]
    assert [json.loads(dict(row).get("affinity", "[]")) for row in events["context"].to_pylist()] == liked
    assert {k for row in items["attributes"].to_pylist() for k, _ in row} == {f"item_feature_{i}" for i in range(4)}
    assert imported.dataset.facts["columns_left_out"].keys() == {"policy", "campaign"}
