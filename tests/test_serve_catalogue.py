"""A client's catalogue: changes over a version's items cost what they change, and never touch what was there."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.features.feature_map import FeatureMap
from cluster.config import FeatureSettings
from cluster.records import ITEMS, item_table
from serve.decisions import catalogue as catalogues
from tests.features_samples import shop

DATA = shop(rows=300, items=14)
MAPS = {
    kind: FeatureMap.fit(DATA, np.arange(300), FeatureSettings.model_validate({"kind": kind, "map": name}), 0)
    for kind, name in (("joint", "hashed"), ("arms", "auto"))
}
BODIES: list[dict[str, Any]] = [
    {"title": "a red lamp", "category": "k1", "brand": "b2", "price": 3.5, "attributes": {"style": "a"}},
    {"title": "blue tea", "category": "new", "provider_id": "p1", "embedding": [0.5] * 8},
    {},
]
CONTEXT = {"recent": ["i2", "n1", "i7"], "device": "mobile"}


def body(which: int | None) -> str | None:
    return None if which is None else json.dumps(BODIES[which])


def rebuilt(feature_map: FeatureMap, ids: tuple[str, ...], bodies: dict[str, str]) -> FeatureMap:
    """The slow way: one table of all items, in one piece."""
    rows = {row["item_id"]: row for row in DATA.items.to_pylist()} | {
        row["item_id"]: row for row in item_table(bodies).to_pylist()
    }
    return feature_map.with_items(pa.Table.from_pylist([rows[item_id] for item_id in ids], ITEMS))


@pytest.mark.parametrize("kind", ["joint", "arms"])
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["i2", "i7", "i13", "n1", "n2"]), st.sampled_from([None, 0, 1, 2]))))
def test_changes_one_by_one_are_changes_at_once(kind: str, steps: list[tuple[str, int | None]]) -> None:
    base = catalogues.of_version(MAPS[kind], pa.table({"item_id": MAPS[kind].item_ids}))
    last: dict[str, str | None] = {}
    one_by_one = base
    for revision, (item_id, which) in enumerate(steps, 1):
        last.pop(item_id, None)
        last[item_id] = body(which)
        one_by_one = catalogues.changed(one_by_one, {item_id: body(which)}, revision)
    kept = [name for name in MAPS[kind].item_ids if name not in last]
    expected = (*kept, *(name for name, made in last.items() if made is not None))
    at_once = catalogues.changed(base, last, len(steps))
    whole = rebuilt(MAPS[kind], expected, {name: made for name, made in last.items() if made is not None})
    for found in (one_by_one, at_once):
        assert found.ids == expected
        assert len(found) == len(expected)
        assert [name in found for name in (*MAPS[kind].item_ids, "n1", "n2", "never")] == [
            name in expected for name in (*MAPS[kind].item_ids, "n1", "n2", "never")
        ]
        names = [*expected, "never"]
        for user in ("u1", None):
            features, slow = found.feature_map.features(CONTEXT, names, user), whole.features(CONTEXT, names, user)
            same = at_once.feature_map.features(CONTEXT, names, user)  # a replay takes all changes at once
            np.testing.assert_array_equal(features.phi_KD, same.phi_KD)
            for field in ("phi_KD", "arm_K", "item_K", "key_K", "context_X"):
                np.testing.assert_allclose(getattr(features, field), getattr(slow, field), rtol=0, atol=1e-12)
    assert base.ids == MAPS[kind].item_ids


def test_a_put_item_leaves_the_others_as_they_were() -> None:
    """One PUT once made every other item of the catalogue an unknown one."""
    base = catalogues.of_version(MAPS["joint"], pa.table({"item_id": MAPS["joint"].item_ids}))
    more = catalogues.changed(base, {"n1": body(0)}, 1)
    before = base.feature_map.features({}, ["i1", "i5"], None)
    after = more.feature_map.features({}, ["i1", "i5"], None)
    np.testing.assert_array_equal(before.phi_KD, after.phi_KD)
    assert after.item_K.tolist() == [1, 5]
    assert more.feature_map.fingerprint == base.feature_map.fingerprint
    assert np.shares_memory(more.feature_map.tables.static_IS.base, base.feature_map.tables.static_IS)  # type: ignore[union-attr]
